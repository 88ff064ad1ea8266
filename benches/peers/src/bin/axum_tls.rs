//! axum 0.8 behind rustls with ring, on tokio: TLS 1.3, ALPN `http/1.1`.
//!
//! `axum_tls ADDRESS CHAIN.pem KEY.pem`. The loop is that of axum's own example for rustls, with
//! HTTP/1.1 only.

use std::env;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{any, get};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use peers::server;
use tokio::net::{TcpListener, TcpStream};
use tokio::task;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, version};

fn main() -> io::Result<()> {
    server::run_on_tokio(serve())
}

async fn serve() -> io::Result<()> {
    let app = Router::new().route("/", get(|| async { "axum" })).route("/echo", any(upgrade));
    let acceptor = TlsAcceptor::from(Arc::new(config().map_err(io::Error::other)?));
    let listener = TcpListener::from_std(server::listen_tls()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        task::spawn(connection(acceptor.clone(), app.clone(), stream));
    }
}

fn config() -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut files = env::args().skip(2);
    let (Some(chain), Some(key)) = (files.next(), files.next()) else {
        return Err("usage: axum_tls ADDRESS CHAIN.pem KEY.pem".into());
    };
    let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// One connection, from its first byte on. Whatever ends it, the client sees that it is over.
async fn connection(acceptor: TlsAcceptor, app: Router, stream: TcpStream) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = TowerToHyperService::new(app);
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    drop(served.with_upgrades().await);
}

async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(echo)
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let is_data = matches!(message, Message::Text(_) | Message::Binary(_));
        if is_data && socket.send(message).await.is_err() {
            return;
        }
    }
}
