//! The commands of a page, run in order by one shell in an empty folder.
//!
//! The shell has process ids and, unless the page needs a registry, a network of its own: what it starts ends with
//! it, and the ports that a page names are free.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use headwater_tests::agent::PROGRAM;
use headwater_tests::process::{ChildProcess, built_program, installed_program};

use super::blocks::{BlockRole, CodeBlock};

/// Longest that the commands of one page may take.
const PAGE_MAX: Duration = Duration::from_mins(10);
/// The end of a file in the script; no page may have it as a line.
const END_OF_FILE: &str = "END-OF-THE-FILE-OF-A-PAGE";

/// Runs the commands of a page and compares what they print.
///
/// # Panics
/// When a command fails, the page takes too long, or it prints something else.
pub(super) async fn run(page: &str, blocks: &[CodeBlock]) {
    let home = tempfile::tempdir().expect("a temporary folder");
    let work = home.path().join("work");
    let programs = home.path().join("programs");
    let printed = home.path().join("printed");
    for folder in [&work, &programs, &printed] {
        fs::create_dir(folder).expect("a writable folder");
    }
    // The broker drops root's rights and must still write beside its configuration.
    for folder in [home.path(), &work] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("a folder of our own");
    }
    symlink(built_program(PROGRAM), programs.join("headwater")).expect("a writable folder");
    symlink(built_program("headwater-collector"), programs.join("headwater-collector"))
        .expect("a writable folder");
    let file = home.path().join("page.sh");
    fs::write(&file, script(blocks, &printed)).expect("a writable folder");

    let online = blocks.iter().any(|block| matches!(block.role, Ok(BlockRole::Run { online: true })));
    let mut command = shell(&file, online);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}:/usr/sbin", programs.display()));
    command.env("XDG_CACHE_HOME", home.path().join("cache")).current_dir(&work);
    // A proxy of the machine is not for this machine's own addresses.
    command.env("no_proxy", "127.0.0.1,localhost");
    let log = home.path().join("page.log");
    let mut process = ChildProcess::spawn(&mut command, &log).expect("the shell starts");
    let ended = process.wait_for_exit(PAGE_MAX).await;
    let success = ended.as_ref().is_ok_and(std::process::ExitStatus::success);
    assert!(success, "{page}: {ended:?}\n{}\n{}", process.output_text(), logs(&work));
    compare(blocks, &printed);
}

fn shell(file: &Path, online: bool) -> Command {
    let mut command = Command::new(installed_program("unshare", "util-linux"));
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    if online {
        command.arg("bash").arg(file);
    } else {
        let with_loopback = r#"ip link set lo up && exec bash "$1""#;
        command.args(["--net", "bash", "-c", with_loopback, "bash"]).arg(file);
    }
    command
}

/// Makes one script of the blocks of a page, which keeps what each of them prints in a file of its own. Files are
/// written into the folder that the shell is in.
fn script(blocks: &[CodeBlock], printed: &Path) -> String {
    let mut script = "set -eu\n".to_owned();
    for (number, block) in blocks.iter().enumerate() {
        if let Some(file) = &block.file {
            assert!(!block.text.contains(END_OF_FILE), "{}", block.place());
            write!(script, "cat > '{file}' <<'{END_OF_FILE}'\n{}{END_OF_FILE}\n", block.text)
                .expect("a String takes all");
        }
        if matches!(block.role, Ok(BlockRole::Run { .. })) {
            let out = printed.join(number.to_string());
            write!(script, "echo '--- {}' >&2\nexec > '{}'\n{}", block.place(), out.display(), block.text)
                .expect("a String takes all");
        }
    }
    script
}

/// Compares each block of output with what the commands before it printed.
#[track_caller]
fn compare(blocks: &[CodeBlock], printed: &Path) {
    let mut found = None;
    for (number, block) in blocks.iter().enumerate() {
        match block.role {
            Ok(BlockRole::Run { .. }) => {
                found = Some(fs::read_to_string(printed.join(number.to_string())).unwrap_or_default());
            }
            Ok(BlockRole::Output) => {
                let found =
                    found.take().unwrap_or_else(|| panic!("{}: no commands before it", block.place()));
                let same = matches(&block.text, &found);
                assert!(same, "{}: the page says\n{}\nand it prints\n{found}", block.place(), block.text);
            }
            _ => {}
        }
    }
}

/// Compares line by line; `…` stands for anything in a line, and alone on a line for any number of lines.
fn matches(expected: &str, found: &str) -> bool {
    let expected: Vec<&str> = expected.trim_end().lines().map(str::trim_end).collect();
    let found: Vec<&str> = found.trim_end().lines().map(str::trim_end).collect();
    match_lines(&expected, &found)
}

fn match_lines(expected: &[&str], found: &[&str]) -> bool {
    match (expected.split_first(), found.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), _) => (0..=found.len()).any(|skipped| match_lines(rest, &found[skipped..])),
        (Some((line, more)), Some((other, others))) => match_line(line, other) && match_lines(more, others),
        _ => false,
    }
}

fn match_line(expected: &str, found: &str) -> bool {
    let Some((head, rest)) = expected.split_once('…') else {
        return expected == found;
    };
    let Some(found) = found.strip_prefix(head) else {
        return false;
    };
    let ends = found.char_indices().map(|(index, _)| index).chain([found.len()]);
    ends.into_iter().any(|end| match_line(rest, &found[end..]))
}

/// Collects what the programs of a page have written into its logs.
fn logs(work: &Path) -> String {
    let mut logs = String::new();
    let Ok(entries) = fs::read_dir(work) else { return logs };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            logs += &self::logs(&path);
        } else if path.extension().is_some_and(|ending| ending == "log") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            write!(logs, "--- {}\n{text}", path.display()).expect("a String takes all");
        }
    }
    logs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ellipsis_stands_for_anything() {
        assert!(matches("a\nb … d\n", "a\nb c d\n"));
        assert!(matches("a\n…\nd\n", "a\nb\nc\nd"));
        assert!(matches("a\n…\n", "a"));
        assert!(!matches("a\nb\n", "a\n"));
        assert!(!matches("a …c", "a b"));
        assert!(!matches("a", "a\nb"));
    }
}
