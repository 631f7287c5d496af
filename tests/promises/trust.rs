//! Modules of strangers: the costs of compiling them are bounded, and only trusted ones run.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use headwater_tests::agent::{PROGRAM, TestAgent};
use headwater_tests::process::{built_program, eventually};

/// Returns an input and an output that nothing answers at, and two pipelines: `bomb.wasm` and a good module.
fn config(modules: &str) -> String {
    let pipeline = |name: &str, module: &str| {
        format!(
            "[pipeline.{name}]\ninput = \"plant\"\noutput = \"central\"\n\
             transform = [{{ module = \"modules/{module}.wasm\", settings = {{ field = \"t\" }} }}]\n\n"
        )
    };
    format!(
        "{modules}\n[input.plant]\nmqtt = {{ url = \"mqtt://127.0.0.1:9\", topics = [\"#\"] }}\n\n\
         [output.central]\nhttp = {{ url = \"http://127.0.0.1:9\" }}\n\n{}{}",
        pipeline("bombed", "bomb"),
        pipeline("good", "celsius"),
    )
}

/// Encodes a number in LEB128.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).expect("it is seven bits");
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&leb128(bytes.len()), bytes].concat()
}

/// Returns a component whose only content is a core module with this many functions of this many steps each.
/// A step branches and mixes two of a hundred variables, all of which live to the end.
fn bomb(functions: usize, steps: usize) -> Vec<u8> {
    const VARIABLES: u8 = 100;
    let mut body = vec![1, VARIABLES, 0x7f];
    for step in 0..steps {
        let variable = |number: usize| u8::try_from(number % 99).expect("it is below 99");
        let one = variable(step);
        let other = variable(step * 7);
        body.extend([0x20, one, 0x04, 0x40, 0x20, other, 0x20, one, 0x6a, 0x21, other, 0x0b]);
    }
    body.push(0x0b);
    let section = |id: u8, content: Vec<u8>| [vec![id], sized(&content)].concat();
    let code = [leb128(functions), sized(&body).repeat(functions)].concat();
    let core = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, vec![1, 0x60, 0, 0]),
        section(3, [leb128(functions), vec![0; functions]].concat()),
        section(10, code),
    ];
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, core.concat())].concat()
}

/// Prepares the home of an agent with the bomb in it.
fn home_with_bomb(modules: &str, bomb: &[u8]) -> TestAgent {
    let agent = TestAgent::prepare(&config(modules));
    fs::write(agent.home().join("modules/bomb.wasm"), bomb).expect("a writable folder");
    agent
}

/// Runs `headwater check`, which must refuse the configuration, and returns its message.
#[track_caller]
fn check_refusal(agent: &TestAgent) -> String {
    let Output { status, stderr, .. } = agent.run_command(&["check"]);
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(2), "{text}");
    text
}

#[test]
fn a_bomb_for_the_compiler_is_stopped_at_its_deadline() {
    let agent = home_with_bomb(
        "[modules]\ncompile_deadline = \"10s\"\ncompile_memory_max = \"8 GiB\"\n",
        &bomb(20_000, 200),
    );
    let started = Instant::now();
    let text = check_refusal(&agent);
    let took = started.elapsed();
    println!("deadline 10 s: stopped after {took:?}");
    assert!(text.contains("modules/bomb.wasm: it took longer than 10s: raise `compile_deadline`"), "{text}");
    assert!(text.contains("1 of the modules"), "the other one is good: {text}");
    assert!(took < Duration::from_secs(90), "{took:?}");
}

#[test]
fn a_bomb_for_the_compiler_is_stopped_at_its_memory() {
    let agent = home_with_bomb(
        "[modules]\ncompile_deadline = \"10m\"\ncompile_memory_max = \"64 MiB\"\n",
        &bomb(1, 500_000),
    );
    let started = Instant::now();
    let text = check_refusal(&agent);
    println!("64 MiB: stopped after {:?}", started.elapsed());
    assert!(text.contains("modules/bomb.wasm: it took more memory than 64 MiB"), "{text}");
    assert!(text.contains("raise `compile_memory_max`") && text.contains("1 of the modules"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_compiles_is_bounded_and_ends_with_the_agent() {
    let bounds = "[modules]\ncompile_deadline = \"10m\"\ncompile_memory_max = \"8 GiB\"\n";
    let mut agent = home_with_bomb(bounds, &bomb(20_000, 200));
    for kill in [false, true] {
        agent.environment([("SECRET", "hidden".to_owned())]);
        agent.spawn();
        let parent = agent.id().expect("it runs");
        let compiler = eventually("a compiler to run", Duration::from_secs(60), async || {
            // Before the child has the whole module, the end of its input would end it as well.
            child_of(parent).filter(|it| nice(*it) == Some(19) && user_ticks(*it) > Some(100))
        })
        .await;
        let of = |file: &str| fs::read_to_string(format!("/proc/{compiler}/{file}")).unwrap();
        let limits = of("limits");
        let data = limits.lines().find(|line| line.starts_with("Max data size")).unwrap();
        assert!(data.contains(&(8_u64 << 30).to_string()), "{data}");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(5), Some("0"), "it leaves nothing behind: {core}");
        assert_eq!(of("environ"), "", "the agent's secrets are not the compiler's");
        if kill {
            agent.kill9();
        } else {
            let started = Instant::now();
            assert!(agent.stop().await.success());
            println!("stopped in {:?} while a module compiled", started.elapsed());
        }
        let gone = || !Path::new(&format!("/proc/{compiler}")).exists() || state(compiler) == Some('Z');
        eventually("the compiler to end", Duration::from_secs(10), async || gone().then_some(())).await;
    }
}

/// Runs `headwater module …` in the agent's home and returns its output.
#[track_caller]
fn module_command(agent: &TestAgent, command: &[&str]) -> String {
    let mut program = std::process::Command::new(built_program(PROGRAM));
    let done = program.arg("module").args(command).current_dir(agent.home()).output().expect("it starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// Makes a private key in the agent's home, and returns the public one that goes with it.
fn make_keys(agent: &TestAgent, name: &str) -> String {
    module_command(agent, &["keygen", name])
}

/// Returns one pipeline with this module.
fn single_pipeline(modules: &str, module: &str) -> String {
    let both = config(modules);
    let (head, pipelines) = both.split_once("[pipeline.bombed]").expect("it is there");
    let (_, good) = pipelines.split_once("[pipeline.good]").expect("it is there");
    format!("{head}[pipeline.good]{good}").replace("modules/celsius.wasm", module)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_runs_what_was_compiled_and_signed_elsewhere_and_compiles_nothing() {
    let mut agent = TestAgent::prepare("");
    let own = make_keys(&agent, "own.key");
    let other = make_keys(&agent, "other.key");
    let compile = |target: &str, key: &str, output: &str| {
        let file = "modules/celsius.wasm";
        let output = ["-o", output, "--key", key];
        module_command(&agent, &[&["compile", file, "--target", target], &output[..]].concat());
    };
    let (here, there) = match std::env::consts::ARCH {
        "aarch64" => ("aarch64-unknown-linux-musl", "x86_64-unknown-linux-musl"),
        _ => ("x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"),
    };
    compile(here, "own.key", "own.cwasm");
    compile(here, "other.key", "other.cwasm");
    compile(there, "own.key", "there.cwasm");
    let mut changed = fs::read(agent.home().join("own.cwasm")).expect("it was written");
    *changed.last_mut().expect("it is not empty") ^= 1;
    fs::write(agent.home().join("changed.cwasm"), changed).expect("a writable folder");

    let trusting = format!("[modules]\nkeys = [{own:?}]\ncompile_deadline = \"1s\"\n");
    for (file, words) in [
        ("other.cwasm", "signed with none of `keys`"),
        ("changed.cwasm", "it is changed"),
        ("there.cwasm", "it is for another machine"),
    ] {
        agent.configure(&single_pipeline(&trusting, file));
        let text = check_refusal(&agent);
        assert!(text.contains(file) && text.contains(words), "{text}");
    }
    agent.configure(&single_pipeline("", "own.cwasm"));
    let text = check_refusal(&agent);
    assert!(text.contains("only with its maker's key in `keys`"), "{text}");
    assert_ne!(own, other);

    agent.configure(&single_pipeline(&trusting, "own.cwasm"));
    agent.spawn();
    let counts = eventually("the agent to answer", Duration::from_secs(60), async || {
        let metrics = agent.metrics().await.ok()?;
        Some(["modules", "precompiled_modules"].map(|it| metrics.of(&format!("compile_{it}"), "modules")))
    })
    .await;
    assert_eq!(counts, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mends_letters_is_trusted_and_compiled_like_a_pipelines_module() {
    let mut agent = TestAgent::prepare("");
    let own = make_keys(&agent, "own.key");
    fs::write(agent.home().join("modules/bomb.wasm"), bomb(20_000, 200)).expect("a writable folder");
    for name in ["bomb", "celsius"] {
        module_command(&agent, &["sign", &format!("modules/{name}.wasm"), "--key", "own.key"]);
    }
    let bounds = "compile_deadline = \"5s\"\ncompile_memory_max = \"8 GiB\"\n";
    agent.configure(&single_pipeline(
        &format!("[modules]\nkeys = [{own:?}]\n{bounds}"),
        "modules/celsius.wasm",
    ));
    agent.spawn();
    eventually("the agent to answer", Duration::from_secs(60), async || agent.metrics().await.ok()).await;
    let replay = |module: &str, more: &[&str]| {
        let command =
            ["dead-letters", "replay", "--all", "--module", module, "--settings", "{\"field\":\"t\"}"];
        let Output { status, stderr, .. } = agent.run_command(&[&command[..], more].concat());
        (status.success(), String::from_utf8_lossy(&stderr).into_owned())
    };
    let (_, text) = replay("modules/stats.wasm", &[]);
    assert!(text.contains("no signature can be read"), "{text}");
    let (_, text) = replay("modules/celsius.wasm", &["--digest", &format!("sha256:{}", "0".repeat(64))]);
    assert!(text.contains("expected sha256:000"), "{text}");
    let (_, text) = replay("https://127.0.0.1:9/x.wasm", &[]);
    assert!(text.contains("it is not pinned"), "{text}");
    let started = Instant::now();
    let (_, text) = replay("modules/bomb.wasm", &[]);
    println!("deadline 5 s: stopped after {:?}", started.elapsed());
    assert!(text.contains("it took longer than 5s: raise `compile_deadline`"), "{text}");
    let (is_good, text) = replay("modules/celsius.wasm", &[]);
    assert!(is_good, "{text}");
}

/// Returns the fields of `/proc/PID/stat` from the third on.
fn stat(process: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split_whitespace().map(str::to_owned).collect())
}

fn state(process: u32) -> Option<char> {
    stat(process)?.first()?.chars().next()
}

fn nice(process: u32) -> Option<i32> {
    stat(process)?.get(16)?.parse().ok()
}

/// Returns the computing time of a process, in hundredths of a second.
fn user_ticks(process: u32) -> Option<u64> {
    stat(process)?.get(11)?.parse().ok()
}

fn child_of(parent: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.into_iter().find(|id| stat(*id).is_some_and(|stat| stat[1] == parent.to_string()))
}
