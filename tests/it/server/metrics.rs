//! What a server counts.

use tidewire::server::{Metrics, ServerHandle, WorkerMetrics};
use tidewire::{RequestContext, Server, WebSocketOptions};

use super::{GET, patient, start};
use crate::support::frames::{CLOSE, PING, PONG, TEXT, close, masked, plain};
use crate::support::peer::{echo, within};
use crate::support::tcp::{OPENING, Tcp};

/// A server with an echo at `/ws`, and its metrics at `/metrics`.
fn measured() -> ServerHandle {
    let mut server = Server::new();
    server.get("/metrics", tidewire::server::metrics);
    server.get("/ws", |mut ctx: RequestContext| async move {
        echo(ctx.upgrade_to_websocket(WebSocketOptions::default()).await?).await?;
        Ok(())
    });
    start(server)
}

/// One message there and back, and the closing handshake.
fn visit(handle: &ServerHandle, code: u16) {
    let mut client = Tcp::upgraded_at(handle.local_addr(), "/ws");
    client.send(masked(TEXT, "hello"));
    client.expect(plain(TEXT, "hello"));
    client.send(masked(PING, ""));
    client.expect(plain(PONG, ""));
    client.send(masked(CLOSE, close(code, "")));
    client.expect(plain(CLOSE, close(code, "")));
    client.expect_end();
}

#[test]
fn a_snapshot_has_the_counters_of_past_work() {
    let handle = measured();
    let mut nothing = Metrics::default();
    nothing.message_bytes_limit = Some(256 << 20);
    let mut idle = handle.metrics();
    // Nobody is connected, and one task accepts.
    let workers = std::mem::take(&mut idle.workers);
    let count = |of: fn(&WorkerMetrics) -> usize| workers.iter().map(of).sum::<usize>();
    assert_eq!(count(|worker| worker.tasks), usize::from(!workers.is_empty()));
    assert_eq!(count(|worker| worker.connections), 0);
    assert_eq!(idle, nothing);
    visit(&handle, 1000);
    visit(&handle, 1001);
    let mut refused = Tcp::connect(handle.local_addr());
    refused.send(OPENING.replacen("/ ", "/ws ", 1).replace("13", "8"));
    assert!(refused.head().starts_with("HTTP/1.1 426 "));
    let mut missing = Tcp::connect(handle.local_addr());
    missing.send(GET);
    assert!(missing.head().starts_with("HTTP/1.1 404 "));
    let mut open = Tcp::upgraded_at(handle.local_addr(), "/ws");
    open.send(masked(TEXT, "hello"));
    open.expect(plain(TEXT, "hello"));

    let metrics = handle.metrics();
    assert_eq!((metrics.accepted, metrics.upgraded), (5, 3), "{metrics:?}");
    assert_eq!(metrics.open_http, 2, "{metrics:?}");
    assert_eq!((metrics.messages_in, metrics.messages_out), (3, 3));
    // Three messages of 11 bytes, two empty pings of 6, and two close frames of 8.
    assert_eq!(metrics.wire_bytes_in, 3 * 11 + 2 * 6 + 2 * 8);
    assert_eq!(metrics.wire_bytes_out, 3 * 7 + 2 * 2 + 2 * 4);
    assert_eq!(metrics.queued_bytes, 0);
    assert_eq!(metrics.responses, [3, 0, 0, 2, 0]);
    assert_eq!(metrics.refused.iter().next(), Some((&"version_unsupported", &1)));
    assert!(!metrics.is_shutting_down);

    drop((open, refused, missing));
    within(handle.shutdown(patient()));
    let metrics = handle.metrics();
    assert_eq!((metrics.open_http, metrics.open_websockets), (0, 0));
    // The client that was just dropped said no good-bye, or was told one it did not answer.
    let lost = metrics.closes.iter().filter(|(code, _)| [1001, 1006].contains(*code));
    assert_eq!(lost.map(|(_, count)| count).sum::<u64>(), 2, "{metrics:?}");
    assert_eq!(metrics.closes.get(&1000), Some(&1));
    assert!(metrics.is_shutting_down);
}

#[test]
fn the_handler_answers_as_prometheus_reads() {
    let handle = measured();
    visit(&handle, 1000);
    let mut client = Tcp::connect(handle.local_addr());
    client.send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let head = client.head();
    assert!(
        head.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{head}"
    );
    let mut text = String::new();
    std::io::Read::read_to_string(&mut client.socket, &mut text).unwrap();
    for line in [
        "# TYPE tidewire_connections gauge",
        "tidewire_connections{protocol=\"http\"} 1",
        "# TYPE tidewire_upgrades_total counter",
        "tidewire_upgrades_total 1",
        "tidewire_messages_total{direction=\"in\"} 1",
        "tidewire_responses_total{class=\"1xx\"} 1",
        "tidewire_shutting_down 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

#[test]
fn an_app_that_tide_serves_itself_has_no_metrics() {
    let mut app = tide::new();
    app.at("/metrics").get(tidewire::server::endpoint(tidewire::server::metrics));
    let request = tide::http::Request::new(tide::http::Method::Get, "http://x/metrics");
    let response: tide::http::Response = within(app.respond(request)).unwrap();
    assert_eq!(response.status(), tide::StatusCode::NotFound);
}
