//! What a repair left to be told upstream: by the pipelines for what it took from them, by the
//! outboxes for the rest.

use super::codec::{self, Row};
use super::error::Error;
use super::frame::Group;
use super::meta::Change;
use super::{Store, lock};
use headwater_flow::{LossReport, Timestamp};
use headwater_wire::{AgentReport, Record};

/// What a repair took from a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Harm {
    /// Window state is lost, all of it or some: what is not in the checkpoint may have been.
    pub windows: bool,
    /// The position is lost: it is the journal's end now, and the progress is not that of the last commit.
    pub position: bool,
    /// How far the journal went is not known: what followed, if anything did, is lost.
    pub end: bool,
    /// Why, for people.
    pub reason: String,
}

impl Store {
    /// Puts the reports that a repair left into the outboxes, each once. Pipelines that have no
    /// checkpoint from now on are new ones: call it when all are built.
    pub fn tell(&self, agent: &str, now: Timestamp) -> Result<(), Error> {
        for (row, value) in self.0.meta.all(b'l') {
            let Some((_, output)) = row.parts() else { continue };
            let reports: Vec<LossReport> = serde_json::from_slice(&value).unwrap_or_default();
            let outbox = self.outbox(output)?;
            let _appending = lock(&outbox.appending);
            let made = outbox.stamp(now);
            let records = reports.into_iter().map(|report| {
                let report = AgentReport { agent: agent.into(), pipeline: None, time: now, report };
                let mut record = Vec::new();
                // Of no pipeline: no policy of any gives it up.
                codec::put_result(&mut record, "", made, &[], &Record::Report(report).to_line());
                record
            });
            let range = outbox.log.append(Group::of(records))?;
            let changes = [outbox.commit_change(range.end), (row.clone(), None)];
            // What was appended and not committed would be taken for committed by the next commit.
            self.0.health.judge(self.0.meta.apply(&changes))?;
            outbox.set_committed(range.end);
            self.changed(output).send_replace(range.end);
        }
        if self.0.meta.get(&Row::harm(""))?.is_some() {
            self.0.meta.apply(&[(Row::harm(""), None)])?;
        }
        Ok(())
    }

    /// What a repair took from the pipeline and it has not told yet.
    pub(super) fn harm(&self, pipeline: &str) -> Result<Option<Harm>, Error> {
        let own = self.0.meta.get(&Row::harm(pipeline))?;
        let value = match own {
            Some(own) => own,
            None if self.position(pipeline)?.is_some() => return Ok(None),
            None => match self.0.meta.get(&Row::harm(""))? {
                Some(all) => all,
                None => return Ok(None),
            },
        };
        let (what, reason) = codec::harm(&value).map_err(|garbled| self.garbled(garbled))?;
        lock(&self.0.told).insert(pipeline.to_owned());
        let has = |harm: u8| what & harm != 0;
        let (windows, position, end) =
            (has(codec::HARM_WINDOWS), has(codec::HARM_POSITION), has(codec::HARM_END));
        Ok(Some(Harm { windows, position, end, reason }))
    }

    /// The change that makes the harm told, with the commit that tells it.
    pub(super) fn told(&self, pipeline: &str) -> Option<Change> {
        lock(&self.0.told).contains(pipeline).then(|| (Row::harm(pipeline), None))
    }

    /// That commit is made.
    pub(super) fn has_told(&self, pipeline: &str) {
        lock(&self.0.told).remove(pipeline);
    }
}
