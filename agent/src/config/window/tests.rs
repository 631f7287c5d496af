use super::*;
use crate::config::tests::{GOOD, check, folder};

const WINDOW: &str = "{ tumbling = \"1m\", lateness = \"10s\", idle = \"30s\" }";

fn window(window: &str) -> WindowConfig {
    let folder = folder();
    let config = crate::config::parse(&folder.path().join("h.toml"), &GOOD.replacen(WINDOW, window, 1));
    let config = config.unwrap_or_else(|faults| panic!("{window}: {faults}"));
    config.pipelines["temperature"].windowed.clone().unwrap().0
}

#[test]
fn each_kind_is_read_with_its_options() {
    let seconds = Duration::from_secs;
    let kinds = [
        (
            r#"{ tumbling = "1m", offset = "15s", early = "5s", readings_max = 9, bytes_max = "1 MiB" }"#,
            WindowKind::Tumbling(TumblingWindow { size: seconds(60), offset: seconds(15) }),
        ),
        (
            r#"{ tumbling = "1d", zone = "Europe/Berlin", revise = "1h" }"#,
            WindowKind::Day(DayWindow { zone: TimeZone::get("Europe/Berlin").unwrap() }),
        ),
        (
            r#"{ hopping = "1h", slide = "1m", offset = "30s" }"#,
            WindowKind::Hopping(HoppingWindow {
                size: seconds(3_600),
                slide: seconds(60),
                offset: seconds(30),
            }),
        ),
        (r#"{ sliding = "5m", lateness = "1s" }"#, WindowKind::Sliding(SlidingWindow { size: seconds(300) })),
        (
            r#"{ session = "10m", longest = "2h" }"#,
            WindowKind::Session(SessionWindow { gap: seconds(600), longest: Some(seconds(7_200)) }),
        ),
        (r#"{ session = "10m" }"#, WindowKind::Session(SessionWindow { gap: seconds(600), longest: None })),
        (r#"{ count = 5, slide = 2, forget = "1h" }"#, WindowKind::Count(CountWindow { size: 5, slide: 2 })),
        (r#"{ count = 5 }"#, WindowKind::Count(CountWindow { size: 5, slide: 5 })),
    ];
    for (text, kind) in kinds {
        assert_eq!(window(text).kind, kind, "{text}");
    }
    let config = window(
        r#"{ tumbling = "1m", early = "5s", readings_max = 9, bytes_max = "1 MiB", watermark = "key",
            patience = "1d", keys_max = 7, when_keys_full = "overflow" }"#,
    );
    assert_eq!((config.patience, config.keys_max), (Some(DAY), 7));
    assert_eq!((config.early, config.readings_max, config.bytes_max), (Some(seconds(5)), 9, 1 << 20));
    assert_eq!(config.when_keys_full, WhenKeysFull::Overflow);
}

#[test]
fn each_fault_of_a_window_names_place_and_remedy() {
    let faults = [
        ("{ lateness = \"1s\" }", "names no kind of window"),
        (
            "{ tumbling = \"1m\", session = \"1m\" }",
            "`pipeline.temperature.window.session` stands beside `tumbling`",
        ),
        (
            "{ sliding = \"1m\", revise = \"1m\" }",
            "`pipeline.temperature.window.revise` is not for `sliding` windows",
        ),
        ("{ hopping = \"1m\" }", "has no `slide`"),
        ("{ hopping = \"1m\", slide = \"2m\" }", "is longer than the window"),
        ("{ hopping = \"1d\", slide = \"1s\" }", "makes 86400 windows of each reading"),
        ("{ hopping = \"100001ms\", slide = \"1s\" }", "out of 100001 panes"),
        ("{ hopping = \"1m\", slide = \"1m\", offset = \"1m\" }", "is no shorter than what it moves"),
        ("{ tumbling = \"1h\", zone = \"UTC\" }", "is for calendar days only"),
        ("{ tumbling = \"1d\", zone = \"Mars/Base\" }", "which is no time zone"),
        ("{ tumbling = \"1d\", zone = \"UTC\", offset = \"1h\" }", "stands beside `zone`"),
        ("{ session = \"1m\", longest = \"1s\" }", "is shorter than the gap"),
        ("{ count = 0 }", "out of range"),
        ("{ count = 2, slide = 3 }", "is more than the window"),
        ("{ tumbling = \"1m\", watermark = \"key\" }", "add `patience"),
        ("{ tumbling = \"1m\", patience = \"1h\" }", "is for `watermark = \"key\"`"),
        ("{ tumbling = \"1m\", watermark = \"all\" }", "\"pipeline\" or \"key\""),
        ("{ tumbling = \"1m\", keys_max = 0 }", "out of range"),
    ];
    for (text, expected) in faults {
        check(WINDOW, text, &[expected]);
    }
    for (text, expected) in [
        ("{ hopping = \"1m\", slide = \"10s\" }", "only tumbling windows without an offset can be merged"),
        ("{ tumbling = \"1m\", early = \"10s\" }", "an early result would count twice"),
        ("{ tumbling = \"1m\", readings_max = 5 }", "only whole windows can be merged"),
    ] {
        check(WINDOW, &format!("{text}\nwhen_full = \"coarsen\""), &[expected]);
    }
}
