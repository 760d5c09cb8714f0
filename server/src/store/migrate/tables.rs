//! All tables that are moved, and how their rows are read from either database.

use sha2::{Digest, Sha256};

use crate::store::sqlite::Trouble;
use crate::store::sqlite::database::{Connection, NONE, OptionalExtension, Owned, Row};

/// A table, or a part of it.
pub(super) struct Part {
    pub table: &'static str,
    /// The primary key, of numbers and bytes, which both databases order in the same way. Without one the part
    /// is a batch.
    pub keys: &'static [&'static str],
    /// A condition of the rows.
    pub only: &'static str,
    /// A column by which checksums are made, where the table is big.
    pub group: Option<&'static str>,
}

const fn whole(table: &'static str, keys: &'static [&'static str]) -> Part {
    Part { table, keys, only: "1 = 1", group: None }
}

const ID: &[&str] = &["id"];

/// Every table there is. What others refer to comes before them.
pub(super) const TABLES: &[Part] = &[
    // Except for what is about the database itself, or over in seconds.
    Part { only: "key NOT IN ('checks', 'migration') AND key NOT LIKE 'lease %'", ..whole("meta", &[]) },
    Part { only: "bot_owner IS NULL", ..whole("users", ID) },
    // Programs, behind those they belong to.
    Part { only: "bot_owner IS NOT NULL", ..whole("users", ID) },
    whole("sessions", &["token"]),
    whole("rooms", ID),
    whole("purges", &["room"]),
    whole("members", &["user", "room"]),
    whole("cursors", &["user", "room"]),
    Part { group: Some("room"), ..whole("events", &["room", "seq"]) },
    whole("mentions", &["user", "room", "seq"]),
    whole("mutes", &["room", "user"]),
    whole("blocks", ID),
    whole("bans", ID),
    whole("links", ID),
    whole("tokens", ID),
    whole("hooks", ID),
    whole("reports", ID),
    whole("audit", ID),
];

impl Part {
    /// The key of a row that was read with these columns.
    pub(super) fn key_of(&self, columns: &[String], row: &[Owned]) -> Vec<Owned> {
        self.keys.iter().map(|key| cell(columns, row, key).clone()).collect()
    }

    /// The group that a row is in; all are in one where there are none.
    pub(super) fn group_of(&self, columns: &[String], row: &[Owned]) -> i64 {
        match self.group.map(|group| cell(columns, row, group)) {
            Some(Owned::Number(number)) => *number,
            _ => 0,
        }
    }

    pub(super) fn group_name(&self, group: i64) -> String {
        match self.group {
            Some(column) => format!("{} ({column} {group})", self.table),
            None => self.table.to_owned(),
        }
    }
}

fn cell<'r>(columns: &[String], row: &'r [Owned], name: &str) -> &'r Owned {
    let place = columns.iter().position(|column| column == name);
    place.and_then(|place| row.get(place)).unwrap_or(&Owned::Null)
}

/// The names of a table's columns, sorted.
pub(super) fn columns(connection: &Connection, table: &str) -> Result<Vec<String>, Trouble> {
    let sql = connection.dialect(
        "SELECT name FROM pragma_table_info(?1)",
        "SELECT CAST(column_name AS text) FROM information_schema.columns
         WHERE table_schema = current_schema() AND table_name = ?1",
    );
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([table])?;
    let mut columns = Vec::new();
    while let Some(row) = rows.next()? {
        columns.push(row.get(0)?);
    }
    columns.sort();
    Ok(columns)
}

pub(super) fn count(connection: &Connection, part: &Part) -> Result<u64, Trouble> {
    let sql = format!("SELECT count(*) FROM {} WHERE {}", part.table, part.only);
    let count: i64 = connection.prepare_cached(&sql)?.query_row(NONE, |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

fn cells(row: Row<'_>, columns: usize) -> Result<Vec<Owned>, Trouble> {
    (0..columns).map(|column| Ok(Owned::of(row.get_ref(column)?))).collect()
}

/// The highest key that is there.
pub(super) fn last_key(connection: &Connection, part: &Part) -> Result<Option<Vec<Owned>>, Trouble> {
    if part.keys.is_empty() {
        return Ok(None);
    }
    let descending: Vec<String> = part.keys.iter().map(|key| format!("{key} DESC")).collect();
    let (keys, descending) = (part.keys.join(", "), descending.join(", "));
    let sql = format!("SELECT {keys} FROM {} WHERE {} ORDER BY {descending} LIMIT 1", part.table, part.only);
    connection.prepare_cached(&sql)?.query_row(NONE, |row| cells(row, part.keys.len())).optional()
}

/// Rows in the order of their keys, behind one.
pub(super) fn page(
    connection: &Connection,
    part: &Part,
    columns: &[String],
    after: Option<&[Owned]>,
    rows: usize,
) -> Result<Vec<Vec<Owned>>, Trouble> {
    let keys = part.keys.join(", ");
    let mut sql = format!("SELECT {} FROM {} WHERE {}", columns.join(", "), part.table, part.only);
    if let Some(after) = after {
        let places: Vec<String> = (1..=after.len()).map(|place| format!("?{place}")).collect();
        sql += &format!(" AND ({keys}) > ({})", places.join(", "));
    }
    if !keys.is_empty() {
        sql += &format!(" ORDER BY {keys} LIMIT {rows}");
    }
    let mut statement = connection.prepare_cached(&sql)?;
    let values: Vec<_> = after.unwrap_or_default().iter().map(Owned::value).collect();
    let mut found = statement.query_values(&values)?;
    let mut page = Vec::new();
    while let Some(row) = found.next()? {
        page.push(cells(row, columns.len())?);
    }
    Ok(page)
}

/// The last row id that the embedded database gave in each table that never gives one twice.
pub(super) fn last_ids(connection: &Connection) -> Result<Vec<(String, i64)>, Trouble> {
    let mut statement = connection.prepare_cached("SELECT name, seq FROM sqlite_sequence ORDER BY name")?;
    let mut rows = statement.query(NONE)?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next()? {
        ids.push((row.get(0)?, row.get(1)?));
    }
    Ok(ids)
}

/// Adds a value to a checksum, so that no two rows look alike.
pub(super) fn digest(hash: &mut Sha256, cell: &Owned) {
    let mut add = |kind: u8, bytes: &[u8]| {
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    match cell {
        Owned::Null => add(0, &[]),
        Owned::Number(number) => add(1, &number.to_le_bytes()),
        Owned::Truth(truth) => add(1, &i64::from(*truth).to_le_bytes()),
        Owned::Text(text) => add(2, text.as_bytes()),
        Owned::Bytes(bytes) => add(3, bytes),
    }
}
