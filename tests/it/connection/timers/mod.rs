//! What a connection is watched for: whether its peer is there, how long it is open, and how fast
//! it is sent to.
//!
//! | file | shows |
//! | --- | --- |
//! | `answers` | what counts as a sign of life after a heartbeat's ping, and what does not |
//! | `default` | the heartbeat that a server has without being asked to |
//! | `heartbeat` | a heartbeat beside all else that a connection does |
//! | `running` | a heartbeat as a future to spawn |
//! | `lifetime` | idle connections, old ones, and those whose time is set |
//! | `rate_limit` | peers that send too fast |
//! | `stats` | what is counted |

mod answers;
mod default;
mod heartbeat;
mod lifetime;
mod rate_limit;
mod running;
mod stats;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures::future::{FutureExt, pending};
use tidewire::frame::Role;
use tidewire::testing::ManualClock;
use tidewire::websocket::{HeartbeatOptions, TimeoutKind};
use tidewire::{Error, Result, WebSocket, WebSocketOptions};

use crate::support::frames::{CLOSE, PING, PONG, Seen, masked};
use crate::support::peer::{Drive, Peer, within};
use crate::support::pipe::{Knobs, pipe};

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

/// The interval of the heartbeats of [`timed`].
const INTERVAL: Duration = Duration::from_secs(25);

/// Their timeout.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A heartbeat whose pings go out at the end of each interval.
fn timed() -> HeartbeatOptions {
    HeartbeatOptions::default().interval(INTERVAL).timeout(TIMEOUT).jitter(0)
}

/// Runs `handler` on a connection and `test` as its peer, in one task. While the test waits the connection
/// has its turn, and time passes when the test turns the clock.
fn turning<F, Fut>(
    (by, role, knobs): (Drive, Role, Knobs),
    options: WebSocketOptions,
    handler: F,
    test: impl AsyncFnOnce(Peer, ManualClock),
) where
    F: FnOnce(WebSocket) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let clock = ManualClock::new();
    let options = options.clock(&clock);
    let (stream, end) = pipe(knobs);
    let connection: Pin<Box<dyn Future<Output = ()>>> = match by {
        Drive::Task => WebSocket::run(stream, [].as_slice(), role, &options, handler),
        Drive::Caller => {
            let handler = handler(WebSocket::from_stream(stream, [].as_slice(), role, &options));
            Box::pin(handler.map(drop))
        }
    };
    in_one_task(connection, test(Peer { end }, clock));
}

/// Runs a connection and its test in turn, until the test is over.
fn in_one_task(connection: Pin<Box<dyn Future<Output = ()> + '_>>, test: impl Future<Output = ()>) {
    within(async {
        let (mut connection, mut test) = (connection.fuse(), pin!(test));
        poll_fn(|cx| {
            let _ = connection.poll_unpin(cx);
            cx.waker().wake_by_ref();
            test.as_mut().poll(cx)
        })
        .await;
    });
}

/// A connection with a task at the server's side, over a stream that takes everything.
const SERVER: (Drive, Role, Knobs) = (Drive::Task, Role::Server, Knobs::WIDE);

/// Lets the connection do all that it can.
async fn settle() {
    for _ in 0..8 {
        futures::pending!();
    }
}

/// Lets time pass, and the connection do what is due then.
async fn pass(clock: &ManualClock, time: Duration) {
    // The timer is registered when the connection parks.
    settle().await;
    clock.advance(time);
    settle().await;
}

/// Lets time pass in which nobody does anything.
async fn idle(time: Duration) {
    let _ = async_std::future::timeout(time, pending::<()>()).await;
}

fn is_unanswered<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Timeout(TimeoutKind::Pong)))
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
