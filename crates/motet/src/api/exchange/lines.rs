//! JSONL: one JSON value per line.

use std::io::{self, BufRead};

use serde_json::Value as Json;

use super::json::{JsonError, parse_with_faults};

/// The lines of a text that hold something. A byte order mark is passed over.
pub(super) struct Lines<R> {
    input: R,
    number: u64,
}

pub(super) struct Line {
    /// `line 7`.
    pub(super) place: String,
    pub(super) value: Result<Json, Unread>,
}

/// A line that cannot be taken as it is.
pub(super) struct Unread {
    pub(super) error: JsonError,
    /// What could be read of it all the same: it may say which document it is.
    pub(super) row: Json,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, number: 0 }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<io::Result<Line>> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match self.input.read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) => self.number += 1,
                Err(error) => return Some(Err(error)),
            }
            let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
            if !text.trim_ascii().is_empty() {
                let place = format!("line {}", self.number);
                let value = match parse_with_faults(text) {
                    Ok((value, faults)) => match faults.into_iter().next() {
                        Some(error) => Err(Unread { error, row: value }),
                        None => Ok(value),
                    },
                    Err(error) => Err(Unread { error, row: Json::Null }),
                };
                return Some(Ok(Line { place, value }));
            }
        }
    }
}
