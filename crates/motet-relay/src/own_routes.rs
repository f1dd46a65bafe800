//! A device's own account over HTTP, as JSON: `/v1/account`, `/v1/account/erasure`, `/v1/audit`, `/v1/audit/{before}`, `/v1/devices`, `/v1/devices/{id}`, `/v1/identities`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use motet_proto::DeviceId;
use serde::Deserialize;
use serde_json::json;

use crate::auth;
use crate::limits;
use crate::own_account::{AccountAnswer, AccountError, AccountRequest, AuditRecord, Device, LinkedIdentity};
use crate::routes::{Answered, Asked, From, Head, Path, answer, bad, unavailable, whole};
use crate::state::Relay;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    issuer: String,
    subject: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Erase {
    #[serde(default, deserialize_with = "whole")]
    after: Option<u64>,
}

/// The routes. `/v1/devices` itself is where devices sign in and out as well.
pub(crate) fn routes() -> Router<Arc<Relay>> {
    Router::new()
        .route("/v1/devices", get(devices))
        .route("/v1/devices/{device}", patch(rename).delete(revoke))
        .route("/v1/identities", get(identities).post(link).delete(unlink))
        .route("/v1/account", get(overview))
        .route("/v1/account/erasure", post(erase).delete(keep))
        .route("/v1/audit", get(audit))
        .route("/v1/audit/{before}", get(audit_before))
}

async fn devices(head: Head) -> Answered {
    ask(&Asked::admit(head).await?, AccountRequest::Devices).await
}

async fn rename(Path(device): Path<String>, from: From) -> Answered {
    let (asked, Named { name }) = from.read().await?;
    ask(&asked, AccountRequest::RenameDevice { device: id(&device)?, name }).await
}

async fn revoke(Path(device): Path<String>, head: Head) -> Answered {
    ask(&Asked::admit(head).await?, AccountRequest::RevokeDevice { device: id(&device)? }).await
}

async fn identities(head: Head) -> Answered {
    ask(&Asked::admit(head).await?, AccountRequest::Identities).await
}

async fn link(from: From) -> Answered {
    let (asked, Token { token }) = from.read().await?;
    ask(&asked, AccountRequest::LinkIdentity { token }).await
}

async fn unlink(from: From) -> Answered {
    let (asked, Subject { issuer, subject }) = from.read().await?;
    ask(&asked, AccountRequest::UnlinkIdentity { issuer, subject }).await
}

async fn overview(head: Head) -> Answered {
    ask(&Asked::admit(head).await?, AccountRequest::Overview).await
}

async fn audit(head: Head) -> Answered {
    ask(&Asked::admit(head).await?, AccountRequest::Audit { before: None }).await
}

async fn audit_before(Path(before): Path<String>, head: Head) -> Answered {
    let asked = Asked::admit(head).await?;
    let is_number = before.bytes().all(|byte| byte.is_ascii_digit());
    let before = before.parse::<i64>().ok().filter(|_| is_number);
    let before = before.ok_or_else(|| bad("no such record: /v1/audit/NUMBER"))?;
    ask(&asked, AccountRequest::Audit { before: Some(before.unsigned_abs()) }).await
}

async fn erase(from: From) -> Answered {
    let (asked, Erase { after }) = from.read().await?;
    let after = after.map_or(limits::ERASURE_AFTER, Duration::from_secs);
    ask(&asked, AccountRequest::Erase { after }).await
}

async fn keep(head: Head) -> Answered {
    ask(&Asked::admit(head).await?, AccountRequest::Keep).await
}

async fn ask(asked: &Asked, request: AccountRequest) -> Answered {
    let authenticator = asked.relay.auth.borrow().clone();
    let own = asked.who().device;
    Ok(match auth::own_account(authenticator, asked.who(), request).await.map_err(refusal)? {
        AccountAnswer::Devices(devices) => {
            let of = |device: &Device| {
                json!({
                    "id": device.id.to_string(), "name": device.name, "platform": device.platform,
                    "version": device.version, "registered_at": device.registered_at,
                    "last_seen_at": device.last_seen_at, "is_this_one": Some(device.id) == own,
                })
            };
            let account = &asked.who().account;
            let devices: Vec<_> = devices.iter().map(of).collect();
            answer(StatusCode::OK, &json!({ "account": account, "devices": devices }))
        }
        AccountAnswer::Identities(identities) => {
            let of = |identity: &LinkedIdentity| {
                json!({
                    "issuer": identity.issuer, "subject": identity.subject, "shown": identity.shown,
                    "linked_at": identity.linked_at, "last_used_at": identity.last_used_at,
                })
            };
            let identities: Vec<_> = identities.iter().map(of).collect();
            answer(StatusCode::OK, &json!({ "identities": identities }))
        }
        AccountAnswer::Overview(account) => {
            let limits = asked.relay.limits();
            answer(
                StatusCode::OK,
                &json!({
                    "account": account.name, "created_at": account.created_at, "erase_at": account.erase_at,
                    "stored_bytes": account.stored_bytes, "documents": account.documents,
                    "limits": {
                        "stored_bytes": limits.bytes_per_account, "documents": limits.documents_per_account,
                        "spaces": limits.spaces_per_account, "sessions": limits.sessions_per_account,
                    },
                }),
            )
        }
        AccountAnswer::Audit(records) => {
            let records: Vec<_> = records.iter().map(AuditRecord::to_json).collect();
            answer(StatusCode::OK, &json!({ "records": records }))
        }
        AccountAnswer::ErasedAt(at) => answer(StatusCode::OK, &json!({ "erase_at": at })),
        AccountAnswer::Done => StatusCode::NO_CONTENT.into_response(),
    })
}

#[allow(clippy::result_large_err, reason = "it is the answer, which goes out next")]
fn id(text: &str) -> Result<DeviceId, Response> {
    text.parse().map_err(|_| refusal(AccountError::NotThere))
}

fn refusal(error: AccountError) -> Response {
    match status(&error) {
        StatusCode::SERVICE_UNAVAILABLE => unavailable(&error.to_string()),
        status => (status, error.to_string()).into_response(),
    }
}

/// What a refusal is in HTTP.
pub(crate) fn status(error: &AccountError) -> StatusCode {
    match error {
        AccountError::NotOffered | AccountError::NotThere => StatusCode::NOT_FOUND,
        AccountError::Bad(_) => StatusCode::BAD_REQUEST,
        AccountError::Conflict(_) => StatusCode::CONFLICT,
        AccountError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}
