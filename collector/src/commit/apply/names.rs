//! The ids under which names are stored.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Transaction, params};

/// The ids of pipelines, keys and modules. A new name gets its id when it is first looked up.
pub(super) struct NameIds<'t> {
    transaction: &'t Transaction<'t>,
    agent: &'t str,
    /// The ids looked up so far: a batch has few pipelines and many lines.
    pipelines: HashMap<String, i64>,
}

impl<'t> NameIds<'t> {
    pub(super) fn new(transaction: &'t Transaction<'t>, agent: &'t str) -> Self {
        Self { transaction, agent, pipelines: HashMap::new() }
    }

    pub(super) fn pipeline(&mut self, name: &str) -> rusqlite::Result<i64> {
        if let Some(&id) = self.pipelines.get(name) {
            return Ok(id);
        }
        let id = self.find_or_insert(
            "SELECT id FROM pipelines WHERE agent = ? AND pipeline = ?",
            "INSERT INTO pipelines (agent, pipeline) VALUES (?, ?)",
            params![self.agent, name],
        )?;
        self.pipelines.insert(name.to_owned(), id);
        Ok(id)
    }

    pub(super) fn series(&self, pipeline: i64, key: &str) -> rusqlite::Result<i64> {
        self.find_or_insert(
            "SELECT id FROM series WHERE pipeline = ? AND key = ?",
            "INSERT INTO series (pipeline, key) VALUES (?, ?)",
            params![pipeline, key],
        )
    }

    pub(super) fn module(&self, digest: Option<&str>) -> rusqlite::Result<Option<i64>> {
        let Some(digest) = digest else {
            return Ok(None);
        };
        let find = "SELECT id FROM modules WHERE digest = ?";
        self.find_or_insert(find, "INSERT INTO modules (digest) VALUES (?)", params![digest]).map(Some)
    }

    fn find_or_insert(
        &self,
        find: &str,
        insert: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> rusqlite::Result<i64> {
        let known = self.transaction.prepare_cached(find)?.query_row(params, |row| row.get(0)).optional()?;
        match known {
            Some(id) => Ok(id),
            None => self.transaction.prepare_cached(insert)?.insert(params),
        }
    }
}
