//! `cargo run --release --bin soak -- --help`: builds the soak of the tests crate and becomes it.
//!
//! It is a program of its own without any dependency, because it is among the default members of the
//! workspace: there the soak itself would turn on the agent's fail points for `cargo build`.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--quiet", "-p", "headwater-tests", "--bin", "soak_rounds"]);
    command.args((!cfg!(debug_assertions)).then_some("--release"));
    let error = command.arg("--").args(std::env::args_os().skip(1)).exec();
    eprintln!("soak: failed to run cargo: {error}");
    ExitCode::FAILURE
}
