//! The server to which all that happens: its connections hold permits and are in a room, and it has a
//! route for everything that a peer may disturb.

use futures::channel::mpsc;
use tidewire::WebSocketOptions;
use tidewire::limits::ConnectionLimit;
use tidewire::server::metrics;
use tidewire::upgrade::UpgradeOptions;
use tidewire::{Hub, RequestContext, Result, Room, Server, WebSocket};

use crate::ALLOCATED;

/// Bytes of a message of `/flood` and `/gigabyte`.
pub(super) const MESSAGE: usize = 64 << 10;

/// Messages of `/gigabyte`.
pub(super) const MESSAGES: u32 = 16_384;

/// Bytes of the body of `/large`: more than the kernel takes from one side until the other reads.
const LARGE: usize = 32 << 20;

/// What a connection holds for as long as it lives.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) limit: ConnectionLimit,
    pub(super) room: Room,
}

impl Held {
    pub(super) fn new(connections: usize) -> Self {
        Self { limit: ConnectionLimit::new(connections), room: Hub::new().room("room") }
    }
}

/// How a connection has ended, as its handler was told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// By a closing handshake, with this code.
    Closed(u16),
    /// By an error, with this [reported code](tidewire::CloseInfo::reported_code).
    Lost(u16),
}

/// The server; `ends` hears of each WebSocket handler that comes to its end.
pub(super) fn server(
    held: &Held,
    options: &WebSocketOptions,
    ends: mpsc::UnboundedSender<End>,
) -> Server {
    let options = UpgradeOptions::from(options.clone()).limit(&held.limit);
    let mut server = Server::new();
    let room = held.room.clone();
    server.get("/:how", move |mut ctx: RequestContext| {
        let (room, options, ends) = (room.clone(), options.clone(), ends.clone());
        async move {
            let how: String = ctx.param("how")?;
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            let _member = room.join(&ws);
            let result = act(&how, &mut ws).await;
            let code = ws.closed().await.reported_code();
            let end = if result.is_ok() { End::Closed(code) } else { End::Lost(code) };
            let _ = ends.unbounded_send(end);
            Ok(())
        }
    });
    server.get("/large", |_: RequestContext| async { Ok(vec![b'x'; LARGE]) });
    server.post("/body", |mut ctx: RequestContext| async move {
        Ok(ctx.body_bytes().await?.len().to_string())
    });
    let held = held.clone();
    server.get("/state", move |ctx: RequestContext| {
        let held = held.clone();
        async move {
            let metrics = metrics(ctx)
                .await?
                .take_body()
                .into_string()
                .await
                .map_err(tidewire::HandlerError::from_tide)?;
            let (permits, members) = (held.limit.in_use(), held.room.len());
            let allocated = ALLOCATED.current_usage();
            Ok(format!("{metrics}permits {permits}\nmembers {members}\nallocated {allocated}\n"))
        }
    });
    server
}

/// What the handler of a route does with its connection.
async fn act(how: &str, ws: &mut WebSocket) -> Result<()> {
    match how {
        "flood" => loop {
            ws.send_binary(vec![7; MESSAGE]).await?;
        },
        "gigabyte" => {
            for number in 0..MESSAGES {
                ws.send_binary(numbered(number)).await?;
            }
            ws.close(1000_u16, "").await?;
        }
        "leave" => {
            ws.close(1000_u16, "").await?;
        }
        _ => {}
    }
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}

/// A message of `/gigabyte`, which begins with its number.
pub(super) fn numbered(number: u32) -> Vec<u8> {
    let mut message = vec![7; MESSAGE];
    message[..4].copy_from_slice(&number.to_be_bytes());
    message
}
