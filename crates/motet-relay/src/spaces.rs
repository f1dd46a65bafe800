//! Shared spaces over HTTP, as JSON: `/v1/spaces`, `/v1/spaces/{id}/…`, `/v1/invites/{code}`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use motet_proto::SpaceId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::access;
use crate::limits;
use crate::routes::{Answered, Asked, From, Head, Path, answer, bad, unavailable, whole};
use crate::sharing::{OfferedSpace, Role, SharingAnswer, SharingError, SharingRequest};
use crate::state::Relay;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithRole {
    role: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invitation {
    role: String,
    /// In seconds.
    #[serde(default, deserialize_with = "whole")]
    expires_in: Option<u64>,
    #[serde(default)]
    reusable: bool,
}

/// The routes.
pub(crate) fn routes() -> Router<Arc<Relay>> {
    Router::new()
        .route("/v1/spaces", get(list).post(create))
        .route("/v1/spaces/{space}", patch(rename).delete(remove))
        .route("/v1/spaces/{space}/members", get(members))
        .route("/v1/spaces/{space}/members/{account}", put(set_role).delete(remove_member))
        .route("/v1/spaces/{space}/membership", delete(leave))
        .route("/v1/spaces/{space}/invites", post(invite).delete(revoke_invites))
        .route("/v1/invites/{code}", get(show_invite).post(join))
}

async fn list(head: Head) -> Answered {
    let asked = Asked::admit(head).await?;
    let spaces = access::spaces(asked.relay.access.clone(), asked.who()).await;
    let spaces = spaces.map_err(|error| unavailable(&error.to_string()))?;
    let spaces: Vec<_> = spaces.iter().map(of_space).collect();
    Ok(answer(StatusCode::OK, &json!({ "spaces": spaces })))
}

async fn create(from: From) -> Answered {
    let (asked, Named { name }) = from.read().await?;
    share(&asked, SharingRequest::Create { name }).await
}

async fn rename(Path(space): Path<String>, from: From) -> Answered {
    let (asked, Named { name }) = from.read().await?;
    share(&asked, SharingRequest::Rename { space: id(&space)?, name }).await
}

async fn remove(Path(space): Path<String>, head: Head) -> Answered {
    share(&Asked::admit(head).await?, SharingRequest::Delete { space: id(&space)? }).await
}

async fn members(Path(space): Path<String>, head: Head) -> Answered {
    share(&Asked::admit(head).await?, SharingRequest::Members { space: id(&space)? }).await
}

async fn set_role(Path((space, account)): Path<(String, String)>, from: From) -> Answered {
    let (asked, body) = from.read::<WithRole>().await?;
    share(&asked, SharingRequest::SetRole { space: id(&space)?, account, role: role(&body.role)? }).await
}

async fn remove_member(Path((space, account)): Path<(String, String)>, head: Head) -> Answered {
    share(&Asked::admit(head).await?, SharingRequest::Remove { space: id(&space)?, account }).await
}

async fn leave(Path(space): Path<String>, head: Head) -> Answered {
    share(&Asked::admit(head).await?, SharingRequest::Leave { space: id(&space)? }).await
}

async fn invite(Path(space): Path<String>, from: From) -> Answered {
    let (asked, body) = from.read::<Invitation>().await?;
    let expires_after = body.expires_in.map(lifetime).transpose().map_err(|reason| bad(&reason))?;
    let (space, role, is_reusable) = (id(&space)?, role(&body.role)?, body.reusable);
    share(&asked, SharingRequest::Invite { space, role, expires_after, is_reusable }).await
}

async fn revoke_invites(Path(space): Path<String>, head: Head) -> Answered {
    share(&Asked::admit(head).await?, SharingRequest::RevokeInvites { space: id(&space)? }).await
}

async fn show_invite(Path(code): Path<String>, head: Head) -> Answered {
    share(&Asked::admit(head).await?, SharingRequest::ShowInvite { code }).await
}

async fn join(Path(code): Path<String>, head: Head) -> Answered {
    share(&Asked::admit(head).await?, SharingRequest::Join { code }).await
}

async fn share(asked: &Asked, request: SharingRequest) -> Answered {
    let done = match &request {
        SharingRequest::Create { .. } | SharingRequest::Invite { .. } => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let shared = access::share(asked.relay.access.clone(), asked.who(), &request).await;
    Ok(match shared.map_err(refusal)? {
        SharingAnswer::Space(space) => answer(done, &of_space(&space)),
        SharingAnswer::Members(members) => {
            let of = |(account, role): &(String, Role)| json!({ "account": account, "role": role.name() });
            answer(done, &json!({ "members": members.iter().map(of).collect::<Vec<_>>() }))
        }
        SharingAnswer::Code { code, expires_at } => {
            answer(done, &json!({ "code": code, "expires_at": expires_at }))
        }
        SharingAnswer::Invite(invite) => {
            let space =
                OfferedSpace { id: invite.space, name: invite.name, owner: invite.owner, role: invite.role };
            let mut told = of_space(&space);
            told["expires_at"] = invite.expires_at.into();
            answer(done, &told)
        }
        SharingAnswer::Done => StatusCode::NO_CONTENT.into_response(),
    })
}

fn of_space(space: &OfferedSpace) -> Value {
    let OfferedSpace { id, name, owner, role } = space;
    json!({ "id": id.to_string(), "name": name, "owner": owner, "role": role.name() })
}

#[allow(clippy::result_large_err, reason = "it is the answer, which goes out next")]
fn id(text: &str) -> Result<SpaceId, Response> {
    // What is no id is not there either.
    text.parse().map_err(|_| refusal(SharingError::NoSpace))
}

#[allow(clippy::result_large_err, reason = "it is the answer, which goes out next")]
fn role(text: &str) -> Result<Role, Response> {
    role_named(text).map_err(bad)
}

/// A role by its name.
pub(crate) fn role_named(text: &str) -> Result<Role, &'static str> {
    let known = [Role::Reader, Role::Writer, Role::Owner].into_iter().find(|role| role.name() == text);
    known.ok_or("role: it is \"reader\", \"writer\" or \"owner\"")
}

/// How long an invitation is good that is asked for with so many seconds.
pub(crate) fn lifetime(seconds: u64) -> Result<Duration, String> {
    let longest = limits::INVITE_LONGEST.as_secs();
    let is_allowed = (1..=longest).contains(&seconds);
    is_allowed
        .then(|| Duration::from_secs(seconds))
        .ok_or_else(|| format!("expires_in: an invitation is good for 1 to {longest} seconds"))
}

fn refusal(error: SharingError) -> Response {
    match status(&error) {
        StatusCode::SERVICE_UNAVAILABLE => unavailable(&error.to_string()),
        status => (status, error.to_string()).into_response(),
    }
}

/// What a refusal is in HTTP.
pub(crate) fn status(error: &SharingError) -> StatusCode {
    match error {
        SharingError::NotOffered | SharingError::NoSpace | SharingError::NoInvite => StatusCode::NOT_FOUND,
        SharingError::NotOwner => StatusCode::FORBIDDEN,
        SharingError::Bad(_) => StatusCode::BAD_REQUEST,
        SharingError::Conflict(_) => StatusCode::CONFLICT,
        SharingError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}
