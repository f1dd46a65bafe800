//! Shapes of work: what others have changed while a device was away comes in at once.

use std::path::Path;

use clap::ValueEnum;
use motet::{FieldKind, Relay, Replica, Schema, Transaction, WriteError};
use serde_json::{Value, json};

/// What was changed, and by how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// 300 songs, 30 changes of each: a device that was away for a week
    Documents,
    /// 1,000 songs, one change of each
    Many,
    /// One text, 20,000 changes by two people, or --people, who meet every 100
    Text,
    /// One text on two branches of 5,000 changes
    Deep,
    /// 300 songs, 30 changes of each: titles, counts, tags, verses and nested fields by turns, by two people
    Kinds,
}

pub(crate) const COLLECTION: &str = "songs";

/// Characters that each song has at least.
const SONG_CHARS: usize = 800;

/// How much there is to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) documents: usize,
    /// Of each document.
    pub(crate) changes: usize,
}

impl Shape {
    pub(crate) fn size(self) -> Size {
        let (documents, changes) = match self {
            Self::Documents | Self::Kinds => (300, 30),
            Self::Many => (1_000, 1),
            Self::Text => (1, 20_000),
            Self::Deep => (1, 10_000),
        };
        Size { documents, changes }
    }

    /// Changes of one person after which the two meet; `None` if they never do.
    fn meets_after(self) -> Option<usize> {
        match self {
            Self::Text => Some(100),
            Self::Documents | Self::Many | Self::Deep | Self::Kinds => None,
        }
    }

    /// People who write if nothing else is said.
    pub(crate) fn people(self) -> usize {
        match self {
            Self::Documents | Self::Many => 1,
            Self::Text | Self::Deep | Self::Kinds => 2,
        }
    }

    /// Makes the documents on the first of the devices in `folder`, gives them to all and to `away`, and changes them.
    pub(crate) fn make(self, size: Size, people: usize, folder: &Path, songs: &[Value], url: &str) {
        let names = (0..people).map(|n| format!("author-{n}")).chain(["away".to_owned()]);
        let all: Vec<Replica> = names.map(|name| open(&folder.join(format!("{name}.db")))).collect();
        let Size { documents, changes } = size;
        for batch in (0..documents).collect::<Vec<_>>().chunks(250) {
            let batch: Vec<Value> = batch.iter().map(|n| song(songs, *n)).collect();
            let insert = move |tx: &mut Transaction<'_>| {
                batch.iter().try_for_each(|song| tx.documents(COLLECTION).insert(song).map(|_| ()))
            };
            all[0].transaction(insert).unwrap();
        }
        all.iter().for_each(|replica| sync(replica, url));
        let authors = &all[..people];
        all.iter().for_each(Replica::disconnect);
        let each = changes / authors.len();
        let step = self.meets_after().unwrap_or(each);
        for from in (0..each).step_by(step) {
            for (person, author) in authors.iter().enumerate() {
                for n in from..each.min(from + step) {
                    author.transaction(move |tx| self.change(tx, documents, (person, people), n)).unwrap();
                }
            }
            for author in authors.iter().chain(authors) {
                sync(author, url);
                author.disconnect();
            }
        }
    }

    /// The `n`th change of one of so many people, of each document.
    fn change(
        self,
        tx: &mut Transaction<'_>,
        documents: usize,
        (person, people): (usize, usize),
        n: usize,
    ) -> Result<(), WriteError> {
        (0..documents).try_for_each(|document| {
            let id = id(document);
            let mut songs = tx.documents(COLLECTION);
            match (self, n % 5) {
                (Self::Kinds, 0) => {
                    songs.patch(&id, &json!({ "title": format!("{person} {n}") })).map(|_| ())
                }
                (Self::Kinds, 1) => songs.patch(&id, &json!({ "plays": n })).map(|_| ()),
                (Self::Kinds, 2) => {
                    songs.patch(&id, &json!({ "tags": [format!("{person}-{}", n % 15)] })).map(|_| ())
                }
                (Self::Kinds, 3) => {
                    songs.patch(&id, &json!({ "place": { format!("p{}", n % 6): n } })).map(|_| ())
                }
                // Somebody types at the start, others further down.
                _ => {
                    let place = person * SONG_CHARS / people + n;
                    songs.splice_text(&id, "lyrics", place, 0, "x").map(|_| ())
                }
            }
        })
    }
}

/// Opens a device's file.
pub(crate) fn open(path: &Path) -> Replica {
    let replica = Replica::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let schema = Schema::new().text(COLLECTION, "lyrics").text(COLLECTION, "notes");
    replica.apply_schema(&schema.field(COLLECTION, "tags", FieldKind::Set)).unwrap();
    replica
}

fn sync(replica: &Replica, url: &str) {
    replica.connect(Relay::new(url)).unwrap();
    replica.sync_now().unwrap();
}

/// What a device shows of all documents.
pub(crate) fn digest(replica: &Replica) -> String {
    let mut hash = blake3::Hasher::new();
    let mut records: Vec<_> = replica.documents(COLLECTION).list().unwrap().into_iter().collect();
    records.sort_by(|a, b| a.id.cmp(&b.id));
    records.iter().for_each(|record| _ = hash.update(record.value.to_string().as_bytes()));
    hash.finalize().to_hex().to_string()
}

fn id(n: usize) -> String {
    format!("song-{n:05}")
}

/// One of the songs, with an id of its own, and long enough to be written in two places.
fn song(songs: &[Value], n: usize) -> Value {
    let mut song = songs[n % songs.len()].clone();
    song["id"] = id(n).into();
    let lyrics = song["lyrics"].as_str().unwrap_or_default();
    if lyrics.chars().count() < SONG_CHARS {
        song["lyrics"] = format!("{lyrics}\n").repeat(2 + SONG_CHARS / (lyrics.len() + 1)).into();
    }
    song
}
