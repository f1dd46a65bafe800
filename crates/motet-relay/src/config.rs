//! What a relay bears: one table of limits, each with its unit, default and reason.
//!
//! A file sets them, and is read again on SIGHUP:
//!
//! ```toml
//! proxies = ["127.0.0.1"]      # whose `X-Forwarded-For` is believed
//! console = true               # pages for the operator and for holders of accounts, below `/console/`; as of the next start
//!
//! [limits]
//! sessions_per_account = 64
//!
//! [[issuer]]                   # whose identity tokens devices sign in with, besides sign-in keys
//! name = "google"
//! url = "https://accounts.google.com"
//! audience = ["1234.apps.googleusercontent.com"]
//! algorithm = "RS256"
//! new_accounts = true          # people who have no account get one; false if nothing is said
//! ```
//!
//! An issuer's keys are where its OpenID Connect configuration says; `keys` (an address) or `key_file` (a public key in PEM, or a key set) says
//! otherwise, as for the backend of an app that signs tokens of its own. Its tokens name the device that they are for, unless `nonce = "optional"`.
//!
//! Sizes and times that nobody has a reason to change are in [`limits`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::limits;
#[cfg(feature = "oidc")]
use crate::oidc::{IssuerConfig, IssuerTable};

/// Declares [`Limits`] and [`TABLE`] at once, so that no limit is without a unit, a default and a reason.
macro_rules! limits {
    ($($name:ident, $unit:literal, $default:expr, $reason:literal;)*) => {
        /// How much of everything a relay takes on. See [`TABLE`] for what each is for.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $(#[doc = concat!($reason, " In ", $unit, ".")] pub $name: u64,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Limits {
            fn field(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }

        /// Every limit: name, unit, default and reason.
        pub const TABLE: &[(&str, &str, u64, &str)] =
            &[$((stringify!($name), $unit, $default, $reason),)*];
    };
}

limits! {
    connections, "connections", 12_000,
        "Connections of all kinds; lowered to what the system lets a process open, less a reserve.";
    connections_per_address, "connections", 2_000,
        "Of one address, unless it is this machine or a proxy; an IPv6 network of 64 bits counts as one.";
    half_open, "connections", 512,
        "Connections that have not sent a whole request yet. Beyond it the oldest goes, of the address that has most.";
    sessions, "sessions", 10_000,
        "Sessions in all. One at rest costs about 12 kB.";
    sessions_per_account, "sessions", 256,
        "Sessions of one account: what a family or a class connects at a time.";
    sessions_per_device, "sessions", 2,
        "Sessions of one device in one space; a newer one replaces the oldest. Two, as an app and a command may work on one file.";
    frames_per_second, "frames a second", 2_000,
        "Of one account, over all of its sessions; four times as many in one go. Who sends more is read more slowly.";
    bytes_per_second, "bytes a second", 16 << 20,
        "Of one account, as they open; four times as many in one go. Who sends more is read more slowly.";
    places_per_second, "places a second", 2_000,
        "Places of devices that are handed round for one account, counted once for each device that hears of it.";
    incomplete_bytes, "bytes", 256 << 20,
        "Of messages and bodies that have not arrived whole, in all.";
    incomplete_bytes_per_account, "bytes", 64 << 20,
        "Of those, of one account: some of the largest messages at a time.";
    outgoing_bytes, "bytes", 512 << 20,
        "Read for devices and not taken by them yet, in all. Further reads wait; an account that has nothing on its way out does not.";
    outgoing_bytes_per_account, "bytes", 128 << 20,
        "Of those, of one account: pages for some hundred devices on slow ways, or a dozen of the largest entries.";
    bytes_per_account, "bytes", 16 << 30,
        "What the logs of one account hold; the account is full then.";
    documents_per_account, "documents", 2_000_000,
        "Documents that one account has ever had in its logs.";
    spaces_per_account, "spaces", 1_000,
        "Logs of one account.";
    spaces, "spaces", 1_000_000,
        "Logs in all; the file has room for eight million.";
    reserve_bytes, "bytes", 64 << 20,
        "Room that is left on the disk: with less, the relay only reads and erases, until there is room again.";
    wrong_tokens, "refusals", 10,
        "Refused tokens of one address that are answered at once; afterwards one every five seconds, and the rest late or not at all.";
}

/// What a relay can be told again while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// See [`TABLE`].
    pub limits: Limits,
    /// Addresses of proxies, whose `X-Forwarded-For` is believed.
    pub proxies: Vec<IpAddr>,
}

/// What a configuration file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Limits and proxies.
    pub terms: Terms,
    /// Whether the relay has the console.
    #[cfg(feature = "console")]
    pub console: bool,
    /// Whose identity tokens are accepted.
    #[cfg(feature = "oidc")]
    pub issuers: Vec<IssuerConfig>,
}

/// The configuration file is not usable.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{path}{}: {reason}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct ConfigError {
    path: String,
    /// From 1.
    line: Option<usize>,
    reason: String,
}

/// What is wrong, and where, in bytes.
type Fault = (Option<Range<usize>>, String);

/// As the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    limits: BTreeMap<Spanned<String>, Spanned<toml::Value>>,
    #[serde(default)]
    proxies: Vec<Spanned<String>>,
    #[cfg(feature = "console")]
    #[serde(default)]
    console: bool,
    #[cfg(feature = "oidc")]
    #[serde(default)]
    issuer: Vec<Spanned<IssuerTable>>,
}

impl Settings {
    /// Reads a configuration file. What it does not name has its default; paths in it are meant from its folder.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line, and what in it is not known or has no sense.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let error = |line, reason| ConfigError { path: path.display().to_string(), line, reason };
        let text = std::fs::read_to_string(path).map_err(|e| error(None, e.to_string()))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new(""))).map_err(|(place, reason)| {
            let before = place.and_then(|place| text.get(..place.start));
            error(before.map(|before| 1 + before.matches('\n').count()), reason)
        })
    }

    #[cfg_attr(not(feature = "oidc"), allow(unused_variables, reason = "only issuers have files"))]
    fn parse(text: &str, folder: &Path) -> Result<Self, Fault> {
        let file: File = toml::from_str(text).map_err(|e| (e.span(), misplaced(e.message())))?;
        let mut settings = Self::default();
        for (name, value) in file.limits {
            let set = settings.terms.limits.set(name.get_ref(), value.get_ref());
            set.map_err(|reason| (Some(name.span()), reason))?;
        }
        for proxy in file.proxies {
            let address = proxy.get_ref().parse();
            let address = address
                .map_err(|_| (Some(proxy.span()), format!("{:?} is no IP address", proxy.get_ref())))?;
            settings.terms.proxies.push(address);
        }
        #[cfg(feature = "console")]
        {
            settings.console = file.console;
        }
        #[cfg(feature = "oidc")]
        for table in file.issuer {
            let place = Some(table.span());
            let issuer = IssuerConfig::from_table(table.into_inner(), folder)
                .map_err(|error| (place.clone(), error.to_string()))?;
            let same = |known: &IssuerConfig| known.label == issuer.label || known.url == issuer.url;
            if settings.issuers.iter().any(same) {
                let reason =
                    format!("issuer {:?}: its name or its url stands in the file twice", issuer.label);
                return Err((place, reason));
            }
            settings.issuers.push(issuer);
        }
        Ok(settings)
    }
}

/// What is wrong with a file, with where a limit belongs that does not stand below `[limits]`.
fn misplaced(message: &str) -> String {
    let message = message.replace('\n', " ");
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    match unknown {
        Some(name) if TABLE.iter().any(|(limit, ..)| *limit == name) => {
            format!("{name} is a limit: it stands below [limits]")
        }
        _ => message,
    }
}

impl Limits {
    fn set(&mut self, name: &str, value: &toml::Value) -> Result<(), String> {
        let field = self.field(name).ok_or_else(|| match name {
            "proxies" => "proxies is no limit: it stands above [limits]".to_owned(),
            name => format!("there is no limit {name:?}"),
        })?;
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        // With no room for a single one a relay would serve nobody, and say that it does.
        let least = u64::from(!matches!(name, "reserve_bytes" | "wrong_tokens"));
        let number = number.filter(|number| *number >= least);
        let number = number.ok_or_else(|| format!("{name} is a whole number from {least}, got {value}"))?;
        if matches!(name, "spaces" | "spaces_per_account") && number > limits::SPACES {
            return Err(format!("{name} is at most {}, got {number}", limits::SPACES));
        }
        *field = number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "oidc")]
    use crate::oidc::{KeySource, Nonce};

    fn parse(text: &str) -> Result<Settings, String> {
        let place = |place: Option<Range<usize>>| {
            place.map_or(0, |place| 1 + text[..place.start].matches('\n').count())
        };
        Settings::parse(text, Path::new("/etc/motet")).map_err(|(at, why)| format!("{}: {why}", place(at)))
    }

    #[test]
    fn a_file_sets_what_it_names() {
        let terms = parse("proxies = ['10.0.0.1', '::1']\n[limits]\nsessions = 7\n").unwrap().terms;
        assert_eq!(terms.proxies.len(), 2);
        assert_eq!(terms.limits, Limits { sessions: 7, ..Limits::default() });
        assert_eq!(parse("").unwrap(), Settings::default());
        for (name, ..) in TABLE {
            let is_taken = parse(&format!("[limits]\n{name} = 0")).is_ok();
            assert_eq!(is_taken, ["reserve_bytes", "wrong_tokens"].contains(name), "{name}");
        }
        for (text, reason) in [
            ("[limits]\nsesions = 7", "2: there is no limit \"sesions\""),
            ("[limits]\nsessions = -1", "2: sessions is a whole number from 1, got -1"),
            ("[limits]\nsessions = 0", "2: sessions is a whole number from 1, got 0"),
            ("[limits]\nreserve_bytes = -1", "2: reserve_bytes is a whole number from 0, got -1"),
            ("[limits]\nsessions = 'many'", "2: sessions is a whole number from 1, got \"many\""),
            ("proxies = [\n'here']", "2: \"here\" is no IP address"),
            ("[limits]\nproxies = []", "2: proxies is no limit: it stands above [limits]"),
            ("\nsessions = 7", "2: sessions is a limit: it stands below [limits]"),
        ] {
            assert_eq!(parse(text).unwrap_err(), reason);
        }
        for (text, words) in [
            ("\nlimit = 3", ["2: ", "unknown field `limit`"]),
            ("proxies = 3", ["1: ", "invalid type"]),
            ("[limits", ["1: ", "]"]),
        ] {
            let reason = parse(text).unwrap_err();
            assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
        }
    }

    #[cfg(feature = "oidc")]
    #[test]
    fn issuers_are_checked_before_any_token_comes() {
        let google = "[[issuer]]\nname = 'google'\nurl = 'https://accounts.google.com'\naudience = ['1']\nalgorithm = 'RS256'\n";
        let found = parse(google).unwrap().issuers.remove(0);
        assert_eq!((&*found.label, found.keys, found.new_accounts), ("google", KeySource::Discovered, false));
        assert_eq!(found.nonce, Nonce::Required);
        let more = |line: &str| parse(&format!("{google}{line}\n"));
        let file = more("key_file = 'backend.pem'\nnonce = 'optional'").unwrap().issuers.remove(0);
        assert_eq!(file.keys, KeySource::File("/etc/motet/backend.pem".into()));
        assert_eq!(file.nonce, Nonce::Optional);
        for (line, reason) in [
            ("nonce = 'no'", "neither"),
            ("keys = 'http://example.org/keys'", "does not begin with https://"),
            ("keys = 'https://example.org/keys'\nkey_file = 'x'", "one says where the keys are"),
            ("new_acounts = true", "unknown field"),
            (google, "twice"),
        ] {
            let error = more(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
        for (from, to, reason) in [
            ("RS256", "HS256", "is none of"),
            ("RS256", "none", "is none of"),
            ("['1']", "[]", "names nobody"),
            ("'google'", "'Google'", "a-z"),
            ("https://accounts.google.com", "http://accounts.google.com", "does not begin with https://"),
        ] {
            let error = parse(&google.replace(from, to)).unwrap_err();
            assert!(error.contains(reason) && error.starts_with("1: "), "{to}: {error}");
        }
    }
}
