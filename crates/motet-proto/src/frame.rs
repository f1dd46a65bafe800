//! Messages as bytes.
//!
//! ```text
//! frame   = type:u8 form:u8 check:4 body
//! form 0  = body is CBOR
//! form 1  = body is CBOR compressed with zstd (the zstd frame states its content size)
//! check   = first bytes of BLAKE3 over type, form and body
//! ```
//!
//! Entries carry hashes of their own; the check is for what is said about them. A receipt with one bit flipped could clear a row
//! that the relay does not hold, and TCP alone lets such a bit through now and then.
//!
//! A WebSocket binary message is one frame. A `POST` body is a sequence of frames, each after its length as four
//! big-endian bytes.

use minicbor::{Decode, Encode};

use crate::message::Message;
use crate::packing::UnpackError;
use crate::{limits, packing};

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Bytes before the body.
const HEADER: usize = 6;

// Types of messages that may be large.
const PUSH: u8 = 3;
const RECEIPT: u8 = 4;
const PAGE: u8 = 6;
const FETCHED: u8 = 13;

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Larger than [`limits::FRAME_BYTES`], as received or inflated, or, of a message that carries no entries, than
    /// [`limits::MESSAGE_BYTES`].
    #[error(
        "a frame of more than {} bytes, or a message without entries of more than {}",
        limits::FRAME_BYTES,
        limits::MESSAGE_BYTES
    )]
    TooLarge,
    /// Fewer bytes than the frame needs.
    #[error("a frame that is cut off")]
    Truncated,
    /// Damaged on the way.
    #[error("a frame that was damaged on the way")]
    Check,
    /// A message type that this version does not know.
    #[error("unknown message type {0}")]
    UnknownType(u8),
    /// A form byte that this version does not know, or damaged compression.
    #[error("a frame whose body cannot be unpacked")]
    BadForm,
    /// The body is not the CBOR of its message.
    #[error("the body of message type {kind} cannot be decoded: {reason}")]
    BadBody {
        /// Message type.
        kind: u8,
        /// What the decoder said.
        reason: String,
    },
}

/// Encodes a message as one frame.
pub fn encode(message: &Message) -> Vec<u8> {
    match message {
        Message::Hello(m) => body(1, m),
        Message::Welcome(m) => body(2, m),
        Message::Push(m) => body(PUSH, m),
        Message::Receipt(m) => body(RECEIPT, m),
        Message::Pull(m) => body(5, m),
        Message::Page(m) => body(PAGE, m),
        Message::Refused(m) => body(7, m),
        Message::Ping(m) => body(8, m),
        Message::Pong(m) => body(9, m),
        Message::Error(m) => body(10, m),
        Message::Presence(m) => body(11, m),
        Message::Fetch(m) => body(12, m),
        Message::Fetched(m) => body(FETCHED, m),
        Message::NotTaken(m) => body(14, m),
    }
}

/// Decodes one frame.
///
/// # Errors
/// [`FrameError`] names what was wrong. Nothing larger than [`limits::FRAME_BYTES`] is allocated.
pub fn decode(frame: &[u8]) -> Result<Message, FrameError> {
    if frame.len() > limits::FRAME_BYTES {
        return Err(FrameError::TooLarge);
    }
    let Some(([kind, form, check @ ..], body)) = frame.split_first_chunk::<HEADER>() else {
        return Err(FrameError::Truncated);
    };
    if *check != self::check(*kind, *form, body) {
        return Err(FrameError::Check);
    }
    let most = most_bytes(*kind);
    match *form {
        PLAIN if body.len() > most => Err(FrameError::TooLarge),
        PLAIN => decode_body(*kind, body),
        ZSTD => {
            let plain = packing::unpack(body, most).map_err(|error| match error {
                UnpackError::TooLarge => FrameError::TooLarge,
                UnpackError::Damaged(_) => FrameError::BadForm,
            })?;
            decode_body(*kind, &plain)
        }
        _ => Err(FrameError::BadForm),
    }
}

/// Bytes of a frame when it is opened, as far as its beginning tells: what it costs to decode it. Nothing is allocated.
pub fn opened_len(frame: &[u8]) -> usize {
    match frame.split_first_chunk::<HEADER>() {
        Some(([_, ZSTD, ..], body)) => packing::claimed_len(body).unwrap_or(0).max(frame.len()),
        _ => frame.len(),
    }
}

/// Appends a frame with its length, as in a `POST` body.
pub fn write_delimited(message: &Message, out: &mut Vec<u8>) {
    let frame = encode(message);
    out.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    out.extend_from_slice(&frame);
}

/// Splits the first frame off a `POST` body; `None` at its end.
///
/// # Errors
/// [`FrameError::Truncated`] or [`FrameError::TooLarge`] if the body does not hold a whole frame.
pub fn split_delimited<'a>(body: &mut &'a [u8]) -> Result<Option<&'a [u8]>, FrameError> {
    if body.is_empty() {
        return Ok(None);
    }
    let (len, rest) = body.split_first_chunk::<4>().ok_or(FrameError::Truncated)?;
    let len = u32::from_be_bytes(*len) as usize;
    if len > limits::FRAME_BYTES {
        return Err(FrameError::TooLarge);
    }
    let (frame, rest) = rest.split_at_checked(len).ok_or(FrameError::Truncated)?;
    *body = rest;
    Ok(Some(frame))
}

/// How large the body of a message may be: only those with entries, and the answers to them, are large.
fn most_bytes(kind: u8) -> usize {
    match kind {
        PUSH | RECEIPT | PAGE | FETCHED => limits::FRAME_BYTES,
        _ => limits::MESSAGE_BYTES,
    }
}

fn body<T: Encode<()>>(kind: u8, message: &T) -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    let mut form = PLAIN;
    // Encoding into a Vec has no failing path.
    _ = minicbor::encode(message, &mut frame);
    if frame.len() >= limits::COMPRESS_FRAME_FROM_BYTES
        && let Some(packed) = packing::pack(&frame[HEADER..], limits::COMPRESS_FRAME_LEVEL)
        // Payloads are compressed already: keep the packed form only where it saves a noticeable part.
        && packed.len() < frame.len() - frame.len() / 16
    {
        frame.truncate(HEADER);
        form = ZSTD;
        frame.extend_from_slice(&packed);
    }
    let check = check(kind, form, &frame[HEADER..]);
    frame[..2].copy_from_slice(&[kind, form]);
    frame[2..HEADER].copy_from_slice(&check);
    frame
}

fn check(kind: u8, form: u8, body: &[u8]) -> [u8; 4] {
    let mut hash = blake3::Hasher::new();
    hash.update(&[kind, form]).update(body);
    let [a, b, c, d, ..] = *hash.finalize().as_bytes();
    [a, b, c, d]
}

fn decode_body(kind: u8, body: &[u8]) -> Result<Message, FrameError> {
    fn read<'b, T: Decode<'b, ()>>(kind: u8, body: &'b [u8]) -> Result<T, FrameError> {
        minicbor::decode(body).map_err(|e| FrameError::BadBody { kind, reason: e.to_string() })
    }
    Ok(match kind {
        1 => Message::Hello(read(kind, body)?),
        2 => Message::Welcome(read(kind, body)?),
        PUSH => Message::Push(read(kind, body)?),
        RECEIPT => Message::Receipt(read(kind, body)?),
        5 => Message::Pull(read(kind, body)?),
        PAGE => Message::Page(read(kind, body)?),
        7 => Message::Refused(read(kind, body)?),
        8 => Message::Ping(read(kind, body)?),
        9 => Message::Pong(read(kind, body)?),
        10 => Message::Error(read(kind, body)?),
        11 => Message::Presence(read(kind, body)?),
        12 => Message::Fetch(read(kind, body)?),
        FETCHED => Message::Fetched(read(kind, body)?),
        14 => Message::NotTaken(read(kind, body)?),
        _ => return Err(FrameError::UnknownType(kind)),
    })
}

#[cfg(test)]
mod tests;
