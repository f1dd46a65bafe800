//! What the programs print on a terminal: names, paths and arguments may hold anything, and steer nothing.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

/// What becomes of line breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaks {
    /// They are of the text.
    Kept,
    /// They are part of a name, and shown by their number.
    Escaped,
}

/// Whether a character steers no terminal, breaks no line and turns no text round: what turns the direction of the text that follows shows it as
/// something else.
pub fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in which characters that are not harmless are shown by their numbers, but for tabs. The sequences `own` stay.
pub fn printable<'t>(text: &'t str, own: &[String], breaks: Breaks) -> Cow<'t, str> {
    let is_plain = |c: char| match c {
        '\n' => breaks == Breaks::Kept,
        '\t' => true,
        _ => is_harmless(c),
    };
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match own.iter().find(|own| rest.starts_with(own.as_str())) {
            Some(own) => {
                out.push_str(own);
                rest = &rest[own.len()..];
            }
            None => {
                if is_plain(c) {
                    out.push(c)
                } else {
                    out.extend(c.escape_unicode())
                }
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Cow::Owned(out)
}

/// Parses the arguments of a program.
///
/// # Errors
/// As clap has them, and for help and the version. An error quotes the arguments with their line breaks and control characters escaped.
pub fn parse<P: clap::Parser>(args: impl Iterator<Item = OsString>) -> Result<P, clap::Error> {
    let args: Vec<OsString> = args.collect();
    P::try_parse_from(&args).map_err(|error| {
        let shown =
            args.iter().map(|arg| printable(&arg.to_string_lossy(), &[], Breaks::Escaped).into_owned());
        P::try_parse_from(shown).err().unwrap_or(error)
    })
}

/// Prints what clap has to say: help, the version, or what is wrong with the arguments. The code is 2 after an error, and 1 if help could not
/// be printed; the reason is on the error output then.
pub fn usage(program: &str, error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let text = error.render();
        match printable(&text.to_string(), &[], Breaks::Kept) {
            // With its colours.
            Cow::Borrowed(_) => _ = error.print(),
            Cow::Owned(escaped) => complain(escaped.trim_end()),
        }
        return ExitCode::from(2);
    }
    finish(program, error.print().and_then(|()| std::io::stdout().flush()))
}

/// What became of an output. A reader that has gone away (`| head`) has seen what it wanted.
pub fn finish(program: &str, written: std::io::Result<()>) -> ExitCode {
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(&format!("{program}: standard output cannot be written: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Installs a log writer that prints to stderr what `RUST_LOG` asks for, else what `default` does. Colours are for terminals alone.
pub fn init_logging(default: &str) {
    let log = tracing_subscriber::fmt().with_env_filter(filter(default)).log_internal_errors(false);
    // It would colour the lines of a file as well.
    let is_colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    _ = log.with_ansi(is_colour).with_writer(|| Forgiving).try_init();
}

/// The same with a JSON object on each line: what is said, with its fields beside, and the span that it was said in.
pub fn init_json_logging(default: &str) {
    let log = tracing_subscriber::fmt().with_env_filter(filter(default)).log_internal_errors(false);
    let log = log.json().flatten_event(true).with_current_span(true).with_span_list(false);
    _ = log.with_writer(|| Forgiving).try_init();
}

fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default))
}

/// Writes to stderr, and says that it went well: whoever logs cannot do anything about it, and printing the failure would go to the same
/// place and panic.
struct Forgiving;

impl Write for Forgiving {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        _ = std::io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Prints a line on the error output. Where that goes nowhere, nobody is left to be told.
pub fn complain(text: &str) {
    _ = writeln!(std::io::stderr(), "{text}");
}
