//! Documents as JSONL: out of one replica and into another.

use std::io::BufRead;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::lines::{Line, Lines, Unread};
use super::refusal::{BadRows, Refusals, Target, judge};
use crate::api::replica::Replica;
use crate::api::transaction::{new_id, to_fields};
use crate::doc::Fields;
use crate::engine::{Schemas, bytes_of, declared, schema_from, schema_of};
use crate::error::{ReadError, WriteError};
use crate::limits;
use crate::schema::Schema;
use crate::store::{StorageError, Tx};
use crate::types::Refusal;

/// In a line of an export of several collections: the collection that its document belongs to. No document is taken for such a line: it
/// has [`DOCUMENT`] beside it and nothing else.
const COLLECTION: &str = "motet:collection";

/// In a line of an export of several collections: the document.
const DOCUMENT: &str = "document";

/// The line of such an export that holds the declarations.
const SCHEMA: &str = "motet:schema";

/// What became of imported lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImportSummary {
    /// Documents that were made or changed.
    pub imported: u64,
    /// Lines that cannot be imported.
    pub refused: u64,
    /// The first [`LISTED_REFUSALS`](crate::limits::LISTED_REFUSALS) of them.
    pub refusals: Vec<Refusal>,
}

impl Replica {
    /// Puts every line of JSONL. The `id` of an object names its document. With a collection every line is a document of it; without one,
    /// the input is what [`export_all`](Self::export_all) writes, where every line names its collection.
    ///
    /// Lines are judged as [`Collection::upsert`](crate::Collection::upsert) judges a value, and written in transactions that
    /// let others write in between ([`WRITE_TURN`](crate::limits::WRITE_TURN)); with [`BadRows::RefuseAll`] in one, for which they wait. `progress` hears how many were written.
    ///
    /// Two devices that import the same lines into documents of which they hold the same, each for itself, make one change of it where
    /// making it twice would count twice: in texts, counters, sets and lists.
    ///
    /// # Errors
    /// [`WriteError::Refused`] if no line can be imported, or if one cannot and it is to refuse all: nothing is imported then.
    /// [`WriteError::Storage`] if input or file fail: earlier batches stay.
    pub fn import_jsonl(
        &self,
        collection: Option<&str>,
        input: impl BufRead,
        bad_rows: BadRows,
        mut progress: impl FnMut(u64),
    ) -> Result<ImportSummary, WriteError> {
        let mut import = Import::default();
        for line in Lines::new(input) {
            let line = line.map_err(|e| StorageError::Io(format!("the input cannot be read: {e}")))?;
            match Parsed::new(collection, line) {
                Ok(Parsed::Document(row)) => {
                    import.ready_bytes += bytes_of(&row.fields);
                    import.ready.push(row);
                }
                Ok(Parsed::Schema(schema)) if bad_rows == BadRows::RefuseAll => import.schemas.push(schema),
                Ok(Parsed::Schema(schema)) => {
                    progress(import.write(self, bad_rows)?);
                    import.apply(self, schema)?;
                }
                Err(refusal) => import.refusals.add(refusal),
            }
            let is_batch =
                import.ready.len() >= limits::IMPORTED_ROWS || import.ready_bytes >= limits::IMPORTED_BYTES;
            if is_batch && bad_rows == BadRows::Report {
                progress(import.write(self, bad_rows)?);
            }
        }
        progress(import.write(self, bad_rows)?);
        let Import { mut refusals, imported, .. } = import;
        refusals.sort();
        refusals.settle(bad_rows, imported)?;
        Ok(ImportSummary { imported, refused: refusals.count, refusals: refusals.listed })
    }

    /// Hands on the whole replica as values that [`import_jsonl`](Self::import_jsonl) takes, one per line: first what is declared, then every
    /// document with its collection. Fields and collections that stay on this device are not among them, and neither are deleted
    /// documents, the history and the conflict journal. It is one view of the file, whatever is written meanwhile.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read; what was handed on until then is right.
    pub fn export_all(&self, mut each: impl FnMut(&Json)) -> Result<(), ReadError> {
        Ok(self.read(|tx| {
            let schemas = declared(tx)?;
            let declared = schema_from(&schemas);
            if !declared.collections.is_empty() {
                each(&json!({ SCHEMA: declared }));
            }
            for name in shared(tx.collection_names()?, &schemas) {
                export(tx, &schemas, &name, |document| {
                    each(&json!({ COLLECTION: name, DOCUMENT: document }));
                })?;
            }
            Ok(())
        })?)
    }

    /// Hands on the documents of a collection as values that [`import_jsonl`](Self::import_jsonl) takes, ordered by id, without the fields and
    /// documents that stay on this device. It is one view of the file: whatever is declared and written meanwhile, nothing is handed on that
    /// was to stay when it was written.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read; what was handed on until then is right.
    pub fn export(&self, collection: &str, mut each: impl FnMut(&Json)) -> Result<(), ReadError> {
        Ok(self.read(|tx| export(tx, &declared(tx)?, collection, |document| each(&document)))?)
    }

    /// Names of the collections whose documents may leave this device, in order.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn shared_collections(&self) -> Result<Vec<String>, ReadError> {
        Ok(self.read(|tx| Ok(shared(tx.collection_names()?, &declared(tx)?)))?)
    }
}

/// The collections that do not stay on this device as a whole.
fn shared(mut names: Vec<String>, schemas: &Schemas) -> Vec<String> {
    names.retain(|name| !schemas.get(name).is_some_and(|schema| schema.is_local()));
    names
}

/// Hands on what may leave this device of the documents of a collection.
fn export(
    tx: Tx<'_>,
    schemas: &Schemas,
    collection: &str,
    mut each: impl FnMut(Json),
) -> Result<(), StorageError> {
    tx.list(collection, |row| {
        let schema = schema_of(schemas, collection, &row.name);
        if schema.is_local() {
            return Ok(());
        }
        let mut fields: Fields = serde_json::from_str(&row.json)
            .map_err(|e| StorageError::Damaged(format!("{collection}/{} cannot be read: {e}", row.name)))?;
        fields.retain(|name, _| !schema.is_device_local(name));
        fields.insert("id".into(), row.name.into());
        each(Json::Object(fields.into_iter().collect()));
        Ok(())
    })
}

#[derive(Default)]
struct Import {
    ready: Vec<Row>,
    /// Bytes of text in them.
    ready_bytes: usize,
    /// Declarations that are applied with the documents or not at all.
    schemas: Vec<(String, Schema)>,
    imported: u64,
    refusals: Refusals,
}

struct Row {
    place: String,
    collection: String,
    id: String,
    fields: Fields,
}

enum Parsed {
    Document(Row),
    Schema((String, Schema)),
}

impl Parsed {
    fn new(collection: Option<&str>, line: Line) -> Result<Self, Refusal> {
        let Line { place, value } = line;
        let target = Target { collection, id: None };
        let mut value = value.map_err(|Unread { error, row }| {
            let (of, row) = match (row.get(COLLECTION), row.get(DOCUMENT)) {
                (Some(Json::String(of)), Some(row)) => (Some(of.as_str()), row),
                _ => (collection, &row),
            };
            Refusal::unread(
                &place,
                Target { collection: of, id: row.get("id").and_then(Json::as_str) },
                &error,
            )
        })?;
        let wrapped = match &mut value {
            Json::Object(fields) if fields.len() == 1 && fields.contains_key(SCHEMA) => {
                let schema = fields.remove(SCHEMA).filter(Json::is_object).ok_or_else(|| {
                    Refusal::new(&place, Target::default(), "a schema that is not an object")
                })?;
                let schema: Schema = serde_json::from_value(schema).map_err(|e| {
                    Refusal::new(&place, Target::default(), format!("a schema that cannot be read: {e}"))
                })?;
                return Ok(Self::Schema((place, schema)));
            }
            Json::Object(fields) if fields.len() == 2 && fields.contains_key(COLLECTION) => {
                match (fields.remove(COLLECTION), fields.remove(DOCUMENT)) {
                    (Some(Json::String(name)), Some(document)) => Some((name, document)),
                    _ => {
                        return Err(Refusal::new(
                            &place,
                            target,
                            "it does not name its collection as an export does",
                        ));
                    }
                }
            }
            _ => None,
        };
        let (collection, value) = match (wrapped, collection) {
            (Some((name, _)), Some(given)) if name != given => {
                return Err(Refusal::new(&place, target, format!("it is of the collection {name:?}")));
            }
            (Some((name, document)), _) => (name, document),
            (None, Some(given)) => (given.to_owned(), value),
            (None, None) => {
                let reason =
                    "it names no collection: give one, or import what was exported with all collections";
                return Err(Refusal::new(&place, target, reason));
            }
        };
        let target = Target { collection: Some(&collection), id: None };
        if !value.is_object() {
            return Err(Refusal::new(&place, target, "it is not an object"));
        }
        // An app that makes a document may leave its id empty. A row of a file would be another document each time.
        if value.get("id").and_then(Json::as_str) == Some("") {
            return Err(Refusal::new(&place, target, "its id is empty; leave it out for a new one"));
        }
        let (id, fields) = to_fields(&value).map_err(|error| Refusal::unwritten(&place, target, &error))?;
        let id = id.unwrap_or_else(new_id);
        judge(&place, Target { collection: Some(&collection), id: Some(&id) }, &fields)?;
        Ok(Self::Document(Row { place, collection, id, fields }))
    }
}

impl Import {
    /// Writes what is ready. Returns how many documents it was.
    fn write(&mut self, replica: &Replica, bad_rows: BadRows) -> Result<u64, WriteError> {
        let rows = std::mem::take(&mut self.ready);
        self.ready_bytes = 0;
        if bad_rows == BadRows::RefuseAll {
            return self.write_all(replica, rows);
        }
        let before = self.imported;
        let mut groups = Groups::new(rows);
        while let Some(Group { collection, places, documents }) = groups.next() {
            let ids: Vec<String> = documents.iter().map(|(id, _)| id.clone()).collect();
            let outcomes = replica.write_many(&collection, documents)?;
            self.imported += note(&collection, &places, &ids, outcomes, &mut self.refusals);
        }
        Ok(self.imported - before)
    }

    /// Writes all or nothing, in one transaction.
    fn write_all(&mut self, replica: &Replica, rows: Vec<Row>) -> Result<u64, WriteError> {
        let (schemas, unread) = (std::mem::take(&mut self.schemas), std::mem::take(&mut self.refusals));
        let (written, refusals) = replica.run(move |tx, core| {
            for (_, schema) in &schemas {
                schema.check()?;
                core.apply_schema(tx, schema)?;
            }
            let (mut written, mut refusals) = (0, unread);
            let mut groups = Groups::new(rows);
            while let Some(Group { collection, places, documents }) = groups.next() {
                let ids: Vec<String> = documents.iter().map(|(id, _)| id.clone()).collect();
                let outcomes = core.put_many(tx, &collection, documents)?;
                written += note(&collection, &places, &ids, outcomes, &mut refusals);
                core.let_go(tx)?;
            }
            refusals.sort();
            refusals.settle(BadRows::RefuseAll, 0)?;
            Ok((written, refusals))
        })?;
        self.refusals.extend(refusals);
        self.imported += written;
        Ok(written)
    }

    /// Applies declarations; those that contradict themselves, or what is declared already, are refused as a line.
    fn apply(&mut self, replica: &Replica, (place, schema): (String, Schema)) -> Result<(), WriteError> {
        match replica.apply_schema(&schema) {
            Err(WriteError::Storage(error)) => Err(error.into()),
            Err(error) => {
                self.refusals.add(Refusal::new(place, Target::default(), error));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Documents of one collection that follow one another: they are made on all cores.
struct Group {
    collection: String,
    places: Vec<String>,
    documents: Vec<(String, Fields)>,
}

struct Groups(std::iter::Peekable<std::vec::IntoIter<Row>>);

impl Groups {
    fn new(rows: Vec<Row>) -> Self {
        Self(rows.into_iter().peekable())
    }

    fn next(&mut self) -> Option<Group> {
        let first = self.0.next()?;
        let (collection, mut places) = (first.collection, vec![first.place]);
        let mut documents = vec![(first.id, first.fields)];
        while documents.len() < limits::IMPORTED_ROWS
            && let Some(row) = self.0.next_if(|row| row.collection == collection)
        {
            places.push(row.place);
            documents.push((row.id, row.fields));
        }
        Some(Group { collection, places, documents })
    }
}

/// Takes down what became of documents. Returns how many were written.
fn note(
    collection: &str,
    places: &[String],
    ids: &[String],
    outcomes: Vec<Result<(), WriteError>>,
    refusals: &mut Refusals,
) -> u64 {
    let mut written = 0;
    for ((place, id), outcome) in places.iter().zip(ids).zip(outcomes) {
        match outcome {
            Ok(()) => written += 1,
            Err(error) => {
                let target = Target { collection: Some(collection), id: Some(id) };
                refusals.add(Refusal::unwritten(place, target, &error));
            }
        }
    }
    written
}
