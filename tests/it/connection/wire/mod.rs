//! What a peer sends and what it sees, whole, byte by byte, and merged with its neighbours; through
//! TLS as well.

pub(crate) mod closing;
pub(crate) mod control;
pub(crate) mod data;
pub(crate) mod text;
#[cfg(feature = "tls")]
mod tls;
pub(crate) mod violations;

use futures::channel::oneshot;
use tidewire::frame::Role;
use tidewire::{Error, Message, WebSocketOptions};

use crate::support::frames::{CLOSE, TEXT, close};
use crate::support::frames::{Seen, hex, masked, plain, shown, take_frame};
use crate::support::peer::{Drive, Peer, collect, drive, echo, within};
use crate::support::pipe::{Knobs, pipe};

/// How bytes arrive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Delivery {
    Whole,
    ByteByByte,
    /// In one read with a message before and a message after.
    Merged,
}

impl Delivery {
    const ALL: [Self; 3] = [Self::Whole, Self::ByteByByte, Self::Merged];

    fn knobs(self) -> Knobs {
        let read = if self == Self::ByteByByte { 1 } else { usize::MAX };
        Knobs { read, ..Knobs::default() }
    }
}

/// Bytes that a client sends, and those that an echo answers with.
struct Exchange {
    what: &'static str,
    sent: Vec<u8>,
    seen: Vec<u8>,
}

fn exchange(what: &'static str, sent: Vec<u8>, seen: Vec<u8>) -> Exchange {
    Exchange { what, sent, seen }
}

/// Sends each exchange in every way to an echo, and closes.
fn each_is_answered(options: &WebSocketOptions, exchanges: &[Exchange]) {
    #[cfg(feature = "tls")]
    tls::each_is_answered(options, exchanges);
    for Exchange { what, sent, seen } in exchanges {
        for delivery in Delivery::ALL {
            for by in Drive::BOTH {
                eprintln!("{what}, {delivery:?}, {by:?}: {}", shown(sent));
                let (sent, seen) = merged(delivery, sent, seen);
                within(is_answered(delivery, by, options, &sent, &seen));
            }
        }
    }
}

/// The bytes of an exchange, with a message before and a message after if they are to be merged.
fn merged(delivery: Delivery, sent: &[u8], seen: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (hi, echoed) = (masked(TEXT, "Hi"), plain(TEXT, "Hi"));
    match delivery {
        Delivery::Merged => ([&hi, sent, &hi].concat(), [&echoed, seen, &echoed].concat()),
        _ => (sent.to_vec(), seen.to_vec()),
    }
}

async fn is_answered(
    delivery: Delivery,
    by: Drive,
    options: &WebSocketOptions,
    sent: &[u8],
    seen: &[u8],
) {
    let (stream, end) = pipe(delivery.knobs());
    drive(by, stream, Role::Server, options, echo);
    let mut peer = Peer { end };
    peer.send(sent).await;
    let read = peer.read(seen.len()).await;
    let same = by_kind(&read) == by_kind(seen);
    assert!(same, "{} instead of {}", shown(&read), shown(seen));
    peer.send(masked(CLOSE, close(1000, ""))).await;
    peer.expect_hex("88 02 03e8").await;
    peer.expect_end().await;
}

/// Data and control frames: a pong may overtake the echo of an earlier message.
fn by_kind(mut bytes: &[u8]) -> (Vec<Seen>, Vec<Seen>) {
    let frames = std::iter::from_fn(|| take_frame(&mut bytes, false)).collect::<Vec<_>>();
    assert!(bytes.is_empty(), "{} is not a frame", shown(bytes));
    frames.into_iter().partition(Seen::is_control)
}

/// Bytes that break a rule, and the close code that says so.
struct Violation {
    what: String,
    sent: Vec<u8>,
    code: u16,
}

fn violation(what: impl Into<String>, sent: &str, code: u16) -> Violation {
    Violation { what: what.into(), sent: hex(sent), code }
}

/// Sends each violation in every way; it fails the connection with its code and nothing else, and
/// what came before it is received.
fn each_fails_the_connection(options: &WebSocketOptions, role: Role, violations: &[Violation]) {
    #[cfg(feature = "tls")]
    if role == Role::Server {
        tls::each_fails_the_connection(options, violations);
    }
    for violation in violations {
        for delivery in Delivery::ALL {
            for by in Drive::BOTH {
                let Violation { what, sent, code } = violation;
                eprintln!("{what}, {delivery:?}, {by:?}: {}, {code}", shown(sent));
                within(fails_the_connection(delivery, by, options, role, violation));
            }
        }
    }
}

async fn fails_the_connection(
    delivery: Delivery,
    by: Drive,
    options: &WebSocketOptions,
    role: Role,
    violation: &Violation,
) {
    let (stream, end) = pipe(delivery.knobs());
    let (tell, told) = oneshot::channel();
    drive(by, stream, role, options, |mut ws| async move {
        let _ = tell.send(collect(&mut ws).await);
        Ok(())
    });
    let mut peer = Peer { end };
    let from_peer = if role == Role::Server { masked } else { plain };
    let (before, after) = match delivery {
        Delivery::Merged => (from_peer(TEXT, b"Hi".to_vec()), from_peer(CLOSE, close(1000, ""))),
        _ => (vec![], vec![]),
    };
    peer.send([&*before, &violation.sent, &after].concat()).await;
    let frame = if role == Role::Server { peer.frame().await } else { peer.masked_frame().await };
    assert_eq!(frame.close_code(), Some(violation.code), "{frame:?}");
    assert!(std::str::from_utf8(&frame.payload[2..]).is_ok_and(|reason| !reason.is_empty()));
    if role == Role::Server {
        // The server ends the stream first (§7.1.1).
        peer.expect_end().await;
    }
    drop(peer);

    let (messages, end) = told.await.unwrap();
    let expected = if before.is_empty() { vec![] } else { vec![Message::text("Hi")] };
    assert_eq!(messages, expected);
    match end {
        Err(Error::Protocol(error)) => assert_eq!(u16::from(error.close_code()), violation.code),
        other => panic!("{other:?} instead of a protocol error"),
    }
}
