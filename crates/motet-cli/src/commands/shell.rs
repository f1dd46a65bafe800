//! What a shell and `man` need to know of the commands.

use std::path::Path;

use clap::CommandFactory;
use serde_json::json;

use crate::args::Args;
use crate::error::CliError;
use crate::output::Output;

pub(crate) fn completions(shell: clap_complete::Shell, output: &Output) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "motet", &mut script);
    let script = String::from_utf8_lossy(&script);
    if output.json {
        return output.json_line(&json!({ "shell": shell.to_string(), "script": script }));
    }
    output.lines(script.trim_end());
    Ok(())
}

pub(crate) fn man(folder: &Path, output: &Output) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::Other(format!("no manual pages can be written to {}: {error}", folder.display()))
    };
    let count = || std::fs::read_dir(folder).map(Iterator::count);
    // Says that the folder is not there, before clap says less.
    let before = count().map_err(failed)?;
    clap_mangen::generate_to(Args::command(), folder).map_err(failed)?;
    let pages = count().map_err(failed)?.saturating_sub(before);
    if output.json {
        return output.json_line(&json!({ "folder": folder.display().to_string(), "new": pages }));
    }
    output.line(&format!(
        "manual pages are in {}; read them with: man -l '{}/motet.1'",
        folder.display(),
        folder.display()
    ));
    Ok(())
}
