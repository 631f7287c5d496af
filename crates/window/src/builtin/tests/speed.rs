//! What a reading costs: `cargo test --release -p headwater-window --lib builtin::tests::speed -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

const ROUNDS: u32 = 200_000;

/// Nanoseconds a reading when each comes alone, and in groups of 64.
fn measure(compute: Vec<ComputedMember>) -> [f64; 2] {
    let mut builtin = builtin(compute);
    [1, 64].map(|size: u32| {
        let mut group = group(Vec::new(), &[]);
        let samples = |round: u32| {
            let sample = |at: u32| {
                let n = round * size + at;
                let x = 20.0 + f64::from(n % 97) / 8.0;
                let text =
                    format!(r#"{{"seq":{n},"ts":17000000{n:06},"site":"hall-2","x":{x},"y":{{"z":[1,2]}}}}"#);
                (Timestamp(START + u64::from(n)), text.into_bytes())
            };
            (0..size).map(sample).collect::<Vec<_>>()
        };
        let batches: Vec<_> = (0..ROUNDS / size).map(samples).collect();
        let begun = Instant::now();
        for samples in batches {
            group.samples = samples;
            group.state = builtin.update(std::slice::from_ref(&group)).remove(0).state;
        }
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
    })
}

#[test]
#[ignore = "measures; wants --release"]
fn three_functions_cost_less_than_a_microsecond_a_reading() {
    let one = vec![of(AggregateFunction::Mean, "x")];
    let three = vec![count(), of(AggregateFunction::Mean, "x"), of(AggregateFunction::Max, "x")];
    let ten = all().into_iter().take(12).collect::<Vec<_>>();
    println!("1 function:   {:.0?} ns (alone, in groups of 64)", measure(one));
    let [alone, grouped] = measure(three);
    println!("3 functions:  [{alone:.0}, {grouped:.0}] ns");
    println!("12 functions: {:.0?} ns", measure(ten));
    for compute in all().into_iter().skip(13) {
        println!("{}: {:.0?} ns", compute.name, measure(vec![compute.clone()]));
    }
    assert!(alone < 1000.0, "{alone}");
}
