//! What an answer means: pure, with the clock as an argument.

use super::config::Expect;
use crate::flow::Timestamp;
use crate::secret;
use crate::wire::BatchKey;
use std::time::Duration;

/// Characters of an answer, or of anything else a stranger sent, that a log line or a dead
/// letter repeats.
const WORDS_MAX: usize = 300;

/// What came of one attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// At least a status came back.
    Answered(Answer),
    /// Nothing did.
    Failed(Fault),
}

/// As much of an answer as the judgement needs.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    pub(super) date: Option<String>,
    pub(super) location: Option<String>,
    /// Its beginning, bounded.
    pub(super) body: Vec<u8>,
    /// Why there was no end to it.
    pub(super) broken: Option<Fault>,
}

/// What an answer is held against.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) expect: Expect,
    pub(super) key: &'a BatchKey,
    pub(super) now: Timestamp,
    pub(super) retry_after_max: Duration,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It arrived: forget it.
    Confirmed,
    /// It may or may not have arrived: the same bytes under the same key again.
    Retry { fault: Fault, pace: Pace, after: Duration },
    /// It was read and will never be taken as it is: smaller, or dead-lettered when alone.
    Refused { fault: Fault },
}

/// How fast to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// The destination is gone or broken: full jitter, and the breaker counts it.
    Gone,
    /// It lives and asks for a pause: full jitter.
    Busy,
    /// Only somebody's hand helps, here or there.
    Slow,
}

/// Why an attempt came to nothing: what logs and dead letters say.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("failed to reach the destination: {0}")]
    Unreachable(String),
    #[error("failed to set up TLS: {0}")]
    Trust(String),
    #[error("failed to get an answer in time: {0}")]
    TimedOut(String),
    #[error("failed to read the answer: {0}")]
    Broken(String),
    #[error("destination answered {status}: {words}")]
    Unavailable { status: u16, words: String },
    #[error(
        "destination answered {status}, a redirect to {location:?}, which is never followed: set url to the final address, or sign in to the network"
    )]
    Redirect { status: u16, location: String },
    #[error(
        "destination answered {status} without a receipt for the batch: a captive portal or proxy, or a backend that gives none (then set expect = \"status\"): {words}"
    )]
    NoReceipt { status: u16, words: String },
    #[error("destination answered with a receipt for another batch: {accepted:?}")]
    WrongReceipt { accepted: String },
    #[error("destination refused the credentials with {status}: renew the token: {words}")]
    Credentials { status: u16, words: String },
    #[error(transparent)]
    Token(#[from] secret::Error),
    #[error("destination answered {status}: correct url or compression, or the destination: {words}")]
    Misplaced { status: u16, words: String },
    #[error("destination found it too large with 413: {words}")]
    TooLarge { words: String },
    #[error("destination refused the content with {status}: {words}")]
    Content { status: u16, words: String },
    #[error("a proxy before the destination answered {status} about TLS: renew the certificate: {words}")]
    Certificate { status: u16, words: String },
    #[error(
        "somebody before the destination answered {status}, not the collector in its JSON (a backend of another kind needs expect = \"status\"): {words}"
    )]
    NotItsWords { status: u16, words: String },
}

impl Fault {
    /// Whether the destination was there, so that the batch itself may be what it cannot bear.
    pub(super) fn is_an_answer(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::TimedOut(_) | Self::Broken(_))
    }

    /// Whether another token may mend it.
    pub(super) fn is_about_credentials(&self) -> bool {
        matches!(self, Self::Credentials { .. } | Self::Token(_))
    }
}

#[derive(serde::Deserialize)]
struct Receipt {
    accepted: String,
}

#[derive(serde::Deserialize)]
struct Refusal {
    #[serde(rename = "error")]
    _error: String,
}

/// Judges what came of an attempt.
pub(super) fn judge(outcome: Outcome, terms: &Terms<'_>) -> Verdict {
    let answer = match outcome {
        Outcome::Answered(answer) => answer,
        // A rotation may be under way, and be done at the next look.
        Outcome::Failed(fault @ Fault::Trust(_)) => {
            return Verdict::Retry { fault, pace: Pace::Busy, after: Duration::ZERO };
        }
        Outcome::Failed(fault) => return Verdict::Retry { fault, pace: Pace::Gone, after: Duration::ZERO },
    };
    let (status, words) = (answer.status, words(&answer.body));
    let after = retry_after(&answer, terms);
    match status {
        200..=299 => confirmation(answer, terms),
        300..=399 => {
            let location = self::words(answer.location.unwrap_or_default().as_bytes());
            Verdict::Retry { fault: Fault::Redirect { status, location }, pace: Pace::Gone, after }
        }
        413 => Verdict::Refused { fault: Fault::TooLarge { words } },
        400 | 422 => refusal(&answer, words, after, terms.expect),
        401 | 403 => Verdict::Retry { fault: Fault::Credentials { status, words }, pace: Pace::Slow, after },
        408 | 425 | 429 => {
            Verdict::Retry { fault: Fault::Unavailable { status, words }, pace: Pace::Busy, after }
        }
        400..=499 => Verdict::Retry { fault: Fault::Misplaced { status, words }, pace: Pace::Slow, after },
        _ => Verdict::Retry { fault: Fault::Unavailable { status, words }, pace: Pace::Gone, after },
    }
}

/// What dead-letters data must come from the destination itself. The collector says it in JSON; a
/// proxy that wants another certificate of us says 400 as well (nginx: "No required SSL certificate
/// was sent"), and of other backends only those words are known.
fn refusal(answer: &Answer, words: String, after: Duration, expect: Expect) -> Verdict {
    let (status, pace) = (answer.status, Pace::Slow);
    if words.contains("SSL certificate") {
        return Verdict::Retry { fault: Fault::Certificate { status, words }, pace, after };
    }
    if expect == Expect::Receipt && serde_json::from_slice::<Refusal>(&answer.body).is_err() {
        return Verdict::Retry { fault: Fault::NotItsWords { status, words }, pace, after };
    }
    Verdict::Refused { fault: Fault::Content { status, words } }
}

/// A receipt counts even if the connection broke after it: nobody else could have known the key.
fn confirmation(answer: Answer, terms: &Terms<'_>) -> Verdict {
    if terms.expect == Expect::Status {
        return Verdict::Confirmed;
    }
    let status = answer.status;
    let fault = match (serde_json::from_slice::<Receipt>(&answer.body), answer.broken) {
        (Ok(receipt), _) if receipt.accepted == terms.key.to_string() => return Verdict::Confirmed,
        (Ok(receipt), _) => Fault::WrongReceipt { accepted: words(receipt.accepted.as_bytes()) },
        (Err(_), Some(fault)) => fault,
        (Err(_), None) => Fault::NoReceipt { status, words: words(&answer.body) },
    };
    Verdict::Retry { fault, pace: Pace::Gone, after: Duration::ZERO }
}

/// `Retry-After` (RFC 9110, 10.2.3) up to the cap; zero without one that can be read. A date is
/// held against the destination's own `Date`, since this machine's clock may be years off.
fn retry_after(answer: &Answer, terms: &Terms<'_>) -> Duration {
    let Some(value) = answer.retry_after.as_deref().map(str::trim) else {
        return Duration::ZERO;
    };
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let now = answer.date.as_deref().and_then(http_date).unwrap_or(terms.now);
        http_date(value).map_or(Duration::ZERO, |until| until.since(now))
    };
    wait.min(terms.retry_after_max)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`; the two obsolete forms of RFC 9110 count as none.
fn http_date(text: &str) -> Option<Timestamp> {
    let time =
        jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text.trim()).ok()?;
    u64::try_from(time.as_microsecond()).ok().map(Timestamp)
}

/// What a stranger sent, fit for one line of a log.
pub(super) fn words(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(WORDS_MAX * 4)];
    let text = String::from_utf8_lossy(head);
    let one_line = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let text = one_line.collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None if text.is_empty() => "(no words)".to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "a/000000000000000000000000000000ff/7-8";
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() }
    }

    fn verdict(answer: Answer, expect: Expect) -> Verdict {
        let now = Timestamp(784_111_777_000_000);
        let key = &KEY.parse().unwrap();
        let terms = Terms { expect, key, now, retry_after_max: Duration::from_secs(300) };
        judge(Outcome::Answered(answer), &terms)
    }

    /// `verdict`: "confirmed", "refused", or the pace of the retry; then words of the fault.
    #[track_caller]
    fn check(answer: Answer, expect: Expect, expected: &str, words: &str) {
        let shown = format!("{answer:?}");
        let (found, fault) = match verdict(answer, expect) {
            Verdict::Confirmed => ("confirmed".to_owned(), String::new()),
            Verdict::Retry { fault, pace, .. } => (format!("{pace:?}").to_lowercase(), fault.to_string()),
            Verdict::Refused { fault } => ("refused".to_owned(), fault.to_string()),
        };
        assert_eq!(found, expected, "{shown}: {fault}");
        assert!(fault.contains(words), "{shown}: {fault}");
    }

    #[test]
    fn only_the_receipt_for_this_batch_confirms() {
        let receipt = format!(r#"{{"accepted":"{KEY}","watermark":8}}"#);
        let other = r#"{"accepted":"a/000000000000000000000000000000ff/7-9","watermark":9}"#;
        check(answer(200, &receipt), Expect::Receipt, "confirmed", "");
        check(answer(201, &receipt), Expect::Receipt, "confirmed", "");
        check(answer(200, other), Expect::Receipt, "gone", "another batch");
        check(answer(200, "<html>Welcome! Sign in</html>"), Expect::Receipt, "gone", "captive portal");
        check(answer(204, ""), Expect::Receipt, "gone", "without a receipt");
        check(answer(200, &receipt[..20]), Expect::Receipt, "gone", "without a receipt");
        check(answer(500, &receipt), Expect::Receipt, "gone", "500");
        check(answer(302, &receipt), Expect::Receipt, "gone", "redirect");
        check(answer(200, "<html>"), Expect::Status, "confirmed", "");
        check(answer(204, ""), Expect::Status, "confirmed", "");
        check(answer(302, ""), Expect::Status, "gone", "redirect");
    }

    #[test]
    fn a_broken_answer_is_named_as_such() {
        let receipt = format!(r#"{{"accepted":"{KEY}"}}"#);
        for (body, expected) in [(&receipt[..9], "gone"), (&receipt[..], "confirmed")] {
            let broken = Some(Fault::Broken("connection reset".to_owned()));
            check(Answer { broken, ..answer(200, body) }, Expect::Receipt, expected, "");
        }
        let broken = Some(Fault::Broken("connection reset".to_owned()));
        check(Answer { broken, ..answer(200, "") }, Expect::Receipt, "gone", "connection reset");
    }

    #[test]
    fn every_other_status_has_its_pace() {
        let table = [
            ("gone", &[100, 199, 300, 301, 302, 304, 307, 308, 500, 502, 503, 504, 507, 511, 599, 999][..]),
            ("busy", &[408, 425, 429]),
            ("slow", &[401, 402, 403, 404, 405, 407, 409, 410, 411, 415, 421, 426, 431, 451, 499]),
            ("refused", &[400, 413, 422]),
        ];
        for (expected, statuses) in table {
            for status in statuses {
                let answer = answer(*status, r#"{"error":"why","line":1}"#);
                check(answer, Expect::Receipt, expected, &status.to_string());
            }
        }
    }

    #[test]
    fn only_the_destinations_own_words_refuse_content() {
        let nginx = "<title>400 No required SSL certificate was sent</title>";
        for status in [400, 422] {
            check(answer(status, r#"{"error":"line 1"}"#), Expect::Receipt, "refused", "line 1");
            check(answer(status, "<html>Bad Request</html>"), Expect::Receipt, "slow", "not the collector");
            check(answer(status, ""), Expect::Receipt, "slow", "not the collector");
            check(answer(status, "bad line"), Expect::Status, "refused", "bad line");
            for expect in [Expect::Receipt, Expect::Status] {
                check(answer(status, nginx), expect, "slow", "renew the certificate");
            }
        }
    }

    #[test]
    fn retry_after_is_honoured_up_to_its_cap() {
        let table = [
            (Some("7"), None, 7),
            (Some(" 7 "), None, 7),
            (Some("0"), None, 0),
            (Some("301"), None, 300),
            (Some("99999999999999999999999999"), None, 300),
            (Some("Sun, 06 Nov 1994 08:49:57 GMT"), None, 20),
            (Some("Sun, 06 Nov 1994 08:49:17 GMT"), None, 0),
            (Some("Wed, 31 Dec 9998 23:59:59 GMT"), None, 300),
            (Some("Sun, 06 Nov 1994 08:49:57 GMT"), Some("Sun, 06 Nov 1994 08:49:47 GMT"), 10),
            (Some("Sun, 06 Nov 2044 08:49:57 GMT"), Some("Sun, 06 Nov 2044 08:49:56 GMT"), 1),
            (Some("-5"), None, 0),
            (Some("soon"), None, 0),
            (Some(""), None, 0),
            (None, Some(DATE), 0),
        ];
        for (value, date, expected) in table {
            for status in [429, 503, 401, 404] {
                let (retry_after, date) = (value.map(str::to_owned), date.map(str::to_owned));
                let answer = Answer { retry_after, date, ..answer(status, "") };
                let Verdict::Retry { after, .. } = verdict(answer, Expect::Receipt) else {
                    panic!("{value:?}")
                };
                assert_eq!(after, Duration::from_secs(expected), "{value:?} {status}");
            }
        }
    }

    #[test]
    fn a_strangers_words_are_one_bounded_line() {
        assert_eq!(words(b" a\r\nb\x1b[31m\tc "), "a b [31m c");
        assert_eq!(words(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        assert_eq!(words(b""), "(no words)");
        assert_eq!(words("ä".repeat(10_000).as_bytes()).chars().count(), WORDS_MAX + 1);
    }
}
