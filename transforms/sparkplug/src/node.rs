//! What is remembered of an edge node, so that its data can be read: its birth, the number that comes next, and the
//! names behind its aliases.
//!
//! Aliases are spread over [`PAGES`] values by their number, since one value of the state has a bound. A
//! page that another birth wrote is as good as empty, so a birth need not clear them.

use headwater_module::state;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const PAGES: u64 = 32;

/// Of one edge node.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Node {
    /// Which of its births is valid; they are counted.
    pub(crate) birth: u64,
    /// Whether it is alive, and its data can be read.
    pub(crate) born: bool,
    /// What its next message must have.
    pub(crate) seq: u8,
    /// Of the connection that gave birth; its death has the same.
    pub(crate) bd_seq: Option<u64>,
}

/// A metric as its birth had it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) datatype: u32,
}

/// The pages that one message needs.
#[derive(Debug)]
pub(crate) struct Aliases<'a> {
    node: &'a str,
    birth: u64,
    pages: BTreeMap<u64, Page>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Page {
    birth: u64,
    known: BTreeMap<u64, Known>,
}

impl<'a> Aliases<'a> {
    pub(crate) fn new(node: &'a str, birth: u64) -> Self {
        Self { node, birth, pages: BTreeMap::new() }
    }

    pub(crate) fn get(&mut self, alias: u64) -> Result<Option<Known>, String> {
        Ok(self.page(alias)?.known.get(&alias).cloned())
    }

    pub(crate) fn insert(&mut self, alias: u64, known: Known) -> Result<(), String> {
        self.page(alias)?.known.insert(alias, known);
        Ok(())
    }

    /// Keeps what was inserted.
    pub(crate) fn keep(self) -> Result<(), String> {
        let keep = |(number, page): (&u64, &Page)| state::set(&format!("{}#{number}", self.node), page);
        self.pages.iter().try_for_each(keep)
    }

    fn page(&mut self, alias: u64) -> Result<&mut Page, String> {
        let number = alias % PAGES;
        if !self.pages.contains_key(&number) {
            let kept: Option<Page> = state::get(&format!("{}#{number}", self.node))?;
            let empty = Page { birth: self.birth, known: BTreeMap::new() };
            self.pages.insert(number, kept.filter(|page| page.birth == self.birth).unwrap_or(empty));
        }
        Ok(self.pages.entry(number).or_default())
    }
}
