//! Signing in: `GET /v1/sign-in` says how, `POST /v1/devices` signs a device in, with a sign-in key or an identity token, `DELETE /v1/devices` signs it
//! out.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use motet_proto::DeviceId;
use motet_proto::device_key::PublicKey;
use motet_proto::limits as proto;
use serde::Deserialize;
use tokio::time::timeout;

use crate::auth::{self, RegisterError, Registration, SignInMethods};
use crate::doors::Place;
use crate::identity::OfferedIssuer;
use crate::limits;
use crate::routes;
use crate::state::Relay;

/// What a device sends.
#[derive(Deserialize)]
struct Sent {
    credential: String,
    device: String,
    key: String,
    signature: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    platform: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    account: Option<String>,
}

/// Registers a device, and answers with its account as JSON.
pub(crate) async fn register(relay: Arc<Relay>, place: Arc<Place>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let device = match read(body).await {
        Ok(device) => device,
        Err((status, reason)) => return (status, [(CONNECTION, "close")], reason).into_response(),
    };
    match relay.register(&parts.headers, &place, &device).await {
        Ok(account) => {
            tracing::info!(device = %device.device, "a device has signed in");
            let answer = serde_json::json!({ "account": account }).to_string();
            ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], answer).into_response()
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Signs out the device that asks for it.
pub(crate) async fn sign_out(relay: Arc<Relay>, place: Arc<Place>, headers: &HeaderMap) -> Response {
    let admitted = match relay.admit(headers, &place).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    let authenticator = relay.auth.borrow().clone();
    match auth::sign_out(authenticator, &admitted.who).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(RegisterError::NotOffered) => {
            (StatusCode::CONFLICT, "only a device that has signed in can sign out").into_response()
        }
        Err(error) => {
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], error.to_string()).into_response()
        }
    }
}

/// Answers with how devices can sign in, as JSON. Anybody may ask.
pub(crate) fn methods(relay: &Relay) -> Response {
    let SignInMethods { keys, issuers } = auth::sign_in_methods(&**relay.auth.borrow());
    let of = |issuer: OfferedIssuer| {
        let OfferedIssuer { label, url, audience, requires_nonce } = issuer;
        serde_json::json!({ "name": label, "url": url, "audience": audience, "nonce": requires_nonce })
    };
    let issuers: Vec<_> = issuers.into_iter().map(of).collect();
    let answer = serde_json::json!({ "sign_in_keys": keys, "issuers": issuers }).to_string();
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], answer).into_response()
}

async fn read(body: Body) -> Result<Registration, (StatusCode, String)> {
    let bad = |reason: String| (StatusCode::BAD_REQUEST, reason);
    let bytes = timeout(limits::REGISTRATION_TIMEOUT, axum::body::to_bytes(body, proto::REGISTRATION_BYTES));
    let bytes = match bytes.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let most = proto::REGISTRATION_BYTES;
            return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("a registration has at most {most} bytes")));
        }
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the registration did not arrive".into())),
    };
    let body: Sent = routes::object(&bytes).map_err(|e| bad(format!("no registration: {e}")))?;
    if body.credential.len() > proto::CREDENTIAL_BYTES {
        return Err(bad(format!("credential: it has more than {} bytes", proto::CREDENTIAL_BYTES)));
    }
    let device: DeviceId = body.device.parse().map_err(|e| bad(format!("device: {e}")))?;
    let key = PublicKey::parse(&body.key).map_err(|e| bad(format!("key: {e}")))?;
    let fits = key.check_registration(device, &body.credential, &body.signature);
    fits.map_err(|e| bad(format!("signature: {e}")))?;
    let [name, platform, version] =
        [("name", body.name), ("platform", body.platform), ("version", body.version)].map(|(field, text)| {
            let is_shown = text.len() <= proto::DEVICE_NAME_BYTES && !text.chars().any(char::is_control);
            is_shown.then_some(text).ok_or_else(|| {
                bad(format!(
                    "{field}: it has more than {} bytes, or control characters",
                    proto::DEVICE_NAME_BYTES
                ))
            })
        });
    let (name, platform, version) = (name?, platform?, version?);
    let bound_to = body.account.map(|account| account.parse()).transpose();
    let bound_to = bound_to.map_err(|e| bad(format!("account: {e}")))?;
    Ok(Registration { credential: body.credential, device, key, name, platform, version, bound_to })
}
