//! The stored sequence numbers of an epoch, as disjoint, non-adjacent ranges. Batches may come in any
//! order, and the watermark is one look-up. An epoch without gaps has one row.

use rusqlite::{OptionalExtension, Transaction, params};

/// Adds the numbers `first..=last` and joins them with the ranges that they touch.
pub(super) fn add(transaction: &Transaction<'_>, epoch: i64, first: u64, last: u64) -> rusqlite::Result<()> {
    let mut from = first;
    let mut to = last;
    // Ranges are disjoint: of those that begin before `first`, only the last can reach it.
    let before: Option<(u64, u64)> = transaction
        .prepare_cached(
            "SELECT first, last FROM coverage WHERE epoch = ? AND first <= ?
             ORDER BY first DESC LIMIT 1",
        )?
        .query_row(params![epoch, first], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((begin, end)) = before
        && end + 1 >= first
    {
        (from, to) = (begin, to.max(end));
    }
    // Likewise, of those that begin up to `last + 1`, the last one ends last.
    let after: Option<u64> = transaction
        .prepare_cached(
            "SELECT last FROM coverage WHERE epoch = ? AND first > ? AND first <= ?
             ORDER BY first DESC LIMIT 1",
        )?
        .query_row(params![epoch, first, number_after(last)], |row| row.get(0))
        .optional()?;
    to = to.max(after.unwrap_or(to));
    transaction
        .prepare_cached("DELETE FROM coverage WHERE epoch = ? AND first >= ? AND first <= ?")?
        .execute(params![epoch, from, number_after(last)])?;
    transaction.prepare_cached("INSERT INTO coverage VALUES (?, ?, ?)")?.execute(params![epoch, from, to])?;
    Ok(())
}

/// Returns the next sequence number, at most 2^63 - 1: there SQLite's integers end, and the numbers too.
fn number_after(seq: u64) -> u64 {
    (seq + 1).min(i64::MAX.unsigned_abs())
}

/// Returns the highest number such that it and all before it, from 0, are stored.
pub(super) fn watermark(transaction: &Transaction<'_>, epoch: i64) -> rusqlite::Result<Option<u64>> {
    transaction
        .prepare_cached("SELECT last FROM coverage WHERE epoch = ? AND first = 0")?
        .query_row([epoch], |row| row.get(0))
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rusqlite::Connection;
    use std::collections::BTreeSet;

    fn oracle(stored: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for &seq in stored {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == seq => *last = seq,
                _ => ranges.push((seq, seq)),
            }
        }
        ranges
    }

    fn check(added: &[(u64, u64)]) {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE coverage (epoch, first, last, PRIMARY KEY (epoch, first))")
            .unwrap();
        let transaction = connection.transaction().unwrap();
        let mut stored = BTreeSet::new();
        for &(first, last) in added {
            add(&transaction, 1, first, last).unwrap();
            stored.extend(first..=last);
            let mut statement =
                transaction.prepare("SELECT first, last FROM coverage ORDER BY first").unwrap();
            let ranges: Vec<(u64, u64)> = statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(ranges, oracle(&stored), "after {added:?}");
            let watermark = oracle(&stored).first().filter(|r| r.0 == 0).map(|r| r.1);
            assert_eq!(super::watermark(&transaction, 1).unwrap(), watermark);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn equals_a_set_of_numbers(added in prop::collection::vec((0u64..60, 0u64..12), 1..20)) {
            let added: Vec<_> = added.into_iter().map(|(first, n)| (first, first + n)).collect();
            check(&added);
        }
    }

    #[test]
    fn goes_to_the_last_number_there_is() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE coverage (epoch, first, last, PRIMARY KEY (epoch, first))")
            .unwrap();
        let transaction = connection.transaction().unwrap();
        let end = i64::MAX.unsigned_abs();
        add(&transaction, 1, end, end).unwrap();
        add(&transaction, 1, end - 5, end - 1).unwrap();
        let found: (u64, u64) = transaction
            .query_row("SELECT first, last FROM coverage", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!(found, (end - 5, end));
    }
}
