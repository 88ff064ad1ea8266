//! What becomes of those who do not end in time.

use std::future::pending;
use std::time::Duration;

use futures::channel::oneshot;
use tidewire::server::ShutdownOptions;
use tidewire::{RequestContext, Server, WebSocketOptions};

use super::{GET, arrival, begin_shutdown, gate, patient, slow, start, stuck};
use crate::support::frames::{CLOSE, close, masked};
use crate::support::peer::within;
use crate::support::tcp::{Tcp, echo_server};

/// A grace period that is over soon.
fn brief() -> ShutdownOptions {
    ShutdownOptions::default().grace(Duration::from_millis(100))
}

#[test]
fn a_handler_that_does_not_return_is_dropped_when_grace_is_over() {
    let (server, mut arrivals) = stuck();
    let handle = start(server);
    let mut client = Tcp::upgraded(handle.local_addr());
    let stuck = arrival(&mut arrivals);
    let report = begin_shutdown(&handle, brief());
    client.expect_hex("8802 03e9");
    client.send(masked(CLOSE, close(1001, "")));
    client.expect_end();
    let report = within(report);
    // Its connection has ended well all the same.
    assert_eq!((report.closed, report.lost, report.dropped), (1, 0, 1), "{report:?}");
    assert!(stuck.is_canceled());
}

#[test]
fn a_request_that_is_not_answered_is_dropped_when_grace_is_over() {
    let (server, mut arrivals) = slow();
    let handle = start(server);
    let mut client = Tcp::connect(handle.local_addr());
    client.send(GET);
    let stuck = arrival(&mut arrivals);
    let report = within(handle.shutdown(brief()));
    assert_eq!((report.closed, report.lost, report.dropped), (0, 0, 1), "{report:?}");
    assert!(report.elapsed >= Duration::from_millis(100));
    assert!(stuck.is_canceled());
    client.expect_end();
}

#[test]
fn a_peer_that_does_not_answer_the_close_frame_is_lost_after_the_close_timeout() {
    let options = WebSocketOptions::default().close_timeout(Duration::from_millis(100));
    let handle = start(echo_server(options));
    let mut client = Tcp::upgraded(handle.local_addr());
    let report = within(handle.shutdown(patient()));
    assert_eq!((report.closed, report.lost, report.dropped), (0, 1, 0), "{report:?}");
    client.expect_hex("8802 03e9");
    client.expect_end();
}

#[test]
fn a_second_shutdown_may_cut_the_patience_of_the_first_short() {
    let (server, mut arrivals) = stuck();
    let handle = start(server);
    let _client = Tcp::upgraded(handle.local_addr());
    let _stuck = arrival(&mut arrivals);
    let first = begin_shutdown(&handle, patient());
    let second = within(handle.shutdown(ShutdownOptions::default().grace(Duration::ZERO)));
    // And the task that upgraded it, if that has not come to its end yet.
    assert!((1..=2).contains(&second.dropped), "{second:?}");
    assert_eq!(within(first), second);
}

#[test]
fn a_handler_that_was_moved_away_from_its_connection_is_closed_as_well() {
    let (given, taken) = oneshot::channel();
    let given = std::sync::Mutex::new(Some(given));
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let given = given.lock().unwrap().take();
        async move {
            let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            given.unwrap().send(ws).unwrap();
            Ok(())
        }
    });
    let handle = start(server);
    let mut client = Tcp::upgraded(handle.local_addr());
    let mut ws = within(taken).unwrap();
    let report = begin_shutdown(&handle, patient());
    client.expect_hex("8802 03e9");
    client.send(masked(CLOSE, close(1001, "")));
    assert!(within(ws.recv()).unwrap().is_none());
    assert_eq!(within(report).closed, 1);
}

#[test]
fn a_response_that_never_ends_watches_for_the_shutdown() {
    let (gate, mut arrivals) = gate();
    let mut server = Server::new();
    server.get("/", move |ctx: RequestContext| {
        let passed = gate.pass();
        async move {
            drop(passed);
            let endless = Box::pin(pending::<()>());
            futures::future::select(Box::pin(ctx.shutting_down()), endless).await;
            Ok("bye")
        }
    });
    let handle = start(server);
    let mut client = Tcp::connect(handle.local_addr());
    client.send(GET);
    arrival(&mut arrivals);
    let report = begin_shutdown(&handle, patient());
    client.head();
    client.expect("bye");
    assert_eq!(within(report).dropped, 0);
}
