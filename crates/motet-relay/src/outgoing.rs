//! What the relay has read for devices and has not gone out to them yet. A device that asks for pages and does not take them costs their
//! memory; so much of it in all, and so much for an account, and further reads wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::config::Limits;

/// All that is on its way out.
#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: Mutex<u64>,
    freed: Notify,
}

/// Bytes that are being read, or are on their way out, until it is dropped.
pub(crate) struct Held {
    outgoing: Arc<Outgoing>,
    /// Those of the account; changed only while all are locked.
    account: Arc<AtomicU64>,
    bytes: u64,
}

impl Outgoing {
    /// Waits until so much may be read for an account. One that has nothing on its way out never waits, whatever the others have.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        account: Arc<AtomicU64>,
        bytes: usize,
        limits: impl Fn() -> Limits,
    ) -> Held {
        let bytes = bytes as u64;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // What is freed from here on is heard of.
            freed.as_mut().enable();
            if self.try_reserve(&account, bytes, &limits()) {
                return Held { outgoing: self.clone(), account, bytes };
            }
            freed.await;
        }
    }

    fn try_reserve(&self, account: &AtomicU64, bytes: u64, limits: &Limits) -> bool {
        let mut all = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let own = account.load(Ordering::Relaxed);
        let fits = own + bytes <= limits.outgoing_bytes_per_account && *all + bytes <= limits.outgoing_bytes;
        if own > 0 && !fits {
            return false;
        }
        account.store(own + bytes, Ordering::Relaxed);
        *all += bytes;
        true
    }

    fn free(&self, account: &AtomicU64, bytes: u64) {
        let mut all = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        account.store(account.load(Ordering::Relaxed).saturating_sub(bytes), Ordering::Relaxed);
        *all = all.saturating_sub(bytes);
        drop(all);
        self.freed.notify_waiters();
    }
}

impl Held {
    /// What was read has this many bytes, at most as many as were reserved.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let over = self.bytes.saturating_sub(bytes as u64);
        self.bytes -= over;
        if over > 0 {
            self.outgoing.free(&self.account, over);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.outgoing.free(&self.account, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_account_waits_for_itself_and_for_all_but_not_for_its_first() {
        let limits = || Limits { outgoing_bytes: 100, outgoing_bytes_per_account: 60, ..Limits::default() };
        let outgoing = Arc::new(Outgoing::default());
        let accounts: Vec<Arc<AtomicU64>> = (0..3).map(|_| Arc::default()).collect();
        let reserve = async |account: usize, bytes| {
            let reserve = outgoing.reserve(accounts[account].clone(), bytes, limits);
            tokio::time::timeout(Duration::from_millis(20), reserve).await.ok()
        };
        let mut first = reserve(0, 50).await.unwrap();
        assert!(reserve(0, 20).await.is_none(), "more than an account may have");
        first.shrink(30);
        let second = reserve(0, 20).await.unwrap();
        let third = reserve(1, 45).await.unwrap();
        assert!(reserve(1, 10).await.is_none(), "more than there may be");
        let beyond = reserve(2, 1_000).await.unwrap();
        let waits = outgoing.reserve(accounts[1].clone(), 10, limits);
        let frees = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop((second, beyond));
        };
        let (waited, ()) = tokio::join!(waits, frees);
        drop((first, third, waited));
        assert_eq!(*outgoing.bytes.lock().unwrap(), 0);
        assert!(accounts.iter().all(|account| account.load(Ordering::Relaxed) == 0));
    }
}
