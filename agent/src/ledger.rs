//! The ledger: where every record went, as equations that hold at every moment.
//!
//! ```text
//! input      received = journaled + duplicates + shed + refused + in flight             each input
//! journal    appended = journaled by the inputs, and of those in flight some            the journal
//! position   position = read + skipped + lost + expired                                 each pipeline
//! events     read + replayed + multiplied = rejected + filtered + used + late
//!                                           + events lost with their windows           each pipeline
//! outbox     opening + results + late + reports = delivered + refused + lost + dropped
//!                                                 + coarsened + expired + pending       each output
//! ```
//!
//! **From when.** A pipeline's counts are committed with its position, so they are exact since the
//! state folder was made (or the pipeline was added: what was in the journal before counts as
//! skipped). Inputs and outputs count since the process started: nothing of an input is open at a
//! start, as what was in flight was not acknowledged and comes again; and an output opens with
//! what was pending. So every equation holds from the first moment, and nothing else must be durable.
//!
//! **False alarms, and missed ones.** Counts of one stage change and are read together
//! ([`headwater_meter::Turn`]), so `input`, `position` and `events` are exact at every look, under
//! any load. In the other two the stages count at different moments: a result is in the outbox a
//! moment before its pipeline says so, and confirmed a moment before the output does. Such a
//! difference is gone at the next look; a real one stays, and nothing but a restart takes it away.
//! So [`Audit`] says that an equation is broken when [`LOOKS`] checks in a row saw it broken to the
//! same side, each of them in all its looks. In `journal` it is the other way: its bounds allow for
//! all that is in flight, so that one look outside them is proof, and later ones inside are none.
//!
//! Pure: [`crate::audit`] does the looking.

use std::collections::BTreeMap;

use serde::Serialize;

/// Checks in a row that must see an equation broken to the same side.
pub const LOOKS: u32 = 3;

/// The equation that one look disproves.
const JOURNAL: &str = "journal";

/// An input, since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the terms of the equation above")]
pub struct Input {
    pub received: u64,
    pub journaled: u64,
    pub duplicates: u64,
    pub shed: u64,
    pub refused: u64,
    pub in_flight: u64,
}

/// The journal, since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the terms of the equation above")]
pub struct Journal {
    pub appended: u64,
    pub journaled: u64,
    pub in_flight: u64,
}

/// A pipeline, since the state folder was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the terms of the equations above")]
pub struct Pipeline {
    pub position: u64,
    pub skipped: u64,
    pub lost: u64,
    pub expired: u64,
    pub read: u64,
    pub replayed: u64,
    pub multiplied: u64,
    pub filtered: u64,
    pub rejected: u64,
    pub used: u64,
    pub late: u64,
    pub lost_events: u64,
    /// Of no equation: of the late, those committed to the late output.
    pub sent_late: u64,
    /// Of no equation: what it has committed to its output.
    pub results: u64,
    /// Of no equation: what it has dead-lettered, results that could not be finished included.
    pub dead_letters: u64,
    /// Of no equation: of those, given up before they were replayed.
    pub given_up_letters: u64,
    /// Of no equation: messages in the journal behind its position.
    pub pending: u64,
}

/// An output, since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the terms of the equation above")]
pub struct Output {
    pub opening: u64,
    pub results: u64,
    /// Late readings that are sent to it: what becomes of them is counted with the results.
    pub late: u64,
    /// Fewer than at the start where reports were merged.
    pub reports: i64,
    pub delivered: u64,
    pub refused: u64,
    pub lost: u64,
    pub dropped: u64,
    pub coarsened: u64,
    pub expired: u64,
    pub pending: u64,
}

/// One look at all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the stages, by name")]
pub struct Book {
    pub journal: Journal,
    pub inputs: BTreeMap<String, Input>,
    pub pipelines: BTreeMap<String, Pipeline>,
    pub outputs: BTreeMap<String, Output>,
}

impl Input {
    fn missing(&self) -> i64 {
        let Self { received, journaled, duplicates, shed, refused, in_flight } = *self;
        difference([received], [journaled, duplicates, shed, refused, in_flight])
    }
}

impl Journal {
    /// A group is in the journal a moment before its input knows.
    fn missing(&self) -> i64 {
        let early = difference([self.appended], [self.journaled]);
        let some = i64::try_from(self.in_flight).unwrap_or(i64::MAX);
        if early < 0 { -early } else { (some - early).min(0) }
    }
}

impl Pipeline {
    fn missing_messages(&self) -> i64 {
        let Self { position, read, skipped, lost, expired, .. } = *self;
        difference([position], [read, skipped, lost, expired])
    }

    fn missing_events(&self) -> i64 {
        let Self { read, replayed, multiplied, rejected, filtered, used, late, lost_events, .. } = *self;
        difference([read, replayed, multiplied], [rejected, filtered, used, late, lost_events])
    }
}

impl Output {
    fn missing(&self) -> i64 {
        let Self { opening, results, late, reports, .. } = *self;
        let Self { delivered, refused, lost, dropped, coarsened, expired, pending, .. } = *self;
        let went = [delivered, refused, lost, dropped, coarsened, expired, pending];
        difference([opening, results, late], went).saturating_add(reports)
    }
}

impl Book {
    /// Each equation by name, and how many records it misses; below 0 it has too many.
    #[must_use]
    pub fn missing(&self) -> BTreeMap<String, i64> {
        let mut missing = BTreeMap::from([(JOURNAL.to_owned(), self.journal.missing())]);
        missing.extend(self.inputs.iter().map(|(name, input)| (format!("input/{name}"), input.missing())));
        for (name, pipeline) in &self.pipelines {
            missing.insert(format!("position/{name}"), pipeline.missing_messages());
            missing.insert(format!("events/{name}"), pipeline.missing_events());
        }
        let outputs = self.outputs.iter();
        missing.extend(outputs.map(|(name, output)| (format!("outbox/{name}"), output.missing())));
        missing
    }
}

fn difference<const N: usize, const M: usize>(came: [u64; N], went: [u64; M]) -> i64 {
    let sum = |all: &[u64]| all.iter().copied().map(i128::from).sum::<i128>();
    let missing = sum(&came) - sum(&went);
    i64::try_from(missing).unwrap_or(if missing < 0 { i64::MIN } else { i64::MAX })
}

/// Of the looks of one check what speaks best for each equation: one that held is no loss. Of the
/// journal what speaks worst.
#[must_use]
pub fn least(one: BTreeMap<String, i64>, other: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let least = |name: &str, missing: i64| match other.get(name) {
        Some(other) if (other.unsigned_abs() < missing.unsigned_abs()) == (name != JOURNAL) => *other,
        _ => missing,
    };
    one.into_iter()
        .map(|(name, missing)| {
            let missing = least(&name, missing);
            (name, missing)
        })
        .collect()
}

/// What a check has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The equation does not hold, by so many records.
    Broken(String, i64),
    /// It holds again.
    Mended(String),
}

/// Tells what is really broken from what was only read at different moments.
#[derive(Debug, Default)]
pub struct Audit {
    equations: BTreeMap<String, Streak>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    /// Checks in a row to the side of `missing`.
    checks: u32,
    missing: i64,
    told: i64,
}

impl Audit {
    /// Takes one check in; what is new since the last.
    pub fn check(&mut self, missing: &BTreeMap<String, i64>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, &missing) in missing {
            let streak = self.equations.entry(name.clone()).or_default();
            let missing = if name == JOURNAL && missing == 0 { streak.missing } else { missing };
            let same_side = missing.signum() == streak.missing.signum();
            streak.checks = if same_side { streak.checks.saturating_add(1) } else { 1 };
            streak.missing = missing;
            let broken = if missing != 0 && streak.checks >= LOOKS { missing } else { 0 };
            let suspected = missing != 0 && broken == 0;
            if broken == streak.told || suspected {
                continue;
            }
            streak.told = broken;
            findings.push(match broken {
                0 => Finding::Mended(name.clone()),
                _ => Finding::Broken(name.clone(), broken),
            });
        }
        findings
    }

    /// The equations that are broken, and by how many records.
    #[must_use]
    pub fn broken(&self) -> BTreeMap<String, i64> {
        let broken = self.equations.iter().filter(|(_, streak)| streak.told != 0);
        broken.map(|(name, streak)| (name.clone(), streak.told)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balanced() -> Book {
        let input = Input { received: 20, journaled: 10, duplicates: 4, shed: 3, refused: 2, in_flight: 1 };
        let pipeline = Pipeline {
            position: 31,
            skipped: 10,
            lost: 7,
            expired: 2,
            read: 12,
            replayed: 1,
            multiplied: 5,
            filtered: 2,
            rejected: 3,
            used: 8,
            late: 4,
            lost_events: 1,
            sent_late: 2,
            results: 6,
            dead_letters: 3,
            given_up_letters: 1,
            pending: 7,
        };
        let output = Output {
            opening: 5,
            results: 28,
            late: 2,
            reports: 1,
            delivered: 20,
            refused: 6,
            lost: 1,
            dropped: 2,
            coarsened: 3,
            expired: 1,
            pending: 3,
        };
        Book {
            journal: Journal { appended: 10, journaled: 10, in_flight: 1 },
            inputs: BTreeMap::from([("i".to_owned(), input)]),
            pipelines: BTreeMap::from([("p".to_owned(), pipeline)]),
            outputs: BTreeMap::from([("o".to_owned(), output)]),
        }
    }

    /// After a change of one term exactly these equations miss so many.
    #[track_caller]
    fn check(change: impl FnOnce(&mut Book), expected: &[(&str, i64)]) {
        let mut book = balanced();
        change(&mut book);
        let broken: Vec<_> = book.missing().into_iter().filter(|(_, missing)| *missing != 0).collect();
        let expected: Vec<_> =
            expected.iter().map(|(name, missing)| ((*name).to_owned(), *missing)).collect();
        assert_eq!(broken, expected);
    }

    fn input(book: &mut Book) -> &mut Input {
        book.inputs.get_mut("i").unwrap()
    }

    fn pipeline(book: &mut Book) -> &mut Pipeline {
        book.pipelines.get_mut("p").unwrap()
    }

    fn output(book: &mut Book) -> &mut Output {
        book.outputs.get_mut("o").unwrap()
    }

    #[test]
    fn every_term_of_an_input_is_in_its_equation() {
        check(|_| {}, &[]);
        check(|book| input(book).received += 1, &[("input/i", 1)]);
        check(|book| input(book).journaled += 1, &[("input/i", -1)]);
        check(|book| input(book).duplicates += 1, &[("input/i", -1)]);
        check(|book| input(book).shed += 1, &[("input/i", -1)]);
        check(|book| input(book).refused += 1, &[("input/i", -1)]);
        check(|book| input(book).in_flight -= 1, &[("input/i", 1)]);
    }

    #[test]
    fn the_journal_may_know_of_what_is_in_flight_and_of_nothing_else() {
        check(|book| book.journal.appended += 1, &[]);
        check(|book| book.journal.appended += 2, &[("journal", -1)]);
        check(|book| book.journal.appended -= 1, &[("journal", 1)]);
        check(|book| book.journal.journaled += 2, &[("journal", 2)]);
    }

    #[test]
    fn every_term_of_a_pipeline_is_in_its_equation() {
        let position = |missing| [("position/p", missing)];
        let events = |missing| [("events/p", missing)];
        check(|book| pipeline(book).position += 1, &position(1));
        check(|book| pipeline(book).skipped += 1, &position(-1));
        check(|book| pipeline(book).lost += 1, &position(-1));
        check(|book| pipeline(book).expired += 1, &position(-1));
        check(|book| pipeline(book).read += 1, &[("events/p", 1), ("position/p", -1)]);
        check(|book| pipeline(book).replayed += 1, &events(1));
        check(|book| pipeline(book).multiplied += 1, &events(1));
        check(|book| pipeline(book).filtered += 1, &events(-1));
        check(|book| pipeline(book).rejected += 1, &events(-1));
        check(|book| pipeline(book).used += 1, &events(-1));
        check(|book| pipeline(book).late += 1, &events(-1));
        check(|book| pipeline(book).lost_events += 1, &events(-1));
    }

    #[test]
    fn every_term_of_an_output_is_in_its_equation() {
        for came in [
            |output: &mut Output| output.opening += 1,
            |output: &mut Output| output.results += 1,
            |output: &mut Output| output.late += 1,
            |output: &mut Output| output.reports += 1,
        ] {
            check(|book| came(output(book)), &[("outbox/o", 1)]);
        }
        for went in [
            |output: &mut Output| output.delivered += 1,
            |output: &mut Output| output.refused += 1,
            |output: &mut Output| output.lost += 1,
            |output: &mut Output| output.dropped += 1,
            |output: &mut Output| output.coarsened += 1,
            |output: &mut Output| output.expired += 1,
            |output: &mut Output| output.pending += 1,
        ] {
            check(|book| went(output(book)), &[("outbox/o", -1)]);
        }
    }

    /// What each check finds, and what is told at the end.
    #[track_caller]
    fn audited(missing: &[i64], findings: &[(usize, i64)], told: i64) {
        let (name, mut audit) = ("e".to_owned(), Audit::default());
        let mut found = Vec::new();
        for (at, &missing) in missing.iter().enumerate() {
            for finding in audit.check(&BTreeMap::from([(name.clone(), missing)])) {
                found.push(match finding {
                    Finding::Broken(_, records) => (at, records),
                    Finding::Mended(_) => (at, 0),
                });
            }
        }
        assert_eq!(found, findings, "{missing:?}");
        assert_eq!(audit.broken().get(&name).copied().unwrap_or(0), told, "{missing:?}");
    }

    #[test]
    fn only_what_stays_broken_to_one_side_is_told() {
        audited(&[0, 0, 0, 0], &[], 0);
        audited(&[5, 5, 0, 5, 5, 0], &[], 0);
        audited(&[5, -5, 5, -5, 5, -5], &[], 0);
        audited(&[0, 1, 1, 1, 1], &[(3, 1)], 1);
        audited(&[-1, -1, -1], &[(2, -1)], -1);
        audited(&[1, 9, 4], &[(2, 4)], 4);
        audited(&[1, 1, 1, 2], &[(2, 1), (3, 2)], 2);
        audited(&[1, 1, 1, 0, 0], &[(2, 1), (3, 0)], 0);
        audited(&[1, 1, 1, -1, -1, -1], &[(2, 1), (5, -1)], -1);
    }

    #[test]
    fn what_the_journal_once_missed_is_not_mended_by_what_is_in_flight() {
        let (mut audit, journal) =
            (Audit::default(), |missing| BTreeMap::from([(JOURNAL.to_owned(), missing)]));
        let findings: Vec<_> = [0, 1, 0, 0, 0].map(|missing| audit.check(&journal(missing))).concat();
        assert_eq!(findings, [Finding::Broken(JOURNAL.to_owned(), 1)]);
        assert_eq!(audit.broken(), journal(1));
    }

    #[test]
    fn a_look_that_held_speaks_for_the_equation() {
        let missing = |missing: [i64; 2]| {
            BTreeMap::from([(JOURNAL.to_owned(), missing[0]), ("e".to_owned(), missing[1])])
        };
        assert_eq!(least(missing([0, 1]), &missing([1, 0])), missing([1, 0]));
        assert_eq!(least(missing([1, 0]), &missing([0, 1])), missing([1, 0]));
        let one = BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), -3), ("c".to_owned(), 1)]);
        let other = BTreeMap::from([("a".to_owned(), 0), ("b".to_owned(), -4), ("c".to_owned(), -1)]);
        let expected = BTreeMap::from([("a".to_owned(), 0), ("b".to_owned(), -3), ("c".to_owned(), 1)]);
        assert_eq!(least(one, &other), expected);
    }
}
