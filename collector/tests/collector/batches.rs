//! Stored batches: each once, as a whole, with one body.

use std::io::Write as _;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{EPOCH, event, serve, window};

#[tokio::test]
async fn a_batch_sent_again_is_answered_the_same_and_changes_nothing() {
    let served = serve().await;
    let lines = [window("a", 0, 0, 3), window("b", 0, 0, 4), event("c", 5, "1")];
    let expected = json!({ "accepted": format!("plant-7/{EPOCH}/0-2"), "watermark": 2 });
    assert_eq!(served.accepted(0, &lines).await, expected);
    let before = (served.json("/v1/results").await, served.json("/v1/totals").await);
    for _ in 0..3 {
        assert_eq!(served.accepted(0, &lines).await, expected);
    }
    assert_eq!((served.json("/v1/results").await, served.json("/v1/totals").await), before);
    let agent = &served.json("/v1/agents").await["agents"][0];
    assert_eq!((&agent["batches"], &agent["duplicates"]), (&json!(1), &json!(3)));
    assert_eq!(agent["readings"], 7);
}

#[tokio::test]
async fn the_same_body_in_any_encoding_is_the_same_batch() {
    let served = serve().await;
    let lines = [window("a", 0, 0, 3)];
    let body = lines.join("\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body.as_bytes()).unwrap();
    for (encoding, sent) in [
        ("zstd", zstd::encode_all(body.as_bytes(), 3).unwrap()),
        ("gzip", gzip.finish().unwrap()),
        ("identity", body.clone().into_bytes()),
    ] {
        let request = served.post(0, &lines).header("content-encoding", encoding).body(sent);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK, "{encoding}");
    }
    let agent = &served.json("/v1/agents").await["agents"][0];
    assert_eq!((&agent["batches"], &agent["duplicates"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn the_same_batch_many_times_at_once_is_one_commit_and_all_succeed() {
    let served = serve().await;
    let lines: Vec<_> = (0..50).map(|i| window("a", i * 10, 0, 1)).collect();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let request = served.post(0, &lines);
        senders.spawn(async move { request.send().await.unwrap().status() });
    }
    assert_eq!(senders.join_all().await, [StatusCode::OK; 6]);
    let agent = &served.json("/v1/agents").await["agents"][0];
    assert_eq!((&agent["batches"], &agent["duplicates"]), (&json!(1), &json!(5)));
    assert_eq!((&agent["results"], &agent["readings"]), (&json!(50), &json!(50)));
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused_and_stores_nothing() {
    let served = serve().await;
    served.accepted(0, &[window("a", 0, 0, 3)]).await;
    for other in [window("a", 0, 1, 4), window("b", 0, 0, 3)] {
        let response = served.post(0, &[other]).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let error: Value = response.json().await.unwrap();
        assert!(error["error"].as_str().unwrap().contains("another body"), "{error}");
    }
    let results = served.json("/v1/results").await;
    assert_eq!(results["results"].as_array().unwrap().len(), 1);
    assert_eq!(results["results"][0]["count"], 3);
}

#[tokio::test]
async fn a_bad_line_is_named_and_the_batch_is_not_stored() {
    let served = serve().await;
    let bad = event("c", 5, "1e999");
    let response = served.post(0, &[window("a", 0, 0, 3), bad]).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["line"], 2);
    assert!(error["error"].as_str().unwrap().contains("line 2: value: number out of range"), "{error}");
    assert_eq!(served.json("/v1/agents").await, json!({ "agents": [] }));
}

#[tokio::test]
async fn each_fault_of_a_request_has_its_status() {
    let served = serve().await;
    let good = [window("a", 0, 0, 3)];
    let bare = || served.client.post(format!("{}/v1/batches", served.url)).body(good[0].clone());
    let typed = || bare().header("content-type", "application/x-ndjson");
    let keyed = || bare().header("idempotency-key", format!("\"plant-7/{EPOCH}/0-0\""));
    for (request, status) in [
        (bare().header("content-type", "application/x-ndjson"), 400),
        (keyed(), 415),
        (keyed().header("content-type", "application/json"), 415),
        (served.post(0, &good).header("content-encoding", "br"), 415),
        (served.post(0, &good).header("content-encoding", "zstd"), 400),
        (keyed().header("content-type", "application/x-ndjson; charset=utf-8"), 200),
        (served.post(0, &[good[0].clone(), String::new()]).body(good[0].clone()), 422),
        (served.post(1, &[good[0].replace("plant-7", "plant-8")]), 422),
        (typed().header("idempotency-key", "\"nonsense\""), 400),
        (served.post(0, &good).header("idempotency-key", "\"nonsense\""), 400),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{:?}", response.text().await);
    }
}

#[tokio::test]
async fn a_token_lets_only_its_bearer_store() {
    let served = crate::harness::serve_with(|config| {
        config.token = headwater_collector::BearerToken::new("  secret-1\n");
        assert!(!format!("{config:?}").contains("secret"));
    })
    .await;
    let lines = [window("a", 0, 0, 3)];
    for wrong in [None, Some("Bearer secret-2"), Some("Bearer "), Some("secret-1"), Some("Basic secret-1")] {
        let mut request = served.post(0, &lines);
        if let Some(wrong) = wrong {
            request = request.header("authorization", wrong);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{wrong:?}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
    let right = served.post(0, &lines).header("authorization", "bearer secret-1");
    assert_eq!(right.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn only_a_higher_revision_replaces_a_result() {
    let served = serve().await;
    for (first, revision) in [1, 0, 2, 2, 1].into_iter().enumerate() {
        let lines = [window("a", 0, revision, 10 + first as u64)];
        served.accepted(first as u64, &lines).await;
    }
    let results = served.json("/v1/results").await;
    assert_eq!(results["results"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&results["results"][0]["revision"], &results["results"][0]["count"]),
        (&json!(2), &json!(12))
    );
    let totals = &served.json("/v1/totals").await["totals"][0];
    assert_eq!((&totals["replaced"], &totals["ignored"]), (&json!(1), &json!(3)));
    assert_eq!((&totals["results"], &totals["readings"]), (&json!(1), &json!(12)));
}

#[tokio::test]
async fn the_watermark_stays_below_a_gap_until_it_closes() {
    let served = serve().await;
    let lines = |n: i64| (0..n).map(|i| event("a", i, "1")).collect::<Vec<_>>();
    assert_eq!(served.accepted(10, &lines(5)).await["watermark"], Value::Null);
    assert_eq!(served.accepted(0, &lines(2)).await["watermark"], 1);
    let epoch = &served.json("/v1/agents").await["agents"][0]["epochs"][0];
    assert_eq!((&epoch["watermark"], &epoch["highest"], &epoch["gaps"]), (&json!(1), &json!(14), &json!(1)));
    assert_eq!(served.accepted(2, &lines(8)).await["watermark"], 14);
    let epoch = &served.json("/v1/agents").await["agents"][0]["epochs"][0];
    assert_eq!((&epoch["lines"], &epoch["gaps"]), (&json!(15), &json!(0)));
}

#[tokio::test]
async fn reports_are_stored_once_beside_the_results_and_found_again() {
    let served = serve().await;
    let report = |kind: &str, pipeline: Option<&str>, count: u64| {
        json!({
            "agent": "plant-7", "pipeline": pipeline, "time": "2026-01-01T00:00:00Z",
            "report": { "kind": kind, "stage": "outbox", "count": count, "reason": "the outbox was full" },
        })
        .to_string()
    };
    let lines = [
        window("a", 0, 0, 3),
        report("dropped", Some("temperature"), 40),
        report("lost", None, 2),
        event("c", 5, "1"),
        report("dropped", Some("raw"), 1),
    ];
    let receipt = served.accepted(0, &lines).await;
    assert_eq!(receipt["watermark"], 4);
    assert_eq!(served.accepted(0, &lines).await, receipt);
    // Narrowed, it comes under other keys: each line is known by its number.
    served.accepted(1, &lines[1..3]).await;
    let all = served.json("/v1/reports").await;
    let all = all["reports"].as_array().unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!((&all[0]["agent"], &all[0]["pipeline"]), (&json!("plant-7"), &json!("temperature")));
    assert_eq!(all[0]["report"]["reason"], "the outbox was full");
    assert_eq!(all[1]["pipeline"], Value::Null);
    for (query, found) in [
        ("kind=lost", 1),
        ("pipeline=raw", 1),
        ("agent=plant-7", 3),
        ("agent=plant-8", 0),
        ("limit=2", 2),
        (&*format!("after={}", all[1]["id"]), 1),
    ] {
        let some = served.json(&format!("/v1/reports?{query}")).await;
        assert_eq!(some["reports"].as_array().unwrap().len(), found, "{query}");
    }
    let agent = &served.json("/v1/agents").await["agents"][0];
    let expected = json!([
        { "kind": "dropped", "reports": 2, "records": 41 },
        { "kind": "lost", "reports": 1, "records": 2 },
    ]);
    assert_eq!(agent["reports"], expected);
    assert_eq!((&agent["results"], &agent["events"], &agent["readings"]), (&json!(1), &json!(1), &json!(3)));
    // The same number with another report is no repetition.
    let other = served.post(1, &[report("dropped", Some("temperature"), 41)]).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
}
