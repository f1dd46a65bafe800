//! The public keys of an issuer, asked for when they are needed and kept for a while.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use reqwest::{Client, redirect};
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use super::config::{IssuerConfig, IssuerError, KeySource, secure};
use crate::identity::IdentityError;
use crate::limits;

/// Shortest RSA key, in bytes of its modulus: what RFC 7518 asks for.
const RSA_BYTES: usize = 256;

/// The keys of one issuer.
#[derive(Clone, Debug)]
pub(super) struct Keys(Arc<State>);

#[derive(Debug)]
struct State {
    label: String,
    url: String,
    algorithm: Algorithm,
    source: KeySource,
    known: RwLock<Option<Arc<Known>>>,
    /// When they were last asked for. Whoever asks holds it, so that one does at a time.
    asked: Arc<Mutex<Option<Instant>>>,
}

/// Keys, each with its id, if it has one.
type KeySet = Vec<(Option<String>, Arc<DecodingKey>)>;

struct Known {
    keys: KeySet,
    /// `None`: they stand in a file, and do not get old.
    since: Option<Instant>,
}

impl Keys {
    pub(super) fn new(config: &IssuerConfig) -> Result<Self, IssuerError> {
        let IssuerConfig { label, url, algorithm, keys, .. } = config;
        let known = match keys {
            KeySource::File(path) => {
                let error = |reason| IssuerError {
                    label: label.clone(),
                    reason: format!("key_file: {}: {reason}", path.display()),
                };
                let text = read(path).map_err(error)?;
                Some(Arc::new(Known { keys: parse(&text, *algorithm).map_err(error)?, since: None }))
            }
            _ => None,
        };
        Ok(Self(Arc::new(State {
            label: label.clone(),
            url: url.clone(),
            algorithm: *algorithm,
            source: keys.clone(),
            known: RwLock::new(known),
            asked: Arc::default(),
        })))
    }

    /// The key of this id; without an id the only one that there is.
    pub(super) async fn find(&self, id: Option<&str>) -> Result<Arc<DecodingKey>, IdentityError> {
        let state = &self.0;
        if let Some(key) = state.kept(id, limits::KEYS_KEPT) {
            return Ok(key);
        }
        let asked = state.asked.clone().lock_owned().await;
        // Somebody else may have asked meanwhile.
        if let Some(key) = state.kept(id, limits::KEYS_KEPT) {
            return Ok(key);
        }
        let again = if state.is_known() { limits::KEYS_ASKED_AGAIN } else { limits::KEYS_TRIED_AGAIN };
        let may_ask = asked.is_none_or(|at| at.elapsed() >= again);
        if may_ask && !matches!(state.source, KeySource::File(_)) {
            // In a task of its own: who asks and goes away must not leave the others without an answer.
            _ = tokio::spawn(state.clone().ask(asked)).await;
        } else {
            drop(asked);
        }
        if let Some(key) = state.kept(id, limits::KEYS_KEPT_WITHOUT_ISSUER) {
            return Ok(key);
        }
        match state.is_known() {
            true => Err(IdentityError::Refused("no key of its issuer has its id (`kid`)".into())),
            false => Err(IdentityError::Unavailable(state.label.clone())),
        }
    }
}

impl State {
    /// Asks for the keys anew. `asked`: held as long as that takes.
    async fn ask(self: Arc<Self>, mut asked: OwnedMutexGuard<Option<Instant>>) {
        *asked = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => {
                let known = Known { keys, since: Some(Instant::now()) };
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(known));
            }
            Err(reason) => tracing::error!(issuer = self.label, reason, "its keys are not to be had"),
        }
    }

    /// A key that was heard of within this time.
    fn kept(&self, id: Option<&str>, within: Duration) -> Option<Arc<DecodingKey>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        if known.since.is_some_and(|since| since.elapsed() > within) {
            return None;
        }
        match (id, &known.keys[..]) {
            (Some(id), keys) => {
                let by_id = keys.iter().find(|(own, _)| own.as_deref() == Some(id));
                // A key in PEM has no id.
                let only = || keys.first().filter(|(own, _)| keys.len() == 1 && own.is_none());
                by_id.or_else(only).map(|(_, key)| key.clone())
            }
            (None, [(_, only)]) => Some(only.clone()),
            (None, _) => None,
        }
    }

    fn is_known(&self) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = limits::KEYS_KEPT_WITHOUT_ISSUER;
        known.as_ref().is_some_and(|known| known.since.is_none_or(|since| since.elapsed() <= oldest))
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        // A redirect could lead to keys of somebody else.
        let client = Client::builder().redirect(redirect::Policy::none()).timeout(limits::KEYS_TIMEOUT);
        let client = client.build().map_err(|e| e.to_string())?;
        let at = match &self.source {
            KeySource::At(url) => url.clone(),
            _ => {
                let beside = format!("{}/.well-known/openid-configuration", self.url.trim_end_matches('/'));
                let found: Value = serde_json::from_slice(&get(&client, &beside).await?)
                    .map_err(|e| format!("{beside}: {e}"))?;
                if found["issuer"] != self.url {
                    return Err(format!("{beside} is the configuration of another issuer"));
                }
                let keys = found["jwks_uri"].as_str();
                let keys =
                    keys.ok_or_else(|| format!("{beside} does not say where keys are (`jwks_uri`)"))?;
                // One that is elsewhere sends nobody to a service of this machine.
                if self.url.starts_with("https://") && !keys.starts_with("https://") {
                    return Err(format!("{beside}: `jwks_uri` does not begin with https://"));
                }
                secure(keys)?
            }
        };
        let text = String::from_utf8(get(&client, &at).await?).map_err(|e| format!("{at}: {e}"))?;
        parse(&text, self.algorithm).map_err(|reason| format!("{at}: {reason}"))
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|(id, _)| id).collect();
        f.debug_struct("Known").field("keys", &ids).field("since", &self.since).finish()
    }
}

/// What stands in a file, as far as it may be long.
fn read(path: &Path) -> Result<String, String> {
    let found = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !found.is_file() || found.len() > limits::KEYS_BYTES as u64 {
        return Err(format!("it is no file, or longer than {} bytes", limits::KEYS_BYTES));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

/// What stands at an address, as far as it may be long.
async fn get(client: &Client, url: &str) -> Result<Vec<u8>, String> {
    let failed = |e: reqwest::Error| format!("{url}: {}", e.without_url());
    let mut answer = client.get(url).send().await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(format!("{url}: it answers {}", answer.status()));
    }
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(failed)? {
        if body.len() + part.len() > limits::KEYS_BYTES {
            return Err(format!("{url}: it is longer than {} bytes", limits::KEYS_BYTES));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// Keys for an algorithm, from PEM or a JSON Web Key Set. Those of other kinds are passed over.
fn parse(text: &str, algorithm: Algorithm) -> Result<KeySet, String> {
    if text.trim_start().starts_with("-----BEGIN") {
        let pem = text.as_bytes();
        let key = match algorithm.family() {
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
            _ => DecodingKey::from_ed_pem(pem),
        };
        let key = key.ok().filter(|key| fits(key, algorithm));
        let key = key.ok_or_else(|| format!("it has no public key for {algorithm:?}"))?;
        return Ok(vec![(None, Arc::new(key))]);
    }
    let set: Value =
        serde_json::from_str(text).map_err(|e| format!("it is neither PEM nor a key set: {e}"))?;
    let keys = set["keys"].as_array().ok_or("it is no JSON Web Key Set: it has no `keys`")?;
    let fitting = keys.iter().filter_map(|key| {
        let key: Jwk = serde_json::from_value(key.clone()).ok()?;
        let is_for_signing =
            key.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let named = key.common.key_algorithm;
        let is_same = named.is_none_or(|named| named.to_string() == format!("{algorithm:?}"));
        let is_public = !matches!(key.algorithm, AlgorithmParameters::OctetKey(_));
        let operations = key.common.key_operations.as_ref();
        let may_verify = operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        let decoding = DecodingKey::from_jwk(&key).ok()?;
        let is_good = is_for_signing && may_verify && is_same && is_public && fits(&decoding, algorithm);
        is_good.then(|| (key.common.key_id, Arc::new(decoding)))
    });
    let fitting: Vec<_> = fitting.take(limits::KEYS_PER_ISSUER).collect();
    if fitting.is_empty() { Err(format!("it has no key for {algorithm:?}")) } else { Ok(fitting) }
}

/// Whether a key is one of the algorithm: of its curve, or long enough.
fn fits(key: &DecodingKey, algorithm: Algorithm) -> bool {
    let is_of = |len: usize| key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == len);
    let is_long = || match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.len() >= RSA_BYTES,
        // In DER, which has the exponent as well.
        _ => key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() > RSA_BYTES),
    };
    key.family() == algorithm.family()
        && match algorithm {
            Algorithm::ES256 => is_of(65),
            Algorithm::ES384 => is_of(97),
            Algorithm::EdDSA => is_of(32),
            _ => is_long(),
        }
}
