//! A song studio that comes from an SQLite database of its own: eight tables are adopted, a status only rises, a title can be
//! looked up in the conflict journal, and keys never leave the device.
//!
//! `cargo run -p motet-examples --bin song_factory`

use motet::{Adoption, DeletePolicy, Field, FieldKind, Schema, json};
use motet_examples::{Outcome, Stage, check};

const STATUS: [&str; 5] = ["draft", "queued", "processing", "submitted", "completed"];

/// Tables and the columns in which they name rows of others.
const TABLES: [(&str, &[&str]); 8] = [
    ("songs", &["genre_id"]),
    ("lore", &[]),
    ("genres", &[]),
    ("artists", &[]),
    ("distributions", &["song_id"]),
    ("cd_projects", &["artist_id"]),
    ("cd_tracks", &["cd_id", "song_id"]),
    ("config", &[]),
];

fn main() -> Outcome {
    let stage = Stage::new()?;
    let replica = stage.device("studio")?;
    replica.apply_schema(
        &Schema::new()
            .text("songs", "lyrics")
            .text("lore", "content")
            .field("songs", "status", Field::rank(STATUS))
            .field("config", "api_key", FieldKind::Local)
            .index("songs", ["status", "title"])
            .delete("cd_tracks", DeletePolicy::Wins)
            .local("secrets"),
    )?;

    // The rows that the app has had so far, as it would export them; `adopt_sqlite` reads a database directly.
    let rows = |table: &str| match table {
        "songs" => vec![
            json!({ "id": 1, "title": "Ka Makani o Uka", "lyrics": "Pā mai ka makani\n", "status": "queued",
                    "genre_id": 2, "updated_at": "2025-01-03T10:00:00Z" }),
            json!({ "id": 2, "title": "old", "updated_at": "2025-01-03T10:00:00.5Z", "deleted_at": "2025-02-01" }),
        ],
        "genres" => vec![json!({ "id": 2, "name": "mele", "updated_at": "2025-01-01 09:00:00" })],
        "config" => vec![json!({ "key": "theme", "value": "dark", "api_key": "never sent" })],
        _ => Vec::new(),
    };
    for (table, references) in TABLES {
        let adoption = Adoption {
            id: if table == "config" { "key".into() } else { "id".into() },
            // Another computer's song 1 is another song.
            prefix: if table == "config" { String::new() } else { "studio-".into() },
            references: references.iter().map(|&column| column.into()).collect(),
            ..Adoption::default()
        };
        let summary = replica.adopt(table, rows(table), &adoption)?;
        println!("{table:<14} {} new, {} passed over", summary.new, summary.passed_over);
    }

    let songs = replica.documents("songs");
    let song = || -> Result<_, Box<dyn std::error::Error>> {
        Ok(songs.get("studio-1")?.ok_or("it was just adopted")?.value)
    };
    check(song()?["genre_id"] == "studio-2", "rows name each other by their new ids")?;
    check(songs.get("studio-2")?.is_none(), "a row that was deleted is passed over")?;
    songs.patch("studio-1", &json!({ "status": "submitted" }))?;

    // What leaves this device has no key in it, in a change log for other programs as in a sync.
    let log = replica.export_change_log(0)?;
    check(!log.to_string().contains("never sent"), "keys are in no change log")?;
    let laptop = stage.device("laptop")?;
    laptop.apply_schema(&replica.schema()?)?;
    stage.sync(&[&replica, &laptop])?;
    let theirs = laptop.documents("config").get("theme")?.ok_or("it was received")?;
    check(theirs["value"] == "dark" && theirs.value.get("api_key").is_none(), "and on no other device")?;

    // A status only rises, whoever is the later.
    songs.patch("studio-1", &json!({ "status": "completed" }))?;
    laptop.documents("songs").patch("studio-1", &json!({ "status": "processing", "title": "Ka Makani" }))?;
    stage.sync(&[&laptop, &replica])?;
    let shown = song()?;
    println!("{} is {}, genre {}", shown["title"], shown["status"], shown["genre_id"]);
    check(shown["status"] == "completed" && shown["title"] == "Ka Makani", "a status only rises")?;
    for step in songs.document("studio-1").history(10)? {
        println!("history: {:?} {}", step.kind, step.fields.join(", "));
    }
    replica.undo()?;
    check(song()?["status"] != "completed", "what this device wrote last is undone")?;
    check(song()?["title"] == "Ka Makani", "and nothing that the other has written")
}
