//! A repertoire and its practice sessions, as an app on a phone keeps them.
//!
//! `cargo run -p motet-examples --bin repertoire`
//!
//! Pieces have lyrics that merge by character. Sessions are only ever added; they are found by piece and time through a declared
//! index, and can be read with plain SQL as well.

use motet::{Declare, Query, field};
use motet_examples::{Outcome, Stage, check};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, Declare)]
#[serde(rename_all = "camelCase")]
#[motet(collection = "pieces", index("category", "title"))]
struct Piece {
    #[motet(min_len = 1)]
    title: String,
    category: String,
    #[motet(text)]
    lyrics: String,
    language: Option<String>,
    author: Option<String>,
    source_url: Option<String>,
    #[motet(text)]
    #[serde(default)]
    notes: String,
    include_in_practice: bool,
    is_favorite: bool,
    created_at: String,
    modified_at: String,
}

#[derive(Debug, Serialize, Deserialize, Declare)]
#[serde(rename_all = "camelCase")]
#[motet(collection = "sessions", index("pieceId", "startTime"), index("startTime"))]
struct Session {
    piece_id: String,
    start_time: String,
    end_time: Option<String>,
}

fn main() -> Outcome {
    let stage = Stage::new()?;
    let replica = stage.device("phone")?;
    let pieces = replica.declare::<Piece>()?;
    let sessions = replica.declare::<Session>()?;

    let piece = Piece {
        title: "Ka Makani o Uka".into(),
        category: "Mele".into(),
        lyrics: "Pā mai ka makani o uka\nLele aʻela nā manu i ka lani\n".into(),
        language: Some("haw".into()),
        author: None,
        source_url: None,
        notes: String::new(),
        include_in_practice: true,
        is_favorite: false,
        created_at: "2026-01-05T18:00:00Z".into(),
        modified_at: "2026-01-05T18:00:00Z".into(),
    };
    let id = pieces.insert(&piece)?;
    for day in 5..9 {
        sessions.insert(&Session {
            piece_id: id.clone(),
            start_time: format!("2026-01-{day:02}T18:00:00Z"),
            end_time: Some(format!("2026-01-{day:02}T18:20:00Z")),
        })?;
    }

    // What was practised since the seventh, the latest first.
    let since = field("startTime").ge("2026-01-07T00:00:00Z");
    let recent = Query::new().filter(field("pieceId").eq(id.as_str())).filter(since);
    let recent = sessions.find(&recent.order("startTime", motet::Order::Descending))?;
    for session in &recent {
        println!("practised {} until {:?}", session.start_time, session.end_time);
    }
    check(
        recent.len() == 2 && recent[0].start_time > recent[1].start_time,
        "practised twice since the seventh",
    )?;
    // However the words are typed.
    let hits = pieces.search("a'ela", 5)?;
    for hit in &hits {
        println!("found {:?} in {:?}", hit.snippet.as_ref().map(|s| &s.text), hit.record.title);
    }
    check(hits.len() == 1, "“aʻela” is found by a'ela")?;
    // For statistics, in SQL.
    let sql = "SELECT p.json ->> 'title' AS title, COUNT(*) AS sessions FROM collection_sessions s
               JOIN collection_pieces p ON p.id = s.json ->> 'pieceId' GROUP BY p.id";
    let rows = replica.sql(sql)?.rows;
    for row in &rows {
        println!("{} sessions of {}", row[1], row[0]);
    }
    check(rows.len() == 1 && rows[0][1] == 4, "four sessions of the one piece, by SQL")?;
    // What is not safe on a relay yet; as long as there is none, nothing is pending.
    check(replica.status().pending == 0, "without a relay nothing is pending")
}
