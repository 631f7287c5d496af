//! The worker process on a real store: it reads an operation a line and writes an answer a line.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use headwater_agent::flow::{DeadLetter, Message, MqttDelivery, Timestamp};
use headwater_agent::metrics::StoreMetrics;
use headwater_agent::store::{Commit, Config, Outgoing, Session, Store};
use serde::{Deserialize, Serialize};

use super::{
    INPUTS, LATE, OUTPUTS, PIPELINES, PipelineStep, REDELIVERY_WINDOW, StoreContents, StoreOperation, bytes,
    input_of, mark,
};

/// A request to the worker: an operation, and the first mark for the data that it writes.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerRequest {
    /// The operation to do.
    pub operation: StoreOperation,
    /// The first mark.
    pub mark: u64,
}

/// Works until there are no more lines. The first line written is empty and says that the store is open.
///
/// # Errors
/// When the store fails.
pub fn work(folder: &Path) -> anyhow::Result<()> {
    // Some windows are larger, so that they are written to rows.
    let window_memory_max = 100_000;
    let redelivery_window = REDELIVERY_WINDOW;
    let config = Config { redelivery_window, window_memory_max, ..Config::new(folder.to_owned()) };
    let store = Store::open(&config, &StoreMetrics::default())?;
    let mut out = std::io::stdout().lock();
    writeln!(out)?;
    for line in std::io::stdin().lock().lines() {
        let WorkerRequest { operation, mark } = serde_json::from_str(&line?)?;
        let seen = perform(&store, &operation, mark).with_context(|| format!("{operation:?}"))?;
        writeln!(out, "{}", serde_json::to_string(&seen)?)?;
        out.flush()?;
    }
    Ok(())
}

fn perform(store: &Store, operation: &StoreOperation, first: u64) -> anyhow::Result<Option<StoreContents>> {
    match operation {
        StoreOperation::Append { sizes } => {
            let messages = (first..).zip(sizes).map(|(mark, size)| message(mark, *size));
            store.append(&messages.collect::<Vec<_>>())?;
        }
        StoreOperation::Commit(step) => commit(store, step, first)?,
        StoreOperation::Begin { output, results_max } => {
            store.begin_batch(OUTPUTS[*output], *results_max, usize::MAX)?;
        }
        StoreOperation::Narrow { output, results } => {
            store.narrow_batch(OUTPUTS[*output], *results)?;
        }
        StoreOperation::Confirm { output, refused } => {
            let batch = store.begin_batch(OUTPUTS[*output], 1, usize::MAX)?.context("a batch is begun")?;
            store.confirm_batch(OUTPUTS[*output], &batch.range, refused.then(|| letter(first, 8)))?;
        }
        StoreOperation::Trim => store.trim(&PIPELINES.map(|(name, _)| name))?,
        StoreOperation::Session { input } => {
            let session = store.session(INPUTS[*input])?;
            store.keep_session(INPUTS[*input], &Session { number: session.number + 1, ..session })?;
        }
        StoreOperation::Look => return look(store).map(Some),
    }
    Ok(None)
}

fn commit(store: &Store, step: &PipelineStep, first: u64) -> anyhow::Result<()> {
    let (pipeline, output) = PIPELINES[step.pipeline];
    let position = store.checkpoint(pipeline)?.position.unwrap_or(0) + step.advance;
    let mut marks = first..;
    let mut next = || marks.next().unwrap_or_default();
    let commit = Commit {
        pipeline,
        position,
        progress: bytes(next(), 8),
        windows: step
            .windows
            .iter()
            .map(|(key, size)| {
                let mark = next();
                (vec![*key], size.map(|size| bytes(mark, size)))
            })
            .collect(),
        results: Outgoing::new(output, step.results.iter().map(|size| bytes(next(), *size)).collect()),
        late: Outgoing::new(LATE, step.late.iter().map(|size| bytes(next(), *size)).collect()),
        dead_letters: step.letters.iter().map(|size| letter(next(), *size)).collect(),
        ..Commit::default()
    };
    Ok(store.commit(&commit)?)
}

fn look(store: &Store) -> anyhow::Result<StoreContents> {
    let mut seen = StoreContents { end: store.journal_end(), ..StoreContents::default() };
    let mut next = store.journal_start();
    while next < seen.end {
        for (seq, message) in store.read(next, 1 << 20)? {
            let mark = mark(&message.payload);
            anyhow::ensure!(
                message == self::message(mark, message.payload.len()),
                "message {seq} is another"
            );
            seen.journal.push((seq, mark));
            next = seq + 1;
        }
    }
    for (name, _) in PIPELINES {
        let checkpoint = store.checkpoint(name)?;
        if let Some(position) = checkpoint.position {
            let mut windows = BTreeMap::new();
            store.windows(name, &mut |key, state| {
                windows.insert(key[0], mark(&state));
                Ok::<_, headwater_agent::store::Error>(())
            })?;
            seen.pipelines.insert(name.to_owned(), (position, mark(&checkpoint.progress), windows));
        }
    }
    for name in OUTPUTS {
        let batch = store.begin_batch(name, 1, usize::MAX)?;
        let pending = store.pending(name)?;
        let (range, marks) = match batch {
            Some(batch) => (batch.range, batch.records.iter().map(|line| mark(line)).collect()),
            None => (0..0, Vec::new()),
        };
        seen.outputs.insert(name.to_owned(), (range, marks, pending));
    }
    let mut from = 0;
    loop {
        let page = store.dead_letters(from, usize::MAX)?;
        let Some((last, _)) = page.last() else { break };
        from = last + 1;
        seen.letters.extend(page.iter().map(|(_, letter)| mark(&letter.payload)));
    }
    for name in INPUTS {
        let mut marks = Vec::new();
        store.recent(name, &mut |message| marks.push(mark(&message.payload)))?;
        seen.inputs.insert(name.to_owned(), (store.session(name)?.number, marks));
    }
    Ok(seen)
}

fn message(mark: u64, size: usize) -> Message {
    Message {
        input: Arc::from(INPUTS[input_of(mark)]),
        topic: format!("plant/{mark}"),
        payload: bytes(mark, size).into(),
        properties: Vec::new(),
        received: Timestamp(mark),
        delivery: MqttDelivery { qos: 1, retain: false, session: 1, packet: 7 },
    }
}

fn letter(mark: u64, size: usize) -> DeadLetter {
    DeadLetter {
        pipeline: "a".to_owned(),
        stage: "decode".to_owned(),
        time: mark,
        payload: bytes(mark, size),
        ..DeadLetter::default()
    }
}
