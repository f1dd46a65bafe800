//! A service that says who people are: an OpenID Connect provider on loopback, with keys of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// A key with which an issuer signs.
#[derive(Clone)]
pub struct SigningKey {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub algorithm: Algorithm,
    key: EncodingKey,
}

/// A body of JSON.
struct Json(Value);

/// An OpenID Connect provider, which stops when this is dropped.
pub struct TestIssuer {
    url: String,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Default)]
struct Shared {
    url: Mutex<String>,
    keys: Mutex<Vec<SigningKey>>,
    asked: AtomicUsize,
    is_down: AtomicBool,
    /// How long it takes to answer, in milliseconds.
    delay: AtomicU64,
    /// By their codes.
    devices: Mutex<HashMap<String, Waiting>>,
}

/// A device that waits until somebody enters its code: its nonce, and as whom that was done, or that it was declined.
type Waiting = (String, Option<Result<String, ()>>);

impl IntoResponse for Json {
    fn into_response(self) -> axum::response::Response {
        ([("content-type", "application/json")], self.0.to_string()).into_response()
    }
}

impl SigningKey {
    /// A new key.
    pub fn new(id: &str, algorithm: Algorithm) -> Self {
        let der = match algorithm {
            Algorithm::ES256 => {
                let made =
                    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
                made.unwrap().as_ref().to_vec()
            }
            Algorithm::EdDSA => {
                Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap().as_ref().to_vec()
            }
            _ => {
                let made = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
                AsDer::<Pkcs8V1Der<'_>>::as_der(&made).unwrap().as_ref().to_vec()
            }
        };
        let pem = pem("PRIVATE KEY", &der);
        let key = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        Self { id: id.to_owned(), algorithm, key: key.unwrap() }
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) }, claims)
    }

    /// The same with another header.
    pub fn sign_as(&self, header: Header, claims: &Value) -> String {
        encode(&header, claims, &self.key).unwrap()
    }

    /// The public half, as a key set has it.
    pub fn public(&self) -> Jwk {
        let mut key = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        key.common.key_id = Some(self.id.clone());
        key
    }
}

impl TestIssuer {
    /// Starts one with these keys.
    pub fn start(keys: &[SigningKey]) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        *shared.url.lock().unwrap() = url.clone();
        *shared.keys.lock().unwrap() = keys.to_vec();
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(key_set))
            .route("/device", post(begin))
            .route("/token", post(token))
            .with_state(shared.clone());
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { url, shared, runtime: Some(runtime) }
    }

    /// Its address, which its tokens name.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Gives it other keys.
    pub fn rotate(&self, keys: &[SigningKey]) {
        *self.shared.keys.lock().unwrap() = keys.to_vec();
    }

    /// Lets it answer nothing but errors, or again what it should.
    pub fn set_down(&self, is_down: bool) {
        self.shared.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Lets it take so long for each answer.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.delay.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// How often it was asked for its keys.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Somebody enters a code: as the person with this subject, or declines.
    pub fn enter(&self, code: &str, who: Result<&str, ()>) {
        let mut devices = self.shared.devices.lock().unwrap();
        devices.get_mut(code).expect("no such code").1 = Some(who.map(str::to_owned));
    }
}

impl Drop for TestIssuer {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// What a token of an issuer says of somebody, good for an hour.
pub fn claims(issuer: &str, subject: &str, nonce: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({
        "iss": issuer, "sub": subject, "aud": "motet-app", "iat": now, "exp": now + 3_600, "nonce": nonce,
        "email": format!("{subject}@example.org"),
    })
}

/// A file of bytes with a name.
pub fn pem(name: &str, der: &[u8]) -> String {
    format!("-----BEGIN {name}-----\n{}\n-----END {name}-----\n", STANDARD.encode(der))
}

async fn discovery(State(shared): State<Arc<Shared>>) -> Result<Json, StatusCode> {
    shared.up().await?;
    let url = shared.url.lock().unwrap().clone();
    Ok(Json(json!({
        "issuer": url, "jwks_uri": format!("{url}/keys"), "token_endpoint": format!("{url}/token"),
        "device_authorization_endpoint": format!("{url}/device"),
    })))
}

async fn key_set(State(shared): State<Arc<Shared>>) -> Result<Json, StatusCode> {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    shared.up().await?;
    let keys: Vec<_> = shared.keys.lock().unwrap().iter().map(SigningKey::public).collect();
    let mut keys = serde_json::to_value(keys).unwrap();
    // What others have in theirs is passed over.
    keys.as_array_mut().unwrap().push(json!({ "kty": "of tomorrow", "kid": "x" }));
    Ok(Json(json!({ "keys": keys })))
}

async fn begin(State(shared): State<Arc<Shared>>, form: String) -> Json {
    let form = read_form(&form);
    assert_eq!(form["client_id"], "motet-app");
    let code = format!("code-{}", shared.devices.lock().unwrap().len());
    shared.devices.lock().unwrap().insert(code.clone(), (form["nonce"].clone(), None));
    let url = shared.url.lock().unwrap().clone();
    Json(json!({
        "device_code": code, "user_code": code, "verification_uri": format!("{url}/enter"), "expires_in": 60, "interval": 1,
    }))
}

async fn token(State(shared): State<Arc<Shared>>, form: String) -> (StatusCode, Json) {
    let form = read_form(&form);
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:device_code");
    let refused = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": error })));
    let found = shared.devices.lock().unwrap().get(&form["device_code"]).cloned();
    match found {
        None => refused("expired_token"),
        Some((_, None)) => refused("authorization_pending"),
        Some((_, Some(Err(())))) => refused("access_denied"),
        Some((nonce, Some(Ok(subject)))) => {
            let url = shared.url.lock().unwrap().clone();
            // One that is evil gives something else.
            if let Some(other) = subject.strip_prefix("evil: ") {
                return (StatusCode::OK, Json(json!({ "id_token": other })));
            }
            let signed = shared.keys.lock().unwrap()[0].sign(&claims(&url, &subject, &nonce));
            (StatusCode::OK, Json(json!({ "access_token": "x", "token_type": "Bearer", "id_token": signed })))
        }
    }
}

impl Shared {
    async fn up(&self) -> Result<(), StatusCode> {
        tokio::time::sleep(Duration::from_millis(self.delay.load(Ordering::SeqCst))).await;
        match self.is_down.load(Ordering::SeqCst) {
            true => Err(StatusCode::BAD_GATEWAY),
            false => Ok(()),
        }
    }
}

fn read_form(form: &str) -> HashMap<String, String> {
    let url = reqwest::Url::parse(&format!("form:?{form}")).unwrap();
    url.query_pairs().into_owned().collect()
}
