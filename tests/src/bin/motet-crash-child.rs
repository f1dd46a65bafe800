//! A device that writes and syncs until it is killed: prints each id after its write has returned.

use std::io::Write;

use motet::{Relay, Replica, Schema};
use serde_json::json;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, db, url, round] = &args[..] else { panic!("usage: motet-crash-child DB URL ROUND") };
    let replica = Replica::builder(db).device_name("crashing").open().unwrap();
    replica.apply_schema(&Schema::new().text("pieces", "lyrics")).unwrap();
    replica.connect(Relay::new(url)).unwrap();
    let pieces = replica.documents("pieces");
    let mut out = std::io::stdout();
    for i in 0.. {
        let id = format!("{round}-{i}");
        pieces
            .insert(&json!({ "id": id, "title": format!("Mele {i}"), "lyrics": format!("Ka pō {id}\n") }))
            .unwrap();
        writeln!(out, "made {id}").unwrap();
        if i % 3 == 2 {
            let edited = format!("{round}-{}", i - 1);
            pieces.document(&edited).splice_text("lyrics", 0, 0, "ʻae, ").unwrap();
            writeln!(out, "edited {edited}").unwrap();
        }
    }
}
