//! What accounts have under way: sessions, and how much they have sent lately.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use motet_proto::{DeviceId, SpaceId};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::config::Limits;

/// All accounts that have something under way.
#[derive(Default)]
pub(crate) struct Accounts {
    state: Mutex<HashMap<String, Arc<Account>>>,
}

/// One account.
pub(crate) struct Account {
    state: Mutex<State>,
    /// Bytes that its connections have sent of what is not whole yet.
    pub(crate) incomplete: Arc<AtomicU64>,
    /// Bytes that were read for its devices and that they have not taken yet.
    pub(crate) outgoing: Arc<AtomicU64>,
    /// The turns of its reads.
    pub(crate) reads: Arc<Semaphore>,
}

struct State {
    /// Requests that were let in, sessions among them.
    requests: u64,
    sessions: HashMap<(DeviceId, SpaceId), Vec<Session>>,
    count: u64,
    frames: Bucket,
    bytes: Bucket,
    places: Bucket,
}

struct Session {
    id: u64,
    replaced: Arc<Notify>,
}

/// A request of an account, as long as it is served.
pub(crate) struct Request {
    accounts: Arc<Accounts>,
    name: String,
    pub(crate) account: Arc<Account>,
    /// The session that it has become.
    session: Option<(DeviceId, SpaceId, u64)>,
}

/// So much a second, and a store of what was not used. It may be overdrawn; then one has to wait.
struct Bucket {
    left: f64,
    at: Instant,
}

impl Accounts {
    /// Lets a request in; `None` if the account has too many.
    pub(crate) fn admit(self: &Arc<Self>, name: &str, limits: &Limits) -> Option<Request> {
        let mut accounts = self.lock();
        let account = accounts.entry(name.to_owned()).or_insert_with(|| Arc::new(Account::new())).clone();
        let mut state = account.lock();
        // Twice as many: a device that connects again has not been told yet that its old session goes.
        if state.requests >= 2 * limits.sessions_per_account.max(1) {
            return None;
        }
        state.requests += 1;
        drop(state);
        Some(Request { accounts: self.clone(), name: name.to_owned(), account, session: None })
    }

    /// Sessions that an account has open, by device.
    #[cfg(feature = "console")]
    pub(crate) fn sessions(&self, name: &str) -> HashMap<DeviceId, usize> {
        let account = self.lock().get(name).cloned();
        let mut open = HashMap::new();
        if let Some(account) = account {
            for ((device, _), sessions) in &account.lock().sessions {
                *open.entry(*device).or_default() += sessions.len();
            }
        }
        open
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Account>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn new() -> Self {
        let state = State {
            requests: 0,
            sessions: HashMap::new(),
            count: 0,
            frames: Bucket::full(),
            bytes: Bucket::full(),
            places: Bucket::full(),
        };
        let reads = Arc::new(Semaphore::new(crate::limits::READS_PER_ACCOUNT));
        Self { state: Mutex::new(state), incomplete: Arc::default(), outgoing: Arc::default(), reads }
    }

    /// A frame of `bytes` bytes, as it opened, was taken in: how long to wait before the next one is read.
    pub(crate) fn charge(&self, bytes: usize, limits: &Limits) -> Duration {
        let mut state = self.lock();
        let frames = state.frames.take(1.0, limits.frames_per_second as f64, 4.0);
        let bytes = state.bytes.take(bytes as f64, limits.bytes_per_second as f64, 4.0);
        frames.max(bytes)
    }

    /// A place is to be handed round to `devices` devices: how long to wait with that.
    pub(crate) fn charge_place(&self, devices: usize, limits: &Limits) -> Duration {
        self.lock().places.take(devices as f64, limits.places_per_second as f64, 1.0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, device: DeviceId, space: SpaceId, id: u64) {
        let mut state = self.lock();
        let Some(sessions) = state.sessions.get_mut(&(device, space)) else { return };
        let before = sessions.len();
        sessions.retain(|session| session.id != id);
        let gone = before - sessions.len();
        if sessions.is_empty() {
            state.sessions.remove(&(device, space));
        }
        state.count -= gone as u64;
    }
}

impl Request {
    /// The request has become the session of a device. Its older sessions go first; then all are counted. Returns what is told when
    /// this one has to go; `None` if the account has too many.
    pub(crate) fn introduce(
        &mut self,
        device: DeviceId,
        space: SpaceId,
        id: u64,
        limits: &Limits,
    ) -> Option<Arc<Notify>> {
        let mut state = self.account.lock();
        let State { sessions, count, .. } = &mut *state;
        let of_device = sessions.entry((device, space)).or_default();
        while of_device.len() as u64 >= limits.sessions_per_device.max(1) {
            of_device.remove(0).replaced.notify_one();
            *count -= 1;
        }
        if *count >= limits.sessions_per_account {
            if of_device.is_empty() {
                sessions.remove(&(device, space));
            }
            return None;
        }
        *count += 1;
        let replaced = Arc::new(Notify::new());
        of_device.push(Session { id, replaced: replaced.clone() });
        self.session = Some((device, space, id));
        Some(replaced)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some((device, space, id)) = self.session {
            self.account.leave(device, space, id);
        }
        let mut accounts = self.accounts.lock();
        let mut state = self.account.lock();
        state.requests -= 1;
        // What it has sent lately is forgotten only when there is nothing to remember.
        if state.requests == 0 && state.is_rested() {
            accounts.remove(&self.name);
        }
        let is_crowded = accounts.len() > crate::limits::REMEMBERED_ACCOUNTS;
        drop(state);
        if is_crowded {
            accounts.retain(|_, account| account.lock().requests > 0);
        }
    }
}

impl State {
    fn is_rested(&self) -> bool {
        [&self.frames, &self.bytes, &self.places].iter().all(|bucket| bucket.at.elapsed().as_secs() >= 10)
    }
}

impl Bucket {
    fn full() -> Self {
        Self { left: f64::INFINITY, at: Instant::now() }
    }

    /// Takes `amount` out of what comes in at `rate` a second and is kept for `burst` seconds.
    fn take(&mut self, amount: f64, rate: f64, burst: f64) -> Duration {
        let now = Instant::now();
        let rate = rate.max(1.0);
        let gained = (now - self.at).as_secs_f64() * rate;
        self.left = (self.left + gained).min(rate * burst) - amount;
        self.at = now;
        Duration::try_from_secs_f64(-self.left / rate).unwrap_or(Duration::ZERO)
    }
}
