//! Modules that no compiler makes: what they say of their own memory is not so, or they want endless tables.

use super::*;
use crate::ModuleError;
use crate::contract::LogLevel;
use crate::guest::{ModuleLog, TEXT_BYTES_MAX};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

const CONTRACT: &str = include_str!("../../../../wit/headwater.wit");

/// A transform whose `process` is this; its answer lies at 32, and what the answer points at where it says. The
/// second page of its memory is zeros.
fn module(body: &str) -> String {
    format!(
        r#"(module
            (memory (export "memory") 2)
            (table $table 1 funcref)
            (global $free (mut i32) (i32.const 4096))
            (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
                (global.get $free)
                (global.set $free (i32.add (global.get $free) (i32.and (i32.add (local.get $size) (i32.const 15)) (i32.const -16)))))
            (func (export "init") (param i32 i32) (result i32) (i32.const 16))
            (func $answer (param $failed i32) (param $at i32) (param $length i32)
                (i32.store8 (i32.const 32) (local.get $failed))
                (i32.store (i32.const 36) (local.get $at))
                (i32.store (i32.const 40) (local.get $length)))
            (func (export "process") (param i32 i32) (result i32)
                {body}
                (i32.const 32)))"#
    )
}

fn wrapped(module: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_source("headwater.wit", CONTRACT).unwrap();
    let world = resolve.select_world(&[package], Some("transform")).unwrap();
    let mut core = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().validate(true).module(&core).unwrap().encode().unwrap()
}

fn load(component: &[u8]) -> Result<TransformModule, ModuleError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("module.wasm");
    std::fs::write(&path, component).unwrap();
    ModuleHost::new(None).unwrap().transform(&path, "{}", &limits(), &CallMetrics::default())
}

/// The event comes back, refused with this, and the instance after it works as before.
#[track_caller]
fn check(body: &str, reason: &str) {
    check_module(&module(body), body, reason);
}

#[track_caller]
fn check_module(module: &str, body: &str, reason: &str) {
    let mut module = load(&wrapped(module)).unwrap();
    for _ in 0..3 {
        let (events, rejected) = in_time(|| module.process(&[event("1"), event("2")]));
        assert_eq!((events.len(), rejected.len()), (0, 2), "{body}: {rejected:?}");
        for rejection in rejected {
            assert!(
                rejection.reason.len() <= TEXT_BYTES_MAX + "…".len(),
                "{body}: {}",
                rejection.reason.len()
            );
            assert!(rejection.reason.contains(reason), "{body}: {}", rejection.reason);
        }
    }
}

#[test]
fn texts_that_are_no_utf8_are_refused() {
    check(
        "(i32.store16 (i32.const 64) (i32.const 0xfeff)) (call $answer (i32.const 1) (i32.const 64) (i32.const 2))",
        "utf-8",
    );
}

#[test]
fn lengths_and_places_beyond_the_memory_are_refused() {
    for (at, length) in [(64, 0x1000_0000), (64, -1), (0x7fff_fff8, 1), (-8, 1)] {
        // A list of events, and a reason.
        for failed in [0, 1] {
            check(
                &format!("(call $answer (i32.const {failed}) (i32.const {at}) (i32.const {length}))"),
                "out of bounds",
            );
        }
    }
    check("(call $answer (i32.const 0) (i32.const 65) (i32.const 1))", "align");
}

#[test]
fn an_answer_that_is_neither_is_refused() {
    check("(i32.store8 (i32.const 32) (i32.const 7))", "discriminant");
}

#[test]
fn a_table_bomb_ends_at_its_limit() {
    // Where it may have more than it should, it goes on for ever.
    check(
        "(loop $more
            (br_if $more (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))
        (if (i32.le_u (table.size $table) (i32.const 100000)) (then unreachable))
        (loop $ever (br $ever))",
        "unreachable",
    );
}

#[test]
fn memories_count_together_towards_their_limit() {
    // Of 64 MiB each gets 40: 640 pages.
    let body = "(drop (memory.grow 0 (i32.const 638)))
        (if (i32.eq (memory.grow $second (i32.const 640)) (i32.const -1)) (then unreachable))";
    let two = module(body).replacen("(table", "(memory $second 0) (table", 1);
    check_module(&two, body, "memory limit of 67108864 bytes reached");
}

/// The module does not start, and this is why.
#[track_caller]
fn check_start(component: &[u8], reason: &str) {
    let error = load(component).map(drop).unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
}

#[test]
fn more_of_anything_than_a_toolchain_makes_is_refused() {
    let with = |more: String| wrapped(&module("").replacen("(table", &format!("{more} (table"), 1));
    load(&with("(memory 0)".repeat(15) + &"(table 0 funcref)".repeat(63))).unwrap();
    check_start(&with("(memory 0)".repeat(16)), "memory count too high at 17");
    check_start(&with("(table 0 funcref)".repeat(64)), "table count too high at 65");
    // Sections behind the others: a core module without anything, and instances of it.
    let module = [&[1, 8][..], b"\0asm\x01\0\0\0"].concat();
    let instances = |count: u16| {
        let each = [0, 1, 0].repeat(count.into());
        let content = [&[count as u8 | 128, (count >> 7) as u8][..], &each].concat();
        let length = u16::try_from(content.len()).unwrap();
        [&[2, length as u8 | 128, (length >> 7) as u8][..], &content].concat()
    };
    let with = |count| [wrapped(&self::module("")), module.clone(), instances(count)].concat();
    load(&with(500)).unwrap();
    check_start(&with(513), "instance count too high at 513");
}

#[test]
fn what_a_module_says_is_cut_where_it_is_too_long() {
    check("(call $answer (i32.const 1) (i32.const 65536) (i32.const 65536))", "\0\0…");
    let rejected = |at: u32, index: u32| {
        format!(
            "(i32.store (i32.const {at}) (i32.const {index})) (i32.store (i32.const {}) (i32.const 65536))
             (i32.store (i32.const {}) (i32.const 65536))",
            at + 4,
            at + 8
        )
    };
    let both = "(i32.store (i32.const 44) (i32.const 64)) (i32.store (i32.const 48) (i32.const 2))";
    check(&[&rejected(64, 0), &rejected(76, 1), both].concat(), "\0\0…");
    let long = "(i32.store8 (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (i32.const 65536))
        (i32.store (i32.const 24) (i32.const 65536)) (i32.const 16))";
    let error = load(&wrapped(&module("").replacen("(i32.const 16))", long, 1))).map(drop).unwrap_err();
    assert!(
        matches!(&error, ModuleError::Settings { reason, .. } if reason.len() <= TEXT_BYTES_MAX + "…".len())
    );
}

#[test]
fn log_lines_and_last_words_are_cut_where_they_are_too_long() {
    let mut log = ModuleLog::new("m".into(), &ModuleLimits::default(), Default::default());
    log.write(LogLevel::Error, "ä".repeat(TEXT_BYTES_MAX));
    assert_eq!(log.error, Some("ä".repeat(TEXT_BYTES_MAX / 2) + "…"));
}
