//! `/dead-letters`: the dead letters, page by page, and their replay.
//!
//! A caller that asks for a replay shows the [`AdminKey`] that lies in the state folder, readable by its owner
//! alone: a page in a browser on this machine, or a stranger where `agent.admin` is not loopback,
//! may look and not touch.
//!
//! **Limits.** [`PAGE`] letters or about 1 MiB an answer; [`BODY_BYTES_MAX`] and [`PAGE`] wishes a request.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::Admin;
use crate::flow::{DeadLetter, Seq, StoredLetter, Timestamp};
use crate::pipeline;
use crate::store::{self, Refusal, Store, Wish};

/// Dead letters in one answer, and wishes in one request.
pub const PAGE: usize = 64;
/// A letter of 8 MiB in base64, and what stands around it.
const BODY_BYTES_MAX: usize = 32 << 20;
/// The file in the state folder that holds the key.
pub const KEY_FILE: &str = "admin.key";

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/dead-letters", get(page))
        .route("/dead-letters/waiting", get(waiting))
        .route("/dead-letters/replay", post(replay).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)))
}

/// The key that lets a caller change something: made anew at each start.
#[derive(Clone)]
pub struct AdminKey(String);

impl AdminKey {
    /// Makes one and writes it into the state folder.
    ///
    /// # Errors
    /// When it cannot be written there.
    pub fn make(state: &Path) -> std::io::Result<Self> {
        let mut bits = [0; 16];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bits)?;
        let key = format!("{:032x}", u128::from_le_bytes(bits));
        let (file, made) = (state.join(KEY_FILE), state.join(format!("new-{KEY_FILE}")));
        if made.exists() {
            std::fs::remove_file(&made)?;
        }
        let mut open = std::fs::OpenOptions::new();
        open.write(true).create_new(true).mode(0o600).open(&made)?.write_all(key.as_bytes())?;
        std::fs::rename(made, file)?;
        Ok(Self(key))
    }

    /// Returns the answer to a caller who does not show it.
    pub(super) fn refuses(&self, headers: &HeaderMap) -> Option<Response> {
        let words = || format!("show the key: it lies in the state folder, in {KEY_FILE}");
        (!self.is_shown(headers)).then(|| (StatusCode::UNAUTHORIZED, words()).into_response())
    }

    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        // As long for a good guess as for a bad one.
        let differences = shown.bytes().zip(self.0.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
        shown.len() == self.0.len() && differences == 0
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminKey(***)")
    }
}

/// One letter that is to be replayed: a request holds some, each in a line of its own.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReplayAsk {
    /// The letter's number.
    pub number: Seq,
    /// Replays it also if it was replayed before.
    #[serde(default)]
    pub again: bool,
    /// The letters that go in its place: topic, key, event time and bytes count, and the module that made them.
    #[serde(default)]
    pub mended: Vec<StoredLetter>,
}

/// The answer for one letter, in the order of the request.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReplayAnswer {
    /// The letter's number.
    pub number: Seq,
    /// The reason that it is not replayed; `None` when it is.
    pub refused: Option<String>,
    /// The queue has no room: the same request helps in a moment.
    pub full: bool,
    /// It was replayed before, or will be.
    pub replayed: bool,
}

/// The progress of replays.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReplayProgress {
    /// The number behind the last letter.
    pub end: Seq,
    /// The letters that wait to be replayed, by pipeline.
    pub pipelines: BTreeMap<String, usize>,
}

#[derive(Debug, Deserialize)]
struct PageStart {
    #[serde(default)]
    from: Seq,
}

/// Answers a page as NDJSON, oldest first, from a number on; empty behind the last.
async fn page(State(admin): State<Admin>, Query(PageStart { from }): Query<PageStart>) -> Response {
    aside(admin, move |store, _| {
        let page = store.kept_letters(from, PAGE)?;
        let lines: String = page.iter().map(|kept| kept.to_line() + "\n").collect();
        Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
    })
    .await
}

async fn waiting(State(admin): State<Admin>) -> Response {
    aside(admin, |store, known| {
        let waiting = known.iter().map(|name| Ok((name.to_string(), store.waiting_letters(name)?)));
        let pipelines = waiting.collect::<Result<_, store::Error>>()?;
        Ok(Json(ReplayProgress { end: store.letters_end(), pipelines }).into_response())
    })
    .await
}

async fn replay(State(admin): State<Admin>, headers: HeaderMap, body: String) -> Response {
    if let Some(refused) = admin.0.parts.key.refuses(&headers) {
        return refused;
    }
    let asks: Result<Vec<ReplayAsk>, _> = body.lines().take(PAGE).map(serde_json::from_str).collect();
    match asks {
        Ok(asks) => {
            aside(admin, move |store, known| Ok(Json(answer(store, known, asks)?).into_response())).await
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}

/// Puts letters into the queues of their pipelines, those of one pipeline together.
fn answer(
    store: &Store,
    known: &[Arc<str>],
    asks: Vec<ReplayAsk>,
) -> Result<Vec<ReplayAnswer>, store::Error> {
    let mut answers: Vec<ReplayAnswer> = Vec::with_capacity(asks.len());
    let mut wishes: BTreeMap<String, Vec<(usize, Wish)>> = BTreeMap::new();
    for (index, ask) in asks.into_iter().enumerate() {
        let letter = store.dead_letters(ask.number, 1)?.pop().filter(|(number, _)| *number == ask.number);
        let answered = |refused| ReplayAnswer { number: ask.number, refused, full: false, replayed: false };
        let letter = match letter.map(|(_, letter)| letter) {
            None => Err(Refusal::Missing.to_string()),
            Some(letter) if !known.iter().any(|name| **name == *letter.pipeline) => Err(format!(
                "its pipeline {:?} is not in the configuration: only the one that refused it can take it",
                letter.pipeline
            )),
            Some(letter) if !pipeline::is_replayable(&letter) => {
                Err(format!("nothing can be given in again at its stage, {:?}", letter.stage))
            }
            Some(letter) => Ok(letter),
        };
        match letter {
            Err(reason) => answers.push(answered(Some(reason))),
            Ok(letter) => {
                answers.push(answered(None));
                let mended = ask.mended.into_iter().map(|by| mend(ask.number, &letter, by.letter)).collect();
                let wish = Wish { number: ask.number, again: ask.again, mended };
                wishes.entry(letter.pipeline).or_default().push((index, wish));
            }
        }
    }
    for (pipeline, wishes) in wishes {
        let (indexes, wishes): (Vec<_>, Vec<_>) = wishes.into_iter().unzip();
        for (index, verdict) in indexes.into_iter().zip(store.replay_letters(&pipeline, &wishes)?) {
            let Err(refusal) = verdict else { continue };
            answers[index].refused = Some(refusal.to_string());
            answers[index].full = refusal == Refusal::Full;
            answers[index].replayed = matches!(refusal, Refusal::Replayed | Refusal::Waiting);
        }
    }
    Ok(answers)
}

/// Returns the letter as a module mended it: a letter of its own, which leads back to the old one.
fn mend(number: Seq, letter: &DeadLetter, by: DeadLetter) -> DeadLetter {
    let module = by.module.unwrap_or_default();
    DeadLetter {
        reason: format!("mended by {module} to be replayed; before: {}", letter.reason),
        module: Some(module),
        topic: by.topic,
        key: by.key,
        event_time: by.event_time.or(letter.event_time),
        time: Timestamp::now().0,
        replay_of: Some(number),
        payload: by.payload,
        ..letter.clone()
    }
}

/// Answers with what the store says; not at all when too many wait for that already.
async fn aside(
    admin: Admin,
    ask: impl FnOnce(&Store, &[Arc<str>]) -> Result<Response, store::Error> + Send + 'static,
) -> Response {
    let state = admin.0.clone();
    let asked = admin.0.thread.begin(move || {
        let roster = state.parts.roster.current();
        ask(&state.parts.store, &roster.pipelines.keys().cloned().collect::<Vec<_>>())
    });
    let words = match asked.await {
        Ok(Ok(response)) => return response,
        Ok(Err(error @ store::Error::Full { .. })) => {
            return (StatusCode::INSUFFICIENT_STORAGE, error.to_string()).into_response();
        }
        Ok(Err(error)) => error.to_string(),
        Err(reason) => reason,
    };
    (StatusCode::INTERNAL_SERVER_ERROR, words).into_response()
}
