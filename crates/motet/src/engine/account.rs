//! Whose this replica is: the account that it is bound to, the logs that it has met, and what leaves the device when its user does.

use motet_proto::{AccountId, LogName};

use super::lifecycle::is_leaving;
use super::{Commit, Core};
use crate::error::{AccountError, SyncError};
use crate::limits;
use crate::store::{self, ACCOUNT, StorageError, Tx};
use crate::types::{ChangeKind, LastError, Removed};

/// Where the time stands in `meta` that a relay told last, in milliseconds since 1970.
const RELAY_TIME: &str = "relay_time";

/// What a relay says of itself, held against what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is as it was, or new.
    Known,
    /// The log is that of another remote, which was at another address until now: that one is in use from now on.
    Moved(i64),
    /// The relay speaks for another account than the one that this replica is bound to.
    OtherAccount { bound: AccountId, found: AccountId },
}

/// Which documents leave the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emptying {
    /// Those that the relay holds whole: all of them can be had again.
    Held,
    /// The same with what was not sent to the relay, which is given up.
    Given,
    /// Those that were ever shared, with what this device alone has of them.
    Shared,
    /// All.
    Everything,
}

/// Why a relay has refused the last round, if that is how it ended: what it holds is not to be had then.
fn refusal(tx: Tx<'_>, remote: Option<i64>) -> store::Result<Option<String>> {
    let remotes = tx.remotes()?;
    let known = remotes.into_iter().find(|known| Some(known.id) == remote);
    let error = known.and_then(|known| serde_json::from_str::<LastError>(&known.last_error?).ok());
    let forbidden = SyncError::Forbidden { reason: String::new() };
    Ok(error.filter(|error| error.code == forbidden.code()).map(|error| error.message))
}

/// The account that a replica is bound to.
pub(crate) fn account(tx: Tx<'_>) -> store::Result<Option<AccountId>> {
    let parse = |text: String| {
        text.parse()
            .map_err(|_| StorageError::Damaged("it is lost to which account the data belongs: sign in with that account at the relay where it was, or release the account to move the data on purpose".into()))
    };
    tx.meta(ACCOUNT)?.map(parse).transpose()
}

/// Whether what a relay says of itself is known already. A relay that says nothing is the one that it was.
pub(crate) fn is_known(
    tx: Tx<'_>,
    remote: i64,
    found: Option<AccountId>,
    log: Option<LogName>,
) -> store::Result<bool> {
    // One that is lost is not the same.
    let is_account = account(tx).is_ok_and(|bound| found.is_none() || bound == found);
    Ok(is_account && (log.is_none() || tx.log_of(remote)? == log))
}

/// Whether the time that a relay tells is to be kept: each would cost a write.
pub(crate) fn is_news(tx: Tx<'_>, relay_time: i64) -> store::Result<bool> {
    let every = limits::RELAY_TIME_EVERY.as_millis() as i64;
    Ok(told_time(tx)?.is_none_or(|told| relay_time < told || relay_time - told >= every))
}

/// The time that a relay told last.
fn told_time(tx: Tx<'_>) -> store::Result<Option<i64>> {
    tx.meta_number(RELAY_TIME, limits::LATEST_TIME)
}

impl Core {
    /// A relay has told its time.
    pub(crate) fn note_relay_time(&mut self, tx: Tx<'_>, relay_time: i64) -> store::Result<()> {
        tx.set_meta(RELAY_TIME, Some(&relay_time.to_string()))
    }

    /// A time of this device's clock, as somebody meant it who counts from `now` back: if a relay has told how late it is, the clock may be
    /// ahead by all that has passed since.
    pub(super) fn surely_past(&self, tx: Tx<'_>, time: i64) -> store::Result<i64> {
        let now = self.shared.now_ms();
        let ahead = told_time(tx)?.map_or(0, |told| now.saturating_sub(told));
        let is_plain = time >= now || ahead <= 2 * limits::RELAY_TIME_EVERY.as_millis() as i64;
        Ok(if is_plain { time } else { time.saturating_sub(ahead) })
    }

    /// A relay has let this device in. Binds the replica to the first account that it meets, and finds the remote that the log belongs
    /// to.
    pub(crate) fn admit(
        &mut self,
        tx: Tx<'_>,
        remote: i64,
        found: Option<AccountId>,
        log: Option<LogName>,
    ) -> store::Result<Admission> {
        // Another process may have found out meanwhile which remote it is.
        self.check_era(tx)?;
        if let Some(found) = found {
            let bound = match account(tx) {
                // Logs are of one account: where a known one is, the account is known again.
                Err(StorageError::Damaged(_))
                    if log.is_some_and(|log| tx.remote_of(log).is_ok_and(|of| of.is_some())) =>
                {
                    None
                }
                bound => bound?,
            };
            match bound {
                Some(bound) if bound != found => return Ok(Admission::OtherAccount { bound, found }),
                Some(_) => {}
                None => tx.set_meta(ACCOUNT, Some(&found.to_string()))?,
            }
        }
        let known = tx.log_of(remote)?;
        if found.is_none() && log.is_some() && log == known && account(tx).is_err() {
            // The same log, and it is nobody's: there was no account to lose.
            tx.set_meta(ACCOUNT, None)?;
        }
        let Some(log) = log.filter(|log| known != Some(*log)) else { return Ok(Admission::Known) };
        let Some(other) = tx.remote_of(log)?.filter(|other| *other != remote) else {
            // Another log at an address that is known: its positions tell, and everything is compared.
            tx.set_log(remote, log)?;
            return Ok(Admission::Known);
        };
        tx.swap_urls(remote, other)?;
        tx.begin_era()?;
        if !tx.was_met(remote)? {
            // What it was owed, the other one has or is owed.
            tx.drop_remote(remote)?;
            self.write.reseeded.extend(self.reseeding.remove_entry(&remote));
        }
        tx.set_active(Some(other))?;
        self.read_remotes(tx)?;
        Ok(Admission::Moved(other))
    }

    /// The replica is not bound to an account any more. The log of the next one lacks what there is, and is given it.
    pub(crate) fn forget_account(&mut self, tx: Tx<'_>) -> store::Result<()> {
        tx.set_meta(ACCOUNT, None)
    }

    /// No remote is in use.
    pub(crate) fn leave_remote(&mut self, tx: Tx<'_>) -> store::Result<()> {
        tx.set_active(None)?;
        self.read_remotes(tx)
    }

    /// Takes documents out of the file, without a word to any remote; their words are in SQLite's log until that is emptied. What is read
    /// of the logs of remotes is forgotten: whoever is connected next downloads what there is.
    ///
    /// # Errors
    /// [`AccountError::Unsent`] if something would be lost, unless everything is to go.
    pub(crate) fn empty(&mut self, tx: Tx<'_>, which: Emptying) -> Result<Removed, AccountError> {
        self.catch_up_all(tx)?;
        let home = tx.home()?;
        tx.begin_era()?;
        // They name documents that there would be none of.
        tx.drop_points()?;
        tx.forget_steps()?;
        let (mut leaving, mut unsent, mut kept) = (Vec::new(), 0, 0);
        for id in tx.all_document_ids()? {
            let row = match tx.document_by_id(id) {
                // Of a damaged file everything can go all the same.
                Err(StorageError::Damaged(_)) if which == Emptying::Everything => {
                    tx.remove_document(id)?;
                    continue;
                }
                row => row?,
            };
            let is_shared = self.leaves(&row.collection, &row.name);
            let is_erased = home.is_some_and(|remote| self.erased.contains(&(remote, id)));
            // Of what others have purged nothing is to be sent.
            let is_erased = is_erased && !row.purged && !is_leaving(tx, &row)?;
            let is_unsent = match home {
                Some(remote) => is_shared && (is_erased || tx.is_pending(remote, id)?),
                None => is_shared,
            };
            let (leaves, is_lost) = match which {
                Emptying::Everything => (true, false),
                // What is switched off may have been sent once, or not.
                Emptying::Shared => {
                    // Of a collection that became local, what was shared before has a history.
                    let leaves = is_shared || !row.heads.is_empty();
                    (leaves, is_unsent || self.excluded.contains(&row.collection))
                }
                Emptying::Held => {
                    // Somebody had the remote forget it: it is on devices only.
                    let leaves = is_shared && !is_erased && tx.local_fields(id)?.is_none();
                    (leaves, leaves && is_unsent)
                }
                // Without a relay there is none that has the rest.
                Emptying::Given => (is_shared && !is_erased, home.is_none() && is_shared),
            };
            unsent += u64::from(is_lost);
            if leaves {
                leaving.push(row);
            } else {
                kept += u64::from(!row.deleted);
            }
        }
        if unsent > 0 {
            return Err(AccountError::Unsent { documents: unsent });
        }
        if which == Emptying::Held
            && let Some(reason) = refusal(tx, home)?
        {
            return Err(AccountError::Forbidden { reason });
        }
        let documents = leaving.iter().filter(|row| !row.deleted).count() as u64;
        tx.drop_quarantine()?;
        for row in &leaving {
            tx.remove_document(row.id)?;
            if !row.deleted {
                let gone = Commit::of(&[], ChangeKind::Deleted);
                self.note_event(row, &gone, Vec::new(), None);
            }
        }
        self.indexing = None;
        tx.drop_search_tables()?;
        tx.mark_all_unindexed()?;
        for remote in tx.remotes()? {
            tx.set_position(remote.id, None)?;
            // What stays is compared with what the logs hold.
            tx.set_reseed(remote.id, true)?;
        }
        self.forget_all_held();
        self.write.documents.clear();
        self.forget_marks();
        if !matches!(which, Emptying::Held | Emptying::Given) {
            tx.forget_others(self.shared.device)?;
            self.excluded.clear();
        }
        self.write.reseeded.extend(self.reseeding.drain());
        self.erased = tx.erased()?;
        self.write.recounts = true;
        self.write.settings_changed = true;
        Ok(Removed { documents, kept })
    }

    /// What arrives and what is sent belongs to the file as it is now: it was not emptied or repaired, and nobody signed out, since the session
    /// began.
    pub(super) fn check_era(&mut self, tx: Tx<'_>) -> store::Result<()> {
        let now = tx.era()?;
        if *self.era.get_or_insert(now) == now {
            return Ok(());
        }
        Err(StorageError::Emptied)
    }

    /// Sessions that run, also those of other processes, end and do not come back.
    pub(crate) fn sign_out(&mut self, tx: Tx<'_>) -> store::Result<()> {
        tx.count_sign_out()?;
        tx.begin_era()
    }

    /// The remote at an address, which may be another than when it was named: two may have changed places, or turned out to be one.
    pub(crate) fn remote_at(&mut self, tx: Tx<'_>, url: &str) -> store::Result<i64> {
        match tx.remotes()?.into_iter().find(|remote| remote.url == url) {
            Some(remote) => Ok(remote.id),
            None => self.use_remote(tx, url, self.shared.now_ms()),
        }
    }

    pub(super) fn read_remotes(&mut self, tx: Tx<'_>) -> store::Result<()> {
        let remotes = tx.remotes()?;
        self.active = remotes.iter().find(|remote| remote.active).map(|remote| remote.id);
        self.remotes = remotes.iter().map(|remote| remote.id).collect();
        self.write.settings_changed = true;
        self.write.recounts = true;
        Ok(())
    }
}
