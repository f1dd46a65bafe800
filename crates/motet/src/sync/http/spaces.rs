//! What a device asks of the spaces that are shared with its account.

use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;

use super::registration::ask;
use super::{Endpoint, answers};
use crate::error::SyncError;
use crate::limits;
use crate::sync::connection::relay_error;
use crate::sync::tokens::Tokens;

/// A request about shared spaces: where below their path it goes, and what it says.
pub(crate) struct SpacesRequest {
    pub(crate) method: &'static str,
    /// Below `v1/`, each part as it is and not encoded.
    pub(crate) path: Vec<String>,
    pub(crate) body: Option<serde_json::Value>,
}

/// Why the relay does not do it, in its words.
pub(crate) enum Declined {
    /// There is no such thing, as far as this account may know.
    Missing(String),
    /// This account may not.
    Forbidden(String),
    /// It cannot be, as other things are; or it makes no sense.
    Impossible(String),
}

/// Asks, and reads the answer.
pub(in crate::sync) async fn request<T: DeserializeOwned>(
    endpoint: &Endpoint,
    tokens: &Tokens,
    request: SpacesRequest,
) -> Result<Result<T, Declined>, SyncError> {
    let url = url(endpoint, &request.path)?;
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|e| relay_error(&e.to_string()))?;
    let response = ask(endpoint, tokens, method, url, request.body.map(|body| body.to_string())).await?;
    let status = response.status();
    if !status.is_success() {
        let words = answers::read_bounded(response, limits::REFUSAL_BYTES).await.unwrap_or_default();
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        return Ok(Err(match status {
            StatusCode::NOT_FOUND => Declined::Missing(words),
            StatusCode::FORBIDDEN => Declined::Forbidden(words),
            _ => Declined::Impossible(words),
        }));
    }
    let body = answers::read_bounded(response, limits::SPACES_BYTES).await?;
    let body = if body.is_empty() { &b"null"[..] } else { &body };
    let answer = serde_json::from_slice(body);
    answer.map(Ok).map_err(|e| relay_error(&format!("its answer cannot be read: {e}")))
}

fn url(endpoint: &Endpoint, path: &[String]) -> Result<Url, SyncError> {
    let mut url = endpoint.spaces()?;
    let no_base = || relay_error("its address has no path");
    let mut segments = url.path_segments_mut().map_err(|()| no_base())?;
    segments.pop().extend(path);
    drop(segments);
    Ok(url)
}
