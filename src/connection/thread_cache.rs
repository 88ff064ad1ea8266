//! Buffers and random numbers that belong to a thread, so that idle connections own none.
//!
//! The random numbers are those of the operating system, which no peer can predict: masking keys
//! ([RFC 6455 §5.3]), the payloads of heartbeats, when those are sent, and pauses.
//!
//! [RFC 6455 §5.3]: https://www.rfc-editor.org/rfc/rfc6455#section-5.3

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use bytes::BytesMut;

use crate::escaped::Escaped;
use crate::foreign::attempt;
use crate::proto::{Frame, WireBatch};
use crate::records::record;

/// Bytes read from a stream at once: a message of 64 KiB with its header, of 14 bytes at most.
const READ_SIZE: usize = (64 << 10) + 14;

/// Largest write buffer, in bytes, that is kept for the next connection.
const MAX_WRITE_KEPT: usize = 128 << 10;

/// Bytes of spare write buffers kept per thread. A broadcast fills one per member before it writes any.
const MAX_SPARE: usize = 1 << 20;

/// Bytes of a new write buffer.
const WRITE_SIZE: usize = 512;

/// Largest queue, in frames, that is kept for the next connection.
const MAX_FRAMES_KEPT: usize = 1 << 10;

#[derive(Default)]
struct Scratch {
    read: Vec<u8>,
    write: Vec<u8>,
    spare: Spare,
    run: BytesMut,
    frames: VecDeque<Frame>,
}

/// Write buffers beside the one that is nearly always enough.
#[derive(Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    /// Their room.
    bytes: usize,
}

impl Spare {
    #[cold]
    fn take(&mut self) -> Vec<u8> {
        let Some(buf) = self.buffers.pop() else { return Vec::with_capacity(WRITE_SIZE) };
        self.bytes -= buf.capacity();
        buf
    }

    #[cold]
    fn put(&mut self, buf: Vec<u8>) {
        // A peer that reads slowly makes a buffer large. Such a one is not kept.
        let is_kept = buf.capacity() <= MAX_WRITE_KEPT;
        if is_kept && self.bytes + buf.capacity() <= MAX_SPARE {
            self.bytes += buf.capacity();
            self.buffers.push(buf);
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends the thread's read buffer to `f`.
pub(crate) fn with_read_buffer<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    // Taken out rather than borrowed: a stream may itself run over a connection of ours. One that panics
    // takes the buffer with it, and the next read has another.
    let mut buf = with(|scratch| std::mem::take(&mut scratch.read)).unwrap_or_default();
    // Filled once per thread, and not again: its length stays.
    buf.resize(READ_SIZE, 0);
    let result = f(&mut buf);
    with(|scratch| scratch.read = buf);
    result
}

/// An empty write buffer, which has room already.
pub(super) fn take_write_buffer() -> Vec<u8> {
    let kept = with(|scratch| match std::mem::take(&mut scratch.write) {
        buf if buf.capacity() > 0 => buf,
        _ => scratch.spare.take(),
    });
    kept.unwrap_or_default()
}

/// Gives a write buffer back.
pub(super) fn put_write_buffer(mut buf: Vec<u8>) {
    buf.clear();
    with(|scratch| {
        // The largest that may be kept is the next to be used.
        if (scratch.write.capacity()..=MAX_WRITE_KEPT).contains(&buf.capacity()) {
            std::mem::swap(&mut scratch.write, &mut buf);
        }
        if buf.capacity() > 0 {
            scratch.spare.put(buf);
        }
    });
}

/// A buffer for a run of messages, which may have room already.
pub(super) fn take_run() -> BytesMut {
    with(|scratch| std::mem::take(&mut scratch.run)).unwrap_or_default()
}

/// Gives the buffer of a run back, if it has one. Messages that still share its memory keep it: it is used again
/// when they are gone, and replaced before.
pub(super) fn put_run(run: WireBatch) {
    if let Some(buf) = run.into_buffer() {
        with(|scratch| scratch.run = buf);
    }
}

/// An empty queue of frames, which may have room already.
pub(super) fn take_frames() -> VecDeque<Frame> {
    with(|scratch| std::mem::take(&mut scratch.frames)).unwrap_or_default()
}

/// Gives a queue of frames back.
pub(super) fn put_frames(mut frames: VecDeque<Frame>) {
    // Not while the thread's buffers are borrowed: a payload may be the application's.
    frames.clear();
    with(|scratch| {
        if (scratch.frames.capacity()..=MAX_FRAMES_KEPT).contains(&frames.capacity()) {
            scratch.frames = frames;
        }
    });
}

/// `None` on a thread that ends, and drops what it has: it keeps no buffers any more.
#[inline]
fn with<R>(f: impl FnOnce(&mut Scratch) -> R) -> Option<R> {
    SCRATCH.try_with(|scratch| f(&mut scratch.borrow_mut())).ok()
}

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
            record!(error, "no random numbers from the operating system", error = error);
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
