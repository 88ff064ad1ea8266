//! yawc 0.5 behind hyper 1.x, on tokio: a loop of `next` and `send`.

use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::server;
use tokio::net::TcpListener;
use tokio::task;
use yawc::{OpCode, Options, UpgradeFut, WebSocket};

fn main() -> std::io::Result<()> {
    server::run_on_tokio(serve())
}

async fn serve() -> std::io::Result<()> {
    let listener = TcpListener::from_std(server::listen()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .with_upgrades();
        task::spawn(connection);
    }
}

async fn answer(mut request: Request<Incoming>) -> yawc::Result<Response<Empty<Bytes>>> {
    let options = Options::default().with_limits(server::MAX_MESSAGE, 2 * server::MAX_MESSAGE);
    let (response, upgraded) = WebSocket::upgrade_with_options(&mut request, options)?;
    // Without tokio's budget, as the crate's documentation does it.
    task::spawn(task::unconstrained(echo(upgraded)));
    Ok(response)
}

async fn echo(upgraded: UpgradeFut) -> yawc::Result<()> {
    let mut socket = upgraded.await?;
    while let Some(frame) = socket.next().await {
        if matches!(frame.opcode(), OpCode::Text | OpCode::Binary) {
            socket.send(frame).await?;
        }
    }
    Ok(())
}
