//! Relays over HTTP: a WebSocket where one gets through, and `POST` where none does.

mod answers;
mod endpoint;
mod post;
pub(super) mod registration;
pub(super) mod spaces;
mod web_socket;

use std::sync::Arc;

use motet_proto::Message;

use super::connection::{Connection, Refused, Traffic};
use super::tokens::Tokens;
use super::{Transport, agent};
use crate::error::SyncError;
use crate::limits;
pub(super) use endpoint::Endpoint;
use web_socket::NoSocket;

/// Opens connections to one address.
#[derive(Clone)]
pub(super) struct Http {
    /// Keeps no connection: what has answered a request for a WebSocket may be closed in a moment.
    sockets: reqwest::Client,
    posts: reqwest::Client,
    endpoint: Endpoint,
    transport: Transport,
}

impl Http {
    pub(super) fn new(endpoint: Endpoint, transport: Transport) -> Result<Self, SyncError> {
        let (sockets, posts) = (client(&endpoint, 0)?, client(&endpoint, limits::POST_CONNECTIONS)?);
        Ok(Self { sockets, posts, endpoint, transport })
    }

    /// Opens a connection as the transport says. `hello` is what every `POST` begins with.
    pub(super) async fn open(
        &self,
        (token, tokens): (Option<String>, &Tokens),
        hello: Message,
        traffic: Arc<Traffic>,
    ) -> Result<Connection, Refused> {
        let Self { sockets, posts, endpoint, transport } = self;
        if *transport != Transport::Post {
            match web_socket::open(sockets, endpoint, token.as_deref(), traffic.clone()).await {
                Ok(connection) => return Ok(connection),
                Err(NoSocket::PostMayWork(_)) if *transport == Transport::Auto => {
                    tracing::info!("the way to the relay lets no WebSocket through; trying POST");
                }
                Err(NoSocket::PostMayWork(error) | NoSocket::Refused(error)) => return Err(error),
            }
        }
        post::open(posts, endpoint, (token, tokens), hello, traffic).await
    }

    /// Whether a WebSocket is to be tried again while `POST` is in use.
    pub(super) fn may_upgrade(&self) -> bool {
        self.transport == Transport::Auto
    }

    /// Opens a WebSocket, if that is possible by now.
    pub(super) async fn upgrade(&self, token: Option<&str>, traffic: Arc<Traffic>) -> Option<Connection> {
        web_socket::open(&self.sockets, &self.endpoint, token, traffic).await.ok()
    }
}

/// What sends requests to a relay, and keeps so many connections for the next ones.
fn client(endpoint: &Endpoint, kept: usize) -> Result<reqwest::Client, SyncError> {
    let builder = reqwest::Client::builder()
        .connect_timeout(limits::CONNECT_TIMEOUT)
        // WebSocket needs HTTP/1.1.
        .http1_only()
        .pool_max_idle_per_host(kept)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(agent());
    builder.build().map_err(|e| SyncError::BadUrl { url: endpoint.url.clone(), reason: e.to_string() })
}
