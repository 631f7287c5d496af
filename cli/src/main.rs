//! The `headwater` binary.

fn main() -> std::process::ExitCode {
    headwater::main()
}
