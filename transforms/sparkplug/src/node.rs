//! The state of an edge node, by which its data can be read: its birth, the number that comes next, and the names
//! behind its aliases.
//!
//! Aliases are spread over [`PAGES`] values by their number, since one value of the state has a bound. A
//! page that another birth wrote is as good as empty, so a birth need not clear them.

use headwater_module::state;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const PAGES: u64 = 32;

/// The state of one edge node.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct NodeState {
    /// The number of its latest birth; births are counted.
    pub(crate) birth: u64,
    /// True if it is alive, and its data can be read.
    pub(crate) born: bool,
    /// The sequence number that its next message must have.
    pub(crate) seq: u8,
    /// The number of the connection that gave birth; its death has the same.
    pub(crate) bd_seq: Option<u64>,
}

/// A metric as its birth had it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct KnownMetric {
    pub(crate) name: String,
    pub(crate) datatype: u32,
}

/// The pages that one message needs.
#[derive(Debug)]
pub(crate) struct AliasPages<'a> {
    node: &'a str,
    birth: u64,
    pages: BTreeMap<u64, AliasPage>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct AliasPage {
    birth: u64,
    known: BTreeMap<u64, KnownMetric>,
}

impl<'a> AliasPages<'a> {
    pub(crate) fn new(node: &'a str, birth: u64) -> Self {
        Self { node, birth, pages: BTreeMap::new() }
    }

    pub(crate) fn get(&mut self, alias: u64) -> Result<Option<KnownMetric>, String> {
        Ok(self.page(alias)?.known.get(&alias).cloned())
    }

    pub(crate) fn insert(&mut self, alias: u64, known: KnownMetric) -> Result<(), String> {
        self.page(alias)?.known.insert(alias, known);
        Ok(())
    }

    /// Keeps the aliases that were inserted.
    pub(crate) fn keep(self) -> Result<(), String> {
        let keep = |(number, page): (&u64, &AliasPage)| state::set(&format!("{}#{number}", self.node), page);
        self.pages.iter().try_for_each(keep)
    }

    fn page(&mut self, alias: u64) -> Result<&mut AliasPage, String> {
        let number = alias % PAGES;
        if !self.pages.contains_key(&number) {
            let kept: Option<AliasPage> = state::get(&format!("{}#{number}", self.node))?;
            let empty = AliasPage { birth: self.birth, known: BTreeMap::new() };
            self.pages.insert(number, kept.filter(|page| page.birth == self.birth).unwrap_or(empty));
        }
        Ok(self.pages.entry(number).or_default())
    }
}
