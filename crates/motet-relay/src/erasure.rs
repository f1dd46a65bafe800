//! Takes the logs of accounts that are erased out of the store.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::directory::{Directory, DirectoryError, Erasing};
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

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn erase(store: &dyn LogStore, directory: &Arc<Directory>) -> Result<(), Failed> {
    let mut failed = None;
    for erasing in ask(directory, Directory::begin_erasures).await? {
        // A log that is damaged keeps no other one from leaving.
        failed = erase_account(store, directory, erasing).await.err().or(failed);
    }
    for (account, space) in ask(directory, Directory::erasing_spaces).await? {
        failed = erase_space(store, directory, LogId { account, space }).await.err().or(failed);
    }
    failed.map_or(Ok(()), Err)
}

async fn erase_account(
    store: &dyn LogStore,
    directory: &Arc<Directory>,
    Erasing { account, kept }: Erasing,
) -> Result<(), Failed> {
    let mut spaces = store.logs_of(&account).await?;
    spaces.retain(|space| !kept.contains(space));
    if spaces.is_empty() {
        // Also of the time before: another relay that still takes something out has had time to end.
        ask(directory, move |directory| directory.end_erasure(&account)).await?;
        tracing::info!("an account was erased");
        return Ok(());
    }
    for space in spaces {
        let (log, of) = (LogId { account: account.clone(), space }, account.clone());
        let is_erasing = move |directory: &Directory| directory.is_erasing(&of);
        // Of an account that is made anew under the same name meanwhile nothing is touched.
        while ask(directory, is_erasing.clone()).await? && store.remove(log.clone()).await? {}
    }
    Ok(())
}

async fn erase_space(store: &dyn LogStore, directory: &Arc<Directory>, log: LogId) -> Result<(), Failed> {
    while store.remove(log.clone()).await? {}
    ask(directory, move |directory| directory.end_erasure_of_space(log.space)).await
}

/// Asks the accounts on a thread that may wait.
async fn ask<T: Send + 'static>(
    directory: &Arc<Directory>,
    ask: impl FnOnce(&Directory) -> Result<T, DirectoryError> + Send + 'static,
) -> Result<T, Failed> {
    let directory = directory.clone();
    Ok(tokio::task::spawn_blocking(move || ask(&directory)).await??)
}
