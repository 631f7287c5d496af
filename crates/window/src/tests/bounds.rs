//! Bounds on windows do not show batches either.

use super::*;

proptest! {
    #![proptest_config(property_config(CASES))]

    /// Which key is one too many is a matter of the readings alone.
    #[test]
    fn which_key_is_one_too_many_depends_on_no_batch(
        (config, readings) in prop_oneof![
            tumbling().boxed(), days().boxed(), hopping().boxed(), sliding().boxed(), sessions().boxed(),
            counts().boxed(),
        ],
        keys_max in 1_usize..4,
        overflow in any::<bool>(),
    ) {
        let when_keys_full = if overflow { WhenKeysFull::Overflow } else { WhenKeysFull::Reject };
        let ran = the_same(&WindowConfig { keys_max, when_keys_full, ..config }, &readings)?;
        prop_assert!(!overflow || ran.full.is_empty());
    }

    /// A reading is of two bytes here.
    #[test]
    fn parts_by_bytes_equal_the_oracle((config, readings) in tumbling(), bytes_max in 1_u64..12) {
        let ran = the_same(&WindowConfig { bytes_max, ..config.clone() }, &readings)?;
        let readings_max = config.readings_max.min(bytes_max.div_ceil(2));
        let oracle = Oracle::replay(&WindowConfig { readings_max, ..config }, &readings);
        prop_assert_eq!(Collected::of(&ran.outcomes).readings(), oracle.windows);
    }
}
