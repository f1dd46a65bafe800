//! A request for a page: its path, its fields, its session, and where it comes from.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;

use super::{Refusal, Signed, State};
use crate::auth::Principal;
use crate::directory::ConsoleHolder;
use crate::doors::Place;
use crate::limits;

/// A request, as far as pages need it.
pub(super) struct Visit {
    pub(super) method: Method,
    /// The segments of the path after `/console/`.
    pub(super) path: Vec<String>,
    /// The fields of the query.
    pub(super) query: Fields,
    /// The fields of the form.
    pub(super) form: Fields,
    pub(super) headers: HeaderMap,
    pub(super) place: Arc<Place>,
    /// The browser speaks TLS, with the relay or with a proxy.
    pub(super) is_https: bool,
    /// The session, once it has been checked.
    pub(super) signed: Option<Signed>,
}

/// The fields of a form or of an address.
#[derive(Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Visit {
    pub(super) fn new(state: &State, place: Arc<Place>, parts: Parts) -> Self {
        let path = parts.uri.path().strip_prefix("/console/").unwrap_or("");
        let proto = parts.headers.get_all("x-forwarded-proto").iter().next_back();
        let proto = proto.and_then(|proto| proto.to_str().ok()?.rsplit(',').next());
        let is_told_https = proto.is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"));
        Self {
            method: parts.method,
            path: path.split('/').map(str::to_owned).collect(),
            query: Fields::parse(parts.uri.query().unwrap_or("").as_bytes()),
            form: Fields::default(),
            is_https: state.speaks_tls || (state.relay.is_proxy(place.peer) && is_told_https),
            headers: parts.headers,
            place,
            signed: None,
        }
    }

    /// The address of another page, relative to this one: behind a proxy the pages may lie below a path that the relay does not know.
    pub(super) fn link(&self, page: &str) -> String {
        match self.path.len().saturating_sub(1) {
            0 if page.is_empty() => "./".into(),
            above => format!("{}{page}", "../".repeat(above)),
        }
    }

    /// The account of the session, and its principal.
    pub(super) fn account(&self) -> Result<(&str, Principal), Refusal> {
        match &self.signed {
            Some(signed @ Signed { holder: ConsoleHolder::Account { name, .. }, .. }) => {
                Ok((name, signed.principal(name)))
            }
            _ => Err(Refusal::new(StatusCode::FORBIDDEN, "this page is for the holder of an account")),
        }
    }

    /// The segment of the path that holds an id.
    pub(super) fn id(&self) -> &str {
        self.path.get(1).map_or("", |id| id)
    }

    /// Reads the form that was sent.
    pub(super) async fn read(&mut self, body: Body) -> Result<(), Refusal> {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        if !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this is no form"));
        }
        let bytes = timeout(limits::REGISTRATION_TIMEOUT, to_bytes(body, limits::CONSOLE_FORM_BYTES));
        let bytes = match bytes.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(_)) => {
                let reason = format!("a form has at most {} bytes", limits::CONSOLE_FORM_BYTES);
                return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason));
            }
            Err(_) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the form did not arrive")),
        };
        self.form = Fields::parse(&bytes);
        Ok(())
    }

    /// The name of the cookie. Browsers accept the prefix `__Host-` only over TLS and only for the host that sets the cookie.
    pub(super) fn cookie_name(&self) -> &'static str {
        if self.is_https { "__Host-motet-console" } else { "motet-console" }
    }

    /// The secret in the cookie.
    pub(super) fn cookie(&self) -> Option<&str> {
        let lines = self.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut cookies = lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.split_once('='));
        cookies.find(|(name, _)| name.trim() == self.cookie_name()).map(|(_, secret)| secret.trim())
    }

    /// Whether the browser says that a form was sent by a page of this relay. At least one of `Sec-Fetch-Site` and `Origin` must say so, and
    /// neither may say otherwise. `Origin: null` says nothing: some browsers send it where they keep the origin to themselves.
    pub(super) fn is_from_here(&self) -> bool {
        let header = |name| self.headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
        let site = header("sec-fetch-site").map(|site| site == "same-origin");
        let origin = header(ORIGIN.as_str()).filter(|origin| *origin != "null");
        let origin = origin.map(|origin| header(HOST.as_str()).is_some_and(|host| is_origin(origin, host)));
        [site, origin].iter().flatten().next().is_some() && [site, origin].iter().flatten().all(|is| *is)
    }
}

/// Whether an origin belongs to a host. The port is compared if the host has one: some proxies leave it out.
fn is_origin(origin: &str, host: &str) -> bool {
    let Some((_, named)) = origin.split_once("://") else { return false };
    let bare = named.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    named.eq_ignore_ascii_case(host) || bare.is_some_and(|(name, _)| name.eq_ignore_ascii_case(host))
}

impl Fields {
    fn parse(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// What a field holds, without the blanks that keyboards of phones put behind words; nothing if it is not there.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::is_origin;

    #[test]
    fn an_origin_is_compared_with_its_port_where_the_host_has_one() {
        for (origin, host, is_same) in [
            ("https://relay.example.org", "relay.example.org", true),
            ("https://Relay.example.org:8443", "relay.example.org:8443", true),
            ("https://relay.example.org:8443", "relay.example.org", true),
            ("https://relay.example.org:8443", "relay.example.org:9000", false),
            ("https://relay.example.org.evil.example", "relay.example.org", false),
            ("https://evil.example", "relay.example.org", false),
            ("http://[::1]:8787", "[::1]:8787", true),
            ("http://[::1]:8787", "[::1]", true),
            ("relay.example.org", "relay.example.org", false),
            ("", "", false),
        ] {
            assert_eq!(is_origin(origin, host), is_same, "{origin} {host}");
        }
    }
}
