//! What an answer means that is not the one hoped for, and what a failed request does.
//!
//! Between a device and its relay stand proxies, portals and web servers, and each of them speaks HTTP. A relay marks its answers
//! ([`RELAY_HEADER`]), so that only what a relay says about a token counts, and only a relay's words are shown.

use std::io;
use std::time::{Duration, SystemTime};

use motet_proto::{RELAY_HEADER, limits as proto};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};

use crate::error::SyncError;
use crate::limits;
use crate::sync::connection::{Refused, offline, relay_error};

/// The type of what a relay answers to a `POST`.
pub(super) const FRAMES: &str = "application/vnd.motet";

/// An answer, and where it came from.
struct Answer {
    status: StatusCode,
    url: Url,
    target: Option<String>,
    /// The relay's words.
    words: String,
    /// When, by the clock there.
    date: Option<SystemTime>,
}

/// Whether a refused upgrade may be a way that only lets no WebSocket through: then `POST` may work. What is broken, or wants
/// a sign-in, is that for both.
pub(super) fn may_post(response: &Response) -> bool {
    let status = response.status();
    let is_about_token = status == StatusCode::UNAUTHORIZED && is_by_relay(response);
    let is_about_all =
        [StatusCode::PROXY_AUTHENTICATION_REQUIRED, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    !(status.is_server_error() || status.is_redirection() || is_about_token || is_about_all)
}

/// Whether a successful answer holds frames.
pub(super) fn holds_frames(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::OK && kind.is_some_and(|kind| kind.starts_with(FRAMES))
}

/// What an answer means that is not the one hoped for.
pub(super) async fn refusal(response: Response) -> Refused {
    let (status, url, by_relay) = (response.status(), response.url().clone(), is_by_relay(&response));
    let (retry_after, date) = (retry_after(response.headers()), date(response.headers()));
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target =
        location.map(|target| url.join(target).map_or_else(|_| target.to_owned(), |url| url.to_string()));
    let target = target.filter(|_| status.is_redirection()).map(|target| excerpt(&target));
    // The words of others are pages.
    let words = match by_relay {
        true => read_bounded(response, limits::REFUSAL_BYTES).await.unwrap_or_default(),
        false => Vec::new(),
    };
    let words = excerpt(String::from_utf8_lossy(&words).trim());
    let answer = Answer { status, url, target, words, date };
    let refused = if by_relay { answer.of_a_relay() } else { answer.of_another() };
    let later = |error| match error {
        SyncError::Offline { reason, .. } => SyncError::Offline { reason, retry_after },
        other => other,
    };
    match refused {
        Refused::Settled(error) => Refused::Settled(later(error)),
        Refused::Lost(error) => Refused::Lost(later(error)),
        other => other,
    }
}

impl Answer {
    fn of_a_relay(self) -> Refused {
        let Self { status, url, words, date, .. } = self;
        match status {
            StatusCode::UNAUTHORIZED => {
                let reason = if words.is_empty() { "the relay refused the token".into() } else { words };
                Refused::Unauthorized { reason, date }
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                Refused::TooLarge("the relay takes no message of this size".into())
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Refused::Settled(SyncError::NoRelay {
                reason: format!("a relay is there, but not at {url} ({status}): is the path right?"),
            }),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Refused::Settled(offline(&format!("the relay answers {status}: {words}")))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::BAD_REQUEST => {
                Refused::Lost(offline(&format!("the relay answers {status}: {words}")))
            }
            _ => Refused::Settled(relay_error(&format!("it answers {status}: {words}"))),
        }
    }

    /// Of a proxy, a portal, or whatever stands at a wrong address. Over TLS it is who the address names; otherwise anybody on the way
    /// may have answered, a network that wants a sign-in for one.
    fn of_another(self) -> Refused {
        let Self { status, url, target, .. } = &self;
        let is_anybody = url.scheme() == "http";
        let away = |reason: String| Refused::Settled(offline(&reason));
        let none = |reason: String| Refused::Settled(SyncError::NoRelay { reason });
        match *status {
            StatusCode::PAYLOAD_TOO_LARGE => Refused::TooLarge(format!(
                "the way to the relay takes no message of this size ({status} at {url})"
            )),
            StatusCode::NETWORK_AUTHENTICATION_REQUIRED => {
                away(format!("the network wants a sign-in before it lets anything through ({status})"))
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                away(format!("the proxy wants a sign-in ({status})"))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_anybody => away(format!(
                "not the relay, but something on the way to it answers {status} at {url}: a network or proxy that wants a sign-in?"
            )),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                away(format!("what stands before the relay answers {status} at {url}"))
            }
            status if status.is_server_error() => {
                away(format!("what stands before the relay answers {status} at {url}"))
            }
            status if status.is_redirection() => {
                let target = target.as_deref().unwrap_or("nowhere");
                let is_for_good =
                    [StatusCode::MOVED_PERMANENTLY, StatusCode::PERMANENT_REDIRECT].contains(&status);
                let is_elsewhere = url.host_str().is_some_and(|host| !target.contains(host));
                if is_anybody && is_elsewhere && !is_for_good {
                    return away(format!(
                        "not the relay answers at {url}, but a page that leads to {target} ({status}): sign in to the network there"
                    ));
                }
                none(format!(
                    "{url} leads to {target} ({status}), and is not followed: give the address of the relay itself"
                ))
            }
            status if status.is_success() && is_anybody => away(format!(
                "not a relay, but a web page answers at {url} ({status}): sign in to the network, or look at the address"
            )),
            status => none(format!("this is no relay: {status} at {url}")),
        }
    }
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read_bounded(mut response: Response, limit: usize) -> Result<Vec<u8>, SyncError> {
    let mut body = Vec::new();
    let next =
        async |response: &mut Response| match tokio::time::timeout(proto::SILENCE, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|e| offline(&root_cause(&e))),
            Err(_) => Err(offline("the relay stopped answering")),
        };
    while let Some(chunk) = next(&mut response).await? {
        if body.len() + chunk.len() > limit {
            return Err(relay_error("its answer is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What a request means that was not answered at all.
pub(super) fn failed(error: &reqwest::Error, url: &Url) -> Refused {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    let offline = offline(&because(error, url));
    let mut causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let io = causes.find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    // Somebody was there and was lost, in the middle of a TLS handshake for one.
    let was_there =
        matches!(io, Some(BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof));
    if error.is_connect() && !was_there { Refused::Settled(offline) } else { Refused::Lost(offline) }
}

pub(super) fn silent() -> Refused {
    Refused::Lost(offline("the relay stopped answering"))
}

/// When the answer was given, by the clock of who gave it.
fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?.trim()).ok()
}

/// For how long an answer asks to be left alone: in seconds, or until a time, which is one of the clock that it tells of.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let asked = text(RETRY_AFTER)?.trim();
    let time = |text: &str| httpdate::parse_http_date(text.trim()).ok();
    let seconds = asked.parse().map(Duration::from_secs).ok();
    seconds.or_else(|| time(asked)?.duration_since(text(DATE).and_then(time)?).ok())
}

/// The innermost error: "connection refused" rather than "error sending request".
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What the network said, with what it was said about.
fn because(error: &reqwest::Error, url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    let at = format!("{}:{port}", url.host_str().unwrap_or_default());
    let mut cause = root_cause(error);
    // What a TLS library makes of an answer in plain text.
    if url.scheme() == "https" && cause.contains("InvalidContentType") {
        cause = "no TLS is spoken there; is it an http:// address?".into();
    }
    match proxy(url) {
        Some((name, proxy)) => format!("{at}: {cause} (through the proxy {proxy}, as {name} says)"),
        None => format!("{at}: {cause}"),
    }
}

/// The proxy that the environment names for an address, without what signs in to it.
fn proxy(url: &Url) -> Option<(&'static str, String)> {
    let names: &[&str] = match url.scheme() {
        "https" => &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
        _ => &["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"],
    };
    let host = url.host_str().unwrap_or_default();
    let excepted = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy")).unwrap_or_default();
    let is_excepted = excepted
        .split(',')
        .map(str::trim)
        .any(|name| name == "*" || (!name.is_empty() && host.ends_with(name.trim_start_matches('.'))));
    if is_excepted {
        return None;
    }
    let (name, text) = names
        .iter()
        .find_map(|name| Some((*name, std::env::var(name).ok().filter(|text| !text.is_empty())?)))?;
    let mut address = Url::parse(&text).or_else(|_| Url::parse(&format!("http://{text}"))).ok()?;
    _ = address.set_username("");
    _ = address.set_password(None);
    Some((name, excerpt(address.as_str())))
}

pub(super) fn is_by_relay(response: &Response) -> bool {
    response.headers().contains_key(RELAY_HEADER)
}

/// A line of it.
fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
