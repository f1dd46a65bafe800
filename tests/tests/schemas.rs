//! Declarations that change at random, on two devices with two versions of an app, against a model that knows what is declared when.
//!
//! Device `a` writes the fields that it renames, makes local and shares again; device `b` writes one field beside them and renames them at
//! its own pace. After every step `a` shows what the model says, after every sync both do. Every value is a word of its own: the model
//! knows which of them were ever shared, and the others stand nowhere but in the file of `a`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use motet::{Field, FieldKind, Replica, Schema};
use motet_tests::random::{Random, seed};
use motet_tests::{TestRelay, sync};
use serde_json::{Map, Value, json};

const COLLECTIONS: [&str; 2] = ["diary", "songs"];
const DOCUMENTS: [&str; 3] = ["1", "2", "3"];
/// Names that a field is given one after the other.
const NAMES: [[&str; 3]; 3] =
    [["note", "remark", "comment"], ["words", "lyrics", "text"], ["key", "tone", "pitch"]];
/// What `b` writes.
const BESIDE: &str = "beside";

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Register,
    Text,
    Local,
}

/// What an app declares about one collection.
#[derive(Clone)]
struct Declared {
    local: bool,
    /// Documents that stay here although the collection does not.
    local_ids: BTreeSet<&'static str>,
    kinds: [Kind; 3],
    names: [usize; 3],
}

impl Declared {
    fn is_local(&self, id: &str) -> bool {
        self.local || self.local_ids.contains(id)
    }

    fn keeps(&self, id: &str, field: usize) -> bool {
        self.is_local(id) || self.kinds[field] == Kind::Local
    }

    fn name(&self, field: usize) -> &'static str {
        NAMES[field][self.names[field]]
    }

    fn schema(&self, collection: &str) -> Schema {
        let mut schema = Schema::new();
        for (field, names) in NAMES.iter().enumerate() {
            let kind = match self.kinds[field] {
                Kind::Register => FieldKind::Register,
                Kind::Text => FieldKind::Text,
                Kind::Local => FieldKind::Local,
            };
            let older = names.iter().filter(|name| **name != self.name(field));
            let declared = older.fold(Field::from(kind), |declared, name| declared.alias(name));
            schema = schema.field(collection, self.name(field), declared);
        }
        schema.collections.get_mut(collection).unwrap().local = Some(self.local);
        // A name, and all that begin with it.
        let ids = self.local_ids.iter().flat_map(|id| [(*id).to_owned(), format!("{id}*")]);
        schema.collections.get_mut(collection).unwrap().local_ids = Some(ids.collect());
        schema
    }
}

/// What this device keeps of a field.
#[derive(Clone)]
enum Kept {
    Word(String),
    Removed,
}

/// A document as `a` has it.
#[derive(Clone, Default)]
struct Doc {
    /// It has had a change, so that others know it or will.
    is_shared: bool,
    is_deleted: bool,
    kept: BTreeMap<usize, Kept>,
    fields: BTreeMap<usize, String>,
}

struct World {
    random: Random,
    words: BTreeSet<String>,
    /// Words that were shared, or may have been.
    shared: BTreeSet<String>,
    declared: BTreeMap<&'static str, Declared>,
    /// The other app's.
    other: BTreeMap<&'static str, Declared>,
    docs: BTreeMap<(&'static str, &'static str), Doc>,
    /// What the relay has of each document: whether it is there, and its fields.
    sent: BTreeMap<(&'static str, &'static str), Option<BTreeMap<usize, String>>>,
    beside: BTreeMap<(&'static str, &'static str), String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let plain =
            Declared { local: false, local_ids: BTreeSet::new(), kinds: [Kind::Register; 3], names: [0; 3] };
        let declared: BTreeMap<_, _> = COLLECTIONS.iter().map(|name| (*name, plain.clone())).collect();
        Self {
            random: Random(seed),
            words: BTreeSet::new(),
            shared: BTreeSet::new(),
            other: declared.clone(),
            declared,
            docs: BTreeMap::new(),
            sent: BTreeMap::new(),
            beside: BTreeMap::new(),
        }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.below(of.len() as u64) as usize]
    }

    /// A word that no other is part of.
    fn word(&mut self) -> String {
        let word: String = (0..14).map(|_| char::from(b'a' + self.random.below(26) as u8)).collect();
        self.words.insert(word.clone());
        word
    }

    fn step(&mut self, a: &Replica, b: &Replica, url: &str) {
        let collection = self.pick(&COLLECTIONS);
        let id = self.pick(&DOCUMENTS);
        match self.random.below(12) {
            0..=4 => self.write(a, collection, id),
            5 => self.remove(a, collection, id),
            6 => self.delete_or_restore(a, collection, id),
            7 | 8 => self.declare(a, collection),
            9 => self.declare_other(b, collection),
            _ => self.sync(a, b, url),
        }
    }

    fn write(&mut self, a: &Replica, collection: &'static str, id: &'static str) {
        let field = self.random.below(3) as usize;
        let word = self.word();
        let declared = self.declared[collection].clone();
        // By any of its names.
        let name = self.pick(&NAMES[field]);
        let doc = self.docs.entry((collection, id)).or_default();
        if doc.is_deleted {
            return;
        }
        a.documents(collection).upsert(id, &json!({ name: &word })).unwrap();
        doc.is_shared |= !declared.is_local(id);
        if declared.keeps(id, field) {
            doc.kept.insert(field, Kept::Word(word));
        } else {
            doc.fields.insert(field, word.clone());
            self.shared.insert(word);
        }
    }

    fn remove(&mut self, a: &Replica, collection: &'static str, id: &'static str) {
        let field = self.random.below(3) as usize;
        let declared = self.declared[collection].clone();
        let Some(mut record) = a.documents(collection).get(id).unwrap() else { return };
        let Some(doc) = self.docs.get_mut(&(collection, id)) else { return };
        if record.value.as_object_mut().unwrap().remove(declared.name(field)).is_none() {
            return;
        }
        a.documents(collection).update(&mut record).unwrap();
        if !declared.keeps(id, field) {
            doc.fields.remove(&field);
        } else if doc.fields.contains_key(&field) {
            doc.kept.insert(field, Kept::Removed);
        } else {
            doc.kept.remove(&field);
        }
    }

    fn delete_or_restore(&mut self, a: &Replica, collection: &'static str, id: &'static str) {
        let declared = self.declared[collection].clone();
        let Some(doc) = self.docs.get_mut(&(collection, id)) else { return };
        if doc.is_deleted {
            a.documents(collection).document(id).restore().unwrap();
            doc.is_deleted = false;
            for field in 0..3 {
                if !declared.keeps(id, field) {
                    free(doc, field, true, &mut self.shared);
                }
            }
        } else {
            a.documents(collection).delete(id).unwrap();
            match declared.is_local(id) && !doc.is_shared {
                true => _ = self.docs.remove(&(collection, id)),
                false => doc.is_deleted = true,
            }
        }
    }

    fn declare(&mut self, a: &Replica, collection: &'static str) {
        let before = self.declared[collection].clone();
        let mut after = before.clone();
        match self.random.below(4) {
            0 => after.local = !after.local,
            1 => {
                let id = self.pick(&DOCUMENTS);
                if !after.local_ids.remove(id) {
                    after.local_ids.insert(id);
                }
            }
            2 => {
                after.kinds[self.random.below(3) as usize] =
                    self.pick(&[Kind::Register, Kind::Text, Kind::Local])
            }
            _ => after.names[self.random.below(3) as usize] = self.random.below(3) as usize,
        }
        a.apply_schema(&after.schema(collection)).unwrap();
        for ((_, id), doc) in self.docs.iter_mut().filter(|((of, _), _)| *of == collection) {
            doc.is_shared |= !after.is_local(id);
            for field in (0..3).filter(|field| !after.keeps(id, *field)) {
                let was_collections = before.kinds[field] != Kind::Local;
                if !was_collections && matches!(doc.kept.get(&field), Some(Kept::Removed)) {
                    doc.kept.remove(&field);
                } else if !doc.is_deleted {
                    free(doc, field, was_collections, &mut self.shared);
                }
            }
        }
        self.declared.insert(collection, after);
    }

    fn declare_other(&mut self, b: &Replica, collection: &'static str) {
        let mut after = self.other[collection].clone();
        let field = self.random.below(3) as usize;
        after.names[field] = self.random.below(3) as usize;
        after.kinds[field] = self.pick(&[Kind::Register, Kind::Text]);
        b.apply_schema(&after.schema(collection)).unwrap();
        self.other.insert(collection, after);
    }

    fn sync(&mut self, a: &Replica, b: &Replica, url: &str) {
        sync(a, url);
        sync(b, url);
        for ((collection, id), doc) in &self.docs {
            if !self.declared[collection].is_local(id) && doc.is_shared {
                let fields = (!doc.is_deleted).then(|| doc.fields.clone());
                self.sent.insert((collection, id), fields);
            }
        }
        // What both have, the other device writes to.
        let both: Vec<_> = self
            .docs
            .iter()
            .filter(|(key, doc)| !doc.is_deleted && matches!(self.sent.get(key), Some(Some(_))))
            .map(|(key, _)| *key)
            .collect();
        if !both.is_empty() {
            let key = self.pick(&both);
            let word = self.word();
            b.documents(key.0).patch(key.1, &json!({ BESIDE: &word })).unwrap();
            self.shared.insert(word.clone());
            self.beside.insert(key, word);
            sync(b, url);
            sync(a, url);
        }
        self.check_other(b);
    }

    /// What the first device shows.
    fn check(&self, a: &Replica) {
        for collection in COLLECTIONS {
            let declared = &self.declared[collection];
            for id in DOCUMENTS {
                let shown = a.documents(collection).get(id).unwrap().map(|record| record.value.clone());
                let doc = self.docs.get(&(collection, id)).filter(|doc| !doc.is_deleted);
                let expected = doc.map(|doc| {
                    let mut fields = Map::from_iter([("id".to_owned(), json!(id))]);
                    for field in 0..3 {
                        let kept = doc.kept.get(&field).filter(|_| declared.keeps(id, field));
                        let word = match kept {
                            Some(Kept::Word(word)) => Some(word),
                            Some(Kept::Removed) => None,
                            None => doc.fields.get(&field),
                        };
                        if let Some(word) = word {
                            fields.insert(declared.name(field).to_owned(), json!(word));
                        }
                    }
                    if let Some(word) = self.beside.get(&(collection, id)) {
                        fields.insert(BESIDE.to_owned(), json!(word));
                    }
                    Value::Object(fields)
                });
                assert_eq!(shown, expected, "{collection}/{id} on a");
            }
        }
    }

    /// What the other device shows, which has been sent everything that is to be sent.
    fn check_other(&self, b: &Replica) {
        for ((collection, id), sent) in &self.sent {
            let shown = b.documents(collection).get(id).unwrap().map(|record| record.value.clone());
            let expected = sent.as_ref().map(|fields| {
                let named = fields
                    .iter()
                    .map(|(field, word)| (self.other[collection].name(*field).to_owned(), json!(word)));
                let beside =
                    self.beside.get(&(*collection, *id)).map(|word| (BESIDE.to_owned(), json!(word)));
                Value::Object(named.chain(beside).chain([("id".to_owned(), json!(id))]).collect())
            });
            assert_eq!(shown, expected, "{collection}/{id} on b");
        }
    }

    /// Words that were never shared are in no file but the first device's, and in nothing of that which leaves it.
    fn check_secrets(&self, dir: &Path, a: &Replica) {
        let backup = dir.join("backup.db");
        a.backup(&backup).unwrap();
        let mut left = vec![a.export_change_log(0).unwrap().to_string().into_bytes()];
        for collection in COLLECTIONS {
            for record in a.documents(collection).list().unwrap() {
                let shared = a.shared_fields(collection, record.value.clone()).unwrap();
                assert_eq!(shared.is_none(), self.declared[collection].is_local(&record.id));
                left.extend(shared.map(|shared| shared.to_string().into_bytes()));
            }
        }
        a.export_all(|line| left.push(line.to_string().into_bytes())).unwrap();
        for folder in [dir.to_owned(), dir.join("relay")] {
            for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
                let name = file.file_name().unwrap().to_str().unwrap().to_owned();
                if file.is_file() && !name.starts_with("a.db") {
                    left.push(std::fs::read(file).unwrap());
                }
            }
        }
        let conn = rusqlite::Connection::open(dir.join("a.db")).unwrap();
        left.extend(motet_tests::raw::all_that_may_leave(&conn));
        for secret in self.words.difference(&self.shared) {
            let is_in =
                |bytes: &Vec<u8>| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!left.iter().any(is_in), "{secret} has left the device");
        }
        // They would be found.
        let sent = self.sent.values().flatten().flat_map(|fields| fields.values());
        for word in sent {
            let is_in = |bytes: &Vec<u8>| bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(left.iter().any(is_in), "{word} was sent");
        }
        let copy = Replica::open(&backup).unwrap();
        assert_eq!(copy.verify().unwrap().problems, []);
        drop(copy);
        for end in ["", "-wal", "-shm"] {
            _ = std::fs::remove_file(dir.join(format!("backup.db{end}")));
        }
    }
}

/// A field does not stay on the device any more. `removes`: so does that it was removed.
fn free(doc: &mut Doc, field: usize, removes: bool, shared: &mut BTreeSet<String>) {
    match doc.kept.remove(&field) {
        Some(Kept::Word(word)) => {
            shared.insert(word.clone());
            doc.fields.insert(field, word);
        }
        Some(Kept::Removed) if removes => _ = doc.fields.remove(&field),
        _ => {}
    }
}

fn play(seed: u64, steps: usize) {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let open = |name: &str| {
        Replica::builder(dir.path().join(format!("{name}.db"))).device_name(name).open().unwrap()
    };
    let (a, b) = (open("a"), open("b"));
    let mut world = World::new(seed);
    for collection in COLLECTIONS {
        a.apply_schema(&world.declared[collection].schema(collection)).unwrap();
        b.apply_schema(&world.other[collection].schema(collection)).unwrap();
    }
    for step in 0..steps {
        println!("seed {seed}, step {step}");
        world.step(&a, &b, &relay.url());
        world.check(&a);
    }
    // In the end everything is shared, and a device that begins now shows the same.
    world.check_secrets(dir.path(), &a);
    world.sync(&a, &b, &relay.url());
    world.check_secrets(dir.path(), &a);
    for replica in [&a, &b] {
        assert_eq!(replica.verify().unwrap().problems, []);
        assert!(replica.quarantined(10).unwrap().is_empty());
        assert_eq!(replica.status().pending, 0);
    }
    let fresh = open("fresh");
    for collection in COLLECTIONS {
        fresh.apply_schema(&world.other[collection].schema(collection)).unwrap();
    }
    sync(&fresh, &relay.url());
    world.check_other(&fresh);
}

#[test]
fn whatever_is_declared_when_all_devices_show_what_it_promises_and_secrets_stay() {
    let runs = motet_tests::random::runs(4);
    let first = seed();
    for run in 0..runs {
        play(first.wrapping_add(run), 60);
    }
}
