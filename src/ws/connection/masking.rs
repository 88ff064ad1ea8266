//! Masking keys of a client, from the operating system's generator ([RFC 6455 §5.3]).
//!
//! [RFC 6455 §5.3]: https://www.rfc-editor.org/rfc/rfc6455#section-5.3

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

/// Random bytes fetched at once: one system call for 256 frames.
const POOL: usize = 1 << 10;

thread_local! {
    static KEYS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A key that nobody can predict.
pub(super) fn key() -> [u8; 4] {
    KEYS.with_borrow_mut(|pool| {
        if pool.len() < 4 {
            pool.resize(POOL, 0);
            if let Err(error) = getrandom::fill(pool) {
                log::error!("no random numbers for masking keys: {error}");
                fill_from_hashes(pool);
            }
        }
        let key = pool.last_chunk::<4>().copied().unwrap_or_default();
        pool.truncate(pool.len() - 4);
        key
    })
}

/// The standard library's hash keys, which were random when the process began.
fn fill_from_hashes(pool: &mut [u8]) {
    let keys = RandomState::new();
    for (number, bytes) in pool.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&keys.hash_one(number).to_ne_bytes());
    }
}
