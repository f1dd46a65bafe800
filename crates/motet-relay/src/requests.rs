//! What tells one request from another in the log and in the answer: its id, in the header `x-request-id` and in the span of what is logged for it.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use crate::doors::Place;
use crate::limits;
use crate::state::Relay;

/// The header that names a request.
const HEADER: &str = "x-request-id";

/// The id of a request. It holds letters, digits, `-`, `_` and `.` alone.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(HeaderValue);

/// Gives each request an id: that of a proxy which is believed, or a random one.
pub(crate) async fn identified(
    State(relay): State<Arc<Relay>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = named(&relay, &request).unwrap_or_else(RequestId::random);
    request.extensions_mut().insert(id.clone());
    let span = tracing::info_span!("request", request = %id);
    let mut answer = next.run(request).instrument(span).await;
    answer.headers_mut().insert(HEADER, id.0);
    answer
}

/// The id that a proxy has given a request.
fn named(relay: &Relay, request: &Request) -> Option<RequestId> {
    let place = request.extensions().get::<Arc<Place>>()?;
    relay.is_proxy(place.peer).then_some(())?;
    RequestId::parse(request.headers().get(HEADER)?)
}

impl RequestId {
    fn random() -> Self {
        let mut bytes = [0; 8];
        // Two requests with one id are no harm where the system has no randomness.
        _ = getrandom::fill(&mut bytes);
        let text = format!("{:016x}", u64::from_be_bytes(bytes));
        Self(HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("-")))
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let bytes = value.as_bytes();
        let is_id = (1..=limits::REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(is_plain);
        is_id.then(|| Self(value.clone()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_break_a_line_of_the_log() {
        let parse = |text: &str| RequestId::parse(&HeaderValue::from_str(text).unwrap());
        for good in ["a", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "req_01.x"] {
            assert_eq!(parse(good).unwrap().to_string(), good);
        }
        for bad in ["", "a b", "a\tb", "a\"b", "a;b", &"a".repeat(65)] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
        assert_eq!(RequestId::random().to_string().len(), 16);
        assert_ne!(RequestId::random().to_string(), RequestId::random().to_string());
    }
}
