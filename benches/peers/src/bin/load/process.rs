//! What processes have cost so far, as the kernel accounts it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::process;
use std::time::Instant;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use rustix::param::clock_ticks_per_second;

use crate::args::Args;

/// The accounts of both sides at one instant, and of the whole machine.
#[derive(Debug)]
pub(crate) struct Accounts {
    at: Instant,
    client: CpuTime,
    server: Option<CpuTime>,
    machine: u64,
}

impl Accounts {
    pub(crate) fn read(args: &Args) -> io::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            client: CpuTime::of(process::id())?,
            server: args.pid.map(CpuTime::of).transpose()?,
            machine: machine()?,
        })
    }

    /// What was spent from `earlier` to this reading.
    pub(crate) fn since(&self, earlier: &Self) -> Costs {
        let server = self.server.as_ref().zip(earlier.server.as_ref());
        let client = self.client.since(&earlier.client);
        let server = server.map(|(now, earlier)| now.since(earlier));
        let ours = client.running + server.map_or(0, |server| server.running);
        let others = self.machine.saturating_sub(earlier.machine).saturating_sub(ours);
        Costs { seconds: (self.at - earlier.at).as_secs_f64(), client, server, others }
    }
}

/// What happened between two readings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    pub(crate) seconds: f64,
    client: Spent,
    server: Option<Spent>,
    /// Nanoseconds of CPU time of all other processes.
    others: u64,
}

impl Costs {
    /// Members of the line of JSON, where `count` is how many of a thing were done.
    pub(crate) fn json(&self, thing: &str, count: u64) -> String {
        let share = |nanoseconds: u64| nanoseconds as f64 / 1e9 / self.seconds;
        let server = self.server.map_or(String::new(), |spent| {
            format!(
                r#", "cpu_ns_per_{thing}": {:.1}, "server_busy": {:.3}, "server_waiting": {:.3}"#,
                spent.running as f64 / count.max(1) as f64,
                share(spent.running),
                share(spent.waiting)
            )
        });
        format!(
            r#""seconds": {:.3}, "client_busy": {:.3}, "client_waiting": {:.3}, "others_busy": {:.3}{server}"#,
            self.seconds,
            share(self.client.running),
            share(self.client.waiting),
            share(self.others),
        )
    }
}

/// CPU time of a process, and the time that its threads were ready but something else ran.
#[derive(Clone, Debug)]
struct CpuTime {
    /// Of all threads, those included that have ended.
    running: u64,
    /// By thread: one that ends takes its account with it, and must not turn a difference negative.
    waiting: HashMap<String, u64>,
}

/// Nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Spent {
    running: u64,
    waiting: u64,
}

impl CpuTime {
    /// Reads the CPU clock of the process, and `/proc/PID/task/*/schedstat`.
    ///
    /// The kernel updates a running thread's account at its tick, so a reading is up to 4 ms late.
    fn of(pid: u32) -> io::Result<Self> {
        let process = Pid::from_raw(pid.try_into().map_err(io::Error::other)?);
        let running = clock_gettime(clock_getcpuclockid(process)?)?;
        let seconds = u64::try_from(running.tv_sec()).map_err(io::Error::other)?;
        let rest = u64::try_from(running.tv_nsec()).map_err(io::Error::other)?;
        let mut waiting = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let nanoseconds = text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
            let thread = entry.file_name().to_string_lossy().into_owned();
            waiting.extend(nanoseconds.map(|nanoseconds| (thread, nanoseconds)));
        }
        Ok(Self { running: seconds * 1_000_000_000 + rest, waiting })
    }

    fn since(&self, earlier: &Self) -> Spent {
        let waiting = self.waiting.iter().map(|(thread, now)| {
            let before = earlier.waiting.get(thread).copied().unwrap_or_default();
            now.saturating_sub(before)
        });
        Spent { running: self.running.saturating_sub(earlier.running), waiting: waiting.sum() }
    }
}

/// Nanoseconds of CPU time of all processes, those included that have ended.
///
/// The account of one that ends becomes part of its parent's, so the sum never loses it.
fn machine() -> io::Result<u64> {
    let processes = fs::read_dir("/proc")?.filter_map(|entry| {
        let path = entry.ok()?.path();
        // Not `self`, which is counted by its number.
        path.file_name()?.to_str()?.parse::<u32>().ok()?;
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        // Behind the name, which may hold anything: user and system time, and those of children.
        let (_, fields) = stat.rsplit_once(')')?;
        let times = fields.split_whitespace().skip(11).take(4);
        Some(times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>())
    });
    Ok(processes.sum::<u64>() * (1_000_000_000 / clock_ticks_per_second()))
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
