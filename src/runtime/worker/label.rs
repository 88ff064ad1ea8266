//! The names of routes, for a worker to tell what it is inside.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::CURRENT;
use crate::sync::Mutex;

/// All names. Equal names are one, so it does not grow with the number of servers.
static NAMES: Mutex<Vec<Arc<str>>> = Mutex::new(Vec::new());

/// A name: its number in the list of all names, from 1 on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    unnameable_types,
    reason = "it is in the hidden method of a trait that applications only name"
)]
pub struct Label(usize);

impl Label {
    pub(crate) fn new(name: &str) -> Self {
        let mut names = NAMES.lock();
        let index = names.iter().position(|known| **known == *name).unwrap_or_else(|| {
            names.push(name.into());
            names.len() - 1
        });
        Self(index + 1)
    }

    /// Tells the worker of this thread, if it is one, that this is what runs.
    pub(crate) fn begin(self) {
        let note = |label: &AtomicUsize| label.store(self.0, Ordering::Relaxed);
        let _ = CURRENT.try_with(|current| {
            if let Some(worker) = &*current.borrow() {
                note(worker.label());
            }
        });
    }

    /// The label that was told to a worker since it went into its task.
    pub(super) fn of(told: &AtomicUsize) -> Option<Self> {
        Some(Self(told.load(Ordering::Relaxed))).filter(|label| label.0 > 0)
    }
}

impl Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.checked_sub(1).and_then(|index| NAMES.lock().get(index).cloned());
        f.write_str(name.as_deref().unwrap_or("a task"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_label() {
        let [first, second] = ["GET /first", "GET /second"].map(Label::new);
        assert_ne!(first, second);
        assert_eq!(first, Label::new("GET /first"));
        assert_eq!([first, second].map(|label| label.to_string()), ["GET /first", "GET /second"]);
    }
}
