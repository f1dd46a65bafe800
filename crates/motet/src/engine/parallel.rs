//! Work that several documents need, on all cores.

use crate::{limits, platform};

/// Runs `work` on as many cores as `items` are worth; the first error is returned when all have ended.
pub(super) fn on_all_cores<E: Send>(items: usize, work: impl Fn() -> Result<(), E> + Sync) -> Result<(), E> {
    let cores = platform::cores();
    if items < limits::PARALLEL_FROM_DOCUMENTS || cores == 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(&work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).fold(Ok(()), Result::and)
    })
}

/// Maps on all cores, keeping the order.
pub(super) fn parallel<T: Send, U: Send>(items: Vec<T>, map: impl Fn(T) -> U + Sync) -> Vec<U> {
    let threads = platform::cores();
    if items.len() < limits::PARALLEL_FROM_DOCUMENTS || threads == 1 {
        return items.into_iter().map(map).collect();
    }
    let chunk = items.len().div_ceil(threads);
    let mut items = items.into_iter();
    let map = &map;
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        loop {
            let part: Vec<T> = items.by_ref().take(chunk).collect();
            if part.is_empty() {
                break;
            }
            running.push(scope.spawn(move || part.into_iter().map(map).collect::<Vec<U>>()));
        }
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<U>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        running.into_iter().flat_map(join).collect()
    })
}
