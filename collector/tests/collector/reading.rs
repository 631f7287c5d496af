//! Queries, and the page with its files.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{ServedCollector, event, serve, serve_with, time, window};

async fn filled() -> ServedCollector {
    let served = serve().await;
    let mut lines: Vec<_> = (0..6).map(|i| window("hall/1", i * 10, 0, 1)).collect();
    lines.extend((0..6).map(|i| window("hall/2", i * 10, 0, 2)));
    lines.push(event("hall/1", 15, r#"{"text":"say \"hi\", twice","n":-0.0}"#));
    served.accepted(0, &lines).await;
    served
}

fn starts(page: &Value) -> Vec<(&str, &str)> {
    let rows = page["results"].as_array().unwrap().iter();
    rows.map(|row| {
        let time = row["window"]["start"].as_str().or(row["time"].as_str()).unwrap();
        (row["key"].as_str().unwrap(), time)
    })
    .collect()
}

#[tokio::test]
async fn filters_by_agent_pipeline_key_and_time() {
    let served = filled().await;
    let of_key = "/v1/results?agent=plant-7&pipeline=temperature&key=hall/1";
    for (path, rows) in [
        ("/v1/results".to_owned(), 13),
        ("/v1/results?agent=plant-7".to_owned(), 13),
        ("/v1/results?agent=plant-8".to_owned(), 0),
        ("/v1/results?pipeline=raw".to_owned(), 1),
        ("/v1/results?agent=plant-7&pipeline=temperature".to_owned(), 12),
        ("/v1/results?key=hall/1".to_owned(), 7),
        (of_key.to_owned(), 6),
        (format!("{of_key}&from={}", time(20)), 4),
        (format!("{of_key}&to={}", time(20)), 2),
        (format!("{of_key}&from={}&to={}", time(10), time(50)), 4),
        (format!("/v1/results?from={}&to={}", time(10), time(20)), 3),
    ] {
        for order in ["oldest", "latest", "change"] {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page = served.json(&format!("{path}{joint}order={order}")).await;
            assert_eq!(page["results"].as_array().unwrap().len(), rows, "{path} {order}");
            assert_eq!((&page["next"], &page["change"]), (&Value::Null, &json!(13)));
        }
    }
}

#[tokio::test]
async fn pages_give_every_row_once_in_every_order() {
    let served = filled().await;
    for filter in
        ["", "&agent=plant-7&pipeline=temperature", "&agent=plant-7&pipeline=temperature&key=hall/2"]
    {
        for order in ["oldest", "latest", "change"] {
            let path = format!("/v1/results?order={order}{filter}");
            let whole = served.json(&path).await;
            let mut paged = Vec::new();
            let mut after = String::new();
            loop {
                let page = served.json(&format!("{path}&limit=2{after}")).await;
                paged.extend(starts(&page).into_iter().map(|(k, t)| (k.to_owned(), t.to_owned())));
                let Some(next) = page["next"].as_str() else {
                    break;
                };
                after = format!("&after={next}");
            }
            let whole: Vec<_> =
                starts(&whole).into_iter().map(|(k, t)| (k.to_owned(), t.to_owned())).collect();
            assert_eq!(paged, whole, "{path}");
            let mut sorted = whole.clone();
            sorted.sort_by(|a, b| a.1.cmp(&b.1));
            let times = |rows: &[(String, String)]| rows.iter().map(|r| r.1.clone()).collect::<Vec<_>>();
            match order {
                "oldest" => assert_eq!(times(&whole), times(&sorted)),
                "latest" => assert_eq!(times(&whole), times(&sorted).into_iter().rev().collect::<Vec<_>>()),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn the_order_of_changes_brings_what_is_new_and_what_was_replaced() {
    let served = filled().await;
    let since = served.json("/v1/results?limit=1").await["change"].as_i64().unwrap();
    let path = format!("/v1/results?order=change&after={since}");
    assert_eq!(served.json(&path).await["results"], json!([]));
    served.accepted(13, &[window("hall/2", 0, 1, 9), window("hall/1", 10, 0, 9)]).await;
    let page = served.json(&path).await;
    assert_eq!(starts(&page), [("hall/2", time(0).as_str())], "the ignored line is no change");
    assert_eq!(page["results"][0]["revision"], 1);
}

#[tokio::test]
async fn json_gives_back_what_was_sent() {
    let served = filled().await;
    let text = served.get("/v1/results?pipeline=raw").await.text().await.unwrap();
    assert!(text.contains(r#""value":{"text":"say \"hi\", twice","n":-0.0}"#), "{text}");
    let page = served.json("/v1/results?limit=1").await;
    assert_eq!(page["next"], "1767225600000000.1");
    let mut row = page["results"][0].clone();
    row.as_object_mut().unwrap().remove("change");
    assert_eq!(row, serde_json::from_str::<Value>(&window("hall/1", 0, 0, 1)).unwrap());
}

/// Adds fields to the line of a window: `bounds` to the window, `fields` to the line.
fn with(line: &str, bounds: &str, fields: &str) -> String {
    let line = line.replacen("\"},\"revision\"", &format!("\"{bounds}}},\"revision\""), 1);
    line.replacen("\"module\"", &format!("{fields}\"module\""), 1)
}

fn retraction(key: &str, start: i64, revision: u32) -> String {
    let line = with(&window(key, start, revision, 0), "", "\"retracted\":true,");
    line.replace("{\"mean\":0.5}", "null")
}

#[tokio::test]
async fn parts_and_early_results_come_back_as_they_were_sent() {
    let served = serve().await;
    let watermark = format!("\"watermark\":\"{}\",", time(12));
    let lines = [
        with(&window("a", 0, 0, 3), "", &watermark),
        with(&window("a", 0, 0, 4), ",\"part\":1", ""),
        with(&window("b", 0, 1, 5), ",\"part\":7", &format!("\"early\":true,{watermark}")),
    ];
    served.accepted(0, &lines).await;
    let page = served.json("/v1/results").await;
    for (row, line) in page["results"].as_array().unwrap().iter().zip(&lines) {
        let mut row = row.clone();
        row.as_object_mut().unwrap().remove("change");
        assert_eq!(row, serde_json::from_str::<Value>(line).unwrap());
    }
    let totals = &served.json("/v1/totals").await["totals"][0];
    assert_eq!(
        (&totals["results"], &totals["early"], &totals["readings"]),
        (&json!(3), &json!(1), &json!(12))
    );
    let csv = served.get("/v1/results?format=csv").await.text().await.unwrap();
    let last = csv.lines().last().unwrap();
    assert!(last.contains(&format!(",{},7,1,true,sha256:", time(10))), "{last}");
    assert!(last.ends_with(&format!(",5,0,0,{},\"{{\"\"mean\"\":5.5}}\"", time(12))), "{last}");
}

#[tokio::test]
async fn a_retracted_window_is_seen_only_among_the_changes() {
    let served = filled().await;
    // A result stored, one that never comes, and one that comes after its retraction.
    let lines = [
        retraction("hall/1", 0, 1),
        retraction("hall/3", 0, 1),
        retraction("hall/3", 10, 1),
        window("hall/3", 10, 0, 9),
    ];
    served.accepted(13, &lines).await;
    for filter in
        ["", "&agent=plant-7&pipeline=temperature", "&agent=plant-7&pipeline=temperature&key=hall/1"]
    {
        for order in ["oldest", "latest", "change"] {
            let page = served.json(&format!("/v1/results?order={order}{filter}")).await;
            let gone = |(key, at): &(&str, &str)| *key == "hall/3" || (*key == "hall/1" && *at == time(0));
            assert!(!starts(&page).iter().any(gone), "{order} {filter}: {page}");
            let retracted = page["retracted"].as_array().unwrap().len();
            let expected = if order != "change" {
                0
            } else if filter.contains("key") {
                1
            } else {
                3
            };
            assert_eq!(retracted, expected, "{order} {filter}");
        }
    }
    let csv = served.get("/v1/results?format=csv&order=change").await.text().await.unwrap();
    assert_eq!((csv.lines().count(), csv.contains("hall/3")), (1 + 12, false));
    let totals = served.json("/v1/totals?pipeline=temperature").await["totals"][0].clone();
    for (sum, expected) in
        [("results", 11), ("readings", 17), ("retracted", 3), ("replaced", 1), ("ignored", 1)]
    {
        assert_eq!(totals[sum], expected, "{sum}: {totals}");
    }
    // A reader that goes by changes gets each retraction once, and it counts towards the page's limit.
    let mut after = "13".to_owned();
    let mut retracted = Vec::new();
    loop {
        let page = served.json(&format!("/v1/results?order=change&limit=2&after={after}")).await;
        retracted.extend(page["retracted"].as_array().unwrap().clone());
        assert_eq!(page["results"], json!([]));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let bounds = json!({ "start": time(0), "end": time(10) });
    let first = json!({ "agent": "plant-7", "pipeline": "temperature", "key": "hall/1", "window": bounds,
                        "revision": 1, "change": 14 });
    assert_eq!((retracted.len(), &retracted[0]), (3, &first));
}

#[tokio::test]
async fn csv_has_the_same_columns_for_every_value() {
    let served = filled().await;
    let by_name = served.get("/v1/results?format=csv&pipeline=raw").await;
    assert_eq!(by_name.headers()["content-type"], "text/csv; charset=utf-8; header=present");
    let text = by_name.text().await.unwrap();
    let (header, rows) = text.split_once("\r\n").unwrap();
    let columns =
        "agent,pipeline,key,time,start,end,part,revision,early,module,count,late,rejected,watermark,value";
    assert_eq!(header, columns);
    let value = r#""{""text"":""say \""hi\"", twice"",""n"":-0.0}""#;
    assert_eq!(rows, format!("\"plant-7\",\"raw\",\"hall/1\",{},,,,,,,,,,,{value}\r\n", time(15)));
    let request = served.client.get(format!("{}/v1/results?limit=1", served.url));
    let by_accept = request.header("accept", "text/csv").send().await.unwrap();
    assert_eq!(by_accept.headers()["headwater-next"], "1767225600000000.1");
    let text = by_accept.text().await.unwrap();
    let expected = format!(
        "\"plant-7\",\"temperature\",\"hall/1\",,{},{},0,0,false,sha256:{},1,0,0,,\"{{\"\"mean\"\":1.5}}\"\r\n",
        time(0),
        time(10),
        "ab".repeat(32)
    );
    assert_eq!(text.split_once("\r\n").unwrap().1, expected);
}

#[tokio::test]
async fn an_answer_is_bounded_in_bytes_and_the_next_page_goes_on() {
    let served = serve_with(|config| config.answer_bytes_max = 2500).await;
    let value = format!("\"{}\"", "x".repeat(1000));
    let lines: Vec<_> = (0..5).map(|i| event("a", i, &value)).collect();
    served.accepted(0, &lines).await;
    let page = served.json("/v1/results").await;
    assert_eq!(page["results"].as_array().unwrap().len(), 3);
    let rest = served.json(&format!("/v1/results?after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((rest["results"].as_array().unwrap().len(), &rest["next"]), (2, &Value::Null));
}

#[tokio::test]
async fn a_query_that_cannot_be_read_is_refused_with_its_fault_named() {
    let served = serve().await;
    for (path, word) in [
        ("/v1/results?limit=0", "limit"),
        ("/v1/results?limit=10001", "limit"),
        ("/v1/results?limit=many", "limit"),
        ("/v1/results?from=yesterday", "from"),
        ("/v1/results?after=x", "after"),
        ("/v1/results?order=random", "order"),
        ("/v1/results?surprise=1", "surprise"),
        ("/v1/results?key=a&key=b", "key"),
        ("/v1/agents?limit=0", "limit"),
        ("/v1/totals?x=1", "x"),
    ] {
        let response = served.get(path).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
        let error: Value = response.json().await.unwrap();
        assert!(error["error"].as_str().unwrap().contains(word), "{path}: {error}");
    }
}

#[tokio::test]
async fn totals_are_per_agent_and_pipeline() {
    let served = filled().await;
    let totals = served.json("/v1/totals").await["totals"].clone();
    assert_eq!(totals.as_array().unwrap().len(), 2);
    let one = served.json("/v1/totals?agent=plant-7&pipeline=temperature").await;
    assert_eq!(
        one["totals"],
        json!([{ "agent": "plant-7", "pipeline": "temperature", "results": 12, "early": 0, "retracted": 0, "events": 0,
                 "readings": 18, "late": 0, "late_readings": 0, "rejected": 0, "replaced": 0, "ignored": 0 }])
    );
}

#[tokio::test]
async fn the_page_and_all_it_refers_to_come_with_their_types_and_a_strict_policy() {
    let served = serve().await;
    let page = served.get("/").await.text().await.unwrap();
    assert!(!page.contains("<style") && !page.contains("style=") && !page.contains("onclick"));
    assert!(!page.contains("<script>"), "inline scripts do not run under the policy");
    let mut files = vec!["/".to_owned()];
    let mut sources = page;
    for script in ["/assets/page.js", "/assets/chart.js", "/assets/series.js"] {
        sources += &served.get(script).await.text().await.unwrap().replace("\"./", "\"/assets/");
    }
    files.extend(sources.split('"').filter(|text| text.starts_with("/assets/")).map(str::to_owned));
    assert!(files.len() >= 9, "{files:?}");
    for file in files {
        let response = served.get(&file).await;
        assert_eq!(response.status(), StatusCode::OK, "{file}");
        let kind = match file.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            "txt" => "text/plain; charset=utf-8",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(response.headers()["content-type"], kind, "{file}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        assert!(!response.text().await.unwrap().is_empty(), "{file}");
    }
    assert_eq!(served.get("/assets/other").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(served.get("/live").await.status(), StatusCode::OK);
}
