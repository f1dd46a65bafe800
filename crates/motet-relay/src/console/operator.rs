//! What the operator sees: how the relay is, the accounts, and who was refused. No document and no name of one.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::layout::Column;
use super::visit::Visit;
use super::{Refusal, State, devices, layout, overview};
use crate::directory::{Account, Device, DirectoryError, SharedSpace};
use crate::limits;
use crate::sharing::Role;
use crate::store::StoreState;

/// How the relay is.
pub(super) async fn overview(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let has_accounts = state.directory.borrow().is_some();
    let accounts = match has_accounts {
        true => Some(state.read(|directory| directory.accounts()).await?.len()),
        false => None,
    };
    let (health, store) = (health(state).await, state.relay.store.state());
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "not known".into(), layout::size);
    let open = state.relay.most_sessions - state.relay.sessions.available_permits();
    let body = html! {
        dl class="facts" {
            div { dt { "Health" } dd { (health) } }
            div { dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) } }
            div { dt { "Up for" } dd { (layout::span(state.began.elapsed())) } }
            div { dt { "Stored" } dd { (bytes(store.stored_bytes)) } }
            div { dt { "Free on the disk" } dd { (bytes(store.free_bytes)) } }
            div { dt { "Live sessions" } dd { (layout::number(open as u64)) " of " (layout::number(state.relay.most_sessions as u64)) } }
            div {
                dt { "Accounts" }
                dd { a href=(visit.link("accounts")) { @match accounts { Some(count) => (layout::number(count as u64)), None => "none" } } }
            }
        }
    };
    Ok(layout::page(visit, "Overview", &body))
}

/// What `/readyz` says.
async fn health(state: &State) -> Markup {
    let found = state.relay.health.check(&*state.relay.store).await;
    let StoreState { is_full, damage, .. } = state.relay.store.state();
    match found {
        Err(error) => html! { strong class="bad" { "not ready: " (error) } },
        Ok(()) if is_full => html! { strong class="bad" { "read-only: the disk is full" } },
        Ok(()) => match damage {
            Some(damage) => html! {
                strong class="bad" { "ready, but relay.db is damaged: stop the relay and run motet-relay repair" }
                p { (damage) }
            },
            None => html! { "ready" },
        },
    }
}

/// The accounts, some on each page.
pub(super) async fn accounts(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let after = visit.query.get("after").to_owned();
    let read = state.read(|directory| Ok((directory.accounts()?, directory.spaces()?)));
    let ((all, spaces), stored) = (read.await?, state.stored(None).await?);
    let (count, before) = (all.len(), all.partition_point(|account| *account.name <= *after));
    let shown: Vec<Account> = all.into_iter().skip(before).take(limits::CONSOLE_ROWS).collect();
    let is_last = before + shown.len() == count;
    let rows = html! {
        @for account in &shown {
            @let has = stored.as_ref().map(|stored| stored.get(&account.name).copied().unwrap_or_default());
            tr {
                th scope="row" {
                    a href=(visit.link(&format!("account?name={}", encoded(&account.name)))) { (layout::name(&account.name)) }
                }
                td class="number" { (account.devices) }
                td class="number" { (of_account(&spaces, &account.name).count()) }
                td class="number" { @match has { Some(has) => (layout::size(has.bytes)), None => "not known" } }
                td class="number" { @match has { Some(has) => (layout::number(has.documents)), None => "not known" } }
                td class="number" { (state.relay.accounts.sessions(&account.name).values().sum::<usize>()) }
                td { (layout::time_or_never(account.last_seen_at)) }
            }
        }
    };
    let head = [
        Column::Text("Name"),
        Column::Number("Devices"),
        Column::Number("Shared spaces"),
        Column::Number("Stored"),
        Column::Number("Documents"),
        Column::Number("Live sessions"),
        Column::Text("Last seen"),
    ];
    let body = html! {
        @if shown.is_empty() { p { "There is none." } } @else { (layout::table("Accounts", &head, &rows)) }
        @if !after.is_empty() { p { a href=(visit.link("accounts")) { "From the first" } } }
        @if let Some(last) = shown.last().filter(|_| !is_last) {
            p { a href=(visit.link(&format!("accounts?after={}", encoded(&last.name)))) { "Further accounts" } }
        }
    };
    Ok(layout::page(visit, "Accounts", &body))
}

/// One account.
pub(super) async fn account(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let asked = visit.query.get("name").to_owned();
    let name = asked.clone();
    let read = state.read(move |directory| {
        let account = directory.accounts()?.into_iter().find(|account| account.name == name);
        let devices = match directory.devices(Some(&name)) {
            Err(DirectoryError::NoAccount(_)) => Vec::new(),
            devices => devices?,
        };
        Ok((account, devices, directory.spaces()?))
    });
    let (account, devices, spaces): (Option<Account>, Vec<Device>, Vec<SharedSpace>) = read.await?;
    let account = account
        .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("there is no account {asked:?}")))?;
    let stored = state.stored(Some(&asked)).await?;
    let open = state.relay.accounts.sessions(&account.name);
    let of_spaces = [
        Column::Text("Name"),
        Column::Text("Role"),
        Column::Text("Owner"),
        Column::Number("Members"),
        Column::Text("Made"),
    ];
    let rows = html! {
        @for space in of_account(&spaces, &account.name) {
            tr {
                th scope="row" { (layout::name(&space.name)) }
                td { (role(space, &account.name).map_or("", Role::name)) }
                td { (layout::name(&space.owner)) }
                td class="number" { (space.members.len() + 1) }
                td { (layout::time(space.created_at)) }
            }
        }
    };
    let body = html! {
        dl class="facts" {
            (overview::storage(state, &account.name, stored.as_ref()))
            div { dt { "Live sessions" } dd { (open.values().sum::<usize>()) } }
            div { dt { "Added" } dd { (layout::time(account.created_at)) } }
            div { dt { "Last seen" } dd { (layout::time_or_never(account.last_seen_at)) } }
        }
        h2 { "Devices" }
        @if devices.is_empty() { p { "There is none." } } @else { (devices::table(&devices, &open, |_| None)) }
        h2 { "Shared spaces" }
        @if of_account(&spaces, &account.name).next().is_none() {
            p { "There is none." }
        } @else {
            (layout::table("Shared spaces", &of_spaces, &rows))
        }
    };
    Ok(layout::page_of(visit, "Account", &account.name, &body))
}

/// Who was refused lately.
pub(super) fn refusals(state: &State, visit: &Visit) -> Response {
    let lately = state.relay.strangers.lately();
    let head =
        [Column::Text("Last"), Column::Text("Address"), Column::Text("Reason"), Column::Number("Times")];
    let rows = html! {
        @for refused in &lately {
            tr {
                th scope="row" { (layout::time(layout::ms(refused.at))) }
                td { code { (refused.address) } }
                td { code { (refused.reason) } }
                td class="number" { (layout::number(refused.times)) }
            }
        }
    };
    let body = html! {
        p {
            "Addresses whose requests were refused because of who sends them, since the relay was started: the last "
            (limits::REFUSALS_KEPT) " of them. An IPv6 network of 64 bits counts as one address."
        }
        @if lately.is_empty() {
            p { "There is none." }
        } @else {
            (layout::table("Refused sign-ins", &head, &rows))
        }
    };
    layout::page(visit, "Refused sign-ins", &body)
}

/// The shared spaces that an account owns or is a member of.
fn of_account<'s>(spaces: &'s [SharedSpace], account: &'s str) -> impl Iterator<Item = &'s SharedSpace> {
    spaces.iter().filter(move |space| role(space, account).is_some())
}

fn role(space: &SharedSpace, account: &str) -> Option<Role> {
    match space.owner == account {
        true => Some(Role::Owner),
        false => space.members.iter().find(|(name, _)| name == account).map(|(_, role)| *role),
    }
}

/// As it may stand behind `?`.
fn encoded(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}
