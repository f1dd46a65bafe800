//! Whose a replica is, and what stays on the device when its user signs out.

use motet_proto::AccountId;

use crate::api::replica::Replica;
use crate::engine::{self, Emptying};
use crate::error::{AccountError, ReadError};
use crate::store::{self, Durability};
use crate::types::Removed;

/// What becomes of the documents when the user signs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignOut {
    /// They stay, and the replica stays bound to its account: whoever signs in again as that account goes on where they left off.
    Keep,
    /// What was ever shared goes, with the values of local fields in it; local collections stay. Refused while something is here that
    /// the relay does not hold.
    Wipe,
    /// Everything goes, also what was never sent and what is local.
    WipeUnsent,
}

impl Replica {
    /// The account that this replica is bound to: that of the first relay with accounts that it has met. What it holds is sent to no
    /// other ([`SyncError::OtherAccount`](crate::SyncError::OtherAccount)) until it is [released](Self::release_account) or wiped.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn account(&self) -> Result<Option<AccountId>, ReadError> {
        Ok(self.read(engine::account)?)
    }

    /// Ends the connection and signs the user out; what other processes that have the file open are connected to, they leave as well, until they
    /// connect anew. The status is `local-only` until a relay is named again. The words of what is wiped
    /// are nowhere in the file any more (while somebody reads an older state of it, at the latest when all have closed it); the damaged file that a repair has kept is removed; copies and exports that were made before are not touched. Undo and restore points end with a wipe.
    ///
    /// ```
    /// # use motet::{Replica, SignOut};
    /// # fn shared_tablet(replica: &Replica) -> Result<(), motet::AccountError> {
    /// match replica.sign_out(SignOut::Wipe) {
    ///     Err(motet::AccountError::Unsent { documents }) => println!("{documents} are only here: sync first"),
    ///     signed_out => println!("{} documents removed", signed_out?.documents),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`AccountError::Unsent`] if [`SignOut::Wipe`] would lose something; the replica is disconnected then and else as it was.
    pub fn sign_out(&self, how: SignOut) -> Result<Removed, AccountError> {
        self.database().may_write()?;
        self.disconnect();
        let removed = self.database().writer.run(Durability::Full, move |tx, core| {
            let removed = match how {
                SignOut::Keep => Removed::default(),
                SignOut::Wipe => core.empty(tx, Emptying::Shared)?,
                SignOut::WipeUnsent => core.empty(tx, Emptying::Everything)?,
            };
            if how != SignOut::Keep {
                core.forget_account(tx)?;
                tx.forget_rounds()?;
            }
            core.sign_out(tx)?;
            core.leave_remote(tx)?;
            Ok::<_, AccountError>(removed)
        })?;
        if how != SignOut::Keep {
            store::remove_aside(&self.database().file);
        }
        self.scrub();
        Ok(removed)
    }

    /// Moves what is here to another account, on purpose: the next account that the replica meets is given all of it, and the replica is
    /// bound to that one. What the old account's relay holds stays there.
    ///
    /// # Errors
    /// [`AccountError`] if it cannot be kept; nothing is changed then.
    pub fn release_account(&self) -> Result<(), AccountError> {
        self.database().may_write()?;
        self.disconnect();
        self.database().writer.run(Durability::Full, |tx, core| {
            core.sign_out(tx)?;
            Ok(core.forget_account(tx)?)
        })
    }

    /// Removes from this device what the relay holds whole; the next connection downloads it again. For a device that is full, or whose
    /// data is doubted. Ends the connection; undo and restore points end with it.
    ///
    /// # Errors
    /// [`AccountError::Unsent`] if something has not been sent, [`AccountError::Forbidden`] if the relay has refused the last sync; nothing is removed
    /// then. What a relay has lost since the last sync is not noticed: this asks no network.
    pub fn clear_local(&self) -> Result<Removed, AccountError> {
        self.clear(Emptying::Held)
    }

    /// Gives up what this device has not sent: everything that is shared is removed from it, with the values of local fields in it, and the next
    /// connection downloads what the relay holds. For what will never be sent, as the edits of somebody who may only read. **Whoever may not read the
    /// space any more gets nothing back:** ask [`Relay::spaces`](crate::Relay::spaces) before. Ends the connection; undo and restore points end with it.
    ///
    /// # Errors
    /// [`AccountError::Unsent`] if no relay is known that could have the rest; nothing is removed then.
    pub fn discard_unsent(&self) -> Result<Removed, AccountError> {
        self.clear(Emptying::Given)
    }

    fn clear(&self, which: Emptying) -> Result<Removed, AccountError> {
        self.database().may_write()?;
        self.disconnect();
        let removed = self.database().writer.run(Durability::Full, move |tx, core| core.empty(tx, which))?;
        store::remove_aside(&self.database().file);
        self.scrub();
        Ok(removed)
    }

    /// What was removed is in SQLite's log no more either. If somebody reads an older state just now, that is tried again for a while.
    fn scrub(&self) {
        if store::shrink(&self.database().file).is_err() {
            (self.database().shared.empty_log)();
        }
    }
}
