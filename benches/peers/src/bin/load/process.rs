//! What a process has cost so far, as the kernel accounts it.

use std::collections::HashMap;
use std::fs;
use std::io;

/// CPU time of every thread of a process, and the time it was ready but something else ran.
///
/// By thread: one that ends takes its account with it, and must not turn a difference negative.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuTime(HashMap<String, Spent>);

/// Nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) running: u64,
    pub(crate) waiting: u64,
}

impl CpuTime {
    /// Reads `/proc/PID/task/*/schedstat`.
    ///
    /// The kernel updates a running thread's account at its tick, so a reading is up to 4 ms late.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let mut words = text.split_whitespace().map_while(|word| word.parse().ok());
            let (Some(running), Some(waiting)) = (words.next(), words.next()) else { continue };
            let thread = entry.file_name().to_string_lossy().into_owned();
            threads.insert(thread, Spent { running, waiting });
        }
        Ok(Self(threads))
    }

    /// What was spent from `earlier` to this reading, by all threads together.
    pub(crate) fn since(&self, earlier: &Self) -> Spent {
        let mut sum = Spent::default();
        for (thread, now) in &self.0 {
            let before = earlier.0.get(thread).copied().unwrap_or_default();
            sum.running += now.running.saturating_sub(before.running);
            sum.waiting += now.waiting.saturating_sub(before.waiting);
        }
        sum
    }
}

/// Resident bytes of a process.
pub(crate) fn resident(pid: u32) -> io::Result<u64> {
    // `statm` counts per CPU in batches since Linux 6.2; the roll-up walks the pages.
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Rss:")?.split_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).map(|kib| kib << 10).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "no resident size in smaps_rollup")
    })
}
