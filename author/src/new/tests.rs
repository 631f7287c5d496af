//! Every template is whole, and takes the name that it is given.

use super::*;
use headwater_agent::config::Project;

#[test]
fn every_language_has_both_kinds() {
    assert!(languages().contains(&"rust"), "{:?}", languages());
    for language in languages() {
        for kind in [WorldKind::Transform, WorldKind::Aggregate] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("scale");
            make(&folder, "scale", language, kind).unwrap();
            let project = Project::load(&folder).unwrap();
            assert_eq!((project.name.as_str(), project.kind), ("scale", kind), "{language}");
            for file in ["README.md", "wit/headwater.wit", ".gitignore", "samples/expected.ndjson"] {
                assert!(folder.join(file).is_file(), "{language}: no {file}");
            }
            let mode = fs::metadata(folder.join("build.sh")).unwrap().permissions().mode();
            assert_eq!(mode & 0o111, 0o111, "{language}");
            let readme = fs::read_to_string(folder.join("README.md")).unwrap();
            assert!(readme.lines().count() <= 40, "{language}");
        }
    }
}

#[test]
fn the_name_takes_the_place_of_the_examples() {
    let renamed =
        |text: &str| String::from_utf8(renamed(text.as_bytes(), "scale", WorldKind::Transform)).unwrap();
    assert_eq!(renamed("name = \"celsius\"\n"), "name = \"scale\"\n");
    assert_eq!(renamed("{\"name\": \"celsius\"}"), "{\"name\": \"scale\"}");
    assert_eq!(renamed("module celsius\n\ngo 1.24\n"), "module scale\n\ngo 1.24\n");
    assert_eq!(renamed("from = \"celsius\"\n"), "from = \"celsius\"\n", "a unit");
    assert_eq!(renamed_path("celsius.py", "scale", WorldKind::Transform), "scale.py");
    assert_eq!(renamed_path("src/lib.rs", "scale", WorldKind::Transform), "src/lib.rs");
}

#[test]
fn refuses_names_and_folders_that_will_not_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = make(folder.path(), "Scale", "rust", WorldKind::Transform).unwrap_err().to_string();
    assert!(error.contains("\"Scale\"") && error.contains("lower-case"), "{error}");
    let error = make(folder.path(), "headwater", "zig", WorldKind::Transform).unwrap_err().to_string();
    assert!(error.contains("\"headwater\"") && error.contains("another name"), "{error}");
    fs::write(folder.path().join("mine"), "").unwrap();
    let error = make(folder.path(), "scale", "rust", WorldKind::Transform).unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
