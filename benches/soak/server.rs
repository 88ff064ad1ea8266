//! The server that is visited: the same routes on a plain port and on one with TLS.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use tidewire::deflate::DeflateOptions;
use tidewire::limits::ConnectionLimit;
use tidewire::rooms::{RoomOptions, SlowConsumer};
use tidewire::server::{ServerHandle, ShutdownOptions};
use tidewire::tls::ClientTls;
use tidewire::tls::TlsConfig;
use tidewire::upgrade::UpgradeOptions;
use tidewire::websocket::HeartbeatOptions;
use tidewire::{Client, Hub};
use tidewire::{RequestContext, Server};
use tidewire::{WebSocket, WebSocketOptions};

use crate::{Problem, letter};

/// Tells an echoing visitor that this was the last letter.
pub(crate) const BYE: &str = "bye";

/// The letters that `/flood` sends to each visitor: their number, and their length.
pub(crate) const FLOOD: u64 = 100;
const FLOOD_LEN: usize = 16 << 10;

/// The time of a silent peer: an interval, and the timeout.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// More than there are visitors.
const PERMITS: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Service {
    plain: ServerHandle,
    secure: ServerHandle,
    tls: ClientTls,
    limits: [ConnectionLimit; 2],
}

impl Service {
    pub(crate) async fn start() -> Result<Self, Problem> {
        let made = rcgen::generate_simple_self_signed(["localhost".into()])?;
        let certificate = TlsConfig::from_pem(made.cert.pem(), made.signing_key.serialize_pem())?;
        let limits = [ConnectionLimit::new(PERMITS), ConnectionLimit::new(PERMITS)];
        let [plain, mut secure] = limits.each_ref().map(server);
        secure.tls(certificate);
        Ok(Self {
            plain: plain.start("127.0.0.1:0").await?,
            secure: secure.start("127.0.0.1:0").await?,
            tls: ClientTls::with_roots(made.cert.pem())?,
            limits,
        })
    }

    /// A client of `path`, on either port.
    pub(crate) fn client(&self, path: &str, rng: &mut Rng) -> Client {
        let mut client = if rng.bool() {
            Client::new(format!("ws://{}{path}", self.plain.local_addr()))
        } else {
            let port = self.secure.local_addr().port();
            Client::new(format!("wss://localhost:{port}{path}")).tls(self.tls.clone())
        };
        if rng.bool() {
            client = client.deflate(DeflateOptions::default());
        }
        client
    }

    /// Where there is no TLS.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.plain.local_addr()
    }

    /// The number of open connections.
    pub(crate) fn open(&self) -> usize {
        let metrics = [&self.plain, &self.secure].map(ServerHandle::metrics);
        metrics.iter().map(|metrics| metrics.open_http + metrics.open_websockets).sum()
    }

    /// Stops after all visitors have left. Then no connection has to be closed, and no resource is left.
    pub(crate) async fn stop(&self) -> Result<(), Problem> {
        for server in [&self.plain, &self.secure] {
            let report = server.shutdown(ShutdownOptions::default()).await;
            if report.dropped > 0 || report.lost > 0 {
                return Err(format!("left at the end: {report:?}").into());
            }
            let metrics = server.metrics();
            if metrics.open_http + metrics.open_websockets + metrics.queued_bytes > 0 {
                return Err(format!("left at the end: {metrics:?}").into());
            }
        }
        if self.limits.iter().any(|limit| limit.available() != PERMITS) {
            return Err("a permit did not come back".into());
        }
        Ok(())
    }
}

fn server(limit: &ConnectionLimit) -> Server<Hub> {
    // A slow member is closed, not sent less, so that letters arrive without gaps.
    let rooms = RoomOptions::default().slow_consumer(SlowConsumer::Close);
    let mut server = Server::with_state(Hub::with_options(rooms));
    let options = WebSocketOptions::default().deflate(DeflateOptions::default());
    let heartbeat = HeartbeatOptions::default().interval(PING_INTERVAL).timeout(PING_TIMEOUT);
    let pinging = UpgradeOptions::from(options.clone().heartbeat(heartbeat)).limit(limit);
    let options = UpgradeOptions::from(options).limit(limit);
    server.get("/metrics", tidewire::server::metrics);
    serve(&mut server, "/echo", &options, echo);
    serve(&mut server, "/heartbeat", &pinging, echo);
    serve(&mut server, "/flood", &options, flood);
    server.get("/room/:name", move |ctx| room(ctx, options.clone()));
    server
}

fn serve<F, Fut>(server: &mut Server<Hub>, path: &str, options: &UpgradeOptions, talk: F)
where
    F: Fn(WebSocket) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = tidewire::Result<()>> + Send,
{
    let options = options.clone();
    server.get(path, move |mut ctx: RequestContext<Hub>| {
        let options = options.clone();
        async move { Ok(talk(ctx.upgrade_to_websocket(options).await?).await?) }
    });
}

async fn echo(mut ws: WebSocket) -> tidewire::Result<()> {
    while let Some(message) = ws.recv().await? {
        if message.as_text() == Some(BYE) {
            break;
        }
        ws.send(message).await?;
    }
    Ok(())
}

async fn flood(mut ws: WebSocket) -> tidewire::Result<()> {
    let (id, mut rng) = (u64::from(ws.id()), Rng::new());
    for number in 0..FLOOD {
        ws.send(letter::write(id, number, FLOOD_LEN, &mut rng)).await?;
    }
    echo(ws).await
}

/// Sends each letter of a member to all members.
async fn room(mut ctx: RequestContext<Hub>, options: UpgradeOptions) -> tidewire::HandlerResult {
    let room = ctx.state().room(&ctx.param::<String>("name")?);
    let mut ws = ctx.upgrade_to_websocket(options).await?;
    let _member = room.join(&ws);
    while let Some(message) = ws.recv().await? {
        if message.as_text() == Some(BYE) {
            break;
        }
        room.broadcast(message);
    }
    Ok(())
}
