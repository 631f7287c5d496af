//! Writes the modules that come with the agent into a folder:
//!
//!     cargo run -p headwater-bundle -- FOLDER

use anyhow::{Context, Result};
use std::path::PathBuf;

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.context("name the folder that the modules go to")?;
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    for (name, bytes) in headwater_bundle::SHIPPED {
        let file = folder.join(format!("{name}.wasm"));
        std::fs::write(&file, bytes).with_context(|| format!("failed to write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}
