//! Containment for panics in code of the application.
//!
//! A panic that unwinds through an executor may end other tasks. A panic out of a destructor, while a task is being
//! dropped, ends the process, and so does a second panic while the first unwinds. So values and code that may panic
//! are dropped and run one after another, each inside `catch_unwind`.

use std::any::Any;
#[cfg(feature = "server")]
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(feature = "server")]
use std::pin::Pin;
#[cfg(feature = "server")]
use std::task::{Context, Poll};

use crate::escaped::{Escaped, EscapedText};

/// The error of code that has panicked. The panic hook has reported the panic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panicked;

/// Runs code of the application, and catches its panic. After a panic, the caller must not use values that the code
/// has changed.
pub(crate) fn attempt<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        drop_payload(payload);
        Panicked
    })
}

/// As [`attempt`], with the text of the panic.
pub(crate) fn attempt_told<T>(run: impl FnOnce() -> T) -> Result<T, PanicText> {
    catch_unwind(AssertUnwindSafe(run)).map_err(PanicText::of)
}

/// The text of a panic, escaped; `None` if its payload is no text.
#[derive(Debug)]
pub(crate) struct PanicText(pub(crate) Option<EscapedText>);

impl PanicText {
    /// Takes the payload of a panic.
    pub(crate) fn of(payload: Box<dyn Any + Send>) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| Escaped(*text).to_text());
        let text = text.or_else(|| Some(Escaped(payload.downcast_ref::<String>()?).to_text()));
        #[cfg(feature = "testing")]
        let text = text.or_else(|| {
            payload.downcast_ref::<Noted>()?.0.as_ref().map(|it| Escaped(it).to_text())
        });
        drop_payload(payload);
        Self(text)
    }
}

/// The payload of a panic that a test is told of already, with its text if it has one.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub(crate) struct Noted(pub(crate) Option<String>);

/// The destructor of a payload is foreign code, too. If it panics, its own payload is leaked.
fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}

/// Writes a record to the log. The logger is code of the application, so its panic is caught.
pub(crate) fn tell(record: impl FnOnce()) {
    let _ = attempt(record);
}

/// Drops a value of the application, and catches a panic of its destructor.
#[cfg(any(feature = "client", feature = "rooms"))]
pub(crate) fn discard<T>(value: T) {
    let _ = attempt(|| drop(value));
}

/// A value of the application. A panic of its destructor is caught when this is dropped.
#[cfg(feature = "rooms")]
#[derive(Debug)]
pub(crate) struct Contained<T>(Option<T>);

#[cfg(feature = "rooms")]
impl<T> Contained<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Calls `act` with the value; an error if it panics. After a panic the value is gone.
    pub(crate) fn with<R>(&mut self, act: impl FnOnce(&mut T) -> R) -> Result<R, PanicText> {
        let value = self.0.as_mut().ok_or(PanicText(None))?;
        let outcome = attempt_told(|| act(value));
        if outcome.is_err() {
            discard(self.0.take());
        }
        outcome
    }
}

#[cfg(feature = "rooms")]
impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        discard(self.0.take());
    }
}

/// Contains panics only while the future is dropped. The future has to contain the panics of its polls itself.
#[cfg(feature = "server")]
impl<F: Future + Unpin> Future for Contained<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().map_or(Poll::Pending, |future| Pin::new(future).poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// A value whose destructor panics with another such value, this number of times.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if let Some(next) = self.0.checked_sub(1) {
                panic_any(Self(next));
            }
        }
    }

    #[test]
    fn a_panic_ends_here_and_so_does_a_panic_of_its_payload() {
        assert_eq!(attempt(|| 1).unwrap(), 1);
        for bombs in 0..4 {
            attempt(|| panic_any(Bomb(bombs))).unwrap_err();
            assert_eq!(attempt_told(|| panic_any(Bomb(bombs))).unwrap_err().0, None);
        }
        assert!(!std::thread::panicking());
    }

    #[test]
    fn the_text_of_a_panic_is_told_and_escaped() {
        let told = |panic: fn()| attempt_told(panic).unwrap_err().0.map(|text| text.to_string());
        assert_eq!(told(|| panic!("on\npurpose")).as_deref(), Some("on\\npurpose"));
        assert_eq!(told(|| panic!("{}", "\x1b[31m")).as_deref(), Some("\\u{1b}[31m"));
        assert_eq!(told(|| panic_any(7)), None);
    }

    #[test]
    fn a_destructor_that_panics_while_another_panic_unwinds_ends_here() {
        struct Discards(Option<Bomb>);

        impl Drop for Discards {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
                attempt(|| drop(self.0.take())).unwrap_err();
            }
        }

        let outcome = attempt(|| {
            let _discards = Discards(Some(Bomb(1)));
            panic!("on purpose");
        });
        outcome.unwrap_err();
    }
}
