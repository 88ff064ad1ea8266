//! Waiting in a test: for an event, with an end, and on the line of the test that waits.

use std::fmt;
use std::io::{Error as IoError, ErrorKind};
use std::panic::Location;
use std::time::Duration;

use crate::error::Result;
use crate::runtime::Clock;

/// How long a test waits for one thing; `None` for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience(pub(super) Option<Duration>);

impl Patience {
    /// Waits for `future`; `what` did not happen if that takes too long.
    pub(super) async fn wait<T>(
        self,
        what: impl fmt::Display,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let outcome = Clock::default().timeout(self.0, future).await;
        outcome.unwrap_or_else(|| {
            let patience = self.0.unwrap_or_default();
            Err(IoError::new(ErrorKind::TimedOut, format!("{what} within {patience:?}")).into())
        })
    }
}

/// The line of a test that calls: a panic inside a future would name a line of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(&'static Location<'static>);

impl Caller {
    #[track_caller]
    pub(super) fn here() -> Self {
        Self(Location::caller())
    }

    /// Fails the test.
    #[expect(clippy::panic, reason = "that is how a test fails")]
    pub(super) fn fail(self, message: impl fmt::Display) -> ! {
        panic!("{message}\n  in {}", self.0)
    }
}
