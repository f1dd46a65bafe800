//! What all pages look like: the frame, and how names, times and sizes are written.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::visit::Visit;
use super::{Refusal, Signed};
use crate::directory::ConsoleHolder;

/// Pages of the holder of an account, as the navigation names them.
const OF_ACCOUNT: [(&str, &str); 5] = [
    ("", "Overview"),
    ("devices", "Devices"),
    ("identities", "Identities"),
    ("spaces", "Spaces"),
    ("audit", "Audit"),
];

/// Pages of the operator.
const OF_OPERATOR: [(&str, &str); 5] = [
    ("", "Overview"),
    ("accounts", "Accounts"),
    ("activity", "Activity"),
    ("refusals", "Refusals"),
    ("audit", "Audit"),
];

/// What may stand above a page after something was done, by what stands in its address.
const DONE: [(&str, &str); 12] = [
    ("device-renamed", "The device has its new name."),
    ("device-signed-out", "The device is signed out. Its sessions end within seconds."),
    ("identity-unlinked", "This identity signs in no more devices."),
    ("space-made", "The space is made."),
    ("space-renamed", "The space has its new name."),
    ("space-deleted", "The space is shared with nobody any more."),
    ("space-left", "You have left the space. What your devices have stays on them."),
    ("space-joined", "You share this space now."),
    ("role-changed", "The member has the new role."),
    ("member-removed", "The member is removed. What its devices have stays on them."),
    ("space-transferred", "The space has its new owner. You go on as a writer."),
    ("invites-revoked", "All codes of this space are worthless now."),
];

/// A whole page.
pub(super) fn page(visit: &Visit, title: &str, body: &Markup) -> Response {
    page_with(visit, StatusCode::OK, title, body)
}

/// The page of something that people have given a name. `kind`: what it is.
pub(super) fn page_of(visit: &Visit, kind: &str, called: &str, body: &Markup) -> Response {
    frame(visit, StatusCode::OK, &format!("{called} – {kind}"), &name(called), body)
}

/// A page that says why there is no other one.
pub(super) fn refusal(visit: &Visit, refusal: &Refusal) -> Response {
    let title = match refusal.status {
        StatusCode::UNAUTHORIZED => "Not signed in",
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::FORBIDDEN => "Not allowed",
        StatusCode::METHOD_NOT_ALLOWED => "Not offered",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "Not now",
        _ => "Not done",
    };
    let body = html! {
        p class="refusal" role="alert" { (sentence(&refusal.reason)) }
        @if refusal.status == StatusCode::UNAUTHORIZED {
            p {
                "A link signs you in. On the machine of the relay, " code { "motet-relay console link" }
                " makes one for an account or for the operator; on a device that is signed in, " code { "motet console" }
                " makes one for its account."
            }
        } @else {
            p { a href=(visit.link("")) { "Overview" } }
        }
    };
    page_with(visit, refusal.status, title, &body)
}

/// Sends the browser on after a form: to look at the page again does not send it once more.
pub(super) fn see_other(visit: &Visit, page: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, visit.link(page))]).into_response()
}

/// A form that this session believes.
pub(super) fn form(visit: &Visit, action: &str, body: &Markup) -> Markup {
    let token = visit.signed.as_ref().map_or("", |signed| &signed.token);
    html! {
        form method="post" action=(visit.link(action)) {
            input type="hidden" name="token" value=(token);
            (body)
        }
    }
}

/// A column of a table: numbers stand at its end.
#[derive(Clone, Copy)]
pub(super) enum Column {
    Text(&'static str),
    Number(&'static str),
}

/// A table that can be moved sideways on a narrow screen, also with the keyboard.
pub(super) fn table(caption: &str, head: &[Column], rows: &Markup) -> Markup {
    html! {
        div class="scroll" role="region" aria-label=(caption) tabindex="0" {
            table {
                caption class="for-readers" { (caption) }
                thead {
                    tr {
                        @for column in head {
                            @match column {
                                Column::Text(name) => th scope="col" { (name) },
                                Column::Number(name) => th scope="col" class="number" { (name) },
                            }
                        }
                    }
                }
                tbody { (rows) }
            }
        }
    }
}

/// What people have called something, in whatever script.
pub(super) fn name(text: &str) -> Markup {
    html! { bdi dir="auto" { (text) } }
}

/// A time in milliseconds since 1970.
pub(super) fn time(ms: i64) -> Markup {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(at) => html! {
            time datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ")) { (at.strftime("%Y-%m-%d %H:%M UTC")) }
        },
        Err(_) => html! { "at an unknown time" },
    }
}

pub(super) fn time_or_never(ms: Option<i64>) -> Markup {
    ms.map_or_else(|| html! { "never" }, time)
}

/// Milliseconds since 1970.
pub(super) fn ms(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Bytes as people read them.
pub(super) fn size(bytes: u64) -> String {
    let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1_u64 << 10)];
    let unit = units.into_iter().find(|(_, of)| bytes >= *of);
    unit.map_or_else(|| format!("{bytes} B"), |(name, of)| format!("{:.1} {name}", bytes as f64 / of as f64))
}

/// A number with its thousands apart.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|part| std::str::from_utf8(part).ok()).collect();
    parts.join(",")
}

/// A span of time as people read it.
pub(super) fn span(span: Duration) -> String {
    let minutes = span.as_secs() / 60;
    match (minutes / 1_440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => "less than a minute".into(),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// A reason as it stands in answers to programs, for people.
fn sentence(reason: &str) -> String {
    let mut letters = reason.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}

fn page_with(visit: &Visit, status: StatusCode, title: &str, body: &Markup) -> Response {
    frame(visit, status, title, &html! { (title) }, body)
}

fn frame(visit: &Visit, status: StatusCode, title: &str, heading: &Markup, body: &Markup) -> Response {
    let done = visit.query.get("done");
    let done = DONE.iter().find(|(code, _)| status.is_success() && *code == done).map(|(_, text)| text);
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – Motet relay" }
                link rel="stylesheet" href=(visit.link("style.css"));
                link rel="icon" type="image/svg+xml" href=(visit.link("icon.svg"));
            }
            body {
                a class="skip" href="#content" { "Skip to the content" }
                header {
                    p class="brand" { "Motet relay" }
                    @if let Some(signed) = &visit.signed { (who(visit, signed)) }
                }
                @if let Some(signed) = &visit.signed { (navigation(visit, signed)) }
                main id="content" tabindex="-1" {
                    h1 { (heading) }
                    @if let Some(done) = done { p class="done" role="status" { (done) } }
                    (body)
                }
                footer { p { "motet-relay " (env!("CARGO_PKG_VERSION")) } }
            }
        }
    };
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], text.into_string()).into_response()
}

fn who(visit: &Visit, signed: &Signed) -> Markup {
    let who = match &signed.holder {
        ConsoleHolder::Operator => html! { "Operator" },
        ConsoleHolder::Account { name: account, .. } => name(account),
    };
    html! {
        div class="who" {
            p { span class="for-readers" { "Signed in as " } (who) }
            (form(visit, "sign-out", &html! { button class="plain" { "Sign out" } }))
        }
    }
}

fn navigation(visit: &Visit, signed: &Signed) -> Markup {
    let pages = match &signed.holder {
        ConsoleHolder::Operator => OF_OPERATOR,
        ConsoleHolder::Account { .. } => OF_ACCOUNT,
    };
    let first = visit.path.first().map_or("", |first| first);
    // The page of one account lies below the list of all.
    let shown = if first == "account" { "accounts" } else { first };
    html! {
        nav aria-label="Pages" {
            ul {
                @for (page, title) in pages {
                    li {
                        a href=(visit.link(page)) aria-current=[(page == shown).then_some("page")] { (title) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_numbers_and_times_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 2_000_000].map(number), ["0", "999", "1,000", "2,000,000"]);
        assert_eq!([0, 1_023, 1 << 20, 16 << 30].map(size), ["0 B", "1023 B", "1.0 MiB", "16.0 GiB"]);
        let spans = [59, 61, 3_700, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["less than a minute", "1 min", "1 h 1 min", "1 d 1 h"]);
        assert!(time(0).into_string().contains("datetime=\"1970-01-01T00:00:00Z\""));
        assert_eq!(time(i64::MAX).into_string(), "at an unknown time");
        assert_eq!(sentence("ʻaʻole."), "ʻaʻole.");
    }
}
