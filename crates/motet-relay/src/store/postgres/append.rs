//! Appending. Pushes to one log wait for each other in this process, and those that have come meanwhile are written together.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use deadpool_postgres::tokio_postgres::types::ToSql;
use deadpool_postgres::{Client, GenericClient};
use futures_util::future::{BoxFuture, FutureExt};
use motet_proto::{DocumentId, Entry, EntryId, Kind, Position};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::database::{Database, Failure, Patience, first, select};
use super::plan::{Known, Plan};
use super::remove;
use crate::config::Limits;
use crate::limits;
use crate::store::{Appended, Counts, LogId, StoreError, may_wait};

/// Takes in pushes.
pub(super) struct Appender {
    database: Database,
    state: Mutex<State>,
    runtime: tokio::runtime::Handle,
}

#[derive(Default)]
struct State {
    limits: Limits,
    /// Pushes that wait. A log is there as long as somebody works on it.
    logs: HashMap<LogId, VecDeque<Push>>,
    /// Bytes that wait, of each account and in all.
    accounts: HashMap<String, usize>,
    bytes: usize,
    pushes: usize,
    /// Numbers of logs, which stay the same.
    numbers: HashMap<LogId, i64>,
}

struct Push {
    entries: Vec<Entry>,
    bytes: usize,
    reply: oneshot::Sender<Result<Appended, StoreError>>,
}

/// What an attempt to write came to.
enum Attempt {
    Done(Vec<Appended>),
    /// The account, or the relay, may have no further log.
    Limit(StoreError),
    /// Somebody else has changed the log meanwhile.
    Moved,
}

/// What an attempt may have written, although nobody has heard of it.
struct Unheard {
    log: i64,
    head: Position,
    answers: Vec<Appended>,
}

impl Appender {
    pub(super) fn new(database: Database, limits: &Limits) -> Arc<Self> {
        let state = State { limits: limits.clone(), ..State::default() };
        Arc::new(Self { database, state: Mutex::new(state), runtime: tokio::runtime::Handle::current() })
    }

    pub(super) fn set_limits(&self, limits: &Limits) {
        self.lock().limits = limits.clone();
    }

    /// Pushes that wait, and their bytes.
    pub(super) fn queued(&self) -> (u64, u64) {
        let state = self.lock();
        (state.pushes as u64, state.bytes as u64)
    }

    pub(super) fn append(
        self: &Arc<Self>,
        log: LogId,
        entries: Vec<Entry>,
    ) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let bytes = entries.iter().map(Entry::size).sum();
        let (reply, answer) = oneshot::channel();
        let mut state = self.lock();
        let own = state.accounts.get(&log.account).copied().unwrap_or(0);
        if !may_wait(bytes, own, state.bytes) {
            return std::future::ready(Err(StoreError::Busy)).boxed();
        }
        state.bytes += bytes;
        state.pushes += 1;
        *state.accounts.entry(log.account.clone()).or_default() += bytes;
        let push = Push { entries, bytes, reply };
        match state.logs.entry(log.clone()) {
            Place::Occupied(mut waiting) => waiting.get_mut().push_back(push),
            Place::Vacant(place) => {
                place.insert(VecDeque::from([push]));
                let appender = self.clone();
                self.runtime.spawn(async move { appender.work(log).await });
            }
        }
        drop(state);
        async move { answer.await.unwrap_or(Err(StoreError::Closed)) }.boxed()
    }

    /// Writes what waits for a log, until nothing does.
    async fn work(&self, log: LogId) {
        // Also after a panic the log is not left with nobody to work on it.
        let working = Working { appender: self, log: &log };
        while let Some((group, limits)) = self.next(&log) {
            let written = self.write(&log, &group, &limits).await;
            self.database.note(&written);
            let mut answers = written.map(Vec::into_iter);
            for push in group {
                let answer = match &mut answers {
                    Ok(answers) => answers.next().ok_or(StoreError::Closed),
                    Err(error) => Err(error.clone()),
                };
                // Whoever has gone hears of it when it comes back.
                _ = push.reply.send(answer);
            }
        }
        drop(working);
    }

    /// What waits and is written together; nothing once nothing waits.
    fn next(&self, log: &LogId) -> Option<(Vec<Push>, Limits)> {
        let mut state = self.lock();
        let waiting = state.logs.get_mut(log)?;
        let (mut group, mut entries, mut bytes) = (Vec::new(), 0, 0);
        while let Some(push) = waiting.pop_front() {
            entries += push.entries.len();
            bytes += push.bytes;
            // What an erasure takes out is known only once it is done.
            let erases = push.entries.iter().any(|entry| entry.kind == Kind::Erased);
            group.push(push);
            let is_full = entries >= limits::POSTGRES_GROUP_ENTRIES || bytes >= limits::GROUP_BYTES;
            if erases
                || is_full
                || waiting.front().is_some_and(|next| bytes + next.bytes > 2 * limits::GROUP_BYTES)
            {
                break;
            }
        }
        if group.is_empty() {
            state.logs.remove(log);
            return None;
        }
        state.let_go(&log.account, &group);
        Some((group, state.limits.clone()))
    }

    /// Writes a group: all of it, or nothing.
    async fn write(&self, log: &LogId, group: &[Push], limits: &Limits) -> Result<Vec<Appended>, StoreError> {
        let (mut patience, mut unheard, mut moved) = (Patience::new(), None, 0);
        loop {
            let mut client = self.database.lease(patience.deadline).await?;
            let locks = moved >= limits::POSTGRES_RACES;
            let attempt = self.attempt(&mut client, (log, group, limits), locks, &mut unheard);
            let failure = match timeout_at(patience.deadline, attempt).await {
                Ok(Ok(Attempt::Done(done))) => return Ok(done),
                Ok(Ok(Attempt::Limit(limit))) => {
                    return Ok(group.iter().map(|_| Appended::refused(limit.clone())).collect());
                }
                Ok(Ok(Attempt::Moved)) => {
                    moved += 1;
                    // It may be gone: the database was restored from before it was made.
                    self.remember(log, None);
                    continue;
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Lost("it did not answer in time".into()),
            };
            patience.after(failure, client).await?;
        }
    }

    /// Reads the log, and writes if it is still the same then. If `locks`, nobody else changes it meanwhile.
    async fn attempt(
        &self,
        client: &mut Client,
        (id, group, limits): (&LogId, &[Push], &Limits),
        locks: bool,
        unheard: &mut Option<Unheard>,
    ) -> Result<Attempt, Failure> {
        if let Some(before) = unheard.as_ref()
            && is_written(client, before).await?
        {
            return Ok(unheard.take().map_or(Attempt::Moved, |before| Attempt::Done(before.answers)));
        }
        *unheard = None;
        let number = self.lock().numbers.get(id).copied();
        let log = match number {
            Some(log) => log,
            None => match find_or_create(client, id, limits).await? {
                Ok(log) => log,
                Err(limit) => return Ok(Attempt::Limit(limit)),
            },
        };
        self.remember(id, Some(log));
        let planned = |known: Option<Known>| {
            let pushes = group.iter().map(|push| &push.entries[..]);
            known.map(|known| Plan::of(pushes, id.space, known, limits))
        };
        let is_written = if locks {
            let tx = client.transaction().await?;
            match promise(planned(look(&tx, (id, log), group, true).await?), unheard) {
                Ok(plan) => write_in(tx, &plan).await?,
                Err(attempt) => return Ok(attempt),
            }
        } else {
            match promise(planned(look(client, (id, log), group, false).await?), unheard) {
                Ok(plan) if plan.erasures.is_empty() => insert(client, &plan).await?,
                Ok(plan) => write_in(client.transaction().await?, &plan).await?,
                Err(attempt) => return Ok(attempt),
            }
        };
        Ok(unheard.take().filter(|_| is_written).map_or(Attempt::Moved, |done| Attempt::Done(done.answers)))
    }

    fn remember(&self, id: &LogId, log: Option<i64>) {
        let mut state = self.lock();
        if state.numbers.len() >= limits::REMEMBERED_LOGS {
            state.numbers.clear();
        }
        match log {
            Some(log) => _ = state.numbers.insert(id.clone(), log),
            None => _ = state.numbers.remove(id),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A group waits no longer.
    fn let_go(&mut self, account: &str, group: &[Push]) {
        let bytes: usize = group.iter().map(|push| push.bytes).sum();
        self.bytes -= bytes;
        self.pushes -= group.len();
        if let Some(own) = self.accounts.get_mut(account) {
            *own -= bytes;
            if *own == 0 {
                self.accounts.remove(account);
            }
        }
    }
}

/// Somebody works on a log. If that panics, what waits is given back as failed.
struct Working<'a> {
    appender: &'a Appender,
    log: &'a LogId,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        // Otherwise nothing has waited any more, and somebody else may work on the log by now.
        if !std::thread::panicking() {
            return;
        }
        let mut state = self.appender.lock();
        if let Some(waiting) = state.logs.remove(self.log) {
            state.let_go(&self.log.account, &Vec::from(waiting));
        }
    }
}

/// Notes what is about to be written, of which this side may not hear whether it was. Without a plan the log is gone.
fn promise(plan: Option<Plan>, unheard: &mut Option<Unheard>) -> Result<Plan, Attempt> {
    let mut plan = plan.ok_or(Attempt::Moved)?;
    let answers = std::mem::take(&mut plan.answers);
    if plan.rows.is_empty() {
        return Err(Attempt::Done(answers));
    }
    *unheard = Some(Unheard { log: plan.known.log, head: plan.head, answers });
    Ok(plan)
}

/// Whether what may have been written was.
async fn is_written(client: &Client, unheard: &Unheard) -> Result<bool, Failure> {
    let sql = "SELECT 1 FROM entry WHERE log = $1 AND seq = $2 AND tag = $3";
    let Position { seq, tag } = unheard.head;
    Ok(first(client, sql, &[&unheard.log, &number(seq), &tag.as_slice()]).await?.is_some())
}

/// Number of a log; the limit that it would break, if there is none yet.
async fn find_or_create(
    client: &mut Client,
    id: &LogId,
    limits: &Limits,
) -> Result<Result<i64, StoreError>, Failure> {
    let sql = "SELECT id FROM log WHERE account = $1 AND space = $2";
    let (account, space) = (&id.account, id.space.0.as_slice());
    if let Some(row) = first(client, sql, &[account, &space]).await? {
        return Ok(Ok(row.get(0)));
    }
    let tx = client.transaction().await?;
    // Whoever makes a log waits here for others who do, so that limits are kept.
    let taken = "UPDATE motet SET value = value + 1 WHERE key = 'logs' RETURNING value";
    let last: i64 = first(&tx, taken, &[]).await?.map_or(0, |row| row.get(0));
    if let Some(row) = first(&tx, sql, &[account, &space]).await? {
        return Ok(Ok(row.get(0)));
    }
    // Numbers count the logs that were removed too: only where there were as many as that they have to be counted.
    if last.unsigned_abs() > limits.spaces
        && first(&tx, "SELECT COUNT(*) FROM log", &[])
            .await?
            .is_none_or(|row| row.get::<_, i64>(0).unsigned_abs() >= limits.spaces)
    {
        return Ok(Err(StoreError::Limit("the relay has as many spaces as it may have".into())));
    }
    let own = first(&tx, "SELECT COUNT(*) FROM log WHERE account = $1", &[account]).await?;
    let own: i64 = own.map_or(0, |row| row.get(0));
    if own.unsigned_abs() >= limits.spaces_per_account {
        return Ok(Err(StoreError::Limit(format!("this account has {own} spaces, and may have no more"))));
    }
    let insert = "INSERT INTO log (id, account, space, head, tag, epoch, bytes, documents)
                  VALUES ($1, $2, $3, 0, $4, 0, 0, 0)";
    let tag = Position::start(id.space).tag;
    select(&tx, insert, &[&last, account, &space, &tag.as_slice()]).await?;
    tx.commit().await?;
    Ok(Ok(last))
}

/// Reads where a log ends, and then what of the pushes it holds: if the end is still the same when something is written, so is the rest.
async fn look(
    client: &impl GenericClient,
    (id, log): (&LogId, i64),
    group: &[Push],
    locks: bool,
) -> Result<Option<Known>, Failure> {
    let sql = "SELECT head, tag, epoch FROM log WHERE id = $1 AND account = $2 AND space = $3";
    let locking =
        "SELECT head, tag, epoch FROM log WHERE id = $1 AND account = $2 AND space = $3 FOR NO KEY UPDATE";
    let sql = if locks { locking } else { sql };
    let Some(row) = first(client, sql, &[&log, &id.account, &id.space.0.as_slice()]).await? else {
        return Ok(None);
    };
    let tag: Vec<u8> = row.get(1);
    let tag = tag.try_into().map_err(|_| Failure::damaged("the tag of a log is none"))?;
    let head = Position { seq: row.get::<_, i64>(0).unsigned_abs(), tag };
    let epoch = row.get(2);
    let (mut ids, mut documents) = (HashSet::new(), HashSet::new());
    for entry in group.iter().flat_map(|push| &push.entries) {
        ids.insert(entry.id.0.as_slice());
        documents.insert(entry.document.0.as_slice());
        if let Kind::Snapshot { supersedes, .. } = &entry.kind {
            ids.extend(supersedes.iter().map(|id| id.0.as_slice()));
        }
    }
    let (ids, documents): (Vec<_>, Vec<_>) = (ids.into_iter().collect(), documents.into_iter().collect());
    let found = "SELECT id, document, seq FROM entry e WHERE log = $1 AND id = ANY($2) AND kind <> ''
                 AND NOT EXISTS (SELECT 1 FROM erasing x WHERE x.log = e.log AND x.document = e.document AND e.seq < x.seq)";
    let met = "SELECT d FROM unnest($2::bytea[]) AS d
               WHERE EXISTS (SELECT 1 FROM entry WHERE log = $1 AND document = d AND kind <> '')";
    let counts = "SELECT COALESCE(SUM(bytes), 0)::bigint, COALESCE(SUM(documents), 0)::bigint FROM log WHERE account = $1";
    // One after the other on the way, without waiting between them.
    let (found, met, counts) = futures_util::future::try_join3(
        select(client, found, &[&log, &ids]),
        select(client, met, &[&log, &documents]),
        first(client, counts, &[&id.account]),
    )
    .await?;
    let mut entries = HashMap::with_capacity(found.len());
    for row in found {
        let (id, document): (Vec<u8>, Vec<u8>) = (row.get(0), row.get(1));
        let (Ok(id), Ok(document)) = (id.try_into(), document.try_into()) else {
            return Err(Failure::damaged("an entry's id, or its document, is none"));
        };
        entries.insert(EntryId(id), (DocumentId(document), row.get::<_, i64>(2).unsigned_abs()));
    }
    let documents =
        met.iter().filter_map(|row| row.get::<_, Vec<u8>>(0).try_into().ok().map(DocumentId)).collect();
    let counts = counts.map_or(Counts::default(), |row| Counts {
        bytes: row.get::<_, i64>(0).unsigned_abs(),
        documents: row.get::<_, i64>(1).unsigned_abs(),
    });
    Ok(Some(Known { log, head, epoch, counts, entries, documents }))
}

/// Writes a plan in a transaction, with what its erasures take out, and ends it. False if the log is not as it was read.
async fn write_in(tx: deadpool_postgres::Transaction<'_>, plan: &Plan) -> Result<bool, Failure> {
    if !insert(&tx, plan).await? {
        return Ok(false);
    }
    if !plan.erasures.is_empty() {
        remove::erase(&tx, plan.known.log, &plan.erasures).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Moves the end of the log and inserts what is new, in one statement. False if the log is not as it was read.
async fn insert(client: &impl GenericClient, plan: &Plan) -> Result<bool, Failure> {
    let sql = "WITH moved AS (
          UPDATE log SET head = $5, tag = $6, bytes = bytes + $7, documents = documents + $8
          WHERE id = $1 AND head = $2 AND tag = $3 AND epoch = $4 RETURNING id
        ), marked AS (
          UPDATE entry SET superseded_by = by.seq, superseded_at = $9
          FROM moved, unnest($10::bigint[], $11::bigint[]) AS by(old, seq)
          WHERE entry.log = moved.id AND entry.seq = by.old AND entry.superseded_by IS NULL
        ), added AS (
          INSERT INTO entry (log, seq, id, tag, document, device, kind, suite, payload, size, superseded_by, superseded_at, received_at)
          SELECT moved.id, e.*, CASE WHEN e.superseded_by IS NULL THEN NULL ELSE $9 END, $9
          FROM moved, unnest($12::bigint[], $13::bytea[], $14::bytea[], $15::bytea[], $16::bytea[], $17::bytea[], $18::smallint[], $19::bytea[],
                             $20::bigint[], $21::bigint[])
            AS e(seq, id, tag, document, device, kind, suite, payload, size, superseded_by)
        )
        SELECT id FROM moved";
    let Known { log, head, epoch, .. } = &plan.known;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| number(time.as_secs()));
    let (old, by): (Vec<i64>, Vec<i64>) =
        plan.superseded.iter().map(|(old, by)| (number(*old), number(*by))).unzip();
    let rows = &plan.rows;
    let kinds: Vec<_> = rows.iter().map(|row| row.entry.kind.to_bytes()).collect();
    // Of what is erased by what comes with it only the place is kept.
    fn kept<'r>(row: &super::plan::Row, bytes: &'r [u8]) -> &'r [u8] {
        if row.is_erased { &[] } else { bytes }
    }
    let seqs: Vec<_> = rows.iter().map(|row| number(row.at.seq)).collect();
    let ids: Vec<_> = rows.iter().map(|row| row.entry.id.0.as_slice()).collect();
    let tags: Vec<_> = rows.iter().map(|row| row.at.tag.as_slice()).collect();
    let documents: Vec<_> = rows.iter().map(|row| kept(row, &row.entry.document.0)).collect();
    let devices: Vec<_> = rows.iter().map(|row| kept(row, &row.entry.device.0)).collect();
    let kinds: Vec<_> = rows.iter().zip(&kinds).map(|(row, kind)| kept(row, kind)).collect();
    let suites: Vec<_> = rows.iter().map(|row| i16::from(row.entry.suite)).collect();
    let payloads: Vec<_> = rows.iter().map(|row| kept(row, &row.entry.payload)).collect();
    let sizes: Vec<_> =
        rows.iter().map(|row| if row.is_erased { 0 } else { number(row.entry.size() as u64) }).collect();
    let superseded: Vec<_> = rows.iter().map(|row| row.superseded_by.map(number)).collect();
    let bytes: i64 = sizes.iter().sum();
    let (before, after) = (number(head.seq), number(plan.head.seq));
    let (tag, new_tag) = (head.tag.as_slice(), plan.head.tag.as_slice());
    let documents_added = number(plan.added.documents);
    let params: [&(dyn ToSql + Sync); 21] = [
        log,
        &before,
        &tag,
        epoch,
        &after,
        &new_tag,
        &bytes,
        &documents_added,
        &now,
        &old,
        &by,
        &seqs,
        &ids,
        &tags,
        &documents,
        &devices,
        &kinds,
        &suites,
        &payloads,
        &sizes,
        &superseded,
    ];
    Ok(first(client, sql, &params).await?.is_some())
}

/// As the database has numbers. None here is beyond it.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
