//! Mends a damaged store, part by part: what is intact stays where it is.
//!
//! A damaged segment or `meta` is composed anew of what can still be read of it and exchanged for the
//! damaged one, which goes to the quarantine. What cannot be read becomes a gap, and a report. All
//! decisions rest on the rows: from `meta`, from their copy, or from what the logs alone tell
//! (`repair/rows.rs`); how a log is mended is in `repair/logs.rs`.
//!
//! **Invariants.** Nothing is given twice: a number that may have been given is never given again, and
//! an outbox keeps its epoch, so that what it sends again is recognised. Nothing is lost in silence:
//! every number that was to be read is there or in a report. A message whose acknowledgement the broker had
//! not received comes again and is not recognised: it is read under a new number, also by a pipeline whose
//! report names the old one, and by one that had read it before. So reports count too many, never too few. An empty or missing part is damage, never
//! a fresh start. Where the journal's mark is lost with its last records, their numbers are not known:
//! they may be given again, which nobody outside sees, and the report names none.
//!
//! **A crash here** repeats the repair: the file `harmed` holds what was found, the exchanges are
//! single steps, and the row `a` tells whether the reports are in `meta`.

pub(super) mod harmed;
mod logs;
mod quarantine;
mod rows;

use super::codec::{self, Row};
use super::error::Error;
use super::folder::Folder;
use super::mark::Mark;
use super::{layout, sync};
use harmed::Notes;
use headwater_flow::{LossReport, ReportKind, Seq, Timestamp};
use quarantine::Quarantine;
use rows::{State, Trust};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Reports of one log that are told range by range; more are told as one.
const REPORTS_MAX: usize = 64;
/// Where copies are opened that are only looked at.
const LOOKED_AT: &str = "new-look";

/// A damaged place, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The folder or file within the store's folder.
    pub place: String,
    /// What is wrong with it.
    pub fault: String,
    /// What could not be read any more.
    pub lost: Vec<Loss>,
}

/// Records that are lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// `journal`, `outbox`, `dead-letters`, `windows`.
    pub stage: String,
    /// The output or pipeline they belonged to.
    pub of: Option<String>,
    /// The first one's number.
    pub first: Option<Seq>,
    /// The last one's.
    pub last: Option<Seq>,
    /// How many.
    pub count: Option<u64>,
}

/// Whether damage is mended or only named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Mend,
    /// Nothing is changed: databases are opened as copies.
    Look,
}

/// A look at every part of a store that is not open.
#[derive(Debug)]
struct Repair<'a> {
    folder: &'a Folder,
    mode: Mode,
    notes: Notes,
    quarantine: Quarantine,
    findings: Vec<Finding>,
}

/// Checks every part of the store and, in [`Mode::Mend`], mends it. The caller has it locked and
/// nothing of it open.
///
/// # Errors
/// When the disk does not let it: then the next attempt goes on.
pub(super) fn run(folder: &Folder, mode: Mode, now: Timestamp) -> Result<Vec<Finding>, Error> {
    let notes = Notes::open(folder.path(), mode, now)?;
    let quarantine = Quarantine::new(folder.path(), notes.name());
    let findings = notes.findings.clone();
    let mut repair = Repair { folder, mode, notes, quarantine, findings };
    sync::forget_cached(folder.path());
    repair.layout()?;
    let state = repair.all()?;
    if mode == Mode::Mend {
        repair.finish(state, now)?;
    }
    Ok(std::mem::take(&mut repair.findings))
}

impl Repair<'_> {
    fn layout(&mut self) -> Result<(), Error> {
        match (layout::check(self.folder, self.mode == Mode::Mend), self.mode) {
            (Err(Error::Damaged { detail, .. }), Mode::Mend) => {
                self.find("layout", &detail, Vec::new())?;
                layout::mend(self.folder)
            }
            (Err(Error::Damaged { detail, .. }), Mode::Look) => self.find("layout", &detail, Vec::new()),
            (checked, _) => checked,
        }
    }

    fn all(&mut self) -> Result<State, Error> {
        let mut state = self.rows()?;
        for output in self.outputs(&state)? {
            self.outbox(&mut state, &output)?;
        }
        self.dead_letters(&mut state)?;
        let journal_end = self.journal(&mut state)?;
        self.positions(&mut state, journal_end)?;
        Ok(state)
    }

    /// What was found goes into the rows, then to the people, then it is done with.
    fn finish(&mut self, mut state: State, now: Timestamp) -> Result<(), Error> {
        let told = state.small.get(Row::repair().bytes()).map(Vec::as_slice);
        if told != Some(self.notes.name().as_bytes()) {
            self.put_reports(&mut state);
            if !self.findings.is_empty() {
                state.put(Row::repair(), self.notes.name().as_bytes().to_vec());
            }
        }
        self.store_rows(state)?;
        if !self.findings.is_empty() {
            self.quarantine.report(now, &self.notes.causes, &self.findings)?;
        }
        for finding in &self.findings {
            let (place, fault, lost) = (&finding.place, &finding.fault, &finding.lost);
            tracing::error!(place, fault, ?lost, "state folder was damaged and is mended");
        }
        self.quarantine.tidy()?;
        self.notes.done()
    }

    fn find(&mut self, place: &str, fault: &str, lost: Vec<Loss>) -> Result<(), Error> {
        let finding = Finding { place: place.to_owned(), fault: fault.to_owned(), lost };
        // A repair that was cut short finds again what it had not mended yet.
        self.findings.retain(|known| known.place != finding.place);
        self.notes.finding(&finding)?;
        self.findings.push(finding);
        Ok(())
    }

    /// Losses in an outbox are told by that outbox, all others by the first there is.
    fn put_reports(&self, state: &mut State) {
        let first = state.names(b'o').into_iter().next();
        for finding in &self.findings {
            let reason = format!("{}: {}", finding.place, finding.fault);
            for loss in &finding.lost {
                let output = match loss.stage.as_str() {
                    "outbox" => loss.of.clone(),
                    "dead-letters" => first.clone(),
                    // Those the pipelines tell, when they come to the gap or start without their windows.
                    _ => None,
                };
                if let Some(output) = output {
                    state.add_report(&output, &loss.report(&reason));
                }
            }
        }
    }

    fn outputs(&self, state: &State) -> Result<Vec<String>, Error> {
        let mut names = state.names(b'o');
        let folder = self.folder.outboxes();
        if folder.is_dir() {
            let list = |source| Error::io("list", &folder, source);
            for entry in fs::read_dir(&folder).map_err(list)? {
                let name = entry.map_err(list)?.file_name();
                names.extend(name.to_str().and_then(super::folder::output_of));
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn outbox(&mut self, state: &mut State, output: &str) -> Result<(), Error> {
        let path = self.folder.outbox(output);
        let kept = super::outbox::kept_epoch(&path)?;
        let row = state.outbox(output);
        let Some(epoch) = row.map(|(epoch, _)| epoch).or(kept) else {
            return self.lost_outbox(state, output, &path);
        };
        let sending = state.sending(output);
        let (wanted, missing) = match row {
            Some((_, end)) if state.trust == Trust::Exact => (logs::End::Committed(end), false),
            Some((_, end)) => (logs::End::Found(end), false),
            None => (logs::End::Found(sending.begun()), true),
        };
        let place = self.place(&path);
        if missing {
            self.find(&place, "its row is missing", Vec::new())?;
        }
        let of = logs::Of { stage: "outbox", output: Some(output), pending: sending.pending(Seq::MAX) };
        let mended = self.log(&path, &of, wanted)?;
        if row != Some((epoch, mended.end)) {
            state.put(Row::outbox(output), codec::put_outbox(epoch, mended.end));
        }
        let lost: Seq = mended.lost.iter().map(|lost| lost.end - lost.start).sum();
        if lost > 0 {
            let missing = state.number(&Row::missing(output)) + lost;
            state.put(Row::missing(output), codec::put_number(missing));
            // Nor is anything left of an exchange of segments that was cut short.
            state.remove(&Row::exchange(output));
        }
        // A batch spans no gap: what is left of it is begun anew, and recognised result by result.
        let mut mended_sending = sending.clone();
        for pending in sending.pending(mended.end) {
            let begun = sending.stretch(pending.start).map_or(pending.start, |stretch| stretch.begun);
            let harmed = |lost: &std::ops::Range<Seq>| lost.start < begun && lost.end > pending.start;
            if mended.lost.iter().any(harmed) {
                let none = pending.start..pending.start;
                mended_sending = mended_sending.with_begun(pending.start, &none).unwrap_or(mended_sending);
            }
        }
        if mended_sending != sending {
            state.put(Row::batch(output), codec::put_batch(&mended_sending));
        }
        Ok(())
    }

    /// Without its epoch its results could not be told from those that arrived: they are lost rather
    /// than counted twice.
    fn lost_outbox(&mut self, state: &mut State, output: &str, path: &Path) -> Result<(), Error> {
        let epoch = super::outbox::new_epoch()?;
        let place = self.place(path);
        let loss = Loss {
            stage: "outbox".to_owned(),
            of: Some(output.to_owned()),
            first: None,
            last: None,
            count: None,
        };
        self.find(&place, "its epoch is lost, and with it what arrived", vec![loss])?;
        state.put(Row::outbox(output), codec::put_outbox(epoch, 0));
        if self.mode == Mode::Mend {
            self.quarantine.take(path, &place)?;
        }
        Ok(())
    }

    fn dead_letters(&mut self, state: &mut State) -> Result<(), Error> {
        let known = state.number(&Row::dead_letters());
        let wanted = match state.trust {
            Trust::Exact => logs::End::Committed(known),
            _ => logs::End::Found(known),
        };
        let mended = self.log(&self.folder.dead_letters(), &logs::Of::all("dead-letters"), wanted)?;
        if mended.end != known {
            state.put(Row::dead_letters(), codec::put_number(mended.end));
        }
        Ok(())
    }

    fn journal(&mut self, state: &mut State) -> Result<Seq, Error> {
        let path = self.folder.journal_marks();
        let marked = Mark::read(&path)?;
        let used = state.last_position();
        let gone = marked == Some(0) && !path.exists() && self.folder.journal().exists();
        let is_unmarked = marked.is_none() || gone;
        if is_unmarked {
            self.find(&self.place(&path), "neither of its slots is whole", Vec::new())?;
        }
        let wanted = match marked.filter(|_| !gone) {
            Some(marked) => logs::End::Held(used.max(marked)),
            None => logs::End::Written(used),
        };
        let end = self.log(&self.folder.journal(), &logs::Of::all("journal"), wanted)?.end;
        if is_unmarked {
            // Where bytes are gone that were never missed, such as the last of a file, nothing tells.
            for pipeline in state.names(b'p') {
                state.add_harm(&pipeline, codec::HARM_END, "how far the journal went was lost with its mark");
            }
        }
        if is_unmarked && self.mode == Mode::Mend {
            let made = self.folder.path().join("new-journal-marks");
            Mark::write(&made, end)?;
            fs::rename(&made, &path).map_err(|source| Error::io("rename", &made, source))?;
            sync::sync_path(self.folder.path())?;
        }
        Ok(end)
    }

    /// A position that may be too old would count readings twice: the pipeline goes on at the end.
    fn positions(&mut self, state: &mut State, journal_end: Seq) -> Result<(), Error> {
        if state.trust == Trust::Exact {
            return Ok(());
        }
        let reason = "its position was lost with `meta`";
        for pipeline in state.names(b'p') {
            let progress = state.progress(&pipeline);
            state.put(Row::pipeline(&pipeline), codec::put_pipeline(journal_end, &progress));
            state.add_harm(&pipeline, codec::HARM_POSITION | codec::HARM_WINDOWS, reason);
        }
        state.add_harm("", codec::HARM_POSITION | codec::HARM_WINDOWS, reason);
        state.raise_sessions();
        Ok(())
    }

    /// A path within the store's folder, as findings name it.
    fn place(&self, path: &Path) -> String {
        path.strip_prefix(self.folder.path()).unwrap_or(path).display().to_string()
    }

    /// The database at `path`, or a copy of it where it must stay as it is.
    fn openable(&self, path: &Path) -> Result<PathBuf, Error> {
        if self.mode == Mode::Mend {
            return Ok(path.to_owned());
        }
        let copy = self.folder.path().join(LOOKED_AT);
        let failed = |source| Error::io("copy", path, source);
        if copy.exists() {
            fs::remove_dir_all(&copy).map_err(failed)?;
        }
        copy_tree(path, &copy).map_err(failed)?;
        Ok(copy)
    }
}

impl Drop for Repair<'_> {
    fn drop(&mut self) {
        let copy = self.folder.path().join(LOOKED_AT);
        if self.mode == Mode::Look
            && copy.exists()
            && let Err(error) = fs::remove_dir_all(&copy)
        {
            tracing::warn!(%error, path = %copy.display(), "copy not removed");
        }
    }
}

impl Loss {
    fn report(&self, reason: &str) -> LossReport {
        LossReport {
            kind: ReportKind::Lost,
            stage: self.stage.clone().into(),
            count: self.count,
            first: self.first,
            last: self.last,
            from: None,
            to: None,
            reason: reason.to_owned(),
        }
    }
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::io::copy(&mut File::open(entry.path())?, &mut File::create(target)?)?;
        }
    }
    Ok(())
}
