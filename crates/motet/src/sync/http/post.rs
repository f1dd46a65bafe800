//! A connection that is none: each exchange is a `POST` that begins with the greeting.

use std::sync::Arc;
use std::time::Duration;

use motet_proto::frame::{split_delimited, write_delimited};
use motet_proto::message::{Outcome, Push, Receipt, Rejection};
use motet_proto::{Message, frame, limits as proto};
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::mpsc;

use super::answers::{self, read_bounded, silent};
use super::endpoint::Endpoint;
use crate::error::SyncError;
use crate::limits;
use crate::sync::TokenRequest;
use crate::sync::connection::{Connection, Refused, Traffic, relay_error};
use crate::sync::tokens::Tokens;

/// Opens a connection that speaks over `POST`. The first exchange tells whether the relay is there and the token is good.
pub(super) async fn open(
    client: &reqwest::Client,
    endpoint: &Endpoint,
    (token, tokens): (Option<String>, &Tokens),
    hello: Message,
    traffic: Arc<Traffic>,
) -> Result<Connection, Refused> {
    let (outgoing, mut to_send) = mpsc::channel::<Message>(limits::QUEUED_FRAMES);
    let (received, incoming) = mpsc::channel(limits::QUEUED_FRAMES);
    let url = endpoint.sync.clone();
    let (client, tokens) = (client.clone(), tokens.clone());
    let mut exchange = Exchange { client, url, token, tokens, hello, traffic, refused: None };
    let welcome = exchange.run(&[]).await?;
    exchange.mean(&welcome);
    tokio::spawn(async move {
        for message in welcome {
            _ = received.send(Ok(message)).await;
        }
        while let Some(first) = to_send.recv().await {
            let mut batch = vec![first];
            while let Ok(next) = to_send.try_recv() {
                batch.push(next);
            }
            batch.retain(|message| !matches!(message, Message::Hello(_)));
            if batch.is_empty() {
                continue;
            }
            let answers = match exchange.send_all(batch).await {
                // The greeting was answered before.
                Ok(answers) => {
                    answers.into_iter().filter(|m| !matches!(m, Message::Welcome(_))).map(Ok).collect()
                }
                Err(Refused::Unauthorized { reason, .. }) => vec![Err(SyncError::AuthNeeded { reason })],
                Err(Refused::Settled(error) | Refused::Lost(error)) => vec![Err(error)],
                Err(Refused::TooLarge(reason)) => vec![Err(relay_error(&reason))],
            };
            for answer in answers {
                let over = answer.is_err();
                if received.send(answer).await.is_err() || over {
                    return;
                }
            }
        }
    });
    Ok(Connection { outgoing, incoming, live: false })
}

struct Exchange {
    client: reqwest::Client,
    url: Url,
    token: Option<String>,
    /// Where another one comes from when this one has expired.
    tokens: Tokens,
    hello: Message,
    traffic: Arc<Traffic>,
    /// The smallest body, in bytes, that was too large for the way to the relay, and what was said to it.
    refused: Option<(usize, String)>,
}

impl Exchange {
    /// From now on the relay is to be what it has just said that it is: it lets each exchange in anew.
    fn mean(&mut self, answers: &[Message]) {
        let welcome = answers.iter().find_map(|message| match message {
            Message::Welcome(welcome) => Some(welcome),
            _ => None,
        });
        if let (Message::Hello(hello), Some(welcome)) = (&mut self.hello, welcome) {
            (hello.account, hello.log) = (welcome.account, welcome.log);
        }
    }

    /// Sends messages in as few exchanges as the way to the relay lets through. A push that is too large is sent entry by entry, and an
    /// entry that is too large alone is answered in the place of the relay: rejected, with the reason. So one document that does not fit
    /// through holds no other.
    async fn send_all(&mut self, messages: Vec<Message>) -> Result<Vec<Message>, Refused> {
        let mut answers = Vec::new();
        // In order; the next is last.
        let mut waiting = vec![messages];
        while let Some(mut messages) = waiting.pop() {
            let reason = match self.run_with_retries(&messages).await {
                Ok(more) => {
                    let is_over = more.iter().any(|message| matches!(message, Message::Error(_)));
                    let left = unanswered(&messages, &more);
                    merge(&mut answers, more);
                    if !is_over && !left.is_empty() {
                        if left.len() == messages.len() {
                            return Err(Refused::Lost(relay_error("it does not answer what it is asked")));
                        }
                        // The relay stops taking messages once its answer is large.
                        waiting.push(left);
                    }
                    continue;
                }
                Err(Refused::TooLarge(reason)) => reason,
                Err(error) => return Err(error),
            };
            if messages.len() > 1 {
                let second = messages.split_off(messages.len() / 2);
                waiting.extend([second, messages]);
                continue;
            }
            match messages.pop() {
                Some(Message::Push(Push { id, mut entries })) if entries.len() > 1 => {
                    let second = entries.split_off(entries.len() / 2);
                    waiting
                        .extend([second, entries].map(|entries| vec![Message::Push(Push { id, entries })]));
                }
                Some(Message::Push(Push { id, .. })) => {
                    let outcomes = vec![Outcome::Rejected(Rejection::TooLargeForTheWay, reason)];
                    merge(
                        &mut answers,
                        vec![Message::Receipt(Receipt { id, outcomes, position: None, after: 0 })],
                    );
                }
                _ => return Err(Refused::TooLarge(reason)),
            }
        }
        Ok(answers)
    }

    /// Tries again what was lost on the way: asked twice, the relay answers twice, and an entry that it holds already it does not
    /// take again.
    async fn run_with_retries(&mut self, messages: &[Message]) -> Result<Vec<Message>, Refused> {
        for delay in limits::EXCHANGE_RETRY_DELAYS {
            match self.run_signed_in(messages).await {
                Err(Refused::Lost(error @ SyncError::Offline { .. })) => {
                    tracing::debug!(%error, "an exchange is tried again");
                }
                done => return done,
            }
            tokio::time::sleep(delay).await;
        }
        self.run_signed_in(messages).await
    }

    /// Asks for another token once when the one that was good has expired.
    async fn run_signed_in(&mut self, messages: &[Message]) -> Result<Vec<Message>, Refused> {
        let refused = match self.run(messages).await {
            Err(Refused::Unauthorized { reason, date }) => (reason, date),
            done => return done,
        };
        let (reason, date) = refused;
        match self.tokens.get(TokenRequest::rejected(date)).await {
            Ok(token) if token.is_some() && token != self.token => {
                self.token = token;
                self.run(messages).await
            }
            _ => Err(Refused::Unauthorized { reason, date }),
        }
    }

    async fn run(&mut self, messages: &[Message]) -> Result<Vec<Message>, Refused> {
        let mut body = Vec::new();
        write_delimited(&self.hello, &mut body);
        messages.iter().for_each(|message| write_delimited(message, &mut body));
        let bytes = body.len();
        if let Some((refused, reason)) = self.refused.as_ref().filter(|(refused, _)| *refused <= bytes) {
            tracing::debug!(bytes, refused, "not sent: as much was too large before");
            return Err(Refused::TooLarge(reason.clone()));
        }
        self.traffic.sent(bytes, 1 + messages.len());
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, answers::FRAMES);
        let patience = proto::SILENCE + Duration::from_secs(bytes as u64 / limits::SLOWEST_BYTES_PER_SECOND);
        request = request.body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let sent = tokio::time::timeout(patience, request.send()).await;
        let response = sent.map_err(|_| silent())?.map_err(|e| answers::failed(&e, &self.url))?;
        if !answers::holds_frames(&response) {
            let refusal = answers::refusal(response).await;
            if let Refused::TooLarge(reason) = &refusal {
                self.refused = Some((bytes, reason.clone()));
            }
            return Err(refusal);
        }
        let body = read_bounded(response, limits::EXCHANGE_BYTES).await.map_err(Refused::Lost)?;
        self.traffic.received(body.len());
        let mut rest = &body[..];
        let mut answers = Vec::new();
        let broken = |e: frame::FrameError| Refused::Lost(relay_error(&e.to_string()));
        while let Some(bytes) = split_delimited(&mut rest).map_err(broken)? {
            answers.push(frame::decode(bytes).map_err(broken)?);
        }
        Ok(answers)
    }
}

/// The messages that have to be answered and were not, in their order.
fn unanswered(messages: &[Message], answers: &[Message]) -> Vec<Message> {
    let is_answered = |message: &Message| match message {
        Message::Push(push) => answers.iter().any(|answer| match answer {
            Message::Receipt(receipt) => receipt.id == push.id,
            Message::NotTaken(not_taken) => not_taken.id == push.id,
            _ => false,
        }),
        Message::Pull(pull) => answers.iter().any(|answer| match answer {
            Message::Page(page) => page.id == Some(pull.id),
            Message::Refused(refused) => refused.id == pull.id,
            _ => false,
        }),
        Message::Fetch(fetch) => {
            answers.iter().any(|answer| matches!(answer, Message::Fetched(fetched) if fetched.id == fetch.id))
        }
        Message::Ping(ping) => {
            answers.iter().any(|answer| matches!(answer, Message::Pong(pong) if pong == ping))
        }
        _ => true,
    };
    messages.iter().filter(|message| !is_answered(message)).cloned().collect()
}

/// Adds answers. Receipts for parts of one push become one; where the log stands then is asked anew. If a part was not taken, the push
/// was not.
fn merge(answers: &mut Vec<Message>, more: Vec<Message>) {
    let is_of = |answer: &Message, push: u32| match answer {
        Message::Receipt(receipt) => receipt.id == push,
        Message::NotTaken(not_taken) => not_taken.id == push,
        _ => false,
    };
    for message in more {
        match &message {
            Message::NotTaken(not_taken) => answers.retain(|answer| !is_of(answer, not_taken.id)),
            Message::Receipt(receipt)
                if answers.iter().any(|a| matches!(a, Message::NotTaken(n) if n.id == receipt.id)) =>
            {
                continue;
            }
            _ => {}
        }
        let earlier = answers.iter_mut().find_map(|earlier| match (earlier, &message) {
            (Message::Receipt(earlier), Message::Receipt(receipt)) if earlier.id == receipt.id => {
                Some(earlier)
            }
            _ => None,
        });
        match (earlier, message) {
            (Some(earlier), Message::Receipt(receipt)) => {
                earlier.outcomes.extend(receipt.outcomes);
                (earlier.position, earlier.after) = (None, 0);
            }
            (_, message) => answers.push(message),
        }
    }
}
