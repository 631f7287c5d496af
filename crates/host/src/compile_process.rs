//! Compiling in a process of its own: the harm that a hostile or merely large module does to the compiler
//! stays there.
//!
//! The agent starts its own program with the hidden command `compile-module`, gives it the module
//! and takes the compiled code back, over pipes; environment and secrets stay here. **Bounds**: time
//! ([`HostConfig::compile_deadline`]), memory ([`HostConfig::compile_memory_max`], the process's
//! `RLIMIT_DATA`), one process at a time, and the lowest priority. What goes over one of them is
//! killed and named; nothing else is touched.
//!
//! A crash, or the end, of the agent takes the process with it (`PR_SET_PDEATHSIG`): it never
//! outlives the thread that waits for it.

use super::HostConfig;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use wasmtime::Engine;

/// The command's name.
pub const COMMAND: &str = "compile-module";

/// The program that runs, also after another was installed in its place.
const PROGRAM: &str = "/proc/self/exe";

/// The bytes kept of the compiler's words.
const WORDS_BYTES_MAX: usize = 4 << 10;

/// The exit code for a module that cannot be compiled by anybody: `EX_DATAERR` of sysexits.h.
const EXIT_REFUSED: u8 = 65;

/// The interval of looking at whether the process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The reason why there is no compiled code.
#[derive(Debug)]
pub(super) enum CompileFailure {
    /// The compiler refuses the module, in these words.
    Refused(String),
    /// A bound was met, or the compiler failed: the cause, and the remedy.
    Failed(String),
}

/// Compiles a module in a process of its own.
pub(super) fn compile(wasm: &[u8], config: &HostConfig) -> Result<Vec<u8>, CompileFailure> {
    let failed = |error: io::Error| CompileFailure::Failed(format!("cannot start the compiler: {error}"));
    let mut child = Command::new(PROGRAM)
        .arg0("headwater")
        .args([COMMAND, "--memory-bytes-max", &config.compile_memory_max.to_string()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let input = child.stdin.take();
    let output = child.stdout.take();
    let words = child.stderr.take();
    thread::scope(|scope| {
        // A compiler that ends early has said why, so a broken pipe is none of the faults here.
        scope.spawn(move || input.map(|mut input| input.write_all(wasm)));
        let code = scope.spawn(move || read(output, config.compile_memory_max));
        let words = scope.spawn(move || read(words, WORDS_BYTES_MAX));
        let ended = wait(&mut child, config.compile_deadline).map_err(failed)?;
        let code = code.join().unwrap_or_default();
        let words = words.join().unwrap_or_default();
        judge(ended, code, String::from_utf8_lossy(&words).trim(), config)
    })
}

/// Reads all, up to the bound; the rest is cut off, and makes the writer fail.
fn read(from: Option<impl Read>, bytes_max: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    match from.map(|from| from.take(bytes_max as u64).read_to_end(&mut bytes)) {
        Some(Ok(_)) => bytes,
        _ => Vec::new(),
    }
}

/// Waits for the process's end; `None` at the deadline: then it was killed.
fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn judge(
    ended: Option<ExitStatus>,
    code: Vec<u8>,
    words: &str,
    config: &HostConfig,
) -> Result<Vec<u8>, CompileFailure> {
    const ELSEWHERE: &str = "or take a smaller module";
    let failed = |reason: String| Err(CompileFailure::Failed(reason));
    let Some(status) = ended else {
        let deadline = config.compile_deadline;
        return failed(format!(
            "it took longer than {deadline:?}: raise `compile_deadline` in [modules], {ELSEWHERE}"
        ));
    };
    let memory = ["memory allocation of", "out of memory", "Cannot allocate memory"];
    if status.success() && !code.is_empty() {
        Ok(code)
    } else if memory.iter().any(|sign| words.contains(sign)) || status.signal() == Some(9) {
        let mib = config.compile_memory_max >> 20;
        failed(format!(
            "it took more memory than {mib} MiB, or than there is: raise `compile_memory_max` in [modules], {ELSEWHERE}"
        ))
    } else if status.code() == Some(EXIT_REFUSED.into()) {
        Err(CompileFailure::Refused(words.to_owned()))
    } else {
        failed(format!("the compiler failed ({status}): {words}: take another version of the module"))
    }
}

/// Is the other side: bounds itself, reads a module from standard input, writes its code to standard output.
pub fn child(memory_bytes_max: u64) -> ExitCode {
    let compiled = bind(memory_bytes_max).map_err(|error| (1, format!("cannot bound itself: {error}")));
    match compiled.and_then(|()| compile_input()) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, words)) => {
            eprintln!("{words}");
            ExitCode::from(code)
        }
    }
}

fn bind(memory_bytes_max: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, Signal};
    use rustix::process::{getrlimit, nice, set_parent_process_death_signal, setrlimit};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let at_most = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // Whoever started the agent may have set less already, which cannot be raised.
    let already = getrlimit(Resource::Data).maximum.unwrap_or(u64::MAX);
    setrlimit(Resource::Data, at_most(memory_bytes_max.min(already)))?;
    setrlimit(Resource::Core, at_most(0))?;
    // Both are a courtesy to the rest of the machine, and may be forbidden.
    nice(19).ok();
    std::fs::write("/proc/self/oom_score_adj", "1000").ok();
    Ok(())
}

fn compile_input() -> Result<(), (u8, String)> {
    let failed = |error: String| (1, error);
    let mut wasm = Vec::new();
    io::stdin().lock().read_to_end(&mut wasm).map_err(|error| failed(error.to_string()))?;
    let engine = Engine::new(&super::load::settings()).map_err(|error| failed(format!("{error:#}")))?;
    let code = engine.precompile_component(&wasm).map_err(|error| (EXIT_REFUSED, format!("{error:#}")))?;
    io::stdout().lock().write_all(&code).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_from_a_compiler_than_its_bound() {
        assert_eq!(read(Some(io::repeat(7).take(1000)), 10), [7; 10]);
    }
}
