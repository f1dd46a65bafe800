//! What people see: glyphs and colours on a terminal, plain words in a pipe, JSON for scripts.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use motet::{DocumentState, SyncState};
use motet_relay::terminal::{self, Breaks, complain, is_harmless};
use serde::Serialize;

use crate::error::CliError;

/// Where output goes and how it looks.
#[derive(Clone)]
pub(crate) struct Output {
    pub(crate) json: bool,
    colour: bool,
}

pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(crate) const RED: Style = AnsiColor::Red.on_default();
pub(crate) const CYAN: Style = AnsiColor::Cyan.on_default();
pub(crate) const MAGENTA: Style = AnsiColor::Magenta.on_default();
pub(crate) const GREY: Style = AnsiColor::BrightBlack.on_default();
pub(crate) const BOLD: Style = Style::new().bold();

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, colour: wanted && !json && std::io::stdout().is_terminal() }
    }

    pub(crate) fn is_colour(&self) -> bool {
        self.colour
    }

    /// Prints a line for people: what would steer their terminal, or look like another line, is escaped, for it may come from anybody.
    pub(crate) fn line(&self, text: &str) {
        self.print(&printable(text, self.colour, Breaks::Escaped));
    }

    /// Prints what has several lines and comes from this program.
    pub(crate) fn lines(&self, text: &str) {
        self.print(&printable(text, self.colour, Breaks::Kept));
    }

    /// Prints TOML: characters that are not harmless only stand in strings, and are written by their numbers.
    pub(crate) fn toml(&self, text: &str) {
        self.print(&text.split('\n').map(plain_json).collect::<Vec<_>>().join("\n"));
    }

    /// Prints a warning on the error output, escaped likewise.
    pub(crate) fn complain(&self, text: &str) {
        if self.json {
            return complain(&plain_json(&serde_json::json!({ "warning": text }).to_string()));
        }
        complain(&printable(text, false, Breaks::Escaped));
    }

    /// Prints the id of a document, as scripts take it.
    pub(crate) fn id(&self, id: &str) -> Result<(), CliError> {
        if self.json {
            return self.json_line(&serde_json::json!({ "id": id }));
        }
        self.line(id);
        Ok(())
    }

    /// Prints a value as one line of JSON, which steers no terminal either.
    pub(crate) fn json_line(&self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|e| CliError::Other(e.to_string()))?;
        self.print(&plain_json(&text));
        Ok(())
    }

    /// Prints a line as it is. A reader that has gone away (`| head`) ends the command quietly; any other failure, a full disk for one, is an
    /// error: what was written is not all.
    fn print(&self, text: &str) {
        let mut out = std::io::stdout();
        self.written(writeln!(out, "{text}").and_then(|()| out.flush()));
    }

    /// Writes bytes that are no text, with the same outcomes.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        let mut out = std::io::stdout();
        self.written(out.write_all(bytes).and_then(|()| out.flush()));
    }

    fn written(&self, outcome: std::io::Result<()>) {
        let Err(error) = outcome else { return };
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        self.error(&CliError::Other(format!("standard output cannot be written: {error}")));
        std::process::exit(1);
    }

    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    pub(crate) fn error(&self, error: &CliError) {
        if self.json {
            let mut value =
                serde_json::json!({ "error": { "code": error.code(), "message": error.to_string() } });
            if !error.refusals().is_empty() {
                value["error"]["refusals"] = serde_json::json!(error.refusals());
            }
            return complain(&plain_json(&value.to_string()));
        }
        let glyph = match error.exit_code() {
            3 => "⊝",
            4 => "⚠",
            _ => "✗",
        };
        // These quote lines of a file or of the help; in all others a line break is part of a name.
        let breaks = match error {
            CliError::Usage(_) | CliError::Schema(_) => Breaks::Kept,
            _ => Breaks::Escaped,
        };
        complain(&printable(&format!("{glyph} {error}"), false, breaks));
        // The first stands in the sentence.
        error.refusals().iter().skip(1).for_each(|refusal| self.complain(&format!("  {refusal}")));
        if let Some(hint) = error.hint() {
            self.complain(&format!("  {hint}"));
        }
    }
}

/// JSON in which characters that are not harmless, and that may only stand in strings, are written by their numbers.
fn plain_json(json: &str) -> Cow<'_, str> {
    if json.chars().all(is_harmless) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match is_harmless(c) {
            true => out.push(c),
            // All of them are in the first plane.
            false => _ = write!(out, "\\u{:04x}", u32::from(c)),
        }
    }
    Cow::Owned(out)
}

/// A text without what steers a terminal or turns text round. `colour`: the colours that this program sets itself stay.
fn printable(text: &str, colour: bool, breaks: Breaks) -> Cow<'_, str> {
    let styles: &[Style] = if colour { &[GREEN, YELLOW, RED, CYAN, MAGENTA, GREY, BOLD] } else { &[] };
    let own: Vec<String> =
        styles.iter().flat_map(|style| [format!("{style}"), format!("{style:#}")]).collect();
    terminal::printable(text, &own, breaks)
}

/// Glyph, colour and word for the state of a space.
pub(crate) fn sync_state(state: SyncState) -> (&'static str, Style, &'static str) {
    match state {
        SyncState::Synced => ("✓", GREEN, "synced"),
        SyncState::Syncing { .. } => ("↻", CYAN, "syncing"),
        SyncState::Pending => ("⚠", YELLOW, "pending"),
        SyncState::Offline => ("⊝", GREY, "offline"),
        SyncState::AuthNeeded => ("⚠", YELLOW, "sign-in needed"),
        SyncState::Error => ("✗", RED, "error"),
        SyncState::Paused => ("⊝", GREY, "not synced yet"),
        SyncState::LocalOnly => ("⊝", GREY, "on this device only"),
        _ => ("?", GREY, "unknown"),
    }
}

/// Glyph, colour and word for the state of a document.
pub(crate) fn document_state(state: DocumentState) -> (&'static str, Style, &'static str) {
    match state {
        DocumentState::Synced => ("✓", GREEN, "synced"),
        DocumentState::PendingCreate => ("⚠", YELLOW, "new, not sent yet"),
        DocumentState::PendingUpdate => ("⚠", YELLOW, "changed, not sent yet"),
        DocumentState::PendingDelete => ("⚠", YELLOW, "deleted, not sent yet"),
        DocumentState::PendingErase => ("⚠", YELLOW, "kept here, not erased at the relay yet"),
        DocumentState::Conflict => ("⚠", YELLOW, "conflict"),
        DocumentState::LocalOnly => ("⊝", GREY, "on this device only"),
        DocumentState::Error => ("✗", RED, "error"),
        _ => ("?", GREY, "unknown"),
    }
}

/// Milliseconds since 1970 as local time.
pub(crate) fn local_time(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => "at an unknown time".into(),
    }
}

pub(crate) fn last_synced(ms: Option<i64>) -> String {
    ms.map_or_else(|| "never".into(), local_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_steers_the_terminal() {
        let from_anybody = "mele\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\r\nʻāina\t👩\u{301}";
        let shown = printable(from_anybody, true, Breaks::Kept);
        assert_eq!(shown, "mele\\u{1b}[2J\\u{1b}]0;title\\u{7}\\u{9b}31m\\u{d}\nʻāina\t👩\u{301}");
        assert_eq!(printable("\u{202e}gnp.exe", false, Breaks::Kept), "\\u{202e}gnp.exe");
        let painted = format!("{GREEN}✓{GREEN:#} {BOLD}1{BOLD:#}");
        assert_eq!(printable(&painted, true, Breaks::Kept), painted);
        assert!(!printable(&painted, false, Breaks::Kept).contains('\u{1b}'));
        assert!(matches!(printable("plain", false, Breaks::Kept), Cow::Borrowed(_)));
        let value = serde_json::json!({ "na\u{9b}me": ["\u{85}\u{7f}\u{2028}\u{202e}\u{1b}\nʻāina"] });
        let json = value.to_string();
        let plain = plain_json(&json);
        assert_eq!(plain, r#"{"na\u009bme":["\u0085\u007f\u2028\u202e\u001b\nʻāina"]}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain).unwrap(), value);
    }
}
