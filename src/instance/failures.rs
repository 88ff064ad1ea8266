//! Failures of handlers, noted for the test that watches a server.

use std::any::Any;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::changes::Changes;
use crate::foreign::Noted;
use crate::sync::Mutex;

/// Failures that a test is told of. Those after them are only counted by the log.
const MOST: usize = 1000;

/// A handler of a server in memory that panicked, or that failed by itself.
///
/// See [`TestClient::failures`](crate::testing::TestClient::failures).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HandlerFailure {
    route: String,
    text: String,
    is_panic: bool,
}

impl HandlerFailure {
    /// Method and route, such as `GET /lots/:id`. For a panic of a middleware, the path of the request.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.route
    }

    /// The text of the error with its causes, or that of the panic.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.is_panic
    }
}

/// `GET /lots/:id failed: the database is gone`, or `panicked` in place of `failed`.
impl fmt::Display for HandlerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, text, is_panic } = self;
        write!(f, "{route} {}: {text}", if *is_panic { "panicked" } else { "failed" })
    }
}

/// The failures that were not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    is_watched: AtomicBool,
    noted: Mutex<Vec<HandlerFailure>>,
    told: Changes,
}

impl Failures {
    /// Notes failures from here on, or no more.
    pub(crate) fn watch(&self, is_watched: bool) {
        self.is_watched.store(is_watched, Ordering::SeqCst);
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::SeqCst)
    }

    /// Notes that the handler of `route` has failed with an error of this text.
    pub(crate) fn note_error(&self, route: &str, text: String) {
        self.note(HandlerFailure { route: route.to_owned(), text, is_panic: false });
    }

    /// Notes a panic, unless it has been noted.
    pub(crate) fn note_panic(&self, route: &str, payload: &(dyn Any + Send)) {
        if payload.is::<Noted>() {
            return;
        }
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("with a value that is no text").to_owned();
        self.note(HandlerFailure { route: route.to_owned(), text, is_panic: true });
    }

    fn note(&self, failure: HandlerFailure) {
        if !self.is_watched() {
            return;
        }
        let mut noted = self.noted.lock();
        if noted.len() < MOST {
            noted.push(failure);
        }
        drop(noted);
        self.told.tell();
    }

    /// Takes all that are noted.
    pub(crate) fn take(&self) -> Vec<HandlerFailure> {
        mem::take(&mut *self.noted.lock())
    }

    /// Takes the first whose text contains `part`.
    pub(crate) fn take_like(&self, part: &str) -> Option<HandlerFailure> {
        let mut noted = self.noted.lock();
        let index = noted.iter().position(|failure| failure.to_string().contains(part))?;
        Some(noted.remove(index))
    }

    /// Waits for a failure whose text contains `part`, and takes it.
    pub(crate) async fn next_like(&self, part: &str) -> HandlerFailure {
        self.told.until(|| self.take_like(part)).await
    }
}
