//! What is known of an issuer before any token comes.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jsonwebtoken::Algorithm;
use reqwest::Url;
use serde::Deserialize;

/// An issuer of identity tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What the operator calls it: accounts that are made for its people are named after it.
    pub label: String,
    /// Its address, as its tokens name it (`iss`).
    pub url: String,
    /// For whom its tokens have to be (`aud`): one of these.
    pub audience: Vec<String>,
    /// With what it signs. A token that names another one is refused.
    pub(crate) algorithm: Algorithm,
    /// Where its keys are.
    pub keys: KeySource,
    /// Whether tokens name the key of the device that they are for.
    pub nonce: Nonce,
    /// Whether people who have no account here get one when they sign in.
    pub new_accounts: bool,
}

/// Where the public keys of an issuer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Where its OpenID Connect configuration says, which is found beside its address.
    Discovered,
    /// At this address, as a JSON Web Key Set.
    At(String),
    /// In this file: a public key in PEM, or a JSON Web Key Set.
    File(PathBuf),
}

/// Whether a token names the key of the device that it is for, so that nobody else can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonce {
    /// It has to.
    Required,
    /// One that does not is good for whoever has it.
    Optional,
}

/// Why an issuer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("issuer {label:?}: {reason}")]
pub struct IssuerError {
    /// Which.
    pub label: String,
    /// What is wrong.
    pub reason: String,
}

/// As a file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerTable {
    name: String,
    url: String,
    audience: Vec<String>,
    algorithm: String,
    #[serde(default)]
    keys: Option<String>,
    #[serde(default)]
    key_file: Option<PathBuf>,
    #[serde(default)]
    nonce: Option<String>,
    #[serde(default)]
    new_accounts: bool,
}

/// Those that prove who has signed. With a shared secret, or none, whoever checks a token could make one.
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

impl IssuerConfig {
    /// `folder`: the one of the configuration file, from which the paths in it are meant.
    pub(crate) fn from_table(table: IssuerTable, folder: &Path) -> Result<Self, IssuerError> {
        let IssuerTable { name: label, url, audience, algorithm, keys, key_file, nonce, new_accounts } =
            table;
        let error = |reason: String| IssuerError { label: label.clone(), reason };
        let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !(1..=32).contains(&label.len()) || !label.chars().all(is_label) {
            return Err(error("a name has 1 to 32 characters of a-z, 0-9 and -".into()));
        }
        if url.is_empty() || url.trim() != url || url.chars().any(char::is_control) {
            return Err(error("url: it is empty, or has blanks around it".into()));
        }
        if audience.is_empty() || audience.iter().any(String::is_empty) {
            return Err(error(
                "audience: it names nobody; it is the ids of the apps that its tokens are for".into(),
            ));
        }
        let found = ALGORITHMS.iter().find(|(name, _)| *name == algorithm);
        let names = || ALGORITHMS.map(|(name, _)| name).join(", ");
        let &(_, algorithm) =
            found.ok_or_else(|| error(format!("algorithm: {algorithm:?} is none of {}", names())))?;
        let keys = match (keys, key_file) {
            (Some(_), Some(_)) => {
                return Err(error("it has keys and key_file; one says where the keys are".into()));
            }
            (Some(url), None) => {
                KeySource::At(secure(&url).map_err(|reason| error(format!("keys: {reason}")))?)
            }
            (None, Some(path)) => KeySource::File(folder.join(path)),
            (None, None) => {
                secure(&url).map_err(|reason| error(format!("url: {reason}; or say where its keys are")))?;
                if url.contains('?') {
                    return Err(error(
                        "url: it has a query, and no configuration is found beside that".into(),
                    ));
                }
                KeySource::Discovered
            }
        };
        let nonce = match nonce.as_deref() {
            None | Some("required") => Nonce::Required,
            Some("optional") => Nonce::Optional,
            Some(other) => {
                return Err(error(format!("nonce: {other:?} is neither \"required\" nor \"optional\"")));
            }
        };
        Ok(Self { label, url, audience, algorithm, keys, nonce, new_accounts })
    }

    pub(crate) fn algorithm_name(&self) -> &'static str {
        ALGORITHMS.iter().find(|(_, known)| *known == self.algorithm).map_or("", |(name, _)| name)
    }
}

/// An address from which keys can be had without somebody on the way putting others in their place.
pub(super) fn secure(url: &str) -> Result<String, String> {
    let parsed = Url::parse(url).map_err(|e| format!("{url:?} is no address: {e}"))?;
    if !parsed.username().is_empty() || parsed.password().is_some() || parsed.fragment().is_some() {
        return Err(format!("{url:?} has a user name, a password or a fragment"));
    }
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    match parsed.scheme() {
        "https" => Ok(url.to_owned()),
        "http" if is_here => Ok(url.to_owned()),
        _ => Err(format!("{url:?} does not begin with https://")),
    }
}
