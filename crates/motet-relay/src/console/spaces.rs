//! The shared spaces of one's own account: each with who shares it, and what may be done with it.

mod pages;

use axum::http::StatusCode;
use axum::response::Response;
use motet_proto::SpaceId;

use super::visit::Visit;
use super::{Refusal, State, layout};
use crate::access::{self, Access};
use crate::auth::Principal;
use crate::sharing::{OfferedSpace, Role, SharingAnswer, SharingError, SharingRequest};
use crate::spaces::{lifetime, role_named};
pub(super) use pages::Confirmed;

/// All that the account shares.
pub(super) async fn list(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (_, who) = visit.account()?;
    let spaces = offered(state, &who).await?;
    Ok(layout::page(visit, "Spaces", &pages::list(visit, &spaces)))
}

pub(super) async fn create(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (_, who) = visit.account()?;
    let name = visit.form.get("name").to_owned();
    let made = state.share(&who, SharingRequest::Create { name }).await?;
    Ok(to_space(visit, &made, "space-made"))
}

pub(super) async fn join(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (_, who) = visit.account()?;
    let code = visit.form.get("code").to_owned();
    let joined = state.share(&who, SharingRequest::Join { code }).await?;
    Ok(to_space(visit, &joined, "space-joined"))
}

/// One of them.
pub(super) async fn show(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (_, who) = visit.account()?;
    let space = one(state, visit, &who).await?;
    let members = members(state, &who, space.id).await?;
    let entries = entries(state, &who, space.id).await;
    let body = pages::space(visit, &space, &members, entries);
    Ok(layout::page_of(visit, "Space", &space.name, &body))
}

pub(super) async fn rename(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (space, name) = (id(visit)?, visit.form.get("name").to_owned());
    done(state, visit, SharingRequest::Rename { space, name }, "space-renamed").await
}

/// Asks whether somebody means it.
pub(super) async fn confirm(state: &State, visit: &Visit, confirmed: Confirmed) -> Result<Response, Refusal> {
    let (_, who) = visit.account()?;
    let space = one(state, visit, &who).await?;
    if confirmed != Confirmed::Leave && space.role != Role::Owner {
        return Err(SharingError::NotOwner.into());
    }
    let members = members(state, &who, space.id).await?;
    Ok(layout::page(visit, confirmed.title(), &pages::confirm(visit, &space, &members, confirmed)))
}

pub(super) async fn delete(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (_, who) = visit.account()?;
    state.share(&who, SharingRequest::Delete { space: id(visit)? }).await?;
    Ok(layout::see_other(visit, "spaces?done=space-deleted"))
}

pub(super) async fn leave(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (_, who) = visit.account()?;
    state.share(&who, SharingRequest::Leave { space: id(visit)? }).await?;
    Ok(layout::see_other(visit, "spaces?done=space-left"))
}

pub(super) async fn transfer(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let request = SharingRequest::SetRole { space: id(visit)?, account: member(visit), role: Role::Owner };
    done(state, visit, request, "space-transferred").await
}

pub(super) async fn set_role(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let role = role(visit)?;
    if role == Role::Owner {
        // Which is asked for once more, on a page of its own.
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "a member reads, or writes as well"));
    }
    let request = SharingRequest::SetRole { space: id(visit)?, account: member(visit), role };
    done(state, visit, request, "role-changed").await
}

pub(super) async fn remove_member(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let request = SharingRequest::Remove { space: id(visit)?, account: member(visit) };
    done(state, visit, request, "member-removed").await
}

pub(super) async fn revoke_invites(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    done(state, visit, SharingRequest::RevokeInvites { space: id(visit)? }, "invites-revoked").await
}

/// Makes a code, and shows it in the answer: this once.
pub(super) async fn invite(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (_, who) = visit.account()?;
    let (space, role) = (id(visit)?, role(visit)?);
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let seconds = visit.form.get("expires_in").parse();
    let seconds = seconds.map_err(|_| bad("expires_in: it is a number of seconds".into()))?;
    let expires_after = Some(lifetime(seconds).map_err(bad)?);
    let is_reusable = visit.form.get("reusable") == "yes";
    let request = SharingRequest::Invite { space, role, expires_after, is_reusable };
    match state.share(&who, request).await? {
        SharingAnswer::Code { code, expires_at } => {
            let body = pages::code(visit, space, &code, role, expires_at, is_reusable);
            Ok(layout::page(visit, "Invitation", &body))
        }
        _ => Err(Refusal::unavailable()),
    }
}

/// Does what is asked for, and shows the space again.
async fn done(
    state: &State,
    visit: &Visit,
    request: SharingRequest,
    code: &str,
) -> Result<Response, Refusal> {
    let (_, who) = visit.account()?;
    state.share(&who, request).await?;
    Ok(layout::see_other(visit, &format!("spaces/{}?done={code}", id(visit)?)))
}

fn to_space(visit: &Visit, answer: &SharingAnswer, code: &str) -> Response {
    match answer {
        SharingAnswer::Space(space) => layout::see_other(visit, &format!("spaces/{}?done={code}", space.id)),
        _ => layout::see_other(visit, &format!("spaces?done={code}")),
    }
}

async fn offered(state: &State, who: &Principal) -> Result<Vec<OfferedSpace>, Refusal> {
    let spaces = access::spaces(state.relay.access.clone(), who).await;
    spaces.map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

/// The space of the path, as it is for the account.
async fn one(state: &State, visit: &Visit, who: &Principal) -> Result<OfferedSpace, Refusal> {
    let id = id(visit)?;
    let found = offered(state, who).await?.into_iter().find(|space| space.id == id);
    found.ok_or_else(|| SharingError::NoSpace.into())
}

async fn members(state: &State, who: &Principal, space: SpaceId) -> Result<Vec<(String, Role)>, Refusal> {
    match state.share(who, SharingRequest::Members { space }).await? {
        SharingAnswer::Members(members) => Ok(members),
        _ => Ok(Vec::new()),
    }
}

/// How many entries the log of a space has taken in; `None` if that is not known now.
async fn entries(state: &State, who: &Principal, space: SpaceId) -> Option<u64> {
    let access: Access = access::authorize(state.relay.access.clone(), who.clone(), space).await.ok()?;
    state.relay.store.head(&access.log(space)).await.ok()
}

fn id(visit: &Visit) -> Result<SpaceId, Refusal> {
    // What is no id is not there either.
    visit.id().parse().map_err(|_| SharingError::NoSpace.into())
}

fn role(visit: &Visit) -> Result<Role, Refusal> {
    let role = role_named(visit.form.get("role"));
    role.map_err(|reason| Refusal::new(StatusCode::BAD_REQUEST, reason))
}

fn member(visit: &Visit) -> String {
    visit.form.get("account").to_owned()
}
