//! The history of a room: its latest messages, each with an offset, and the positions that clients keep.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::connection::PreparedMessage;

/// How many messages a room keeps for those who come back, and for how long.
///
/// A room with a history gives each broadcast an offset. A client that has lost its connection brings the
/// [`Position`] that it had, and [`Room::join_from`](crate::Room::join_from) sends it what it has missed, or says that this
/// is not possible.
///
/// ```
/// use std::time::Duration;
/// use tidewire::Hub;
/// use tidewire::rooms::{History, RoomOptions};
///
/// let history = History::default().messages(500).age(Duration::from_secs(600));
/// let hub: Hub = Hub::with_options(RoomOptions::default().history(history));
/// # let _ = hub;
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct History {
    messages: usize,
    bytes: usize,
    age: Duration,
    replay: usize,
}

impl History {
    /// The close code of a connection whose client has come back over another: 4409, of those that applications choose (RFC
    /// 6455 §7.4.2).
    pub const RESUMED_ELSEWHERE: u16 = 4409;

    /// Messages that are kept. Default 100; at least one.
    #[must_use]
    pub fn messages(mut self, max: usize) -> Self {
        self.messages = max.max(1);
        self
    }

    /// Bytes that are kept, as payloads. Default 1 MiB. A longer message has an offset, and is not kept: who has
    /// missed it is not recovered.
    #[must_use]
    pub fn bytes(mut self, max: usize) -> Self {
        self.bytes = max;
        self
    }

    /// How long a message is kept. Default 5 min.
    ///
    /// Rooms that are empty take memory for that long. Where strangers choose the names of rooms, limit how many they may
    /// open, or keep less: the bounds are for each room, and there is none for all of them.
    ///
    /// A room whose members have all left lasts twice as long after its latest message, so that the last one to lose its
    /// connection finds it again. After that it begins anew, and each position of before is lost.
    #[must_use]
    pub fn age(mut self, max: Duration) -> Self {
        self.age = max;
        self
    }

    /// Messages that are replayed to one member at once. Default: all that are kept. Who has missed more is not recovered.
    #[must_use]
    pub fn replay(mut self, max: usize) -> Self {
        self.replay = max;
        self
    }

    /// How long after its latest message an empty room is kept.
    pub(super) fn keeps_room_for(&self) -> Duration {
        self.age.saturating_mul(2)
    }
}

impl Default for History {
    fn default() -> Self {
        Self { messages: 100, bytes: 1 << 20, age: Duration::from_secs(5 * 60), replay: usize::MAX }
    }
}

/// A place in the messages of a room: behind one of them, or before the first.
///
/// As text it is opaque, 33 or 50 hexadecimal digits and dots, to be kept by a client and brought back as it is. It is of one
/// room, and of one life of it: with any other, or after the room has begun anew, it is lost. Whether a client may join is
/// the application's to decide: a position says what was missed, and no more.
///
/// The one of [`Membership::position`](crate::rooms::Membership::position) names its owner, and who brings it closes the
/// owner's connection. So it is a secret of that client. In a URL, proxies may log it; records of this crate have no query.
///
/// ```
/// use tidewire::Hub;
/// use tidewire::rooms::{History, Position, RoomOptions};
///
/// let hub: Hub = Hub::with_options(RoomOptions::default().history(History::default()));
/// let room = hub.room("news");
/// let before = room.position().unwrap();
/// room.broadcast("it rains");
/// assert_ne!(room.position(), Some(before));
///
/// let text = before.to_string();
/// assert_eq!(text.parse::<Position>()?, before);
/// # Ok::<(), tidewire::rooms::InvalidPosition>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Position {
    /// A random number of the life of the room.
    pub(super) epoch: u64,
    /// The offset of the latest message before it; 0 before the first.
    pub(super) offset: u64,
    /// A random number of the membership that it was given to; 0 for none.
    pub(super) member: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{:016x}", self.epoch, self.offset)?;
        if self.member != 0 {
            write!(f, ".{:016x}", self.member)?;
        }
        Ok(())
    }
}

/// The error of a text that is no [`Position`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InvalidPosition;

impl fmt::Display for InvalidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is not a position in a room")
    }
}

impl Error for InvalidPosition {}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        /// Digits of a number, which are all there.
        const DIGITS: usize = 16;

        // A text of any length comes from a stranger, and is not read beyond its third number.
        let mut parts = text.splitn(4, '.').map(|part| {
            let is_number =
                part.len() == DIGITS && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = is_number.then(|| u64::from_str_radix(part, 16).ok()).flatten();
            number.ok_or(InvalidPosition)
        });
        let (epoch, offset) = (parts.next().transpose()?, parts.next().transpose()?);
        let (member, rest) = (parts.next().transpose()?, parts.next());
        match (epoch, offset, rest) {
            (Some(epoch), Some(offset), None) => {
                Ok(Self { epoch, offset, member: member.unwrap_or_default() })
            }
            _ => Err(InvalidPosition),
        }
    }
}

/// The messages that a room keeps. The lock of the roster guards it.
pub(super) struct Log {
    options: History,
    epoch: u64,
    /// The offset of the latest message.
    top: u64,
    /// The latest messages, without a gap: the last one has the offset `top`.
    kept: VecDeque<Kept>,
    bytes: usize,
    latest: Option<Instant>,
}

struct Kept {
    /// `None` once it is forgotten.
    message: Option<PreparedMessage>,
    len: usize,
    since: Instant,
}

impl Log {
    pub(super) fn new(options: History) -> Self {
        Self { options, epoch: random(), top: 0, kept: VecDeque::new(), bytes: 0, latest: None }
    }

    /// The place behind the latest message.
    pub(super) fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.top, member: 0 }
    }

    pub(super) fn options(&self) -> &History {
        &self.options
    }

    /// When the latest message came; `None` before the first.
    pub(super) fn latest(&self) -> Option<Instant> {
        self.latest
    }

    /// Keeps a message, and gives it the next offset. What has to go is moved to `gone`, to be dropped without a lock: a
    /// payload may have a destructor of the application.
    pub(super) fn push(
        &mut self,
        message: &PreparedMessage,
        now: Instant,
        gone: &mut Vec<PreparedMessage>,
    ) {
        // 2^64 messages are not reached.
        self.top = self.top.saturating_add(1);
        self.latest = Some(now);
        let len = message.len();
        self.bytes = self.bytes.saturating_add(len);
        self.kept.push_back(Kept { message: Some(message.clone()), len, since: now });
        while self.kept.len() > self.options.messages || self.bytes > self.options.bytes {
            if !self.pop(gone) {
                break;
            }
        }
        self.trim(now, gone);
    }

    /// Lets go of what is too old.
    pub(super) fn trim(&mut self, now: Instant, gone: &mut Vec<PreparedMessage>) {
        let age = self.options.age;
        let is_old =
            |kept: &Kept| now.checked_duration_since(kept.since).is_some_and(|since| since >= age);
        while self.kept.front().is_some_and(is_old) {
            self.pop(gone);
        }
    }

    fn pop(&mut self, gone: &mut Vec<PreparedMessage>) -> bool {
        let Some(Kept { message, len, .. }) = self.kept.pop_front() else { return false };
        self.bytes = self.bytes.saturating_sub(len);
        gone.extend(message);
        true
    }

    /// The messages behind `position`, if all of them are kept, and not too many to be replayed.
    pub(super) fn after(&self, position: Position) -> Option<Vec<PreparedMessage>> {
        let missed =
            self.top.checked_sub(position.offset).filter(|_| position.epoch == self.epoch)?;
        let missed = usize::try_from(missed).ok()?;
        (missed <= self.kept.len() && missed <= self.options.replay).then(|| self.last(missed))
    }

    /// The latest messages, at most so many.
    pub(super) fn last(&self, count: usize) -> Vec<PreparedMessage> {
        let skipped = self.kept.len().saturating_sub(count.min(self.options.replay));
        self.kept.iter().skip(skipped).filter_map(|kept| kept.message.clone()).collect()
    }

    /// Removes the message before `position`; `None` if it is not kept.
    pub(super) fn forget(&mut self, position: Position) -> Option<PreparedMessage> {
        let behind =
            self.top.checked_sub(position.offset).filter(|_| position.epoch == self.epoch)?;
        let index = self.kept.len().checked_sub(usize::try_from(behind).ok()?)?.checked_sub(1)?;
        let kept = self.kept.get_mut(index)?;
        self.bytes = self.bytes.saturating_sub(kept.len);
        kept.len = 0;
        kept.message.take()
    }
}

/// A random number that is not 0.
pub(super) fn random() -> u64 {
    let from_system = getrandom::u64().unwrap_or_else(|_| RandomState::new().hash_one(()));
    from_system.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(options: History) -> Log {
        Log::new(options)
    }

    fn push(log: &mut Log, text: &str) -> Position {
        push_at(log, text, Instant::now()).0
    }

    fn push_at(log: &mut Log, text: &str, now: Instant) -> (Position, usize) {
        let mut gone = Vec::new();
        log.push(&PreparedMessage::new(text), now, &mut gone);
        (log.position(), gone.len())
    }

    fn texts(messages: Option<Vec<PreparedMessage>>) -> Option<Vec<String>> {
        let texts = |it: PreparedMessage| it.message().into_text().unwrap();
        Some(messages?.into_iter().map(texts).collect())
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is compared with what may be lost")]
    fn of(texts: &[&str]) -> Option<Vec<String>> {
        Some(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn what_is_behind_a_position_is_all_that_came_after_it_or_nothing() {
        let mut log = log(History::default().messages(3));
        let start = log.position();
        assert_eq!(texts(log.after(start)), of(&[]));
        let positions = ["a", "b", "c"].map(|text| push(&mut log, text));
        assert_eq!(texts(log.after(start)), of(&["a", "b", "c"]));
        assert_eq!(texts(log.after(positions[1])), of(&["c"]));
        assert_eq!(texts(log.after(positions[2])), of(&[]));
        push(&mut log, "d");
        assert_eq!(texts(log.after(start)), None);
        assert_eq!(texts(log.after(positions[0])), of(&["b", "c", "d"]));
        assert_eq!(texts(Some(log.last(2))), of(&["c", "d"]));
        assert_eq!(texts(Some(log.last(9))), of(&["b", "c", "d"]));
    }

    #[test]
    fn a_position_of_another_life_or_of_the_future_is_lost() {
        let (mut log, other) = (log(History::default()), log(History::default()));
        push(&mut log, "a");
        assert_eq!(texts(log.after(other.position())), None);
        let top = log.position();
        assert_eq!(texts(log.after(Position { offset: top.offset + 1, ..top })), None);
        assert_eq!(texts(log.after(Position { offset: u64::MAX, ..top })), None);
    }

    #[test]
    fn bytes_age_and_the_length_of_a_replay_are_bounded() {
        let mut log = log(History::default().bytes(5).replay(2).age(Duration::from_secs(10)));
        let (start, now) = (log.position(), Instant::now());
        assert_eq!(push_at(&mut log, "abc", now).1, 0);
        assert_eq!(push_at(&mut log, "de", now).1, 0);
        assert_eq!(texts(log.after(start)), of(&["abc", "de"]));
        let (third, gone) = push_at(&mut log, "f", now);
        assert_eq!((gone, texts(log.after(start))), (1, None));
        // One that is longer than all that may be kept.
        let (fourth, gone) = push_at(&mut log, "too long", now);
        assert_eq!((gone, log.bytes, texts(log.after(third))), (3, 0, None));
        assert_eq!(texts(log.after(fourth)), of(&[]));
        for text in ["x", "y", "z"] {
            push_at(&mut log, text, now);
        }
        // Three are more than are replayed at once.
        assert_eq!(texts(log.after(fourth)), None);
        let mut gone = Vec::new();
        log.trim(now + Duration::from_secs(9), &mut gone);
        assert_eq!(gone.len(), 0);
        log.trim(now + Duration::from_secs(10), &mut gone);
        assert_eq!((gone.len(), log.bytes), (3, 0));
    }

    #[test]
    fn a_message_that_is_forgotten_is_left_out_of_replays_and_its_offset_stays() {
        let mut log = log(History::default());
        let start = log.position();
        let positions = ["a", "b", "c"].map(|text| push(&mut log, text));
        assert!(log.forget(positions[1]).is_some());
        assert!(log.forget(positions[1]).is_none());
        assert!(log.forget(start).is_none());
        assert!(log.forget(Position { offset: 9, ..start }).is_none());
        assert!(log.forget(Position { epoch: 0, ..positions[0] }).is_none());
        assert_eq!((texts(log.after(start)), log.bytes), (of(&["a", "c"]), 2));
    }

    #[test]
    fn a_position_is_read_as_it_was_written_and_nothing_else_is() {
        let number = 0x0123_4567_89ab_cdef;
        for member in [0, 1, u64::MAX] {
            let position = Position { epoch: number, offset: u64::MAX, member };
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        let number = "0123456789abcdef";
        let long = "0".repeat(1 << 16);
        for text in [
            "",
            ".",
            number,
            &format!("{number}."),
            &format!("{number}.{number}."),
            &format!("{number}.{number}.{number}.{number}"),
            &format!("{number}.+123456789abcdef"),
            &format!("{number}.12 3456789abcdef"),
            &format!("{number}.{number}é"),
            &format!("{number}.{long}"),
            &long,
        ] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text:.40}");
        }
    }
}
