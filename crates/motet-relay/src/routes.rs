//! What routes with JSON have in common: who asks is known before a body is read, and bodies are bounded.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
use tokio::time::timeout;

use crate::auth::Principal;
use crate::doors::Place;
use crate::limits;
use crate::state::{Admitted, Relay};

/// A request without a body, of which it is not known yet who sends it.
pub(crate) struct Head {
    relay: Arc<Relay>,
    place: Arc<Place>,
    headers: HeaderMap,
}

/// The same of one with a body.
pub(crate) struct From {
    head: Head,
    body: Body,
}

/// What the path names. What cannot be read names nothing, and is answered like that: only to somebody who may speak.
pub(crate) struct Path<T>(pub(crate) T);

/// Who asks, once that is known.
pub(crate) struct Asked {
    pub(crate) relay: Arc<Relay>,
    admitted: Admitted,
}

/// An answer that is one in any case.
pub(crate) type Answered = Result<Response, Response>;

impl FromRequestParts<Arc<Relay>> for Head {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, relay: &Arc<Relay>) -> Result<Self, Response> {
        let place = parts.extensions.get::<Arc<Place>>().cloned();
        let place = place.ok_or_else(|| StatusCode::INTERNAL_SERVER_ERROR.into_response())?;
        Ok(Self { relay: relay.clone(), place, headers: parts.headers.clone() })
    }
}

impl FromRequest<Arc<Relay>> for From {
    type Rejection = Response;

    async fn from_request(request: Request, relay: &Arc<Relay>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        Ok(Self { head: Head::from_request_parts(&mut parts, relay).await?, body })
    }
}

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Relay>> for Path<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, relay: &Arc<Relay>) -> Result<Self, Response> {
        if let Ok(extract::Path(named)) = extract::Path::from_request_parts(parts, relay).await {
            return Ok(Self(named));
        }
        Asked::admit(Head::from_request_parts(parts, relay).await?).await?;
        Err((StatusCode::NOT_FOUND, "there is nothing of this name").into_response())
    }
}

impl From {
    /// Who asks, and what.
    pub(crate) async fn read<T: DeserializeOwned>(self) -> Result<(Asked, T), Response> {
        let asked = Asked::admit(self.head).await?;
        Ok((asked, read(self.body).await?))
    }
}

impl Asked {
    pub(crate) async fn admit(Head { relay, place, headers }: Head) -> Result<Self, Response> {
        let admitted = relay.admit(&headers, &place).await.map_err(IntoResponse::into_response)?;
        Ok(Self { relay, admitted })
    }

    pub(crate) fn who(&self) -> &Principal {
        &self.admitted.who
    }
}

async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Response> {
    let bytes = timeout(limits::REGISTRATION_TIMEOUT, to_bytes(body, limits::JSON_BYTES));
    let refused =
        |status: StatusCode, reason: String| (status, [(CONNECTION, "close")], reason).into_response();
    let bytes = match bytes.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let reason = format!("a request has at most {} bytes", limits::JSON_BYTES);
            return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, reason));
        }
        Err(_) => return Err(refused(StatusCode::REQUEST_TIMEOUT, "the request did not arrive".into())),
    };
    object(&bytes).map_err(|reason| bad(&format!("no such request: {reason}")))
}

/// Reads a JSON object. Of a list serde would take the members by their places.
pub(crate) fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let object: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    serde_json::from_value(Value::Object(object)).map_err(|e| e.to_string())
}

/// An answer in JSON, which nobody on the way keeps.
pub(crate) fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

pub(crate) fn bad(reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, reason.to_owned()).into_response()
}

pub(crate) fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], reason.to_owned()).into_response()
}

/// A whole number, however it is written: JSON has one kind of number, and programs write 60 as `60.0` too.
pub(crate) fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(from)? else { return Ok(None) };
    let is_whole = |number: &f64| number.fract() == 0.0 && (0.0..=WHOLE_MOST).contains(number);
    let whole = number.as_u64().or_else(|| number.as_f64().filter(is_whole).map(|number| number as u64));
    whole.map(Some).ok_or_else(|| D::Error::custom(format!("{number} is not a whole number")))
}

/// Up to here each whole number has a float of its own.
const WHOLE_MOST: f64 = (1_u64 << 53) as f64;
