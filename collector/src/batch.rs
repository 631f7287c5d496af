//! A batch: its key, and its lines as they are stored.
//!
//! Making a [`ReceivedBatch`] checks all of it, so each one may be stored. The crate `headwater-wire`, with
//! which the agents write lines, defines the lines that are accepted.

use headwater_wire::{BatchKey, LineError, ParsedLine, UnparsedLine};
use sha2::{Digest as _, Sha256};

/// Returns the SHA-256 of these bytes.
#[must_use]
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A batch that may be stored.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedBatch {
    /// The identity of the batch.
    pub(crate) key: BatchKey,
    /// The digest of the decoded body: the same key with another digest is a conflict.
    pub(crate) digest: [u8; 32],
    /// The lines in order, from the sequence number `key.first` on.
    pub(crate) lines: Vec<ParsedLine>,
}

/// A fault in a body for which it is no batch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    /// A line cannot be read.
    #[error("failed to read line {line}: {reason}")]
    Malformed {
        /// The number of the line, from 1.
        line: usize,
        /// The fault in the line.
        reason: String,
    },
    /// A line contradicts the key.
    #[error("failed to match line {line} with the key: its agent is not the key's")]
    Agent {
        /// The number of the line, from 1.
        line: usize,
    },
    /// The number of lines contradicts the key.
    #[error("failed to match the body with the key: it has {found} lines, the key says {expected}")]
    Count {
        /// The number of lines in the key.
        expected: u64,
        /// The number of lines in the body.
        found: usize,
    },
}

impl ReceivedBatch {
    /// Reads a decoded body.
    ///
    /// # Errors
    /// When a line is malformed, or the body contradicts its key.
    pub(crate) fn parse(key: BatchKey, body: &[u8]) -> Result<Self, BatchError> {
        let lines = body.strip_suffix(b"\n").unwrap_or(body).split(|&b| b == b'\n');
        let found = if body.is_empty() { 0 } else { lines.clone().count() };
        if found as u64 != key.lines() {
            return Err(BatchError::Count { expected: key.lines(), found });
        }
        let lines = lines
            .enumerate()
            .map(|(index, line)| parse_line(&key.agent, index + 1, line))
            .collect::<Result<_, _>>()?;
        Ok(Self { digest: digest(body), key, lines })
    }
}

fn parse_line(agent: &str, number: usize, line: &[u8]) -> Result<ParsedLine, BatchError> {
    let malformed = |error: LineError| BatchError::Malformed { line: number, reason: error.to_string() };
    let line = UnparsedLine::read(line).map_err(malformed)?;
    if line.agent() != agent {
        return Err(BatchError::Agent { line: number });
    }
    line.parse().map_err(malformed)
}

#[cfg(test)]
mod tests;
