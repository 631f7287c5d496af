//! The modules of this repository, built, as bytes.
//!
//! They are components of the contract in `wit/`; their sources are a cargo workspace of its own
//! (`transforms/`), which the build script compiles for WebAssembly. The first build needs the
//! target `wasm32-unknown-unknown` and the registry, like any other.

include!(concat!(env!("OUT_DIR"), "/modules.rs"));
