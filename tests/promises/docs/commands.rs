//! Command lines, parsed by the program that they name.

use std::process::Command;

use headwater_tests::agent::PROGRAM;
use headwater_tests::process::built_program;

use super::blocks::CodeBlock;

/// Names the command lines of a block that their program does not understand.
pub(super) fn faults(block: &CodeBlock) -> Vec<String> {
    let lines = block.text.lines().filter(|line| !line.trim().is_empty());
    lines.filter_map(|line| fault(line).map(|fault| format!("{}: {line}: {fault}", block.place()))).collect()
}

/// Asks the program for help with the rest of the line before it: what it does not know is named all the same.
fn fault(line: &str) -> Option<String> {
    let mut words = match split(line) {
        Ok(words) if words.is_empty() => return None,
        Ok(words) => words,
        Err(fault) => return Some(fault),
    };
    let program = match words.remove(0).as_str() {
        "headwater" => built_program(PROGRAM),
        "headwater-collector" => built_program("headwater-collector"),
        other => return Some(format!("`{other}` is not a program of this repository: run it, or skip it")),
    };
    let output = Command::new(program).args(words).arg("--help").output().expect("the program starts");
    let known = output.status.success();
    (!known).then(|| String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned())
}

/// Splits a line as a shell does, up to a comment or a redirection.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            quote @ ('\'' | '"') => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some(end) if end == quote => break,
                        Some(character) => word.push(character),
                        None => return Err("a quote is not closed".to_owned()),
                    }
                }
            }
            ' ' => words.extend(word.take()),
            '#' | '>' if word.is_none() => break,
            '|' | '&' | ';' | '$' | '`' | '\\' => return Err(format!("`{character}` needs a shell: run it")),
            character => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_a_shell_does() {
        let words = split("headwater status --reason \"a b\" 'c'd # why").unwrap();
        assert_eq!(words, ["headwater", "status", "--reason", "a b", "cd"]);
        assert_eq!(split("a > b").unwrap(), ["a"]);
        assert_eq!(split("# only words").unwrap(), [""; 0]);
        assert!(split("a 'b").is_err() && split("a | b").is_err());
    }

    #[test]
    fn an_unknown_option_is_a_fault() {
        assert_eq!(fault("headwater status --config headwater.toml --json"), None);
        assert!(fault("headwater status --confg headwater.toml").is_some());
        assert!(fault("headwater statos").is_some());
        assert!(fault("rm --force").is_some());
    }
}
