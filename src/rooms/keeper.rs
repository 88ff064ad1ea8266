//! Rooms with a history, which outlast their members for a while: who comes back finds what was missed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::hub::Registry;
use super::room::Inner;
use crate::changes::Changes;
use crate::runtime;
use crate::runtime::{Clock, later};
use crate::sync::Mutex;

/// The shortest and the longest time between two looks at the rooms that are kept.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// The rooms of a hub that have messages in their history.
pub(super) struct Keeper<U, S> {
    kept: Mutex<Kept<U, S>>,
    signal: Arc<Signal>,
}

/// Rooms by name.
type Kept<U, S> = HashMap<Arc<str>, Arc<Inner<U, S>>>;

/// What the task of a keeper waits for.
#[derive(Default)]
struct Signal {
    changes: Changes,
    /// Whether a task runs.
    is_running: AtomicBool,
    /// Whether rooms are kept.
    has_work: AtomicBool,
    /// Whether the hub is gone.
    is_over: AtomicBool,
}

impl<U, S> Keeper<U, S> {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::default(), signal: Arc::default() }
    }

    /// Keeps a room until its history is too old.
    pub(super) fn keep(&self, room: Arc<Inner<U, S>>) {
        let before = self.kept.lock().insert(Arc::clone(room.name()), room);
        drop(before);
        self.signal.has_work.store(true, Ordering::SeqCst);
        self.signal.changes.tell();
    }

    /// Lets go of what is too old. Returns the time until the next look; `None` if no room is kept.
    fn sweep(&self) -> Option<Duration> {
        let (now, mut gone) = (Clock::default().now(), Vec::new());
        let mut kept = self.kept.lock();
        // Each room says under its own lock whether it is still to be kept, so that a broadcast finds it either here or
        // let go.
        let is_idle = |room: &Inner<U, S>, gone: &mut _| room.let_go_of_old(now, gone);
        let names: Vec<Arc<str>> = kept
            .values()
            .filter(|room| is_idle(room, &mut gone))
            .map(|it| Arc::clone(it.name()))
            .collect();
        let idle: Vec<_> = names.iter().filter_map(|name| kept.remove(name)).collect();
        let look = kept.values().filter_map(|room| room.keeps_for()).min();
        let look = look.map(|time| (time / 8).clamp(LOOK.0, LOOK.1));
        self.signal.has_work.store(look.is_some(), Ordering::SeqCst);
        drop(kept);
        // Without a lock: they are the application's.
        drop((idle, gone));
        look
    }
}

impl<U: Send + Sync + 'static, S: Send + 'static> Keeper<U, S> {
    /// Starts the task that lets go, unless it runs.
    pub(super) fn start(&self, registry: &Arc<Registry<U, S>>) {
        if !self.signal.is_running.swap(true, Ordering::SeqCst) {
            let running = Running(Arc::clone(&self.signal));
            drop(runtime::spawn_on_executor(sweep_on(running, Arc::downgrade(registry))));
        }
    }
}

impl<U, S> Drop for Keeper<U, S> {
    fn drop(&mut self) {
        self.signal.is_over.store(true, Ordering::SeqCst);
        self.signal.changes.tell();
    }
}

/// The mark of the task. An executor that ends may drop it; the next room then starts another.
struct Running(Arc<Signal>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::SeqCst);
    }
}

/// Looks at the rooms from time to time, while there are any, until the hub is gone.
async fn sweep_on<U: Send + Sync + 'static, S: Send + 'static>(
    running: Running,
    registry: Weak<Registry<U, S>>,
) {
    let (signal, clock) = (&running.0, Clock::default());
    loop {
        let look = match registry.upgrade() {
            Some(registry) => registry.keeper().sweep(),
            None => return,
        };
        if let Some(time) = look {
            clock.timer(later(clock.now(), time)).await;
            continue;
        }
        let is_due = || {
            let has_work = signal.has_work.load(Ordering::SeqCst);
            (has_work || signal.is_over.load(Ordering::SeqCst)).then_some(())
        };
        signal.changes.until(is_due).await;
    }
}
