//! Echo, heartbeat and rooms under smol, without async-std in the tree.

use std::time::Duration;

use futures::channel::mpsc::unbounded;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use smol::net::TcpStream;
use smol_check::{serve, within};
use tidewire::rooms::LocalBackplane;
use tidewire::websocket::{HeartbeatOptions, TimeoutKind};
use tidewire::{Client, Error, Hub, Message, Result, WebSocket, WebSocketOptions};

async fn echo(mut ws: WebSocket) -> Result<()> {
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}

fn text(message: Option<Message>) -> Option<String> {
    message?.as_text().map(str::to_owned)
}

#[test]
fn an_echo_answers_and_closes_in_order() {
    within(async {
        let addr = serve(WebSocketOptions::default(), echo).await?;
        let client = Client::new(format!("ws://localhost:{}/", addr.port()));
        let heard = client
            .run(|mut ws| async move {
                for number in 0..100 {
                    ws.send(format!("{number}")).await?;
                }
                let mut heard = Vec::new();
                for _ in 0..100 {
                    heard.push(text(ws.recv().await?));
                }
                Ok::<_, Error>(heard)
            })
            .await?;
        let sent: Vec<_> = (0..100).map(|number| Some(format!("{number}"))).collect();
        assert_eq!(heard, sent);
        Ok::<_, Error>(())
    })
    .unwrap();
}

#[test]
fn a_peer_that_does_not_answer_pings_is_given_up() {
    within(async {
        let (report, mut reports) = unbounded();
        let heartbeat = HeartbeatOptions::default()
            .interval(Duration::from_millis(20))
            .timeout(Duration::from_millis(50));
        let options = WebSocketOptions::default().heartbeat(heartbeat);
        let addr = serve(options, move |mut ws| {
            let report = report.clone();
            async move {
                let outcome = ws.recv().await;
                report.unbounded_send(outcome).ok();
                Ok(())
            }
        })
        .await?;
        // A client that upgrades and then neither reads nor writes.
        let mut silent = TcpStream::connect(addr).await?;
        silent
            .write_all(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            )
            .await?;
        let outcome = reports.next().await.expect("the handler reports");
        assert!(matches!(outcome, Err(Error::Timeout(TimeoutKind::Pong))), "{outcome:?}");
        let mut seen = Vec::new();
        silent.read_to_end(&mut seen).await?;
        assert!(seen.starts_with(b"HTTP/1.1 101 "));
        Ok::<_, Error>(())
    })
    .unwrap();
}

/// A handler that says all it hears to everybody in a room.
fn room_of(hub: Hub) -> impl Fn(WebSocket) -> smol::future::Boxed<Result<()>> + Clone {
    move |mut ws| {
        let room = hub.room("lobby");
        Box::pin(async move {
            let _member = room.join(&ws);
            room.broadcast(format!("{} here", room.len()));
            while let Some(message) = ws.recv().await? {
                room.broadcast(message);
            }
            Ok(())
        })
    }
}

#[test]
fn a_message_in_a_room_reaches_all_its_members() {
    within(async {
        let addr = serve(WebSocketOptions::default(), room_of(Hub::new())).await?;
        let url = format!("ws://{addr}/");
        let mut ada = tidewire::connect(&url).await?;
        assert_eq!(text(ada.recv().await?).as_deref(), Some("1 here"));
        let mut bob = tidewire::connect(&url).await?;
        for ws in [&mut ada, &mut bob] {
            assert_eq!(text(ws.recv().await?).as_deref(), Some("2 here"));
        }
        bob.send("hi").await?;
        for ws in [&mut ada, &mut bob] {
            assert_eq!(text(ws.recv().await?).as_deref(), Some("hi"));
        }
        Ok::<_, Error>(())
    })
    .unwrap();
}

#[test]
fn rooms_are_joined_by_a_backplane_that_runs_wherever_tasks_run() {
    within(async {
        let backplane = LocalBackplane::new();
        let mut addrs = Vec::new();
        for _ in 0..2 {
            let hub = Hub::with_backplane(backplane.clone());
            addrs.push(serve(WebSocketOptions::default(), room_of(hub)).await?);
        }
        let mut here = tidewire::connect(format!("ws://{}/", addrs[0])).await?;
        assert_eq!(text(here.recv().await?).as_deref(), Some("1 here"));
        let mut there = tidewire::connect(format!("ws://{}/", addrs[1])).await?;
        while text(there.recv().await?).as_deref() != Some("1 here") {}
        there.send("hello").await?;
        // What the other said on joining may come first, or not at all.
        while text(here.recv().await?).as_deref() != Some("hello") {}
        Ok::<_, Error>(())
    })
    .unwrap();
}
