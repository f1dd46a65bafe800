//! The metrics over HTTP, on an address of their own: they are for whoever runs the relay, and not for its devices.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::accept;
use crate::config::Terms;
use crate::doors::Doors;
use crate::limits;
use crate::metrics::{self, Metrics};

/// Answers `GET /metrics` until `shutdown` resolves. Whoever can connect is answered, so the address should be one that only those who watch
/// the relay reach.
pub async fn serve_metrics(
    listener: TcpListener,
    metrics: Metrics,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let (stop, stopping) = watch::channel(false);
    let app = Router::new().route("/metrics", get(text)).with_state(Arc::new(metrics));
    // It is the same for as long as this runs.
    let (_terms, terms) = watch::channel(Terms::default());
    let doors = Doors::new(limits::METRICS_CONNECTIONS);
    let stopped = async move {
        shutdown.await;
        _ = stop.send(true);
    };
    tokio::join!(accept::serve(listener, doors, terms, None, app, stopping), stopped);
}

async fn text(State(metrics): State<Arc<Metrics>>) -> Response {
    ([(CONTENT_TYPE, metrics::TEXT_TYPE)], metrics.text()).into_response()
}
