//! The warnings of the server, which has nothing to warn of here: above all, that no task holds its thread.

use std::sync::Mutex;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};

use crate::Problem;

/// From this length on, a run has to be without any warning.
const LONG: Duration = Duration::from_secs(600);

static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

struct Warnings(Mutex<Vec<String>>);

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tidewire")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let warning = record.args().to_string();
            println!("{}: {warning}", record.level());
            if let Ok(mut warnings) = self.0.lock() {
                warnings.push(warning);
            }
        }
    }

    fn flush(&self) {}
}

/// Collects the warnings from now on.
pub(crate) fn collect() -> Result<(), Problem> {
    log::set_logger(&WARNINGS)?;
    log::set_max_level(LevelFilter::Warn);
    Ok(())
}

/// Fails if there was one.
///
/// In a run of less than ten minutes, one that a handler has blocked its thread is only shown: a machine that is shared
/// with others may stand still for that long.
pub(crate) fn verdict(time: Duration) -> Result<(), Problem> {
    let warnings = WARNINGS.0.lock().map_err(|_| "a logger has panicked")?;
    let counts = |warning: &&String| time >= LONG || !warning.contains("has blocked its thread");
    match warnings.iter().find(counts) {
        None => Ok(()),
        Some(first) => Err(format!("{} warnings, among them: {first}", warnings.len()).into()),
    }
}
