//! async-tungstenite 0.35 on async-std 1.13: a loop of `next` and `send`, so one write per message.
//!
//! What the same crate does when nobody asks it to flush is `async_tungstenite_forward.rs`.

use async_std::net::{TcpListener, TcpStream};
use async_std::task;
use async_tungstenite::accept_async;
use async_tungstenite::tungstenite::Result;
use futures_util::StreamExt;
use peers::server;

#[async_std::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::from(server::listen()?);
    loop {
        let (stream, _) = listener.accept().await?;
        task::spawn(echo(stream));
    }
}

async fn echo(stream: TcpStream) -> Result<()> {
    let mut stream = accept_async(stream).await?;
    while let Some(message) = stream.next().await.transpose()? {
        if message.is_text() || message.is_binary() {
            stream.send(message).await?;
        }
    }
    Ok(())
}
