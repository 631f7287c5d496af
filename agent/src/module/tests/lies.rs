//! Modules that no compiler makes: what they say of their own memory is not so, or they want endless tables.

use super::*;
use crate::author::{Kind, component};

/// A transform whose `process` is this; its answer lies at 32, and what the answer points at where it says.
fn module(body: &str) -> String {
    format!(
        r#"(module
            (memory (export "memory") 1)
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

/// The event comes back, refused with this, and the instance after it works as before.
#[track_caller]
fn check(body: &str, reason: &str) {
    let core = wat::parse_str(module(body)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("module.wasm");
    std::fs::write(&path, component(&core, Kind::Transform).unwrap()).unwrap();
    let host = Host::new(None).unwrap();
    let mut module = host.transform(&path, "{}", &limits(), &Pipeline::default()).unwrap();
    for _ in 0..3 {
        let (events, rejected) = in_time(|| module.process(&[event("1"), event("2")]));
        assert_eq!((events.len(), rejected.len()), (0, 2), "{body}: {rejected:?}");
        for rejection in rejected {
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
