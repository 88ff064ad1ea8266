//! The counters of all visitors together.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::Problem;

/// The number of failures that are shown.
const SHOWN: usize = 10;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    letters: AtomicU64,
    bytes: AtomicU64,
    visits: Mutex<BTreeMap<&'static str, u64>>,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    /// Counts a letter that has arrived and was checked.
    pub(crate) fn letter(&self, bytes: usize) {
        self.letters.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts a visit of this kind that is over.
    pub(crate) fn visit(&self, kind: &'static str, outcome: Result<(), Problem>) {
        *self.visits.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
        if let Err(problem) = outcome {
            let failure = format!("{kind}: {problem}");
            println!("{failure}");
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
        }
    }

    /// Whether all visits succeeded, and at least one letter was checked.
    pub(crate) fn verdict(&self) -> Result<(), Problem> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if !failures.is_empty() {
            let shown = failures.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>();
            return Err(format!("{} visits, as {}", failures.len(), shown.join("; ")).into());
        }
        if self.letters.load(Ordering::Relaxed) == 0 {
            return Err("no letter arrived".into());
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letters, bytes) = (&self.letters, self.bytes.load(Ordering::Relaxed));
        write!(f, "{} letters, {} MiB, visits:", letters.load(Ordering::Relaxed), bytes >> 20)?;
        let visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, count) in &*visits {
            write!(f, " {kind} {count}")?;
        }
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, ", {} failed", failures.len())
    }
}
