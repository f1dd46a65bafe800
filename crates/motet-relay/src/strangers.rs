//! Addresses that come with wrong tokens: they are answered more and more slowly, and the log says so, without the tokens.

#[cfg(feature = "console")]
mod lately;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits;
#[cfg(feature = "console")]
pub(crate) use lately::Refused;

/// What is known of addresses that were refused lately.
#[derive(Default)]
pub(crate) struct Strangers {
    state: Mutex<HashMap<IpAddr, Stranger>>,
    #[cfg(feature = "console")]
    lately: lately::Lately,
}

struct Stranger {
    /// Refusals that count; one is forgiven every [`limits::REFUSAL_FORGIVEN_AFTER`].
    counted: f64,
    at: Instant,
    /// Since the log last spoke of it.
    since_told: u64,
    told: Option<Instant>,
    waiting: usize,
}

/// How to answer one that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// At once.
    Now,
    /// After a while; [`Strangers::answered`] when that is done.
    Late,
    /// Too many of this address wait already.
    Never,
}

impl Strangers {
    /// An address has come with a wrong token, or none.
    pub(crate) fn refuse(&self, address: IpAddr, allowed: u64) -> Answer {
        let mut strangers = self.lock();
        if !has_room(&mut strangers, address) {
            return Answer::Never;
        }
        let stranger = strangers.entry(address).or_insert_with(Stranger::new);
        let forgiven = stranger.at.elapsed().as_secs_f64() / limits::REFUSAL_FORGIVEN_AFTER.as_secs_f64();
        // Who goes on and on is not held to all of it for ever.
        stranger.counted = ((stranger.counted - forgiven).max(0.0) + 1.0).min(2.0 * allowed.max(1) as f64);
        stranger.at = Instant::now();
        stranger.since_told += 1;
        if stranger.counted <= allowed as f64 {
            return Answer::Now;
        }
        if stranger.told.is_none_or(|told| told.elapsed() >= limits::STRANGER_TOLD_EVERY) {
            tracing::warn!(%address, refused = stranger.since_told, "an address comes with wrong tokens again and again");
            (stranger.told, stranger.since_told) = (Some(Instant::now()), 0);
        }
        if stranger.waiting >= limits::LATE_ANSWERS {
            return Answer::Never;
        }
        stranger.waiting += 1;
        Answer::Late
    }

    /// Whether the log should speak of an address now. Does not count as a refusal.
    pub(crate) fn is_due(&self, address: IpAddr) -> bool {
        let mut strangers = self.lock();
        if !has_room(&mut strangers, address) {
            return false;
        }
        let stranger = strangers.entry(address).or_insert_with(Stranger::new);
        let is_due = stranger.told.is_none_or(|told| told.elapsed() >= limits::STRANGER_TOLD_EVERY);
        if is_due {
            stranger.told = Some(Instant::now());
        }
        is_due
    }

    /// Somebody was refused, whether or not that counts. The operator may look who it was.
    #[cfg_attr(not(feature = "console"), allow(unused_variables, reason = "only the console shows it"))]
    pub(crate) fn note(&self, address: IpAddr, reason: &'static str) {
        #[cfg(feature = "console")]
        self.lately.note(address, reason);
    }

    /// Who was refused lately, the last one first.
    #[cfg(feature = "console")]
    pub(crate) fn lately(&self) -> Vec<Refused> {
        self.lately.all()
    }

    /// A late answer was given.
    pub(crate) fn answered(&self, address: IpAddr) {
        if let Some(stranger) = self.lock().get_mut(&address) {
            stranger.waiting = stranger.waiting.saturating_sub(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Stranger>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    fn new() -> Self {
        Self { counted: 0.0, at: Instant::now(), since_told: 0, told: None, waiting: 0 }
    }
}

/// Whether an address can be remembered. Of those that are, the ones that have been quiet are forgotten for it.
fn has_room(strangers: &mut HashMap<IpAddr, Stranger>, address: IpAddr) -> bool {
    if strangers.len() >= limits::REMEMBERED_STRANGERS && !strangers.contains_key(&address) {
        strangers.retain(|_, stranger| {
            stranger.waiting > 0 || stranger.at.elapsed() < limits::STRANGER_TOLD_EVERY
        });
    }
    strangers.len() < limits::REMEMBERED_STRANGERS || strangers.contains_key(&address)
}
