//! Builds the workspace of modules beside this crate and makes components of them.

use anyhow::{Context, Result, ensure};
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-unknown-unknown";

/// The target of modules that ask for WASI. Its linker makes the component.
const WASI_TARGET: &str = "wasm32-wasip2";

/// The modules: package, constant, and the constant's documentation. Those of `transforms/` come with the agent.
const MODULES: [(&str, &str, &str); 14] = [
    ("anomaly", "ANOMALY", "The transform `transforms/anomaly`."),
    ("cbor", "CBOR", "The transform `transforms/cbor`."),
    ("celsius", "CELSIUS", "The transform `transforms/celsius`."),
    ("deadband", "DEADBAND", "The transform `transforms/deadband`."),
    ("dedup", "DEDUP", "The transform `transforms/dedup`."),
    ("enrich", "ENRICH", "The transform `transforms/enrich`."),
    ("filter", "FILTER", "The transform `transforms/filter`."),
    ("select", "SELECT", "The transform `transforms/select`."),
    ("senml", "SENML", "The transform `transforms/senml`."),
    ("sparkplug", "SPARKPLUG", "The transform `transforms/sparkplug`."),
    ("stats", "STATS", "The aggregate `transforms/stats`."),
    ("hostile", "HOSTILE", "The transform `tests/hostile`, for tests."),
    ("hostile_aggregate", "HOSTILE_AGGREGATE", "The aggregate `tests/hostile/aggregate`, for tests."),
    ("hostile_stateful", "HOSTILE_STATEFUL", "The stateful transform `tests/hostile/stateful`, for tests."),
];

/// The files and folders that decide what comes out.
const SOURCES: [&str; 17] = [
    "transforms/Cargo.toml",
    "transforms/Cargo.lock",
    "transforms/sdk",
    "transforms/anomaly",
    "transforms/cbor",
    "transforms/celsius",
    "transforms/languages/rust",
    "transforms/deadband",
    "transforms/dedup",
    "transforms/enrich",
    "transforms/filter",
    "transforms/select",
    "transforms/senml",
    "transforms/sparkplug",
    "transforms/stats",
    "tests/hostile",
    "wit",
];

fn main() -> Result<()> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    require_target(TARGET)?;
    require_target(WASI_TARGET)?;
    build(&root, &out.join("target"), TARGET, &["--workspace"])?;
    build(&root, &out.join("target"), WASI_TARGET, &["--package", "headwater-hostile"])?;

    let built = out.join("target").join(TARGET).join("release");
    let mut constants = String::new();
    let mut shipped = String::new();
    for (name, constant, doc) in MODULES {
        let core = built.join(format!("headwater_{name}.wasm"));
        let component = out.join(format!("{name}.wasm"));
        fs::write(&component, encode(&core)?)?;
        declare(&mut constants, constant, doc, &component)?;
        if doc.contains("`transforms/") {
            write!(shipped, "({name:?}, {constant}), ")?;
        }
    }
    writeln!(constants, "/// Those that come with the agent: name and bytes.")?;
    writeln!(constants, "pub const SHIPPED: &[(&str, &[u8])] = &[{shipped}];")?;
    let core = built.join("headwater_celsius.wasm");
    declare(&mut constants, "CORE_MODULE", "A core module, which the agent refuses, for tests.", &core)?;
    let component = out.join("target").join(WASI_TARGET).join("release/headwater_hostile.wasm");
    declare(&mut constants, "HOSTILE_WASI", "The transform `tests/hostile`, built with WASI.", &component)?;
    fs::write(out.join("modules.rs"), constants)?;
    Ok(())
}

/// Makes sure that the compiler's standard library for WebAssembly is there, which rustup gets where rustup is there.
fn require_target(target: &str) -> Result<()> {
    if has_target(target)? {
        return Ok(());
    }
    let added = Command::new("rustup").args(["target", "add", target]).status();
    ensure!(
        matches!(added, Ok(status) if status.success()) && has_target(target)?,
        "the target {target} of the Rust compiler is missing, and `rustup target add {target}` \
         failed: run it where the network is reachable, or install your distribution's package \
         (Debian: libstd-rust-dev-wasm32, Fedora: rust-std-static-{target})",
    );
    Ok(())
}

fn has_target(target: &str) -> Result<bool> {
    let rustc = env::var_os("RUSTC").context("RUSTC is not set: run this through cargo")?;
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", target]).output()?;
    Ok(Path::new(String::from_utf8(output.stdout)?.trim()).is_dir())
}

fn build(root: &Path, folder: &Path, target: &str, packages: &[&str]) -> Result<()> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root.join("transforms"))
        .args(["build", "--release", "--locked", "--target", target])
        .args(packages)
        .arg("--target-dir")
        .arg(folder)
        // The same module, and so the same digest, wherever it is built.
        .env("CARGO_ENCODED_RUSTFLAGS", remapped(root));
    // The wishes of the outer build (clippy, coverage, a cross build) are not for the modules.
    for name in [
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_TARGET_DIR",
        "CARGO_TARGET_DIR",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
    ] {
        cargo.env_remove(name);
    }
    let status = cargo.status().context("failed to run cargo for the modules")?;
    ensure!(status.success(), "failed to build the modules in transforms/: see cargo's output above");
    Ok(())
}

fn remapped(root: &Path) -> String {
    let mut flags = vec![format!("--remap-path-prefix={}/=", root.display())];
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(home) = home.or_else(|| Some(env::home_dir()?.join(".cargo"))) {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    flags.join("\u{1f}")
}

fn encode(core: &Path) -> Result<Vec<u8>> {
    let module = fs::read(core).with_context(|| format!("failed to read {}", core.display()))?;
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.encode())
        .with_context(|| format!("failed to make a component of {}", core.display()))
}

fn declare(out: &mut String, constant: &str, doc: &str, file: &Path) -> Result<()> {
    writeln!(out, "/// {doc}\npub const {constant}: &[u8] = include_bytes!({file:?});")?;
    writeln!(out, "/// Where [`{constant}`] is as a file, on the machine of the build.")?;
    writeln!(out, "pub const {constant}_PATH: &str = {file:?};")?;
    Ok(())
}
