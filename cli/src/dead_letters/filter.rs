//! Which dead letters are meant.

use std::ops::ControlFlow;

use clap::Args;

use headwater_agent::flow::{Seq, StoredLetter, Timestamp};

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only those of this pipeline.
    #[arg(long)]
    pub(super) pipeline: Option<String>,
    /// Only those of this stage: decode, transform[0], check, aggregate, encode, finish, output.
    #[arg(long)]
    pub(super) stage: Option<String>,
    /// Only those whose reason holds this text.
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// The first number.
    #[arg(long, value_name = "N")]
    pub(super) from: Option<Seq>,
    /// The last number.
    #[arg(long, value_name = "N")]
    pub(super) until: Option<Seq>,
    /// Only those refused then or later, such as 2026-01-01T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<Timestamp>,
    /// Only those refused earlier.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) before: Option<Timestamp>,
}

impl Filter {
    /// Where to begin.
    pub(super) fn first(&self) -> Seq {
        self.from.unwrap_or(0)
    }

    /// Whether there is none behind this number.
    pub(super) fn ends_at(&self, number: Seq) -> ControlFlow<()> {
        if self.until.is_some_and(|until| number >= until) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Whether it says anything at all.
    pub(super) fn is_given(&self) -> bool {
        let Self { pipeline, stage, reason, from, until, since, before } = self;
        [pipeline, stage, reason].iter().any(|text| text.is_some())
            || [from, until].iter().any(|number| number.is_some())
            || [since, before].iter().any(|time| time.is_some())
    }

    pub(super) fn takes(&self, kept: &StoredLetter) -> bool {
        let letter = &kept.letter;
        let time = Timestamp(letter.time);
        self.pipeline.as_ref().is_none_or(|name| *name == letter.pipeline)
            && self.stage.as_ref().is_none_or(|stage| letter.is_of_stage(stage))
            && self.reason.as_ref().is_none_or(|text| letter.reason.contains(text))
            && self.from.is_none_or(|from| kept.number >= from)
            && self.until.is_none_or(|until| kept.number <= until)
            && self.since.is_none_or(|since| time >= since)
            && self.before.is_none_or(|before| time < before)
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp =
        text.parse().map_err(|error| format!("{error}: write 2026-01-01T00:00:00Z"))?;
    u64::try_from(time.as_microsecond()).map(Timestamp).map_err(|_| "it is before 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_agent::flow::DeadLetter;

    #[track_caller]
    fn check(filter: Filter, expected: &[Seq]) {
        let letter = |number: Seq| DeadLetter {
            pipeline: ["p", "q"][number as usize % 2].to_owned(),
            stage: "decode".to_owned(),
            reason: format!("refused {number}"),
            time: number * 1_000_000,
            ..DeadLetter::default()
        };
        let all = (0..6).map(|number| StoredLetter { number, replayed: false, letter: letter(number) });
        let taken: Vec<_> = all.filter(|kept| filter.takes(kept)).map(|kept| kept.number).collect();
        assert_eq!(taken, expected, "{filter:?}");
    }

    #[test]
    fn filters_narrow_together() {
        let given = Filter::default();
        check(given.clone(), &[0, 1, 2, 3, 4, 5]);
        check(Filter { pipeline: Some("q".into()), ..given.clone() }, &[1, 3, 5]);
        check(Filter { stage: Some("encode".into()), ..given.clone() }, &[]);
        check(Filter { reason: Some("ed 4".into()), ..given.clone() }, &[4]);
        check(Filter { from: Some(2), until: Some(3), ..given.clone() }, &[2, 3]);
        let (since, before) = (time("1970-01-01T00:00:01Z"), time("1970-01-01T00:00:04Z"));
        check(Filter { since: since.ok(), before: before.ok(), pipeline: Some("p".into()), ..given }, &[2]);
        assert!(time("yesterday").is_err());
    }
}
