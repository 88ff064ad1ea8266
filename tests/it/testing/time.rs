//! Time that a test turns: hours of a server, and of its clients, in no time.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use futures::{FutureExt, StreamExt, select};
use tidewire::limits::RateLimit;
use tidewire::server::{ServerOptions, ShutdownOptions};
use tidewire::testing::{ManualClock, RawFrame, TestClient};
use tidewire::websocket::{HeartbeatOptions, TimeoutKind};
use tidewire::{Error, Message, RequestContext, Server, WebSocketOptions};

use super::sockets::failure;
use crate::support::peer::within;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

type Ended = Result<Option<Message>, Error>;

/// A client of a server that echoes at `/ws`, and what the loops of its handlers have ended with.
fn echo(options: WebSocketOptions) -> (TestClient, UnboundedReceiver<Ended>) {
    let (tell, told) = unbounded();
    let mut server = Server::new();
    server.get("/ws", move |mut ctx: RequestContext| {
        let (options, tell) = (options.clone(), tell.clone());
        async move {
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            let ended = loop {
                match ws.recv().await {
                    Ok(Some(message)) => drop(ws.send(message).await),
                    ended => break ended,
                }
            };
            let _ = tell.unbounded_send(ended);
            Ok(())
        }
    });
    (TestClient::new(&server), told)
}

fn pings() -> WebSocketOptions {
    let heartbeat = HeartbeatOptions::default().interval(Duration::from_secs(25)).jitter(0);
    WebSocketOptions::default().heartbeat(heartbeat.timeout(Duration::from_secs(20)))
}

#[test]
fn an_hour_has_its_heartbeats_and_the_socket_of_the_test_answers_them() {
    within(async {
        let (client, _) = echo(pings());
        let mut ws = client.connect("/ws").await.unwrap();
        client.advance(HOUR).await;
        let stats = ws.stats();
        assert!((143..=145).contains(&stats.pings_in), "{stats:?}");
        assert_eq!(stats.pongs_out, stats.pings_in);
        ws.send("still there").await.unwrap();
        ws.expect_text("still there").await;
        ws.expect_silence().await;
    });
}

#[test]
fn a_peer_that_answers_no_ping_is_given_up_in_its_time() {
    within(async {
        let (client, mut ended) = echo(pings());
        let mut peer = client.peer("/ws").await.unwrap();
        client.advance(Duration::from_secs(44)).await;
        assert!(ended.next().now_or_never().is_none());
        client.advance(Duration::from_secs(2)).await;
        let ended = ended.next().now_or_never().expect("it is done when `advance` returns");
        assert!(matches!(ended, Some(Err(Error::Timeout(TimeoutKind::Pong)))), "{ended:?}");
        assert_eq!(peer.recv_frame().await.unwrap().payload().len(), 8, "a ping");
        peer.expect_close(1008).await;
        peer.end_of_stream().await;
    });
}

#[test]
fn the_timeouts_of_a_connection_pass_at_their_time_and_not_before() {
    within(async {
        let options = WebSocketOptions::default();
        let begun = RawFrame::text("Hel").without_fin();
        for (options, first, timeout, close) in [
            (options.clone().idle_timeout(HOUR), None, HOUR, 1001),
            (options.clone().message_timeout(MINUTE), Some(begun), MINUTE, 1008),
        ] {
            let (client, mut ended) = echo(options.heartbeat(None));
            let mut peer = client.peer("/ws").await.unwrap();
            if let Some(first) = first {
                peer.send_frame(first).await.unwrap();
            }
            // From here on the handler has the connection, and the connection the frame.
            assert!(client.failures().await.is_empty());
            client.advance(timeout * 9 / 10).await;
            assert!(ended.next().now_or_never().is_none());
            client.advance(timeout / 10).await;
            peer.expect_close(close).await;
            peer.send_frame(RawFrame::close(close, "")).await.unwrap();
            peer.end_of_stream().await;
        }
    });
}

#[test]
fn a_client_that_answers_no_close_frame_is_given_up_in_its_time() {
    within(async {
        let options = WebSocketOptions::default().idle_timeout(HOUR).close_timeout(MINUTE);
        let (client, _) = echo(options.heartbeat(None));
        let mut peer = client.peer("/ws").await.unwrap();
        client.advance(HOUR).await;
        peer.expect_close(1001).await;
        client.advance(MINUTE / 2).await;
        assert_eq!(client.metrics().open_websockets, 1);
        client.advance(MINUTE / 2).await;
        assert_eq!(client.metrics().open_websockets, 0);
    });
}

#[test]
fn an_expiry_is_as_far_away_as_the_clock_of_the_application_says() {
    within(async {
        let mut server = Server::new();
        server.get("/ws", |mut ctx: RequestContext| async move {
            let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            ws.expire_at(Instant::now() + HOUR, 4001, "log in again")?;
            while ws.recv().await?.is_some() {}
            Ok(())
        });
        let client = TestClient::new(&server);
        // The second is opened when the time is an hour ahead.
        for _ in 0..2 {
            let mut ws = client.connect("/ws").await.unwrap();
            ws.expect_silence_for(59 * MINUTE).await;
            client.advance(MINUTE).await;
            assert_eq!(ws.expect_close(4001).await.reason, "log in again");
        }
    });
}

#[test]
fn a_lifetime_and_a_rate_follow_the_time() {
    within(async {
        let (client, _) = echo(WebSocketOptions::default().max_lifetime(HOUR));
        let mut ws = client.connect("/ws").await.unwrap();
        client.advance(53 * MINUTE).await;
        ws.expect_silence().await;
        client.advance(7 * MINUTE).await;
        ws.expect_close(1001).await;

        let limit = RateLimit::default().messages_per_second(1).message_burst(1);
        let (client, _) = echo(WebSocketOptions::default().rate_limit(limit));
        let mut ws = client.connect("/ws").await.unwrap();
        for _ in 0..10 {
            ws.send("slow").await.unwrap();
            ws.expect_text("slow").await;
            client.advance(MINUTE).await;
        }
        ws.expect_silence().await;
    });
}

#[test]
fn the_deadlines_of_http_follow_the_time() {
    within(async {
        let (client, _) = echo(WebSocketOptions::default());
        let mut late = client.open().unwrap();
        late.send_bytes("GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        client.advance(Duration::from_secs(9)).await;
        late.send_bytes("X-More: 1\r\n").await.unwrap();
        client.advance(Duration::from_secs(2)).await;
        late.expect_bytes("HTTP/1.1 408 Request Timeout\r\n").await;
        client.advance(Duration::from_secs(3)).await;
        assert_eq!(client.metrics().open_http, 0, "the wait for the client's FIN has ended, too");
    });
}

#[test]
fn timers_of_the_tests_own_side_follow_the_time() {
    within(async {
        let (client, _) = echo(WebSocketOptions::default().heartbeat(None));
        let mut ws = client.websocket("/ws").options(pings()).connect().await.unwrap();
        client.advance(10 * MINUTE).await;
        let stats = ws.stats();
        assert!((23..=25).contains(&stats.pings_out), "{stats:?}");
        assert_eq!(stats.pongs_in, stats.pings_out);
        ws.send("still there").await.unwrap();
        ws.expect_text("still there").await;
    });
}

#[test]
fn what_comes_due_comes_in_the_order_of_its_deadlines() {
    within(async {
        let (tell, mut told) = unbounded();
        let mut server = Server::new();
        server.get("/ws/:minutes", move |mut ctx: RequestContext| {
            let tell = tell.clone();
            async move {
                let minutes = ctx.param::<u32>("minutes")?;
                let options = WebSocketOptions::default().idle_timeout(MINUTE * minutes);
                let mut ws = ctx.upgrade_to_websocket(options).await?;
                while ws.recv().await?.is_some() {}
                tell.unbounded_send(minutes)?;
                Ok(())
            }
        });
        let client = TestClient::new(&server);
        let mut sockets = Vec::new();
        for minutes in [3, 1, 5, 2, 4] {
            sockets.push(client.connect(&format!("/ws/{minutes}")).await.unwrap());
        }
        client.advance(4 * MINUTE + MINUTE / 2).await;
        let mut order = Vec::new();
        while let Some(Some(minutes)) = told.next().now_or_never() {
            order.push(minutes);
        }
        assert_eq!(order, [1, 2, 3, 4]);
        client.advance(MINUTE).await;
        assert_eq!(told.next().await, Some(5));
    });
}

#[test]
fn a_shutdown_has_its_grace_in_no_time() {
    within(async {
        let mut server = Server::new();
        server.get("/never", |_: RequestContext| std::future::pending::<tidewire::HandlerResult>());
        let client = TestClient::new(&server);
        let request = client.get("/never").send();
        let options = ShutdownOptions::default().grace(HOUR);
        let ending = async {
            let mut ending = pin!(client.shutdown_with(options).fuse());
            // The shutdown is no task of the server: it sets its timer when it comes to that.
            let mut turning = pin!(
                async {
                    loop {
                        client.advance(MINUTE).await;
                    }
                }
                .fuse()
            );
            select! {
                report = ending => report,
                never = turning => never,
            }
        };
        let mut request = pin!(request.fuse());
        // The handler has the request when the server is at rest.
        assert!(futures::poll!(&mut request).is_pending());
        client.advance(MINUTE).await;
        let (response, report) = futures::join!(request, ending);
        assert_eq!((response.is_err(), report.dropped), (true, 1));
        assert!(report.elapsed >= HOUR);
    });
}

#[test]
fn a_time_that_is_not_turned_goes_on_by_itself() {
    within(async {
        let options = WebSocketOptions::default().idle_timeout(Duration::from_millis(30));
        let (client, _) = echo(options);
        let mut ws = client.connect("/ws").await.unwrap();
        ws.expect_close(1001).await;
        // Also after it was turned.
        client.advance(HOUR).await;
        let mut ws = client.connect("/ws").await.unwrap();
        ws.expect_close(1001).await;
    });
}

#[test]
fn a_clock_of_its_own_is_not_turned() {
    within(async {
        let clock = ManualClock::new();
        let options = WebSocketOptions::default().idle_timeout(MINUTE).clock(&clock);
        let (client, _) = echo(options.heartbeat(None));
        let mut ws = client.connect("/ws").await.unwrap();
        ws.expect_silence_for(HOUR).await;
        clock.advance(MINUTE);
        ws.expect_close(1001).await;

        let mut server = Server::new();
        server.options(ServerOptions::default().clock(&clock));
        server.get("/ws", |mut ctx: RequestContext| async move {
            let options = WebSocketOptions::default().idle_timeout(MINUTE);
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            while ws.recv().await?.is_some() {}
            Ok(())
        });
        let client = TestClient::new(&server);
        let mut ws = client.connect("/ws").await.unwrap();
        ws.expect_silence_for(HOUR).await;
        clock.advance(MINUTE);
        ws.expect_close(1001).await;
    });
}

#[test]
fn a_server_that_never_rests_fails_a_test_that_turns_its_time() {
    within(async {
        let mut server = Server::new();
        server.get("/busy", |_: RequestContext| async {
            loop {
                async_std::task::yield_now().await;
            }
            #[expect(unreachable_code, reason = "it names the type")]
            Ok("never")
        });
        let client = TestClient::new(&server).patience(Duration::from_millis(50));
        let turning = async {
            let text = failure(client.advance(HOUR)).await;
            assert!(text.starts_with("the server did not come to rest within 50ms\n"), "{text}");
            assert!(text.contains(file!()), "{text}");
        };
        let (busy, ()) = futures::join!(client.get("/busy").send(), turning);
        assert!(busy.is_err());
    });
}
