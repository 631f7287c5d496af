//! Lists the files of transforms/languages, and the Rust SDK beside them, for `headwater module new`.

use std::env;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The files that the templates are made of, and their places in them.
const SOURCES: [(&str, &str); 4] = [
    ("languages", ""),
    ("languages/javascript/headwater.js", "typescript/headwater.js"),
    ("languages/javascript/headwater.d.ts", "typescript/headwater.d.ts"),
    ("sdk", "rust/headwater/sdk/"),
];

/// The files that a build leaves in a folder, and no template has.
const LEFT: [&str; 6] = [".tools", "node_modules", "target", "__pycache__", "Cargo.lock", ".gitkeep"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let transforms =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../transforms");
    let mut list = String::from("&[\n");
    for (folder, prefix) in SOURCES {
        let folder = transforms.join(folder).canonicalize()?;
        println!("cargo::rerun-if-changed={}", folder.display());
        let mut files = Vec::new();
        if folder.is_dir() {
            walk(&folder, &mut files)?
        } else {
            files.push(folder.clone())
        }
        files.sort();
        for file in files {
            let name = format!("{prefix}{}", file.strip_prefix(&folder).unwrap_or(&file).display());
            writeln!(list, "    ({name:?}, include_bytes!({file:?})),").map_err(io::Error::other)?;
        }
    }
    list.push(']');
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("templates.rs"), list)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if LEFT.contains(&&*name) || name.ends_with(".wasm") {
            continue;
        }
        if path.is_dir() { walk(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
