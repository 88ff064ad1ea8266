//! A peer: bytes that it says, and what it knows of them.

use std::collections::VecDeque;

use tidewire::frame::Role;

use super::choices::Choices;
use super::pipe::{End, Line};
use super::seen::ping;

/// "Hello" by RFC 7692 §7.2.3.1.
const DEFLATED: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

#[expect(clippy::struct_excessive_bools, reason = "facts that are noted one by one")]
pub(super) struct Peer {
    pub(super) line: Line,
    /// The role of the connection; its peer masks what it sends to a server.
    role: Role,
    deflates: bool,
    /// Bytes that are said and have not arrived.
    unsent: VecDeque<u8>,
    /// Bytes ever said.
    len: u64,
    /// What was said up to a close frame, or to bytes that are wrong, and where each frame ends.
    said: Vec<(Said, u64)>,
    /// Whether nothing that follows counts.
    is_over: bool,
    /// Where the bytes begin that are wrong.
    wrong_from: Option<u64>,
    /// Whether the last of a message in fragments is still to come.
    is_inside: bool,
    pings: u32,
    /// Whether the stream has ended for the peer.
    has_ended: bool,
}

/// A frame of the peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Said {
    Ping(u32),
    Pong,
    /// The last frame of a message.
    Message,
    /// Another frame of one.
    Fragment,
    Close,
}

/// What the connection has read of all that.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Whole messages.
    pub(super) messages: usize,
    /// Whether there is a part of a frame, or of a message, after them.
    pub(super) is_inside: bool,
    /// The number of the latest ping.
    pub(super) ping: Option<u32>,
    pub(super) has_closed: bool,
    /// Whether bytes that are wrong have been read.
    pub(super) is_wrong: bool,
}

impl Peer {
    pub(super) fn new(line: Line, role: Role, deflates: bool) -> Self {
        Self {
            line,
            role,
            deflates,
            unsent: VecDeque::new(),
            len: 0,
            said: vec![],
            is_over: false,
            wrong_from: None,
            is_inside: false,
            pings: 0,
            has_ended: false,
        }
    }

    /// Says something, of which all or nothing arrives at once.
    pub(super) fn speak(&mut self, choices: &mut Choices<'_>) -> String {
        let (kind, at_once) = (choices.below(16), !choices.one_in(3));
        let what = match kind {
            0..=2 => self.data(true, choices.below(40)),
            3 => self.data(true, choices.pick([200, 3_000, 20_000])),
            4 | 5 => self.data(choices.one_in(2), choices.pick([0, 10, 100])),
            6 | 7 => self.ping(choices.pick([5, 60])),
            8..=10 => {
                let count = 2 + choices.below(40);
                (0..count).for_each(|_| _ = self.ping(5));
                format!("{count} pings")
            }
            11 => self.frame(Said::Pong, 0x8a, b"unasked"),
            12 | 13 => self.close(choices),
            14 if self.deflates && !self.is_inside => self.frame(Said::Message, 0xc2, DEFLATED),
            14 => self.data(true, 5),
            _ => self.wrong(choices),
        };
        if at_once {
            self.deliver(usize::MAX);
        }
        format!("says {what}{}", if at_once { "" } else { ", later" })
    }

    fn data(&mut self, fin: bool, len: usize) -> String {
        let opcode = if self.is_inside { 0 } else { 2 };
        self.is_inside = !fin;
        let said = if fin { Said::Message } else { Said::Fragment };
        self.frame(said, u8::from(fin) << 7 | opcode, &vec![b'd'; len])
    }

    fn ping(&mut self, len: usize) -> String {
        self.pings += 1;
        let payload = ping(self.pings, len);
        self.frame(Said::Ping(self.pings), 0x89, &payload)
    }

    /// Answers a ping of the connection.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        self.frame(Said::Pong, 0x8a, payload);
        self.deliver(usize::MAX);
    }

    /// Sends a close frame.
    pub(super) fn close(&mut self, choices: &mut Choices<'_>) -> String {
        let what =
            self.frame(Said::Close, 0x88, choices.pick([&[3, 232], &[], &b"\x0f\xa0bye"[..]]));
        self.is_over = true;
        what
    }

    /// Sends what no peer may: an opcode that there is none of, or a frame that is masked and should not
    /// be.
    fn wrong(&mut self, choices: &mut Choices<'_>) -> String {
        if !self.is_over {
            self.wrong_from = Some(self.len);
        }
        self.is_over = true;
        self.say(choices.pick([&[0x83, 0x00, 0, 0, 0, 0], &[0xff; 6]]));
        "what is wrong".into()
    }

    fn frame(&mut self, said: Said, head: u8, payload: &[u8]) -> String {
        let mask = if self.role == Role::Server { 0x80 } else { 0 };
        match u16::try_from(payload.len()).expect("no peer says more at once") {
            len @ 0..126 => self.say(&[head, mask | len.to_be_bytes()[1]]),
            len => {
                self.say(&[head, mask | 0x7e]);
                self.say(&len.to_be_bytes());
            }
        }
        if mask != 0 {
            // A key of zeros changes nothing.
            self.say(&[0; 4]);
        }
        self.say(payload);
        if !self.is_over {
            self.said.push((said, self.len));
        }
        format!("{said:?} of {} bytes", payload.len())
    }

    fn say(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.unsent.extend(bytes);
    }

    /// So many of the bytes that were said arrive.
    pub(super) fn deliver(&mut self, most: usize) {
        let len = most.min(self.unsent.len());
        let bytes = self.unsent.drain(..len);
        if !self.has_ended && len > 0 {
            self.line.deliver(bytes);
        }
    }

    /// Ends the stream, perhaps in the middle of what was said.
    pub(super) fn end(&mut self, end: End, is_cut: bool) {
        if !is_cut {
            self.deliver(usize::MAX);
        }
        self.has_ended = true;
        self.line.end(end);
    }

    /// The most that it can cost to keep all that was said: a frame costs more than its bytes.
    pub(super) fn cost(&self) -> u64 {
        self.len + 100 * (self.said.len() as u64 + 1)
    }

    /// What the connection has read of what was said.
    pub(super) fn read(&self) -> Read {
        let (mut is, mut end) = (Read::default(), 0);
        let read = self.line.wire().read;
        for (said, until) in self.said.iter().take_while(|(_, until)| *until <= read) {
            end = *until;
            match said {
                Said::Ping(number) => is.ping = Some(*number),
                Said::Pong => {}
                Said::Message => (is.messages, is.is_inside) = (is.messages + 1, false),
                Said::Fragment => is.is_inside = true,
                Said::Close => is.has_closed = true,
            }
        }
        is.is_inside |= read > end;
        is.is_wrong = self.wrong_from.is_some_and(|from| read > from);
        is
    }
}
