//! How a relay is reached.

use std::sync::Arc;

use motet_proto::Message;

use super::connection::{Connection, Refused, Traffic};
use super::connector::{self, Connector};
#[cfg(feature = "relay")]
use super::http::Http;
use super::tokens::Tokens;

/// Opens connections to a relay.
#[derive(Clone)]
pub(super) enum Dialer {
    #[cfg(feature = "relay")]
    Http(Http),
    App(Arc<dyn Connector>),
}

impl Dialer {
    /// Opens a connection. Where there is no lasting one, `hello` is what every exchange begins with, and another token is asked for when one
    /// has expired.
    pub(super) async fn open(
        &self,
        (token, tokens): (Option<String>, &Tokens),
        hello: Message,
        traffic: Arc<Traffic>,
    ) -> Result<Connection, Refused> {
        traffic.begin();
        match self {
            #[cfg(feature = "relay")]
            Self::Http(http) => http.open((token, tokens), hello, traffic).await,
            Self::App(connector) => {
                drop((hello, tokens));
                connector::open(connector, token, traffic).await
            }
        }
    }

    /// Whether a lasting connection is to be tried again while there is none.
    pub(super) fn may_upgrade(&self) -> bool {
        match self {
            #[cfg(feature = "relay")]
            Self::Http(http) => http.may_upgrade(),
            Self::App(_) => false,
        }
    }

    /// Opens a lasting connection, if that is possible by now.
    pub(super) async fn upgrade(&self, token: Option<&str>, traffic: Arc<Traffic>) -> Option<Connection> {
        match self {
            #[cfg(feature = "relay")]
            Self::Http(http) => http.upgrade(token, traffic).await,
            Self::App(_) => {
                drop((token, traffic));
                None
            }
        }
    }
}
