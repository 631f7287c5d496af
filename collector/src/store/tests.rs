use super::*;
use crate::query;

/// A file that version 2 made of a few batches, as SQL: its schema, with results, an event and a report.
const FORMAT_2: &str = include_str!("format-2.sql");

fn config(folder: &tempfile::TempDir) -> CollectorConfig {
    CollectorConfig::new(folder.path().join("collector.db"))
}

fn make(config: &CollectorConfig, sql: &str) {
    Connection::open(&config.store).unwrap().execute_batch(sql).unwrap();
}

fn format(store: &Connection) -> i64 {
    store.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

/// Returns the SQL of all tables and indexes.
fn schema(store: &Connection) -> Vec<String> {
    let mut statement =
        store.prepare("SELECT sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY sql").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn column(store: &Connection, sql: &str) -> Vec<i64> {
    store.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_file_of_format_2_keeps_all_it_holds_and_becomes_one_of_this_format() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    make(&config, FORMAT_2);
    let store = open(&config).unwrap();
    assert_eq!(format(&store), FORMAT);
    let all = query::ResultQuery { limit: 10, order: query::ResultOrder::Change, ..<_>::default() };
    let page = query::results(&store, &all, usize::MAX).unwrap();
    let rows: Vec<_> = page
        .results
        .iter()
        .map(|row| {
            let part = row.window.as_ref().map(|window| window.part);
            (row.change, &*row.key, row.revision, row.count, part, row.early, row.value.get())
        })
        .collect();
    assert_eq!(
        rows,
        [
            (2, "hall/2", Some(0), Some(4), Some(0), false, r#"{"mean":4.5}"#),
            (3, "hall/1", None, None, None, false, r#"{"n":1}"#),
            (4, "hall/1", Some(1), Some(5), Some(0), false, r#"{"mean":5.5}"#),
            (5, "hall/1", Some(0), Some(6), Some(0), false, r#"{"mean":6.5}"#),
        ]
    );
    assert_eq!((page.retracted.len(), page.change), (0, 5));
    let sums = query::totals(&store, None, Some("temperature")).unwrap()[0].sums;
    assert_eq!((sums.results, sums.readings, sums.late, sums.rejected), (3, 15, 2, 1));
    assert_eq!((sums.replaced, sums.ignored, sums.early, sums.retracted), (1, 1, 0, 0));
    let reports = query::ReportQuery { limit: 10, ..<_>::default() };
    assert_eq!(query::reports(&store, &reports, usize::MAX).unwrap().len(), 1);
    assert_eq!(column(&store, "SELECT last FROM coverage"), [6]);
}

#[test]
fn a_file_of_any_older_format_becomes_the_same_as_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let new = open(&CollectorConfig::new(folder.path().join("new.db"))).unwrap();
    for old_format in 1..STEPS.len() {
        let config = CollectorConfig::new(folder.path().join(format!("{old_format}.db")));
        make(&config, &format!("{} PRAGMA user_version = {old_format};", STEPS[..old_format].concat()));
        let old = open(&config).unwrap();
        assert_eq!((format(&old), schema(&old)), (FORMAT, schema(&new)), "from {old_format}");
        drop(old);
        assert_eq!(schema(&open(&config).unwrap()), schema(&new), "opened again, from {old_format}");
    }
    let config = config(&folder);
    make(&config, FORMAT_2);
    assert_eq!(schema(&open(&config).unwrap()), schema(&new));
}

#[test]
fn a_file_that_has_no_room_for_the_next_format_stays_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    make(&config, FORMAT_2);
    let before = schema(&Connection::open(&config.store).unwrap());
    config.store_bytes_max = 1;
    assert!(matches!(open(&config), Err(CollectorError::Open { .. })));
    let left = Connection::open(&config.store).unwrap();
    assert_eq!((format(&left), schema(&left)), (2, before));
    drop(left);
    config.store_bytes_max = 64 << 20;
    assert_eq!(format(&open(&config).unwrap()), FORMAT);
}

#[test]
fn refuses_a_newer_format_and_a_file_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    let store = open(&config).unwrap();
    store.pragma_update(None, "user_version", FORMAT + 1).unwrap();
    drop(store);
    assert!(matches!(open(&config), Err(CollectorError::Format { found: 5, known: 4, .. })));
    std::fs::write(&config.store, "no database at all, but long enough to be looked at").unwrap();
    assert!(matches!(open(&config), Err(CollectorError::Open { .. })));
}
