//! What a device asks beside syncing: it signs in, its public key is registered with the relay; and it finds the spaces that are shared with its account.

use motet_proto::{SpaceId, limits as proto};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, Serialize};

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

/// A space that accounts share, as a relay offers it to one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SharedSpace {
    /// Its id: [`ReplicaBuilder::space`](crate::ReplicaBuilder::space) opens a file with it.
    #[serde(with = "as_text")]
    pub id: SpaceId,
    /// What its owner calls it.
    pub name: String,
    /// The account that it belongs to.
    pub owner: String,
    /// What this account may do with it.
    pub role: SpaceRole,
}

/// What an account may do with a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SpaceRole {
    /// Everything.
    Owner,
    /// Read and write, and have nothing erased from the relay.
    Writer,
    /// Read. What is written here waits on the device.
    Reader,
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Ids as the relay writes them.
mod as_text {
    use motet_proto::SpaceId;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &SpaceId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<SpaceId, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[derive(Deserialize)]
struct Answer {
    account: String,
}

#[derive(Deserialize)]
struct Offered {
    spaces: Vec<SharedSpace>,
}

/// Asks which spaces are shared with an account.
pub(in crate::sync) async fn spaces(
    endpoint: &Endpoint,
    tokens: &Tokens,
) -> Result<Vec<SharedSpace>, SyncError> {
    let response = ask(endpoint, tokens, Method::GET, endpoint.spaces()?).await?;
    let body = read_bounded(response, limits::SPACES_BYTES).await?;
    let offered: Offered =
        serde_json::from_slice(&body).map_err(|e| relay_error(&format!("its answer cannot be read: {e}")))?;
    Ok(offered.spaces)
}

/// Has the relay sign this device out.
pub(in crate::sync) async fn sign_out(endpoint: &Endpoint, tokens: &Tokens) -> Result<(), SyncError> {
    ask(endpoint, tokens, Method::DELETE, endpoint.devices()?).await.map(drop)
}

/// Asks with a token, and once more with another one if that is refused.
async fn ask(
    endpoint: &Endpoint,
    tokens: &Tokens,
    method: Method,
    url: Url,
) -> Result<reqwest::Response, SyncError> {
    let client = client(endpoint, 1)?;
    let mut asked = TokenRequest::default();
    loop {
        let token = tokens.get(asked).await?;
        let request = client.request(method.clone(), url.clone());
        let request = token.iter().fold(request, |request, token| request.bearer_auth(token));
        let response = answer(request, &url).await?;
        if response.status().is_success() && answers::is_by_relay(&response) {
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
