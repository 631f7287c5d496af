//! `headwater module test`: the output for a project's samples, against the output that its author found right.

use super::WorldKind;
use super::conform::equal;
use super::outcome::{of_event, of_windows};
use super::subject::{ModuleSubject, SAMPLES, file_of};
use anyhow::{Context, ensure};
use headwater_agent::config::Project;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The file of the expected lines.
const EXPECTED: &str = "samples/expected.ndjson";

/// The number of differences shown.
const SHOWN: usize = 20;

/// `headwater module test`.
#[derive(Debug, clap::Args)]
pub struct TestOptions {
    /// The project's folder.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Take the output of now as right from now on.
    #[arg(long)]
    bless: bool,
}

/// A line that is not as expected: its number, the line that is missing, and the one that is there instead.
#[derive(Debug, PartialEq)]
pub(super) struct LineDifference {
    line: usize,
    expected: Option<Value>,
    found: Option<Value>,
}

pub(super) fn run(options: &TestOptions) -> anyhow::Result<ExitCode> {
    let folder = &options.folder;
    let found = outcome(folder)?;
    let file = folder.join(EXPECTED);
    if options.bless {
        let lines: String = found.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&file, lines).with_context(|| format!("failed to write {}", file.display()))?;
        println!("{}: {} lines, now right: look them through", file.display(), found.len());
        return Ok(ExitCode::SUCCESS);
    }
    let expected = expected(&file)?;
    let differences = differences(&expected, &found);
    for difference in differences.iter().take(SHOWN) {
        print!("{}:{}", file.display(), difference.told());
    }
    let count = differences.len();
    if count == 0 {
        println!("{}: all {} lines as expected", file.display(), expected.len());
        return Ok(ExitCode::SUCCESS);
    }
    if count > SHOWN {
        println!("and {} more", count - SHOWN);
    }
    let differ = if count == 1 { "difference" } else { "differences" };
    println!("{count} {differ}; where what was found is right: `headwater module test --bless`");
    Ok(ExitCode::FAILURE)
}

/// Returns the lines of the output for the project's samples.
pub(super) fn outcome(folder: &Path) -> anyhow::Result<Vec<Value>> {
    let project = Project::load(folder)?;
    let module = file_of(folder)?;
    let subject = ModuleSubject::open(&module, None)?;
    ensure!(
        subject.kind == project.kind,
        "failed to test {}: expected the world `{}`, as `kind` in module.toml has it, found `{}`",
        module.display(),
        project.kind.world(),
        subject.kind.world()
    );
    let samples = folder.join(SAMPLES);
    let events = subject.samples(Some(&samples))?;
    ensure!(!events.is_empty(), "failed to test {}: {} is empty", module.display(), samples.display());
    Ok(match subject.kind {
        WorldKind::Transform => {
            let mut transform = subject.transform()?;
            let each = events.iter().enumerate();
            each.flat_map(|(index, event)| of_event(&mut transform, index, event)).collect()
        }
        WorldKind::Aggregate => of_windows(&mut subject.aggregate()?, &events, project.window),
    })
}

fn expected(file: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| {
        format!("failed to read {}: make it with `headwater module test --bless`", file.display())
    })?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("failed to read {}, line {number}: expected JSON", file.display()))
        })
        .collect()
}

/// Compares line by line, so that one that is new or gone is one difference (the longest common subsequence).
pub(super) fn differences(expected: &[Value], found: &[Value]) -> Vec<LineDifference> {
    let rows = expected.len();
    let columns = found.len();
    let mut common = vec![vec![0_u32; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = match equal(&expected[row], &found[column]) {
                true => common[row + 1][column + 1] + 1,
                false => common[row + 1][column].max(common[row][column + 1]),
            };
        }
    }
    let mut row = 0;
    let mut column = 0;
    let mut differences = Vec::new();
    while row < rows || column < columns {
        let both = row < rows && column < columns;
        if both && equal(&expected[row], &found[column]) {
            row += 1;
            column += 1;
            continue;
        }
        // In place of each other where neither serves later.
        let gone = row < rows && (!both || common[row + 1][column] >= common[row][column + 1]);
        let swapped = both && common[row + 1][column + 1] == common[row][column];
        let take = |yes: bool, lines: &[Value], at: usize| yes.then(|| lines[at].clone());
        let is_missing = gone || swapped;
        let is_new = !gone || swapped;
        differences.push(LineDifference {
            line: row + 1,
            expected: take(is_missing, expected, row),
            found: take(is_new, found, column),
        });
        row += usize::from(is_missing);
        column += usize::from(is_new);
    }
    differences
}

impl LineDifference {
    fn told(&self) -> String {
        let line =
            |line: &Option<Value>| line.as_ref().map_or_else(|| "no line".to_owned(), Value::to_string);
        let mut text = format!(
            "{}:\n  expected  {}\n  found     {}\n",
            self.line,
            line(&self.expected),
            line(&self.found)
        );
        if let Some((expected, found)) = self.expected.as_ref().zip(self.found.as_ref()) {
            for (place, expected, found) in places(expected, found, String::new()) {
                text += &format!("  at {place}: expected {expected}, found {found}\n");
            }
        }
        text
    }
}

/// Returns the members that differ, by their names from the outside in.
pub(super) fn places(expected: &Value, found: &Value, place: String) -> Vec<(String, String, String)> {
    let told = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    match (expected, found) {
        _ if equal(expected, found) => Vec::new(),
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<_> = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))).collect();
            names.sort();
            let place =
                |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
            names
                .into_iter()
                .flat_map(|name| match (a.get(name), b.get(name)) {
                    (Some(a), Some(b)) => places(a, b, place(name)),
                    (a, b) => vec![(place(name), told(a), told(b))],
                })
                .collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let each = a.iter().zip(b).enumerate();
            each.flat_map(|(index, (a, b))| places(a, b, format!("{place}[{index}]"))).collect()
        }
        _ => vec![(place, told(Some(expected)), told(Some(found)))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(expected: &[i32], found: &[i32], told: &[(usize, Option<i32>, Option<i32>)]) {
        let lines = |numbers: &[i32]| numbers.iter().map(|number| json!(number)).collect::<Vec<_>>();
        let differences = differences(&lines(expected), &lines(found));
        let told: Vec<_> = told
            .iter()
            .map(|&(line, expected, found)| LineDifference {
                line,
                expected: expected.map(|number| json!(number)),
                found: found.map(|number| json!(number)),
            })
            .collect();
        assert_eq!(differences, told);
    }

    #[test]
    fn a_line_that_is_new_gone_or_another_is_one_difference() {
        check(&[1, 2, 3], &[1, 2, 3], &[]);
        check(&[1, 2, 3], &[1, 3], &[(2, Some(2), None)]);
        check(&[1, 3], &[1, 2, 3], &[(2, None, Some(2))]);
        check(&[1, 2, 3], &[1, 9, 3], &[(2, Some(2), Some(9))]);
        check(&[], &[1], &[(1, None, Some(1))]);
        check(&[1, 2], &[], &[(1, Some(1), None), (2, Some(2), None)]);
        check(&[1, 2, 3], &[2, 3, 4], &[(1, Some(1), None), (4, None, Some(4))]);
    }

    #[test]
    fn shows_where_two_lines_differ() {
        let a = json!({"event":{"t":[1,2.0],"x":1}});
        let b = json!({"event":{"t":[1,3],"y":1}});
        let found = places(&a, &b, String::new());
        let found: Vec<_> = found.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        assert_eq!(
            found,
            [("event.t[1]", "2.0", "3"), ("event.x", "1", "nothing"), ("event.y", "nothing", "1")]
        );
        assert!(places(&json!({"a":20}), &json!({"a":20.0}), String::new()).is_empty());
    }
}
