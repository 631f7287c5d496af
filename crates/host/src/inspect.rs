//! Inspecting a file without running it.

use super::load::{check_preamble, read};
use super::trust::ModuleDigest;
use super::{ModuleError, ModuleHost};
use std::path::Path;
use std::time::{Duration, Instant};
use wasmtime::component::types::ComponentItem;

/// The facts about a module's file.
#[derive(Clone, Debug)]
pub struct ModuleInspection {
    /// The digest of the file, `sha256:<hex>`.
    pub digest: String,
    /// The size of the file.
    pub bytes: usize,
    /// The names of its imports.
    pub imports: Vec<String>,
    /// The names of its exports: functions and interfaces.
    pub exports: Vec<String>,
    /// The time that it took to compile, or to load from the cache.
    pub compiled_in: Duration,
}

impl ModuleHost {
    /// Reads and compiles a component of any world.
    ///
    /// # Errors
    /// [`ModuleError::Read`], [`ModuleError::TooLarge`], [`ModuleError::NotAComponent`].
    pub fn inspect(&self, file: &Path) -> Result<ModuleInspection, ModuleError> {
        let wasm = read(file)?;
        check_preamble(&wasm, file)?;
        let digest = ModuleDigest::of(&wasm);
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
        Ok(ModuleInspection { digest: digest.to_string(), bytes: wasm.len(), imports, exports, compiled_in })
    }
}
