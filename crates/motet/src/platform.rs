//! What the library takes from the machine it runs on: randomness, cores, threads for slow work, and what tells a file from its copy. A
//! simulation puts its own in their place, for the thread it runs on.

use std::path::Path;
use std::sync::LazyLock;

use futures_util::future::{BoxFuture, FutureExt, TryFutureExt};

/// Fills `bytes` with randomness.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    #[cfg(feature = "simulation")]
    if simulated::fill(&mut bytes) {
        return Ok(bytes);
    }
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A number drawn once in the life of this process.
pub(crate) fn process() -> [u8; 16] {
    if is_simulated() {
        return [1; 16];
    }
    static PROCESS: LazyLock<[u8; 16]> = LazyLock::new(|| random().unwrap_or_default());
    *PROCESS
}

/// Threads that work at the same time. In a simulation one: there the order of things is part of the seed.
pub(crate) fn cores() -> usize {
    // Asked once: the answer is read from files of the system.
    static CORES: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));
    if is_simulated() { 1 } else { *CORES }
}

/// Begins slow work on another thread. The future resolves to what the work returns, or to why it did not return. Dropping it does not stop the
/// work.
pub(crate) fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> BoxFuture<'static, Result<T, String>> {
    #[cfg(feature = "simulation")]
    if is_simulated() {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        simulated::defer(Box::new(move || _ = reply.send(work())));
        return outcome.map_err(|error| error.to_string()).boxed();
    }
    tokio::task::spawn_blocking(work).map_err(|error| error.to_string()).boxed()
}

/// True if nothing may happen behind the caller's back.
pub(crate) fn is_simulated() -> bool {
    #[cfg(feature = "simulation")]
    return simulated::is_on();
    #[cfg(not(feature = "simulation"))]
    false
}

/// What tells a file from a copy of it, as far as the system says: where it lies on the disk, and when it was created.
pub(crate) fn file_identity(path: &Path) -> Option<String> {
    #[cfg(feature = "simulation")]
    if is_simulated() {
        return path.parent().map(|disk| disk.display().to_string());
    }
    let meta = std::fs::metadata(path).ok()?;
    let created = meta.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    #[cfg(unix)]
    let place = Some(std::os::unix::fs::MetadataExt::ino(&meta));
    #[cfg(not(unix))]
    let place: Option<u64> = None;
    if place.is_none() && created.is_none() {
        return None;
    }
    Some(format!("{place:?} {created:?}"))
}

/// The machine of a simulation.
#[cfg(feature = "simulation")]
pub(crate) mod simulated {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;

    /// What the simulation carries out when it wants to.
    pub(crate) type Deferred = VecDeque<Box<dyn FnOnce()>>;

    thread_local! {
        static SEED: Cell<Option<u64>> = const { Cell::new(None) };
        /// The work of the session that is being polled; `None`: none is.
        static DEFERRED: RefCell<Option<Deferred>> = const { RefCell::new(None) };
    }

    /// Runs `poll`; what it hands over to other threads is put into `queue`.
    pub(crate) fn deferring<T>(queue: &mut Deferred, poll: impl FnOnce() -> T) -> T {
        /// Also by a panic.
        struct Given<'q>(&'q mut Deferred);
        impl Drop for Given<'_> {
            fn drop(&mut self) {
                *self.0 = DEFERRED.take().unwrap_or_default();
            }
        }
        DEFERRED.set(Some(std::mem::take(queue)));
        let _given = Given(queue);
        poll()
    }

    /// Whether what is handed over to other threads waits.
    pub(crate) fn is_deferring() -> bool {
        DEFERRED.with_borrow(Option::is_some)
    }

    pub(super) fn defer(work: Box<dyn FnOnce()>) {
        let at_once = DEFERRED.with_borrow_mut(|queue| match queue {
            Some(queue) => {
                queue.push_back(work);
                None
            }
            None => Some(work),
        });
        at_once.into_iter().for_each(|work| work());
    }

    /// From now on this thread draws from `seed`; `None`: it is on the real machine again.
    pub(crate) fn set(seed: Option<u64>) {
        SEED.set(seed);
    }

    pub(super) fn is_on() -> bool {
        SEED.get().is_some()
    }

    /// Fills from the seed; false on the real machine.
    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        let Some(mut seed) = SEED.get() else { return false };
        for byte in bytes {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (seed >> 56) as u8;
        }
        SEED.set(Some(seed));
        true
    }
}
