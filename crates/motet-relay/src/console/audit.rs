//! Who has done what: to the account that is signed in, for the operator to all of them.

use axum::response::Response;
use maud::html;

use super::layout::Column;
use super::visit::Visit;
use super::{Refusal, State, layout};
use crate::limits;

/// The latest records, or those before one that the address names.
pub(super) async fn show(state: &State, visit: &Visit) -> Result<Response, Refusal> {
    let account = visit.account().ok().map(|(account, _)| account.to_owned());
    let before = visit.query.get("before").parse().ok();
    let of = account.clone();
    let records =
        state.read(move |directory| directory.audit(of.as_deref(), before, limits::AUDIT_PAGE)).await?;
    let rows = html! {
        @for record in &records {
            tr {
                th scope="row" { (layout::time(record.at)) }
                td { (record.action) }
                @if account.is_none() { td { (layout::name(&record.account)) } }
                td { (record.actor) }
                td { (record.subject) }
                td { (layout::name(&record.member)) }
            }
        }
    };
    let mut head = vec![Column::Text("When"), Column::Text("What")];
    if account.is_none() {
        head.push(Column::Text("Account"));
    }
    head.extend([Column::Text("By"), Column::Text("Of"), Column::Text("With")]);
    let last = records.last().filter(|_| records.len() == limits::AUDIT_PAGE);
    let body = html! {
        p { "What was done to " @if account.is_some() { "this account" } @else { "accounts" } ", devices and shared spaces, and by whom: an id of a device, the account itself in the console, or the operator." }
        @if records.is_empty() {
            p { "Nothing so far." }
        } @else {
            (layout::table("What was done, the latest first", &head, &rows))
        }
        @if let Some(last) = last {
            p { a href=(visit.link(&format!("audit?before={}", last.number))) { "Earlier" } }
        }
    };
    Ok(layout::page(visit, "Audit", &body))
}
