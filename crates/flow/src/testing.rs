//! Settings and strategies for the property tests of the workspace.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use crate::{DeadLetter, Timestamp, UnfinishedWindow};

/// Returns settings for this many cases, or for as many as `PROPTEST_CASES` says. They print the seed
/// of the run, which `PROPTEST_RNG_SEED` repeats. A failing case is kept in `proptest-regressions` and
/// tried first from then on.
pub fn property_config(default_cases: u32) -> Config {
    let given = Config::default();
    let seed = match given.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => fastrand::u64(..),
    };
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    eprintln!("PROPTEST_RNG_SEED={seed}");
    Config { cases: cases.unwrap_or(default_cases), rng_seed: RngSeed::Fixed(seed), ..given }
}

prop_compose! {
    /// Generates any dead letter at all.
    pub fn any_letter()(
        texts in [".{0,9}", ".{0,9}", ".{0,90}", ".{0,9}", ".{0,40}", ".{0,40}"],
        module in proptest::option::of(".{0,70}"),
        (time, received) in any::<(u64, u64)>(),
        event_time in any::<Option<u64>>(),
        window in proptest::option::of(any_window()),
        replay_of in any::<Option<u64>>(),
        properties in proptest::collection::vec((".{0,9}", ".{0,9}"), 0..3),
        payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            ".{0,80}".prop_map(String::into_bytes),
        ],
    ) -> DeadLetter {
        let [pipeline, stage, reason, input, topic, key] = texts;
        let received = Timestamp(received);
        let event_time = event_time.map(Timestamp);
        DeadLetter {
            pipeline, stage, reason, module, input, topic, key, time, received, event_time, window,
            replay_of, properties, payload,
        }
    }
}

prop_compose! {
    fn any_window()(
        (start, end) in any::<(u64, u64)>(),
        revision in any::<u32>(),
        (count, late, rejected) in any::<(u64, u64, u64)>(),
    ) -> UnfinishedWindow {
        let start = Timestamp(start);
        let end = Timestamp(end);
        UnfinishedWindow { start, end, part: revision / 2, revision, count, late, rejected }
    }
}
