//! A server without a router: whatever a handler does, with each connection of a port.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{Either, select};
use smol::Timer;
use smol::net::{TcpListener, TcpStream};
use tidewire::{Result, WebSocket, WebSocketOptions};

/// Serves on a free port for as long as the process lives.
pub async fn serve<F, Fut>(options: WebSocketOptions, handler: F) -> Result<SocketAddr>
where
    F: Fn(WebSocket) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    smol::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let (options, handler) = (options.clone(), handler.clone());
            smol::spawn(async move { connection(stream, peer, options, handler).await }).detach();
        }
    })
    .detach();
    Ok(addr)
}

async fn connection<F, Fut>(
    stream: TcpStream,
    peer: SocketAddr,
    options: WebSocketOptions,
    handler: F,
) -> Result<()>
where
    F: Fn(WebSocket) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    stream.set_nodelay(true)?;
    tidewire::upgrade::accept(stream).await?.peer_addr(peer).run(options, handler).await
}

/// Runs a test, which must not take longer than 5 s.
///
/// # Panics
///
/// If it does.
pub fn within<T>(test: impl Future<Output = T>) -> T {
    let limit = Timer::after(Duration::from_secs(5));
    smol::block_on(async {
        match select(Box::pin(test), limit).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => panic!("the test takes longer than 5 s"),
        }
    })
}
