//! The same bytes, right and wrong, for a connection of ours and for one of async-tungstenite: they hear
//! the same messages and come to the same end, or [`DIFFERENCES`] says why not.
//!
//! A test that fails names its seed; `ONLY` repeats that one.

use async_tungstenite::tungstenite::protocol;
use futures::io::AsyncWriteExt;
use tidewire::frame::Role;
use tidewire::{Error, WebSocket, WebSocketOptions};

use crate::support::frames::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, masked, plain};
use crate::support::peer::{collect, within};
use crate::support::pipe::{End, Knobs, pipe};
use crate::support::rng::Rng;
use crate::support::tungstenite::{Ended, Heard, hear};

/// A seed to run alone.
const ONLY: Option<u64> = None;

const SEEDS: u64 = 6_000;

/// Limits of both.
const MESSAGE: usize = 2_000;
const FRAME: usize = 1_000;

/// A limit of ours: tungstenite has none.
const FRAGMENTS: usize = 6;

/// Something in which the two do not agree.
struct Difference {
    name: &'static str,
    reason: &'static str,
    is_it: fn(&Traffic, &Heard, &Heard) -> bool,
}

/// Each is looked for in this order, and has to be found.
const DIFFERENCES: [Difference; 6] = [
    Difference {
        name: "a length in more bytes than it needs",
        reason: "§5.2: the minimal number of bytes MUST be used. Tungstenite puts up with any",
        is_it: |traffic, ours, _| traffic.has_long_length && ours.end == Ended::Refused(1002),
    },
    Difference {
        name: "a message in very many fragments",
        reason: "max_fragments fails it with 1008; tungstenite has no such limit",
        is_it: |_, ours, _| ours.end == Ended::Refused(1008),
    },
    Difference {
        name: "a close code that must not travel",
        reason: "§7.4: both answer 1002, but to tungstenite it is a close frame with that code",
        is_it: |_, ours, theirs| {
            (ours.end, theirs.end) == (Ended::Refused(1002), Ended::Closed(Some(1002)))
        },
    },
    Difference {
        name: "1014",
        reason: "registered (§11.7) since tungstenite drew its list: it answers 1002",
        is_it: |_, ours, theirs| {
            (ours.end, theirs.end) == (Ended::Closed(Some(1014)), Ended::Closed(Some(1002)))
        },
    },
    Difference {
        name: "a violation in a frame that has not arrived as a whole",
        reason: "ours refuses it at the byte that proves it, tungstenite waits for the whole frame",
        is_it: |_, ours, theirs| {
            matches!(ours.end, Ended::Refused(1002 | 1007 | 1009)) && theirs.end == Ended::Cut
        },
    },
    Difference {
        name: "a message that breaks two rules",
        reason: "the RFC does not say which comes first",
        is_it: |traffic, ours, theirs| {
            let both = matches!((ours.end, theirs.end), (Ended::Refused(_), Ended::Refused(_)));
            both && traffic.worst > 1
        },
    },
];

#[test]
fn the_same_bytes_mean_the_same_to_async_tungstenite_or_the_table_says_why_not() {
    let mut found = [0; DIFFERENCES.len()];
    let (mut same, mut ends) = (0, [0; 3]);
    for seed in ONLY.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let role = if seed % 2 == 0 { Role::Server } else { Role::Client };
        let traffic = Traffic::new(&mut Rng::new(seed), role);
        let ours = within(hear_by_ours(&traffic.wire, role));
        let theirs = hear_by_theirs(&traffic.wire, role);
        ends[kind(ours.end)] += 1;
        if ours == theirs {
            same += 1;
            continue;
        }
        let mut rows = DIFFERENCES.iter();
        let row = rows.position(|row| (row.is_it)(&traffic, &ours, &theirs));
        let Some(row) =
            row.filter(|_| theirs.messages.starts_with(&ours.messages) || row == Some(3))
        else {
            panic!("seed {seed}, {role:?}: {ours:?}, tungstenite {theirs:?}: {traffic:?}");
        };
        found[row] += 1;
    }
    if ONLY.is_none() {
        eprintln!("{same} of {SEEDS} are the same; cut, closed, refused: {ends:?}");
        for (row, count) in DIFFERENCES.iter().zip(found) {
            eprintln!("{count:5} {}: {}", row.name, row.reason);
            assert!(count > 0, "no longer a difference: {}", row.name);
        }
        assert!(ends.iter().all(|count| *count > SEEDS / 20), "{ends:?}");
    }
}

fn kind(end: Ended) -> usize {
    match end {
        Ended::Cut => 0,
        Ended::Closed(_) => 1,
        Ended::Refused(_) => 2,
    }
}

/// A stream of these bytes, and then nothing.
async fn stream_of(wire: &[u8]) -> (End, End) {
    let (stream, mut peer) = pipe(Knobs::default());
    peer.write_all(wire).await.unwrap();
    peer.close().await.unwrap();
    (stream, peer)
}

async fn hear_by_ours(wire: &[u8], role: Role) -> Heard {
    let (stream, _peer) = stream_of(wire).await;
    let options = WebSocketOptions::default()
        .max_message_size(MESSAGE)
        .max_frame_size(FRAME)
        .max_fragments(FRAGMENTS);
    let mut ws = WebSocket::from_stream(stream, [].as_slice(), role, &options);
    let (messages, end) = collect(&mut ws).await;
    let code = || ws.close_info().and_then(|info| info.code).map(u16::from);
    let end = match end {
        Ok(()) => Ended::Closed(code()),
        Err(Error::Protocol(error)) => Ended::Refused(error.close_code().into()),
        Err(Error::Io(_)) => Ended::Cut,
        Err(error) => panic!("{error}"),
    };
    Heard { messages, end }
}

fn hear_by_theirs(wire: &[u8], role: Role) -> Heard {
    let role = match role {
        Role::Server => protocol::Role::Server,
        Role::Client => protocol::Role::Client,
    };
    hear(wire, role, MESSAGE, FRAME)
}

/// Some frames, most of them right.
#[derive(Debug)]
struct Traffic {
    wire: Vec<u8>,
    has_long_length: bool,
    /// Most things that are wrong with one message.
    worst: usize,
    /// Those of the message that is being made.
    wrong: usize,
    is_inside: bool,
}

impl Traffic {
    fn new(rng: &mut Rng, to: Role) -> Self {
        let wire = Vec::new();
        let mut traffic =
            Self { wire, has_long_length: false, worst: 0, wrong: 0, is_inside: false };
        for _ in 0..=rng.below(12) {
            traffic.push_frame(rng, to);
        }
        if rng.one_in(4) {
            let len = rng.below(traffic.wire.len() + 1);
            traffic.wire.truncate(len);
        }
        traffic
    }

    fn push_frame(&mut self, rng: &mut Rng, to: Role) {
        if !self.is_inside {
            self.wrong = 0;
        }
        let (mut head, payload) = self.frame(rng);
        let mut is_masked = to == Role::Server;
        let mut is_long = false;
        while rng.one_in(12) {
            self.wrong += 1;
            match rng.below(6) {
                0 => head ^= 0x10 << rng.below(3),
                1 => head ^= FIN,
                2 => {
                    head = (head & 0xf0) | u8::try_from(rng.below(16)).unwrap();
                    // Its payload may be wrong for that.
                    self.wrong += 1;
                }
                3 => is_masked = !is_masked,
                4 => is_long = true,
                _ => {
                    // All that follows may be anything.
                    self.wire.push(0xff);
                    self.wrong += 1;
                }
            }
        }
        self.worst = self.worst.max(self.wrong);
        let frame = if is_masked { masked(head, &payload) } else { plain(head, &payload) };
        if is_long && payload.len() < 126 {
            self.has_long_length = true;
            let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
            self.wire.extend([frame[0], (frame[1] & 0x80) | 0x7e]);
            self.wire.extend(len);
            self.wire.extend(&frame[2..]);
        } else {
            self.wire.extend(frame);
        }
    }

    /// A frame in its place.
    fn frame(&mut self, rng: &mut Rng) -> (u8, Vec<u8>) {
        match rng.below(10) {
            0 => (PING, self.payload(rng, 126)),
            1 => (PONG, self.payload(rng, 126)),
            2 if rng.one_in(3) => (CLOSE, self.close(rng)),
            _ => {
                let first = if rng.one_in(2) { TEXT } else { BINARY };
                let head = if self.is_inside { CONTINUATION } else { first };
                self.is_inside = rng.one_in(2);
                let most = if rng.one_in(8) { 1_100 } else { 200 };
                let payload = self.payload(rng, most);
                (if self.is_inside { head & !FIN } else { head }, payload)
            }
        }
    }

    /// Text, cut anywhere, or not quite text.
    fn payload(&mut self, rng: &mut Rng, most: usize) -> Vec<u8> {
        let len = rng.below(most + 1);
        let mut payload: Vec<u8> = match rng.below(3) {
            0 => "aé€😀".bytes().cycle().take(len).collect(),
            _ => vec![b'x'; len],
        };
        if rng.one_in(16) {
            payload.extend(b"\xed\xa0\x80");
        }
        self.wrong += usize::from(std::str::from_utf8(&payload).is_err());
        self.wrong += usize::from(payload.len() > if most == 126 { 125 } else { FRAME });
        payload
    }

    fn close(&mut self, rng: &mut Rng) -> Vec<u8> {
        let codes = [1000, 1001, 1005, 1011, 1014, 1016, 3000, 4999, 5000];
        let code = codes[rng.below(codes.len())];
        self.wrong += usize::from([1005, 1016, 5000].contains(&code));
        let code = u16::to_be_bytes(code);
        match rng.below(6) {
            0 => vec![],
            1 => vec![3],
            2 => {
                self.wrong += 1;
                [&code[..], &"é".as_bytes()[..1]].concat()
            }
            _ => [&code[..], b"bye"].concat(),
        }
    }
}
