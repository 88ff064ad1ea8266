//! What the network does: splits, stalls, cuts, ends.

use std::io::ErrorKind;

use futures::FutureExt;
use futures::channel::oneshot;
use tidewire::limits::ConnectionLimit;
use tidewire::testing::{Line, RawFrame, TestClient};
use tidewire::upgrade::UpgradeOptions;
use tidewire::websocket::TimeoutKind;
use tidewire::{Error, Message, RequestContext, Server, WebSocketOptions};

use super::{SOON, echo, next, observed, within};

/// The kind of I/O error that a `Result` is.
fn kind<T: std::fmt::Debug>(outcome: Result<T, Error>) -> ErrorKind {
    match outcome {
        Err(Error::Io(error)) => error.kind(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_works_when_it_is_split_at_every_byte() {
    let mut server = Server::new();
    server.post("/", |mut ctx: RequestContext| async move { ctx.body_string().await });
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while let Some(message) = ws.recv().await? {
            ws.send(message).await?;
        }
        Ok(())
    });
    for line in [1, 2, 3, 7].map(|bytes| Line::new().chunk_size(bytes)).into_iter().chain([
        Line::new().capacity(1),
        Line::new().capacity(3).chunk_size(2),
        Line::new().chunk_size(0),
    ]) {
        within(async {
            let client = TestClient::new(&server).over(&line);
            let text = "é".repeat(500);
            client.post("/").body(text.clone()).send().await.unwrap().assert_text(&text);

            let mut ws = client.connect("/ws").await.unwrap();
            let sender = ws.sender();
            let (sent, received) = futures::join!(sender.send(text.clone()), ws.recv());
            sent.unwrap();
            assert_eq!(received.unwrap(), Some(Message::from(text)), "{line:?}");
            assert!(ws.close(1000, "bye").await.unwrap().clean);

            let mut peer = client.peer("/ws").await.unwrap();
            peer.send_frame(RawFrame::text("Hello")).await.unwrap();
            peer.expect_text("Hello").await;
            peer.send_frame(RawFrame::text("").unmasked()).await.unwrap();
            peer.expect_close(1002).await;
            peer.end_of_stream().await;
        });
    }
}

#[test]
fn a_client_that_stalls_is_given_up_after_the_send_timeout() {
    let (client, mut outcomes) = observed(WebSocketOptions::default().send_timeout(SOON));
    within(async {
        let mut peer = client.peer("/ws").await.unwrap();
        peer.line().stall();
        peer.send_frame(RawFrame::text("Hello")).await.unwrap();
        let (last, info) = next(&mut outcomes).await;
        assert!(matches!(last, Err(Error::Timeout(TimeoutKind::Send))), "{last:?}");
        assert_eq!((info.reported_code(), info.clean), (1006, false));
        client.idle().await;
    });
}

#[test]
fn nothing_is_lost_over_a_line_that_was_stalled() {
    let client = echo(WebSocketOptions::default());
    within(async {
        let line = Line::new();
        let over_line = client.over(&line);
        let mut peer = over_line.peer("/ws").await.unwrap();
        peer.send_frame(RawFrame::text("before")).await.unwrap();
        peer.expect_text("before").await;
        line.stall();
        peer.send_frame(RawFrame::text("one")).await.unwrap();
        peer.send_frame(RawFrame::text("two")).await.unwrap();
        // What comes later is stalled as well, and another line is not.
        let mut later = Box::pin(over_line.connect("/ws"));
        assert!(futures::poll!(&mut later).is_pending());
        client.connect("/ws").await.unwrap();
        assert!(peer.recv_frame().now_or_never().is_none());
        line.release();
        peer.expect_text("one").await;
        peer.expect_text("two").await;
        later.await.unwrap();
    });
}

#[test]
fn a_line_that_is_cut_fails_on_both_sides_and_gives_the_permit_back() {
    let limit = ConnectionLimit::new(1);
    let (client, mut outcomes) = observed(UpgradeOptions::default().limit(&limit));
    within(async {
        let line = Line::new();
        let mut ws = client.over(&line).connect("/ws").await.unwrap();
        assert_eq!(limit.available(), 0);
        client.websocket("/ws").refused().await.assert_status(503);
        line.cut();
        let (last, info) = next(&mut outcomes).await;
        assert_eq!(kind(last), ErrorKind::ConnectionReset);
        assert_eq!(info.reported_code(), 1006);
        assert_eq!(kind(ws.recv().await), ErrorKind::ConnectionReset);
        client.idle().await;
        assert_eq!(limit.available(), 1);

        // The line itself is as good as before.
        let mut peer = client.over(&line).peer("/ws").await.unwrap();
        peer.send_frame(RawFrame::text("Hello")).await.unwrap();
        peer.expect_text("Hello").await;
        line.cut();
        assert_eq!(kind(peer.recv_frame().await), ErrorKind::ConnectionReset);
        assert_eq!(kind(peer.send_bytes("x").await), ErrorKind::ConnectionReset);
        client.idle().await;
        assert_eq!(limit.available(), 1);
    });
}

#[test]
fn an_end_without_a_close_frame_is_not_an_orderly_one() {
    let (client, mut outcomes) = observed(WebSocketOptions::default());
    within(async {
        let mut peer = client.peer("/ws").await.unwrap();
        peer.send_frame(RawFrame::text("last")).await.unwrap();
        peer.line().end();
        assert_eq!(kind(peer.send_bytes("x").await), ErrorKind::BrokenPipe);
        let (last, info) = next(&mut outcomes).await;
        assert_eq!(kind(last), ErrorKind::UnexpectedEof);
        assert_eq!(info.reported_code(), 1006);
        assert_eq!(client.metrics().messages_in, 1, "what came before the end is read");

        drop(client.peer("/ws").await.unwrap());
        assert_eq!(kind(next(&mut outcomes).await.0), ErrorKind::UnexpectedEof);
        client.idle().await;
    });
}

#[test]
fn a_handler_waits_for_a_client_whose_line_is_full() {
    let (tell, told) = oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let tell = tell.lock().unwrap().take();
        async move {
            let options = WebSocketOptions::default().send_buffer_size(100);
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            for _ in 0..100 {
                ws.send([7; 100]).await?;
            }
            let _ = tell.unwrap().send(());
            Ok(())
        }
    });
    within(async {
        let client = TestClient::new(&server).over(&Line::new().capacity(1000));
        let mut peer = client.peer("/").await.unwrap();
        let mut told = told;
        for _ in 0..80 {
            assert_eq!(peer.recv_frame().await.unwrap().payload().len(), 100);
            // More than 20 messages never fit into line and buffers.
            assert_eq!(told.try_recv(), Ok(None));
        }
        for _ in 0..20 {
            assert_eq!(peer.recv_frame().await.unwrap().payload().len(), 100);
        }
        peer.expect_close(1000).await;
        told.await.unwrap();
    });
}
