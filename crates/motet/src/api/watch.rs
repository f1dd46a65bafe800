//! Waiting for what happens: in async code, in loops that block, in loops of a user interface, and by callbacks.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Either, FutureExt, select};
use futures_util::{Stream, StreamExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, oneshot, watch};

use crate::types::{Event, Status};

/// How syncing stands, whenever it changes. From [`Replica::watch_status`](crate::Replica::watch_status). Of changes that come close together
/// only the last may be seen. It is a [`Stream`] as well, which ends with the replica.
///
/// ```
/// use std::time::Duration;
/// # let dir = tempfile::tempdir().unwrap();
/// # let replica = motet::Replica::open(dir.path().join("t.db"))?;
/// let mut status = replica.watch_status();
/// println!("{}", status.current());
/// // Once in each turn of a loop of a user interface …
/// while let Some(status) = status.try_next() {
///     println!("{status}");
/// }
/// // … or in a thread of its own.
/// let changed = status.wait_for(Duration::from_millis(1));
/// # assert!(changed.is_none());
/// # Ok::<(), motet::OpenError>(())
/// ```
pub struct StatusWatch {
    latest: watch::Receiver<Status>,
    changes: Watch<watch::Receiver<Status>, Status>,
}

/// What happened to documents, after each commit, from now on. From [`Replica::events`](crate::Replica::events). It is a [`Stream`] as well,
/// which ends with the replica.
pub struct Events(Watch<broadcast::Receiver<Event>, Result<Event, Missed>>);

/// A listener was more than [`EVENT_BACKLOG`](crate::limits::EVENT_BACKLOG) events behind, and has missed some: what it shows is to be read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} events were missed")]
pub struct Missed(
    /// How many.
    pub u64,
);

/// A callback that is called until this is dropped. One that is running then is not waited for.
#[must_use = "the callback is called no more when this is dropped"]
pub struct Subscription(#[allow(dead_code, reason = "dropping it ends the thread")] oneshot::Sender<()>);

/// Something to wait on that hands itself back with what has come. `None`: nothing will come any more.
type Next<R, T> = BoxFuture<'static, (R, Option<T>)>;

struct Watch<R, T> {
    state: State<R, T>,
    next: fn(R) -> Next<R, T>,
}

enum State<R, T> {
    Idle(R),
    Waiting(Next<R, T>),
    Ended,
}

impl StatusWatch {
    pub(crate) fn new(status: watch::Receiver<Status>) -> Self {
        let next = |mut status: watch::Receiver<Status>| {
            async move {
                let changed = status.changed().await.is_ok();
                let latest = changed.then(|| status.borrow_and_update().clone());
                (status, latest)
            }
            .boxed()
        };
        Self { latest: status.clone(), changes: Watch { state: State::Idle(status), next } }
    }

    /// How it stands now. What is waited for afterwards is what comes after this.
    pub fn current(&mut self) -> Status {
        while self.try_next().is_some() {}
        self.latest.borrow().clone()
    }

    /// Waits until it changes; `None` once the replica is gone.
    pub async fn next(&mut self) -> Option<Status> {
        self.changes.next().await
    }

    /// [`next`](Self::next) for code that blocks.
    pub fn wait(&mut self) -> Option<Status> {
        pollster::block_on(self.next())
    }

    /// [`wait`](Self::wait), but no longer than this; `None` also if nothing has changed until then.
    pub fn wait_for(&mut self, time: Duration) -> Option<Status> {
        block_on_for(self.next(), time).flatten()
    }

    /// What has changed since the last time, without waiting.
    pub fn try_next(&mut self) -> Option<Status> {
        self.next().now_or_never().flatten()
    }

    /// Calls `each` with every change, on a thread of its own, until what is returned is dropped or the replica is gone.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn for_each(self, each: impl FnMut(Status) + Send + 'static) -> std::io::Result<Subscription> {
        subscribe(self, each)
    }
}

impl Events {
    pub(crate) fn new(events: broadcast::Receiver<Event>) -> Self {
        let next = |mut events: broadcast::Receiver<Event>| {
            async move {
                let event = match events.recv().await {
                    Ok(event) => Some(Ok(event)),
                    Err(RecvError::Lagged(count)) => Some(Err(Missed(count))),
                    Err(RecvError::Closed) => None,
                };
                (events, event)
            }
            .boxed()
        };
        Self(Watch { state: State::Idle(events), next })
    }

    /// Waits for the next one; `None` once the replica is gone.
    pub async fn next(&mut self) -> Option<Result<Event, Missed>> {
        self.0.next().await
    }

    /// [`next`](Self::next) for code that blocks.
    pub fn wait(&mut self) -> Option<Result<Event, Missed>> {
        pollster::block_on(self.next())
    }

    /// [`wait`](Self::wait), but no longer than this; `None` also if nothing has happened until then.
    pub fn wait_for(&mut self, time: Duration) -> Option<Result<Event, Missed>> {
        block_on_for(self.next(), time).flatten()
    }

    /// What has happened since the last time, without waiting.
    pub fn try_next(&mut self) -> Option<Result<Event, Missed>> {
        self.next().now_or_never().flatten()
    }

    /// Calls `each` with every event, on a thread of its own, until what is returned is dropped or the replica is gone.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn for_each(
        self,
        each: impl FnMut(Result<Event, Missed>) + Send + 'static,
    ) -> std::io::Result<Subscription> {
        subscribe(self, each)
    }
}

impl Stream for StatusWatch {
    type Item = Status;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Status>> {
        self.changes.poll_next(cx)
    }
}

impl Stream for Events {
    type Item = Result<Event, Missed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Event, Missed>>> {
        self.0.poll_next(cx)
    }
}

impl fmt::Debug for StatusWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusWatch").finish_non_exhaustive()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl<R, T> Watch<R, T> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let State::Idle(_) = &self.state
            && let State::Idle(source) = std::mem::replace(&mut self.state, State::Ended)
        {
            self.state = State::Waiting((self.next)(source));
        }
        let State::Waiting(next) = &mut self.state else { return Poll::Ready(None) };
        let Poll::Ready((source, item)) = next.as_mut().poll(cx) else { return Poll::Pending };
        self.state = if item.is_some() { State::Idle(source) } else { State::Ended };
        Poll::Ready(item)
    }

    /// Dropped before it resolves, it goes on where it was when it is called again.
    async fn next(&mut self) -> Option<T> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}

/// Calls `each` with what a stream yields, on a thread of its own.
pub(super) fn subscribe<S: Stream + Send + Unpin + 'static>(
    mut stream: S,
    mut each: impl FnMut(S::Item) + Send + 'static,
) -> std::io::Result<Subscription> {
    let (subscribed, mut cancelled) = oneshot::channel::<()>();
    std::thread::Builder::new().name("motet-watch".into()).spawn(move || {
        pollster::block_on(async move {
            while let Either::Left((Some(item), _)) = select(stream.next(), &mut cancelled).await {
                each(item);
            }
        });
    })?;
    Ok(Subscription(subscribed))
}

/// Waits on the calling thread, but no longer than this.
pub(super) fn block_on_for<T>(future: impl Future<Output = T>, time: Duration) -> Option<T> {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let end = Instant::now().checked_add(time);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return Some(value);
        }
        match end.map(|end| end.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return None,
            Some(left) => std::thread::park_timeout(left),
            None => std::thread::park(),
        }
    }
}
