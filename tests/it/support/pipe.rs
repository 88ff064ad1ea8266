//! The test kit's stream in memory, at the pace of a test: slow, narrow and unreliable.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::kit::{Flow, Pace, Way};
use super::rng::Rng;

// The tests run without the feature of the test kit as well.
#[expect(dead_code, reason = "what a line of the test kit does to its connections")]
#[path = "../../../src/testing/pipe.rs"]
mod kit;

/// How a stream treats the side under test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knobs {
    /// Bytes that one read delivers, at most.
    pub(crate) read: usize,
    /// Bytes that one write takes, at most.
    pub(crate) write: usize,
    /// Bytes on their way to the peer, beyond which writes wait for it to read.
    pub(crate) in_flight: usize,
    pub(crate) stutter: Stutter,
}

/// When a stream that could go on lets its caller wait all the same.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stutter {
    Never,
    /// Every other call.
    Steady,
    /// As the seed wills, and so do the sizes of reads and writes.
    Random(u64),
}

impl Knobs {
    /// A stream that takes everything.
    pub(crate) const WIDE: Self = Self {
        read: usize::MAX,
        write: usize::MAX,
        in_flight: usize::MAX,
        stutter: Stutter::Never,
    };
}

impl Default for Knobs {
    fn default() -> Self {
        Self::WIDE
    }
}

/// Two ends of a stream: the first obeys the knobs, the second does as it is told.
pub(crate) fn pipe(knobs: Knobs) -> (End, End) {
    let [ours, theirs] = [(); 2].map(|()| Arc::new(Moved::default()));
    let near = Stuttering::new(knobs, &ours, &theirs);
    let far = Stuttering::new(Knobs::WIDE, &theirs, &ours);
    kit::pipe(near, far, &Flow::new(knobs.in_flight), &Flow::new(usize::MAX))
}

pub(crate) type End = kit::End<Stuttering>;

impl End {
    /// Cuts the stream: whoever uses it next learns that it was reset, whatever is on its way.
    pub(crate) fn reset(&self) {
        self.wire().reset();
    }

    /// Writes of the other side so far.
    pub(crate) fn writes(&self) -> usize {
        self.pace.by_other.writes.load(Ordering::SeqCst)
    }

    /// Bytes that the other side has written and this one has not read.
    pub(crate) fn arrived(&self) -> usize {
        Moved::on_their_way(&self.pace.by_other, &self.pace.by_this)
    }

    /// Bytes that this side has written and the other has not read.
    pub(crate) fn unread(&self) -> usize {
        Moved::on_their_way(&self.pace.by_this, &self.pace.by_other)
    }
}

/// What one side has moved.
#[derive(Debug, Default)]
struct Moved {
    read: AtomicUsize,
    written: AtomicUsize,
    writes: AtomicUsize,
}

impl Moved {
    fn on_their_way(writer: &Self, reader: &Self) -> usize {
        // Read first: what is read meanwhile was written before.
        let read = reader.read.load(Ordering::SeqCst);
        writer.written.load(Ordering::SeqCst) - read
    }
}

/// The pace that the knobs say.
#[derive(Debug)]
pub(crate) struct Stuttering {
    knobs: Knobs,
    rng: Rng,
    /// Whether the next read, or write, of a steady stutter goes through.
    goes_on: [bool; 2],
    by_this: Arc<Moved>,
    by_other: Arc<Moved>,
}

impl Stuttering {
    fn new(knobs: Knobs, by_this: &Arc<Moved>, by_other: &Arc<Moved>) -> Self {
        let seed = if let Stutter::Random(seed) = knobs.stutter { seed } else { 0 };
        let (by_this, by_other) = (Arc::clone(by_this), Arc::clone(by_other));
        Self { knobs, rng: Rng::new(seed), goes_on: [false; 2], by_this, by_other }
    }
}

impl Pace for Stuttering {
    fn most(&mut self, way: Way) -> Option<usize> {
        let most = match way {
            Way::Read => self.knobs.read,
            Way::Write => self.knobs.write,
        };
        match self.knobs.stutter {
            Stutter::Never => Some(most),
            Stutter::Steady => {
                let goes_on = &mut self.goes_on[way as usize];
                *goes_on = !*goes_on;
                if *goes_on { None } else { Some(most) }
            }
            Stutter::Random(_) => {
                if self.rng.below(3) == 0 {
                    return None;
                }
                let fewer = 1 + self.rng.below(64);
                Some(if self.rng.below(3) == 0 { fewer.min(most) } else { most })
            }
        }
    }

    fn moved(&mut self, way: Way, len: usize) {
        match way {
            Way::Read => self.by_this.read.fetch_add(len, Ordering::SeqCst),
            Way::Write => {
                self.by_this.writes.fetch_add(1, Ordering::SeqCst);
                self.by_this.written.fetch_add(len, Ordering::SeqCst)
            }
        };
    }
}
