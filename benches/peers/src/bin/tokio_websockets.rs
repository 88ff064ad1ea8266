//! tokio-websockets 0.13 on tokio, with its own opening handshake.

use futures_util::{SinkExt, StreamExt};
use peers::server;
use tokio::net::{TcpListener, TcpStream};
use tokio::task;
use tokio_websockets::{Config, Error, Limits, ServerBuilder};

fn main() -> std::io::Result<()> {
    server::run_on_tokio(serve())
}

async fn serve() -> std::io::Result<()> {
    let listener = TcpListener::from_std(server::listen()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // Without tokio's budget, as the crate's documentation does it.
        task::spawn(task::unconstrained(echo(stream)));
    }
}

async fn echo(stream: TcpStream) -> Result<(), Error> {
    // Unlimited frames, as in the crate's example: by default it cuts messages into 4 MiB.
    let (_, mut socket) = ServerBuilder::new()
        .config(Config::default().frame_size(usize::MAX))
        .limits(Limits::default().max_payload_len(Some(server::MAX_MESSAGE)))
        .accept(stream)
        .await?;
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
