//! Who may do what: each route and each message, sent by somebody without a token, with a forged one, with an expired one, by a device that was signed out, by
//! another account, by a reader, a writer and the owner. Two tables say what each is answered; a route or a message that is in neither fails the tests.

use std::collections::BTreeSet;
use std::net::TcpListener;

use motet_proto::message::{
    ErrorCode, ErrorMessage, Fetch, Fetched, NotTaken, Outcome, Page, Ping, Pull, Push, Receipt, Refused,
    Welcome,
};
use motet_proto::presence::Presence;
use motet_proto::{DeviceId, DocumentId, Entry, Kind, Message, Position, SpaceId, frame};
use motet_relay::metrics::Metrics;
use motet_tests::attack;
use motet_tests::openapi::operations;
use motet_tests::people::{Answers, ISSUER, People, Stage, Things, WHO, over_post, over_web_socket};
use reqwest::blocking::Client;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A method, a path, what stands in its place for a member or a code, a body, and the status for each of [`WHO`].
type Row = (&'static str, &'static str, &'static str, Option<Value>, [u16; 8]);

/// Whoever it is.
fn anybody(status: u16) -> [u16; 8] {
    [status; 8]
}

/// Only for whom a token is good: another account, a reader, a writer, the owner.
fn with_token([stranger, reader, writer, owner]: [u16; 4]) -> [u16; 8] {
    [401, 401, 401, 401, stranger, reader, writer, owner]
}

/// Every route. `NAME` in a body is a name that nothing has, `SUBJECT` an identity of the owner; `{space}` and `{device}` are the owner's.
fn routes() -> Vec<Row> {
    let role = || Some(json!({ "role": "reader" }));
    let named = || Some(json!({ "name": "NAME" }));
    let for_owner = |status| with_token([404, 403, 403, status]);
    let identity = |subject: &str| Some(json!({ "issuer": ISSUER, "subject": subject }));
    vec![
        ("GET", "/healthz", "", None, anybody(200)),
        ("GET", "/readyz", "", None, anybody(200)),
        ("GET", "/metrics", "", None, anybody(200)),
        ("GET", "/v1/sign-in", "", None, anybody(200)),
        ("POST", "/v1/devices", "", Some(json!({ "credential": "unknown" })), anybody(400)),
        ("GET", "/v1/sync", "", None, with_token([400; 4])),
        ("POST", "/v1/sync", "", Some(json!("no frame")), with_token([200; 4])),
        ("GET", "/v1/spaces", "", None, with_token([200; 4])),
        ("POST", "/v1/spaces", "", named(), with_token([201; 4])),
        // Who asks is known before it is looked at what for.
        ("POST", "/v1/spaces", "", Some(json!(["name"])), with_token([400; 4])),
        ("PATCH", "/v1/spaces/{space}", "", named(), for_owner(200)),
        ("DELETE", "/v1/spaces/{space}", "", None, for_owner(204)),
        ("GET", "/v1/spaces/{space}/members", "", None, with_token([404, 200, 200, 200])),
        ("PUT", "/v1/spaces/{space}/members/{account}", "writer", role(), for_owner(204)),
        ("PUT", "/v1/spaces/{space}/members/{account}", "stranger", role(), for_owner(409)),
        ("PUT", "/v1/spaces/{space}/members/{account}", "unknown", role(), for_owner(409)),
        ("PUT", "/v1/spaces/{space}/members/{account}", "owner", role(), for_owner(409)),
        ("DELETE", "/v1/spaces/{space}/members/{account}", "reader", None, for_owner(204)),
        ("DELETE", "/v1/spaces/{space}/members/{account}", "stranger", None, for_owner(409)),
        ("DELETE", "/v1/spaces/{space}/members/{account}", "owner", None, for_owner(409)),
        ("DELETE", "/v1/spaces/{space}/membership", "", None, with_token([404, 204, 204, 409])),
        ("POST", "/v1/spaces/{space}/invites", "", role(), for_owner(201)),
        ("POST", "/v1/spaces/{space}/invites", "", Some(json!({ "role": "owner" })), for_owner(400)),
        ("DELETE", "/v1/spaces/{space}/invites", "", None, for_owner(204)),
        ("GET", "/v1/invites/{code}", "CODE", None, with_token([200; 4])),
        ("POST", "/v1/invites/{code}", "CODE", None, with_token([200; 4])),
        ("GET", "/v1/invites/{code}", "motet-join-unknown", None, with_token([404; 4])),
        ("POST", "/v1/invites/{code}", "motet-join-unknown", None, with_token([404; 4])),
        ("GET", "/v1/devices", "", None, with_token([200; 4])),
        ("PATCH", "/v1/devices/{device}", "", named(), with_token([404, 404, 404, 204])),
        ("DELETE", "/v1/devices/{device}", "", None, with_token([404, 404, 404, 204])),
        ("GET", "/v1/identities", "", None, with_token([200; 4])),
        ("POST", "/v1/identities", "", Some(json!({ "token": "eyJ.eyJ.x" })), with_token([409; 4])),
        ("DELETE", "/v1/identities", "", identity("SUBJECT"), with_token([404, 404, 404, 204])),
        ("GET", "/v1/account", "", None, with_token([200; 4])),
        ("DELETE", "/v1/account/erasure", "", None, with_token([409; 4])),
        ("POST", "/v1/account/erasure", "", Some(json!({ "after": 0 })), with_token([400; 4])),
        ("POST", "/v1/account/erasure", "", Some(json!({})), with_token([200; 4])),
        ("DELETE", "/v1/account/erasure", "", None, with_token([204; 4])),
        ("GET", "/v1/audit", "", None, with_token([200; 4])),
        ("GET", "/v1/audit/{before}", "9", None, with_token([200; 4])),
        ("GET", "/v1/audit/{before}", "first", None, with_token([400; 4])),
        ("POST", "/v1/console-links", "", None, with_token([201; 4])),
        // Last: whoever has signed out asks for nothing more.
        ("DELETE", "/v1/devices", "", None, with_token([204; 4])),
    ]
}

/// The metrics, which have an address of their own.
fn metrics() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        Runtime::new().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            motet_relay::serve_metrics(listener, Metrics::new(), std::future::pending()).await;
        });
    });
    url
}

/// Status, headers and body of an answer, without what is another one each time.
fn ask(base: &str, row: &Row, who: &str, things: &Things, name: &str) -> (u16, String) {
    let (method, path, named, body, _) = row;
    let named = named.replace("CODE", &things.code);
    let path =
        path.replace("{space}", &things.space.to_string()).replace("{device}", &things.device.to_string());
    let path = path.replace("{account}", &named).replace("{code}", &named).replace("{before}", &named);
    let mut request = Client::new().request(method.parse().unwrap(), format!("{base}{path}"));
    if let Some(token) = People::token(who) {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.body(body.to_string().replace("NAME", name).replace("SUBJECT", &things.subject));
    }
    let answer = request.send().unwrap();
    let status = answer.status().as_u16();
    let headers =
        answer.headers().iter().filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()));
    let head: String =
        headers.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
    (status, head + &answer.text().unwrap())
}

#[test]
fn every_route_is_for_those_for_whom_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut people = People::start(&dir.path().join("relay"));
    let (relay, metrics, rows) = (people.site.relay.url(), metrics(), routes());
    let in_table: BTreeSet<_> = rows.iter().map(|row| (row.0.to_owned(), row.1.to_owned())).collect();
    assert_eq!(in_table, operations(), "each route has a row, and each row a route");
    for row in &rows {
        let (method, path, named, ..) = row;
        let base = if *path == "/metrics" { &metrics } else { &relay };
        let is_about_things =
            path.contains('{') || row.3.as_ref().is_some_and(|body| body["issuer"] == ISSUER);
        for (who, expected) in WHO.into_iter().zip(row.4) {
            let things = if is_about_things { people.things() } else { Things::none() };
            let (name, before) = (people.new_name(), people.state());
            let (status, said) = ask(base, row, who, &things, &name);
            assert_eq!(status, expected, "{method} {path} {named} by {who}: {said}");
            if status >= 400 {
                assert_eq!(
                    people.state(),
                    before,
                    "{method} {path} {named} by {who} was refused, and is done"
                );
            }
            // What somebody may not know of is answered like what is not there.
            if is_about_things && [401, 404].contains(&status) {
                let elsewhere = ask(base, row, who, &Things::none(), &name);
                assert_eq!(elsewhere, (status, said), "{method} {path} {named} by {who}");
            }
        }
    }
}

/// Every message: what becomes of it when another account, a reader, a writer and the owner send it in a session about a space of the owner. Whoever
/// has no good token opens no session.
const MESSAGES: [(&str, [&str; 4]); 21] = [
    ("hello", ["forbidden", "welcome", "welcome", "welcome"]),
    ("push of changes", ["forbidden", "not taken: forbidden", "stored", "stored"]),
    ("push of a snapshot", ["forbidden", "not taken: forbidden", "stored", "stored"]),
    ("push of an erasure", ["forbidden", "not taken: forbidden", "rejected: forbidden", "stored"]),
    ("push of a later kind", ["forbidden", "not taken: forbidden", "stored", "stored"]),
    ("pull", ["forbidden", "page", "page", "page"]),
    ("pull, live", ["forbidden", "page", "page", "page"]),
    ("fetch", ["forbidden", "fetched", "fetched", "fetched"]),
    ("fetch of names", ["forbidden", "fetched", "fetched", "fetched"]),
    ("presence", ["forbidden", "told", "told", "told"]),
    ("ping", ["forbidden", "pong", "pong", "pong"]),
    ("pong", ["forbidden", "nothing", "nothing", "nothing"]),
    ("error", ["forbidden", "closed", "closed", "closed"]),
    // Those of a relay.
    ("welcome", ["forbidden", "protocol", "protocol", "protocol"]),
    ("receipt", ["forbidden", "protocol", "protocol", "protocol"]),
    ("page", ["forbidden", "protocol", "protocol", "protocol"]),
    ("refused", ["forbidden", "protocol", "protocol", "protocol"]),
    ("fetched", ["forbidden", "protocol", "protocol", "protocol"]),
    ("not taken", ["forbidden", "protocol", "protocol", "protocol"]),
    ("second hello", ["forbidden", "protocol", "protocol", "protocol"]),
    ("presence of another device", ["forbidden", "told", "told", "told"]),
];

const DOCUMENT: DocumentId = DocumentId([1; 16]);

fn entry(space: SpaceId, kind: Kind, number: u8) -> Entry {
    Entry::new(space, DOCUMENT, DeviceId([7; 16]), kind, 0, vec![number; 20])
}

/// Its row. A message or a kind of entries that is added does not compile here, and gets a row.
fn row_of(message: &Message, sender: DeviceId) -> &'static str {
    match message {
        Message::Hello(_) => "second hello",
        Message::Push(push) => match &push.entries[0].kind {
            Kind::Changes => "push of changes",
            Kind::Snapshot { .. } => "push of a snapshot",
            Kind::Erased => "push of an erasure",
            Kind::Other(_) => "push of a later kind",
        },
        Message::Pull(pull) => {
            if pull.live {
                "pull, live"
            } else {
                "pull"
            }
        }
        Message::Fetch(fetch) => {
            if fetch.whole {
                "fetch"
            } else {
                "fetch of names"
            }
        }
        Message::Presence(presence) if presence.device == sender => "presence",
        Message::Presence(_) => "presence of another device",
        Message::Ping(_) => "ping",
        Message::Pong(_) => "pong",
        Message::Error(_) => "error",
        Message::Welcome(_) => "welcome",
        Message::Receipt(_) => "receipt",
        Message::Page(_) => "page",
        Message::Refused(_) => "refused",
        Message::Fetched(_) => "fetched",
        Message::NotTaken(_) => "not taken",
    }
}

/// One of each, as somebody sends it.
fn messages(space: SpaceId, sender: DeviceId) -> Vec<Message> {
    let push = |kind| Message::Push(Push { id: 1, entries: vec![entry(space, kind, 2)] });
    let pull = |live| Message::Pull(Pull { id: 1, after: None, live });
    let fetch = |whole| Message::Fetch(Fetch { id: 1, document: DOCUMENT, after: 0, whole });
    let presence = |device| Message::Presence(Presence { device, suite: 0, sealed: vec![5; 8] });
    let position = Position::start(space);
    let (id, message) = (1, String::new());
    vec![
        push(Kind::Changes),
        push(Kind::Snapshot { heads: vec![[1; 32]], supersedes: Vec::new() }),
        push(Kind::Erased),
        // [7, {}]
        push(Kind::Other(vec![0x82, 0x07, 0xa0])),
        pull(false),
        pull(true),
        fetch(true),
        fetch(false),
        presence(sender),
        presence(DeviceId([77; 16])),
        Message::Ping(Ping { nonce: 5 }),
        Message::Pong(Ping { nonce: 5 }),
        Message::Error(ErrorMessage { code: ErrorCode::Internal, message: message.clone(), window_ms: None }),
        attack::hello(sender, space),
        Message::Welcome(Welcome::default()),
        Message::Receipt(Receipt { id, outcomes: Vec::new(), position: None, after: 0 }),
        Message::Page(Page { id: None, entries: Vec::new(), position, more: false, head: 0, after: 0 }),
        Message::Refused(Refused { id }),
        Message::Fetched(Fetched { id, entries: Vec::new(), listed: Vec::new(), last: 0, more: false }),
        Message::NotTaken(NotTaken { id, code: ErrorCode::Full, message }),
    ]
}

/// What the relay says to one of these, in the words of the table.
fn outcome(answers: &Answers, seed: &Entry) -> String {
    let code = |code: &ErrorCode| format!("{code:?}").to_lowercase();
    let answers = match answers {
        Answers::NotLetIn(status) => return status.to_string(),
        Answers::Said(answers) => answers,
        Answers::Closed(answers) if answers.is_empty() => return "closed".into(),
        Answers::Closed(answers) => answers,
    };
    match answers.first() {
        None => "nothing".into(),
        Some(Message::Welcome(_)) => "welcome".into(),
        Some(Message::Pong(_)) => "pong".into(),
        Some(Message::Error(error)) => code(&error.code),
        Some(Message::NotTaken(not_taken)) => format!("not taken: {}", code(&not_taken.code)),
        Some(Message::Receipt(receipt)) => match &receipt.outcomes[..] {
            [Outcome::Stored(_)] => "stored".into(),
            [Outcome::Rejected(why, _)] => format!("rejected: {why:?}").to_lowercase(),
            others => format!("{others:?}"),
        },
        Some(Message::Page(page)) if page.entries.contains(seed) => "page".into(),
        Some(Message::Fetched(fetched))
            if fetched.entries.contains(seed) || fetched.listed.iter().any(|listed| listed.id == seed.id) =>
        {
            "fetched".into()
        }
        Some(other) => format!("{other:?}"),
    }
}

/// Types of messages that there are, by what a reader of frames knows.
fn known_types() -> BTreeSet<u8> {
    let is_known = |kind: &u8| {
        let check = blake3::hash(&[*kind, 0]);
        let bytes = [&[*kind, 0][..], &check.as_bytes()[..4]].concat();
        !matches!(frame::decode(&bytes), Err(frame::FrameError::UnknownType(_)))
    };
    (0..=u8::MAX).filter(is_known).collect()
}

#[test]
fn every_message_has_a_row() {
    let sender = DeviceId([1; 16]);
    let messages = messages(SpaceId::DEFAULT, sender);
    let rows: BTreeSet<&str> = MESSAGES.iter().map(|(row, _)| *row).collect();
    let sent: BTreeSet<&str> =
        messages.iter().map(|message| row_of(message, sender)).chain(["hello"]).collect();
    assert_eq!((rows.len(), rows), (MESSAGES.len(), sent));
    let types: BTreeSet<u8> = messages.iter().map(|message| frame::encode(message)[0]).collect();
    assert_eq!(types, known_types());
}

#[test]
fn every_message_is_for_those_for_whom_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(dir.path());
    for (row, [stranger, reader, writer, owner]) in MESSAGES {
        let expected = ["401", "401", "401", "401", stranger, reader, writer, owner];
        for (who, expected) in WHO.into_iter().zip(expected) {
            let (space, sender) = (stage.people.space(), People::device(who));
            let message = messages(space, sender).into_iter().find(|message| row_of(message, sender) == row);
            assert_eq!(message.is_none(), row == "hello", "{row}");
            let seed = entry(space, Kind::Changes, 1);
            stage.store("owner", space, &seed);
            // A device is not told of itself.
            let mut watcher = stage.watcher(if who == "owner" { "writer" } else { "owner" }, space);
            let answers = over_web_socket(&stage.address, who, Some(space), message.as_ref());
            let mut found = outcome(&stage.runtime.block_on(answers), &seed);
            if row.starts_with("presence") && found == "nothing" {
                assert_eq!(stage.told(&mut watcher), sender, "{row} by {who}: of another device");
                found = "told".into();
            }
            assert_eq!(found, expected, "{row} by {who}");
            let head = stage.open("owner", space).1;
            assert_eq!(head, if expected == "stored" { 2 } else { 1 }, "{row} by {who}: entries in the log");
        }
    }
}

/// The other way: the same rows, but nobody is told of a place, and the end of a session is that of the answer.
#[test]
fn every_message_of_a_post_is_for_those_for_whom_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(dir.path());
    let relay = stage.people.site.relay.url();
    for (row, [stranger, reader, writer, owner]) in MESSAGES {
        let expected = ["401", "401", "401", "401", stranger, reader, writer, owner];
        for (who, expected) in WHO.into_iter().zip(expected) {
            let expected = if ["told", "closed"].contains(&expected) { "nothing" } else { expected };
            let (space, sender) = (stage.people.space(), People::device(who));
            let message = messages(space, sender).into_iter().find(|message| row_of(message, sender) == row);
            let seed = entry(space, Kind::Changes, 1);
            stage.store("owner", space, &seed);
            let found = outcome(&over_post(&relay, who, space, message.as_ref()), &seed);
            assert_eq!(found, expected, "{row} by {who}");
            let head = stage.open("owner", space).1;
            assert_eq!(head, if expected == "stored" { 2 } else { 1 }, "{row} by {who}: entries in the log");
        }
    }
}

#[test]
fn nothing_is_done_before_a_greeting() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(dir.path());
    let (space, sender) = (stage.people.space(), People::device("owner"));
    let seed = entry(space, Kind::Changes, 1);
    stage.store("owner", space, &seed);
    for message in messages(space, sender).iter().filter(|message| !matches!(message, Message::Hello(_))) {
        let answers = over_web_socket(&stage.address, "owner", None, Some(message));
        let expected = match message {
            Message::Ping(_) => "pong",
            Message::Pong(_) => "nothing",
            Message::Error(_) => "closed",
            _ => "protocol",
        };
        assert_eq!(outcome(&stage.runtime.block_on(answers), &seed), expected, "{message:?}");
    }
    assert_eq!(stage.open("owner", space).1, 1);
}

/// A space, a document and a position of another account, beside such as there are none.
#[test]
fn what_is_of_others_is_answered_like_what_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(dir.path());
    let relay = stage.people.site.relay.url();
    let space = stage.people.space();
    let of_owner = entry(SpaceId::DEFAULT, Kind::Changes, 1);
    stage.store("owner", SpaceId::DEFAULT, &of_owner);
    let asked = |space, message: Option<&Message>| over_post(&relay, "stranger", space, message);
    let refused = asked(space, None);
    assert_eq!(outcome(&refused, &of_owner), "forbidden");
    assert_eq!(refused, asked(SpaceId::shared([9; 10]), None));
    for whole in [true, false] {
        let fetch = |document| Message::Fetch(Fetch { id: 1, document, after: 0, whole });
        let answers = asked(SpaceId::DEFAULT, Some(&fetch(DOCUMENT)));
        assert!(
            matches!(&answers, Answers::Said(said) if matches!(said[..], [Message::Fetched(_)])),
            "{answers:?}"
        );
        assert_eq!(answers, asked(SpaceId::DEFAULT, Some(&fetch(DocumentId([2; 16])))));
    }
    let pull = |after| Message::Pull(Pull { id: 1, after: Some(after), live: false });
    let end = Position::start(SpaceId::DEFAULT).next(of_owner.id);
    let answers = asked(SpaceId::DEFAULT, Some(&pull(end)));
    assert_eq!(answers, Answers::Said(vec![Message::Refused(Refused { id: 1 })]));
    assert_eq!(answers, asked(SpaceId::DEFAULT, Some(&pull(Position { tag: [0; 16], ..end }))));
}
