//! WebSocket routes in an axum application: limits, metrics, pages that may connect, and a shutdown that closes the
//! connections.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! tidewire = { version = "0.1", default-features = false, features = ["axum", "rooms"] }
//! tokio = { version = "1", features = ["full"] }
//! ```
//!
//! ```text
//! cargo run --release --features axum --example axum
//! websocat ws://127.0.0.1:8080/rooms/tea
//! curl http://127.0.0.1:8080/metrics
//! ```

use std::env;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{any, get};
use axum::{Extension, Router};
use tidewire::axum::WebSocketUpgrade;
use tidewire::deflate::DeflateOptions;
use tidewire::limits::ConnectionLimit;
use tidewire::upgrade::{Connections, ShutdownOptions, UpgradeOptions};
use tidewire::{Hub, WebSocket, WebSocketOptions};
use tokio::net::TcpListener;

/// What handlers share.
#[derive(Clone)]
struct App {
    hub: Hub,
    /// At most this many connections at once, over all routes.
    limit: ConnectionLimit,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = App { hub: Hub::new(), limit: ConnectionLimit::new(10_000) };
    let connections = Connections::new();
    let router = Router::new()
        .route("/", get(async || "WebSockets are at /echo and /rooms/NAME\n"))
        .route("/echo", any(echo))
        .route("/rooms/{name}", any(room))
        .route("/metrics", get(metrics))
        .layer(Extension(connections.clone()))
        .with_state(app);

    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(addr).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // With the addresses of clients, for records and limits.
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop()).await?;
    // For axum, an upgraded connection is over. Each gets a close frame, and some seconds to answer it.
    let options = ShutdownOptions::default().grace(Duration::from_secs(5));
    let report = connections.shutdown(options).await;
    println!("{} closed, {} lost", report.closed, report.lost);
    Ok(())
}

async fn echo(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
    let options = WebSocketOptions::default()
        .max_message_size(16 * 1024 * 1024)
        .deflate(DeflateOptions::default());
    let options = UpgradeOptions::from(options).limit(&app.limit);
    upgrade
        .run(options, |mut ws: WebSocket| async move {
            while let Some(message) = ws.recv().await? {
                ws.send(message).await?;
            }
            Ok(())
        })
        .await
}

async fn room(
    State(app): State<App>,
    Path(name): Path<String>,
    upgrade: WebSocketUpgrade,
) -> Response {
    // Pages of this host may connect, and those of a development server.
    let options =
        UpgradeOptions::default().allow_origins(["http://localhost:5173"]).limit(&app.limit);
    upgrade
        .run(options, move |mut ws: WebSocket| async move {
            let room = app.hub.room(&name);
            let _membership = room.join(&ws);
            while let Some(message) = ws.recv().await? {
                room.broadcast(message);
            }
            Ok(())
        })
        .await
}

async fn metrics(Extension(connections): Extension<Connections>) -> String {
    connections.metrics().to_prometheus()
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
