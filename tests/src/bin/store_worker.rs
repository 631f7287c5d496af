//! Works on a store until it is killed: see `headwater_tests::commits`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("store_worker: the state folder is the argument");
        return ExitCode::FAILURE;
    };
    match headwater_tests::commits::worker::work(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store_worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
