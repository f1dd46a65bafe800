//! A songbook that keeps working offline.
//!
//! `cargo run -p motet-examples --bin songbook -- songs.db [RELAY-URL]`
//!
//! Run it with two files and one relay (`cargo run -p motet-relay`), and each sees the other's songs.

use motet::{Relay, Replica, Schema};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Song {
    title: String,
    /// Merges by character, see the schema below.
    lyrics: String,
    #[serde(default)]
    favorite: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "songs.db".into());
    let replica = Replica::builder(&path).device_name(&path).open()?;
    replica.apply_schema(&Schema::new().text("songs", "lyrics"))?;
    let songs = replica.collection::<Song>("songs");

    // Durable on return, with or without a network.
    let title = format!("Mele {}", songs.list()?.len() + 1);
    let id = songs.insert(&Song { title, lyrics: "E hoʻi ke aloha\n".into(), favorite: false })?;

    // An update writes only what changed, and reverts nothing that arrived in between.
    let mut song = songs.get(&id)?.ok_or("just inserted")?;
    song.lyrics.push_str("I ka pō laʻi\n");
    song.favorite = true;
    songs.update(&mut song)?;

    if let Some(url) = args.next() {
        replica.connect(Relay::new(&url))?;
        match replica.sync_now() {
            Ok(summary) => println!("{summary}"),
            Err(error) => println!("{error}; everything is saved here and goes out later"),
        }
    }
    for song in songs.list()? {
        let status = replica.documents("songs").document(&song.id).status()?.ok_or("listed")?;
        println!("{:<10} {:?}, last synced {:?}", song.title, status.state, status.last_synced_at);
    }
    Ok(())
}
