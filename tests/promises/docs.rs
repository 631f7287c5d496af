//! The documents are true: every code block of the README and of the book is run or checked, or says why it is
//! not, and every link leads somewhere.
//!
//! A block has its role in its info string; `docs/src/contributing/build-and-test.md` lists the roles.

mod blocks;
mod commands;
mod frames;
mod links;
mod pages;
#[cfg(feature = "machine")]
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use headwater_agent::metrics::Metrics;
use headwater_tests::agent::TestAgent;
use headwater_tests::client::client;
use headwater_tests::collector::TestCollector;

use blocks::{BlockRole, CodeBlock};

/// Most lines of a document that must stay short.
const LINES_MAX: [(&str, usize); 2] = [("README.md", 150), ("ARCHITECTURE.md", 199)];

#[test]
fn every_code_block_says_how_it_is_checked() {
    let pages = pages::with_code();
    let blocks: Vec<CodeBlock> = pages.iter().flat_map(blocks::of).collect();
    let mut faults = String::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for block in &blocks {
        match &block.role {
            Ok(role) => *counts.entry(role.name()).or_default() += 1,
            Err(fault) => writeln!(faults, "{}: {fault}", block.place()).expect("a String takes all"),
        }
    }
    println!("{} code blocks in {} documents: {counts:?}", blocks.len(), pages.len());
    for block in &blocks {
        if let Ok(BlockRole::Skipped(reason)) = &block.role {
            println!("{}: not run: {reason}", block.place());
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
    let checked = blocks.iter().filter(|block| !matches!(block.role, Ok(BlockRole::Skipped(_))));
    assert!(checked.count() > 50, "the blocks are not found any more: {counts:?}");
}

#[test]
fn every_link_leads_somewhere() {
    let faults = links::faults(&pages::all());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_summary_has_every_page_once() {
    let faults = links::summary_faults(&pages::all());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn source_files_that_documents_name_are_there() {
    let faults = links::path_faults(&pages::all());
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn metrics_that_documents_name_are_there() {
    let known: BTreeSet<String> = Metrics::entries().iter().map(|entry| entry.exposed_name()).collect();
    let named = links::metrics(&pages::all());
    assert!(named.len() > 15, "the metrics are not found any more: {named:?}");
    let is_known = |name: &str| known.contains(name) || known.contains(&format!("{name}_total"));
    let unknown: Vec<_> = named.iter().filter(|(_, name)| !is_known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} are none of {known:?}");
}

#[test]
fn short_documents_stay_short() {
    for (path, lines_max) in LINES_MAX {
        let lines = pages::read(path).lines().count();
        assert!(lines <= lines_max, "{path} has {lines} lines, over {lines_max}: move something into docs");
    }
}

#[test]
fn configurations_pass_the_check() {
    let folder = frames::CheckFolder::new();
    let mut faults = String::new();
    let mut checked = 0;
    for block in every_block() {
        let checking = match &block.role {
            Ok(BlockRole::Configuration) => folder.check(&block.text),
            Ok(BlockRole::Fragment { frame, modules }) => {
                let whole = frames::complete(frame, &block.text);
                whole.and_then(|text| if *modules { check_with_modules(&text) } else { folder.check(&text) })
            }
            _ => continue,
        };
        checked += 1;
        if let Err(fault) = checking {
            writeln!(faults, "{}: {fault}", block.place()).expect("a String takes all");
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
    assert!(checked > 20, "the configurations are not found any more");
}

#[test]
fn command_lines_are_understood() {
    let blocks = every_block();
    let blocks = blocks.iter().filter(|block| matches!(block.role, Ok(BlockRole::CommandLines)));
    let faults: Vec<String> = blocks.flat_map(commands::faults).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn json_is_json() {
    let mut faults = String::new();
    for block in every_block() {
        let texts: Vec<&str> = match &block.role {
            Ok(BlockRole::JsonValue) => vec![&block.text],
            Ok(BlockRole::JsonLines) => block.text.lines().collect(),
            _ => continue,
        };
        for text in texts {
            if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
                writeln!(faults, "{}: {error} in {text}", block.place()).expect("a String takes all");
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[tokio::test]
async fn the_collector_takes_the_lines_of_the_reference() {
    let collector = TestCollector::start().await;
    let blocks = every_block();
    let posted = blocks.iter().filter(|block| matches!(block.role, Ok(BlockRole::JsonPost)));
    let mut number = 0;
    for block in posted {
        number += 1;
        let key = format!("\"gw-1/{:032x}/{number}-{number}\"", 0xff);
        let request = client(std::time::Duration::from_secs(5))
            .post(collector.url())
            .header("Idempotency-Key", key)
            .header("Content-Type", "application/x-ndjson")
            .body(block.text.clone());
        let answer = request.send().await.expect("the collector answers");
        let status = answer.status();
        let words = answer.text().await.expect("an answer has a body");
        assert!(status.is_success(), "{}: {status} {words}", block.place());
    }
    assert!(number > 2, "the lines are not found any more");
}

#[test]
fn blocks_that_repeat_another_are_the_same() {
    let blocks = every_block();
    let mut compared = 0;
    for block in &blocks {
        let Ok(BlockRole::SameAs(page)) = &block.role else { continue };
        compared += 1;
        let original = blocks.iter().filter(|other| other.page == *page && other.text == block.text);
        assert_eq!(original.count(), 1, "{}: {page} has no such block", block.place());
    }
    assert!(compared > 0, "the blocks are not found any more");
}

#[test]
fn included_files_are_there() {
    for block in every_block() {
        let Ok(BlockRole::Included(path)) = &block.role else { continue };
        let depth = block.page.matches('/').count();
        let include = format!("{{{{#include {}{path}}}}}\n", "../".repeat(depth));
        assert_eq!(block.text, include, "{}", block.place());
        assert!(!pages::read(path).is_empty(), "{path}");
    }
}

#[cfg(feature = "machine")]
#[tokio::test]
async fn pages_with_commands_run_from_an_empty_folder() {
    let mut sessions = 0;
    for page in pages::with_code() {
        let blocks = blocks::of(&page);
        if blocks.iter().any(|block| matches!(block.role, Ok(BlockRole::Run { .. }))) {
            sessions += 1;
            println!("{}", page.path);
            sessions::run(&page.path, &blocks).await;
        }
    }
    assert!(sessions > 2, "the pages are not found any more");
}

fn every_block() -> Vec<CodeBlock> {
    pages::with_code().iter().flat_map(blocks::of).collect()
}

/// Checks a whole configuration with the modules of the repository beside it, as `headwater check` does.
fn check_with_modules(text: &str) -> Result<(), String> {
    let agent = TestAgent::prepare("");
    for (name, bytes) in headwater_bundle::SHIPPED {
        let file = agent.config().with_file_name("modules").join(format!("{name}.wasm"));
        std::fs::write(file, bytes).expect("a writable folder");
    }
    std::fs::write(agent.config(), text).expect("a writable folder");
    let output = agent.run_command(&["check"]);
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    if output.status.success() { Ok(()) } else { Err(said.into_owned()) }
}
