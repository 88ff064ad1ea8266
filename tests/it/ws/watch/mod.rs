//! What a connection is watched for: whether its peer is there, how long it is open, and how fast
//! it is sent to.
//!
//! | file | shows |
//! | --- | --- |
//! | `answers` | what counts as the answer to a heartbeat's ping, and what does not |
//! | `heartbeat` | a heartbeat beside all else that a connection does |
//! | `running` | a heartbeat as a future to spawn |
//! | `lifetime` | idle connections, old ones, and those whose time is set |
//! | `rate_limit` | peers that send too fast |
//! | `stats` | what is counted |

mod answers;
mod heartbeat;
mod lifetime;
mod rate_limit;
mod running;
mod stats;

use std::time::Duration;

use futures::future::pending;
use tidewire::{Error, HeartbeatOptions, Result, Timeout, WebSocketOptions};

use crate::ws::frames::{CLOSE, PING, PONG, Seen, masked};
use crate::ws::peer::Peer;

/// A limit that is meant to be exceeded.
const SOON: Duration = Duration::from_millis(300);

/// As many pings as the machine allows, for peers that answer.
fn often() -> HeartbeatOptions {
    HeartbeatOptions::default().interval(Duration::from_millis(10))
}

/// A ping at once, for peers that do not answer.
fn impatient() -> HeartbeatOptions {
    often().timeout(SOON)
}

fn with(heartbeat: HeartbeatOptions) -> WebSocketOptions {
    WebSocketOptions::default().heartbeat(heartbeat)
}

/// Lets time pass in which nobody does anything.
async fn idle(time: Duration) {
    let _ = async_std::future::timeout(time, pending::<()>()).await;
}

fn is_unanswered<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Timeout(Timeout::Pong)))
}

/// The payload of the next frame of a server, which is the ping of a heartbeat.
async fn token(peer: &mut Peer) -> Vec<u8> {
    let frame = peer.frame().await;
    assert_eq!((frame.head, frame.payload.len()), (PING, 8), "{frame:?}");
    frame.payload
}

/// Waits for the ping of a heartbeat, and answers it.
async fn answer(peer: &mut Peer) {
    let token = token(peer).await;
    peer.send(masked(PONG, token)).await;
}

/// Answers the pings of a heartbeat until another frame comes.
async fn other_frame(peer: &mut Peer) -> Seen {
    loop {
        let frame = peer.frame().await;
        if frame.head != PING {
            return frame;
        }
        peer.send(masked(PONG, frame.payload)).await;
    }
}

/// A close frame that says so, and the end of the stream.
async fn expect_given_up(peer: &mut Peer) {
    let frame = peer.frame().await;
    let reason = b"\x03\xf0the peer did not answer a ping in time".to_vec();
    assert_eq!(frame, Seen { head: CLOSE, payload: reason });
    peer.expect_end().await;
}
