//! What every client under test does the same way: its job, and the figures in the end.
//!
//! Each connection sends `in_flight` messages, receives as many echoes, and begins anew.

use std::env;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What a client is told to do, by its arguments.
#[derive(Clone, Debug)]
pub struct Job {
    /// `ws://HOST:PORT/PATH`.
    pub url: String,
    /// How many connections.
    pub connections: usize,
    /// Length of a message.
    pub bytes: usize,
    /// Messages that are sent before their echoes are received.
    pub in_flight: usize,
    /// A word that means something to one client only.
    pub mode: String,
    seconds: f64,
    warm_up: f64,
}

static ECHOES: AtomicU64 = AtomicU64::new(0);

impl Job {
    /// Reads URL, connections, bytes, in flight, seconds, warm-up and mode, and starts the clock:
    /// when the time is over, the figures are printed and the process ends.
    #[must_use]
    pub fn begin() -> Self {
        let words: Vec<String> = env::args().skip(1).collect();
        let [url, connections, bytes, in_flight, seconds, warm_up, mode] = words.as_slice() else {
            panic!("URL CONNECTIONS BYTES IN_FLIGHT SECONDS WARM_UP MODE")
        };
        let number = |text: &String| text.parse().expect("a number");
        let job = Self {
            url: url.clone(),
            connections: number(connections),
            bytes: number(bytes),
            in_flight: number(in_flight),
            mode: mode.clone(),
            seconds: seconds.parse().expect("seconds"),
            warm_up: warm_up.parse().expect("seconds"),
        };
        let (warm_up, seconds) = (job.warm_up, job.seconds);
        thread::spawn(move || measure(warm_up, seconds));
        job
    }

    /// `HOST:PORT` of the URL.
    #[must_use]
    pub fn address(&self) -> &str {
        let rest = self.url.strip_prefix("ws://").expect("a ws URL");
        rest.split('/').next().expect("an address")
    }

    /// A message, zeros all over.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        vec![0; self.bytes]
    }
}

/// Notes that so many echoes have come.
pub fn echoed(count: usize) {
    ECHOES.fetch_add(count as u64, Ordering::Relaxed);
}

fn measure(warm_up: f64, seconds: f64) {
    thread::sleep(Duration::from_secs_f64(warm_up));
    let (begin, cpu, echoes) = (Instant::now(), cpu_ns(), ECHOES.load(Ordering::Relaxed));
    thread::sleep(Duration::from_secs_f64(seconds));
    let (time, cpu) = (begin.elapsed(), cpu_ns() - cpu);
    let echoes = ECHOES.load(Ordering::Relaxed) - echoes;
    #[expect(clippy::cast_precision_loss, reason = "figures of five digits")]
    let (each, rate, busy) = (
        cpu as f64 / echoes.max(1) as f64,
        echoes as f64 / time.as_secs_f64(),
        cpu as f64 / time.as_nanos() as f64,
    );
    let mut stdout = io::stdout().lock();
    let line = format!(
        "{{\"messages\":{echoes},\"cpu_ns_per_message\":{each:.1},\
         \"messages_per_second\":{rate:.0},\"busy\":{busy:.3}}}"
    );
    writeln!(stdout, "{line}").expect("standard output");
    std::process::exit(0);
}

/// What all threads have run so far, those included that have ended.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let [seconds, rest] =
        [time.tv_sec, time.tv_nsec].map(|part| u64::try_from(part).expect("a sum"));
    seconds * 1_000_000_000 + rest
}
