//! A relay with everybody who may ask it for something: from somebody without a token to the owner of a shared space.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use motet_proto::device_key::{DeviceKey, TOKEN_PREFIX};
use motet_proto::message::{Outcome, Ping, Pull};
use motet_proto::{DeviceId, Entry, Message, SpaceId, frame};
use motet_relay::access::Role;
use motet_relay::config::{Limits, Terms};
use reqwest::blocking::Client;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Error as WsError;

use crate::attack::{self, Peer};
use crate::console::Site;

/// Who asks. The first four are not let in; the others are accounts, of which the last three share a space.
pub const WHO: [&str; 8] =
    ["nobody", "forged", "expired", "signed out", "stranger", "reader", "writer", "owner"];

/// Of those, the accounts.
pub const ACCOUNTS: [&str; 4] = ["stranger", "reader", "writer", "owner"];

/// Who the identities of the owner are known to.
pub const ISSUER: &str = "https://id.example.org";

/// A probe of [`over_web_socket`].
const PROBE: u64 = 77;

/// What the relay says to a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Answers {
    /// No session comes about, and this is the status.
    NotLetIn(u16),
    /// This, and the session goes on.
    Said(Vec<Message>),
    /// This, and the session is over.
    Closed(Vec<Message>),
}

/// The relay, and a device of each account.
pub struct People {
    /// The relay with its accounts.
    pub site: Site,
    made: u64,
}

/// What somebody asks for: things of the owner, or such as there are none.
pub struct Things {
    /// A shared space, with a reader and a writer.
    pub space: SpaceId,
    /// A code for it.
    pub code: String,
    /// A device of the owner.
    pub device: DeviceId,
    /// An identity of the owner.
    pub subject: String,
}

impl People {
    /// Starts it.
    pub fn start(data: &Path) -> Self {
        let limits = Limits { wrong_tokens: 1_000_000, ..Limits::default() };
        let terms = Terms { limits, ..Terms::default() };
        let site = Site::start(data, &ACCOUNTS, terms, |console| console);
        for (who, number) in WHO.into_iter().zip(1..) {
            if ACCOUNTS.contains(&who) {
                site.device(who, who, number);
            }
        }
        let lost = Self::device("signed out");
        site.device("owner", "lost", lost.0[0]);
        site.directory.revoke_device(&lost.to_string(), None).unwrap();
        Self { site, made: 0 }
    }

    /// The device of somebody.
    pub fn device(who: &str) -> DeviceId {
        let number = WHO.iter().position(|name| *name == who).unwrap() + 1;
        DeviceId([number as u8; 16])
    }

    /// The token that somebody shows now.
    pub fn token(who: &str) -> Option<String> {
        let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
        let key = |who| DeviceKey::new(Self::device(who).0.repeat(2).try_into().unwrap());
        match who {
            "nobody" => None,
            "expired" => Some(key("owner").token(now - 3_600)),
            // It names the key of the owner, and somebody else has signed it.
            "forged" => {
                let owner = key("owner").public();
                let token = DeviceKey::new([99; 32]).token(now);
                let mut bytes = URL_SAFE_NO_PAD.decode(&token[TOKEN_PREFIX.len()..]).unwrap();
                bytes[..owner.0.len()].copy_from_slice(&owner.0);
                Some(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
            }
            who => Some(key(who).token(now)),
        }
    }

    /// A new space of the owner, with a writer and a reader.
    pub fn space(&mut self) -> SpaceId {
        self.made += 1;
        let directory = &self.site.directory;
        let space = directory.create_space(&format!("space {}", self.made), "owner").unwrap();
        for (account, role) in [("writer", Role::Writer), ("reader", Role::Reader)] {
            directory.put_member(&space.to_string(), account, role).unwrap();
        }
        space
    }

    /// New things: what one may do has an effect.
    pub fn things(&mut self) -> Things {
        let space = self.space();
        let (directory, made) = (&self.site.directory, self.made);
        let minute = Duration::from_secs(60);
        let code = directory.create_invite(space, "owner", Role::Reader, minute, false).unwrap();
        // Another key for the same id signs the device of before out.
        let number = made.to_be_bytes();
        let device = DeviceId([200; 16]);
        let key = DeviceKey::new(std::array::from_fn(|at| number[at % 8] ^ 0x55));
        self.site.sign_in("owner", "spare", &key, device);
        let subject = format!("subject {made}");
        directory.link_identity(ISSUER, &subject, "owner").unwrap();
        Things { space, code, device, subject }
    }

    /// A name that nothing has.
    pub fn new_name(&mut self) -> String {
        self.made += 1;
        format!("name {}", self.made)
    }

    /// All that is known of accounts, and that a request which is refused leaves as it was.
    pub fn state(&self) -> BTreeSet<String> {
        let directory = &self.site.directory;
        let spaces = directory.spaces().unwrap().into_iter().map(|space| format!("{space:?}"));
        let devices = directory.devices(None).unwrap().into_iter();
        let devices = devices.map(|device| format!("{} {} {:?}", device.id, device.name, device.revoked_at));
        let identities = directory.identities().unwrap().into_iter().map(|identity| format!("{identity:?}"));
        spaces.chain(devices).chain(identities).collect()
    }
}

impl Things {
    /// Such as there are none.
    pub fn none() -> Self {
        let (space, device) = (SpaceId::shared([9; 10]), DeviceId([201; 16]));
        Self { space, code: "motet-join-none".into(), device, subject: "nobody".into() }
    }
}

/// The sessions of a test, on a relay with everybody.
pub struct Stage {
    /// The relay, and who asks.
    pub people: People,
    /// Host and port of the relay.
    pub address: String,
    /// Runs the sessions.
    pub runtime: Runtime,
}

impl Stage {
    /// Starts the relay.
    pub fn new(dir: &Path) -> Self {
        let people = People::start(&dir.join("relay"));
        let address = people.site.relay.address().to_string();
        Self { people, address, runtime: Runtime::new().unwrap() }
    }

    /// A session in a space, after its greeting, and where the log ends.
    pub fn open(&self, who: &str, space: SpaceId) -> (Peer, u64) {
        self.runtime.block_on(async {
            let mut peer = Peer::connect(&self.address, People::token(who).as_deref()).await.unwrap();
            peer.send(&attack::hello(People::device(who), space)).await;
            let Some(Message::Welcome(welcome)) = peer.receive().await else {
                panic!("{who} is not welcome")
            };
            (peer, welcome.head)
        })
    }

    /// Stores an entry of somebody.
    pub fn store(&self, who: &str, space: SpaceId, entry: &Entry) {
        let (mut peer, _) = self.open(who, space);
        let receipt = self.runtime.block_on(peer.push(vec![entry.clone()])).unwrap();
        assert!(matches!(receipt.outcomes[..], [Outcome::Stored(_)]), "{receipt:?}");
    }

    /// Somebody who is told where others are, from now on.
    pub fn watcher(&self, who: &str, space: SpaceId) -> Peer {
        let (mut peer, _) = self.open(who, space);
        self.runtime.block_on(async {
            peer.send(&Message::Pull(Pull { id: 1, after: None, live: true })).await;
            assert!(matches!(peer.receive().await, Some(Message::Page(_))));
        });
        peer
    }

    /// The first device of which a watcher is told that it is somewhere.
    pub fn told(&self, watcher: &mut Peer) -> DeviceId {
        self.runtime.block_on(async {
            loop {
                match watcher.receive().await {
                    Some(Message::Presence(presence)) if !presence.sealed.is_empty() => {
                        return presence.device;
                    }
                    Some(_) => {}
                    None => panic!("the watcher is told nothing any more"),
                }
            }
        })
    }
}

/// Opens a session over a WebSocket and sends a message: the answers to that, or to the greeting if nothing else is said or the greeting is refused.
/// Without a space there is no greeting.
///
/// # Panics
/// If the relay cannot be reached.
pub async fn over_web_socket(
    address: &str,
    who: &str,
    space: Option<SpaceId>,
    message: Option<&Message>,
) -> Answers {
    let mut peer = match Peer::connect(address, People::token(who).as_deref()).await {
        Ok(peer) => peer,
        Err(WsError::Http(answer)) => return Answers::NotLetIn(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    };
    if let Some(space) = space {
        peer.send(&attack::hello(People::device(who), space)).await;
        let greeting = peer.receive().await.unwrap();
        if message.is_none() || !matches!(greeting, Message::Welcome(_)) {
            return Answers::Said(vec![greeting]);
        }
    }
    // The answer to a probe comes when the message was taken in; reads and writes may take longer.
    let mut is_due = matches!(message, Some(Message::Push(_) | Message::Pull(_) | Message::Fetch(_)));
    let mut is_probed = true;
    if let Some(message) = message {
        peer.send(message).await;
    }
    peer.send(&Message::Ping(Ping { nonce: PROBE })).await;
    let mut answers = Vec::new();
    while is_due || is_probed {
        match peer.receive().await {
            Some(Message::Pong(Ping { nonce: PROBE })) => is_probed = false,
            Some(answer) => {
                is_due = false;
                answers.push(answer);
            }
            None => return Answers::Closed(answers),
        }
    }
    Answers::Said(answers)
}

/// The same as one `POST`, of which nothing says whether the session was closed.
///
/// # Panics
/// If the relay cannot be reached, or does not answer as one.
pub fn over_post(relay: &str, who: &str, space: SpaceId, message: Option<&Message>) -> Answers {
    let mut body = Vec::new();
    frame::write_delimited(&attack::hello(People::device(who), space), &mut body);
    message.iter().for_each(|message| frame::write_delimited(message, &mut body));
    let mut request = Client::new().post(format!("{relay}/v1/sync")).body(body);
    if let Some(token) = People::token(who) {
        request = request.bearer_auth(token);
    }
    let answer = request.send().unwrap();
    if !answer.status().is_success() {
        return Answers::NotLetIn(answer.status().as_u16());
    }
    let answer = answer.bytes().unwrap();
    let (mut rest, mut answers) = (&answer[..], Vec::new());
    while let Some(bytes) = frame::split_delimited(&mut rest).unwrap() {
        answers.push(frame::decode(bytes).unwrap());
    }
    if message.is_some() && matches!(answers[0], Message::Welcome(_)) {
        answers.remove(0);
    }
    Answers::Said(answers)
}
