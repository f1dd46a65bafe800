//! An identity token by the device flow of OAuth (RFC 8628): a person opens a page on any device, and types a code there.

use std::thread;
use std::time::{Duration, Instant};

use motet::{Issuer, limits};
use reqwest::Url;
use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::CliError;
use crate::output::Output;

/// How often a service is asked whether the person has done it, if it says nothing about that: what RFC 8628 says.
const INTERVAL: Duration = Duration::from_secs(5);

/// By how much longer the interval gets when a service asks for that: what RFC 8628 says.
const SLOWER: Duration = Duration::from_secs(5);

/// How long a person has at most, whatever a service says.
const LONGEST: Duration = Duration::from_secs(1_800);

/// An answer of a service that has not come whole after this time is not waited for.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Who asks the service for a token.
pub(crate) struct ClientId {
    pub(crate) id: Option<String>,
    pub(crate) secret: Option<String>,
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    device_authorization_endpoint: Option<String>,
    token_endpoint: String,
}

#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    #[serde(alias = "verification_url")]
    verification_uri: String,
    expires_in: u64,
    #[serde(default)]
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    id_token: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    error_description: Option<String>,
}

/// Asks a service for a token that is good for this device.
pub(crate) fn token(
    issuer: &Issuer,
    client: ClientId,
    nonce: &str,
    output: &Output,
) -> Result<String, CliError> {
    let failed = |reason: String| CliError::Other(format!("{}: {reason}", issuer.name));
    let http = Client::builder().redirect(Policy::none()).timeout(TIMEOUT).build();
    let http = http.map_err(|e| failed(e.to_string()))?;
    let id = client.id.or_else(|| issuer.audience.first().cloned()).unwrap_or_default();
    let beside = format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/'));
    let found: Discovered = ask(http.get(&beside), &[]).map_err(failed)?;
    if found.issuer != issuer.url {
        return Err(failed(format!("{beside} is the configuration of another issuer")));
    }
    let begin = found.device_authorization_endpoint.ok_or_else(|| {
        failed("it has no sign-in for devices without a browser; get an identity token in another way, and give it with --identity-token-file".into())
    })?;
    for address in [&begin, &found.token_endpoint] {
        check(address, &issuer.url).map_err(failed)?;
    }
    let mut form = vec![("client_id", &*id)];
    form.extend(client.secret.as_deref().map(|secret| ("client_secret", secret)));
    let asked = [&form[..], &[("scope", "openid email profile"), ("nonce", nonce)]].concat();
    let begun: Begun = ask(http.post(&begin), &asked).map_err(failed)?;
    if output.json {
        output.json_line(&serde_json::json!({
            "verification_uri": begun.verification_uri, "user_code": begun.user_code, "expires_in": begun.expires_in,
        }))?;
    } else {
        output.line(&format!("open {} and enter {}", begun.verification_uri, begun.user_code));
    }
    let until = Instant::now() + Duration::from_secs(begun.expires_in).min(LONGEST);
    let mut interval =
        begun.interval.map_or(INTERVAL, Duration::from_secs).clamp(Duration::from_secs(1), LONGEST);
    let kind = "urn:ietf:params:oauth:grant-type:device_code";
    let asked = [&form[..], &[("grant_type", kind), ("device_code", &begun.device_code)]].concat();
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::sleep(interval.min(left));
        let answer: Answer = match ask(http.post(&found.token_endpoint), &asked) {
            Ok(answer) => answer,
            // A moment without network is not the end.
            Err(reason) if reason.starts_with(UNREACHABLE) => {
                interval += SLOWER;
                continue;
            }
            Err(reason) => return Err(failed(reason)),
        };
        match (answer.id_token, answer.error.as_deref()) {
            // Anything else would sign in as somebody whom the service chooses.
            (Some(token), None) if token.starts_with("eyJ") && token.split('.').count() == 3 => {
                return Ok(token);
            }
            (Some(_), None) => return Err(failed("what it gives is no identity token".into())),
            (_, Some("authorization_pending")) => {}
            (_, Some("slow_down")) => interval += SLOWER,
            (_, Some("access_denied")) => return Err(failed("the sign-in was declined".into())),
            (_, Some("expired_token")) => break,
            (_, Some(other)) => {
                let more = answer.error_description.unwrap_or_default();
                return Err(failed(format!("it refuses: {other} {more}").trim_end().to_owned()));
            }
            (None, None) => return Err(failed("it gives no identity token".into())),
        }
    }
    Err(failed("nobody has entered the code in time; begin anew".into()))
}

/// What a failure begins with that may be another time.
const UNREACHABLE: &str = "it cannot be reached";

/// Sends a form and reads JSON, which services answer with also if they refuse.
fn ask<T: DeserializeOwned>(
    request: reqwest::blocking::RequestBuilder,
    form: &[(&str, &str)],
) -> Result<T, String> {
    use std::io::Read;
    let request = match form {
        [] => request,
        form => request.header("content-type", "application/x-www-form-urlencoded").body(encode(form)),
    };
    let answer = request.send().map_err(|e| format!("{UNREACHABLE}: {}", e.without_url()))?;
    let status = answer.status();
    // The client times each read, and not all of them.
    let (until, mut body, mut part) = (Instant::now() + TIMEOUT, Vec::new(), [0; 4 << 10]);
    let mut answer = answer.take(limits::SPACES_BYTES as u64);
    loop {
        match answer.read(&mut part).map_err(|e| format!("{UNREACHABLE}: {e}"))? {
            0 => break,
            bytes => body.extend_from_slice(&part[..bytes]),
        }
        if Instant::now() > until {
            return Err(format!("{UNREACHABLE}: its answer takes too long"));
        }
    }
    serde_json::from_slice(&body).map_err(|_| format!("it answers {status}, and not as such a service does"))
}

fn encode(form: &[(&str, &str)]) -> String {
    let mut url = Url::parse("form:").ok();
    if let Some(url) = &mut url {
        url.query_pairs_mut().extend_pairs(form);
    }
    url.as_ref().and_then(Url::query).unwrap_or_default().to_owned()
}

/// A secret is not sent in plain, if its issuer is not asked in plain either.
fn check(address: &str, issuer: &str) -> Result<(), String> {
    match address.starts_with("https://") || issuer.starts_with("http://") {
        true => Ok(()),
        false => Err(format!("{address:?} does not begin with https://")),
    }
}
