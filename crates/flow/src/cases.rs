//! How many cases the properties try, and from which seed.

use proptest::test_runner::{Config, RngSeed};

/// So many, or as many as `PROPTEST_CASES` says. What fails shows the seed of its run, which
/// `PROPTEST_RNG_SEED` repeats, and is kept in `proptest-regressions`: it is tried first from then on.
pub fn cases(normally: u32) -> Config {
    let given = Config::default();
    let seed = match given.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => fastrand::u64(..),
    };
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    eprintln!("PROPTEST_RNG_SEED={seed}");
    Config { cases: cases.unwrap_or(normally), rng_seed: RngSeed::Fixed(seed), ..given }
}
