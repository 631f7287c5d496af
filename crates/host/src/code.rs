//! The one place where compiled code becomes callable without a look inside.

use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads compiled code. The caller vouches for it: the compiler of this engine's version made it, and it is
/// unchanged. The cache knows that by the agent's seal, and a compiling process by the pipe to it.
pub(super) fn trusted(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    #[expect(
        unsafe_code,
        reason = "loading compiled code is unsafe by nature: here it is what this agent's compiler \
                  wrote, for this engine, as its callers show"
    )]
    // SAFETY: the code is the unchanged output of `Component::serialize` or of
    // `Engine::precompile_component`; wasmtime itself refuses that of another version or processor.
    unsafe {
        Component::deserialize(engine, code)
    }
}
