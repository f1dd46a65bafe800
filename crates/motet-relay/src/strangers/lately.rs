//! Who was refused lately, for the operator to look at. It is gone with the process.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::limits;

/// Refusals of one address for one reason. Never holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) address: IpAddr,
    pub(crate) reason: &'static str,
    pub(crate) times: u64,
    /// The last of them.
    pub(crate) at: SystemTime,
}

/// The last [`limits::REFUSALS_KEPT`] of them, the latest at the end.
#[derive(Default)]
pub(super) struct Lately(Mutex<VecDeque<Refused>>);

impl Lately {
    pub(super) fn note(&self, address: IpAddr, reason: &'static str) {
        let mut kept = self.lock();
        let is_same = |refused: &Refused| refused.address == address && refused.reason == reason;
        // Somebody who tries again and again pushes nobody else out.
        let before = kept.iter().position(is_same).and_then(|place| kept.remove(place));
        if kept.len() >= limits::REFUSALS_KEPT {
            kept.pop_front();
        }
        let times = before.map_or(0, |before| before.times) + 1;
        kept.push_back(Refused { address, reason, times, at: SystemTime::now() });
    }

    pub(super) fn all(&self) -> Vec<Refused> {
        self.lock().iter().rev().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_together_and_bounded() {
        let lately = Lately::default();
        let address = |n: usize| IpAddr::from([10, 0, (n / 256) as u8, (n % 256) as u8]);
        (0..1_000).for_each(|_| lately.note(address(0), "token-invalid"));
        lately.note(address(1), "no-token");
        lately.note(address(0), "token-invalid");
        let all = lately.all();
        assert_eq!((all.len(), all[0].times, all[1].reason), (2, 1_001, "no-token"));
        (0..1_000).for_each(|n| lately.note(address(n), "no-token"));
        assert_eq!(lately.all().len(), limits::REFUSALS_KEPT);
        assert_eq!(lately.all()[0].address, address(999));
    }
}
