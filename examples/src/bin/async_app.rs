//! An async app: everything that waits for the disk or the network is a future, on any executor; here it is tokio's.
//!
//! `cargo run -p motet-examples --bin async_app [URL-OF-AN-EMPTY-RELAY]`

use std::time::Duration;

use futures_util::StreamExt;
use motet::{Declare, Query, SyncState};
use motet_examples::{Outcome, Stage, check};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, Declare)]
#[motet(collection = "meals")]
struct Meal {
    name: String,
    #[motet(counter)]
    portions: i64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let stage = Stage::new()?;
    tokio::time::timeout(Duration::from_secs(30), run(&stage))
        .await
        .map_err(|_| "it took longer than 30 s")?
}

async fn run(stage: &Stage) -> Outcome {
    let (phone, watch) = (stage.device("phone")?, stage.device("watch")?);
    let meals = phone.declare::<Meal>()?;
    let theirs = watch.declare::<Meal>()?;
    let id = meals.insert_async(&Meal { name: "Poi".into(), portions: 1 }).await?;
    phone.connect(stage.relay())?;
    println!("phone   {}", phone.sync_now_async().await?);

    // A view of the watch follows what is there; nothing asks for it.
    let mut shown = theirs.live(Query::new())?.into_stream();
    watch.connect(stage.relay())?;
    println!("watch   {}", watch.sync_now_async().await?);

    // Both count at once.
    let (here, there) = (meals.document(&id), theirs.document(&id));
    let both = (here.increment_async("portions", 2), there.increment_async("portions", 3));
    let (one, two) = futures_util::future::join(both.0, both.1).await;
    one?;
    two?;
    let sum = loop {
        let meals = shown.next().await.ok_or("the view has ended")??;
        let Some(meal) = meals.iter().find(|meal| meal.id == id) else { continue };
        println!("  shown: {} portions", meal.portions);
        if meal.portions == 6 {
            break meal.portions;
        }
    };
    check(sum == 6, "what both devices counted adds up")?;

    let mut status = watch.watch_status();
    let mut now = status.current();
    while now.state != SyncState::Synced {
        now = status.next().await.ok_or("the replica is open")?;
    }
    println!("  status: {now}");
    check(now.pending == 0, "everything is safe on the relay")
}
