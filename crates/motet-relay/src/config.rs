//! What a relay bears: one table of limits, each with its unit, default and reason.
//!
//! A file sets them, and is read again on SIGHUP:
//!
//! ```toml
//! proxies = ["127.0.0.1"]      # whose `X-Forwarded-For` is believed
//!
//! [limits]
//! sessions_per_account = 64
//! ```
//!
//! Sizes and times that nobody has a reason to change are in [`limits`].

use std::net::IpAddr;
use std::path::Path;

use crate::limits;

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

/// The configuration file is not usable.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ConfigError {
    path: String,
    reason: String,
}

impl Terms {
    /// Reads a configuration file. What it does not name has its default.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, and what in it is not known or has no sense.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let error = |reason: String| ConfigError { path: path.display().to_string(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
        Self::parse(&text).map_err(error)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Self::default();
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
        for (key, value) in table {
            match (key.as_str(), value) {
                ("limits", toml::Value::Table(limits)) => {
                    limits.into_iter().try_for_each(|(name, value)| terms.set(&name, &value))?;
                }
                ("proxies", toml::Value::Array(proxies)) => {
                    for proxy in proxies {
                        let address = proxy.as_str().and_then(|text| text.parse().ok());
                        terms.proxies.push(address.ok_or(format!("{proxy} is no IP address"))?);
                    }
                }
                (key, _) => return Err(format!("{key:?} is not known here, or of another kind")),
            }
        }
        Ok(terms)
    }

    fn set(&mut self, name: &str, value: &toml::Value) -> Result<(), String> {
        let field = self.limits.field(name).ok_or_else(|| format!("there is no limit {name:?}"))?;
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

    #[test]
    fn a_file_sets_what_it_names() {
        let terms = Terms::parse("proxies = ['10.0.0.1', '::1']\n[limits]\nsessions = 7\n").unwrap();
        assert_eq!(terms.proxies.len(), 2);
        assert_eq!(terms.limits, Limits { sessions: 7, ..Limits::default() });
        assert_eq!(Terms::parse("").unwrap(), Terms::default());
        for (name, ..) in TABLE {
            let is_taken = Terms::parse(&format!("[limits]\n{name} = 0")).is_ok();
            assert_eq!(is_taken, ["reserve_bytes", "wrong_tokens"].contains(name), "{name}");
        }
        for (text, reason) in [
            ("[limits]\nsesions = 7", "there is no limit \"sesions\""),
            ("[limits]\nsessions = -1", "sessions is a whole number from 1, got -1"),
            ("[limits]\nsessions = 0", "sessions is a whole number from 1, got 0"),
            ("[limits]\nreserve_bytes = -1", "reserve_bytes is a whole number from 0, got -1"),
            ("[limits]\nsessions = 'many'", "sessions is a whole number from 1, got \"many\""),
            ("proxies = ['here']", "\"here\" is no IP address"),
            ("limit = 3", "\"limit\" is not known here, or of another kind"),
        ] {
            assert_eq!(Terms::parse(text).unwrap_err(), reason);
        }
    }
}
