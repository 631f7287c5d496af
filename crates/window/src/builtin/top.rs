//! The values that come most often: Misra and Gries (1982), merged as Agarwal et al. (PODS 2012).
//!
//! So many values are counted at once; where another one finds no counter free, all are lowered by one.
//! A count is never too high, and too low by at most [`TopCounters::short`], which is at most the number of readings
//! by that of counters and one. As long as there are no more values than counters, all is exact.

use super::bytes::{StateBytes, put_whole};

/// Longest text counted, in bytes.
pub(super) const ITEM_BYTES_MAX: usize = 128;

/// The counters of the values that come most often.
#[derive(Clone, Debug, Default)]
pub(super) struct TopCounters {
    total: u64,
    /// Values as JSON, ascending, and their counts.
    items: Vec<(Vec<u8>, u64)>,
}

impl TopCounters {
    pub(super) fn decode(bytes: &mut StateBytes<'_>, counters: usize) -> Option<Self> {
        let total = bytes.whole()?;
        let count = bytes.count()?;
        let mut items: Vec<(Vec<u8>, u64)> = Vec::with_capacity(count);
        for _ in 0..count {
            let length = bytes.count()?;
            let item = bytes.take(length)?.to_vec();
            let count = bytes.whole()?;
            if count == 0 || items.last().is_some_and(|last| last.0 >= item) {
                return None;
            }
            items.push((item, count));
        }
        let counted = items.iter().try_fold(0u64, |sum, item| sum.checked_add(item.1))?;
        (items.len() <= counters && counted <= total).then_some(Self { total, items })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_whole(out, self.total);
        put_whole(out, self.items.len() as u64);
        for (item, count) in &self.items {
            put_whole(out, item.len() as u64);
            out.extend(item);
            put_whole(out, *count);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    pub(super) fn add(&mut self, counters: usize, json: &[u8]) {
        self.total = self.total.saturating_add(1);
        match self.find(json) {
            Ok(at) => self.items[at].1 = self.items[at].1.saturating_add(1),
            Err(at) if self.items.len() < counters => self.items.insert(at, (json.to_vec(), 1)),
            Err(_) => self.lower(1),
        }
    }

    pub(super) fn merge(&mut self, counters: usize, other: &Self) {
        self.total = self.total.saturating_add(other.total);
        for (item, count) in &other.items {
            match self.find(item) {
                Ok(at) => self.items[at].1 = self.items[at].1.saturating_add(*count),
                Err(at) => self.items.insert(at, (item.clone(), *count)),
            }
        }
        if self.items.len() > counters {
            let mut counts: Vec<_> = self.items.iter().map(|item| item.1).collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            self.lower(counts[counters]);
        }
    }

    fn find(&self, json: &[u8]) -> Result<usize, usize> {
        self.items.binary_search_by(|item| item.0.as_slice().cmp(json))
    }

    fn lower(&mut self, by: u64) {
        self.items.retain_mut(|item| {
            item.1 = item.1.saturating_sub(by);
            item.1 > 0
        });
    }

    /// Returns the most by which a count may be too low.
    pub(super) fn short(&self, counters: usize) -> u64 {
        let counted = self.items.iter().fold(0u64, |sum, item| sum.saturating_add(item.1));
        self.total.saturating_sub(counted) / (counters as u64 + 1)
    }

    /// Returns the `k` values with the highest counts, equal counts in the order of their JSON.
    pub(super) fn first(&self, k: usize) -> Vec<&(Vec<u8>, u64)> {
        let mut items: Vec<_> = self.items.iter().collect();
        items.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        items.truncate(k);
        items
    }
}
