//! WebSockets behind a server of hyper's own, on tokio: the opening handshake, limits, metrics, and the shutdown.
//!
//! ```toml
//! [dependencies]
//! hyper = { version = "1", features = ["http1", "server"] }
//! hyper-util = { version = "0.1", features = ["tokio"] }
//! tidewire = { version = "0.1", default-features = false, features = ["accept"] }
//! tokio = { version = "1", features = ["full"] }
//! tokio-util = { version = "0.7", features = ["compat"] }
//! ```
//!
//! ```text
//! cargo run --release --features axum --example hyper
//! websocat ws://127.0.0.1:8080/echo
//! curl http://127.0.0.1:8080/metrics
//! ```

use std::convert::Infallible;
use std::env;
use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tidewire::limits::ConnectionLimit;
use tidewire::upgrade::{Connections, ShutdownOptions, Upgrade, UpgradeOptions};
use tidewire::{Error, WebSocket};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::compat::TokioAsyncReadCompatExt;

/// What requests share.
#[derive(Clone)]
struct App {
    connections: Connections,
    /// At most so many connections of each address.
    limit: ConnectionLimit,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = App { connections: Connections::new(), limit: ConnectionLimit::per_address(100) };
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(addr).await?;
    println!("listening on http://{}", listener.local_addr()?);

    let mut serving = JoinSet::new();
    let mut stopped = std::pin::pin!(stop());
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = &mut stopped => break,
        };
        let app = app.clone();
        let service = service_fn(move |request| answer(request, peer, app.clone()));
        let connection =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        serving.spawn(connection);
        // Those that have ended.
        while serving.try_join_next().is_some() {}
    }
    drop(listener);
    let report = app.connections.shutdown(ShutdownOptions::default()).await;
    println!("{} closed, {} lost", report.closed, report.lost);
    Ok(())
}

/// Resolves when the program is asked to end.
async fn stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    app: App,
) -> Result<Response<String>, Infallible> {
    Ok(match request.uri().path() {
        "/echo" => echo(request, peer, app).await,
        "/metrics" => Response::new(app.connections.metrics().to_prometheus()),
        _ => {
            let mut response = Response::new("WebSockets are at /echo\n".to_owned());
            *response.status_mut() = hyper::StatusCode::NOT_FOUND;
            response
        }
    })
}

async fn echo(mut request: Request<Incoming>, peer: SocketAddr, app: App) -> Response<String> {
    // Pages of this host may connect, others may not.
    let options = UpgradeOptions::default().limit(&app.limit);
    let checked = Upgrade::check_version(request.version())
        .and_then(|()| Upgrade::check(request.method(), request.headers(), &options))
        .map(|upgrade| upgrade.peer_addr(peer));
    let admitted = match app.connections.admit(checked, &options).await {
        Ok(admitted) => admitted,
        Err(error) => return error.response(),
    };
    let response = admitted.response().map(|()| String::new());
    tokio::spawn(async move {
        // hyper has the stream once the response is written.
        let Ok(stream) = hyper::upgrade::on(&mut request).await else { return };
        let handler = |mut ws: WebSocket| async move {
            while let Some(message) = ws.recv().await? {
                ws.send(message).await?;
            }
            Ok::<_, Error>(())
        };
        admitted.run(TokioIo::new(stream).compat(), handler).await;
    });
    response
}
