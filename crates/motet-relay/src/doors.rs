//! Connections before it is known who speaks: how many there are, from where, and which have not said anything yet.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::config::Terms;
use crate::limits;

/// All connections of a relay.
pub(crate) struct Doors {
    state: Mutex<State>,
    began: Instant,
    /// Connections for which there are descriptors.
    descriptors: u64,
    /// Bytes of what has not arrived whole, over all connections.
    incomplete: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    next: u64,
    open: HashMap<u64, IpAddr>,
    /// Those that have not sent a whole request, or none since the last: oldest first.
    half_open: BTreeMap<u64, HalfOpen>,
    by_address: HashMap<IpAddr, u64>,
}

struct HalfOpen {
    id: u64,
    address: IpAddr,
    /// When something last went out, or when it became half-open: milliseconds since the relay began.
    moved: Arc<AtomicU64>,
    close: Arc<Notify>,
}

/// One connection, as long as anybody has to do with it.
pub(crate) struct Place {
    doors: Arc<Doors>,
    id: u64,
    /// Where the connection comes from: the peer's address.
    pub(crate) peer: IpAddr,
    /// Told when the connection has to go.
    pub(crate) close: Arc<Notify>,
    pub(crate) meter: Meter,
    moved: Arc<AtomicU64>,
    is_session: AtomicBool,
}

/// Counts what arrives and is not whole yet.
pub(crate) struct Meter {
    total: Arc<AtomicU64>,
    most: AtomicU64,
    own: AtomicU64,
    account: Mutex<Option<(Arc<AtomicU64>, u64)>>,
}

impl Doors {
    pub(crate) fn new(descriptors: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            began: Instant::now(),
            descriptors,
            incomplete: Arc::default(),
        })
    }

    /// A connection has come. `None` if there is no room for it.
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr, terms: &Terms) -> Option<Arc<Place>> {
        let most = terms.limits.connections.min(self.descriptors);
        let mut state = self.lock();
        let is_counted = !peer.is_loopback() && !is_proxy(peer, &terms.proxies);
        let address = network(peer);
        let of_address = state.by_address.get(&address).copied().unwrap_or(0);
        if is_counted && of_address >= terms.limits.connections_per_address {
            return None;
        }
        if state.open.len() as u64 >= most || state.half_open.len() as u64 >= terms.limits.half_open {
            let is_made = state.evict();
            if !is_made || state.open.len() as u64 >= most + limits::EVICTED_AT_A_TIME {
                return None;
            }
        }
        state.next += 1;
        let id = state.next;
        let close = Arc::new(Notify::new());
        state.open.insert(id, address);
        *state.by_address.entry(address).or_default() += 1;
        let moved = Arc::new(AtomicU64::new(self.now()));
        state.half_open.insert(id, HalfOpen { id, address, moved: moved.clone(), close: close.clone() });
        let meter = Meter {
            total: self.incomplete.clone(),
            most: AtomicU64::new(terms.limits.incomplete_bytes),
            own: AtomicU64::new(0),
            account: Mutex::new(None),
        };
        let is_session = AtomicBool::new(false);
        Some(Arc::new(Place { doors: self.clone(), id, peer, close, meter, moved, is_session }))
    }

    /// Closes what has not sent a whole request for too long.
    pub(crate) fn close_silent(&self) {
        let state = self.lock();
        let before = self.now().saturating_sub(limits::REQUEST_TIMEOUT.as_millis() as u64);
        let is_silent = |half_open: &&HalfOpen| half_open.moved.load(Ordering::Relaxed) < before;
        state.half_open.values().filter(is_silent).for_each(|half_open| half_open.close.notify_one());
    }

    /// Connections that are there, sessions among them.
    pub(crate) fn open(&self) -> usize {
        self.lock().open.len()
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Closes the oldest half-open connection of the address that has most of them.
    fn evict(&mut self) -> bool {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        self.half_open.values().for_each(|half_open| *counts.entry(half_open.address).or_default() += 1);
        let Some((address, _)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return false };
        let oldest = self.half_open.iter().find(|(_, half_open)| half_open.address == address);
        let Some((key, id, close)) = oldest.map(|(key, oldest)| (*key, oldest.id, oldest.close.clone()))
        else {
            return false;
        };
        close.notify_one();
        self.half_open.remove(&key);
        self.forget(id);
        true
    }

    fn forget(&mut self, id: u64) {
        if let Some(address) = self.open.remove(&id)
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Place {
    /// A whole request has arrived.
    pub(crate) fn begin_request(&self) {
        self.doors.lock().half_open.retain_not(self.id);
    }

    /// The connection becomes a session, which has deadlines of its own.
    pub(crate) fn become_session(&self) {
        self.is_session.store(true, Ordering::Relaxed);
    }

    /// The request is answered; the connection waits for another one.
    pub(crate) fn end_request(&self) {
        self.meter.complete();
        self.note_written();
        let mut state = self.doors.lock();
        if let Some(address) = state.open.get(&self.id).copied()
            && !self.is_session.load(Ordering::Relaxed)
        {
            state.next += 1;
            let (key, moved, close) = (state.next, self.moved.clone(), self.close.clone());
            state.half_open.insert(key, HalfOpen { id: self.id, address, moved, close });
        }
    }

    /// Something went out: whoever takes an answer slowly is not silent.
    pub(crate) fn note_written(&self) {
        self.moved.store(self.doors.now(), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.doors.lock();
        state.half_open.retain_not(self.id);
        state.forget(self.id);
    }
}

trait RetainNot {
    fn retain_not(&mut self, id: u64);
}

impl RetainNot for BTreeMap<u64, HalfOpen> {
    /// Takes a connection out. It stands under its number until its first request was answered, which is nearly always.
    fn retain_not(&mut self, id: u64) {
        if self.remove(&id).is_none() {
            self.retain(|_, half_open| half_open.id != id);
        }
    }
}

impl Meter {
    /// From now on what arrives counts for an account as well, up to `most` bytes.
    pub(crate) fn charge(&self, account: Arc<AtomicU64>, most: u64) {
        let own = self.own.load(Ordering::Relaxed);
        account.fetch_add(own, Ordering::Relaxed);
        let charged = self.account.lock().unwrap_or_else(PoisonError::into_inner).replace((account, most));
        // What came after the answer to an earlier request was charged to whoever had made that.
        if let Some((earlier, _)) = charged {
            earlier.fetch_sub(own, Ordering::Relaxed);
        }
    }

    /// Bytes have arrived. False if that is more than may be under way; what is small is always let in.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let own = self.own.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let total = self.total.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let of_account = account
            .as_ref()
            .is_none_or(|(sum, most)| sum.fetch_add(bytes, Ordering::Relaxed) + bytes <= *most);
        own <= limits::INCOMPLETE_ALWAYS || (total <= self.most.load(Ordering::Relaxed) && of_account)
    }

    /// What has arrived is whole.
    pub(crate) fn complete(&self) {
        let own = self.own.swap(0, Ordering::Relaxed);
        self.total.fetch_sub(own, Ordering::Relaxed);
        if let Some((account, _)) = &*self.account.lock().unwrap_or_else(PoisonError::into_inner) {
            account.fetch_sub(own, Ordering::Relaxed);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.complete();
    }
}

/// Whether an address is that of a proxy.
pub(crate) fn is_proxy(address: IpAddr, proxies: &[IpAddr]) -> bool {
    proxies.iter().any(|proxy| proxy.to_canonical() == address.to_canonical())
}

/// Where a request comes from that `peer` has sent, as far as the proxies can be believed: of the addresses in its `X-Forwarded-For` the
/// rightmost that is not one of them. Each proxy adds whom it was called by; what stands further left is what that one says of itself.
pub(crate) fn forwarded_from<'h>(
    peer: IpAddr,
    forwarded_for: impl DoubleEndedIterator<Item = &'h str>,
    proxies: &[IpAddr],
) -> IpAddr {
    let mut from = peer.to_canonical();
    for hop in forwarded_for.rev().flat_map(|line| line.rsplit(',')) {
        if !is_proxy(from, proxies) {
            break;
        }
        // Whatever stands behind something that is no address, nobody who is believed has written it.
        let Some(hop) = hop_address(hop.trim()) else { break };
        from = hop;
    }
    from
}

/// An address as proxies write it, some of them with a port.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let plain = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let with_port = || hop.parse().ok().map(|address: SocketAddr| address.ip());
    plain.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

/// What counts as one address: of IPv6 the network, as one machine has all of it.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// Lets this process open as many files and connections as the system allows it to.
pub(crate) fn raise_descriptors() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            limit.current = limit.maximum;
            if let Err(error) = setrlimit(Resource::Nofile, limit) {
                tracing::warn!(%error, "cannot raise the number of open files");
            }
        }
    }
}

/// Connections for which there are descriptors: what the system allows, less a reserve for the log and the store.
pub(crate) fn descriptors() -> u64 {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        limit.saturating_sub(limits::RESERVED_DESCRIPTORS).max(1)
    }
    #[cfg(not(unix))]
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_counts() {
        let proxies = ["10.0.0.1", "10.0.0.2", "fd00::1"].map(address);
        let from = |peer: &str, lines: &[&str]| {
            forwarded_from(address(peer), lines.iter().copied(), &proxies).to_string()
        };
        // Who is no proxy may write what they want.
        assert_eq!(from("192.0.2.7", &["198.51.100.1"]), "192.0.2.7");
        assert_eq!(from("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(from("::ffff:10.0.0.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
        assert_eq!(from("10.0.0.1", &["203.0.113.9, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(from("10.0.0.1", &["203.0.113.9", "198.51.100.1,10.0.0.2"]), "198.51.100.1");
        assert_eq!(from("fd00::1", &["10.0.0.1, 2001:db8::5, 10.0.0.2 ,10.0.0.1"]), "2001:db8::5");
        assert_eq!(from("10.0.0.1", &["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(from("10.0.0.1", &["[2001:db8::5]:4711"]), "2001:db8::5");
        assert_eq!(from("10.0.0.1", &["[2001:db8::5]"]), "2001:db8::5");
        // Nothing that is no address is passed over.
        assert_eq!(from("10.0.0.1", &["198.51.100.1, unknown"]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(from("10.0.0.1", &[""]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &["10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        assert_eq!(network(address("2001:db8:1:2:3:4:5:6")), address("2001:db8:1:2::"));
        assert_eq!(network(address("2001:db8:1:2:ffff::1")), address("2001:db8:1:2::"));
        assert_ne!(network(address("2001:db8:1:3::1")), address("2001:db8:1:2::"));
        assert_eq!(network(address("::ffff:192.0.2.7")), address("192.0.2.7"));
        assert_eq!(network(address("192.0.2.7")), address("192.0.2.7"));
    }
}
