//! Any record that a pipeline can make: for property tests, here and in other crates.

use headwater_flow::{LossReport, ReportKind, Timestamp};
use proptest::option;
use proptest::prelude::*;

use crate::{
    AgentReport, EventResult, JsonText, LateReading, ModuleDigest, OpaqueLine, Record, ResultState,
    WindowResult,
};

/// The last time that is written as it is.
const TIME_MAX: u64 = 253_402_207_199_999_999;

/// Any time that a line can say.
pub fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        0..=TIME_MAX,
        Just(TIME_MAX),
        0..1_000_000_u64,
        (0..4_000_000_000_u64).prop_map(|it| it * 1_000_000)
    ]
    .prop_map(Timestamp)
}

/// Any JSON value, spaces between its tokens too.
pub fn any_value() -> impl Strategy<Value = JsonText<'static>> {
    let texts = prop_oneof![
        Just("null".to_owned()),
        any::<f64>()
            .prop_filter("JSON has finite numbers only", |it| it.is_finite())
            .prop_map(|it| it.to_string()),
        any::<i64>().prop_map(|it| it.to_string()),
        ".{0,40}".prop_map(|it| serde_json::to_string(&it).expect("a text can be written")),
        "[a-z]{1,9}".prop_map(|it| format!("{{ \"{it}\":\n [1.50, {{}} ]}}")),
    ];
    texts.prop_map(|text| JsonText::checked(text.as_bytes()).expect("it is JSON").into_owned())
}

/// Any digest that a line may carry.
pub fn any_module() -> impl Strategy<Value = ModuleDigest<'static>> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(ModuleDigest::Sha256),
        any::<[u8; 8]>().prop_map(ModuleDigest::Builtin),
        "[0-9A-F]{15}A".prop_map(|digits| ModuleDigest::Text(format!("builtin:{digits}").into())),
    ]
}

prop_compose! {
    /// Any result of a window.
    pub fn any_window()(
        texts in ["[ -~]{1,20}", ".{1,20}", ".{0,40}"],
        start in any_time(),
        length in 1..1_u64 << 50,
        (part, revision) in any::<(u32, u32)>(),
        state in prop_oneof![Just(ResultState::Closed), Just(ResultState::Early), Just(ResultState::Retracted)],
        module in option::of(any_module()),
        counts in [0..1_u64 << 63, 0..300, 0..1 << 20],
        watermark in option::of(any_time()),
        value in any_value(),
    ) -> Record<'static> {
        let [agent, pipeline, key] = texts.map(Into::into);
        let end = Timestamp((start.0 + length).min(TIME_MAX));
        let start = Timestamp(start.0.min(end.0 - 1));
        let is_retracted = state == ResultState::Retracted;
        let [count, late, rejected] = if is_retracted { [0; 3] } else { counts };
        let value = if is_retracted { JsonText::checked(b"null").expect("it is JSON") } else { value };
        Record::Window(WindowResult {
            agent, pipeline, key, start, end, part, revision, state, module, count, late, rejected, watermark, value,
        })
    }
}

prop_compose! {
    /// Any event, on time or late.
    pub fn any_event()(
        texts in ["[ -~]{1,20}", ".{1,20}", ".{0,40}", ".{0,40}"],
        is_late in any::<bool>(),
        time in any_time(),
        module in option::of(any_module()),
        value in any_value(),
    ) -> Record<'static> {
        let [agent, pipeline, topic, key] = texts.map(Into::into);
        if is_late {
            Record::Late(LateReading { agent, pipeline, topic, key, time, module, value })
        } else {
            Record::Event(EventResult { agent, pipeline, key, time, module, value })
        }
    }
}

prop_compose! {
    /// Any report.
    pub fn any_report()(
        texts in ["[ -~]{1,20}", "[a-z-]{0,12}", ".{0,80}"],
        pipeline in option::of(".{1,20}"),
        time in any_time(),
        kind in prop_oneof![
            Just(ReportKind::Lost), Just(ReportKind::Dropped), Just(ReportKind::Coarsened), Just(ReportKind::Expired),
        ],
        numbers in [option::of(0..1_u64 << 63), option::of(0..u64::MAX), option::of(0..300)],
        times in [option::of(any_time()), option::of(any_time())],
    ) -> Record<'static> {
        let [agent, stage, reason] = texts;
        let [count, first, last] = numbers;
        let [from, to] = times;
        let report = LossReport { kind, stage: stage.into(), count, first, last, from, to, reason };
        Record::Report(AgentReport { agent: agent.into(), pipeline: pipeline.map(Into::into), time, report })
    }
}

/// Any record of a type.
pub fn any_record() -> impl Strategy<Value = Record<'static>> {
    prop_oneof![3 => any_window(), 3 => any_event(), 1 => any_report()]
}

prop_compose! {
    /// A line of no type.
    pub fn any_opaque()(
        pipeline in ".{0,20}", key in ".{0,20}", line in proptest::collection::vec(any::<u8>(), 0..200),
    ) -> Record<'static> {
        Record::Opaque(OpaqueLine { pipeline: pipeline.into(), key: key.into(), line: line.into() })
    }
}
