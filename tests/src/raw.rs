//! Entries by hand, as no device of ours would send them.

use motet_proto::message::{Hello, Message, Outcome, Pull, Push};
use motet_proto::payload::Payload;
use motet_proto::{DeviceId, DocumentId, Entry, Kind, SpaceId, envelope, frame, limits};

/// An entry of a document of `pieces`, from a stranger, without a preview.
pub fn entry(name: &str, kind: Kind, body: Vec<u8>) -> Entry {
    let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", name);
    let payload = Payload {
        collection: "pieces".into(),
        name: name.into(),
        device_name: "stranger".into(),
        preview: None,
        body,
    };
    let sealed = envelope::seal_plain(&payload.encode());
    Entry::new(SpaceId::DEFAULT, document, DeviceId([9; 16]), kind, envelope::SUITE_PLAIN, sealed)
}

/// Sends entries to the relay at `url`, and returns what becomes of each.
///
/// # Panics
/// If it does not answer as a relay does.
pub fn push(url: &str, entries: Vec<Entry>) -> Vec<Outcome> {
    let messages = exchange(url, &Message::Push(Push { id: 1, entries }));
    let receipt = messages.into_iter().find_map(|message| match message {
        Message::Receipt(receipt) => Some(receipt.outcomes),
        _ => None,
    });
    receipt.unwrap()
}

/// The first page of the log of the relay at `url`.
///
/// # Panics
/// If it does not answer as a relay does.
pub fn pull(url: &str) -> Vec<Entry> {
    let messages = exchange(url, &Message::Pull(Pull { id: 1, after: None, live: false }));
    let page = messages.into_iter().find_map(|message| match message {
        Message::Page(page) => Some(page.entries),
        _ => None,
    });
    page.unwrap()
}

/// One `POST`: a greeting, a message, and what the relay answers.
fn exchange(url: &str, message: &Message) -> Vec<Message> {
    let mut body = Vec::new();
    let hello = Hello {
        version_min: limits::VERSION_MIN,
        version_max: limits::VERSION_MAX,
        device: DeviceId([9; 16]),
        space: SpaceId::DEFAULT,
        agent: "test".into(),
    };
    frame::write_delimited(&Message::Hello(hello), &mut body);
    frame::write_delimited(message, &mut body);
    let client = reqwest::blocking::Client::new();
    let answer = client.post(format!("{url}/v1/sync")).body(body).send().unwrap();
    let answer = answer.error_for_status().unwrap().bytes().unwrap();
    let mut rest = &answer[..];
    let mut messages = Vec::new();
    while let Some(bytes) = frame::split_delimited(&mut rest).unwrap() {
        messages.push(frame::decode(bytes).unwrap());
    }
    messages
}
