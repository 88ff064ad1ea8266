//! Waiting in a test: with a time limit, and with failures that name the line of the test.

use std::fmt;
use std::io::{Error as IoError, ErrorKind};
use std::panic::Location;
use std::time::Duration;

use crate::error::Result;
use crate::runtime::Clock;

/// Longest time that a test waits for one event; `None` for no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience(pub(super) Option<Duration>);

impl Patience {
    /// Waits for `future`. If that takes too long, the error text is `what` and the time.
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

/// The line of the test that called. A panic inside a future would name a line of this crate instead.
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
        panic!("{message:#}\n  in {}", self.0)
    }
}
