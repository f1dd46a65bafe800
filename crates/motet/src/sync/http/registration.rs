//! What a device asks to sign in and out: its public key is registered with the relay.

use motet_proto::limits as proto;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answers::{self, read_bounded};
use super::{Endpoint, client};
use crate::error::SyncError;
use crate::limits;
use crate::sync::TokenRequest;
use crate::sync::connection::{Refused, offline, relay_error};
use crate::sync::tokens::Tokens;

/// What came of a registration.
pub(crate) enum Registered {
    /// The device is one of this account.
    Account(String),
    /// The sign-in key is not good.
    KeyRefused(String),
    /// The sign-in key is for another account than the one that this device belongs to.
    OtherAccount(String),
    /// The relay has no sign-in keys.
    NotOffered(String),
}

/// With these a relay says that it does not do what it is asked, and why.
const DECLINED: [StatusCode; 4] =
    [StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND, StatusCode::CONFLICT];

#[derive(Deserialize)]
struct Answer {
    account: String,
}

/// Asks how devices sign in; `None` if the relay has no such question.
pub(in crate::sync) async fn methods<T: DeserializeOwned>(
    endpoint: &Endpoint,
) -> Result<Option<T>, SyncError> {
    let (url, client) = (endpoint.sign_in()?, client(endpoint, 0)?);
    let response = answer(client.get(url.clone()), &url).await?;
    let is_by_relay = answers::is_by_relay(&response);
    match response.status() {
        StatusCode::OK if is_by_relay => {
            let body = read_bounded(response, limits::SPACES_BYTES).await?;
            let answer = serde_json::from_slice(&body);
            answer.map(Some).map_err(|e| relay_error(&format!("its answer cannot be read: {e}")))
        }
        StatusCode::NOT_FOUND if is_by_relay => Ok(None),
        _ => Err(error_of(answers::refusal(response).await)),
    }
}

/// Has the relay sign this device out.
pub(in crate::sync) async fn sign_out(endpoint: &Endpoint, tokens: &Tokens) -> Result<(), SyncError> {
    let response = ask(endpoint, tokens, Method::DELETE, endpoint.devices()?, None).await?;
    if response.status().is_success() { Ok(()) } else { Err(error_of(answers::refusal(response).await)) }
}

/// Asks with a token, and once more with another one if that is refused. Returns what the relay did, or that it does not do it.
pub(super) async fn ask(
    endpoint: &Endpoint,
    tokens: &Tokens,
    method: Method,
    url: Url,
    body: Option<String>,
) -> Result<reqwest::Response, SyncError> {
    let client = client(endpoint, 1)?;
    let mut asked = TokenRequest::default();
    loop {
        let token = tokens.get(asked).await?;
        let request = client.request(method.clone(), url.clone());
        let request = token.iter().fold(request, |request, token| request.bearer_auth(token));
        let request = body.iter().fold(request, |request, body| {
            request.header(CONTENT_TYPE, "application/json").body(body.clone())
        });
        let response = answer(request, &url).await?;
        let status = response.status();
        if (status.is_success() || DECLINED.contains(&status)) && answers::is_by_relay(&response) {
            return Ok(response);
        }
        match answers::refusal(response).await {
            // A device whose clock is wrong signs another one.
            Refused::Unauthorized { date, .. } if !asked.rejected && token.is_some() => {
                asked = TokenRequest::rejected(date);
            }
            refused => return Err(error_of(refused)),
        }
    }
}

/// Sends a registration, as JSON.
pub(in crate::sync) async fn register(endpoint: &Endpoint, body: String) -> Result<Registered, SyncError> {
    let (url, client) = (endpoint.devices()?, client(endpoint, 0)?);
    let request = client.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body);
    let response = answer(request, &url).await?;
    if response.status() == StatusCode::OK && answers::is_by_relay(&response) {
        let body = read_bounded(response, proto::REGISTRATION_BYTES).await?;
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|e| relay_error(&format!("its answer cannot be read: {e}")))?;
        return Ok(Registered::Account(answer.account));
    }
    let status = response.status();
    if [StatusCode::NOT_FOUND, StatusCode::CONFLICT].contains(&status) && answers::is_by_relay(&response) {
        let words = read_bounded(response, limits::REFUSAL_BYTES).await.unwrap_or_default();
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        if status == StatusCode::CONFLICT {
            return Ok(Registered::OtherAccount(words));
        }
        let elsewhere =
            || format!("no device signs in at {url}: is the path right, and the relay of this version?");
        return Ok(Registered::NotOffered(if words.is_empty() { elsewhere() } else { words }));
    }
    match answers::refusal(response).await {
        Refused::Unauthorized { reason, .. } => Ok(Registered::KeyRefused(reason)),
        refused => Err(error_of(refused)),
    }
}

async fn answer(request: reqwest::RequestBuilder, url: &Url) -> Result<reqwest::Response, SyncError> {
    match tokio::time::timeout(limits::SIGN_IN_TIMEOUT, request.send()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(error_of(answers::failed(&error, url))),
        Err(_) => Err(offline("the relay did not answer")),
    }
}

fn error_of(refused: Refused) -> SyncError {
    match refused {
        Refused::Settled(error) | Refused::Lost(error) => error,
        Refused::Unauthorized { reason, .. } => SyncError::AuthNeeded { reason },
        Refused::TooLarge(reason) => relay_error(&reason),
    }
}
