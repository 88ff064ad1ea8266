//! Random numbers that nobody can predict, from the operating system's generator: masking keys
//! ([RFC 6455 §5.3]), the payloads of heartbeats, when those are sent, and pauses.
//!
//! [RFC 6455 §5.3]: https://www.rfc-editor.org/rfc/rfc6455#section-5.3

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use crate::escaped::Escaped;

/// Random bytes fetched at once: one system call for 256 masking keys.
const POOL: usize = 1 << 10;

thread_local! {
    static UNUSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A few bytes, at most as many as are fetched at once.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let (bytes, error) = UNUSED.with_borrow_mut(|pool| {
        let mut error = None;
        if pool.len() < N {
            pool.resize(POOL, 0);
            error = getrandom::fill(pool).err();
            if error.is_some() {
                fill_from_hashes(pool);
            }
        }
        let bytes = pool.last_chunk::<N>().copied().unwrap_or([0; N]);
        pool.truncate(pool.len().saturating_sub(N));
        (bytes, error)
    });
    if let Some(error) = error {
        tell(error);
    }
    bytes
}

/// Not while the pool is borrowed: a logger may want random numbers as well.
#[cold]
fn tell(error: getrandom::Error) {
    let error = Escaped(error);
    log::error!(error:%; "no random numbers from the operating system: {error}");
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
