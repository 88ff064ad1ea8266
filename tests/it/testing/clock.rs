//! A clock that the test turns: deadlines of connections, servers and clients without waiting for them.

use std::sync::mpsc;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use tidewire::client::{ConnectError, ConnectStep};
use tidewire::frame::Role;
use tidewire::server::{ServerOptions, ShutdownOptions};
use tidewire::testing::ManualClock;
use tidewire::websocket::HeartbeatOptions;
use tidewire::{Error, WebSocket, WebSocketOptions};

use crate::http::{Client, PONG, pong};
use crate::support::peer::within;
use crate::support::pipe::{Knobs, pipe};
use crate::support::tcp::until;

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

/// Turns the clock to the next deadline, if a task of another thread waits for one; by how much.
fn turn(clock: &ManualClock) -> Option<Duration> {
    let due = clock.next_deadline()?.saturating_duration_since(clock.now());
    clock.advance(due);
    Some(due)
}

#[test]
fn the_deadlines_of_a_server_and_of_its_shutdown_follow_the_clock_of_its_options() {
    let clock = ManualClock::new();
    let (tell, told) = mpsc::channel();
    let mut server = pong();
    server.get("/stuck", move |_| {
        tell.send(()).unwrap();
        std::future::pending::<tidewire::HandlerResult<&str>>()
    });
    server.options(ServerOptions::default().clock(&clock));
    let server = within(server.bind("127.0.0.1:0")).unwrap();
    let (addr, handle) = (server.local_addr(), server.handle());
    async_std::task::spawn(server.serve());

    let mut late = Client::to(addr, "GET / HTTP/1.1\r\nHost: x\r\n");
    until("a timer is registered", || clock.next_deadline().is_some());
    assert_eq!(turn(&clock), Some(Duration::from_secs(10)), "the head's");
    assert_eq!(late.status(), "HTTP/1.1 408 Request Timeout");
    drop(late);

    let mut idle = Client::to(addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle.response(), PONG);
    // What is left of the client before may be due first: its last lingering.
    until("the idle connection is closed", || {
        turn(&clock);
        handle.metrics().open_http == 0
    });
    assert_eq!(idle.rest(), "");

    let _stuck = Client::to(addr, "GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n");
    told.recv().unwrap();
    let options = ShutdownOptions::default().grace(Duration::from_secs(30));
    let report = std::thread::spawn(move || within(handle.shutdown(options)));
    while !report.is_finished() {
        turn(&clock);
        std::thread::yield_now();
    }
    let report = report.join().unwrap();
    assert_eq!((report.dropped, report.elapsed >= Duration::from_secs(30)), (1, true));
}

#[test]
fn the_deadlines_of_connecting_follow_the_clock_of_the_connection() {
    let clock = ManualClock::new();
    let options = WebSocketOptions::default().clock(&clock);
    let (ours, _silent) = pipe(Knobs::default());
    let client = tidewire::Client::new("ws://x/").options(options);
    let mut connecting = std::pin::pin!(client.connect_over(ours));
    assert!(connecting.as_mut().now_or_never().is_none());
    clock.advance(Duration::from_secs(10) - Duration::from_nanos(1));
    assert!(connecting.as_mut().now_or_never().is_none());
    clock.advance(Duration::from_nanos(1));
    let error = connecting.now_or_never().expect("the time is over").unwrap_err();
    let Error::Connect(reason) = error else { panic!("{error:?}") };
    assert!(matches!(*reason, ConnectError::TimedOut(ConnectStep::Handshake)), "{reason:?}");
}
