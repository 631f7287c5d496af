//! The agent's own program, under a name that the tests find beside their own.

fn main() -> std::process::ExitCode {
    headwater::main()
}
