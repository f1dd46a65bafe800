//! Finds the page of a request, and checks method, origin, session, role and form token before it is called. Every answer has the same headers.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::http::header::{ALLOW, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::visit::Visit;
use super::{Refusal, State, activity, audit, devices, layout, operator, overview, sign_in, spaces};
use crate::directory::ConsoleHolder;
use crate::doors::Place;

/// Headers of every answer: browsers load nothing from elsewhere, run no script, show no page in a frame, store nothing, and send no referrer to other sites.
const HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("referrer-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
];

/// The methods that a page accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Get,
    Post,
    Both,
}

/// Who may open a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Anybody,
    SignedIn,
    Account,
    Operator,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Style,
    Icon,
    Link,
    SignOut,
    Overview,
    Devices,
    Device,
    RenameDevice,
    SignDeviceOut,
    Identities,
    Unlink,
    Spaces,
    Join,
    Space,
    RenameSpace,
    DeleteSpace,
    LeaveSpace,
    TransferSpace,
    Invite,
    RevokeInvites,
    SetRole,
    RemoveMember,
    Accounts,
    Account,
    Activity,
    Refusals,
    Audit,
}

/// Every page. `*` stands for an id.
const PAGES: [(&str, Takes, Who, Page); 27] = [
    ("style.css", Takes::Get, Who::Anybody, Page::Style),
    ("icon.svg", Takes::Get, Who::Anybody, Page::Icon),
    ("link/*", Takes::Both, Who::Anybody, Page::Link),
    ("sign-out", Takes::Post, Who::SignedIn, Page::SignOut),
    ("", Takes::Get, Who::SignedIn, Page::Overview),
    ("devices", Takes::Get, Who::Account, Page::Devices),
    ("devices/*", Takes::Get, Who::Account, Page::Device),
    ("devices/*/name", Takes::Post, Who::Account, Page::RenameDevice),
    ("devices/*/sign-out", Takes::Post, Who::Account, Page::SignDeviceOut),
    ("identities", Takes::Get, Who::Account, Page::Identities),
    ("identities/unlink", Takes::Post, Who::Account, Page::Unlink),
    ("spaces", Takes::Both, Who::Account, Page::Spaces),
    ("spaces/join", Takes::Post, Who::Account, Page::Join),
    ("spaces/*", Takes::Get, Who::Account, Page::Space),
    ("spaces/*/name", Takes::Post, Who::Account, Page::RenameSpace),
    ("spaces/*/delete", Takes::Both, Who::Account, Page::DeleteSpace),
    ("spaces/*/leave", Takes::Both, Who::Account, Page::LeaveSpace),
    ("spaces/*/transfer", Takes::Both, Who::Account, Page::TransferSpace),
    ("spaces/*/invite", Takes::Post, Who::Account, Page::Invite),
    ("spaces/*/invites/revoke", Takes::Post, Who::Account, Page::RevokeInvites),
    ("spaces/*/members/role", Takes::Post, Who::Account, Page::SetRole),
    ("spaces/*/members/remove", Takes::Post, Who::Account, Page::RemoveMember),
    ("accounts", Takes::Get, Who::Operator, Page::Accounts),
    ("account", Takes::Get, Who::Operator, Page::Account),
    ("activity", Takes::Get, Who::Operator, Page::Activity),
    ("refusals", Takes::Get, Who::Operator, Page::Refusals),
    ("audit", Takes::Get, Who::SignedIn, Page::Audit),
];

/// Answers a request for anything below `/console`.
pub(super) async fn serve(
    Shared(state): Shared<Arc<State>>,
    Extension(place): Extension<Arc<Place>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let is_bare = parts.uri.path() == "/console";
    let mut visit = Visit::new(&state, place, parts);
    let mut answer = match is_bare {
        // Links of pages are relative to `/console/`.
        true => (StatusCode::PERMANENT_REDIRECT, [(LOCATION, "console/")]).into_response(),
        false => match answer(&state, &mut visit, body).await {
            Ok(answer) => answer,
            Err(refusal) => {
                // For the navigation only; nothing is done with it.
                if visit.signed.is_none() && refusal.status != StatusCode::UNAUTHORIZED {
                    visit.signed = visit.cookie().and_then(|secret| state.sessions.find(secret));
                }
                refused(&visit, &refusal)
            }
        },
    };
    // A browser whose session is over need not show its secret again.
    if answer.status() == StatusCode::UNAUTHORIZED && visit.cookie().is_some() {
        sign_in::drop_cookie(&visit, answer.headers_mut());
    }
    harden(answer.headers_mut());
    answer
}

fn harden(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

async fn answer(state: &State, visit: &mut Visit, body: Body) -> Result<Response, Refusal> {
    let (takes, who, page) = find(&visit.path).ok_or_else(Refusal::not_found)?;
    if !takes.takes(&visit.method) {
        let reason = format!("this page takes {} alone", takes.name());
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, reason));
    }
    let is_form = visit.method == Method::POST;
    if is_form && !visit.is_from_here() {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "this form was not sent by a page of this relay"));
    }
    if who != Who::Anybody {
        visit.signed = Some(sign_in::require(state, visit).await?);
    }
    let signed = visit.signed.clone();
    let holder = signed.as_ref().map(|signed| &signed.holder);
    match (who, holder) {
        (Who::Account, Some(ConsoleHolder::Operator)) => {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "this page is for the holder of an account"));
        }
        (Who::Operator, Some(ConsoleHolder::Account { .. })) => {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "this page is for the operator of the relay"));
        }
        _ => {}
    }
    if is_form {
        visit.read(body).await?;
        if signed.is_some_and(|signed| !signed.has_token(visit.form.get("token"))) {
            let reason = "this form is not of your session: go back, load the page again, and send it again";
            return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
        }
    }
    show(state, visit, page, is_form).await
}

/// Calls the page, after all checks.
async fn show(state: &State, visit: &Visit, page: Page, is_form: bool) -> Result<Response, Refusal> {
    match page {
        Page::Style => Ok(file("text/css; charset=utf-8", include_str!("style.css"))),
        Page::Icon => Ok(file("image/svg+xml", include_str!("icon.svg"))),
        Page::Link if is_form => sign_in::redeem(state, visit).await,
        Page::Link => sign_in::show(state, visit).await,
        Page::SignOut => Ok(sign_in::sign_out(state, visit)),
        Page::Overview => overview::show(state, visit).await,
        Page::Devices => devices::list(state, visit).await,
        Page::Device => devices::show(state, visit).await,
        Page::RenameDevice => devices::rename(state, visit).await,
        Page::SignDeviceOut => devices::sign_out(state, visit).await,
        Page::Identities => devices::identities(state, visit).await,
        Page::Unlink => devices::unlink(state, visit).await,
        Page::Spaces if is_form => spaces::create(state, visit).await,
        Page::Spaces => spaces::list(state, visit).await,
        Page::Join => spaces::join(state, visit).await,
        Page::Space => spaces::show(state, visit).await,
        Page::RenameSpace => spaces::rename(state, visit).await,
        Page::DeleteSpace if is_form => spaces::delete(state, visit).await,
        Page::DeleteSpace => spaces::confirm(state, visit, spaces::Confirmed::Delete).await,
        Page::LeaveSpace if is_form => spaces::leave(state, visit).await,
        Page::LeaveSpace => spaces::confirm(state, visit, spaces::Confirmed::Leave).await,
        Page::TransferSpace if is_form => spaces::transfer(state, visit).await,
        Page::TransferSpace => spaces::confirm(state, visit, spaces::Confirmed::Transfer).await,
        Page::Invite => spaces::invite(state, visit).await,
        Page::RevokeInvites => spaces::revoke_invites(state, visit).await,
        Page::SetRole => spaces::set_role(state, visit).await,
        Page::RemoveMember => spaces::remove_member(state, visit).await,
        Page::Accounts => operator::accounts(state, visit).await,
        Page::Account => operator::account(state, visit).await,
        Page::Activity => Ok(activity::show(state, visit)),
        Page::Refusals => Ok(operator::refusals(state, visit)),
        Page::Audit => audit::show(state, visit).await,
    }
}

fn find(path: &[String]) -> Option<(Takes, Who, Page)> {
    let fits = |pattern: &str| {
        let parts: Vec<&str> = pattern.split('/').collect();
        let fits = |(part, found): (&&str, &String)| *part == found || (*part == "*" && !found.is_empty());
        parts.len() == path.len() && parts.iter().zip(path).all(fits)
    };
    let found = PAGES.iter().find(|(pattern, ..)| fits(pattern));
    found.map(|(_, takes, who, page)| (*takes, *who, *page))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind)], text).into_response()
}

fn refused(visit: &Visit, refusal: &Refusal) -> Response {
    let mut answer = layout::refusal(visit, refusal);
    let header = match refusal.status {
        StatusCode::METHOD_NOT_ALLOWED => {
            let takes = find(&visit.path).map_or("GET", |(takes, ..)| takes.name());
            Some((ALLOW, takes))
        }
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "motet-console-link")),
        StatusCode::TOO_MANY_REQUESTS => Some((RETRY_AFTER, "60")),
        StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "10")),
        _ => None,
    };
    if let Some((name, value)) = header {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

impl Takes {
    fn takes(self, method: &Method) -> bool {
        let reads = method == Method::GET || method == Method::HEAD;
        (reads && self != Self::Post) || (method == Method::POST && self != Self::Get)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Both => "GET, POST",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_found_and_only_signing_in_is_for_anybody() {
        for (pattern, takes, who, page) in PAGES {
            let path: Vec<String> = pattern.split('/').map(|part| part.replace('*', "x1")).collect();
            assert!(find(&path).is_some_and(|found| found == (takes, who, page)), "{pattern}");
            let is_open = ["style.css", "icon.svg", "link/*"].contains(&pattern);
            assert_eq!(who == Who::Anybody, is_open, "{pattern}");
        }
        for path in [&["link", ""][..], &["nothing"], &["devices", "x", ""], &["", ""]] {
            let path: Vec<String> = path.iter().map(ToString::to_string).collect();
            assert!(find(&path).is_none(), "{path:?}");
        }
    }

    #[test]
    fn the_stylesheet_needs_no_exception_of_the_policy() {
        let style = include_str!("style.css");
        for word in ["url(", "@import", "data:"] {
            assert!(!style.contains(word), "{word}");
        }
        assert!(HEADERS.iter().all(|(_, value)| !value.contains("unsafe")));
    }
}
