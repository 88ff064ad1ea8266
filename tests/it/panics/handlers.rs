//! What the peer of a handler that panics sees, and what others see beside it.

use std::net::SocketAddr;
use std::panic::panic_any;

use async_std::task;
use tidewire::server::{ServerHandle, ShutdownOptions};
use tidewire::{Error, RequestContext, Server, WebSocketOptions};

use super::{Bomb, Unspeakable};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{echo, within};
use crate::support::tcp::{Tcp, until_equal};

/// Ways to panic after a first message, by the name of their route.
pub(super) const WAYS: [&str; 7] =
    ["body", "payload", "result", "error", "display", "captured", "dropped"];

/// A server with all ways to panic, an echo, and a feed from another task.
pub(super) fn server() -> Server {
    let mut server = Server::new();
    server.get("/body", |mut ctx: RequestContext| async move {
        first_message(&mut ctx).await?;
        let _local = "dropped while this unwinds".to_owned();
        if true { panic!("on purpose") } else { Ok(()) }
    });
    server.get("/payload", |mut ctx: RequestContext| async move {
        first_message(&mut ctx).await?;
        if true { panic_any(Bomb) } else { Ok(()) }
    });
    server.get("/result", |mut ctx: RequestContext| async move {
        first_message(&mut ctx).await?;
        Ok(Bomb)
    });
    server.get("/error", |mut ctx: RequestContext| async move {
        first_message(&mut ctx).await?;
        Err::<(), _>(Bomb.into())
    });
    server.get("/display", |mut ctx: RequestContext| async move {
        first_message(&mut ctx).await?;
        Err::<(), _>(Unspeakable(Bomb).into())
    });
    server.get("/captured", |mut ctx: RequestContext| {
        // Dropped with the future, and not before.
        Captured::new(async move { first_message(&mut ctx).await })
    });
    server.get("/dropped", |mut ctx: RequestContext| async move {
        let _bomb = Bomb;
        first_message(&mut ctx).await
    });
    server.get("/feed", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        let sender = ws.sender();
        task::spawn(async move {
            for number in 0..20 {
                task::yield_now().await;
                sender.send(number.to_string()).await?;
            }
            Ok::<_, Error>(())
        });
        while ws.recv().await?.is_some() {}
        Ok(())
    });
    server.get("/", |mut ctx: RequestContext| async move {
        let options = WebSocketOptions::default();
        Ok(echo(ctx.upgrade_to_websocket(options).await?).await?)
    });
    server
}

/// A future with a bomb beside it, which goes off when the future is dropped.
struct Captured<F> {
    future: std::pin::Pin<Box<F>>,
    _bomb: Bomb,
}

impl<F> Captured<F> {
    fn new(future: F) -> Self {
        Self { future: Box::pin(future), _bomb: Bomb }
    }
}

impl<F: Future> Future for Captured<F> {
    type Output = F::Output;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<F::Output> {
        self.future.as_mut().poll(cx)
    }
}

async fn first_message(ctx: &mut RequestContext) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    ws.recv().await?;
    Ok(())
}

pub(super) fn start() -> (ServerHandle, SocketAddr) {
    let handle = within(server().start("127.0.0.1:0")).unwrap();
    let addr = handle.local_addr();
    (handle, addr)
}

/// A handler that panics in this way: its peer is told, and its connection counted.
pub(super) fn panics(addr: SocketAddr, way: &str) {
    let mut client = Tcp::upgraded_at(addr, &format!("/{way}"));
    client.send(masked(TEXT, "Hello"));
    assert_eq!(client.frame().close_code(), Some(1011), "{way}");
    client.send(masked(CLOSE, close(1011, "")));
    client.expect_end();
}

pub(super) fn expect_echo(client: &mut Tcp) {
    client.send(masked(TEXT, "Hello"));
    client.expect(plain(TEXT, "Hello"));
}

#[test]
fn the_peer_of_a_handler_that_panics_in_any_way_is_told_with_1011() {
    let (handle, addr) = start();
    let mut beside = Tcp::upgraded(addr);
    // Without a logger, nothing is written.
    let ways = WAYS.into_iter().filter(|way| *way != "display");
    for (number, way) in (1..).zip(ways) {
        panics(addr, way);
        expect_echo(&mut beside);
        until_equal(way, &Some(number), || handle.metrics().closes.get(&1011).copied());
    }
    until_equal("one is left", &(1, 0), || {
        let metrics = handle.metrics();
        (metrics.open_websockets, metrics.open_http)
    });
    drop(beside);
    let report = within(handle.shutdown(ShutdownOptions::default()));
    assert_eq!(report.dropped, 0, "{report:?}");
}

#[test]
fn feeds_lose_and_reorder_nothing_beside_connections_that_panic() {
    let (handle, addr) = start();
    for _ in 0..5 {
        for _ in 0..8 {
            panics(addr, "error");
        }
        let mut feeds: Vec<Tcp> = (0..100).map(|_| Tcp::upgraded_at(addr, "/feed")).collect();
        for feed in &mut feeds {
            for number in 0..20 {
                feed.expect(plain(TEXT, number.to_string()));
            }
        }
    }
    within(handle.shutdown(ShutdownOptions::default()));
}
