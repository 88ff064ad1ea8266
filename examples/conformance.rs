//! A server for conformance suites and benchmarks.
//!
//! ```text
//! cargo run --release --example conformance -- 127.0.0.1:9001
//! ```
//!
//! | route | options |
//! | --- | --- |
//! | `/echo` | messages up to 64 MiB, as Autobahn's 9.* cases need, and no heartbeat |
//! | `/default` | the defaults, limits included |
//! | `/echo-heartbeat` | the defaults, and a ping each second |
//! | `/echo-deflate` | compressed as the client offers, with every parameter accepted |
//! | `/echo-takeover` | compressed with context takeover both ways and the largest windows |
//! | `/default-deflate` | the defaults, and the defaults of compression |
//! | `/default-ctx` | the defaults, and a handler that keeps its request |
//! | `/room`, `/room-deflate` | the same two; each message goes to all clients, or with `?name=` to those of that name |
//! | `/history` | a room of `?name=` with a history, which goes on at `?from=POSITION` |
//! | `/ping` | no WebSocket: a `GET` is answered with five bytes |
//! | `/block` | no WebSocket: a handler that blocks its thread for a second |
//! | `/ping-middleware` | the same, behind a middleware of tide that does nothing |

use std::env;
use std::time::Duration;

use serde::Deserialize;
use tidewire::deflate::DeflateOptions;
use tidewire::rooms::{History, Position, Recovery, RoomOptions};
use tidewire::server::endpoint;
use tidewire::websocket::HeartbeatOptions;
use tidewire::{Hub, RequestContext, Room, Server, WebSocketOptions};

const MAX_MESSAGE: usize = 64 << 20;

/// Cases 9.3.* send 4 MiB in fragments of 64 bytes.
const MAX_FRAGMENTS: usize = 1 << 17;

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let mut server = Server::new();
    server.get("/echo", |ctx| echo(ctx, large()));
    server.get("/default", |ctx| echo(ctx, WebSocketOptions::default()));
    server.get("/echo-heartbeat", |ctx| {
        let heartbeat = HeartbeatOptions::default().interval(Duration::from_secs(1));
        echo(ctx, WebSocketOptions::default().heartbeat(heartbeat))
    });
    server.get("/echo-deflate", |ctx| echo(ctx, large().deflate(takeover().threshold(0))));
    server.get("/echo-takeover", |ctx| echo(ctx, large().deflate(takeover())));
    server.get("/default-deflate", |ctx| {
        echo(ctx, WebSocketOptions::default().deflate(DeflateOptions::default()))
    });
    let room: Room = Hub::new().room("everybody");
    let compressed: Room = Hub::new().room("everybody");
    let rooms: Hub = Hub::new();
    server.get("/room", move |ctx| {
        let room = named(&ctx, &rooms).unwrap_or_else(|| room.clone());
        talk(ctx, room, WebSocketOptions::default())
    });
    let history = History::default().messages(10_000).bytes(64 << 20);
    let histories: Hub = Hub::with_options(RoomOptions::default().history(history));
    server.get("/history", move |ctx| {
        let room = named(&ctx, &histories).unwrap_or_else(|| histories.room("everybody"));
        resume(ctx, room)
    });
    // One that does not drop its request.
    server.get("/default-ctx", async |mut ctx: RequestContext| {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while let Some(message) = ws.recv().await? {
            ws.send(message).await?;
        }
        drop(ctx);
        Ok(())
    });
    server.get("/room-deflate", move |ctx| {
        let options = WebSocketOptions::default().deflate(DeflateOptions::default());
        talk(ctx, compressed.clone(), options)
    });
    server.get("/ping", ping);
    server.get("/block", async |_: RequestContext| {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    });
    server.at("/ping-middleware").with(Nothing).get(endpoint(ping));
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

async fn ping(_ctx: RequestContext) -> tidewire::HandlerResult<&'static str> {
    Ok("pong\n")
}

/// Middleware that does nothing.
struct Nothing;

#[tidewire::tide::utils::async_trait]
impl tide::Middleware<()> for Nothing {
    async fn handle(&self, request: tide::Request<()>, next: tide::Next<'_, ()>) -> tide::Result {
        Ok(next.run(request).await)
    }
}

fn large() -> WebSocketOptions {
    // The suite counts frames, so there must be no pings.
    let options = WebSocketOptions::default().heartbeat(None);
    options.max_message_size(MAX_MESSAGE).max_fragments(MAX_FRAGMENTS)
}

/// Context takeover, unless the client refuses it.
fn takeover() -> DeflateOptions {
    DeflateOptions::default().server_context_takeover(true).client_context_takeover(true)
}

async fn echo(mut ctx: RequestContext, options: WebSocketOptions) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(options).await?;
    // An echo does not need the request any more, so its memory is freed while the socket is open.
    drop(ctx);
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}

#[derive(Default, Deserialize)]
struct Asked {
    name: Option<String>,
    from: Option<String>,
}

/// The room that `?name=` names.
fn named(ctx: &RequestContext, hub: &Hub) -> Option<Room> {
    Some(hub.room(&ctx.query::<Asked>().ok()?.name?))
}

/// `/history?name=N&from=POSITION`. The first message is `{"position":…,"recovery":…,"missed":…}`: `recovery` is `fresh`,
/// `complete` or `lost`, `missed` is the number of messages that follow first, and the position is behind these. Then come
/// the messages of the room as they were sent. `?position` is answered by the same, with the position there.
async fn resume(mut ctx: RequestContext, room: Room) -> tidewire::HandlerResult {
    let Asked { from, .. } = ctx.query()?;
    // A text that is no position begins as one that is lost does.
    let position = from.as_deref().map(str::parse::<Position>);
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    drop(ctx);
    let is_unreadable = matches!(position, Some(Err(_)));
    let start = position.and_then(Result::ok);
    let (member, _) = room.join_from_with(&ws, (), start, |recovery, position| {
        told(position, if is_unreadable { Recovery::Lost } else { recovery })
    });
    while let Some(message) = ws.recv().await? {
        if message.as_text() == Some("?position") {
            let is_sent =
                member.send_position(|position| told(Some(position), Recovery::Complete(0)));
            if !is_sent {
                member.send(told(None, Recovery::Lost));
            }
        } else {
            room.broadcast(message);
        }
    }
    Ok(())
}

fn told(position: Option<Position>, recovery: Recovery) -> String {
    let position = position.map(|position| position.to_string()).unwrap_or_default();
    let (recovery, missed) = match recovery {
        Recovery::Fresh => ("fresh", 0),
        Recovery::Complete(missed) => ("complete", missed),
        Recovery::Lost => ("lost", 0),
    };
    format!(r#"{{"position":"{position}","recovery":"{recovery}","missed":{missed}}}"#)
}

async fn talk(
    mut ctx: RequestContext,
    room: Room,
    options: WebSocketOptions,
) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(options).await?;
    drop(ctx);
    let _member = room.join(&ws);
    while let Some(message) = ws.recv().await? {
        room.broadcast(message);
    }
    Ok(())
}
