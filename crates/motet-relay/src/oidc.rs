//! Identity tokens: JSON Web Tokens of OpenID Connect providers, and of backends that sign with a key of their own.
//!
//! A device shows such a token once, when it signs in. What is checked follows RFC 8725: one algorithm for each issuer, whatever the token says;
//! issuer and audience exactly; no critical extensions; `exp`, `iss`, `aud` and `sub` are required.

mod config;
mod keys;

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::{BoxFuture, FutureExt};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode};
use motet_proto::device_key::PublicKey;
use motet_proto::limits as proto;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::identity::{Identities, Identity, IdentityError, OfferedIssuer};
use crate::limits;
pub(crate) use config::IssuerTable;
pub use config::{IssuerConfig, IssuerError, KeySource, Nonce};
use keys::Keys;

/// The issuers whose identity tokens are accepted.
#[derive(Debug)]
pub struct Issuers(Vec<Issuer>);

#[derive(Debug)]
struct Issuer {
    config: IssuerConfig,
    keys: Keys,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Value,
    #[serde(default)]
    azp: Option<String>,
    #[serde(default)]
    iat: Option<f64>,
    #[serde(default)]
    nonce: Option<String>,
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

impl Issuers {
    /// Issuers as a configuration names them. Keys in files are read; those behind addresses when the first token comes.
    ///
    /// # Errors
    /// [`IssuerError`] names the issuer, and what is wrong.
    pub fn new(configs: Vec<IssuerConfig>) -> Result<Self, IssuerError> {
        Self(Vec::new()).renewed(configs)
    }

    /// The same after these, whose keys stay known where the configuration is the same. Files are read anew.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub fn renewed(&self, configs: Vec<IssuerConfig>) -> Result<Self, IssuerError> {
        let issuer = |config: IssuerConfig| {
            let is_in_file = matches!(config.keys, KeySource::File(_));
            let same = self.0.iter().find(|known| known.config == config && !is_in_file);
            let keys = same.map_or_else(|| Keys::new(&config), |known| Ok(known.keys.clone()))?;
            Ok(Issuer { keys, config })
        };
        configs.into_iter().map(issuer).collect::<Result<_, _>>().map(Self)
    }

    async fn check(&self, token: &str, key: &PublicKey) -> Result<Identity, IdentityError> {
        if token.len() > proto::CREDENTIAL_BYTES {
            return Err(refused("it is too long"));
        }
        let mut parts = token.split('.');
        let (head, body) = (json(parts.next())?, json(parts.next())?);
        let text =
            |map: &Map<String, Value>, name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
        let issuer = text(&body, "iss").ok_or_else(|| refused("it has no `iss`"))?;
        let found = self.0.iter().find(|known| known.config.url == issuer);
        let Issuer { config, keys } = found.ok_or_else(|| refused("its issuer (`iss`) is not known here"))?;
        // What a token says of itself chooses neither the algorithm nor where keys are looked for.
        if text(&head, "alg").is_none_or(|alg| alg != config.algorithm_name()) {
            return Err(refused("its algorithm (`alg`) is not the one of its issuer"));
        }
        if head.contains_key("crit") || head.contains_key("b64") || head.contains_key("zip") {
            return Err(refused("it has extensions (`crit`) that are not known here"));
        }
        if text(&head, "typ").is_some_and(|kind| !kind.eq_ignore_ascii_case("JWT")) {
            return Err(refused("it is of another kind (`typ`)"));
        }
        let found = keys.find(text(&head, "kid").as_deref()).await?;
        let mut checks = Validation::new(config.algorithm);
        checks.leeway = limits::IDENTITY_LEEWAY.as_secs();
        checks.validate_nbf = true;
        checks.set_issuer(&[&config.url]);
        checks.set_audience(&config.audience);
        checks.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = decode::<Claims>(token, &found, &checks).map_err(|e| refused(reason(e.kind())))?.claims;
        config.accept(claims, key)
    }
}

impl IssuerConfig {
    /// What is to be checked beside the signature and the times.
    fn accept(&self, claims: Claims, key: &PublicKey) -> Result<Identity, IdentityError> {
        let Claims { iss, sub, aud, azp, iat, nonce, email, name } = claims;
        let is_ours = |party: &String| self.audience.contains(party);
        // Of a token for several the party that it was made for is one of ours.
        if aud.as_array().is_some_and(|all| all.len() > 1) && azp.is_none() {
            return Err(refused(
                "it is for several parties (`aud`), and does not say for whom it was made (`azp`)",
            ));
        }
        if azp.is_some_and(|party| !is_ours(&party)) {
            return Err(refused("it was made for another party (`azp`)"));
        }
        let latest = now() + limits::IDENTITY_LEEWAY.as_secs_f64();
        if iat.is_some_and(|at| at > latest) {
            return Err(refused("it was made in the future (`iat`)"));
        }
        match (nonce, self.nonce) {
            (Some(nonce), _) if nonce != key.nonce() => {
                return Err(refused("it was made for another device (`nonce`)"));
            }
            (None, Nonce::Required) => {
                return Err(refused("it does not say for which device it was made (`nonce`)"));
            }
            _ => {}
        }
        if sub.is_empty() || sub.len() > limits::SUBJECT_BYTES || sub.chars().any(char::is_control) {
            return Err(refused("its subject (`sub`) is empty, too long, or not visible"));
        }
        let shown = email.or(name).unwrap_or_default();
        let shown = shown.chars().filter(|c| !c.is_control()).take(limits::SHOWN_CHARS).collect();
        let (label, may_be_new) = (self.label.clone(), self.new_accounts);
        Ok(Identity { issuer: iss, subject: sub, shown, label, may_be_new })
    }
}

impl Identities for Issuers {
    fn verify<'a>(
        &'a self,
        token: &'a str,
        key: &'a PublicKey,
    ) -> BoxFuture<'a, Result<Identity, IdentityError>> {
        self.check(token, key).boxed()
    }

    fn offered(&self) -> Vec<OfferedIssuer> {
        let of = |issuer: &Issuer| OfferedIssuer {
            label: issuer.config.label.clone(),
            url: issuer.config.url.clone(),
            audience: issuer.config.audience.clone(),
            requires_nonce: issuer.config.nonce == Nonce::Required,
        };
        self.0.iter().map(of).collect()
    }
}

/// By the clock of this machine, in seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn refused(reason: impl Into<String>) -> IdentityError {
    IdentityError::Refused(reason.into())
}

/// A part of a token, which is an object in base64url.
fn json(part: Option<&str>) -> Result<Map<String, Value>, IdentityError> {
    let bytes = part.and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| refused("it is no JSON Web Token"))
}

fn reason(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::InvalidSignature => "its signature does not fit".into(),
        ErrorKind::ExpiredSignature => "it has expired (`exp`)".into(),
        ErrorKind::ImmatureSignature => "it is not good yet (`nbf`)".into(),
        ErrorKind::InvalidAudience => "it is for another party (`aud`)".into(),
        ErrorKind::InvalidIssuer => "its issuer (`iss`) is not known here".into(),
        ErrorKind::MissingRequiredClaim(claim) => format!("it has no `{claim}`"),
        ErrorKind::Json(_) => "a claim is missing, or of another kind".into(),
        _ => "it is no JSON Web Token of its issuer".into(),
    }
}
