//! The Markdown files of the repository that tell somebody something.

use std::path::{Path, PathBuf};

/// The documents at the root of the repository.
const AT_THE_ROOT: [&str; 5] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
/// The folder of the book's pages.
pub(super) const BOOK: &str = "docs/src/";

/// A Markdown file.
#[derive(Debug)]
pub(super) struct DocPage {
    /// The path below the root of the repository.
    pub(super) path: String,
    /// The whole text.
    pub(super) text: String,
}

/// Reads the documents at the root and the pages of the book.
pub(super) fn all() -> Vec<DocPage> {
    let mut paths: Vec<String> = AT_THE_ROOT.iter().map(|&path| path.to_owned()).collect();
    collect(&root().join(BOOK), &mut paths);
    paths.sort();
    paths.into_iter().map(|path| DocPage { text: read(&path), path }).collect()
}

/// Reads the documents whose code blocks are checked: all of them.
pub(super) fn with_code() -> Vec<DocPage> {
    all()
}

/// Reads a file of the repository.
pub(super) fn read(path: &str) -> String {
    let file = root().join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The folder of the repository.
pub(super) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the folder that holds this crate")
}

fn collect(folder: &Path, paths: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the book") {
        let path = entry.expect("a folder that can be read").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            let below = path.strip_prefix(root()).expect("it lies below the root");
            paths.push(below.to_str().expect("paths of pages are UTF-8").to_owned());
        }
    }
}
