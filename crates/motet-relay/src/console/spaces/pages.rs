//! What the pages of shared spaces say.

use maud::{Markup, html};
use motet_proto::SpaceId;

use crate::console::layout::{self, Column};
use crate::console::visit::Visit;
use crate::sharing::{OfferedSpace, Role};

/// How long an invitation may be good, in seconds.
const LIFETIMES: [(u64, &str); 5] =
    [(3_600, "1 hour"), (86_400, "1 day"), (172_800, "2 days"), (604_800, "7 days"), (2_592_000, "30 days")];

/// What is asked for twice, because it cannot be taken back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::console) enum Confirmed {
    Delete,
    Leave,
    Transfer,
}

impl Confirmed {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Delete => "Delete a space",
            Self::Leave => "Leave a space",
            Self::Transfer => "Give a space to another owner",
        }
    }
}

pub(super) fn list(visit: &Visit, spaces: &[OfferedSpace]) -> Markup {
    let rows = html! {
        @for space in spaces {
            tr {
                th scope="row" {
                    a href=(visit.link(&format!("spaces/{}", space.id))) { (layout::name(&space.name)) }
                }
                td { (space.role.name()) }
                td { (layout::name(&space.owner)) }
            }
        }
    };
    let make = html! {
        label for="name" { "Name" }
        input #name name="name" dir="auto" required maxlength="64" autocomplete="off";
        button { "Make" }
    };
    let join = html! {
        label for="code" { "Code" }
        input #code name="code" required maxlength="200" autocomplete="off" spellcheck="false";
        button { "Join" }
    };
    html! {
        @if spaces.is_empty() {
            p { "You share no space." }
        } @else {
            (layout::table("Shared spaces", &["Name", "Your role", "Owner"].map(Column::Text), &rows))
        }
        h2 { "Make a space" }
        (layout::form(visit, "spaces", &make))
        h2 { "Join a space" }
        (layout::form(visit, "spaces/join", &join))
    }
}

pub(super) fn space(
    visit: &Visit,
    space: &OfferedSpace,
    members: &[(String, Role)],
    entries: Option<u64>,
) -> Markup {
    let is_owner = space.role == Role::Owner;
    let page = |page: &str| format!("spaces/{}/{page}", space.id);
    html! {
        dl class="facts" {
            div { dt { "Your role" } dd { (space.role.name()) } }
            div { dt { "Owner" } dd { (layout::name(&space.owner)) } }
            div {
                dt { "Entries received" }
                dd { @match entries { Some(entries) => (layout::number(entries)), None => "not known now" } }
            }
            div { dt { "Id" } dd { code { (space.id) } } }
        }
        h2 { "Members" }
        (table(visit, space, members))
        @if is_owner {
            (for_owner(visit, space))
            h2 { "Give away or delete" }
            ul {
                li { a href=(visit.link(&page("transfer"))) { "Give this space to another owner" } }
                li { a href=(visit.link(&page("delete"))) { "Delete this space" } }
            }
        } @else {
            h2 { "Leave" }
            p { a href=(visit.link(&page("leave"))) { "Leave this space" } }
        }
    }
}

fn table(visit: &Visit, space: &OfferedSpace, members: &[(String, Role)]) -> Markup {
    let is_owner = space.role == Role::Owner;
    let rows = html! {
        @for (account, role) in members {
            tr {
                th scope="row" { (layout::name(account)) }
                td { (role.name()) }
                @if is_owner {
                    td { @if *role != Role::Owner { (changes(visit, space.id, account, *role)) } }
                }
            }
        }
    };
    let head = ["Account", "Role", "Change"].map(Column::Text);
    layout::table("Members", if is_owner { &head } else { &head[..2] }, &rows)
}

/// What an owner may do to a member.
fn changes(visit: &Visit, space: SpaceId, account: &str, role: Role) -> Markup {
    let (other, label) = match role {
        Role::Reader => (Role::Writer, "Let write"),
        _ => (Role::Reader, "Let only read"),
    };
    let whom = html! { span class="for-readers" { ": " (layout::name(account)) } };
    let of = html! { input type="hidden" name="account" value=(account); };
    html! {
        div class="actions" {
            (layout::form(visit, &format!("spaces/{space}/members/role"), &html! {
                (of)
                input type="hidden" name="role" value=(other.name());
                button { (label) (whom) }
            }))
            (layout::form(visit, &format!("spaces/{space}/members/remove"), &html! {
                (of)
                button class="grave" { "Remove" (whom) }
            }))
        }
    }
}

fn for_owner(visit: &Visit, space: &OfferedSpace) -> Markup {
    let id = space.id;
    let rename = html! {
        label for="name" { "Name" }
        input #name name="name" dir="auto" required maxlength="64" autocomplete="off" value=(space.name);
        button { "Rename" }
    };
    let invite = html! {
        label for="role" { "Role" }
        select #role name="role" {
            option value="writer" { "writer" }
            option value="reader" { "reader" }
        }
        label for="expires" { "Good for" }
        select #expires name="expires_in" {
            @for (seconds, label) in LIFETIMES {
                option value=(seconds) selected[seconds == 172_800] { (label) }
            }
        }
        div class="check" {
            input #reusable type="checkbox" name="reusable" value="yes";
            label for="reusable" { "Any number of accounts may join" }
        }
        button { "Make a code" }
    };
    html! {
        h2 { "Invite" }
        (layout::form(visit, &format!("spaces/{id}/invite"), &invite))
        (layout::form(visit, &format!("spaces/{id}/invites/revoke"), &html! {
            button class="grave" { "Make all codes worthless" }
        }))
        h2 { "Rename" }
        (layout::form(visit, &format!("spaces/{id}/name"), &rename))
    }
}

/// A code, with what it is for.
pub(super) fn code(
    visit: &Visit,
    space: SpaceId,
    code: &str,
    role: Role,
    expires_at: i64,
    is_reusable: bool,
) -> Markup {
    let whom = if is_reusable { "any number of accounts" } else { "one account" };
    html! {
        p { "With this code " (whom) " may join as " (role.name()) ", until " (layout::time(expires_at)) "." }
        p { code class="secret" { (code) } }
        p { "It is shown this once: copy it now." }
        p { a href=(visit.link(&format!("spaces/{space}"))) { "Back to the space" } }
    }
}

/// Asks once more.
pub(super) fn confirm(
    visit: &Visit,
    space: &OfferedSpace,
    members: &[(String, Role)],
    confirmed: Confirmed,
) -> Markup {
    let others = members.iter().filter(|(_, role)| *role != Role::Owner);
    let has_others = others.clone().next().is_some();
    let name = layout::name(&space.name);
    let (page, says, button) = match confirmed {
        Confirmed::Delete => {
            let says = html! { "The sharing of " (name) " ends for everybody, also for you. What devices have stays on them. This cannot be undone." };
            ("delete", says, html! { button class="grave" { "Delete " (name) } })
        }
        Confirmed::Leave => {
            let says = html! { "You can come back to " (name) " only with a new code. What your devices have stays on them." };
            ("leave", says, html! { button class="grave" { "Leave " (name) } })
        }
        Confirmed::Transfer => {
            let says = html! {
                "Another member becomes the owner of " (name) ", and you go on as a writer. "
                "The space still counts for the account that made it."
            };
            let choice = html! {
                label for="account" { "New owner" }
                select #account name="account" {
                    @for (account, _) in others { option value=(account) dir="auto" { (account) } }
                }
                button class="grave" { "Give away" }
            };
            ("transfer", says, choice)
        }
    };
    let back = visit.link(&format!("spaces/{}", space.id));
    html! {
        p { (says) }
        @if confirmed == Confirmed::Transfer && !has_others {
            p { "There is no other member." }
        } @else {
            (layout::form(visit, &format!("spaces/{}/{page}", space.id), &button))
        }
        p { a href=(back) { "Back to the space" } }
    }
}
