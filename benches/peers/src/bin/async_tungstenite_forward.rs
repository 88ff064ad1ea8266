//! async-tungstenite 0.35 on async-std 1.13: the stream forwarded into its own sink.
//!
//! `forward` flushes only when no further message is there, which is as close to a corked handler
//! as this crate comes. It is also all that such a handler can do: it awaits nothing in between.

use std::future;

use async_std::net::{TcpListener, TcpStream};
use async_std::task;
use async_tungstenite::accept_async;
use async_tungstenite::tungstenite::Result;
use futures_util::{StreamExt, TryStreamExt};
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
    let (sink, stream) = accept_async(stream).await?.split();
    let messages =
        stream.try_filter(|message| future::ready(message.is_text() || message.is_binary()));
    messages.forward(sink).await
}
