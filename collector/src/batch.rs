//! A batch: its key, and its lines as they are stored.
//!
//! All of it is checked when it is made: a [`Batch`] that is there may be stored. What is accepted of a line is
//! defined in `headwater-wire`, which the agents write it with.

use headwater_wire::{BatchKey, LineError, ParsedLine, UnparsedLine};
use sha2::{Digest as _, Sha256};

/// SHA-256.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A batch that may be stored.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its identity.
    pub key: BatchKey,
    /// Of the decoded body: the same key with another digest is a conflict.
    pub digest: [u8; 32],
    /// In order: the first has the sequence number `key.first`.
    pub lines: Vec<ParsedLine>,
}

/// Why a body is no batch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// A line cannot be read.
    #[error("failed to read line {line}: {reason}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A line contradicts the key.
    #[error("failed to match line {line} with the key: its agent is not the key's")]
    Agent {
        /// Counted from 1.
        line: usize,
    },
    /// The number of lines contradicts the key.
    #[error("failed to match the body with the key: it has {found} lines, the key says {expected}")]
    Count {
        /// As the key says.
        expected: u64,
        /// Lines in the body.
        found: usize,
    },
}

impl Batch {
    /// Reads a decoded body.
    ///
    /// # Errors
    /// When a line is malformed, or the body contradicts its key.
    pub fn parse(key: BatchKey, body: &[u8]) -> Result<Self, BatchError> {
        let lines = body.strip_suffix(b"\n").unwrap_or(body).split(|&b| b == b'\n');
        let found = if body.is_empty() { 0 } else { lines.clone().count() };
        if found as u64 != key.lines() {
            return Err(BatchError::Count { expected: key.lines(), found });
        }
        let lines = lines
            .enumerate()
            .map(|(index, line)| parse(&key.agent, index + 1, line))
            .collect::<Result<_, _>>()?;
        Ok(Self { digest: digest(body), key, lines })
    }
}

fn parse(agent: &str, number: usize, line: &[u8]) -> Result<ParsedLine, BatchError> {
    let malformed = |error: LineError| BatchError::Malformed { line: number, reason: error.to_string() };
    let line = UnparsedLine::read(line).map_err(malformed)?;
    if line.agent() != agent {
        return Err(BatchError::Agent { line: number });
    }
    line.parse().map_err(malformed)
}

#[cfg(test)]
mod tests;
