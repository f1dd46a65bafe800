//! What apps do, whatever the disk says to it.

use motet::WriteError;
use serde_json::json;

use super::World;
use crate::simulation::checks;

impl World {
    pub(in crate::simulation) fn mark(&mut self) -> String {
        self.marks += 1;
        format!("m{}", self.marks)
    }

    pub(in crate::simulation) fn wrote(&mut self, at: usize, id: &str, mark: &str) {
        let node = &self.nodes[at];
        let (account, name) = (node.account.clone(), node.name.clone());
        self.written.entry((account, id.to_owned())).or_default().insert(mark.to_owned());
        self.own.entry((name, id.to_owned())).or_default().insert(mark.to_owned());
        let now = self.now;
        if let Some(session) = &mut self.nodes[at].session {
            session.pass_time(now);
        }
    }

    /// Documents that a device shows.
    pub(in crate::simulation) fn known(&mut self, at: usize) -> Vec<String> {
        let Ok(replica) = self.nodes[at].replica() else { return Vec::new() };
        let Ok(list) = replica.documents("pieces").list() else { return Vec::new() };
        list.into_iter().map(|record| record.id).collect()
    }

    /// One of the documents that a device shows; often one of the few that everybody works on.
    pub(in crate::simulation) fn choose(&mut self, known: &[String]) -> String {
        let among = if self.below(2) == 0 { known.len().min(2) } else { known.len() };
        known[self.below(among as u64) as usize].clone()
    }

    /// Writes a mark into a field and into the text of a document, and counts it, in one transaction.
    pub(in crate::simulation) fn edit(&mut self, at: usize) {
        let known = self.known(at);
        if known.is_empty() {
            return;
        }
        let id = self.choose(&known);
        let mark = self.mark();
        let place = self.below(1_000) as usize;
        let Ok(replica) = self.nodes[at].replica() else { return };
        let (document, written) = (id.clone(), mark.clone());
        let done = replica.transaction(move |tx| {
            let value: serde_json::Value = match tx.documents("pieces").get(&document)? {
                Some(record) => record.value,
                None => return Err(WriteError::NotFound { collection: "pieces".into(), id: document }),
            };
            let lyrics = value["lyrics"].as_str().unwrap_or_default();
            // Marks are not torn by other marks: they go to the start of a line.
            let starts: Vec<usize> =
                lyrics.chars().enumerate().filter(|(_, c)| *c == '\n').map(|(n, _)| n + 1).collect();
            let line = starts.get(place % (starts.len() + 1)).copied().unwrap_or(0);
            tx.documents("pieces").patch(&document, &json!({ written.as_str(): true, "note": written }))?;
            tx.documents("pieces").splice_text(&document, "lyrics", line, 0, &format!("<{written}>\n"))?;
            tx.documents("pieces").add_to_set(&document, "tags", &[json!(written)])?;
            tx.documents("pieces").increment(&document, "plays", 1).map(drop)
        });
        self.say(format!("{} edits {id} with {mark}: {}", self.nodes[at].name, told(&done)));
        if done.is_ok() {
            self.wrote(at, &id, &mark);
        }
    }

    pub(in crate::simulation) fn make(&mut self, at: usize) {
        let count = [1, 1, 1, 1, 2, 9][self.below(6) as usize];
        let mut songs = Vec::new();
        for _ in 0..count {
            let mark = self.mark();
            let verses = "Hiki mai ka ʻelele o ka loko ʻino\n".repeat(self.below(3) as usize);
            songs.push((format!("d{mark}"), mark.clone(), song(&mark, &verses)));
        }
        let Ok(replica) = self.nodes[at].replica() else { return };
        let put = songs.clone();
        let done = replica.transaction(move |tx| {
            put.iter().try_for_each(|(id, _, song)| tx.documents("pieces").upsert(id, song).map(drop))
        });
        self.say(format!("{} makes {count} from {}: {}", self.nodes[at].name, songs[0].0, told(&done)));
        if done.is_ok() {
            for (id, mark, _) in songs {
                self.wrote(at, &id, &mark);
            }
        }
    }

    /// Puts a document under an id that others may use as well.
    pub(in crate::simulation) fn make_shared(&mut self, at: usize) {
        let id = format!("shared{}", self.below(3));
        let known = self.known(at);
        if known.contains(&id) {
            return;
        }
        let mark = self.mark();
        let Ok(replica) = self.nodes[at].replica() else { return };
        let done = replica.documents("pieces").upsert(&id, &song(&mark, ""));
        self.say(format!("{} puts {id} with {mark}: {}", self.nodes[at].name, told(&done)));
        self.shared.insert(id.clone());
        if done.is_ok() {
            self.wrote(at, &id, &mark);
        }
    }

    pub(in crate::simulation) fn delete(&mut self, at: usize) {
        let known = self.known(at);
        if known.is_empty() {
            return;
        }
        let id = self.choose(&known);
        let Ok(replica) = self.nodes[at].replica() else { return };
        let Ok(Some(record)) = replica.documents("pieces").get(&id) else { return };
        let seen = checks::marks_of(&record.value);
        let done = replica.documents("pieces").delete(&id);
        self.say(format!("{} deletes {id}: {}", self.nodes[at].name, told(&done)));
        // If it is not known whether the delete was kept, it may have been.
        let account = self.nodes[at].account.clone();
        self.buried.entry((account, id)).or_default().extend(seen);
        let now = self.now;
        if let Some(session) = &mut self.nodes[at].session {
            session.pass_time(now);
        }
    }

    /// The entries of a document become one snapshot.
    pub(in crate::simulation) fn compact(&mut self, at: usize) {
        let known = self.known(at);
        if known.is_empty() || self.nodes[at].session.is_none() {
            return;
        }
        let id = self.choose(&known);
        self.say(format!("{} compacts {id}", self.nodes[at].name));
        let now = self.now;
        if let Some(session) = &mut self.nodes[at].session {
            session.compact(&id, now);
        }
    }

    pub(in crate::simulation) fn compact_everything(&mut self, at: usize) {
        self.say(format!("{} compacts everything", self.nodes[at].name));
        for id in self.known(at) {
            let now = self.now;
            if let Some(session) = &mut self.nodes[at].session {
                session.compact(&id, now);
            }
        }
    }

    /// Somebody opens a document, perhaps one that this device has not heard of.
    pub(in crate::simulation) fn sync_document(&mut self, at: usize) {
        let account = self.nodes[at].account.clone();
        let written: Vec<String> =
            self.written.keys().filter(|(of, _)| *of == account).map(|(_, id)| id.clone()).collect();
        if written.is_empty() || self.nodes[at].session.is_none() {
            return;
        }
        let id = self.choose(&written);
        self.say(format!("{} syncs {id} first", self.nodes[at].name));
        let now = self.now;
        if let Some(session) = &mut self.nodes[at].session {
            session.sync_document(&id, now);
        }
    }

    /// Something that never leaves the device.
    pub(in crate::simulation) fn draft(&mut self, at: usize) {
        let mark = self.mark();
        let Ok(replica) = self.nodes[at].replica() else { return };
        let collection = ["drafts", "switched off"][self.below(2) as usize];
        let done = replica.documents(collection).upsert(&mark, &json!({ "words": "kept to myself" }));
        self.say(format!("{} keeps {mark} in {collection}: {}", self.nodes[at].name, told(&done)));
    }

    /// Another program writes to the same file, while the app is at it.
    pub(in crate::simulation) fn second_process(&mut self, at: usize) {
        _ = self.nodes[at].replica();
        let Ok(other) = self.nodes[at].open() else { return };
        let Ok(list) = other.documents("pieces").list() else { return };
        let mark = self.mark();
        let (id, done) = if list.is_empty() || self.below(3) == 0 {
            let id = format!("d{mark}");
            (id.clone(), other.documents("pieces").upsert(&id, &song(&mark, "")).map(drop))
        } else {
            let id = list[self.below(list.len() as u64) as usize].id.clone();
            let (document, written) = (id.clone(), mark.clone());
            let done = other.transaction(move |tx| {
                tx.documents("pieces")
                    .patch(&document, &json!({ written.as_str(): true, "note": written }))?;
                tx.documents("pieces").splice_text(&document, "lyrics", 0, 0, &format!("<{written}>\n"))?;
                tx.documents("pieces").increment(&document, "plays", 1).map(drop)
            });
            (id, done)
        };
        self.say(format!(
            "another process of {} writes {mark} to {id}: {}",
            self.nodes[at].name,
            told(&done)
        ));
        drop(other);
        // The writer thread looks now and then whether the file has changed.
        if self.below(2) == 0
            && let Ok(replica) = self.nodes[at].replica()
        {
            _ = motet::simulation::catch_up(&replica);
        }
        if done.is_ok() {
            self.wrote(at, &id, &mark);
        }
    }

    pub(in crate::simulation) fn retry_quarantined(&mut self, at: usize) {
        let Ok(replica) = self.nodes[at].replica() else { return };
        let done = replica.retry_quarantined();
        self.say(format!("{} tries again what was set aside: {}", self.nodes[at].name, told(&done)));
    }
}

fn song(mark: &str, verses: &str) -> serde_json::Value {
    json!({ "title": mark, mark: true, "plays": 1, "tags": [mark], "note": mark, "lyrics": format!("<{mark}>\n{verses}") })
}

fn told<T>(done: &Result<T, WriteError>) -> String {
    match done {
        Ok(_) => "done".into(),
        Err(error) => error.to_string(),
    }
}
