//! Editing traces in the public format of text CRDT benchmarks (github.com/josephg/editing-traces): one text, who replaced what by what, and
//! on which version.

use std::io::Read;
use std::path::Path;

use motet::TextEdit;
use serde::Deserialize;

/// Bytes that a trace may have, as JSON: the largest public one has 20 MB.
const TRACE_BYTES: u64 = 1 << 30;

/// A trace. Positions are in Unicode code points.
pub(crate) struct Trace {
    /// What the text is at first.
    pub(crate) start: String,
    /// What it is once everything is merged.
    pub(crate) end: String,
    /// People who write; each has a device.
    pub(crate) agents: usize,
    /// What they did, each after what it is made on.
    pub(crate) steps: Vec<Step>,
}

/// Edits that somebody made at once.
pub(crate) struct Step {
    pub(crate) agent: usize,
    /// The steps that it is made on; none: the start.
    pub(crate) parents: Vec<usize>,
    pub(crate) edits: Vec<TextEdit>,
}

/// A trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{path} is no trace: {source}")]
    Json { path: String, source: serde_json::Error },
    #[error("{path} is no trace: {reason}")]
    Odd { path: String, reason: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    start_content: String,
    end_content: String,
    num_agents: Option<usize>,
    txns: Vec<Txn>,
}

#[derive(Deserialize)]
struct Txn {
    parents: Option<Vec<usize>>,
    agent: Option<usize>,
    patches: Vec<Patch>,
}

/// `[position, deleted, inserted]`, and perhaps a time.
#[derive(Deserialize)]
struct Patch(usize, usize, String, #[serde(default)] serde::de::IgnoredAny);

impl Trace {
    /// Reads a trace, compressed by gzip or not.
    pub(crate) fn read(path: &Path) -> Result<Self, TraceError> {
        let shown = path.display().to_string();
        let io = |source| TraceError::Io { path: shown.clone(), source };
        let bytes = std::fs::read(path).map_err(io)?;
        let mut text = String::new();
        let read = match bytes.starts_with(&[0x1f, 0x8b]) {
            true => flate2::read::MultiGzDecoder::new(&bytes[..]).take(TRACE_BYTES).read_to_string(&mut text),
            false => (&bytes[..]).take(TRACE_BYTES).read_to_string(&mut text),
        };
        read.map_err(io)?;
        let file = serde_json::from_str(&text);
        let file: File = file.map_err(|source| TraceError::Json { path: shown.clone(), source })?;
        file.trace().map_err(|reason| TraceError::Odd { path: shown, reason })
    }

    /// What the devices of the agents are called.
    pub(crate) fn names(&self) -> Vec<String> {
        (0..self.agents).map(|n| format!("agent-{n}")).collect()
    }

    /// Replacements in all.
    pub(crate) fn edits(&self) -> usize {
        self.steps.iter().map(|step| step.edits.len()).sum()
    }
}

impl File {
    fn trace(self) -> Result<Trace, String> {
        let is_concurrent = self.num_agents.is_some() || self.txns.iter().any(|txn| txn.parents.is_some());
        let agents = self.num_agents.unwrap_or(1);
        let mut steps = Vec::with_capacity(self.txns.len());
        for (n, txn) in self.txns.into_iter().enumerate() {
            let parents = match (txn.parents, is_concurrent) {
                (Some(parents), _) => parents,
                (None, false) => n.checked_sub(1).into_iter().collect(),
                (None, true) => return Err(format!("txns[{n}] has no parents")),
            };
            if let Some(parent) = parents.iter().find(|parent| **parent >= n) {
                return Err(format!("txns[{n}] is made on txns[{parent}], which does not stand before it"));
            }
            let agent = txn.agent.unwrap_or_default();
            if agent >= agents {
                return Err(format!("txns[{n}] is by agent {agent}, and there are {agents}"));
            }
            let edits =
                txn.patches.into_iter().map(|Patch(at, delete, insert, _)| TextEdit::new(at, delete, insert));
            steps.push(Step { agent, parents, edits: edits.collect() });
        }
        Ok(Trace { start: self.start_content, end: self.end_content, agents, steps })
    }
}
