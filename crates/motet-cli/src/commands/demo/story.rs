//! What the demo shows, step by step.

use std::collections::HashSet;
use std::path::Path;

use anstyle::Style;
use motet::{Replica, Schema, json};
use similar::{ChangeTag, TextDiff};

use super::{RelayProcess, connected};
use crate::error::CliError;
use crate::output::{BOLD, CYAN, GREY, MAGENTA, Output, YELLOW, last_synced, sync_state};

/// A song of our own, with ʻokina and kahakō.
const TITLE: &str = "Ka Makani o Uka";
const LYRICS: &str = "\
Pā mai ka makani o uka
Lele aʻela nā manu i ka lani
ʻAʻala ka pua o ke kula
Hoʻi mai kāua i ka hale
";

const ID: &str = "ka-makani-o-uka";
const PHONE: Style = CYAN;
const LAPTOP: Style = MAGENTA;

/// Width of one column, in characters.
const COLUMN: usize = 38;

pub(super) struct Story<'a> {
    pub(super) output: &'a Output,
    pub(super) folder: &'a Path,
    pub(super) relay: &'a RelayProcess,
    pub(super) phone: &'a Replica,
    pub(super) laptop: &'a Replica,
}

impl Story<'_> {
    pub(super) fn tell(&self) -> Result<(), CliError> {
        self.say(BOLD, "motet demo: two devices, one relay, offline edits that merge");
        self.say(GREY, &format!("files in {}, relay on {}", self.folder.display(), self.relay.url));

        self.heading("1  A song, written on the phone, synced to the laptop");
        let schema = Schema::new().text("pieces", "lyrics");
        self.phone.apply_schema(&schema)?;
        self.laptop.apply_schema(&schema)?;
        let song = json!({ "id": ID, "title": TITLE, "lyrics": LYRICS });
        self.phone.documents("pieces").insert(&song)?;
        self.statuses();
        connected(self.phone, &self.relay.url)?;
        connected(self.laptop, &self.relay.url)?;
        self.side_by_side()?;
        self.statuses();

        self.heading("2  Both go offline and edit the same verse, and the title");
        self.phone.disconnect();
        self.laptop.disconnect();
        edit(self.phone, "Ka Makani Aheahe", &[("i ka lani", "i ka lani uliuli")])?;
        edit(
            self.laptop,
            "Ka Makani o Uka (hula)",
            &[("i ka hale", "i ka hale aloha"), ("ʻAʻala ka pua", "ʻAʻala mau ka pua")],
        )?;
        let (phone, laptop) = (self.lyrics(self.phone)?, self.lyrics(self.laptop)?);
        self.side_by_side()?;
        self.statuses();

        self.heading("3  Back online: everything merges, on both");
        let first = connected(self.phone, &self.relay.url)?;
        let second = connected(self.laptop, &self.relay.url)?;
        let third = connected(self.phone, &self.relay.url)?;
        self.say(GREY, &format!("   phone  {first}"));
        self.say(GREY, &format!("  laptop  {second}"));
        if third.received > 0 {
            self.say(GREY, &format!("   phone  {third}"));
        } else {
            self.say(GREY, "   phone  the laptop's words have arrived by themselves: it was connected");
        }
        let merged = self.lyrics(self.phone)?;
        self.output.line("");
        self.whose_words(&merged, &phone, &laptop);
        if merged != self.lyrics(self.laptop)? {
            return Err(CliError::Other("the two devices do not agree; this is a bug".into()));
        }
        self.say(GREY, "  the same on both devices, byte for byte");
        self.title_conflict()?;
        self.statuses();
        self.commands();
        Ok(())
    }

    fn heading(&self, text: &str) {
        self.output.line("");
        self.say(BOLD, text);
    }

    fn say(&self, style: Style, text: &str) {
        self.output.line(&self.output.paint(style, text));
    }

    fn statuses(&self) {
        for (replica, style) in [(self.phone, PHONE), (self.laptop, LAPTOP)] {
            let status = replica.status();
            let (glyph, state_style, word) = sync_state(status.state);
            let state = format!("{glyph} {word}");
            self.output.line(&format!(
                "  {} {} pending {}, last synced {}",
                self.output.paint(style, &padded(replica.device_name(), 18)),
                self.output.paint(state_style, &padded(&state, 22)),
                status.pending,
                last_synced(status.last_synced_at)
            ));
        }
    }

    fn side_by_side(&self) -> Result<(), CliError> {
        let left = self.song(self.phone)?;
        let right = self.song(self.laptop)?;
        let names = (self.phone.device_name(), self.laptop.device_name());
        self.output.line(&format!(
            "  {}  {}",
            self.output.paint(PHONE, &padded(names.0, COLUMN)),
            self.output.paint(LAPTOP, names.1)
        ));
        for i in 0..left.len().max(right.len()) {
            let cell = |lines: &[String]| lines.get(i).cloned().unwrap_or_default();
            self.output.line(&format!("  {}  {}", padded(&cell(&left), COLUMN), cell(&right)));
        }
        Ok(())
    }

    /// The merged lyrics, with each device's new words in its colour, and named beside the line.
    fn whose_words(&self, merged: &str, phone: &str, laptop: &str) {
        let devices = [(PHONE, "phone", new_words(phone)), (LAPTOP, "laptop", new_words(laptop))];
        for line in merged.lines() {
            let mut painted = Vec::new();
            let mut notes = Vec::new();
            for word in line.split(' ') {
                match devices.iter().find(|(_, _, words)| words.contains(word)) {
                    Some((style, name, _)) => {
                        painted.push(self.output.paint(*style, word));
                        notes.push(format!("{name}: {word}"));
                    }
                    None => painted.push(word.to_owned()),
                }
            }
            let gap = " ".repeat(COLUMN.saturating_sub(line.chars().count()));
            let note =
                if notes.is_empty() { String::new() } else { format!("{gap}  ← {}", notes.join(", ")) };
            self.output.line(&format!("  {}{}", painted.join(" "), self.output.paint(GREY, &note)));
        }
    }

    fn title_conflict(&self) -> Result<(), CliError> {
        let record = self.phone.documents("pieces").get(ID)?;
        let title = record.as_ref().and_then(|r| r["title"].as_str()).unwrap_or_default().to_owned();
        self.output.line("");
        self.output.line(&format!("  title: {}", self.output.paint(BOLD, &title)));
        // The journal also keeps both versions of the lines that both edited; those are merged and shown above.
        let journal = self.phone.documents("pieces").document(ID).conflicts()?;
        for conflict in journal.iter().filter(|conflict| conflict.path == "/title") {
            let device = conflict.device_name.as_deref().unwrap_or("another device");
            self.say(YELLOW, &format!("  ⚠ conflict, nothing lost: {device} wrote {}", conflict.loser));
        }
        self.output.line("");
        Ok(())
    }

    fn commands(&self) {
        let db = self.folder.join("phone.db");
        let db = db.display();
        self.heading("Try next");
        for line in [
            format!("motet --db {db} get pieces {ID}"),
            format!("motet --db {db} status pieces {ID}"),
            format!("motet --db {db} set pieces {ID} 'title=Ka Makani'"),
            format!(
                "motet-relay --listen {} --data {}    (in another terminal; the demo's relay has stopped)",
                self.relay.address,
                self.folder.join("relay").display()
            ),
            format!("motet --db {db} sync"),
        ] {
            self.output.line(&format!("  {line}"));
        }
        self.say(GREY, "  `motet` is target/release/motet, or: cargo run --release -p motet-cli --");
        self.say(GREY, "  `motet-relay` is: cargo run --release -p motet-relay --");
    }

    fn song(&self, replica: &Replica) -> Result<Vec<String>, CliError> {
        let record = replica.documents("pieces").get(ID)?;
        let Some(record) = record else { return Ok(vec!["(no song yet)".into()]) };
        let title = record["title"].as_str().unwrap_or_default();
        let lyrics = record["lyrics"].as_str().unwrap_or_default();
        Ok([title, "─".repeat(title.chars().count()).as_str()]
            .into_iter()
            .chain(lyrics.lines())
            .map(Into::into)
            .collect())
    }

    fn lyrics(&self, replica: &Replica) -> Result<String, CliError> {
        let record = replica.documents("pieces").get(ID)?;
        Ok(record.and_then(|r| r["lyrics"].as_str().map(str::to_owned)).unwrap_or_default())
    }
}

/// Reads the song, changes it as a person would in an editor, and writes it back.
fn edit(replica: &Replica, title: &str, replacements: &[(&str, &str)]) -> Result<(), CliError> {
    let pieces = replica.documents("pieces");
    let Some(mut song) = pieces.get(ID)? else {
        return Err(CliError::Other("the song did not arrive".into()));
    };
    let lyrics = song["lyrics"].as_str().unwrap_or_default();
    let lyrics = replacements.iter().fold(lyrics.to_owned(), |text, (old, new)| text.replacen(old, new, 1));
    song["lyrics"] = lyrics.into();
    song["title"] = title.into();
    pieces.update(&mut song)?;
    Ok(())
}

/// Words that a device's version has and the first one had not.
fn new_words(version: &str) -> HashSet<&str> {
    let diff = TextDiff::from_words(LYRICS, version);
    let inserted = diff.iter_all_changes().filter(|change| change.tag() == ChangeTag::Insert);
    inserted.filter_map(|change| change.as_str()).map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn padded(text: &str, width: usize) -> String {
    let gap = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(gap))
}
