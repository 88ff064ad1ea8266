//! Worlds of random calls, peers, stalls and times: whenever nothing can go on, nothing is owed.
//!
//! The fuzz target of the same name searches the same worlds for more. A test that fails names its seed:
//! `SEED=NUMBER QUIESCENCE_TRACE=1` runs that seed alone and prints each step.

mod world;

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::time::Duration;
use std::{env, mem};

use futures::future::BoxFuture;

use crate::support::rng::Rng;
use crate::support::separate_process;

/// Longest life of the process of a test.
const WITHIN: Duration = Duration::from_secs(300);

const SEEDS: u64 = 300;

/// Enough for the judge to find what it is tried with.
const SEEDS_OF_FORGETFUL_STREAMS: u64 = 40;

/// What the crate has given to the spawner.
static SPAWNED: Mutex<Vec<BoxFuture<'static, ()>>> = Mutex::new(Vec::new());

#[test]
fn nothing_is_owed_when_nothing_can_go_on() {
    in_its_own_process("nothing_is_owed_when_nothing_can_go_on", || {
        let only = env::var("SEED").ok().map(|seed| seed.parse().unwrap());
        for seed in only.map_or(0..SEEDS, |seed| seed..seed + 1) {
            run(seed, false);
        }
    });
}

#[test]
fn a_stream_that_forgets_to_wake_is_found_out() {
    in_its_own_process("a_stream_that_forgets_to_wake_is_found_out", || {
        let found = (0..SEEDS_OF_FORGETFUL_STREAMS)
            .filter_map(|seed| catch_unwind(|| run(seed, true)).err());
        let found: Vec<String> = found.map(|panic| *panic.downcast().unwrap()).collect();
        assert!(found.iter().all(|panic| panic.starts_with("owed: ")), "{found:?}");
        assert!(found.iter().any(|panic| panic.starts_with("owed: read: ")), "{found:?}");
        assert!(found.iter().any(|panic| panic.starts_with("owed: bytes: ")), "{found:?}");
    });
}

/// Runs a test in a process of its own: the crate has one spawner per process, and other tests need another.
fn in_its_own_process(test: &str, run: impl FnOnce()) {
    if separate_process::program_within(WITHIN).is_some() {
        tidewire::executor::set_spawner(|future| SPAWNED.lock().unwrap().push(future)).unwrap();
        return run();
    }
    let told = separate_process::run(&format!("connection::quiescence::{test}"), "worlds");
    assert!(told.contains("seed"), "{told}");
}

fn run(seed: u64, forgets: bool) {
    let mut rng = Rng::new(seed);
    let len = 50 + rng.below(1_000);
    let input: Vec<u8> = (0..len).map(|_| u8::try_from(rng.below(256)).unwrap()).collect();
    eprintln!("seed {seed}");
    world::run(&input, || mem::take(&mut *SPAWNED.lock().unwrap()), forgets);
}
