//! Random numbers that nobody can predict, from the operating system's generator: masking keys
//! ([RFC 6455 §5.3]), the payloads of heartbeats, when those are sent, and pauses.
//!
//! [RFC 6455 §5.3]: https://www.rfc-editor.org/rfc/rfc6455#section-5.3

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use crate::escaped::Escaped;
use crate::foreign::attempt;

/// Random bytes fetched at once: one system call for 256 masking keys.
const POOL: usize = 1 << 10;

thread_local! {
    static UNUSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A few bytes, at most as many as are fetched at once.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let unused = UNUSED.try_with(|unused| take(&mut unused.borrow_mut()));
    unused.ok().flatten().unwrap_or_else(|| {
        let tell = |error: &getrandom::Error| {
            let error = Escaped(error);
            log::error!(error:%; "no random numbers from the operating system: {error}");
        };
        fetch(getrandom::fill, tell)
    })
}

/// Takes bytes off the end; `None` if there are not as many.
fn take<const N: usize>(unused: &mut Vec<u8>) -> Option<[u8; N]> {
    let bytes = *unused.last_chunk::<N>()?;
    unused.truncate(unused.len().saturating_sub(N));
    Some(bytes)
}

/// Fetches as many as there is room for, and takes the first.
#[cold]
fn fetch<const N: usize, E>(
    fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    tell: impl FnOnce(&E),
) -> [u8; N] {
    let mut fresh = vec![0; POOL];
    let filled = fill(&mut fresh);
    if filled.is_err() {
        fill_from_hashes(&mut fresh);
    }
    let bytes = take(&mut fresh).unwrap_or([0; N]);
    // A thread that ends keeps none.
    let _ = UNUSED.try_with(|unused| unused.replace(fresh));
    if let Err(error) = filled {
        // Last: the logger is foreign, and may need some of them.
        let _ = attempt(|| tell(&error));
    }
    bytes
}

/// A number of 16 bits.
pub(super) fn number() -> u16 {
    u16::from_ne_bytes(bytes())
}

/// The standard library's hash keys, which were random when the process began.
fn fill_from_hashes(pool: &mut [u8]) {
    let keys = RandomState::new();
    for (number, bytes) in pool.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&keys.hash_one(number).to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logger_that_is_told_of_a_failure_may_take_some_and_panic() {
        for panics in [false, true] {
            let mut seen = Vec::new();
            let first: [u8; 4] = fetch(
                |_| Err("none"),
                |_| {
                    seen.push(bytes::<4>());
                    assert!(!panics, "on purpose");
                },
            );
            seen.extend([first, bytes()]);
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 3);
        }
    }
}
