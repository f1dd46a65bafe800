//! Accounts in a file and accounts in Postgres: the same calls have the same outcomes.
#![cfg(unix)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use motet_proto::device_key::DeviceKey;
use motet_proto::{AccountId, DeviceId, SpaceId};
use motet_relay::access::{Authorizer, Role};
use motet_relay::auth::{Authenticator, Registration};
use motet_relay::directory::{Directory, Members};
use motet_relay::sharing::{SharingAnswer, SharingRequest};
use motet_tests::random::{Random, runs, seed};
use motet_tests::servers::Postgres;

const NAMES: [&str; 6] = ["keola", "ʻohana Kealoha", "أم كلثوم", "Keola", "", "mele\u{202e}"];

/// One of the two, and what was made in it: secrets and ids differ, their order does not.
struct Side {
    directory: Arc<Directory>,
    keys: Vec<String>,
    codes: Vec<String>,
    spaces: Vec<SpaceId>,
    links: Vec<String>,
}

impl Side {
    fn new(directory: Directory) -> Self {
        let (keys, codes, spaces, links) = Default::default();
        Self { directory: Arc::new(directory), keys, codes, spaces, links }
    }

    /// Text without what differs: names for secrets and ids, none for times.
    fn plain(&self, text: &str) -> String {
        // Which Postgres has no place for.
        let mut text = text.replace("\\0", "\u{fffd}");
        for (kind, known) in [("key", &self.keys), ("code", &self.codes), ("link", &self.links)] {
            for (n, secret) in known.iter().enumerate() {
                text = text.replace(secret, &format!("{kind} {n}"));
            }
        }
        for (n, space) in self.spaces.iter().enumerate() {
            text = text
                .replace(&format!("{space:?}"), &format!("space {n}"))
                .replace(&space.to_string(), &format!("space {n}"));
        }
        let mut plain = String::new();
        for part in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
            let digits = part.trim_end_matches(|c: char| !c.is_ascii_digit());
            plain.push_str(if digits.len() >= 13 { "time" } else { digits });
            plain.push_str(&part[digits.len()..]);
        }
        plain
    }

    fn space(&self, at: u64) -> SpaceId {
        let at = at as usize;
        self.spaces.get(at % (self.spaces.len() + 1)).copied().unwrap_or(SpaceId::shared([7; 10]))
    }

    /// The secret of that number, or one that nobody has made.
    fn secret(of: &[String], at: u64) -> String {
        of.get(at as usize % (of.len() + 1)).cloned().unwrap_or_else(|| "motet-nobody".into())
    }

    fn act(&mut self, mut random: Random, runtime: &tokio::runtime::Runtime) -> String {
        let directory = self.directory.clone();
        let name = NAMES[random.below(6) as usize];
        let other = NAMES[random.below(4) as usize];
        let n = random.below(40);
        let text = match random.below(13) {
            0 if n < 6 => {
                let after = Duration::from_secs(1_000_000 + n);
                format!("erase {:?}", directory.erase_account(name, after).map_err(|e| e.to_string()))
            }
            1 if n < 6 => format!("keep {:?}", directory.keep_account(name).map_err(|e| e.to_string())),
            0 | 1 => format!("add {:?}", directory.add_account(name).map_err(|e| e.to_string())),
            2 if n < 4 => format!("remove {:?}", directory.remove_account(name).map_err(|e| e.to_string())),
            2 | 3 => {
                let expires =
                    [None, Some(Duration::ZERO), Some(Duration::from_secs(3_600))][random.below(3) as usize];
                let made = directory.create_key(name, expires, random.below(2) == 0);
                self.keys.extend(made.as_ref().ok().cloned());
                format!("key {:?}", made.map_err(|e| e.to_string()))
            }
            4 | 5 => {
                let device = Registration {
                    credential: Self::secret(&self.keys, n),
                    device: DeviceId([random.below(4) as u8; 16]),
                    key: DeviceKey::new([random.below(6) as u8; 32]).public(),
                    name: format!("phone\0 {n}"),
                    platform: "android".into(),
                    version: "1.0".into(),
                    bound_to: (random.below(4) == 0).then(|| AccountId::derive(other)),
                };
                let members = Members::new(directory.clone(), None);
                format!("register {:?}", runtime.block_on(members.register(&device)))
            }
            6 => {
                let id = [random.below(4) as u8; 16].map(|byte| format!("{byte:02x}")).concat();
                let account = (random.below(2) == 0).then_some(other);
                match random.below(3) {
                    0 => format!(
                        "rename {:?}",
                        directory.rename_device(&id, account, "new").map_err(|e| e.to_string())
                    ),
                    _ => format!(
                        "revoke {:?}",
                        directory.revoke_device(&id, account).map_err(|e| e.to_string())
                    ),
                }
            }
            7 => match random.below(3) {
                0 => format!(
                    "link {:?}",
                    directory
                        .link_identity("https://a", &format!("{}", n % 3), name)
                        .map_err(|e| e.to_string())
                ),
                1 => format!(
                    "unlink {:?}",
                    directory.unlink_identity("https://a", &format!("{}", n % 3)).map_err(|e| e.to_string())
                ),
                _ => format!("identities {:?}", directory.identities().map_err(|e| e.to_string())),
            },
            8 => match random.below(3) {
                0 => {
                    let made = directory.create_console_link((!n.is_multiple_of(3)).then_some(name), None);
                    self.links.extend(made.as_ref().ok().cloned());
                    format!("console {:?}", made.map_err(|e| e.to_string()))
                }
                1 => format!(
                    "link {:?}",
                    directory.console_link(&Self::secret(&self.links, n)).map_err(|e| e.to_string())
                ),
                _ => format!(
                    "redeem {:?}",
                    directory.redeem_console_link(&Self::secret(&self.links, n)).map_err(|e| e.to_string())
                ),
            },
            9 => {
                let role = [Role::Reader, Role::Writer, Role::Owner][random.below(3) as usize];
                let space = self.space(n).to_string();
                match random.below(4) {
                    0 => format!("drop {:?}", directory.remove_space(&space).map_err(|e| e.to_string())),
                    1 => {
                        format!("out {:?}", directory.remove_member(&space, other).map_err(|e| e.to_string()))
                    }
                    _ => format!(
                        "put {:?}",
                        directory.put_member(&space, other, role).map_err(|e| e.to_string())
                    ),
                }
            }
            _ => {
                let request = self.request(&mut random, other);
                let answer = directory.share(name, &request);
                match &answer {
                    Ok(SharingAnswer::Code { code, .. }) => self.codes.push(code.clone()),
                    Ok(SharingAnswer::Space(space)) if !self.spaces.contains(&space.id) => {
                        self.spaces.push(space.id)
                    }
                    _ => {}
                }
                format!("{request:?} {answer:?}")
            }
        };
        self.plain(&text)
    }

    fn request(&self, random: &mut Random, other: &str) -> SharingRequest {
        let space = self.space(random.below(40));
        let role = [Role::Reader, Role::Writer, Role::Owner][random.below(3) as usize];
        let name = ["Choir", "Band ʻelua", " bad"][random.below(3) as usize].to_owned();
        let code = Self::secret(&self.codes, random.below(40));
        match random.below(14) {
            0..3 => SharingRequest::Create { name },
            3 => SharingRequest::Rename { space, name },
            4 if random.below(4) == 0 => SharingRequest::Delete { space },
            4 | 5 => SharingRequest::Members { space },
            6 => SharingRequest::SetRole { space, account: other.into(), role },
            7 => SharingRequest::Remove { space, account: other.into() },
            8 => SharingRequest::Leave { space },
            9 | 10 => {
                let expires_after = (random.below(4) == 0).then_some(Duration::ZERO);
                SharingRequest::Invite { space, role, expires_after, is_reusable: random.below(2) == 0 }
            }
            11 if random.below(4) == 0 => SharingRequest::RevokeInvites { space },
            11 => SharingRequest::ShowInvite { code },
            _ => SharingRequest::Join { code },
        }
    }

    /// All that lists show, in an order of its own where secrets decide on it.
    fn lists(&self) -> String {
        let directory = &self.directory;
        let mut keys: Vec<_> = directory
            .keys()
            .unwrap()
            .into_iter()
            .map(|key| (key.account, key.expires_at.is_some(), key.is_reusable, key.used))
            .collect();
        keys.sort();
        let mut devices: Vec<_> = directory
            .devices(None)
            .unwrap()
            .into_iter()
            .map(|device| (device.revoked_at.is_some(), device.account, device.id.to_string(), device.name))
            .collect();
        devices.sort();
        let (accounts, spaces, identities) =
            (directory.accounts().unwrap(), directory.spaces().unwrap(), directory.identities().unwrap());
        let audits = [None, Some("keola")].map(|account| {
            let records = directory.audit(account, None, 1_000).unwrap().into_iter();
            let records = records.map(|record| {
                // Ids of keys are of their own.
                let subject = if record.action.starts_with("key-") { String::new() } else { record.subject };
                (record.number, record.account, record.actor, record.action, subject, record.member)
            });
            records.collect::<Vec<_>>()
        });
        self.plain(&format!("{keys:#?} {devices:#?} {accounts:#?} {spaces:#?} {identities:#?} {audits:#?}"))
    }
}

#[test]
fn accounts_in_postgres_are_as_accounts_in_a_file() {
    let Some(postgres) = Postgres::start() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = seed();
    for run in 0..runs(4_u64) {
        let seed = first.wrapping_add(run);
        println!("seed {seed}");
        let (mut random, folder) = (Random(seed), tempfile::tempdir().unwrap());
        let file = Side::new(Directory::open(folder.path()).unwrap());
        let server = Side::new(Directory::connect(&postgres.database(&format!("run{run}"))).unwrap());
        let mut sides = [file, server];
        for step in 0..300 {
            let of_step = random.below(u64::MAX >> 33);
            let [file, server] = sides.each_mut().map(|side| side.act(Random(of_step), &runtime));
            assert_eq!(file, server, "step {step}");
        }
        let [file, server] = sides.each_ref().map(Side::lists);
        assert!(file == server, "{file}\n\n{server}");
    }
}

/// What one program writes another one takes up when it looks, and only then.
#[test]
fn what_another_relay_writes_is_taken_up() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database("motet");
    let [one, two] = [0; 2].map(|_| Arc::new(Directory::connect(&url).unwrap()));
    assert!(!two.refresh().unwrap());
    one.add_account("keola").unwrap();
    let key = one.create_key("keola", None, false).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let registration = Registration {
        credential: key,
        device: DeviceId([1; 16]),
        key: DeviceKey::new([1; 32]).public(),
        name: "phone".into(),
        platform: "ios".into(),
        version: "1".into(),
        bound_to: None,
    };
    // A reply that is lost, and the same again at another relay, does not use the key up.
    for directory in [&one, &two, &one] {
        let registered = runtime.block_on(Members::new(directory.clone(), None).register(&registration));
        assert_eq!(registered.unwrap(), "keola");
    }
    let space = two.create_space("Choir", "keola").unwrap();
    assert!(one.refresh().unwrap());
    let offered = runtime.block_on(async {
        let who = motet_relay::auth::Principal { account: "keola".into(), token: None, device: None };
        Members::new(one.clone(), None).spaces(&who).await.unwrap()
    });
    assert_eq!(offered.iter().map(|space| space.id).collect::<Vec<_>>(), [space]);
    assert!(!one.refresh().unwrap());
    two.revoke_device(&"01".repeat(16), None).unwrap();
    assert!(one.refresh().unwrap());
}

#[test]
fn why_accounts_are_not_there_names_no_password() {
    let error = Directory::connect("postgres://relay:hunter2@127.0.0.1:1/motet").unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(said.contains("127.0.0.1:1") && !said.contains("hunter2"), "{said}");
    assert!(error.is_retryable());
    assert!(Directory::open(Path::new("/dev/null/nothing")).is_err_and(|error| !error.is_retryable()));
}
