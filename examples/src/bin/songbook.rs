//! A songbook on two devices that keep working offline.
//!
//! `cargo run -p motet-examples --bin songbook [URL-OF-AN-EMPTY-RELAY]`

use motet::{DocumentState, Replica, Schema};
use motet_examples::{Outcome, Stage, check};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Song {
    title: String,
    /// Merges by character, see the schema below.
    lyrics: String,
    #[serde(default)]
    favorite: bool,
}

fn open(stage: &Stage, name: &str) -> Result<Replica, Box<dyn std::error::Error>> {
    let replica = stage.device(name)?;
    replica.apply_schema(&Schema::new().text("songs", "lyrics"))?;
    Ok(replica)
}

fn main() -> Outcome {
    let stage = Stage::new()?;
    let (phone, tablet) = (open(&stage, "phone")?, open(&stage, "tablet")?);
    let songs = phone.collection::<Song>("songs");

    // Durable on return, with or without a network.
    let lyrics = "E hoʻi ke aloha\nI ka pō laʻi\n".into();
    let id = songs.insert(&Song { title: "Hoʻi".into(), lyrics, favorite: false })?;
    let state = || -> Result<_, Box<dyn std::error::Error>> {
        Ok(songs.document(&id).status()?.ok_or("it is there")?.state)
    };
    check(
        state()? == DocumentState::LocalOnly,
        "before it has met a relay, the song is on this device only",
    )?;
    stage.sync(&[&phone, &tablet])?;
    check(state()? == DocumentState::Synced, "after a sync the song is safe on the relay")?;

    // Both are offline now. An update writes only what changed, and reverts nothing that arrives in between.
    let mut song = songs.get(&id)?.ok_or("just inserted")?;
    song.lyrics.push_str("Mai kuhi mai ʻoe\n");
    song.favorite = true;
    songs.update(&mut song)?;
    check(state()? == DocumentState::PendingUpdate, "what was written offline is pending")?;
    let theirs = tablet.collection::<Song>("songs");
    let mut song = theirs.get(&id)?.ok_or("it was received")?;
    song.lyrics = song.lyrics.replace("ke aloha", "ke aloha ē");
    theirs.update(&mut song)?;
    stage.sync(&[&phone, &tablet, &phone])?;

    let (here, there) = (songs.get(&id)?.ok_or("it is there")?, theirs.get(&id)?.ok_or("it is there")?);
    let both = "E hoʻi ke aloha ē\nI ka pō laʻi\nMai kuhi mai ʻoe\n";
    check(here.lyrics == both && here.favorite, "the words of both devices are in the song")?;
    check(there.lyrics == both && there.version == here.version, "both devices show the same")
}
