//! What is measured, and how it is printed.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

/// The result; `None` where nothing is measured (yet).
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) upload_s: Option<f64>,
    pub(crate) list_open_s: Option<f64>,
    pub(crate) search_s: Option<f64>,
    pub(crate) merged_s: Option<f64>,
    pub(crate) noop_ms: Option<f64>,
    pub(crate) noop_bytes: Option<f64>,
    pub(crate) noop_round_trips: Option<f64>,
    pub(crate) delta_percent: Option<f64>,
    pub(crate) live_ms: Option<f64>,
    pub(crate) live_cold_ms: Option<f64>,
    pub(crate) fsync_ms: Option<f64>,
    pub(crate) pipelined_per_s: Option<f64>,
    pub(crate) relay_rss_mb: Option<f64>,
    pub(crate) relay_disk_mb: Option<f64>,
    pub(crate) relay_cpu_ms_per_edit: Option<f64>,
    pub(crate) floor_ms: Option<f64>,
    pub(crate) floor_cpu_ms: Option<f64>,
    pub(crate) client_rss_mb: Option<f64>,
    pub(crate) client_disk_mb: Option<f64>,
    pub(crate) wire_up_mb: Option<f64>,
    pub(crate) wire_down_mb: Option<f64>,
}

impl Report {
    pub(crate) fn print(&self, documents: usize) {
        println!("fleet job, {documents} songs");
        for (what, value, unit) in [
            ("upload, durable on the relay", self.upload_s, "s"),
            ("fresh device: can list and open", self.list_open_s, "s"),
            ("fresh device: can search", self.search_s, "s"),
            ("fresh device: all merged", self.merged_s, "s"),
            ("nothing changed, sync again", self.noop_ms, "ms"),
            ("  bytes", self.noop_bytes, "B"),
            ("  round trips", self.noop_round_trips, ""),
            ("one of 100 changed, of a full transfer", self.delta_percent, "%"),
            ("live edit, A committed to B told, median", self.live_ms, "ms"),
            ("  of another song each time", self.live_cold_ms, "ms"),
            ("  socket in, commit, sockets out, bare loop", self.floor_ms, "ms"),
            ("one fsync on this disk, median", self.fsync_ms, "ms"),
            ("pipelined edits of one document", self.pipelined_per_s, "/s"),
            ("relay memory, peak", self.relay_rss_mb, "MB"),
            ("relay disk", self.relay_disk_mb, "MB"),
            ("relay CPU per live edit", self.relay_cpu_ms_per_edit, "ms"),
            ("  the bare loop's", self.floor_cpu_ms, "ms"),
            ("device B memory, peak", self.client_rss_mb, "MB"),
            ("device B disk, all merged and indexed", self.client_disk_mb, "MB"),
            ("sent by A in the upload", self.wire_up_mb, "MB"),
            ("received by B in the download", self.wire_down_mb, "MB"),
        ] {
            match value {
                Some(value) => println!("  {what:<42} {value:>10.2} {unit}"),
                None => println!("  {what:<42} {:>10}", "-"),
            }
        }
    }
}

/// Median time to append 4 kB to a file in `folder` and fsync it.
pub(crate) fn fsync_ms(folder: &Path) -> Option<f64> {
    let path = folder.join("fsync.probe");
    let mut file = std::fs::File::create(&path).ok()?;
    let mut times = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        file.write_all(&[0; 4_096]).ok()?;
        file.sync_data().ok()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    _ = std::fs::remove_file(path);
    Some(motet_benches::median(times))
}

/// Processor time of a process so far, all its threads together.
pub(crate) fn cpu_ms(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e6
}

pub(crate) fn folder_mb(folder: &Path) -> f64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len() as f64).sum::<f64>() / 1e6
}

/// Size of a database, with its log and whatever else lies beside it under its name.
pub(crate) fn files_mb(database: &Path) -> f64 {
    let name = database.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries =
        database.parent().into_iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
    let own = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&name));
    own.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len() as f64).sum::<f64>() / 1e6
}
