//! The space that a file holds. All documents of a file are of one space; their ids on the wire are derived from it.

use motet_proto::{DocumentId, SpaceId};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Result, Tx};

/// Where a copy of the id stands in `meta`, for a file of another space than the personal one.
const COPY: &str = "space";

/// How many documents are asked which of two ids is the right one.
const ASKED_DOCUMENTS: usize = 8;

/// The space of a file. A new file becomes one of `wanted`; without that it holds the personal space.
pub(crate) fn settle_space(conn: &mut Connection, wanted: Option<SpaceId>) -> Result<SpaceId> {
    let found = read(conn)?;
    let Some(wanted) = wanted.filter(|wanted| *wanted != found) else { return Ok(found) };
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Another process may have been first.
    let is_used = "SELECT 1 FROM meta WHERE key = 'device_id' UNION ALL SELECT 1 FROM document";
    if tx.prepare(is_used)?.exists([])? {
        return read(&tx);
    }
    put(&tx, wanted)?;
    tx.commit()?;
    Ok(wanted)
}

/// The space of a file: what its row says, unless the copy says something else that the ids of documents confirm.
pub(super) fn read(conn: &Connection) -> Result<SpaceId> {
    let row = row(conn)?;
    let copy = copy(conn)?;
    match (row, copy) {
        (Some(row), Some(copy)) if row == copy => return Ok(row),
        (Some(SpaceId::DEFAULT) | None, None) => return Ok(SpaceId::DEFAULT),
        _ => {}
    }
    let candidates: Vec<SpaceId> = [row, copy, Some(SpaceId::DEFAULT)].into_iter().flatten().collect();
    let confirmed = confirmed(conn, &candidates)?;
    Ok(confirmed.or(candidates.first().copied()).unwrap_or(SpaceId::DEFAULT))
}

/// Writes the id to both of its places.
pub(super) fn put(conn: &Connection, space: SpaceId) -> Result<()> {
    conn.execute(
        "INSERT INTO space (id, uuid) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET uuid = excluded.uuid",
        [space.as_bytes()],
    )?;
    match space {
        SpaceId::DEFAULT => conn.execute("DELETE FROM meta WHERE key = ?", [COPY])?,
        space => conn.execute(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            params![COPY, space.to_string()],
        )?,
    };
    Ok(())
}

impl Tx<'_> {
    /// The space that the file holds.
    pub(crate) fn space(&self) -> SpaceId {
        self.space
    }

    /// What is wrong with the two places that name the space.
    pub(super) fn examine_space(&self) -> Result<Option<&'static str>> {
        let copy = copy(self.conn)?.unwrap_or(SpaceId::DEFAULT);
        Ok(match row(self.conn)? {
            None => Some("the row of the space is missing"),
            Some(row) if row != self.space => Some("the row of the space names another one"),
            Some(_) if copy != self.space => Some("the copy of the space's id is missing, or another one"),
            Some(_) => None,
        })
    }
}

fn row(conn: &Connection) -> Result<Option<SpaceId>> {
    let read = |row: &rusqlite::Row<'_>| Ok(row.get_ref(0)?.as_blob().ok().and_then(SpaceId::from_slice));
    Ok(conn.prepare_cached("SELECT uuid FROM space WHERE id = 1")?.query_row([], read).optional()?.flatten())
}

fn copy(conn: &Connection) -> Result<Option<SpaceId>> {
    let read = |row: &rusqlite::Row<'_>| Ok(row.get_ref(0)?.as_str().ok().and_then(|text| text.parse().ok()));
    let sql = "SELECT value FROM meta WHERE key = ?";
    Ok(conn.prepare_cached(sql)?.query_row([COPY], read).optional()?.flatten())
}

/// The first of these spaces that the id of a document is derived from.
fn confirmed(conn: &Connection, candidates: &[SpaceId]) -> Result<Option<SpaceId>> {
    let mut statement = conn.prepare("SELECT key, collection, name FROM document LIMIT ?")?;
    let mut rows = statement.query([ASKED_DOCUMENTS as i64])?;
    while let Some(row) = rows.next()? {
        let (ValueRef::Blob(key), Ok(collection), Ok(name)) =
            (row.get_ref(0)?, row.get_ref(1)?.as_str(), row.get_ref(2)?.as_str())
        else {
            continue;
        };
        let is_right = |space: &&SpaceId| DocumentId::derive(**space, collection, name).as_bytes() == key;
        if let Some(space) = candidates.iter().find(is_right) {
            return Ok(Some(*space));
        }
    }
    Ok(None)
}
