//! Signing in with a link, and out.

use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use maud::html;

use super::visit::Visit;
use super::{Refusal, Signed, State, layout};
use crate::directory::ConsoleHolder;

/// Why a link was refused, for the log and the metrics.
const LINK_INVALID: &str = "console-link-invalid";

/// The same of the secret in a cookie.
const SESSION_INVALID: &str = "console-session-invalid";

/// The session of a request. It ends here if the account or the device that it depends on is gone.
pub(super) async fn require(state: &State, visit: &Visit) -> Result<Signed, Refusal> {
    let Some(secret) = visit.cookie() else {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "you are not signed in"));
    };
    let over = "you are not signed in any more, or never were";
    let Some(signed) = state.sessions.find(secret) else {
        return Err(refused(state, visit, SESSION_INVALID, StatusCode::UNAUTHORIZED, over).await);
    };
    let holder = signed.holder.clone();
    // The session of an operator depends on no account, so it also works while the accounts cannot be read.
    if holder != ConsoleHolder::Operator
        && !state.read(move |directory| directory.is_console_holder(&holder)).await?
    {
        state.sessions.end(&signed.hash);
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, over));
    }
    Ok(signed)
}

/// Shows whom a link signs in. This does not use the link: programs that preview links open them before people do.
pub(super) async fn show(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let link = visit.id().to_owned();
    let holder = state.read(move |directory| directory.console_link(&link)).await?;
    let Some(holder) = holder else { return Err(invalid(state, visit).await) };
    let who = match &holder {
        ConsoleHolder::Operator => html! { "the operator of this relay" },
        ConsoleHolder::Account { name, .. } => layout::name(name),
    };
    let hours = state.sessions.lifetime().as_secs() / 3_600;
    let body = html! {
        p { "This link signs this browser in, once, for " (hours) " hours." }
        (layout::form(visit, &visit.path.join("/"), &html! { button { "Sign in as " (who) } }))
    };
    Ok(layout::page(visit, "Sign in", &body))
}

/// Uses a link.
pub(super) async fn redeem(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let link = visit.id().to_owned();
    let holder = state.read(move |directory| directory.redeem_console_link(&link)).await?;
    let Some(holder) = holder else { return Err(invalid(state, visit).await) };
    // A browser has one session.
    if let Some(before) = visit.cookie().and_then(|secret| state.sessions.find(secret)) {
        state.sessions.end(&before.hash);
    }
    tracing::info!(
        is_operator = (holder == ConsoleHolder::Operator),
        "somebody has signed in to the console"
    );
    let secret = state.sessions.begin(holder).ok_or_else(Refusal::unavailable)?;
    let mut answer = layout::see_other(visit, "");
    put_cookie(visit, answer.headers_mut(), &secret, state.sessions.lifetime().as_secs());
    Ok(answer)
}

/// Ends the session.
pub(super) fn sign_out(state: &State, visit: &Visit) -> Response {
    if let Some(signed) = &visit.signed {
        state.sessions.end(&signed.hash);
    }
    let mut answer = layout::see_other(visit, "");
    drop_cookie(visit, answer.headers_mut());
    answer
}

/// Has the browser forget the cookie.
pub(super) fn drop_cookie(visit: &Visit, headers: &mut HeaderMap) {
    put_cookie(visit, headers, "", 0);
}

/// The cookie is not sent with requests from other sites, and scripts cannot read it. It is for all paths, because the path below which a proxy serves
/// the relay is not known here.
fn put_cookie(visit: &Visit, headers: &mut HeaderMap, secret: &str, seconds: u64) {
    let secure = if visit.is_https { "; Secure" } else { "" };
    let name = visit.cookie_name();
    let cookie = format!("{name}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        headers.insert(SET_COOKIE, cookie);
    }
}

async fn invalid(state: &State, visit: &Visit) -> Refusal {
    let reason = "this link is not valid any more, or never was: it is good once, for ten minutes";
    refused(state, visit, LINK_INVALID, StatusCode::NOT_FOUND, reason).await
}

/// A wrong secret counts as a wrong token of its address, and its answer is delayed in the same way.
async fn refused(
    state: &State,
    visit: &Visit,
    code: &'static str,
    status: StatusCode,
    reason: &'static str,
) -> Refusal {
    match state.relay.refuse_secret(&visit.headers, &visit.place, code).await {
        Ok(()) => Refusal::new(status, reason),
        Err(too_many) => Refusal::new(StatusCode::TOO_MANY_REQUESTS, too_many),
    }
}
