//! How a device signs in: its public key is registered with the relay.

use motet_proto::limits as proto;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;

use super::Endpoint;
use super::answers::{self, read_bounded};
use crate::error::SyncError;
use crate::limits;
use crate::sync::agent;
use crate::sync::connection::{Refused, offline, relay_error};

/// What came of a registration.
pub(crate) enum Registered {
    /// The device is one of this account.
    Account(String),
    /// The sign-in key is not good.
    KeyRefused(String),
    /// The relay has no sign-in keys.
    NotOffered(String),
}

#[derive(Deserialize)]
struct Answer {
    account: String,
}

/// Sends a registration, as JSON.
pub(in crate::sync) async fn register(endpoint: &Endpoint, body: String) -> Result<Registered, SyncError> {
    let refused = |reason: String| SyncError::BadUrl { url: endpoint.url.clone(), reason };
    let url = endpoint.devices().map_err(refused)?;
    let client = reqwest::Client::builder()
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .user_agent(agent())
        .build()
        .map_err(|e| refused(e.to_string()))?;
    let request = client.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body);
    let sent = tokio::time::timeout(limits::SIGN_IN_TIMEOUT, request.send());
    let response = match sent.await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(error_of(answers::failed(&error, &url))),
        Err(_) => return Err(offline("the relay did not answer")),
    };
    if response.status() == StatusCode::OK && answers::is_by_relay(&response) {
        let body = read_bounded(response, proto::REGISTRATION_BYTES).await?;
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|e| relay_error(&format!("its answer cannot be read: {e}")))?;
        return Ok(Registered::Account(answer.account));
    }
    if response.status() == StatusCode::NOT_FOUND && answers::is_by_relay(&response) {
        let words = read_bounded(response, limits::REFUSAL_BYTES).await.unwrap_or_default();
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        let of_an_older = || "this relay lets no device sign in with a key".to_owned();
        return Ok(Registered::NotOffered(if words.is_empty() { of_an_older() } else { words }));
    }
    match answers::refusal(response).await {
        Refused::Unauthorized { reason, .. } => Ok(Registered::KeyRefused(reason)),
        refused => Err(error_of(refused)),
    }
}

fn error_of(refused: Refused) -> SyncError {
    match refused {
        Refused::Settled(error) | Refused::Lost(error) => error,
        Refused::Unauthorized { reason, .. } => SyncError::AuthNeeded { reason },
        Refused::TooLarge(reason) => relay_error(&reason),
    }
}
