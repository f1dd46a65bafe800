//! What each column of the format may hold, and what becomes of a value that is something else.

use std::ops::RangeInclusive;

use rusqlite::types::ValueRef;

use self::Holds::{Bytes, Error, Hashes, Json, Name, Number, StepDocuments, Text};
use self::Otherwise::{AsText, Remove, Set};
use super::is_name;
use crate::store::documents::MOST_CHANGES;
use crate::store::steps::is_step_documents;
use crate::types::LastError;

/// Ids that SQLite gives out in order, far from where adding one overflows.
pub(super) const IDS: RangeInclusive<i64> = 1..=(1 << 48);

/// Ids of documents: those of their changes have 24 bits more.
const DOCUMENTS: RangeInclusive<i64> = 1..=(1 << 38);

const ANY: RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// Counts, and times in milliseconds or seconds since 1970.
const COUNT: RangeInclusive<i64> = 0..=(1 << 53);

/// What a column may hold.
pub(super) enum Holds {
    Number(RangeInclusive<i64>),
    /// Bytes; so many, if that is said.
    Bytes(Option<usize>),
    /// Hashes of 32 bytes each.
    Hashes,
    Text,
    /// What a collection or a document may be called.
    Name,
    Json,
    /// An error as JSON: an object with a code.
    Error,
    /// The documents of a step of undo.
    StepDocuments,
}

/// What becomes of a value that is none of those.
pub(super) enum Otherwise {
    /// It is set to what this SQL says.
    Set(&'static str),
    /// What can be read of it as text is kept, as JSON if that is what stands there.
    AsText,
    /// The row goes.
    Remove,
}

pub(super) struct Rule {
    pub(super) table: &'static str,
    pub(super) column: &'static str,
    is_nullable: bool,
    pub(super) holds: Holds,
    pub(super) otherwise: Otherwise,
}

impl Rule {
    pub(super) fn allows(&self, value: ValueRef<'_>) -> bool {
        let blob = || value.as_blob().ok();
        let text = || value.as_str().ok();
        match &self.holds {
            _ if value == ValueRef::Null => self.is_nullable,
            Number(range) => matches!(value, ValueRef::Integer(number) if range.contains(&number)),
            Bytes(len) => blob().is_some_and(|bytes| len.is_none_or(|len| bytes.len() == len)),
            Hashes => blob().is_some_and(|bytes| bytes.len() % 32 == 0),
            Text => text().is_some(),
            Name => text().is_some_and(is_name),
            Json => text().is_some_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()),
            Error => text().is_some_and(|text| serde_json::from_str::<LastError>(text).is_ok()),
            StepDocuments => blob().is_some_and(is_step_documents),
        }
    }
}

const fn rule(table: &'static str, column: &'static str, holds: Holds, otherwise: Otherwise) -> Rule {
    Rule { table, column, is_nullable: false, holds, otherwise }
}

/// A column that may be empty, and is where nothing is known.
const fn optional(table: &'static str, column: &'static str, holds: Holds) -> Rule {
    Rule { table, column, is_nullable: true, holds, otherwise: Otherwise::Set("NULL") }
}

/// Rules of one table stand together.
pub(super) const RULES: &[Rule] = &[
    rule("meta", "key", Text, Remove),
    rule("meta", "value", Text, Remove),
    rule("space", "id", Number(1..=1), Remove),
    rule("space", "uuid", Bytes(Some(16)), Set("zeroblob(16)")),
    rule("remote", "space", Number(1..=1), Set("1")),
    rule("remote", "url", Text, Set("'unknown address ' || id")),
    optional("remote", "position", Bytes(None)),
    rule("remote", "active", Number(0..=1), Set("0")),
    rule("remote", "reseed", Number(0..=1), Set("1")),
    optional("remote", "last_synced_at", Number(COUNT)),
    optional("remote", "last_error", Error),
    optional("remote", "log", Bytes(None)),
    rule("device", "id", Bytes(Some(16)), Remove),
    rule("device", "name", Text, AsText),
    rule("collection", "name", Text, Remove),
    rule("document", "id", Number(DOCUMENTS), Remove),
    rule("document", "space", Number(1..=1), Set("1")),
    rule("document", "collection", Name, Set("'damaged ' || id")),
    rule("document", "name", Name, Set("'damaged ' || id")),
    rule("document", "created_at", Number(COUNT), Set("0")),
    optional("document", "last_synced_at", Number(COUNT)),
    rule("change", "id", Number(0..=(1 << 62)), Remove),
    optional("change", "origin", Number(ANY)),
    rule("restore_point", "name", Text, AsText),
    rule("restore_point", "created_at", Number(COUNT), Set("0")),
    optional("restore_point", "last_document", Number(ANY)),
    rule("restore_point_document", "point", Number(ANY), Remove),
    rule("restore_point_document", "document", Number(ANY), Remove),
    rule("restore_point_document", "heads", Hashes, Remove),
    rule("projection", "document", Number(DOCUMENTS), Remove),
    rule("projection", "collection", Name, Remove),
    rule("projection", "name", Name, Remove),
    rule("projection", "conflicts", Number(0..=(1 << 31)), Set("0")),
    rule("projection", "changes", Number(0..=MOST_CHANGES), Set("0")),
    rule("projection", "updated_at", Number(COUNT), Set("0")),
    rule("projection", "seq", Number(IDS), Set("1")),
    rule("behind", "at", Number(COUNT), Set("0")),
    rule("unmerged", "remote", Number(ANY), Remove),
    rule("outbox", "remote", Number(ANY), Remove),
    rule("outbox", "document", Number(ANY), Remove),
    rule("outbox", "op", Number(0..=3), Set("1")),
    rule("outbox", "since", Number(COUNT), Set("0")),
    rule("outbox", "first_change", Number(0..=i64::MAX), Set("0")),
    optional("outbox", "last_change", Number(0..=i64::MAX)),
    optional("outbox", "error", Error),
    rule("conflict", "document", Number(ANY), Remove),
    rule("conflict", "path", Text, AsText),
    rule("conflict", "op", Text, Remove),
    rule("conflict", "winner", Json, AsText),
    // Of a long one only the beginning.
    rule("conflict", "loser", Text, AsText),
    optional("conflict", "device", Bytes(Some(16))),
    rule("conflict", "time", Number(ANY), Set("0")),
    rule("conflict", "noticed_at", Number(ANY), Set("0")),
    Rule {
        table: "conflict",
        column: "settled_at",
        is_nullable: true,
        holds: Number(ANY),
        otherwise: Set("0"),
    },
    optional("conflict", "winner_device", Bytes(Some(16))),
    optional("conflict", "winner_time", Number(ANY)),
    rule("quarantine", "id", Number(IDS), Remove),
    rule("quarantine", "remote", Number(ANY), Remove),
    optional("quarantine", "document", Bytes(Some(16))),
    rule("quarantine", "hash", Bytes(Some(32)), Remove),
    rule("quarantine", "waits", Number(0..=1), Set("0")),
    rule("quarantine", "reason", Text, AsText),
    optional("quarantine", "bytes", Bytes(None)),
    rule("quarantine", "at", Number(COUNT), Set("0")),
    rule("quarantine", "dormant", Number(0..=4), Set("0")),
    rule("history", "id", Number(IDS), Remove),
    rule("history", "remote", Number(ANY), Remove),
    rule("history", "started_at", Number(COUNT), Remove),
    rule("history", "duration_ms", Number(COUNT), Remove),
    rule("history", "summary", Json, Remove),
    rule("traffic", "day", Number(0..=(1 << 32)), Remove),
    rule("traffic", "up", Number(COUNT), Remove),
    rule("traffic", "down", Number(COUNT), Remove),
    rule("excluded", "collection", Text, AsText),
    rule("step", "id", Number(IDS), Remove),
    rule("step", "kind", Number(0..=2), Remove),
    optional("step", "target", Number(IDS)),
    rule("step", "at", Number(COUNT), Set("0")),
    optional("step", "label", Text),
    optional("step", "message", Text),
    rule("step", "documents", StepDocuments, Remove),
    rule("erased", "remote", Number(ANY), Remove),
    rule("erased", "document", Number(ANY), Remove),
    rule("same_version", "document", Number(ANY), Remove),
    rule("same_version", "heads", Hashes, Remove),
    rule("same_version", "earlier", Hashes, Remove),
    rule("same_version", "step", Number(IDS), Remove),
    rule("opening", "entry", Bytes(Some(32)), Remove),
    optional("opening", "run", Bytes(None)),
    rule("opening", "deaths", Number(0..=(1 << 16)), Set("0")),
    rule("grave", "at", Number(COUNT), Set("MIN(MAX(CAST(at AS INTEGER), 0), 1 << 53)")),
    optional("grave", "changes", Bytes(None)),
];
