//! What a file is, without running it.

use super::load::{check_preamble, read};
use super::trust::Digest;
use super::{Error, Host};
use std::path::Path;
use std::time::{Duration, Instant};
use wasmtime::component::types::ComponentItem;

/// What a file is.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// `sha256:<hex>` of the file.
    pub digest: String,
    /// Its size.
    pub bytes: usize,
    /// What it wants, as it names it.
    pub imports: Vec<String>,
    /// What it offers: its functions, and interfaces.
    pub exports: Vec<String>,
    /// How long it took to compile, or to load from the cache.
    pub compiled_in: Duration,
}

impl Host {
    /// Reads and compiles a component of any world.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::TooLarge`], [`Error::NotAComponent`].
    pub fn inspect(&self, file: &Path) -> Result<Inspection, Error> {
        let wasm = read(file)?;
        check_preamble(&wasm, file)?;
        let digest = Digest::of(&wasm);
        let started = Instant::now();
        let component = self.component(&wasm, digest, file)?;
        let compiled_in = started.elapsed();
        let found = component.component_type();
        let imports = found.imports(&self.engine).map(|(name, _)| name.to_owned()).collect();
        let exports = found
            .exports(&self.engine)
            .filter(|(_, item)| {
                matches!(item.ty, ComponentItem::ComponentFunc(_) | ComponentItem::ComponentInstance(_))
            })
            .map(|(name, _)| name.to_owned())
            .collect();
        Ok(Inspection { digest: digest.to_string(), bytes: wasm.len(), imports, exports, compiled_in })
    }
}
