//! That nothing is left: permits, places, tasks.

use std::io::ErrorKind;
use std::time::Duration;

use futures::channel::{mpsc, oneshot};
use futures::{FutureExt, StreamExt};
use tidewire::limits::ConnectionLimit;
use tidewire::server::{ServerOptions, ShutdownOptions};
use tidewire::testing::{RawFrame, TestClient};
use tidewire::upgrade::UpgradeOptions;
use tidewire::{CloseCode, Error, Hub, RequestContext, Server, WebSocketOptions};

use super::{SOON, addr, echo, within};

#[test]
fn an_idle_server_has_no_connection_and_no_handler() {
    let (tell, mut told) = mpsc::unbounded();
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            assert_eq!(ws.recv().await?, None);
            let (go, gone) = oneshot::channel::<()>();
            tell.unbounded_send(go)?;
            let _ = gone.await;
            Ok(())
        }
    });
    within(async {
        let client = TestClient::new(&server);
        client.idle().await;
        let mut ws = client.connect("/").await.unwrap();
        ws.close(1000, "").await.unwrap();
        let go = told.next().await.unwrap();
        drop(ws);
        // The handler has outlived its connection.
        assert!(client.idle().now_or_never().is_none());
        drop(go);
        client.idle().await;
        let metrics = client.metrics();
        assert_eq!((metrics.open_http, metrics.open_websockets, metrics.upgraded), (0, 0, 1));
    });
}

#[test]
fn one_of_several_connections_may_be_waited_for() {
    let limit = ConnectionLimit::new(2);
    let client = echo(UpgradeOptions::default().limit(&limit));
    within(async {
        let first = client.connect("/ws").await.unwrap();
        let _second = client.connect("/ws").await.unwrap();
        client.websocket("/ws").refused().await.assert_status(503);
        drop(first);
        client.down_to(1).await;
        assert_eq!(limit.available(), 1);
        assert!(client.idle().now_or_never().is_none());
        client.connect("/ws").await.unwrap();
    });
}

#[test]
fn limits_for_each_address_and_for_the_server_count_as_with_a_port() {
    let per_address = ConnectionLimit::per_address(1);
    let of_all = ConnectionLimit::new(2);
    let mut server = Server::new();
    server.connection_limit(&of_all);
    let options = UpgradeOptions::default().limit(&per_address);
    server.get("/", move |mut ctx: RequestContext| {
        let options = options.clone();
        async move {
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            ws.recv().await?;
            Ok(())
        }
    });
    within(async {
        let client = TestClient::new(&server);
        let [one, two, three] = [1, 2, 3].map(|last| client.peer_addr(addr(last)));
        let inside = one.connect("/").await.unwrap();
        one.websocket("/").refused().await.assert_status(503);
        let _also_inside = two.connect("/").await.unwrap();
        three.websocket("/").refused().await.assert_status(503);
        drop(inside);
        client.down_to(1).await;
        three.connect("/").await.unwrap();
    });
}

#[test]
fn a_connection_too_many_waits_for_a_place() {
    let mut server = Server::new();
    server.options(ServerOptions::default().max_connections(1));
    server.get("/ping", |_ctx: RequestContext| async { Ok("pong") });
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        ws.recv().await?;
        Ok(())
    });
    within(async {
        let client = TestClient::new(&server);
        let peer = client.peer("/ws").await.unwrap();
        let error = client.patience(SOON).get("/ping").send().await.unwrap_err();
        assert!(format!("{error:#}").contains("no whole answer"), "{error:#}");
        let mut waiting = Box::pin(client.get("/ping").send());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(peer);
        waiting.await.unwrap().assert_text("pong");
        client.idle().await;

        // The server goes, and with it those who are in the queue.
        let mut peer = client.peer("/ws").await.unwrap();
        let accepted = client.metrics().accepted;
        let mut queued = client.open().unwrap();
        futures::join!(client.shutdown(), async {
            queued.end_of_stream().await;
            peer.expect_close(1001).await;
            peer.send_frame(RawFrame::close(1001, "")).await.unwrap();
            peer.end_of_stream().await;
        });
        assert_eq!(client.metrics().accepted, accepted);
    });
}

#[test]
fn a_shutdown_reports_the_end_of_every_connection() {
    let mut server = Server::new();
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while ws.recv().await?.is_some() {}
        Ok(())
    });
    server.get("/never", |_ctx: RequestContext| std::future::pending::<tidewire::HandlerResult>());
    within(async {
        let client = TestClient::new(&server);
        let mut ws = client.connect("/ws").await.unwrap();
        let mut peer = client.peer("/ws").await.unwrap();
        let _silent = client.peer("/ws").await.unwrap();
        let mut never = Box::pin(client.get("/never").send());
        assert!(futures::poll!(&mut never).is_pending());

        let options = ShutdownOptions::default()
            .close_code(CloseCode::SERVICE_RESTART)
            .grace(Duration::from_millis(50));
        let (report, ..) = futures::join!(
            client.shutdown_with(options),
            async { assert_eq!(ws.recv().await.unwrap(), None) },
            async {
                peer.expect_close(1012).await;
                peer.send_frame(RawFrame::close(1012, "")).await.unwrap();
                peer.end_of_stream().await;
            },
        );
        // The silent one, and the request that is not answered.
        assert_eq!((report.closed, report.lost, report.dropped), (2, 1, 2));
        assert!(never.await.is_err());
        client.idle().await;
        assert_eq!(ws.close_info().unwrap().reported_code(), 1012);
    });
}

#[test]
fn a_server_that_was_shut_down_takes_no_connection() {
    let client = echo(WebSocketOptions::default());
    within(async {
        let handle = client.handle();
        assert_eq!(client.shutdown().await.dropped, 0);
        assert!(handle.is_shutting_down());
        let refused = |error| matches!(error, Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused);
        assert!(refused(client.connect("/ws").await.unwrap_err()));
        assert!(refused(client.get("/").send().await.unwrap_err()));
        assert!(refused(client.open().unwrap_err()));
        // Another client is another server.
        let _ = client.shutdown().await;
        echo(WebSocketOptions::default()).connect("/ws").await.unwrap();
    });
}

#[test]
fn rooms_are_those_of_the_application() {
    let hub = Hub::new();
    let mut server = Server::with_state(hub.clone());
    server.get("/:room", |mut ctx: RequestContext<Hub>| async move {
        let room = ctx.state().room(&ctx.param::<String>("room")?);
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        let _membership = room.join(&ws);
        ws.send("joined").await?;
        while let Some(message) = ws.recv().await? {
            room.broadcast(message);
        }
        Ok(())
    });
    within(async {
        let client = TestClient::new(&server);
        let mut members = Vec::new();
        for _ in 0..3 {
            let mut ws = client.connect("/lobby").await.unwrap();
            assert_eq!(ws.recv().await.unwrap(), Some("joined".into()));
            members.push(ws);
        }
        members[0].send("Hello").await.unwrap();
        for ws in &mut members {
            assert_eq!(ws.recv().await.unwrap(), Some("Hello".into()));
        }
        drop(members);
        client.idle().await;
        assert!(hub.room("lobby").is_empty());
    });
}
