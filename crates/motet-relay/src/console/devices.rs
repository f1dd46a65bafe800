//! The devices and identities of one's own account.

use std::collections::HashMap;

use axum::response::Response;
use maud::{Markup, html};
use motet_proto::DeviceId;

use super::layout::Column;
use super::visit::Visit;
use super::{Refusal, State, layout};
use crate::own_account::{AccountAnswer, AccountError, AccountRequest, Device, LinkedIdentity};

/// The devices that are signed in.
pub(super) async fn list(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (account, _) = visit.account()?;
    let devices = devices(state, account).await?;
    let open = state.relay.accounts.sessions(account);
    let body = html! {
        @if devices.is_empty() {
            p { "No device is signed in." }
        } @else {
            (table(&devices, &open, |device| Some(visit.link(&format!("devices/{}", device.id)))))
        }
    };
    Ok(layout::page(visit, "Devices", &body))
}

/// Devices in a table. `link`: the page of one, if it has one.
pub(super) fn table(
    devices: &[Device],
    open: &HashMap<DeviceId, usize>,
    link: impl Fn(&Device) -> Option<String>,
) -> Markup {
    let now = |device: &Device| match (device.revoked_at, open.get(&device.id)) {
        (Some(at), _) => html! { "signed out " (layout::time(at)) },
        (None, Some(_)) => html! { "connected" },
        (None, None) => html! { "not connected" },
    };
    let rows = html! {
        @for device in devices {
            tr {
                th scope="row" {
                    @match link(device) {
                        Some(link) => a href=(link) { (layout::name(&device.name)) },
                        None => (layout::name(&device.name)),
                    }
                }
                td { (now(device)) }
                td { (layout::name(&device.platform)) }
                td { (layout::name(&device.version)) }
                td { (layout::time(device.registered_at)) }
                td { (layout::time(device.last_seen_at)) }
            }
        }
    };
    let head = ["Name", "Now", "Platform", "Program", "First seen", "Last seen"].map(Column::Text);
    layout::table("Devices", &head, &rows)
}

/// One of them, with what can be done to it.
pub(super) async fn show(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (account, _) = visit.account()?;
    let id = id(visit)?;
    let devices = devices(state, account).await?;
    let device = devices.iter().find(|device| device.id == id).ok_or(AccountError::NotThere)?;
    let open = state.relay.accounts.sessions(account).get(&id).copied().unwrap_or(0);
    let rename = html! {
        label for="name" { "Name" }
        input #name name="name" dir="auto" required maxlength="64" autocomplete="off" value=(device.name);
        button { "Rename" }
    };
    let body = html! {
        dl class="facts" {
            div { dt { "Sessions now" } dd { (open) } }
            div { dt { "Platform" } dd { (layout::name(&device.platform)) } }
            div { dt { "Program" } dd { (layout::name(&device.version)) } }
            div { dt { "First seen" } dd { (layout::time(device.registered_at)) } }
            div { dt { "Last seen" } dd { (layout::time(device.last_seen_at)) } }
            div { dt { "Id" } dd { code { (device.id) } } }
        }
        h2 { "Rename" }
        (layout::form(visit, &format!("devices/{id}/name"), &rename))
        h2 { "Sign out" }
        p { "The device is not let in again until it signs in anew. What it has not sent stays on it." }
        (layout::form(visit, &format!("devices/{id}/sign-out"), &html! {
            button class="grave" { "Sign " (layout::name(&device.name)) " out" }
        }))
    };
    Ok(layout::page_of(visit, "Device", &device.name, &body))
}

pub(super) async fn rename(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (account, _) = visit.account()?;
    let (device, name) = (id(visit)?, visit.form.get("name").to_owned());
    state.own(account, AccountRequest::RenameDevice { device, name }).await?;
    Ok(layout::see_other(visit, &format!("devices/{device}?done=device-renamed")))
}

pub(super) async fn sign_out(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (account, _) = visit.account()?;
    state.own(account, AccountRequest::RevokeDevice { device: id(visit)? }).await?;
    Ok(layout::see_other(visit, "devices?done=device-signed-out"))
}

/// Who may sign devices in by an identity token.
pub(super) async fn identities(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (account, _) = visit.account()?;
    let identities = match state.own(account, AccountRequest::Identities).await? {
        AccountAnswer::Identities(identities) => identities,
        _ => Vec::new(),
    };
    let rows = html! { @for identity in &identities { (row(visit, identity)) } };
    let head = ["Name or address", "Service", "Subject", "Linked", "Last used", "Action"].map(Column::Text);
    let body = html! {
        p { "An identity is an account at another service with which you sign devices in." }
        @if identities.is_empty() {
            p { "No identity is linked." }
        } @else {
            (layout::table("Identities", &head, &rows))
        }
    };
    Ok(layout::page(visit, "Identities", &body))
}

fn row(visit: &Visit, identity: &LinkedIdentity) -> Markup {
    let LinkedIdentity { issuer, subject, shown, linked_at, last_used_at, .. } = identity;
    let known_as = if shown.is_empty() { subject } else { shown };
    let unlink = html! {
        input type="hidden" name="issuer" value=(issuer);
        input type="hidden" name="subject" value=(subject);
        button { "Unlink" span class="for-readers" { " " (layout::name(known_as)) } }
    };
    html! {
        tr {
            th scope="row" { (layout::name(known_as)) }
            td { (layout::name(issuer)) }
            td { (layout::name(subject)) }
            td { (layout::time(*linked_at)) }
            td { (layout::time_or_never(*last_used_at)) }
            td { (layout::form(visit, "identities/unlink", &unlink)) }
        }
    }
}

pub(super) async fn unlink(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let (account, _) = visit.account()?;
    let (issuer, subject) = (visit.form.get("issuer").to_owned(), visit.form.get("subject").to_owned());
    state.own(account, AccountRequest::UnlinkIdentity { issuer, subject }).await?;
    Ok(layout::see_other(visit, "identities?done=identity-unlinked"))
}

async fn devices(state: &State, account: &str) -> Result<Vec<Device>, Refusal> {
    match state.own(account, AccountRequest::Devices).await? {
        AccountAnswer::Devices(devices) => Ok(devices),
        _ => Ok(Vec::new()),
    }
}

fn id(visit: &Visit) -> Result<DeviceId, Refusal> {
    // What is no id is not there either.
    visit.id().parse().map_err(|_| AccountError::NotThere.into())
}
