//! A connection read frame by frame: data, pings, pongs, and the close frame itself.
//!
//! ```text
//! cargo run --release --example frames
//! ```

use std::env;

use tidewire::frame::OpCode;
use tidewire::{CloseFrame, RequestContext, Server, WebSocketOptions};

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let mut server = Server::new();
    server.get("/ws", print_frames);
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

async fn print_frames(mut ctx: RequestContext) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    while let Some(frame) = ws.recv_frame().await? {
        let payload = frame.payload();
        match frame.opcode() {
            OpCode::Text => println!("Text: {}", String::from_utf8_lossy(payload)),
            OpCode::Binary => println!("Binary: {} bytes", payload.len()),
            OpCode::Continuation => println!("Continuation: {} bytes", payload.len()),
            // The connection has answered it already.
            OpCode::Ping => println!("Ping received"),
            OpCode::Pong => println!("Pong received"),
            OpCode::Close => {
                println!("Close frame received");
                if let Ok(Some(close)) = CloseFrame::decode(payload) {
                    println!("Closed by the client: {} {}", close.code(), close.reason());
                }
                break;
            }
        }
    }
    Ok(())
}
