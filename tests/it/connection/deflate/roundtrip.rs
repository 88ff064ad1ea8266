//! Random messages under random parameters: what is received is what was sent, between two
//! connections of this crate and with a strict peer on either side.
//!
//! A test that fails names its seed; `ONLY` repeats that one.

use tidewire::deflate::{DeflateOptions, DeflateParameters};
use tidewire::frame::Role;
use tidewire::{Message, WebSocket, WebSocketOptions};

use crate::support::deflate::codec::{Deflater, Reader, read_frame};
use crate::support::deflate::{DEFLATED, noise, words};
use crate::support::frames::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Seen, TEXT};
use crate::support::frames::{close, masked, plain};
use crate::support::peer::{Drive, Peer, drive, echo, within};
use crate::support::pipe::{Knobs, Stutter, pipe};
use crate::support::rng::Rng;

/// A seed to run alone.
const ONLY: Option<u64> = None;

const SEEDS: u64 = 25;

const MESSAGES: usize = 6;

fn each_seed(test: impl AsyncFn(u64)) {
    for seed in ONLY.map_or(0..SEEDS, |seed| seed..seed + 1) {
        eprintln!("seed {seed}");
        within(test(seed));
    }
}

fn pick<T: Copy, const N: usize>(rng: &mut Rng, values: [T; N]) -> T {
    values[rng.below(N)]
}

fn up_to(rng: &mut Rng, least: u8, most: u8) -> u8 {
    least + u8::try_from(rng.below(usize::from(most - least) + 1)).unwrap()
}

fn options(rng: &mut Rng) -> DeflateOptions {
    DeflateOptions::default()
        .level(up_to(rng, 0, 9))
        .memory_level(up_to(rng, 1, 9))
        .threshold(pick(rng, [0, 100, 256, 5_000]))
        .server_context_takeover(rng.one_in(2))
        .client_context_takeover(rng.one_in(2))
        .server_max_window_bits(up_to(rng, 9, 15))
        .client_max_window_bits(up_to(rng, 9, 15))
}

/// Options of a client and of a server, who have agreed.
fn agree(rng: &mut Rng) -> (WebSocketOptions, WebSocketOptions, DeflateParameters) {
    let (client, server) = (options(rng), options(rng));
    let answer = server.accept([&*client.offer()]).unwrap();
    let agreed = client.check_answer([&*answer.to_string()]).unwrap().unwrap();
    assert_eq!(agreed, answer);
    eprintln!("{agreed}");
    let with = |deflate| WebSocketOptions::default().deflate(deflate).agreed_deflate(agreed);
    (with(client), with(server), agreed)
}

fn knobs(rng: &mut Rng) -> Knobs {
    let stutter = if rng.one_in(3) { Stutter::Random(rng.next()) } else { Stutter::Never };
    Knobs { read: pick(rng, [100, 5_000, usize::MAX]), stutter, ..Knobs::default() }
}

fn message(rng: &mut Rng) -> Message {
    let most = pick(rng, [1, 20, 400, 5_000, 30_000, 100_000]);
    let len = rng.below(most);
    let message = match rng.below(4) {
        0 => Message::binary(noise(rng, len)),
        1 => Message::binary(words(rng, len)),
        _ => Message::text(words(rng, len)),
    };
    match rng.below(6) {
        0 => message.compressed(),
        1 => message.uncompressed(),
        _ => message,
    }
}

#[test]
fn two_connections_of_this_crate_understand_each_other() {
    each_seed(async |seed| {
        let mut rng = Rng::new(seed);
        let (client, server, agreed) = agree(&mut rng);
        let by = pick(&mut rng, Drive::BOTH);
        let (stream, end) = pipe(knobs(&mut rng));
        drive(by, stream, Role::Server, &server, echo);
        let mut ws = WebSocket::from_stream(end, [].as_slice(), Role::Client, &client);
        assert_eq!(ws.deflate_parameters(), Some(agreed));
        let mut left = MESSAGES;
        while left > 0 {
            let sent: Vec<_> = (0..=rng.below(left)).map(|_| message(&mut rng)).collect();
            left -= sent.len();
            for message in &sent {
                ws.send(message.clone()).await.unwrap();
            }
            for message in sent {
                let echoed = ws.recv().await.unwrap().unwrap();
                assert!(echoed == message, "{echoed:?} instead of {message:?}");
            }
        }
        let info = ws.close(1000_u16, "").await.unwrap();
        assert!(info.clean, "{info:?}");
    });
}

#[test]
fn a_strict_peer_understands_our_messages_and_is_understood_for_every_cut_of_its_own() {
    each_seed(async |seed| {
        let mut rng = Rng::new(seed ^ 0xffff);
        let (client, server, agreed) = agree(&mut rng);
        let (by, role) =
            (pick(&mut rng, Drive::BOTH), pick(&mut rng, [Role::Server, Role::Client]));
        let options = if role == Role::Server { server } else { client };
        eprintln!("{by:?}, {role:?}");
        let (stream, end) = pipe(knobs(&mut rng));
        drive(by, stream, role, &options, echo);
        let mut side = Side::of(role, agreed, &mut rng);
        let mut peer = Peer { end };
        for _ in 0..MESSAGES {
            let message = message(&mut rng);
            let (wire, pings) = side.frames(&mut rng, &message);
            peer.send(wire).await;
            let head = if message.is_text() { TEXT } else { BINARY };
            let mut answered = 0;
            loop {
                let seen = side.reader.next(&mut peer).await;
                if seen.head == PONG {
                    answered += 1;
                    continue;
                }
                assert!(seen.head & !DEFLATED == head, "{seen:?} instead of {message:?}");
                assert!(seen.payload == message.as_bytes(), "{seen:?} instead of {message:?}");
                break;
            }
            assert!(answered <= pings, "{answered} pongs for {pings} pings");
        }
        peer.send((side.frame)(CLOSE, &close(1000, ""))).await;
        let bye = read_frame(&mut peer, role == Role::Client).await;
        assert_eq!(bye, Seen { head: CLOSE, payload: close(1000, "") });
    });
}

/// The peer of a connection under test.
struct Side {
    deflater: Deflater,
    reader: Reader,
    frame: fn(u8, &[u8]) -> Vec<u8>,
}

impl Side {
    fn of(role: Role, agreed: DeflateParameters, rng: &mut Rng) -> Self {
        let level = i32::from(up_to(rng, 0, 9));
        match role {
            Role::Server => Self {
                deflater: Deflater::new(
                    level,
                    agreed.client_max_window_bits(),
                    !agreed.client_no_context_takeover(),
                ),
                reader: Reader::of_server(agreed),
                frame: |head, payload| masked(head, payload),
            },
            Role::Client => Self {
                deflater: Deflater::new(
                    level,
                    agreed.server_max_window_bits(),
                    !agreed.server_no_context_takeover(),
                ),
                reader: Reader::of_client(agreed),
                frame: |head, payload| plain(head, payload),
            },
        }
    }

    /// A message in frames, cut anywhere, and the number of pings between them.
    fn frames(&mut self, rng: &mut Rng, message: &Message) -> (Vec<u8>, usize) {
        let is_deflated = !rng.one_in(4);
        let plain = message.as_bytes();
        let payload = if is_deflated { self.deflater.deflate(plain) } else { plain.to_vec() };
        let mut head = if message.is_text() { TEXT } else { BINARY };
        head |= if is_deflated { DEFLATED } else { 0 };
        let (mut wire, mut pings, mut rest) = (vec![], 0, &*payload);
        for _ in 0..rng.below(5) {
            let (piece, after) = rest.split_at(rng.below(rest.len() + 1));
            wire.extend((self.frame)(head & !FIN, piece));
            (head, rest) = (CONTINUATION, after);
            if rng.one_in(3) {
                wire.extend((self.frame)(PING, b"p"));
                pings += 1;
            }
        }
        wire.extend((self.frame)(head, rest));
        (wire, pings)
    }
}
