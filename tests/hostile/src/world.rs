//! Questions for things outside of the sandbox.

use std::collections::HashMap;
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, process, thread};

/// Returns the answer to a question or the text of its refusal, and `None` for a text that is no question.
#[expect(clippy::disallowed_methods, reason = "it asks for what it is not to get, the host's clock too")]
pub(crate) fn ask(what: &str) -> Option<Result<String, String>> {
    Some(match what {
        "read-file" => fs::read_to_string("/etc/passwd").map_err(|error| error.to_string()),
        "write-file" => {
            fs::write("/tmp/hostile", "here").map(|()| String::new()).map_err(|error| error.to_string())
        }
        "list-files" => fs::read_dir("/").map(|_| String::new()).map_err(|error| error.to_string()),
        "connect" => {
            TcpStream::connect("127.0.0.1:1883").map(|_| String::new()).map_err(|error| error.to_string())
        }
        "environment" => {
            Ok(format!("{:?} {:?}", env::vars().collect::<Vec<_>>(), env::args().collect::<Vec<_>>()))
        }
        "clocks" => {
            let begun = Instant::now();
            let now = SystemTime::now();
            let since = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string());
            since.map(|since| format!("{since:?} {:?}", begun.elapsed()))
        }
        // The order of a hash map is random, so this many keys are never in the same order by accident.
        "random" => Ok(format!("{:?}", (0..50).map(|key| (key, ())).collect::<HashMap<_, _>>().keys())),
        "print" => {
            println!("hostile words");
            eprintln!("hostile last words");
            Ok("printed".to_owned())
        }
        "print-flood" => {
            (0..10_000).for_each(|line| println!("hostile line {line}"));
            Ok("printed".to_owned())
        }
        "sleep" => {
            thread::sleep(Duration::from_secs(3600));
            Ok("slept".to_owned())
        }
        "read-stdin" => {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line).map_err(|error| error.to_string())
        }
        "exit" => process::exit(7),
        _ => return None,
    })
}
