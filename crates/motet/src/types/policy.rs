//! When a replica syncs by itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;

/// When a connected replica syncs by itself. What is asked for ([`Replica::sync_now`](crate::Replica::sync_now)) runs in any case.
///
/// ```
/// use std::time::Duration;
/// use motet::{Conditions, Replica, SyncMode, SyncPolicy};
/// # let dir = tempfile::tempdir().unwrap();
/// let replica = Replica::open(dir.path().join("songs.db"))?;
/// let mode = SyncMode::Every(Duration::from_secs(900));
/// replica.set_sync_policy(SyncPolicy { mode, unmetered_only: true, ..SyncPolicy::default() })?;
/// // Told by the system, whenever it changes:
/// replica.set_conditions(Conditions { metered: true, low_power: false });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A policy is checked when it is set and when it is read: a round every 0 s, or a comparison every millisecond, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct SyncPolicy {
    /// How often.
    pub mode: SyncMode,
    /// Not while the network is metered.
    pub unmetered_only: bool,
    /// Not while the device saves power.
    pub rests_in_low_power: bool,
    /// How often everything is compared with the relay, as by
    /// [`Replica::compare_with_relay`](crate::Replica::compare_with_relay): at the start of a session, when the last time is so long
    /// ago, and neither network nor battery is to be spared. `None`: never. From
    /// [`COMPARE_EVERY_LEAST`](crate::limits::COMPARE_EVERY_LEAST) on.
    pub compare_every: Option<Duration>,
}

impl Default for SyncPolicy {
    /// Live, whatever the network, with a comparison every [`COMPARE_EVERY`](crate::limits::COMPARE_EVERY).
    fn default() -> Self {
        Self {
            mode: SyncMode::Live,
            unmetered_only: false,
            rests_in_low_power: false,
            compare_every: Some(limits::COMPARE_EVERY),
        }
    }
}

/// How often a connected replica syncs by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SyncMode {
    /// It stays connected: changes go out and come in as they are made.
    #[default]
    Live,
    /// A round now and then; no connection in between. From [`SYNC_EVERY_LEAST`](crate::limits::SYNC_EVERY_LEAST) to
    /// [`SYNC_EVERY_MOST`](crate::limits::SYNC_EVERY_MOST).
    Every(Duration),
    /// Only when asked.
    Manual,
}

/// What the system says about network and battery. The library does not ask it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The network costs by the byte.
    pub metered: bool,
    /// The device saves power.
    pub low_power: bool,
}

/// A policy cannot be followed. The one before stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {given:?} is {problem}")]
#[non_exhaustive]
pub struct PolicyError {
    /// The part of the policy: `mode` or `compare_every`.
    pub field: &'static str,
    /// The time given.
    pub given: Duration,
    problem: String,
}

/// A policy as it is written down, by whomever.
#[derive(Deserialize)]
#[serde(default)]
struct Unchecked {
    mode: SyncMode,
    unmetered_only: bool,
    rests_in_low_power: bool,
    compare_every: Option<Duration>,
}

impl Default for Unchecked {
    fn default() -> Self {
        let SyncPolicy { mode, unmetered_only, rests_in_low_power, compare_every } = SyncPolicy::default();
        Self { mode, unmetered_only, rests_in_low_power, compare_every }
    }
}

impl TryFrom<Unchecked> for SyncPolicy {
    type Error = PolicyError;

    fn try_from(unchecked: Unchecked) -> Result<Self, PolicyError> {
        let Unchecked { mode, unmetered_only, rests_in_low_power, compare_every } = unchecked;
        let policy = Self { mode, unmetered_only, rests_in_low_power, compare_every };
        policy.check().map(|()| policy)
    }
}

impl SyncPolicy {
    /// Whether the policy can be followed.
    ///
    /// # Errors
    /// [`PolicyError`] names the time that is too short or too long.
    pub fn check(&self) -> Result<(), PolicyError> {
        if let SyncMode::Every(pause) = self.mode {
            within("mode", pause, limits::SYNC_EVERY_LEAST)?;
        }
        self.compare_every.map_or(Ok(()), |pause| within("compare_every", pause, limits::COMPARE_EVERY_LEAST))
    }

    /// What the policy comes to under these conditions.
    pub(crate) fn under(&self, conditions: Conditions) -> SyncMode {
        let rests =
            self.unmetered_only && conditions.metered || self.rests_in_low_power && conditions.low_power;
        if rests { SyncMode::Manual } else { self.mode }
    }

    /// How old the last comparison with the relay may be, if one may be made under these conditions.
    pub(crate) fn compares_after(&self, conditions: Conditions) -> Option<Duration> {
        self.compare_every.filter(|_| !conditions.metered && !conditions.low_power)
    }
}

fn within(field: &'static str, given: Duration, least: Duration) -> Result<(), PolicyError> {
    let bad = |problem| Err(PolicyError { field, given, problem });
    let most = limits::SYNC_EVERY_MOST;
    match given {
        given if given < least => bad(format!("too short, at least {least:?} is asked for")),
        given if given > most => {
            bad(format!("too long, at most {} days are allowed", most.as_secs() / 86_400))
        }
        _ => Ok(()),
    }
}
