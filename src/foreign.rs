//! Code that the application has brought, run so that a panic in it ends nothing else.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The code has panicked, and the panic hook has told how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panicked;

/// Runs code of the application, after whose panic nothing is looked at that it has changed.
pub(crate) fn attempt<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        // Its destructor is foreign, too. What that panics with is left alone.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            mem::forget(second);
        }
        Panicked
    })
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// A value whose destructor panics, with another of its kind, so many times.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if let Some(next) = self.0.checked_sub(1) {
                panic_any(Self(next));
            }
        }
    }

    #[test]
    fn a_panic_ends_here_and_so_does_one_of_what_it_carries() {
        assert_eq!(attempt(|| 1).unwrap(), 1);
        for bombs in 0..4 {
            attempt(|| panic_any(Bomb(bombs))).unwrap_err();
        }
        assert!(!std::thread::panicking());
    }
}
