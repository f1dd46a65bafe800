//! A session that is one `POST`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures_util::stream::StreamExt;
use motet_proto::frame::{self, FrameError};
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::Running;
use crate::access;
use crate::auth::Authenticator;
use crate::limits;
use crate::metrics::Way;
use crate::outgoing::Held;
use crate::state::{Admitted, Relay};

/// The answer to a `POST`.
pub(crate) struct Answer {
    bytes: Vec<u8>,
    held: Option<Held>,
}

impl Answer {
    /// A body that holds what it does until the last of it is taken.
    pub(crate) fn into_body(self) -> Body {
        let bytes = Bytes::from(self.bytes);
        let parts = futures_util::stream::unfold((bytes, self.held), |(mut rest, held)| async move {
            let part = rest.split_to(rest.len().min(limits::BODY_PART_BYTES));
            (!part.is_empty()).then_some((Ok::<_, Infallible>(part), (rest, held)))
        });
        Body::from_stream(parts)
    }
}

/// Answers the messages of one `POST`, as they come. What is not taken in is not answered, and the device sends it again.
pub(crate) async fn serve_post(
    relay: Arc<Relay>,
    admitted: Admitted,
    id: u64,
    body: Body,
) -> Result<Answer, (StatusCode, &'static str)> {
    let mut changes = Changes { auth: relay.auth.clone(), access: access::changes(&*relay.access) };
    relay.metrics.note_round(Way::Post);
    let mut running = Running::new(relay, admitted, id);
    let mut body = body.into_data_stream();
    let (mut answer, mut waiting, mut received) = (Vec::new(), Vec::new(), 0);
    let begun = Instant::now();
    loop {
        let due = begun
            + limits::BODY_SILENCE
            + Duration::from_secs(received as u64 / limits::BODY_BYTES_PER_SECOND);
        let silent = Instant::now() + limits::BODY_SILENCE;
        let chunk = match timeout_at(due.min(silent).into(), body.next()).await {
            Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the body takes too long")),
            Ok(Some(Err(_))) => {
                return Err((StatusCode::BAD_REQUEST, "the body broke off, or too much is under way"));
            }
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) => break,
        };
        received += chunk.len();
        if received > limits::POST_BYTES {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"));
        }
        waiting.extend_from_slice(&chunk);
        let mut rest = &waiting[..];
        while running.takes_more(&answer)
            && let Some(frame) = next_frame(&mut rest)
        {
            running.look_at(&mut changes);
            running.answer_frame(frame, &mut answer).await;
        }
        // The rest of the body is read and dropped, so that the answer arrives.
        let rest = if running.takes_more(&answer) { rest.len() } else { 0 };
        if rest < waiting.len() {
            waiting.drain(..waiting.len() - rest);
            running.admitted.place.meter.complete();
        }
    }
    if received == 0 {
        return Err((StatusCode::BAD_REQUEST, "the body is empty: it begins with a greeting"));
    }
    if !waiting.is_empty() && running.takes_more(&answer) {
        running.answer_frame(Err(FrameError::Truncated), &mut answer).await;
    }
    let mut held = running.held.take();
    held.iter_mut().for_each(|held| held.shrink(answer.len()));
    Ok(Answer { bytes: answer, held })
}

/// What may have changed while a body arrives, which can take long.
struct Changes {
    auth: watch::Receiver<Arc<dyn Authenticator>>,
    access: Option<watch::Receiver<()>>,
}

impl Running {
    /// Asks again whether the account is let in, and what it may do, if that may have changed. The answer is waited for before the next message is
    /// taken in.
    fn look_at(&mut self, changes: &mut Changes) {
        if changes.auth.has_changed().unwrap_or(false) {
            let authenticator = changes.auth.borrow_and_update().clone();
            self.ask_if_valid(authenticator);
        }
        if let Some(access) = changes.access.as_mut()
            && access.has_changed().unwrap_or(false)
        {
            access.mark_unchanged();
            self.ask_for_access();
        }
    }

    /// Whether a `POST` takes in one more message.
    fn takes_more(&self, answer: &[u8]) -> bool {
        !self.closing && answer.len() <= limits::POST_ANSWER_BYTES
    }

    /// Takes in one message of a `POST`, and answers it.
    async fn answer_frame(&mut self, frame: Result<&[u8], FrameError>, answer: &mut Vec<u8>) {
        self.settle().await;
        if self.closing {
            return self.drain_into(answer);
        }
        match frame {
            Ok(bytes) => self.take_frame(bytes),
            Err(error) => self.session.handle_bad_frame(error.to_string()),
        }
        self.settle().await;
        self.drain_into(answer);
        if let Some(until) = self.paused.take() {
            tokio::time::sleep_until(until).await;
        }
    }

    fn drain_into(&mut self, answer: &mut Vec<u8>) {
        for (frame, _) in self.frames.drain(..) {
            answer.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            answer.extend_from_slice(&frame);
        }
    }

    /// Runs until nothing is under way.
    async fn settle(&mut self) {
        self.carry_out();
        while let Some(done) = self.under_way.next().await {
            self.take_done(done);
            self.carry_out();
        }
    }
}

/// The first frame of what has come of a body; `None` if it is not whole yet.
fn next_frame<'b>(body: &mut &'b [u8]) -> Option<Result<&'b [u8], FrameError>> {
    match frame::split_delimited(body) {
        Err(FrameError::Truncated) => None,
        frame => frame.transpose(),
    }
}
