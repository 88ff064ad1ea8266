//! A soak test: all features at once, against one server, for a given time.
//!
//! ```text
//! cargo bench --bench soak                   60 seconds, 64 visitors
//! cargo bench --bench soak -- 1200 128       20 minutes, 128 visitors
//! ```
//!
//! Visitors come and go: echoes and rooms, with TLS or without, compressed or not. Some are idle and pinged, some
//! read slowly, some never answer, and some break off with a reset. Every message has its number and a checksum,
//! which are checked where it arrives. Both ends are in this process, whose memory and descriptors are watched. The
//! exit code is 1 if a message was wrong, late or missing, if a visit failed, if the server warned of anything, if
//! memory grew, or if a resource was left at the end.

mod letter;
mod server;
mod tally;
mod usage;
mod visit;
mod warnings;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::task;
use futures::future::join_all;

use server::Service;
use tally::Tally;
use usage::Usage;

/// The error of a visit, or of the run.
type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Time between two lines of progress.
const REPORT: Duration = Duration::from_secs(10);

/// Longest time for connections and tasks to end after the last visitor has left.
const SETTLE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let time = Duration::from_secs(numbers.next().unwrap_or(60));
    let visitors = numbers.next().unwrap_or(64);
    match task::block_on(soak(time, visitors)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("FAILED: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn soak(time: Duration, visitors: u64) -> Result<(), Problem> {
    println!("{visitors} visitors for {} s", time.as_secs());
    warnings::collect()?;
    // The runtime opens descriptors of its own, once.
    task::sleep(Duration::from_millis(1)).await;
    let before = usage::descriptors()?;
    let (service, tally) = (Arc::new(Service::start().await?), Arc::new(Tally::default()));
    let end = Instant::now() + time;

    let mut usage = Usage::default();
    let visiting = (0..visitors)
        .map(|seed| task::spawn(visit::keep_visiting(seed, end, service.clone(), tally.clone())));
    let visiting = task::spawn(join_all(visiting.collect::<Vec<_>>()));
    let mut reported = Instant::now();
    while Instant::now() < end {
        task::sleep(Duration::from_secs(1)).await;
        let sample = usage.sample()?;
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            println!("{sample}, {} open, {tally}", service.open());
        }
    }
    visiting.await;

    println!("{tally}");
    println!("{usage}");
    service.stop().await?;
    settle(before).await?;
    println!("descriptors: {before} before, as many after");
    tally.verdict()?;
    warnings::verdict(time)?;
    usage.verdict()
}

/// Waits until there are as many descriptors as `before`.
async fn settle(before: u32) -> Result<(), Problem> {
    let end = Instant::now() + SETTLE;
    loop {
        let after = usage::descriptors()?;
        if after == before {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("{before} descriptors before, {after} after").into());
        }
        task::sleep(Duration::from_millis(50)).await;
    }
}
