//! A room with async-tungstenite 0.35 on async-std 1.13: a lock around all sinks, and a loop that
//! sends to each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_std::net::{TcpListener, TcpStream};
use async_std::sync::Mutex;
use async_std::task;
use async_tungstenite::tungstenite::Result;
use async_tungstenite::{WebSocketSender, accept_async};

use futures_util::StreamExt;
use peers::server;

type Sinks = Arc<Mutex<HashMap<SocketAddr, WebSocketSender<TcpStream>>>>;

#[async_std::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::from(server::listen()?);
    let sinks = Sinks::default();
    loop {
        let (stream, peer) = listener.accept().await?;
        let sinks = Arc::clone(&sinks);
        task::spawn(async move {
            let result = member(stream, peer, &sinks).await;
            sinks.lock().await.remove(&peer);
            result
        });
    }
}

async fn member(stream: TcpStream, peer: SocketAddr, sinks: &Sinks) -> Result<()> {
    let (sink, mut stream) = accept_async(stream).await?.split();
    sinks.lock().await.insert(peer, sink);
    while let Some(message) = stream.next().await.transpose()? {
        if message.is_text() || message.is_binary() {
            for sink in sinks.lock().await.values_mut() {
                // One that has gone leaves by itself.
                let _ = sink.send(message.clone()).await;
            }
        }
    }
    Ok(())
}
