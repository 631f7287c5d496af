use super::*;
use crate::pipeline::WhenFull;

pub(super) const GOOD: &str = r#"
[agent]
id = "plant-7-gateway-1"
state = "state"

[input.plant]
mqtt = { url = "mqtt://127.0.0.1", topics = ["plant/+/+/telemetry"], version = "5" }

[pipeline.temperature]
input = "plant"
key = "{topic[1]}/{topic[2]}"
time = { field = "meta.ts", unit = "ms" }
transform = [{ module = "c.wasm", settings = { field = "temperature", scale = 1.8, list = [1, true] } }]
window = { tumbling = "1m", lateness = "10s", idle = "30s" }
aggregate = { module = "c.wasm", deadline = "250ms", memory_bytes_max = "16 MiB" }
output = "central"

[output.central]
http = { url = "https://collect.example.com/v1/batches", token = { file = "token" }, compression = "gzip" }
"#;

pub(super) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.wasm"), "").unwrap();
    folder
}

#[test]
fn modules_are_trusted_as_the_file_says() {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let key = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let modules =
        format!("[modules]\nkeys = [{key:?}]\ncompile_deadline = \"30s\"\ncompile_memory_max = \"1 GiB\"\n");
    let pinned = format!("module = \"c.wasm\", digest = {digest:?}, settings");
    let text = modules + &GOOD.replacen("module = \"c.wasm\", settings", &pinned, 1);
    let folder = folder();
    let config = parse(&folder.path().join("h.toml"), &text).unwrap();
    assert_eq!(config.modules.keys, [key.parse().unwrap()]);
    assert_eq!(config.modules.compile_deadline, Duration::from_secs(30));
    assert_eq!(config.modules.compile_memory_max, 1 << 30);
    assert_eq!(config.pipelines["temperature"].transforms[0].origin.digest, Some(digest.parse().unwrap()));
    let wrong = text.replace(key, "ed25519:AAAA").replace(digest, "sha256:12");
    let said = faults(&wrong);
    assert!(said.contains("which is no key") && said.contains("module keygen"), "{said}");
    assert!(said.contains("64 hexadecimal digits"), "{said}");
    let none = text.replace(&format!("{key:?}"), "");
    assert!(faults(&none).contains("holds no key"), "an empty list is no way to ask for signatures");
}

#[test]
fn what_is_fetched_is_pinned() {
    let at = |module: &str| faults(&GOOD.replacen("module = \"c.wasm\"", module, 1));
    let unpinned = at("module = \"https://example.com/c.wasm\"");
    assert!(unpinned.contains("is fetched and not pinned"), "{unpinned}");
    let unpinned = at("module = \"oci://example.com/plant/c:1.0\"");
    assert!(unpinned.contains("with the manifest's digest"), "{unpinned}");
    let plain = at("module = \"http://example.com/c.wasm\"");
    assert!(plain.contains("\"https://HOST/PATH\""), "{plain}");
    let digest = format!("sha256:{}", "0a".repeat(32));
    for pinned in [
        format!("module = \"https://example.com/c.wasm\", digest = {digest:?}"),
        format!("module = \"oci://example.com/plant/c@{digest}\""),
    ] {
        let folder = folder();
        let text = GOOD.replacen("module = \"c.wasm\"", &pinned, 1);
        let config = parse(&folder.path().join("h.toml"), &text).unwrap();
        assert!(config.pipelines["temperature"].transforms[0].origin.remote.is_some());
    }
}

#[test]
fn fetching_is_bounded_as_the_file_says() {
    let fetch = "[modules.fetch]\ndeadline = \"9s\"\nbytes_max = \"1 MiB\"\nkept_bytes_max = \"2 MiB\"\n\
                 credentials = [{ host = \"r:5000\", username = \"u\", password = { file = \"p\" } }]\n";
    let folder = folder();
    let config = parse(&folder.path().join("h.toml"), &format!("{fetch}{GOOD}")).unwrap();
    let fetch = &config.modules.fetch;
    assert_eq!((fetch.deadline, fetch.bytes_max), (Duration::from_secs(9), 1 << 20));
    assert_eq!((fetch.kept_bytes_max, fetch.ca.as_ref()), (2 << 20, None));
    let password = crate::secret::Secret::File(folder.path().join("p"));
    assert_eq!(fetch.credentials["r:5000"].password, password);
    let wrong = "[modules.fetch]\ncredentials = [{ host = \"https://r\", username = \"u\" }]\nsize = 1\n";
    let said = faults(&format!("{wrong}{GOOD}"));
    assert!(said.contains("is no host") && said.contains("has no `password`"), "{said}");
    assert!(said.contains("`modules.fetch.size` is unknown"), "{said}");
}

fn faults(text: &str) -> String {
    let folder = folder();
    parse(&folder.path().join("h.toml"), text)
        .unwrap_err()
        .to_string()
        .replace(folder.path().to_str().unwrap(), "")
}

#[test]
fn every_setting_reaches_its_stage() {
    let folder = folder();
    let config = parse(&folder.path().join("h.toml"), GOOD).unwrap();
    assert_eq!(config.agent.state, folder.path().join("state"));
    let input = &config.inputs["plant"];
    assert_eq!((input.host.as_str(), input.port, input.qos), ("127.0.0.1", 1883, 1));
    assert_eq!(input.client_id, "headwater-plant-7-gateway-1-plant");
    let pipeline = &config.pipelines["temperature"];
    let settings: serde_json::Value = serde_json::from_str(&pipeline.transforms[0].settings).unwrap();
    assert_eq!(settings, serde_json::json!({"field": "temperature", "scale": 1.8, "list": [1, true]}));
    let (window, aggregate) = pipeline.windowed.as_ref().unwrap();
    assert_eq!(
        (window.kind.mergeable().unwrap(), window.lateness),
        (Duration::from_mins(1), Duration::from_secs(10))
    );
    assert_eq!(window.idle, Some(Duration::from_secs(30)));
    let crate::pipeline::AggregateConfig::Module(aggregate) = aggregate else { panic!("{aggregate:?}") };
    assert_eq!(aggregate.limits.deadline, Duration::from_millis(250));
    assert_eq!(aggregate.limits.memory_bytes_max, 16 << 20);
    assert_eq!(config.outputs["central"].token, Some(Secret::File(folder.path().join("token"))));
}

#[track_caller]
pub(super) fn check(from: &str, to: &str, expected: &[&str]) {
    assert!(GOOD.contains(from), "{from}");
    let faults = faults(&GOOD.replacen(from, to, 1));
    for expected in expected {
        assert!(faults.contains(expected), "{expected} in:\n{faults}");
    }
}

#[test]
fn each_fault_names_place_and_remedy() {
    check(
        "output = \"central\"",
        "outptu = \"central\"",
        &[
            "/h.toml:16:1: `pipeline.temperature.outptu` is unknown",
            "did you mean `output`?",
            "has no `output`",
        ],
    );
    check(
        "input = \"plant\"",
        "input = \"plnat\"",
        &["/h.toml:10:9: `pipeline.temperature.input` names \"plnat\"", "known are: plant"],
    );
    check("\"1m\"", "\"1 min\"", &["`pipeline.temperature.window.tumbling` is no duration"]);
    check("\"1m\"", "60", &["is no duration", "\"250ms\""]);
    check("https://", "http://", &["plain text", "allow_plaintext"]);
    check("token = { file = \"token\" }", "token = {}", &["names not exactly one place"]);
    check("\"5\"", "\"4\"", &["is \"4\"", "use \"3.1.1\" or \"5\""]);
    check(
        "topics = [\"plant/+/+/telemetry\"]",
        "topics = [\"plant/#/x\"]",
        &["stands alone, as the last level"],
    );
    check("topics = [\"plant/+/+/telemetry\"]", "topics = []", &["is empty"]);
    check("mqtt://127.0.0.1", "mqtt://user:secret@host", &["user and password are keys of their own"]);
    check("c.wasm", "d.wasm", &["there is no such file"]);
    check("{topic[1]}/", "{topic[1]", &["`pipeline.temperature.key`"]);
    check("plant-7-gateway-1", "plant 7", &["`agent.id` is no id"]);
    check("[output.central]", "[output.\"a b\"]", &["is no name"]);
    let http = |more: &str| format!("token = {{ file = \"token\" }}, {more}");
    let at = "token = { file = \"token\" }";
    check(at, &http("breaker_failures = 0"), &["out of range", "whole number from 1"]);
    check(at, &http("drain = \"1 day\""), &["`output.central.http.drain` is no duration"]);
    check(at, &http("tls = { ca = \"none.pem\" }"), &["none.pem: make the file readable"]);
    check(at, &http("tls = { cert = \"a\" }"), &["`output.central.http.tls.cert` is unknown"]);
    check("output = \"central\"", "output = \"central\"\npriority = \"first\"", &["\"order\" or \"live\""]);
    check("1.8", "inf", &["which JSON cannot say"]);
}

#[test]
fn a_key_by_its_old_name_is_a_fault_that_names_the_new_one() {
    let old = "`pipeline.temperature.transform[0].config` is now called `settings`";
    check("settings =", "config =", &["/h.toml:13:44: ", old, "remedy: write `settings`", "1 fault"]);
}

#[test]
fn built_ins_are_read_with_their_parameters() {
    use crate::builtin::AggregateFunction;
    let compute = r#"compute = [
      "count", { mean = "temperature" }, { max = "wind.speed", as = "gust" },
      { quantile = "t", at = [0.5, 1] }, { quantile = "u", at = 0.9, error = 0.001 },
      { top = "code", k = 20 }, { top = "site", counters = 500 },
      { histogram = "t", bounds = [-1, 0, 2.5] }, { time_mean = "t" }, { time_mean = "u", disorder = 3 }, { count = "t" },
    ]"#;
    let module = "module = \"c.wasm\", deadline = \"250ms\", memory_bytes_max = \"16 MiB\"";
    let folder = folder();
    let config = parse(&folder.path().join("h.toml"), &GOOD.replacen(module, compute, 1)).unwrap();
    let (_, aggregate) = config.pipelines["temperature"].windowed.as_ref().unwrap();
    let crate::pipeline::AggregateConfig::Builtin(config) = aggregate else { panic!("{aggregate:?}") };
    let (names, functions): (Vec<_>, Vec<_>) =
        config.compute.iter().map(|compute| (compute.name.as_str(), &compute.function)).unzip();
    assert_eq!(names[..4], ["count", "mean_temperature", "gust", "quantile_t"]);
    assert_eq!(
        names[4..],
        ["quantile_u", "top_code", "top_site", "histogram_t", "time_mean_t", "time_mean_u", "count_t"]
    );
    assert_eq!(config.compute[2].field, Some(vec!["wind".to_owned(), "speed".to_owned()]));
    assert_eq!(*functions[3], AggregateFunction::Quantile { at: vec![0.5, 1.0], error: 0.01 });
    assert_eq!(*functions[4], AggregateFunction::Quantile { at: vec![0.9], error: 0.001 });
    assert_eq!(*functions[5], AggregateFunction::Top { k: 20, counters: 160 });
    assert_eq!(*functions[6], AggregateFunction::Top { k: 10, counters: 500 });
    assert_eq!(*functions[7], AggregateFunction::Histogram { bounds: vec![-1.0, 0.0, 2.5] });
    assert_eq!(*functions[8], AggregateFunction::TimeMean { disorder: 16 });
    assert_eq!(*functions[9], AggregateFunction::TimeMean { disorder: 3 });
}

#[test]
fn each_fault_of_a_built_in_names_place_and_remedy() {
    let check = |compute: &str, expected: &[&str]| {
        let module = "module = \"c.wasm\", deadline = \"250ms\", memory_bytes_max = \"16 MiB\"";
        check(module, compute, expected);
    };
    let at = |item: &str, expected: &[&str]| check(&format!("compute = [{item}]"), expected);
    at(
        "\"cuont\"",
        &["/h.toml:15:26: `pipeline.temperature.aggregate.compute[0]` is \"cuont\"", "one of: count, sum"],
    );
    at("\"mean\"", &["is \"mean\" of no field", "write { mean = \"FIELD\" }"]);
    at("{ maen = \"t\" }", &["/h.toml:15:26:", "compute[0]` names no function", "count, sum, mean"]);
    at("{ mean = \"t\", max = \"t\" }", &["compute[0].max` stands beside `mean`", "a table of its own"]);
    at(
        "{ mean = \"t\", bounds = [1] }",
        &["/h.toml:15:40: ", "compute[0].bounds` is unknown", "known here are: mean, as"],
    );
    at("{ quantile = \"t\" }", &["compute[0]` has no `at`"]);
    at(
        "{ quantile = \"t\", at = [0.5, 1.5] }",
        &["compute[0].at` holds 1.5, which is no quantile", "from 0 to 1"],
    );
    at("{ quantile = \"t\", at = [0.5, 0.5] }", &["holds 0.5 twice"]);
    at("{ quantile = \"t\", at = [\"p50\"] }", &["holds a string", "from 0 to 1"]);
    at("{ quantile = \"t\", at = 0.5, error = 0.5 }", &["compute[0].error` is 0.5", "from 0.001 to 0.1"]);
    at("{ histogram = \"t\", bounds = [1, 1] }", &["compute[0].bounds` does not ascend"]);
    at("{ histogram = \"t\", bounds = [nan] }", &["holds nan"]);
    at("{ top = \"t\", k = 20, counters = 10 }", &["compute[0].counters` is 10", "from 20 to 1000"]);
    at("{ mean = \"a..b\" }", &["compute[0].mean` has an empty name"]);
    at("{ mean = 5 }", &["compute[0].mean` is an integer, not text"]);
    at("{ mean = \"a.b\" }, { mean = \"a_b\" }", &["compute[1]` gives a second result `mean_a_b`", "`as ="]);
    at("5", &["compute[0]` is an integer, not a table"]);
    check("compute = []", &["`pipeline.temperature.aggregate.compute` is empty"]);
    check("compute = \"count\"", &["compute` is no array"]);
    check("compute = [\"count\"], module = \"c.wasm\"", &["compute` stands beside `module`", "keep one"]);
    check("", &["has neither `compute` nor `module`"]);
    check("compute = [\"count\"], deadline = \"1s\"", &["deadline` is unknown"]);
}

#[test]
fn all_faults_are_reported_at_once_in_the_order_of_the_file() {
    let faults = faults("[agent]\nid = 5\nspeed = 9\n\n[input.a]\nmqtt = { url = \"x\" }\n[pipeline]\n");
    let lines: Vec<&str> = faults.lines().filter(|line| line.starts_with("/h.toml")).collect();
    let places: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "/h.toml:1:1:",
            "/h.toml:1:1:",
            "/h.toml:2:6:",
            "/h.toml:3:1:",
            "/h.toml:6:8:",
            "/h.toml:6:16:",
            "/h.toml:7:1:",
            "/h.toml:"
        ],
        "{faults}"
    );
    assert!(faults.ends_with("7 faults"), "{faults}");
}

#[test]
fn broken_toml_is_a_fault_with_its_place() {
    let faults = faults("[agent]\nid = \n");
    assert!(faults.contains("/h.toml:2:"), "{faults}");
    assert!(!self::faults("\u{0}").is_empty());
}

#[test]
fn a_broker_s_url_says_how_it_is_reached() {
    let address = |url: &str| {
        let folder = folder();
        let text = GOOD.replacen("mqtt://127.0.0.1", url, 1);
        let config = parse(&folder.path().join("h.toml"), &text).unwrap();
        let input = config.inputs["plant"].clone();
        (input.host, input.port, input.tls.is_some(), input.websocket)
    };
    let path = |path: &str| Some(path.to_owned());
    assert_eq!(address("mqtt://h"), ("h".to_owned(), 1883, false, None));
    assert_eq!(address("mqtts://[::1]"), ("::1".to_owned(), 8883, true, None));
    assert_eq!(address("mqtts://h:1"), ("h".to_owned(), 1, true, None));
    assert_eq!(address("ws://h/mqtt?a=b"), ("h".to_owned(), 80, false, path("/mqtt?a=b")));
    assert_eq!(address("wss://h:9"), ("h".to_owned(), 9, true, path("/")));
    let url = r#"url = "mqtt://127.0.0.1""#;
    check(url, r#"url = "mqtts://u:p@h""#, &["keys of their own"]);
    check(url, r#"url = "mqtts://h/path""#, &["wss://host:port/path"]);
    check(url, r#"tls = { ca = "none" }, url = "mqtts://h""#, &["none: make the file readable", "mqtt.tls"]);
    check(url, r#"tls = {}, url = "ws://h""#, &["mqtts:// or wss://"]);
    check(url, r#"tls = { key = "c.wasm" }, url = "mqtts://h""#, &["c.wasm: a certificate and its key"]);
    check(r#""plant/+/+/telemetry""#, r#""$share/g""#, &["$share/<group>/<filter>"]);
    check(r#""plant/+/+/telemetry""#, r#""$share/+/a""#, &["$share/<group>/<filter>"]);
}

#[test]
fn event_time_is_taken_from_one_place_in_a_stated_unit() {
    use crate::decode::{Guard, Place, Stamp, TimeUnit, WhenMissing, WhenOff};
    let time = r#"time = { field = "meta.ts", unit = "ms" }"#;
    let read = |to: &str| {
        let folder = folder();
        let config = parse(&folder.path().join("h.toml"), &GOOD.replacen(time, to, 1)).unwrap();
        (config.pipelines["temperature"].decode.clone(), config.inputs["plant"].properties.clone())
    };
    let stamp = |place, unit, when_missing| Some(Stamp { place, unit, when_missing });
    let (reject, arrival) = (WhenMissing::Reject, WhenMissing::Arrival);
    let (field, property) = (Place::Field(vec!["meta".into(), "ts".into()]), Place::Property("ts".into()));
    assert_eq!(read(time).0.time, stamp(field, TimeUnit::Millis, reject));
    let (decode, kept) = read(r#"time = { property = "ts", unit = "rfc3339", missing = "arrival" }"#);
    assert_eq!((decode.time, kept), (stamp(property, TimeUnit::Rfc3339, arrival), vec!["ts".to_owned()]));
    let (decode, kept) = read(r#"time = { topic = 3, unit = "us" }"#);
    assert_eq!((decode.time, kept), (stamp(Place::Topic(3), TimeUnit::Micros, reject), Vec::new()));
    for arrival in ["", r#"time = "arrival""#] {
        assert_eq!((read(arrival).0.time, read(arrival).0.guard), (None, Guard::default()));
    }
    let guarded =
        format!("{time}\nskew = \"1s\"\nwhen_ahead = \"clamp\"\npast = \"7d\"\nwhen_past = \"arrival\"");
    let past = Some(Duration::from_hours(7 * 24));
    let expected =
        Guard { skew: Duration::from_secs(1), when_ahead: WhenOff::Clamp, past, when_past: WhenOff::Arrival };
    assert_eq!(read(&guarded).0.guard, expected);

    check(time, r#"time = { unit = "ms" }"#, &["`pipeline.temperature.time` names not exactly one place"]);
    check(time, r#"time = { field = "a", topic = 1, unit = "s" }"#, &["names not exactly one place"]);
    check(
        time,
        r#"time = { field = "a..b", unit = "s" }"#,
        &["`pipeline.temperature.time.field` has an empty name"],
    );
    check(time, r#"time = { field = "a" }"#, &["has no `unit`"]);
    check(time, r#"time = "received""#, &["`pipeline.temperature.time` is \"received\"", "use \"arrival\""]);
    check(time, "time = 5", &["`pipeline.temperature.time` is an integer, not a table"]);
    check(time, r#"when_past = "clamp""#, &["`pipeline.temperature.when_past` needs a bound", "add `past"]);
    check(time, r#"past = "1d""#, &["`pipeline.temperature.past` bounds stamps"]);
    check(time, r#"when_ahead = "drop""#, &["\"reject\" or \"arrival\" or \"clamp\""]);
}

#[test]
fn a_user_property_needs_mqtt_5_and_an_input_keeps_few() {
    let text = GOOD.replacen(", version = \"5\"", "", 1);
    let text =
        text.replacen(r#"{ field = "meta.ts", unit = "ms" }"#, r#"{ property = "ts", unit = "ms" }"#, 1);
    let faults = self::faults(&text);
    assert!(faults.contains("takes a user property, which MQTT 3.1.1 does not have"), "{faults}");
    assert!(faults.contains("add `version = \"5\"`"), "{faults}");

    let mut text = GOOD.to_owned();
    for number in 0..=mqtt::PROPERTIES_MAX {
        text += &format!(
            "[pipeline.p{number}]\ninput = \"plant\"\noutput = \"central\"\n\
             time = {{ property = \"p{number}\", unit = \"s\" }}\n"
        );
    }
    let faults = self::faults(&text);
    assert!(faults.contains("ask for 17 user properties of the input `plant`"), "{faults}");
}

#[test]
fn late_readings_have_an_output_by_name_and_a_quota_there() {
    let folder = folder();
    let file = folder.path().join("h.toml");
    let with = |late: &str| {
        let text = GOOD.replace("output = \"central\"\n", &format!("output = \"central\"\nlate = {late}\n"));
        text + "late = { bytes_max = \"16 MiB\", age_max = \"7d\" }\n"
    };
    let config = parse(&file, &with("{ output = \"central\" }")).unwrap();
    let late = |output: &str, when_full| Some(crate::pipeline::Late { output: output.to_owned(), when_full });
    assert_eq!(config.pipelines["temperature"].late, late("central", WhenFull::Block));
    let quota = Quota { bytes_max: 16 << 20, age_max: Some(Duration::from_hours(7 * 24)) };
    assert_eq!((config.outputs["central"].late, config.outputs["central"].outbox), (quota, Quota::OUTBOX));
    let config = parse(&file, &with("{ output = \"central\", when_full = \"drop-oldest\" }")).unwrap();
    assert_eq!(config.pipelines["temperature"].late, late("central", WhenFull::DropOldest));
    let config = parse(&file, GOOD).unwrap();
    assert_eq!((&config.pipelines["temperature"].late, config.outputs["central"].late), (&None, Quota::LATE));

    #[track_caller]
    fn fault(text: &str, says: &[&str]) {
        let faults = faults(text);
        assert!(says.iter().all(|says| faults.contains(says)), "{faults}");
    }
    fault(&with("{ output = \"store\" }"), &["names \"store\", and there is no [output.store]", "central"]);
    fault(&with("{ when_full = \"block\" }"), &["output"]);
    fault(&with("{ output = \"central\", when_full = \"coarsen\" }"), &["coarsen", "drop-oldest"]);
    fault(&with("\"central\""), &["late"]);
    let unwindowed = with("{ output = \"central\" }");
    let lines =
        unwindowed.lines().filter(|line| !line.starts_with("window") && !line.starts_with("aggregate"));
    fault(&lines.collect::<Vec<_>>().join("\n"), &["late", "without one no reading is late", "add a window"]);
    fault(&with("{ output = \"central\" }").replace("16 MiB", "1 MiB"), &["bytes_max", "16 MiB"]);
}

#[test]
fn bytes_have_no_fields_and_need_a_transform() {
    let bytes = GOOD.replace("input = \"plant\"", "input = \"plant\"\nformat = \"bytes\"");
    assert!(faults(&bytes).contains("is \"bytes\", which have no fields"), "{}", faults(&bytes));
    let by_topic = bytes.replace("time = { field = \"meta.ts\", unit = \"ms\" }\n", "");
    let folder = folder();
    parse(&folder.path().join("h.toml"), &by_topic).unwrap();
    let alone = by_topic.replace("transform = [{ module", "# transform = [{ module");
    assert!(faults(&alone).contains("and there is no transform"), "{}", faults(&alone));
}
