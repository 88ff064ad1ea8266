//! An echo on tokio, until Ctrl-C: nothing is shut down, the runtime just ends.
//!
//! With the argument `spawner`, connections run on tokio; without it, on threads of the server.

use std::time::Duration;

use tidewire::{RequestContext, Server, WebSocketOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("spawner") {
        let runtime = tokio::runtime::Handle::current();
        tidewire::executor::set_spawner(move |task| drop(runtime.spawn(task)))?;
    }

    let mut server = Server::new();
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while let Some(message) = ws.recv().await? {
            // Wants a runtime of tokio around it.
            tokio::time::sleep(Duration::from_micros(1)).await;
            ws.send(message).await?;
        }
        Ok(())
    });
    let bound = server.bind("127.0.0.1:0").await?;
    println!("listening on {}", bound.local_addr());
    tokio::select! {
        served = bound.serve() => served?,
        signal = tokio::signal::ctrl_c() => signal?,
    }
    println!("bye");
    Ok(())
}
