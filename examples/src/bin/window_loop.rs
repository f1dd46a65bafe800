//! An app with a window: one thread that draws sixty times a second and must never wait. Here the window is a few lines of text.
//!
//! `cargo run -p motet-examples --bin window_loop [URL-OF-AN-EMPTY-RELAY]`
//!
//! What the window shows is asked for in each turn, without waiting: a live query gives the list when it has changed, the watch the
//! status. Writes are handed over and looked at later.

use std::time::{Duration, Instant};

use motet::{Declare, LiveQuery, Order, PendingWrite, Query, Replica, StatusWatch};
use motet_examples::{Outcome, Stage, check};
use serde::{Deserialize, Serialize};

/// The longest that a turn of the loop may take: two frames of a screen.
const TURN: Duration = Duration::from_millis(16);

#[derive(Clone, Debug, Serialize, Deserialize, Declare)]
#[motet(collection = "songs", index("title"))]
struct Song {
    title: String,
    #[motet(text)]
    lyrics: String,
}

struct Window {
    list: LiveQuery<Song>,
    status: StatusWatch,
    titles: Vec<String>,
    line: String,
}

impl Window {
    fn open(replica: &Replica) -> Result<Self, Box<dyn std::error::Error>> {
        let songs = replica.declare::<Song>()?;
        let list = songs.live(Query::new().order("title", Order::Ascending).limit(50))?;
        let titles = list.results().iter().map(|song| song.title.clone()).collect();
        Ok(Self { list, status: replica.watch_status(), titles, line: replica.status().to_string() })
    }

    /// One turn of the loop: takes up what has changed, and draws it.
    fn turn(&mut self) -> Outcome {
        if let Some(songs) = self.list.try_next()? {
            self.titles = songs.iter().map(|song| song.title.clone()).collect();
            println!("  list    {}", self.titles.join(" · "));
        }
        if let Some(status) = self.status.try_next() {
            self.line = status.to_string();
            println!("  status  {}", self.line);
        }
        Ok(())
    }
}

fn main() -> Outcome {
    let stage = Stage::new()?;
    let (desktop, phone) = (stage.device("desktop")?, stage.device("phone")?);
    let mut window = Window::open(&desktop)?;
    desktop.connect(stage.relay())?;
    let songs = phone.declare::<Song>()?;
    phone.connect(stage.relay())?;

    let (mut written, mut is_saved, mut longest) = (None, false, Duration::ZERO);
    let begun = Instant::now();
    for turn in 0_u64.. {
        let began = Instant::now();
        window.turn()?;
        if let Some(outcome) = written.as_mut().and_then(PendingWrite::try_durable) {
            println!("  saved   {}", outcome?);
            is_saved = true;
        }
        match turn {
            // The user of the window saves; it is durable when the write says so, in a later turn.
            5 => {
                let song = Song { title: "Aloha ʻOe".into(), lyrics: "Haʻaheo ka ua\n".into() };
                written = Some(desktop.collection::<Song>("songs").insert_async(&song));
            }
            // Meanwhile somebody writes on the phone.
            20 => drop(songs.insert_async(&Song { title: "Hoʻi mai".into(), lyrics: "E hoʻi\n".into() })),
            _ => {}
        }
        longest = longest.max(began.elapsed());
        if is_saved && window.titles.len() == 2 && window.line.starts_with("synced") {
            break;
        }
        check_time(begun)?;
        std::thread::sleep(TURN.saturating_sub(began.elapsed()));
    }
    check(is_saved, "the write was durable, and the window said so without waiting for it")?;
    check(
        window.titles == ["Aloha ʻOe", "Hoʻi mai"],
        "the window shows what was written here and on the phone",
    )?;
    println!("  the longest turn took {} ms", longest.as_millis());
    Ok(())
}

fn check_time(begun: Instant) -> Outcome {
    match begun.elapsed() < Duration::from_secs(30) {
        true => Ok(()),
        false => Err("the window does not show both songs after 30 s".into()),
    }
}
