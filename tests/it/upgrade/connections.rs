//! Connections of a program that has an HTTP server of its own: limits, counters, and the end of all of them.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use ::http::Request;
use async_std::task;
use async_std::task::JoinHandle;
use futures::FutureExt;
use futures::channel::oneshot;
use tidewire::deflate::{DeflateBudget, DeflateOptions};
use tidewire::frame::Role;
use tidewire::limits::ConnectionLimit;
use tidewire::upgrade::{Admitted, Connections, ShutdownOptions, Upgrade, UpgradeOptions};
use tidewire::{CloseCode, Error, HandshakeError, Reject, WebSocket, WebSocketOptions};

use crate::support::peer::within;
use crate::support::pipe::{Knobs, pipe};

fn opening() -> Request<()> {
    Request::get("/")
        .header("Host", "x")
        .header("Upgrade", "websocket")
        .header("Connection", "Upgrade")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Version", "13")
        .body(())
        .unwrap()
}

async fn admit(
    connections: &Connections,
    request: &Request<()>,
    options: &UpgradeOptions,
) -> Result<Admitted, HandshakeError> {
    let checked = Upgrade::check(request.method(), request.headers(), options);
    connections.admit(checked, options).await
}

async fn admitted(connections: &Connections, options: &UpgradeOptions) -> Admitted {
    admit(connections, &opening(), options).await.unwrap()
}

/// Runs a handler on a connection in a task. Returns the client's side.
fn run<Fut>(
    admitted: Admitted,
    handler: impl FnOnce(WebSocket) -> Fut,
) -> (WebSocket, JoinHandle<()>)
where
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (ours, theirs) = pipe(Knobs::WIDE);
    let running = task::spawn(admitted.run(ours, handler));
    let client = WebSocket::from_stream(theirs, "", Role::Client, &WebSocketOptions::default());
    (client, running)
}

async fn echo(mut ws: WebSocket) -> Result<(), Error> {
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}

#[test]
fn a_connection_is_counted_while_it_is_open_and_after_it() {
    within(async {
        let connections = Connections::new();
        let options = UpgradeOptions::default();
        let (mut client, running) = run(admitted(&connections, &options).await, echo);
        client.send("Hello").await.unwrap();
        assert_eq!(client.recv().await.unwrap(), Some("Hello".into()));
        assert_eq!(connections.len(), 1);
        let metrics = connections.metrics();
        assert_eq!((metrics.open_websockets, metrics.upgraded), (1, 1));
        assert_eq!(metrics.message_bytes_limit, Some(256 * 1024 * 1024));

        client.close(CloseCode::NORMAL, "").await.unwrap();
        running.await;
        assert!(connections.is_empty());
        let metrics = connections.metrics();
        assert_eq!((metrics.open_websockets, metrics.upgraded), (0, 1));
        assert_eq!((metrics.messages_in, metrics.messages_out), (1, 1));
        assert_eq!(metrics.closes, [(1000, 1)].into());
        assert!(metrics.to_prometheus().contains("tidewire_upgrades_total 1\n"));
    });
}

#[async_std::test]
async fn a_refusal_is_counted_by_its_name() {
    let connections = Connections::with_message_memory(None);
    let mut request = opening();
    request.headers_mut().insert("Sec-WebSocket-Version", "8".parse().unwrap());
    let refused = admit(&connections, &request, &UpgradeOptions::default()).await.unwrap_err();
    assert_eq!(refused, HandshakeError::VersionUnsupported);
    let mut request = opening();
    request.headers_mut().insert("Origin", "https://evil.example".parse().unwrap());
    for _ in 0..2 {
        let refused = admit(&connections, &request, &UpgradeOptions::default()).await;
        assert_eq!(refused.unwrap_err(), HandshakeError::OriginForbidden);
    }
    let metrics = connections.metrics();
    assert_eq!(metrics.refused, [("origin_forbidden", 2), ("version_unsupported", 1)].into());
    assert_eq!(metrics.message_bytes_limit, None);
}

#[test]
fn a_permit_is_free_when_handler_and_connection_have_ended() {
    within(async {
        let limit = ConnectionLimit::new(1);
        let connections = Connections::new();
        let options = UpgradeOptions::default().limit(&limit);
        let (go_on, waits) = oneshot::channel::<()>();
        let (mut client, running) = run(admitted(&connections, &options).await, |ws| async move {
            echo(ws).await?;
            let _ = waits.await;
            Ok(())
        });
        let refused = admit(&connections, &opening(), &options).await.unwrap_err();
        assert!(matches!(refused, HandshakeError::LimitReached { .. }), "{refused:?}");
        client.close(CloseCode::NORMAL, "").await.unwrap();
        // The connection has ended, and its handler has not.
        assert_eq!(limit.available(), 0);
        go_on.send(()).unwrap();
        running.await;
        assert_eq!(limit.available(), 1);
        // Neither an upgrade nor a connection that is dropped keeps its permit.
        drop(admitted(&connections, &options).await);
        assert_eq!(limit.available(), 1);
        let (ours, _theirs) = pipe(Knobs::WIDE);
        let connection = admitted(&connections, &options).await.run(ours, echo);
        assert_eq!((limit.available(), connections.len()), (0, 1));
        drop(connection);
        assert_eq!((limit.available(), connections.len()), (1, 0));
    });
}

#[test]
fn a_request_that_waits_in_line_holds_no_memory_for_compression() {
    within(async {
        let budget = DeflateBudget::new(8 << 20);
        let deflate = DeflateOptions::default()
            .server_context_takeover(true)
            .client_context_takeover(true)
            .budget(&budget);
        let websocket = WebSocketOptions::default().deflate(deflate);
        let limit = ConnectionLimit::new(1).wait(Duration::from_secs(60), 100);
        let options = UpgradeOptions::from(websocket).limit(&limit);
        let mut request = opening();
        let offer = "permessage-deflate; client_max_window_bits".parse().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Extensions", offer);
        let connections = Connections::new();
        let first = admit(&connections, &request, &options).await.unwrap();
        let agreed = first.deflate().unwrap();
        assert!(!agreed.server_no_context_takeover());
        let with_one = budget.available();
        assert!(with_one < 8 << 20);

        let mut waiting: Vec<_> =
            (0..50).map(|_| Box::pin(admit(&connections, &request, &options))).collect();
        for request in &mut waiting {
            assert!(request.now_or_never().is_none());
        }
        assert_eq!(budget.available(), with_one);
        drop(first);
        let mut waiting = waiting.into_iter();
        let second = waiting.next().unwrap().await.unwrap();
        assert_eq!((second.deflate(), budget.available()), (Some(agreed), with_one));
        drop(second);
        assert_eq!(budget.available(), 8 << 20);

        drop(waiting);

        // One whose memory others have taken meanwhile compresses each message on its own, and says so.
        let budget = DeflateBudget::new((8 << 20) - with_one);
        let deflate = DeflateOptions::default()
            .server_context_takeover(true)
            .client_context_takeover(true)
            .budget(&budget);
        let free = UpgradeOptions::from(WebSocketOptions::default().deflate(deflate));
        let limited = free.clone().limit(&limit);
        let inside = admitted(&connections, &UpgradeOptions::default().limit(&limit)).await;
        let mut last = Box::pin(admit(&connections, &request, &limited));
        assert!((&mut last).now_or_never().is_none());
        let other = admit(&connections, &request, &free).await.unwrap();
        assert!(!other.deflate().unwrap().server_no_context_takeover());
        assert_eq!(budget.available(), 0);
        drop(inside);
        let last = last.await.unwrap();
        let agreed = last.deflate().unwrap();
        assert!(agreed.server_no_context_takeover() && agreed.client_no_context_takeover());
        let told = last.response().headers()["sec-websocket-extensions"].clone();
        assert_eq!(told.to_str().unwrap(), agreed.to_string());
    });
}

#[async_std::test]
async fn a_limit_for_each_address_counts_what_the_program_says() {
    let limit = ConnectionLimit::per_address(1);
    let connections = Connections::new();
    let options = UpgradeOptions::default().limit(&limit);
    let from = async |peer: &str, client: Option<&str>| {
        let request = opening();
        let checked = Upgrade::check(request.method(), request.headers(), &options);
        let checked = checked.map(|upgrade| {
            let upgrade = upgrade.peer_addr(peer.parse().unwrap());
            client
                .map(|client| client.parse().unwrap())
                .into_iter()
                .fold(upgrade, Upgrade::client_ip)
        });
        connections.admit(checked, &options).await
    };
    let _first = from("192.0.2.1:1", None).await.unwrap();
    assert!(from("192.0.2.1:2", None).await.is_err());
    // A proxy that reports others.
    let _second = from("192.0.2.1:3", Some("198.51.100.1")).await.unwrap();
    assert!(from("192.0.2.9:4", Some("198.51.100.1")).await.is_err());
    let _third = from("192.0.2.9:5", None).await.unwrap();
}

#[test]
fn a_shutdown_closes_all_connections_and_refuses_new_ones() {
    within(async {
        let limit = ConnectionLimit::new(3).wait(Duration::from_secs(60), 1);
        let connections = Connections::new();
        let options = UpgradeOptions::default().limit(&limit);
        let mut clients = Vec::new();
        for _ in 0..2 {
            clients.push(run(admitted(&connections, &options).await, echo));
        }
        let begun = admitted(&connections, &options).await;
        // One waits in line for a permit.
        let request = opening();
        let mut waiting = Box::pin(admit(&connections, &request, &options));
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!(limit.waiting(), 1);

        let closing = ShutdownOptions::default().close_code(CloseCode::SERVICE_RESTART);
        let mut shutdown = Box::pin(connections.shutdown(closing));
        assert!((&mut shutdown).now_or_never().is_none());
        assert_eq!(waiting.await.unwrap_err(), HandshakeError::ShuttingDown);
        let refused = admit(&connections, &request, &options).await.unwrap_err();
        assert_eq!(refused, HandshakeError::ShuttingDown);
        // The 101 of this one is on its way: it is closed as soon as it is open.
        clients.push(run(begun, echo));
        for (client, _) in &mut clients {
            assert_eq!(client.recv().await.unwrap(), None);
            assert_eq!(client.close_info().unwrap().code, Some(CloseCode::SERVICE_RESTART));
        }
        let report = shutdown.await;
        assert_eq!((report.closed, report.lost, report.dropped), (3, 0, 0));
        assert_eq!((limit.available(), connections.len()), (3, 0));
        let metrics = connections.metrics();
        assert!(metrics.is_shutting_down);
        assert_eq!(metrics.refused, [("shutting_down", 2)].into());
        let again = connections.shutdown(()).await;
        assert_eq!((again.closed, again.dropped), (0, 0));
    });
}

#[test]
fn a_handler_that_goes_on_is_dropped_after_the_grace() {
    within(async {
        let connections = Connections::new();
        let options = UpgradeOptions::default();
        let (held, is_dropped) = oneshot::channel::<()>();
        let (mut client, running) = run(admitted(&connections, &options).await, |ws| async move {
            let _held = (held, ws);
            pending().await
        });
        // The patient one waits for the other's grace, too.
        let patient = connections.shutdown(());
        let hasty = connections.shutdown(ShutdownOptions::default().grace(Duration::ZERO));
        let (hasty, patient) = futures::join!(hasty, patient);
        assert_eq!((hasty.dropped, patient.dropped), (1, 0));
        is_dropped.await.unwrap_err();
        running.await;
        assert!(connections.is_empty());
        while let Ok(Some(_)) = client.recv().await {}
    });
}

#[test]
fn a_connection_that_is_dropped_is_counted_when_the_shutdown_goes_on() {
    /// Looks at the connections where it is woken.
    struct Curious(Connections, Mutex<Vec<usize>>);

    impl Wake for Curious {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0.len());
        }
    }

    for polls in 0..3 {
        let connections = Connections::new();
        let admitted = task::block_on(admitted(&connections, &UpgradeOptions::default()));
        let (ours, _theirs) = pipe(Knobs::WIDE);
        let mut running = admitted.run(ours, echo);
        for _ in 0..polls {
            assert!((&mut running).now_or_never().is_none());
        }
        let curious = Arc::new(Curious(connections.clone(), Mutex::default()));
        let mut shutdown = Box::pin(connections.shutdown(()));
        let waker = Waker::from(Arc::clone(&curious));
        assert!(shutdown.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(running);
        assert_eq!(*curious.1.lock().unwrap(), [0], "after {polls} polls");
        let report = shutdown.now_or_never().unwrap();
        assert_eq!((report.closed, report.lost, report.dropped), (0, 1, 0));
    }
}

#[test]
fn the_error_of_a_handler_says_how_its_connection_ends() {
    within(async {
        let connections = Connections::new();
        let admitted = admitted(&connections, &UpgradeOptions::default()).await;
        let (ours, theirs) = pipe(Knobs::WIDE);
        let handler = |ws: WebSocket| async move {
            let _ws = ws;
            Err::<(), _>(Reject::close(4003, "kicked"))
        };
        let running = task::spawn(admitted.run(ours, handler));
        let options = WebSocketOptions::default();
        let mut client = WebSocket::from_stream(theirs, "", Role::Client, &options);
        assert_eq!(client.recv().await.unwrap(), None);
        let info = client.close_info().unwrap();
        assert_eq!((info.reported_code(), info.reason.as_str()), (4003, "kicked"));
        running.await;
        assert_eq!(connections.metrics().closes, [(4003, 1)].into());
    });
}
