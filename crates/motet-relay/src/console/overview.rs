//! The first page: for the holder of an account what it has, for the operator how the relay is.

use std::collections::HashMap;

use axum::response::Response;
use maud::{Markup, html};

use super::visit::Visit;
use super::{Refusal, State, layout, operator};
use crate::access;
use crate::own_account::{AccountAnswer, AccountRequest};
use crate::store::sqlite::Stored;

pub(super) async fn show(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let Ok((account, who)) = visit.account() else { return operator::overview(state, visit).await };
    let stored = state.stored(Some(account)).await?;
    let name = account.to_owned();
    let erase_at = state.read(move |directory| directory.account(&name)).await?.erase_at;
    let devices = match state.own(account, AccountRequest::Devices).await? {
        AccountAnswer::Devices(devices) => devices.len(),
        _ => 0,
    };
    let spaces =
        access::spaces(state.relay.access.clone(), &who).await.map_err(|_| Refusal::unavailable())?;
    let sessions: usize = state.relay.accounts.sessions(account).values().sum();
    let body = html! {
        @if let Some(at) = erase_at {
            p { strong class="bad" { "This account is erased " (layout::time(at)) ". To keep it: motet account keep, on one of its devices." } }
        }
        dl class="facts" {
            (storage(state, account, stored.as_ref()))
            div { dt { "Devices" } dd { a href=(visit.link("devices")) { (devices) " signed in" } } }
            div { dt { "Shared spaces" } dd { a href=(visit.link("spaces")) { (spaces.len()) } } }
            div { dt { "Live sessions" } dd { (sessions) } }
        }
    };
    Ok(layout::page(visit, "Overview", &body))
}

/// What an account has stored of what it may.
pub(super) fn storage(state: &State, account: &str, stored: Option<&HashMap<String, Stored>>) -> Markup {
    let limits = state.relay.limits();
    let Some(stored) = stored else {
        return html! { div { dt { "Storage" } dd { "not known now" } } };
    };
    let has = stored.get(account).copied().unwrap_or_default();
    let (bytes, most) = (layout::size(has.bytes), layout::size(limits.bytes_per_account));
    html! {
        div {
            dt { "Storage" }
            dd {
                (bytes) " of " (most)
                meter aria-label="Storage used" min="0" max=(limits.bytes_per_account) value=(has.bytes) {}
            }
        }
        div {
            dt { "Documents" }
            dd { (layout::number(has.documents)) " of " (layout::number(limits.documents_per_account)) }
        }
    }
}
