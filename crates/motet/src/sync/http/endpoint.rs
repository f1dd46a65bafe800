//! A relay's address.

use std::net::IpAddr;

use reqwest::Url;

use crate::error::SyncError;

/// Where sync messages go, under the relay's address.
const SYNC_PATH: &str = "v1/sync";

/// Where devices sign in.
const DEVICES_PATH: &str = "v1/devices";

/// Where it is said how.
const SIGN_IN_PATH: &str = "v1/sign-in";

/// Where devices find shared spaces.
const SPACES_PATH: &str = "v1/spaces";

/// A relay's address in its normal form.
#[derive(Clone, Debug)]
pub(in crate::sync) struct Endpoint {
    /// As the store knows the remote.
    pub(in crate::sync) url: String,
    pub(in crate::sync) sync: Url,
}

impl Endpoint {
    /// Whether nobody on the way can read what is sent: over TLS, or where there is no way.
    pub(in crate::sync) fn keeps_secrets(&self) -> bool {
        let host = self.sync.host_str().unwrap_or_default();
        let is_loopback = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => {
                let name = host.trim_end_matches('.');
                name == "localhost" || name.ends_with(".localhost")
            }
        };
        self.sync.scheme() == "https" || is_loopback
    }

    /// Where devices sign in.
    pub(super) fn devices(&self) -> Result<Url, SyncError> {
        self.below(DEVICES_PATH)
    }

    /// Where it is said how devices sign in.
    pub(super) fn sign_in(&self) -> Result<Url, SyncError> {
        self.below(SIGN_IN_PATH)
    }

    /// Where devices find shared spaces.
    pub(super) fn spaces(&self) -> Result<Url, SyncError> {
        self.below(SPACES_PATH)
    }

    fn below(&self, path: &str) -> Result<Url, SyncError> {
        let bad = |e: <Url as std::str::FromStr>::Err| SyncError::BadUrl {
            url: self.url.clone(),
            reason: e.to_string(),
        };
        Url::parse(&self.url).and_then(|base| base.join(path)).map_err(bad)
    }

    /// Reads an address as people type it: with blanks around it, and the scheme in any case.
    pub(in crate::sync) fn parse(text: &str) -> Result<Self, SyncError> {
        let bad = |reason: &str| SyncError::BadUrl { url: text.to_owned(), reason: reason.to_owned() };
        let scheme = bad("it must begin with http://, https://, ws:// or wss://");
        let (name, rest) = text.trim().split_once("://").ok_or_else(|| scheme.clone())?;
        let http = match name.to_ascii_lowercase().as_str() {
            "http" | "ws" => "http",
            "https" | "wss" => "https",
            _ => return Err(scheme),
        };
        // A lenient reader would take the path for the host.
        if rest.is_empty() || rest.starts_with(['/', '\\', '?', '#']) {
            return Err(bad("it names no host"));
        }
        let url = Url::parse(&format!("{http}://{rest}"));
        let mut base = url.map_err(|e| bad(&format!("its host cannot be read: {e}")))?;
        if !base.username().is_empty() || base.password().is_some() {
            return Err(bad("it must not hold a user name or password"));
        }
        if base.query().is_some() {
            return Err(bad("it must not hold a query: nothing from the ? on would reach the relay"));
        }
        if base.fragment().is_some() {
            return Err(bad("it must not hold a fragment: nothing from the # on would reach the relay"));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let sync = base.join(SYNC_PATH).map_err(|e| bad(&e.to_string()))?;
        Ok(Self { url: base.to_string(), sync })
    }
}
