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
//! So [`LedgerAudit`] says that an equation is broken when [`LOOKS`] checks in a row saw it broken to the
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

/// The counts of an input since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the terms of the equation above")]
pub struct InputTerms {
    pub received: u64,
    pub journaled: u64,
    pub duplicates: u64,
    pub shed: u64,
    pub refused: u64,
    pub in_flight: u64,
}

/// The counts of the journal since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the terms of the equation above")]
pub struct JournalTerms {
    pub appended: u64,
    pub journaled: u64,
    pub in_flight: u64,
}

/// The counts of a pipeline since the state folder was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the terms of the equations above")]
pub struct PipelineTerms {
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
    /// Late events that were committed to the late output; in no equation, as are those that follow.
    pub sent_late: u64,
    /// Results that were committed to the output.
    pub results: u64,
    /// Dead letters, results that could not be finished included.
    pub dead_letters: u64,
    /// Dead letters that were given up before they were replayed.
    pub given_up_letters: u64,
    /// Messages in the journal behind its position.
    pub pending: u64,
}

/// The counts of an output since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the terms of the equation above")]
pub struct OutputTerms {
    pub opening: u64,
    pub results: u64,
    /// Late readings that are sent to it; their fate is counted with that of the results.
    pub late: u64,
    /// Lines that report losses: fewer than at the start where reports were merged.
    pub reports: i64,
    pub delivered: u64,
    pub refused: u64,
    pub lost: u64,
    pub dropped: u64,
    pub coarsened: u64,
    pub expired: u64,
    pub pending: u64,
}

/// The terms of inputs that were removed, in the journal's equation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the terms of the equation above")]
pub struct DepartedInputs {
    pub journaled: u64,
    pub in_flight: u64,
}

impl DepartedInputs {
    /// Adds those of another input.
    pub fn add(&mut self, other: &Self) {
        self.journaled += other.journaled;
        self.in_flight += other.in_flight;
    }
}

/// The lines that a pipeline wrote to an output's outboxes, and those that it gave up there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the terms of the equation above")]
pub struct OutboxWrites {
    pub results: u64,
    pub late: u64,
    pub reports: i64,
    pub dropped: u64,
    pub coarsened: u64,
    pub expired: u64,
}

impl OutboxWrites {
    /// Adds those of another pipeline.
    pub fn add(&mut self, other: &Self) {
        self.results += other.results;
        self.late += other.late;
        self.reports += other.reports;
        self.dropped += other.dropped;
        self.coarsened += other.coarsened;
        self.expired += other.expired;
    }

    /// Returns those that came after `opening`.
    #[must_use]
    pub fn since(&self, opening: &Self) -> Self {
        Self {
            results: self.results - opening.results,
            late: self.late - opening.late,
            reports: self.reports - opening.reports,
            dropped: self.dropped - opening.dropped,
            coarsened: self.coarsened - opening.coarsened,
            expired: self.expired - opening.expired,
        }
    }
}

/// The counts of all stages, read together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the stages, by name")]
pub struct LedgerSnapshot {
    pub journal: JournalTerms,
    pub inputs: BTreeMap<String, InputTerms>,
    pub pipelines: BTreeMap<String, PipelineTerms>,
    pub outputs: BTreeMap<String, OutputTerms>,
}

impl InputTerms {
    fn missing(&self) -> i64 {
        let Self { received, journaled, duplicates, shed, refused, in_flight } = *self;
        difference([received], [journaled, duplicates, shed, refused, in_flight])
    }
}

impl JournalTerms {
    /// A group is in the journal a moment before its input knows.
    fn missing(&self) -> i64 {
        let early = difference([self.appended], [self.journaled]);
        let some = i64::try_from(self.in_flight).unwrap_or(i64::MAX);
        if early < 0 { -early } else { (some - early).min(0) }
    }
}

impl PipelineTerms {
    fn missing_messages(&self) -> i64 {
        let Self { position, read, skipped, lost, expired, .. } = *self;
        difference([position], [read, skipped, lost, expired])
    }

    fn missing_events(&self) -> i64 {
        let Self { read, replayed, multiplied, rejected, filtered, used, late, lost_events, .. } = *self;
        difference([read, replayed, multiplied], [rejected, filtered, used, late, lost_events])
    }
}

impl OutputTerms {
    fn missing(&self) -> i64 {
        let Self { opening, results, late, reports, .. } = *self;
        let Self { delivered, refused, lost, dropped, coarsened, expired, pending, .. } = *self;
        let went = [delivered, refused, lost, dropped, coarsened, expired, pending];
        difference([opening, results, late], went).saturating_add(reports)
    }
}

impl LedgerSnapshot {
    /// Returns the number of records that each equation misses, by its name; below 0 it has too many.
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

/// Returns the better of two looks for each equation, since one that held is no loss; for the journal the worse.
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

/// A change that a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerFinding {
    /// The equation does not hold, by that number of records.
    Broken(String, i64),
    /// The equation holds again, or its stage was removed.
    Mended(String),
}

/// Tells an equation that is broken from one that was only read at different moments.
#[derive(Debug, Default)]
pub struct LedgerAudit {
    equations: BTreeMap<String, EquationStreak>,
}

#[derive(Clone, Copy, Debug, Default)]
struct EquationStreak {
    /// Checks in a row to the side of `missing`.
    checks: u32,
    missing: i64,
    told: i64,
}

impl LedgerAudit {
    /// Takes in the outcome of a check, and returns the changes since the last one.
    pub fn check(&mut self, missing: &BTreeMap<String, i64>) -> Vec<LedgerFinding> {
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
                0 => LedgerFinding::Mended(name.clone()),
                _ => LedgerFinding::Broken(name.clone(), broken),
            });
        }
        self.equations.retain(|name, streak| {
            let remains = missing.contains_key(name);
            if !remains && streak.told != 0 {
                findings.push(LedgerFinding::Mended(name.clone()));
            }
            remains
        });
        findings
    }

    /// Returns the equations that are broken, with the number of records that each misses.
    #[must_use]
    pub fn broken(&self) -> BTreeMap<String, i64> {
        let broken = self.equations.iter().filter(|(_, streak)| streak.told != 0);
        broken.map(|(name, streak)| (name.clone(), streak.told)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balanced() -> LedgerSnapshot {
        let input =
            InputTerms { received: 20, journaled: 10, duplicates: 4, shed: 3, refused: 2, in_flight: 1 };
        let pipeline = PipelineTerms {
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
        let output = OutputTerms {
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
        LedgerSnapshot {
            journal: JournalTerms { appended: 10, journaled: 10, in_flight: 1 },
            inputs: BTreeMap::from([("i".to_owned(), input)]),
            pipelines: BTreeMap::from([("p".to_owned(), pipeline)]),
            outputs: BTreeMap::from([("o".to_owned(), output)]),
        }
    }

    /// After a change of one term exactly these equations miss so many.
    #[track_caller]
    fn check(change: impl FnOnce(&mut LedgerSnapshot), expected: &[(&str, i64)]) {
        let mut book = balanced();
        change(&mut book);
        let broken: Vec<_> = book.missing().into_iter().filter(|(_, missing)| *missing != 0).collect();
        let expected: Vec<_> =
            expected.iter().map(|(name, missing)| ((*name).to_owned(), *missing)).collect();
        assert_eq!(broken, expected);
    }

    fn input(book: &mut LedgerSnapshot) -> &mut InputTerms {
        book.inputs.get_mut("i").unwrap()
    }

    fn pipeline(book: &mut LedgerSnapshot) -> &mut PipelineTerms {
        book.pipelines.get_mut("p").unwrap()
    }

    fn output(book: &mut LedgerSnapshot) -> &mut OutputTerms {
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
            |output: &mut OutputTerms| output.opening += 1,
            |output: &mut OutputTerms| output.results += 1,
            |output: &mut OutputTerms| output.late += 1,
            |output: &mut OutputTerms| output.reports += 1,
        ] {
            check(|book| came(output(book)), &[("outbox/o", 1)]);
        }
        for went in [
            |output: &mut OutputTerms| output.delivered += 1,
            |output: &mut OutputTerms| output.refused += 1,
            |output: &mut OutputTerms| output.lost += 1,
            |output: &mut OutputTerms| output.dropped += 1,
            |output: &mut OutputTerms| output.coarsened += 1,
            |output: &mut OutputTerms| output.expired += 1,
            |output: &mut OutputTerms| output.pending += 1,
        ] {
            check(|book| went(output(book)), &[("outbox/o", -1)]);
        }
    }

    /// What each check finds, and what is told at the end.
    #[track_caller]
    fn audited(missing: &[i64], findings: &[(usize, i64)], told: i64) {
        let (name, mut audit) = ("e".to_owned(), LedgerAudit::default());
        let mut found = Vec::new();
        for (at, &missing) in missing.iter().enumerate() {
            for finding in audit.check(&BTreeMap::from([(name.clone(), missing)])) {
                found.push(match finding {
                    LedgerFinding::Broken(_, records) => (at, records),
                    LedgerFinding::Mended(_) => (at, 0),
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
            (LedgerAudit::default(), |missing| BTreeMap::from([(JOURNAL.to_owned(), missing)]));
        let findings: Vec<_> = [0, 1, 0, 0, 0].map(|missing| audit.check(&journal(missing))).concat();
        assert_eq!(findings, [LedgerFinding::Broken(JOURNAL.to_owned(), 1)]);
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
