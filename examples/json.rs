//! Messages as JSON: one type for requests, and one for answers.
//!
//! ```text
//! cargo run --release --example json
//! ```
//!
//! Then send `{"type":"ping"}` or `{"type":"add","numbers":[1,2]}` to `ws://127.0.0.1:8080/ws`. Any other message is
//! not answered, and the connection stays open.
//!
//! Beside the dependencies in the README:
//!
//! ```toml
//! serde = { version = "1", features = ["derive"] }
//! ```

use std::env;

use serde::{Deserialize, Serialize};
use tidewire::{Error, RequestContext, Server, WebSocketOptions};

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Question {
    Ping,
    Add { numbers: Vec<f64> },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Answer {
    Pong,
    Sum { value: f64 },
}

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let mut server = Server::new();
    server.get("/ws", answer);
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server.bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

async fn answer(mut ctx: RequestContext) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    loop {
        let answer = match ws.recv_json().await {
            Ok(Some(Question::Ping)) => Answer::Pong,
            Ok(Some(Question::Add { numbers })) => Answer::Sum { value: numbers.iter().sum() },
            Ok(None) => return Ok(()),
            Err(Error::Json(error)) => {
                println!("Invalid JSON");
                eprintln!("{error:#}");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        ws.send_json(&answer).await?;
    }
}
