//! What a shutdown does to whom, and what is left of it.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::{FutureExt, StreamExt};
use tidewire::server::ShutdownOptions;
use tidewire::websocket::Initiator;
use tidewire::{CloseCode, CloseInfo, RequestContext, Server, WebSocketOptions};

use super::{GET, arrival, begin_shutdown, patient, slow, start};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{echo, within};
use crate::support::tcp::{OPENING, Tcp, echo_server};

/// An echo that tells how each of its connections ended.
fn telling() -> (Server, mpsc::UnboundedReceiver<CloseInfo>) {
    let (tell, told) = mpsc::unbounded();
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            while let Some(message) = ws.recv().await? {
                ws.send(message).await?;
            }
            tell.unbounded_send(ws.close_info().unwrap())?;
            Ok(())
        }
    });
    (server, told)
}

#[test]
fn every_socket_gets_1001_and_its_handler_an_orderly_end() {
    let (server, told) = telling();
    let handle = start(server);
    let mut clients: Vec<_> = (0..20).map(|_| Tcp::upgraded(handle.local_addr())).collect();
    let report = begin_shutdown(&handle, patient());
    for client in &mut clients {
        client.expect_hex("8802 03e9");
        client.send(masked(CLOSE, close(1001, "")));
        client.expect_end();
    }
    let report = within(report);
    assert_eq!((report.closed, report.lost, report.dropped), (20, 0, 0), "{report:?}");
    let infos: Vec<_> = within(told.take(20).collect());
    for info in infos {
        assert_eq!((info.code, info.clean), (Some(CloseCode::GOING_AWAY), true));
        assert_eq!(info.initiator, Initiator::Local);
    }
}

#[test]
fn code_and_reason_are_the_callers() {
    let handle = start(echo_server(WebSocketOptions::default()));
    let mut client = Tcp::upgraded(handle.local_addr());
    let options =
        patient().close_code(CloseCode::SERVICE_RESTART).reason("new version, back soon").unwrap();
    let report = begin_shutdown(&handle, options);
    let frame = close(1012, "new version, back soon");
    client.expect(plain(CLOSE, &frame));
    client.send(masked(CLOSE, &frame));
    assert_eq!(within(report).closed, 1);
    assert!(ShutdownOptions::default().reason(&"x".repeat(124)).is_err());
}

#[test]
fn a_request_under_way_is_answered_and_ends_its_connection() {
    let (server, mut arrivals) = slow();
    let handle = start(server);
    let mut client = Tcp::connect(handle.local_addr());
    client.send(GET);
    let open = arrival(&mut arrivals);
    let report = begin_shutdown(&handle, patient());
    open.send(()).unwrap();
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("connection: close"), "{head}");
    client.expect("done");
    client.expect_end();
    let report = within(report);
    assert_eq!((report.closed, report.lost, report.dropped), (0, 0, 0), "{report:?}");
}

#[test]
fn connections_without_a_request_are_closed_at_once() {
    let mut server = Server::new();
    server.get("/", |_ctx: RequestContext| async { Ok("x") });
    let handle = start(server);
    let mut idle = Tcp::connect(handle.local_addr());
    idle.send(GET);
    idle.head();
    idle.expect("x");
    // Accepted, for the answer on a later connection has come; nothing was sent on it.
    let mut silent = Tcp::connect(handle.local_addr());
    let mut later = Tcp::connect(handle.local_addr());
    later.send(GET);
    later.head();
    later.expect("x");
    let report = within(handle.shutdown(patient()));
    assert_eq!(report.dropped, 0);
    idle.expect_end();
    silent.expect_end();
    later.expect_end();
}

#[test]
fn an_upgrade_that_comes_too_late_gets_a_503() {
    let mut server = Server::new();
    let (tell, mut told) = mpsc::unbounded();
    server.get("/", move |mut ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            assert!(!ctx.is_shutting_down());
            tell.unbounded_send(())?;
            ctx.shutting_down().await;
            assert!(ctx.is_shutting_down());
            echo(ctx.upgrade_to_websocket(WebSocketOptions::default()).await?).await?;
            Ok(())
        }
    });
    let handle = start(server);
    let mut client = Tcp::connect(handle.local_addr());
    client.send(OPENING);
    within(told.next());
    let report = begin_shutdown(&handle, patient());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(within(report).dropped, 0);
    assert_eq!(handle.metrics().refused.get("shutting_down"), Some(&1));
}

#[test]
fn close_frames_may_be_spread_over_a_time() {
    let handle = start(echo_server(WebSocketOptions::default()));
    let mut clients: Vec<_> = (0..20).map(|_| Tcp::upgraded(handle.local_addr())).collect();
    let spread = Duration::from_millis(500);
    let report = begin_shutdown(&handle, patient().spread(spread));
    for client in &mut clients {
        client.expect_hex("8802 03e9");
        client.send(masked(CLOSE, close(1001, "")));
    }
    let report = within(report);
    assert_eq!((report.closed, report.lost), (20, 0), "{report:?}");
    // Twenty points at random, all within the first quarter: once in 10^12 runs.
    assert!(report.elapsed > spread / 4, "{report:?}");
}

#[test]
fn a_spread_may_be_longer_than_the_clock_goes() {
    // Half of the points at random are beyond it.
    for _ in 0..10 {
        let handle = start(echo_server(WebSocketOptions::default()));
        let mut client = Tcp::upgraded(handle.local_addr());
        client.send(masked(TEXT, "open"));
        client.expect(plain(TEXT, "open"));
        let report = begin_shutdown(&handle, ShutdownOptions::default().spread(Duration::MAX));
        within(handle.shutdown(ShutdownOptions::default().grace(Duration::ZERO)));
        assert_eq!(within(report).lost, 1);
    }
}

#[test]
fn a_shutdown_goes_on_without_a_waiting_caller() {
    let handle = start(echo_server(WebSocketOptions::default()));
    let mut client = Tcp::upgraded(handle.local_addr());
    assert!(handle.shutdown(patient()).now_or_never().is_none());
    client.expect_hex("8802 03e9");
    client.send(masked(CLOSE, close(1001, "")));
    assert_eq!(within(handle.stopped()).closed, 1);
}

#[test]
fn nothing_that_belongs_to_a_server_outlives_it() {
    let state = Arc::new(());
    let mut server = Server::with_state(Arc::clone(&state));
    server.get("/ws", |mut ctx: RequestContext<Arc<()>>| async move {
        // The context, and with it the state, is kept for as long as the connection.
        echo(ctx.upgrade_to_websocket(WebSocketOptions::default()).await?).await?;
        Ok(ctx.header("host").unwrap_or_default().to_owned())
    });
    server.get("/", |_ctx: RequestContext<Arc<()>>| async { Ok("x") });
    let handle = start(server);
    let addr = handle.local_addr();
    let mut clients: Vec<_> = (0..5).map(|_| Tcp::upgraded_at(addr, "/ws")).collect();
    let mut http = Tcp::connect(addr);
    http.send(GET);
    http.head();
    assert!(Arc::strong_count(&state) > 5);
    let report = begin_shutdown(&handle, patient());
    for client in &mut clients {
        client.expect_hex("8802 03e9");
        client.send(masked(CLOSE, close(1001, "")));
    }
    within(report);
    assert_eq!(Arc::strong_count(&state), 1);
    let metrics = handle.metrics();
    assert_eq!((metrics.open_http, metrics.open_websockets), (0, 0));
}
