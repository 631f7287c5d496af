use super::*;
use headwater_module::JsonObject;
use headwater_module::testing::{TransformProbe, event};

/// Mean 0, deviation 1, nearly normal: twelve of the same distribution (Marsaglia's xorshift of the index) summed up.
fn noise(index: u64) -> f64 {
    let uniform = |part: u64| {
        let mut bits = (index * 12 + part + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for shift in [12, 25, 27] {
            bits = (bits ^ (bits >> shift)).wrapping_mul(0x2545_f491_4f6c_dd1d);
        }
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..12).map(uniform).sum::<f64>() - 6.0
}

/// Mean 20, deviation 0.5.
fn learnt(config: &str) -> TransformProbe<AnomalyScore> {
    let mut probe = TransformProbe::<AnomalyScore>::new(config).unwrap();
    for index in 0..10_000 {
        probe.payloads(format!(r#"{{"t":{}}}"#, 20.0 + 0.5 * noise(index))).unwrap();
    }
    probe
}

fn score(payload: &str) -> f64 {
    JsonObject::parse(payload.as_bytes()).unwrap().number("score").unwrap()
}

#[test]
fn a_reading_at_the_limit_scores_a_half_and_one_at_the_mean_nothing() {
    let mut probe = learnt(r#"{"field":"t"}"#);
    let found = probe.payloads(r#"{"t":22.65,"x":1}"#).unwrap().concat();
    assert!((score(&found) - 0.5).abs() < 0.02, "{found}");
    assert!(found.starts_with(r#"{"t":22.65,"x":1,"score":0.5"#), "{found}");
    let found = probe.payloads(r#"{"t":20}"#).unwrap().concat();
    assert!(score(&found) < 0.05 && found.ends_with(r#""anomalous":false}"#), "{found}");
    let found = probe.payloads(r#"{"t":-40}"#).unwrap().concat();
    assert!(score(&found) > 0.99 && found.ends_with(r#""anomalous":true}"#), "{found}");
}

#[test]
fn a_small_shift_that_stays_is_found_and_then_becomes_the_norm() {
    let mut probe = learnt(r#"{"field":"t"}"#);
    let mut scores = |count: usize| -> Vec<f64> {
        let mut next = |index| probe.payloads(format!(r#"{{"t":{}}}"#, 21.0 + 0.5 * noise(index + 10_000)));
        (0..count as u64).map(|index| score(&next(index).unwrap().concat())).collect()
    };
    let scores = scores(60_000);
    let flagged =
        |range: std::ops::Range<usize>| scores[range].iter().filter(|score| **score >= ANOMALOUS).count();
    assert_eq!(flagged(0..5), 0, "two deviations are no spike");
    assert!(flagged(50..500) > 400, "the shift is a drift: {}", flagged(50..500));
    assert!(flagged(50_000..60_000) < 100, "it is normal by now: {}", flagged(50_000..60_000));
}

#[test]
fn of_noise_few_readings_in_a_thousand_are_anomalous() {
    let mut model = KeyModel::default();
    let parameters = ScoreParameters::default();
    let anomalous = |index: &u64| model.score(0, noise(*index), &parameters) >= ANOMALOUS;
    let count = (0..100_000).filter(anomalous).count();
    assert!((10..500).contains(&count), "{count}");
}

#[test]
fn an_anomaly_does_not_become_the_norm_by_which_it_is_judged() {
    let mut probe = learnt(r#"{"field":"t"}"#);
    for _ in 0..100 {
        let found = probe.payloads(r#"{"t":60}"#).unwrap().concat();
        assert!(score(&found) > 0.99, "{found}");
    }
}

#[test]
fn a_constant_is_normal_until_it_changes_and_the_next_one_is_learnt() {
    let mut probe = TransformProbe::<AnomalyScore>::new(r#"{"field":"t"}"#).unwrap();
    let mut next = |number: f64| score(&probe.payloads(format!(r#"{{"t":{number}}}"#)).unwrap().concat());
    assert!((0..1000).all(|_| next(5.0) == 0.0));
    assert_eq!(next(6.0), 1.0);
    let later: Vec<f64> = (0..40_000).map(|_| next(6.0)).collect();
    assert!(later[39_000..].iter().all(|score| *score < ANOMALOUS), "{:?}", later.last());
}

#[test]
fn with_daily_the_time_of_day_has_a_mean_of_its_own() {
    let at_night = |daily: bool| {
        let mut probe =
            TransformProbe::<AnomalyScore>::new(&format!(r#"{{"field":"t","daily":{daily}}}"#)).unwrap();
        let mut at = |minutes: u64, number: f64| {
            let mut event = event(format!(r#"{{"t":{number}}}"#));
            event.time += minutes * 60_000_000;
            score(&String::from_utf8(probe.process(event).unwrap().remove(0).payload).unwrap())
        };
        for minutes in (0..40 * 1440).step_by(10) {
            let noise = (minutes * 7919 % 97) as f64 / 97.0;
            at(minutes, noise + 20.0 + 10.0 * f64::sin(minutes as f64 / 1440.0 * std::f64::consts::TAU));
        }
        at(40 * 1440 + 1080, 20.0)
    };
    assert!(at_night(false) < 0.1, "in the day's middle");
    assert!(at_night(true) > ANOMALOUS, "and ten above what 18:00 is like: {}", at_night(true));
}

#[test]
fn what_was_learnt_outlives_a_change_of_settings_and_each_key_has_its_own() {
    learnt(r#"{"field":"t"}"#);
    let mut probe =
        TransformProbe::<AnomalyScore>::again(r#"{"field":"t","limit":2,"prefix":"t_","daily":true}"#)
            .unwrap();
    let found = probe.payloads(r#"{"t":21.5,"t_score":777}"#).unwrap().concat();
    assert!(found.contains(r#""t_anomalous":true"#) && !found.contains("777"), "{found}");
    let mut other = event(r#"{"t":99}"#);
    other.key = "other".to_owned();
    let found = probe.process(other).unwrap().remove(0).payload;
    assert_eq!(String::from_utf8(found).unwrap(), r#"{"t":99,"t_score":0.0,"t_anomalous":false}"#);
}

#[test]
fn refuses_in_words() {
    let fault = |config: &str| TransformProbe::<AnomalyScore>::new(config).unwrap_err();
    assert!(fault("{}").contains("missing field `field`"));
    assert!(fault(r#"{"field":"t","limit":0}"#).contains("`limit` must be above 0"));
    assert!(fault(r#"{"field":"t","memory":144}"#).contains("`memory` is 144"));
    assert!(fault(r#"{"field":"t","limits":1}"#).contains("unknown field `limits`"));
    let mut probe = TransformProbe::<AnomalyScore>::new(r#"{"field":"t"}"#).unwrap();
    assert_eq!(probe.payloads(r#"{"u":1}"#).unwrap_err(), "field `t` is missing");
    assert_eq!(probe.payloads(r#"{"t":1e200}"#).unwrap_err(), "field `t` is no number up to 1e100: 1e200");
    assert_eq!(probe.payloads(r#"{"t":true}"#).unwrap_err(), "field `t` is no number up to 1e100: true");
}

#[test]
fn whatever_comes_the_score_is_from_0_to_1() {
    for daily in [false, true] {
        let mut probe =
            TransformProbe::<AnomalyScore>::new(&format!(r#"{{"field":"t","learn":0,"daily":{daily}}}"#))
                .unwrap();
        let samples: [&[u8]; 3] =
            [br#"{"t":1.5,"u":-3e10}"#, br#"{"t":1e99}"#, br#"{"t":-1e-99,"score":"\u00e9"}"#];
        let mut taken = 0;
        probe.provoke(&samples, 5000, |payload, answer| {
            if let Ok(events) = answer {
                let score = JsonObject::parse(&events[0].payload).unwrap().number("score");
                assert!(score.is_some_and(|score| (0.0..=1.0).contains(&score)), "{score:?}: {payload:?}");
                taken += 1;
            }
        });
        assert!(taken > 200, "{taken}");
    }
}
