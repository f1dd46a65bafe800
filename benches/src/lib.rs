//! What the benches share.

pub mod attack;
pub mod process;
pub mod relay;
#[cfg(unix)]
pub mod servers;
pub mod songs;

/// Waits until `done` holds.
///
/// # Panics
/// After `limit`.
pub fn wait_until(what: &str, limit: std::time::Duration, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The chunk that a row of a device's file holds of a document, as docs/storage.md has it.
///
/// # Panics
/// If that cannot be decompressed.
pub fn opened_chunk(document: i64, mut bytes: Vec<u8>) -> Vec<u8> {
    let number = (document as u32).wrapping_mul(0x9e37_79b1).to_le_bytes();
    bytes.iter_mut().zip(number).for_each(|(byte, with)| *byte ^= with);
    match bytes.strip_prefix(b"ZMP1") {
        Some(rest) => zstd::decode_all(&rest[4..]).unwrap(),
        None => bytes,
    }
}

/// Most memory that a process had in use, in MB of 10^6 bytes.
pub fn peak_rss_mb(pid: u32) -> Option<f64> {
    memory_mb(pid, "VmHWM:")
}

/// Memory that a process has in use, in MB of 10^6 bytes.
pub fn rss_mb(pid: u32) -> Option<f64> {
    memory_mb(pid, "VmRSS:")
}

/// Files and sockets that a process has open.
pub fn descriptors(pid: u32) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Processor time of this process, in seconds, to 10 ms: also of threads that have ended.
pub fn process_cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, which may be anything, stands in parentheses.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Processor time of the threads that this process has now, in seconds.
pub fn cpu_s() -> f64 {
    // Nanoseconds on a processor, summed over the threads; /proc/self/stat only counts ticks of 10 ms.
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let on_cpu = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    on_cpu.sum::<f64>() / 1e9
}

fn memory_mb(pid: u32, what: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(what))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0 / 1e6)
}
