//! Debts: what could be done now, and no event will bring about.
//!
//! Debts are found in two ways. Each task is polled for nothing: whatever it does then, an event should have
//! made it do before. And what the peer and the callers see is compared with what the RFC and the
//! documentation promise them.
//!
//! | debt | is owed when |
//! | --- | --- |
//! | `recv`, `recv_frame` | a message has been read, or the end is known |
//! | `send` | the stream takes bytes, or the connection has ended |
//! | `send_frame`, `ready` | the same, also inside a message in fragments |
//! | `flush` | the stream has taken all, or the connection has ended |
//! | `close`, `closed`, `run_heartbeat` | both close frames have passed, or the stream has ended |
//! | `message`, `ping` | the call that sent it has returned, and the stream would take it |
//! | `pong` | the latest ping that was read is unanswered (RFC 6455 §5.5.3), and the stream would take a pong |
//! | `close reply` | the peer's close frame was read (§5.5.1), and so was all before it, or `close_timeout` is over |
//! | `close frame` | a failure is known, and the peer is not told (§7.1.7) |
//! | `bytes` | a frame stands still in the middle, and the stream would take more |
//! | `flush of the stream` | the stream keeps bytes back that the peer has room for |
//! | `read` | bytes have arrived, and `read_ahead_size` or a call in `recv` has room for them |
//! | `end of the stream` | the closing handshake is complete, or a deadline has passed |
//! | `end of the task` | the world is over |
//! | `close timeout` | the peer has not answered the close frame for that long |
//! | `send timeout` | the peer has taken nothing for that long |
//! | `rest` | tasks wake each other, or time itself, without an end |

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::World;
use super::book::Kind;
use super::connection::{Connection, Driver};

/// How long a connection may linger after its closing handshake.
const LINGER: Duration = Duration::from_secs(1);

/// Whether each step is printed: `QUIESCENCE_TRACE=1`.
pub(super) fn traces() -> bool {
    static TRACES: OnceLock<bool> = OnceLock::new();
    *TRACES.get_or_init(|| std::env::var_os("QUIESCENCE_TRACE").is_some())
}

/// Kinds of debt that are passed over, to look for others: `QUIESCENCE_IGNORE="pong,closed"`.
fn is_ignored(kind: &str) -> bool {
    static IGNORED: OnceLock<String> = OnceLock::new();
    let ignored = IGNORED.get_or_init(|| std::env::var("QUIESCENCE_IGNORE").unwrap_or_default());
    ignored.split(',').any(|ignored| ignored == kind)
}

/// # Panics
///
/// Unless the kind is passed over.
pub(super) fn owe(kind: &str, debtor: &str, how: &str) {
    if traces() {
        eprintln!("owed: {kind}: {debtor}: {how}");
    }
    assert!(is_ignored(kind), "owed: {kind}: {debtor}: {how}");
}

/// What an observer sees of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are compared")]
struct Marks {
    frames: usize,
    bytes: u64,
    is_dirty: bool,
    read: u64,
    has_seen_end: bool,
    has_ended: bool,
    is_dropped: bool,
    calls: usize,
    received: usize,
}

/// When something was noticed first.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// The peer's close frame was read.
    closed: Option<Instant>,
    /// Ours was sent.
    has_closed: Option<Instant>,
    /// The peer has taken nothing since, of so many bytes, while a call waited for that.
    stalled: Option<(Instant, u64)>,
}

impl Past {
    /// Deadlines that have passed meanwhile begin again: tasks were not polled for a time.
    pub(super) fn forget(&mut self, now: Instant) {
        self.closed = self.closed.map(|_| now);
        self.has_closed = self.has_closed.map(|_| now);
        self.stalled = self.stalled.map(|(_, bytes)| (now, bytes));
    }
}

impl World<'_> {
    /// Lets all tasks go on until none can, and looks for debts.
    pub(super) fn judge(&mut self) {
        self.executor.settle();
        self.poll_for_nothing();
        let now = self.clock.now();
        self.connections.iter_mut().for_each(|connection| connection.judge(now));
    }

    fn poll_for_nothing(&self) {
        let mut before = self.marks();
        for task in self.executor.tasks() {
            if task.has_ended() {
                continue;
            }
            task.wake();
            self.executor.settle();
            let after = self.marks();
            for (index, connection) in self.connections.iter().enumerate() {
                let (before, after) = (&before[index], &after[index]);
                if before != after && !connection.has_fed(before, after) {
                    let kind = connection.debt(before, after);
                    let how = format!("when the {} was polled for nothing", task.name);
                    owe(&kind, &connection.name, &how);
                }
            }
            before = after;
        }
    }

    fn marks(&self) -> Vec<Marks> {
        self.connections.iter().map(Connection::marks).collect()
    }

    /// All has come to an end; what has not is owed.
    pub(super) fn judge_end(&self) {
        for connection in &self.connections {
            let open = connection.book.with(|entries| entries.open.values().copied().next());
            if let Some(kind) = open {
                owe(&kind.to_string(), &connection.name, "at the end");
            }
            if connection.task.as_ref().is_some_and(|task| !task.has_ended()) {
                owe("end of the task", &connection.name, "");
            }
            if !connection.line.wire().is_dropped {
                owe("end of the stream", &connection.name, "");
            }
        }
    }
}

impl Connection {
    fn marks(&self) -> Marks {
        let (calls, received) = self.book.with(|entries| (entries.ended.len(), entries.received));
        let wire = self.line.wire();
        Marks {
            frames: wire.seen.opcodes().count(),
            bytes: wire.seen.bytes,
            is_dirty: wire.is_dirty(),
            read: wire.read,
            has_seen_end: wire.has_seen_end,
            has_ended: wire.has_ended,
            is_dropped: wire.is_dropped,
            calls,
            received,
        }
    }

    /// The kind of the first thing that should have been done before.
    fn debt(&self, before: &Marks, after: &Marks) -> String {
        let wire = self.line.wire();
        if let Some(opcode) = wire.seen.opcodes().nth(before.frames) {
            return match opcode {
                8 if self.past.closed.is_some() => "close reply",
                8 => "close frame",
                9 => "ping",
                10 => "pong",
                _ => "message",
            }
            .into();
        }
        let call = self.book.with(|entries| entries.ended.get(before.calls).copied());
        if let Some(kind) = call {
            return kind.to_string();
        }
        let kind = if before.bytes != after.bytes {
            "bytes"
        } else if before.is_dirty && !after.is_dirty {
            "flush of the stream"
        } else if before.read != after.read || before.has_seen_end != after.has_seen_end {
            "read"
        } else {
            "end of the stream"
        };
        kind.into()
    }

    /// Whether a message was written that the `Sink` has taken and was not asked to flush, or the stream was
    /// found to have ended by that. Without a task such a message goes out with another call, or not at all.
    fn has_fed(&self, before: &Marks, after: &Marks) -> bool {
        let has_fed = self.book.with(|entries| entries.fed > 0);
        let has_tried = before.frames < after.frames || before.has_seen_end != after.has_seen_end;
        self.driver == Driver::Calls && has_fed && has_tried
    }

    fn judge(&mut self, now: Instant) {
        self.note(now);
        self.judge_waiters();
        self.judge_frames(now);
        self.judge_times(now);
    }

    /// Notes when things happened.
    fn note(&mut self, now: Instant) {
        let read = self.peer.read();
        let is_waiting = self.book.is_waiting_for(&[Kind::Flush]);
        let wire = self.line.wire();
        if read.has_closed {
            self.past.closed.get_or_insert(now);
        }
        if wire.seen.has_closed {
            self.past.has_closed.get_or_insert(now);
        }
        let bytes = wire.seen.bytes;
        let is_stalled = wire.is_full() && is_waiting;
        let stalled = self.past.stalled.filter(|(_, before)| is_stalled && *before == bytes);
        self.past.stalled = stalled.or(is_stalled.then_some((now, bytes)));
    }

    /// A call whose condition holds should have returned.
    fn judge_waiters(&self) {
        let read = self.peer.read();
        let wire = self.line.wire();
        let (is_over, is_full, is_inside) =
            (wire.has_seen_end || wire.is_dropped, wire.is_full(), wire.seen.is_inside);
        let is_closed = wire.seen.has_closed && read.has_closed;
        let has_closed = wire.seen.has_closed;
        drop(wire);
        let (open, received, is_mixed) = self.book.with(|entries| {
            let open: Vec<Kind> = entries.open.values().copied().collect();
            (open, entries.received, entries.is_mixed)
        });
        let has_task = self.task.is_some() && self.is_driven();
        let is_plain = !is_mixed && !read.is_wrong && !self.terms.is_rate_limited;
        for kind in open {
            // Once the connection closes, what still comes may be left out.
            let has_unread = is_plain && self.sender.is_open() && received < read.messages;
            let is_owed = is_over
                || match kind {
                    // Without a task, `recv` and `close` themselves see the stream to its end.
                    Kind::Recv | Kind::RecvFrame => has_unread || (is_closed && has_task),
                    Kind::Close => is_closed && has_task,
                    // A peer that broke the protocol is not waited for.
                    Kind::Closed => is_closed || (has_closed && read.is_wrong),
                    Kind::Heartbeat => is_closed,
                    // A message, and what was sent behind it, waits for the last fragment of another.
                    Kind::Flush | Kind::Send => !is_full && !is_inside,
                    Kind::SendFrame | Kind::Ready => !is_full,
                };
            if is_owed {
                let how = format!(
                    "over: {is_over}, full: {is_full}, closed: {is_closed}, {read:?}, \
                     {received} received"
                );
                owe(&kind.to_string(), &self.name, &how);
            }
        }
    }

    /// A frame that the stream would take should have been written.
    fn judge_frames(&self, now: Instant) {
        if !self.is_driven() {
            return;
        }
        let (read, is_asked_for) =
            (self.peer.read(), self.book.is_waiting_for(&[Kind::Recv, Kind::RecvFrame]));
        let (has_all, has_ended, sent, pings) = self.book.with(|entries| {
            // The caller has received all that came before, and has come back for more.
            let has_all = entries.received == read.messages && !entries.is_mixed && !read.is_inside;
            let has_asked = entries.has_asked || read.messages == 0;
            let has_all = entries.reads_messages && has_all && has_asked;
            (has_all, entries.has_ended, entries.sent, entries.pings)
        });
        let wire = self.line.wire();
        if wire.is_full() || wire.is_dropped || wire.has_seen_end {
            return;
        }
        let seen = &wire.seen;
        let owes = |kind, how: &str| owe(kind, &self.name, &format!("{how}; {read:?}, {seen:?}"));
        if wire.is_dirty() {
            owes("flush of the stream", "the peer has room");
        }
        if seen.has_closed {
            return;
        }
        if seen.messages < sent {
            owes("message", &format!("{sent} messages were sent"));
        }
        if seen.pings < pings {
            owes("ping", &format!("{pings} pings were sent"));
        }
        let announced = usize::try_from(self.announced()).unwrap_or(0);
        if !seen.is_inside && seen.messages < sent + announced {
            owes("message", &format!("{sent} were sent, and {announced} for all in the room"));
        }
        if read.is_wrong || self.terms.is_rate_limited {
            return;
        }
        // Whether all that the peer said is read, though messages be kept for a caller that does not ask.
        let is_read =
            is_asked_for || has_all || self.peer.cost() <= self.terms.read_ahead_size as u64;
        let is_late = self.past.closed.is_some_and(|then| now - then >= self.terms.close_timeout);
        if read.has_closed {
            if is_asked_for || has_all || has_ended || (is_read && is_late) {
                owes("close reply", &format!("late: {is_late}"));
            }
        } else if self.terms.auto_pong && is_read && seen.pong != read.ping {
            owes("pong", "the latest ping is not answered");
        }
    }

    /// A timeout that has passed should have ended the connection.
    fn judge_times(&self, now: Instant) {
        let wire = self.line.wire();
        if wire.is_dropped || !self.is_driven() {
            return;
        }
        let most = self.terms.close_timeout + LINGER;
        let has_closed = self.past.has_closed.filter(|_| self.driver != Driver::Calls);
        if has_closed.is_some_and(|then| now - then >= most) {
            owe("close timeout", &self.name, "");
        }
        if let (Some((then, _)), Some(timeout)) = (self.past.stalled, self.terms.send_timeout) {
            if now - then >= timeout {
                owe("send timeout", &self.name, "");
            }
        }
    }
}
