//! What a document is called, as far as its rows say so, and how it gets its name back where they do not agree.

use std::collections::HashSet;

use motet_proto::{DocumentId, SpaceId};
use rusqlite::{OptionalExtension, params};

use super::documents::change_id;
use super::integrity::{bytes, text};
use super::packed::Pack;
use super::rows::is_name;
use super::{Result, StorageError, Tx, next_seq};

/// What a document is called, as far as its rows say so.
#[derive(Debug)]
pub(crate) struct Names {
    /// The space of the file.
    space: SpaceId,
    /// The id on the wire, which is derived from the names.
    pub(crate) key: Option<DocumentId>,
    pub(crate) own: Option<(String, String)>,
    pub(crate) shown: Option<(String, String)>,
}

impl Names {
    /// The names that the id on the wire confirms; without such the ones that there are.
    pub(crate) fn settled(&self) -> Option<(&str, &str)> {
        let all = || self.all();
        self.confirmed().or_else(|| all().find(|names| Self::is_known(*names))).or_else(|| all().next())
    }

    /// The names that the id on the wire confirms.
    fn confirmed(&self) -> Option<(&str, &str)> {
        let is_right = |(collection, name): &(&str, &str)| {
            Some(DocumentId::derive(self.space, collection, name)) == self.key
        };
        self.all().find(is_right)
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.own.iter().chain(&self.shown).map(|(collection, name)| (&**collection, &**name))
    }

    /// Not what stands in the place of a name that could not be read.
    fn is_known((collection, name): (&str, &str)) -> bool {
        ![collection, name].iter().any(|name| name.starts_with("damaged "))
    }

    /// What is wrong with them.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let Some((collection, name)) = &self.own else { return Some("its row is missing") };
        let Some(shown) = &self.shown else { return Some("what it shows is missing") };
        let key = DocumentId::derive(self.space, collection, name);
        if self.key != Some(key) || *shown != (collection.clone(), name.clone()) {
            return Some("its rows do not agree on its name");
        }
        None
    }
}

impl Tx<'_> {
    /// The wire id and the names of a document, as its row and its projection have them.
    pub(crate) fn names_of(&self, document: i64) -> Result<Names> {
        let sql = "SELECT key, collection, name FROM document WHERE id = ?";
        let row = self.conn.prepare_cached(sql)?.query_row([document], |row| {
            Ok((bytes(row.get_ref(0)?), (text(row.get_ref(1)?), text(row.get_ref(2)?))))
        });
        let sql = "SELECT collection, name FROM projection WHERE document = ?";
        let shown = self
            .conn
            .prepare_cached(sql)?
            .query_row([document], |row| Ok((text(row.get_ref(0)?), text(row.get_ref(1)?))));
        let (row, shown) = (row.optional()?, shown.optional()?);
        let (key, own) = row.unzip();
        Ok(Names {
            space: self.space,
            key: key.and_then(|key| Some(DocumentId(key.try_into().ok()?))),
            own,
            shown,
        })
    }

    /// What a document is called, as far as its rows say so. Where they do not agree, and what its row says is what another number shows that has
    /// no row, the row has come from there.
    pub(crate) fn settled_names(&self, document: i64) -> Result<Option<(String, String)>> {
        let names = self.names_of(document)?;
        if let Some(shown) = self.likelier_shown(document, &names)? {
            return Ok(Some(shown));
        }
        let Some((collection, name)) = names.settled() else { return Ok(None) };
        let sql = "SELECT document FROM projection WHERE document <> ? AND collection = ? AND name = ?
                   AND document NOT IN (SELECT id FROM document)";
        let row = params![document, collection, name];
        let from: Option<i64> = self.conn.prepare_cached(sql)?.query_row(row, |row| row.get(0)).optional()?;
        let settled = (collection.to_owned(), name.to_owned());
        Ok(Some(match (from, names.shown) {
            (Some(from), Some(shown)) if shown != settled && self.has_content(from)? => shown,
            _ => settled,
        }))
    }

    /// What a document shows as its name, where its id on the wire confirms neither that nor what its row says: more than one column of that row
    /// is damaged then, unless the row names a collection that is known here and what it shows does not.
    fn likelier_shown(&self, document: i64, names: &Names) -> Result<Option<(String, String)>> {
        let Some(shown) =
            names.shown.as_ref().filter(|(c, n)| Names::is_known((c, n)) && is_name(c) && is_name(n))
        else {
            return Ok(None);
        };
        if names.confirmed().is_some() || names.own.as_ref() == Some(shown) {
            return Ok(None);
        }
        let sql = "SELECT 1 FROM collection WHERE name = ?1 UNION ALL
                   SELECT 1 FROM document WHERE collection = ?1 AND id <> ?2";
        let is_known = |collection: &str| {
            Ok::<_, StorageError>(self.conn.prepare_cached(sql)?.exists(params![collection, document])?)
        };
        let is_own_likelier = match &names.own {
            Some((own, _)) => is_known(own)? && !is_known(&shown.0)?,
            None => false,
        };
        Ok((!is_own_likelier).then(|| shown.clone()))
    }

    /// A row may have lost the number that all else of its document is filed under, or an index that was damaged may have let a document
    /// be made twice: what is left of both becomes one. Returns the number that it has then.
    pub(crate) fn unite(&self, document: i64, (collection, name): (&str, &str)) -> Result<i64> {
        let key = DocumentId::derive(self.space, collection, name);
        let sql = "SELECT id FROM document WHERE id <> ?1 AND (key = ?2 OR (collection = ?3 AND name = ?4))";
        let row = params![document, key.as_bytes(), collection, name];
        let other = self.conn.prepare_cached(sql)?.query_row(row, |row| row.get(0)).optional()?;
        let Some(other): Option<i64> = other else { return Ok(document) };
        let shown = self.names_of(other)?.shown.filter(|(c, n)| (&**c, &**n) != (collection, name));
        if let Some((collection, name)) = shown.as_ref().filter(|(c, n)| is_name(c) && is_name(n))
            && self.has_content(document)?
        {
            // That row has come to the number of yet another document.
            self.put_names(other, (collection, name))?;
            return Ok(document);
        }
        if !self.has_content(other)? {
            self.remove_document(other)?;
            return Ok(document);
        }
        self.move_content(document, other)?;
        self.remove_document(document)?;
        Ok(other)
    }

    fn move_content(&self, from: i64, to: i64) -> Result<()> {
        let known = self.change_rows(to)?;
        let first = known.last().map_or(change_id(to, 0), |(id, _)| *id) + 1;
        let known: HashSet<Vec<u8>> = known.into_iter().map(|(_, bytes)| bytes).collect();
        let more = self.change_rows(from)?.into_iter().filter(|(_, bytes)| !known.contains(bytes));
        for (id, (_, bytes)) in (first..).zip(more) {
            let sql = "INSERT INTO change (id, bytes) VALUES (?, ?)";
            self.conn.prepare_cached(sql)?.execute(params![id, Pack { document: to, chunk: &bytes }])?;
        }
        // It may be the only copy of what is in it, and says nothing about the changes of the other.
        match (self.raw_snapshot(from)?, self.raw_snapshot(to)?) {
            (Some(saved), None) => self.put_snapshot(to, &saved.bytes, 0, true),
            (Some(saved), Some(_)) if saved.is_primary => Err(StorageError::Damaged(format!(
                "documents {from} and {to} have one name, and a saved form each"
            ))),
            _ => Ok(()),
        }
    }

    /// Brings the rows of a document to the names given, and gives it a projection if it has none.
    pub(crate) fn put_names(&self, document: i64, (collection, name): (&str, &str)) -> Result<()> {
        let key = DocumentId::derive(self.space, collection, name);
        let sql =
            "INSERT INTO document (id, space, key, collection, name, created_at) VALUES (?, 1, ?, ?, ?, 0)
                   ON CONFLICT (id) DO UPDATE SET
                     space = 1, key = excluded.key, collection = excluded.collection, name = excluded.name";
        self.conn.prepare_cached(sql)?.execute(params![document, key.as_bytes(), collection, name])?;
        let sql = concat!(
            "INSERT INTO projection
               (document, collection, name, heads, deleted, conflicts, changes, updated_at, json, seq)
             VALUES (?, ?, ?, x'', 0, 0, 0, 0, '{}', ",
            next_seq!(),
            ") ON CONFLICT (document) DO UPDATE SET collection = excluded.collection, name = excluded.name"
        );
        self.conn.prepare_cached(sql)?.execute(params![document, collection, name])?;
        // What is no number, no heads, cannot be read as such later.
        let sql = "UPDATE projection SET
                     heads = CASE WHEN typeof(heads) = 'blob' AND length(heads) % 32 = 0 THEN heads ELSE x'' END,
                     deleted = deleted IS 1 OR purged IS 1, purged = purged IS 1,
                     conflicts = CASE typeof(conflicts) WHEN 'integer' THEN conflicts ELSE 0 END,
                     changes = CASE typeof(changes) WHEN 'integer' THEN MAX(changes, 0) ELSE 0 END,
                     updated_at = CASE typeof(updated_at) WHEN 'integer' THEN updated_at ELSE 0 END,
                     json = CASE WHEN typeof(json) = 'text' THEN json ELSE '{}' END
                   WHERE document = ?";
        self.conn.prepare_cached(sql)?.execute([document])?;
        Ok(())
    }
}
