//! The space that a file holds. All documents of a file are of one space; their ids on the wire are derived from it.

use motet_proto::{DocumentId, SpaceId};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Result, Tx};

/// Where a copy of the id stands in `meta`, with a checksum.
const COPY: &str = "space";

/// How many documents are asked which of two ids is the right one.
const ASKED_DOCUMENTS: usize = 8;

/// The space of a file. A new file, in which no device has its id yet, becomes one of `wanted`; without that it holds the personal space.
/// In the transaction that notes the device: of two processes that make a file, the second finds it made.
pub(super) fn settle(conn: &Connection, wanted: Option<SpaceId>) -> Result<SpaceId> {
    let found = read(conn)?;
    let is_used = "SELECT 1 FROM meta WHERE key = 'device_id' UNION ALL SELECT 1 FROM document";
    let is_new = !conn.prepare(is_used)?.exists([])?;
    if is_new {
        let space = wanted.unwrap_or(found);
        put(conn, space)?;
        return Ok(space);
    }
    // Files of earlier versions have no copy.
    if copy(conn)? == Copy::Missing {
        put_copy(conn, found)?;
    }
    Ok(found)
}

/// The space of a file: what the copy says, whose checksum is right, unless the ids of documents confirm the row alone. Without a copy what the
/// row says, unless the ids of documents confirm the personal space.
pub(super) fn read(conn: &Connection) -> Result<SpaceId> {
    let row = row(conn)?;
    let copy = match copy(conn)? {
        Copy::Of(space) => Some(space),
        Copy::Missing | Copy::Damaged => None,
    };
    if row == copy
        && let Some(space) = row
    {
        return Ok(space);
    }
    let candidates: Vec<SpaceId> = [copy, row, Some(SpaceId::DEFAULT)].into_iter().flatten().collect();
    let confirmed = confirmed(conn, &candidates)?;
    Ok(confirmed.or(candidates.first().copied()).unwrap_or(SpaceId::DEFAULT))
}

/// Writes the id to both of its places.
pub(super) fn put(conn: &Connection, space: SpaceId) -> Result<()> {
    conn.execute(
        "INSERT INTO space (id, uuid) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET uuid = excluded.uuid",
        [space.as_bytes()],
    )?;
    put_copy(conn, space)
}

fn put_copy(conn: &Connection, space: SpaceId) -> Result<()> {
    conn.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        params![COPY, text_of(space)],
    )?;
    Ok(())
}

/// The id, and the first 8 bytes of its hash, in hex.
fn text_of(space: SpaceId) -> String {
    format!("{space}{}", &blake3::hash(space.as_bytes()).to_hex()[..16])
}

impl Tx<'_> {
    /// The space that the file holds.
    pub(crate) fn space(&self) -> SpaceId {
        self.space
    }

    /// What is wrong with the two places that name the space.
    pub(super) fn examine_space(&self) -> Result<Option<&'static str>> {
        Ok(match (row(self.conn)?, copy(self.conn)?) {
            (None, _) => Some("the row of the space is missing"),
            (Some(row), _) if row != self.space => Some("the row of the space names another one"),
            (_, Copy::Of(copy)) if copy == self.space => None,
            _ => Some("the copy of the space's id is missing, or another one"),
        })
    }
}

/// What stands in the place of the copy.
#[derive(PartialEq)]
enum Copy {
    Missing,
    Damaged,
    Of(SpaceId),
}

fn row(conn: &Connection) -> Result<Option<SpaceId>> {
    let read = |row: &rusqlite::Row<'_>| Ok(row.get_ref(0)?.as_blob().ok().and_then(SpaceId::from_slice));
    Ok(conn.prepare_cached("SELECT uuid FROM space WHERE id = 1")?.query_row([], read).optional()?.flatten())
}

fn copy(conn: &Connection) -> Result<Copy> {
    let read = |row: &rusqlite::Row<'_>| {
        let text = row.get_ref(0)?.as_str().unwrap_or_default();
        let space = text.get(..2 * SpaceId::LEN).and_then(|id| id.parse().ok());
        Ok(space.filter(|space| text_of(*space) == text).map_or(Copy::Damaged, Copy::Of))
    };
    let sql = "SELECT value FROM meta WHERE key = ?";
    Ok(conn.prepare_cached(sql)?.query_row([COPY], read).optional()?.unwrap_or(Copy::Missing))
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
