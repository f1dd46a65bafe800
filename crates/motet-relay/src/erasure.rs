//! Takes the logs of accounts that are erased out of the store.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::directory::{Directory, Erasing};
use crate::limits;
use crate::store::{LogId, LogStore};

/// The accounts of a relay, as they are now; none if it has none.
pub(crate) type Accounts = watch::Receiver<Option<Arc<Directory>>>;

/// Erases what is due, again and again. Does not end.
pub(crate) async fn run(store: &dyn LogStore, accounts: Option<Accounts>) {
    let Some(accounts) = accounts else { return std::future::pending().await };
    let mut due = tokio::time::interval(limits::ERASURES_LOOKED_AT_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let directory = accounts.borrow().clone();
        let Some(directory) = directory else { continue };
        // What fails is tried again the next time: nothing is noted as done before it is.
        if let Err(error) = erase(store, &directory).await {
            tracing::error!(%error, "an account that is to be erased is not yet");
        }
    }
}

async fn erase(store: &dyn LogStore, directory: &Arc<Directory>) -> Result<(), Box<dyn std::error::Error>> {
    let of = directory.clone();
    for Erasing { account, kept } in tokio::task::spawn_blocking(move || of.begin_erasures()).await?? {
        let mut spaces = store.logs_of(&account).await?;
        spaces.retain(|space| !kept.contains(space));
        if spaces.is_empty() {
            // Also of the time before: another relay that still takes something out has had time to end.
            let of = directory.clone();
            tokio::task::spawn_blocking(move || of.end_erasure(&account)).await??;
            tracing::info!("an account was erased");
            continue;
        }
        for space in spaces {
            let log = LogId { account: account.clone(), space };
            // Of an account that is made anew under the same name meanwhile nothing is touched.
            while is_erasing(directory, &account).await? && store.remove(log.clone()).await? {}
        }
    }
    Ok(())
}

async fn is_erasing(directory: &Arc<Directory>, account: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let (of, account) = (directory.clone(), account.to_owned());
    Ok(tokio::task::spawn_blocking(move || of.is_erasing(&account)).await??)
}
