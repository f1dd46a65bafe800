//! From a listener to requests: each connection has a place, a deadline for what it says first, and is counted as it sends.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::config::Terms;
use crate::doors::{Doors, Place};
use crate::limits;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// Nobody speaks TLS where it is not built in.
#[cfg(not(feature = "tls"))]
#[derive(Clone)]
pub(crate) enum Tls {}

/// Accepts connections and serves them until `stopping`; then they finish what they are at.
pub(crate) async fn serve(
    listener: TcpListener,
    doors: Arc<Doors>,
    terms: watch::Receiver<Terms>,
    tls: Option<Tls>,
    app: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let mut look = tokio::time::interval(limits::REQUESTS_LOOKED_AT_EVERY);
    let stopped = stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = look.tick() => {
                doors.close_silent();
                continue;
            }
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let place = doors.enter(peer.ip().to_canonical(), &terms.borrow());
                // Whoever has no place is not answered: that would take the descriptor which is missing.
                let Some(place) = place else { continue };
                tokio::spawn(connection(stream, tls.clone(), place, app.clone(), stopped.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<Tls>,
    place: Arc<Place>,
    app: Router,
    mut stopping: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let opened = tokio::select! {
        biased;
        opened = open(stream, tls) => opened,
        () = place.close.notified() => return,
        _ = stopping.wait_for(|stopping| *stopping) => return,
    };
    let stream = match opened {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "no TLS connection came about"),
    };
    let app = TowerToHyperService::new(app);
    let own = place.clone();
    let requests = service_fn(move |mut request: hyper::Request<Incoming>| {
        own.begin_request();
        request.extensions_mut().insert(own.clone());
        let (answer, own) = (app.call(request), own.clone());
        async move {
            let answer = answer.await;
            own.end_request();
            answer
        }
    });
    let io = TokioIo::new(Metered { stream, place: place.clone() });
    // Deadlines are kept by the doors: those of the HTTP library start anew with every request.
    let served = http1::Builder::new()
        .max_buf_size(limits::REQUEST_HEAD_BYTES)
        .serve_connection(io, requests)
        .with_upgrades();
    let mut served = pin!(served);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            outcome = &mut served => {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            () = place.close.notified() => return,
            _ = stopping.wait_for(|stopping| *stopping), if !is_stopping => {
                is_stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// What a connection sends and receives, encrypted on the way or not.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Shakes hands, if there is to be TLS. The connection is half-open meanwhile, and goes with the others of its kind.
#[cfg(feature = "tls")]
async fn open(stream: TcpStream, tls: Option<Tls>) -> io::Result<Box<dyn Bytes>> {
    Ok(match tls {
        Some(tls) => Box::new(tls.accept(stream).await?),
        None => Box::new(stream),
    })
}

#[cfg(not(feature = "tls"))]
async fn open(stream: TcpStream, tls: Option<Tls>) -> io::Result<Box<dyn Bytes>> {
    match tls {
        Some(never) => match never {},
        None => Ok(Box::new(stream)),
    }
}

/// A stream whose bytes are counted until what they belong to is whole.
struct Metered {
    stream: Box<dyn Bytes>,
    place: Arc<Place>,
}

impl Metered {
    fn note(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.place.note_written();
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = (buf.filled().len() - before) as u64;
        if bytes > 0 && !self.place.meter.take(bytes) {
            return Poll::Ready(Err(io::Error::other("too much is under way that has not arrived whole")));
        }
        read
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
