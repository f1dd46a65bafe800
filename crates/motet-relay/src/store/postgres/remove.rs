//! What leaves the logs: what an erasure is about, and what was superseded long enough ago. Id and tag of an entry stay.

use std::collections::BTreeMap;

use deadpool_postgres::{Client, GenericClient, Transaction};
use futures_util::future::FutureExt;
use motet_proto::DocumentId;

use super::append::number;
use super::database::{Database, Failure, first, select};
use crate::limits;
use crate::store::{LogId, StoreError};

/// Takes out what stands before the erasures of some documents, in the transaction that has appended them and so holds the log. What is more than one transaction
/// should take out is noted, and counts as erased until [`sweep`] has taken it out.
pub(super) async fn erase(
    tx: &Transaction<'_>,
    log: i64,
    erasures: &BTreeMap<DocumentId, u64>,
) -> Result<(), Failure> {
    let documents: Vec<_> = erasures.keys().map(|document| document.0.as_slice()).collect();
    let seqs: Vec<_> = erasures.values().map(|seq| number(*seq)).collect();
    let due = "SELECT e.seq FROM unnest($2::bytea[], $3::bigint[]) AS x(document, seq)
               JOIN entry e ON e.log = $1 AND e.document = x.document AND e.kind <> '' AND e.seq < x.seq LIMIT $4";
    let most = limits::POSTGRES_REMOVED as i64;
    let due = select(tx, due, &[&log, &documents, &seqs, &most]).await?;
    let due: Vec<i64> = due.iter().map(|row| row.get(0)).collect();
    take_out(tx, log, &due).await?;
    if due.len() < limits::POSTGRES_REMOVED {
        return Ok(());
    }
    let note = "INSERT INTO erasing (log, document, seq) SELECT $1, * FROM unnest($2::bytea[], $3::bigint[])
                ON CONFLICT (log, document) DO UPDATE SET seq = excluded.seq";
    select(tx, note, &[&log, &documents, &seqs]).await?;
    Ok(())
}

/// Takes out what was superseded before `before`, and what is left of erasures, of some logs. Returns how many entries.
pub(super) async fn sweep(database: &Database, before: i64) -> Result<usize, StoreError> {
    let logs = database.run(move |client| async move { due(client, before).await }.boxed()).await?;
    let mut all = 0;
    for log in logs {
        all +=
            database.run(move |client| async move { sweep_log(client, log, before).await }.boxed()).await?;
    }
    Ok(all)
}

/// Logs of which something is to be taken out.
async fn due(client: &Client, before: i64) -> Result<Vec<i64>, Failure> {
    let sql = "(SELECT DISTINCT log FROM (
                  SELECT log FROM entry WHERE superseded_at < $1 AND superseded_at IS NOT NULL AND kind <> '' AND received_at < $1
                  ORDER BY superseded_at LIMIT $2) AS due)
               UNION (SELECT log FROM erasing LIMIT $2)";
    let rows = select(client, sql, &[&before, &(limits::POSTGRES_REMOVED as i64)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Takes a part out of a log, from its end on; true if there is more.
pub(super) async fn remove(database: &Database, log: &LogId) -> Result<bool, StoreError> {
    let log = log.clone();
    let removed = database.run(move |client| {
        let log = log.clone();
        async move { remove_part(client, &log).await }.boxed()
    });
    removed.await
}

async fn remove_part(client: &mut Client, id: &LogId) -> Result<bool, Failure> {
    let tx = client.transaction().await?;
    let sql = "SELECT id, head FROM log WHERE account = $1 AND space = $2 FOR NO KEY UPDATE";
    let Some(row) = first(&tx, sql, &[&id.account, &id.space.0.as_slice()]).await? else {
        return Ok(false);
    };
    let (log, head): (i64, i64) = (row.get(0), row.get(1));
    // Up to here it stays. Every number has a row.
    let end = (head - limits::POSTGRES_REMOVED as i64).max(0);
    let sizes = "SELECT COALESCE(SUM(size), 0)::bigint FROM entry WHERE log = $1 AND seq > $2";
    let bytes: i64 = first(&tx, sizes, &[&log, &end]).await?.map_or(0, |row| row.get(0));
    select(&tx, "DELETE FROM entry WHERE log = $1 AND seq > $2", &[&log, &end]).await?;
    if end == 0 {
        select(&tx, "DELETE FROM erasing WHERE log = $1", &[&log]).await?;
        select(&tx, "DELETE FROM log WHERE id = $1", &[&log]).await?;
    } else {
        let shorter = "UPDATE log SET head = $2, tag = (SELECT tag FROM entry WHERE log = $1 AND seq = $2),
                       bytes = GREATEST(bytes - $3, 0), epoch = epoch + 1 WHERE id = $1";
        select(&tx, shorter, &[&log, &end, &bytes]).await?;
    }
    tx.commit().await?;
    Ok(end > 0)
}

async fn sweep_log(client: &mut Client, log: i64, before: i64) -> Result<usize, Failure> {
    let tx = client.transaction().await?;
    // Before any entry, as whoever appends does: so none waits for another in a circle.
    if first(&tx, "SELECT 1 FROM log WHERE id = $1 FOR NO KEY UPDATE", &[&log]).await?.is_none() {
        select(&tx, "DELETE FROM erasing WHERE log = $1", &[&log]).await?;
        tx.commit().await?;
        return Ok(0);
    }
    let most = limits::POSTGRES_REMOVED as i64;
    let erased = "SELECT e.seq FROM erasing x
                  JOIN entry e ON e.log = x.log AND e.document = x.document AND e.kind <> '' AND e.seq < x.seq
                  WHERE x.log = $1 LIMIT $2";
    let mut due: Vec<i64> = select(&tx, erased, &[&log, &most]).await?.iter().map(|row| row.get(0)).collect();
    if due.len() < limits::POSTGRES_REMOVED {
        select(&tx, "DELETE FROM erasing WHERE log = $1", &[&log]).await?;
        let superseded =
            "SELECT seq FROM entry WHERE log = $1 AND superseded_at < $2 AND superseded_at IS NOT NULL
                          AND received_at < $2 AND kind <> '' AND NOT seq = ANY($3) LIMIT $4";
        let rows = select(&tx, superseded, &[&log, &before, &due, &most]).await?;
        due.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
    }
    let removed = take_out(&tx, log, &due).await?;
    tx.commit().await?;
    Ok(removed)
}

/// Takes entries out of a log that the transaction holds. Returns how many there were.
async fn take_out(tx: &Transaction<'_>, log: i64, seqs: &[i64]) -> Result<usize, Failure> {
    if seqs.is_empty() {
        return Ok(0);
    }
    let sizes = "SELECT COUNT(*), COALESCE(SUM(size), 0)::bigint FROM entry WHERE log = $1 AND seq = ANY($2) AND kind <> ''";
    let row = first(tx, sizes, &[&log, &seqs]).await?;
    let (count, bytes): (i64, i64) = row.map_or((0, 0), |row| (row.get(0), row.get(1)));
    let blank = "UPDATE entry SET document = '', device = '', kind = '', suite = 0, payload = '', size = 0, superseded_by = NULL, superseded_at = NULL
                 WHERE log = $1 AND seq = ANY($2) AND kind <> ''";
    select(tx, blank, &[&log, &seqs]).await?;
    // Whoever has read what the log holds reads it again before something is appended.
    let freed = "UPDATE log SET bytes = GREATEST(bytes - $2, 0), epoch = epoch + 1 WHERE id = $1";
    select(tx, freed, &[&log, &bytes]).await?;
    Ok(usize::try_from(count).unwrap_or(0))
}
