//! Buffers that belong to a thread, so that idle connections own none.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::BytesMut;

use crate::ws::proto::{Frame, Run};

/// Bytes read from a stream at once.
const READ_SIZE: usize = 64 << 10;

/// Largest write buffer, in bytes, that is kept for the next connection.
const MAX_WRITE_KEPT: usize = 128 << 10;

/// Bytes of further write buffers, for as many connections: a broadcast needs one for each member
/// before the first of them is written.
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
pub(super) fn with_read_buffer<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    // Taken out rather than borrowed: a stream may itself run over a connection of ours. One that panics
    // takes the buffer with it, and the next read has another.
    let mut buf = with(|scratch| std::mem::take(&mut scratch.read)).unwrap_or_default();
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
pub(super) fn put_run(run: Run) {
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
