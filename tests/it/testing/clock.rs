//! A clock that the test turns: deadlines of a connection without waiting for them.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use tidewire::testing::ManualClock;
use tidewire::{HeartbeatOptions, Role, WebSocket, WebSocketOptions};

use crate::ws::peer::within;
use crate::ws::pipe::{Knobs, pipe};

#[test]
fn a_heartbeat_of_half_a_minute_and_an_idle_timeout_follow_the_clock_of_the_test() {
    let clock = ManualClock::new();
    let heartbeat = HeartbeatOptions::default().interval(Duration::from_secs(25)).jitter(0);
    let options = WebSocketOptions::default()
        .heartbeat(heartbeat)
        .idle_timeout(Duration::from_secs(3600))
        .clock(&clock);
    let (ours, mut peer) = pipe(Knobs::default());
    let handler = |mut ws: WebSocket| async move { ws.recv().await };
    let connection = WebSocket::run(ours, bytes::Bytes::new(), Role::Server, &options, handler);
    let test = async {
        // The timer is registered when the connection parks.
        let mut head = [0; 2];
        while clock.next_deadline().is_none() {
            futures::pending!();
        }
        for _ in 0..3 {
            clock.advance(Duration::from_secs(25));
            let mut ping = [0; 8];
            peer.read_exact(&mut head).await.unwrap();
            peer.read_exact(&mut ping).await.unwrap();
            assert_eq!(head, [0x89, 8], "a ping of the heartbeat");
            let answer = [&[0x8a, 0x88, 0, 0, 0, 0], &ping[..]].concat();
            peer.write_all(&answer).await.unwrap();
            // The pong is read before the clock goes on.
            futures::pending!();
        }
        clock.advance(Duration::from_secs(3600 - 75));
        // A ping is due as well, and was due before.
        let (mut ping, mut close) = ([0; 10], [0; 16]);
        peer.read_exact(&mut ping).await.unwrap();
        peer.read_exact(&mut close).await.unwrap();
        assert_eq!(&close, b"\x88\x0e\x03\xe9idle timeout");
        peer.write_all(b"\x88\x82\0\0\0\0\x03\xe9").await.unwrap();
        assert_eq!(peer.read(&mut head).await.unwrap(), 0, "the end of the stream");
    };
    within(async {
        let mut connection = std::pin::pin!(connection.fuse());
        let mut test = std::pin::pin!(test);
        // One task: a `pending!` of the test is a turn of the connection.
        std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            let _ = connection.as_mut().poll(cx);
            test.as_mut().poll(cx)
        })
        .await;
    });
}
