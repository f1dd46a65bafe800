//! Reading. Each statement sees what was committed before it began, and the end of a log is read before its entries.

use deadpool_postgres::Client;
use deadpool_postgres::tokio_postgres::Row;
use deadpool_postgres::tokio_postgres::types::ToSql;
use futures_util::future::FutureExt;
use motet_proto::message::Listed;
use motet_proto::planted::batch;
use motet_proto::session::{DocumentPage, ReadOutcome};
use motet_proto::{DeviceId, DocumentId, Entry, EntryId, Kind, Position, SpaceId, limits as proto};

use super::append::number;
use super::database::{Database, Failure, first, select};
use crate::limits;
use crate::store::{LogId, StoreError};

/// Where logs end, in their order.
pub(super) async fn ends(database: &Database, logs: &[LogId]) -> Result<Vec<Position>, StoreError> {
    let accounts: Vec<String> = logs.iter().map(|log| log.account.clone()).collect();
    let spaces: Vec<Vec<u8>> = logs.iter().map(|log| log.space.0.to_vec()).collect();
    let sql =
        "SELECT l.head, l.tag FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS q(account, space, n)
               LEFT JOIN log l ON l.account = q.account AND l.space = q.space ORDER BY q.n";
    let rows = database.run(move |client| {
        let (accounts, spaces) = (accounts.clone(), spaces.clone());
        async move { select(client, sql, &[&accounts, &spaces]).await }.boxed()
    });
    let end = |(row, log): (&Row, &LogId)| {
        let tag = row.get::<_, Option<Vec<u8>>>(1).and_then(|tag| tag.try_into().ok());
        let seq = row.get::<_, Option<i64>>(0).map(i64::unsigned_abs);
        seq.zip(tag).map_or(Position::start(log.space), |(seq, tag)| Position { seq, tag })
    };
    Ok(rows.await?.iter().zip(logs).map(end).collect())
}

/// The spaces of which an account has a log.
pub(super) async fn logs_of(database: &Database, account: &str) -> Result<Vec<SpaceId>, StoreError> {
    let account = account.to_owned();
    let rows = database.run(move |client| {
        let account = account.clone();
        async move { select(client, "SELECT space FROM log WHERE account = $1", &[&account]).await }.boxed()
    });
    let space = |row: &Row| {
        let found = SpaceId::from_slice(&row.get::<_, Vec<u8>>(0));
        found.ok_or_else(|| StoreError::Unusable("the space of a row of table log is none".into()))
    };
    rows.await?.iter().map(space).collect()
}

/// One page of what lies after a position.
pub(super) async fn read(
    database: &Database,
    log: &LogId,
    after: Option<Position>,
) -> Result<ReadOutcome, StoreError> {
    let start = Position::start(log.space);
    let after = after.unwrap_or(start);
    let log = log.clone();
    let page = database.run(move |client| {
        let log = log.clone();
        async move { page(client, &log, after).await }.boxed()
    });
    Ok(match page.await? {
        Some(page) => page,
        None if after == start => ReadOutcome::Page { entries: Vec::new(), position: start, head: 0 },
        None => ReadOutcome::Refused,
    })
}

/// `None` if there is no such log.
async fn page(client: &Client, log: &LogId, after: Position) -> Result<Option<ReadOutcome>, Failure> {
    let sql = "SELECT l.id, l.head, (SELECT tag FROM entry WHERE log = l.id AND seq = $3)
               FROM log l WHERE account = $1 AND space = $2";
    let from = number(after.seq);
    let Some(row) = first(client, sql, &[&log.account, &log.space.0.as_slice(), &from]).await? else {
        return Ok(None);
    };
    let (number, head): (i64, i64) = (row.get(0), row.get(1));
    let tag: Option<Vec<u8>> = row.get(2);
    if after != Position::start(log.space) && (from > head || tag.is_none_or(|tag| tag != after.tag)) {
        return Ok(Some(ReadOutcome::Refused));
    }
    // What the payloads have is added up without reading them.
    let sql = "SELECT seq, id, tag, document, device, CASE WHEN lives THEN kind ELSE '' END, suite, CASE WHEN lives THEN payload ELSE '' END
               FROM (
                 SELECT *, CAST(SUM(CASE WHEN lives THEN size ELSE 0 END) OVER earlier AS bigint) AS bytes, COUNT(NULLIF(lives, false)) OVER earlier AS entries
                 FROM (
                   SELECT *, kind <> '' AND NOT EXISTS (
                       SELECT 1 FROM erasing x WHERE x.log = entry.log AND x.document = entry.document AND entry.seq < x.seq
                     ) AS lives
                   FROM entry WHERE log = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4
                 ) AS rows
                 WINDOW earlier AS (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
               ) AS page
               WHERE COALESCE(bytes, 0) < $5 AND entries < $6 ORDER BY seq";
    let (bytes, most) = (proto::PAGE_BYTES as i64, batch(proto::PAGE_ENTRIES) as i64);
    let rows =
        select(client, sql, &[&number, &from, &head, &(limits::POSTGRES_PAGE_ROWS as i64), &bytes, &most])
            .await?;
    let (mut entries, mut position) = (Vec::with_capacity(rows.len()), after);
    for row in &rows {
        let seq = row.get::<_, i64>(0).unsigned_abs();
        if seq != position.seq + 1 {
            return Err(Failure::damaged(format!(
                "entries between {} and {seq} of log {number} are gone",
                position.seq
            )));
        }
        position = Position { seq, tag: bytes_of(row, 2)? };
        if !row.get::<_, &[u8]>(5).is_empty() {
            entries.push((seq, entry(row)?));
        }
    }
    Ok(Some(ReadOutcome::Page { entries, position, head: head.unsigned_abs() }))
}

/// One page of a document, without what is superseded.
pub(super) async fn read_document(
    database: &Database,
    log: &LogId,
    document: DocumentId,
    after: u64,
    whole: bool,
) -> Result<DocumentPage, StoreError> {
    let log = log.clone();
    database
        .run(move |client| {
            let log = log.clone();
            async move { document_page(client, &log, document, (after, whole)).await }.boxed()
        })
        .await
}

async fn document_page(
    client: &Client,
    log: &LogId,
    document: DocumentId,
    (after, whole): (u64, bool),
) -> Result<DocumentPage, Failure> {
    let sql = "SELECT seq, id, tag, document, device, kind, suite, CASE WHEN $4 THEN payload ELSE '' END, octet_length(payload), more
               FROM (
                 SELECT *, CAST(SUM(CASE WHEN $4 THEN size ELSE 0 END) OVER earlier AS bigint) AS bytes, COUNT(*) OVER earlier AS entries, COUNT(*) OVER () AS more
                 FROM (
                   SELECT e.* FROM log l JOIN entry e ON e.log = l.id
                   WHERE l.account = $1 AND l.space = $2 AND e.document = $3 AND e.kind <> '' AND e.superseded_by IS NULL AND e.seq > $5
                   AND NOT EXISTS (SELECT 1 FROM erasing x WHERE x.log = e.log AND x.document = e.document AND e.seq < x.seq)
                   ORDER BY e.seq LIMIT $7::bigint + 1
                 ) AS rows
                 WINDOW earlier AS (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
               ) AS page
               WHERE COALESCE(bytes, 0) < $6 AND entries < $7::bigint ORDER BY seq";
    let (bytes, most) = (proto::PAGE_BYTES as i64, batch(proto::PAGE_ENTRIES) as i64);
    let params: [&(dyn ToSql + Sync); 7] = [
        &log.account,
        &log.space.0.as_slice(),
        &document.0.as_slice(),
        &whole,
        &number(after),
        &bytes,
        &most,
    ];
    let rows = select(client, sql, &params).await?;
    let mut page = DocumentPage { last: after, ..DocumentPage::default() };
    page.more = rows.first().is_some_and(|row| row.get::<_, i64>(9) > rows.len() as i64);
    for row in &rows {
        page.last = row.get::<_, i64>(0).unsigned_abs();
        if whole {
            page.entries.push(entry(row)?);
        } else {
            let bytes = row.get::<_, i32>(8).unsigned_abs().into();
            page.listed.push(Listed { seq: page.last, id: EntryId(bytes_of(row, 1)?), bytes });
        }
    }
    Ok(page)
}

fn entry(row: &Row) -> Result<Entry, Failure> {
    let kind =
        Kind::from_bytes(row.get(5)).ok_or_else(|| Failure::damaged("an entry's kind cannot be read"))?;
    let suite =
        u8::try_from(row.get::<_, i16>(6)).map_err(|_| Failure::damaged("an entry's suite is none"))?;
    Ok(Entry {
        id: EntryId(bytes_of(row, 1)?),
        document: DocumentId(bytes_of(row, 3)?),
        device: DeviceId(bytes_of(row, 4)?),
        kind,
        suite,
        payload: row.get(7),
    })
}

fn bytes_of<const N: usize>(row: &Row, column: usize) -> Result<[u8; N], Failure> {
    let bytes: &[u8] = row.get(column);
    bytes
        .try_into()
        .map_err(|_| Failure::damaged(format!("column {column} of an entry does not have {N} bytes")))
}
