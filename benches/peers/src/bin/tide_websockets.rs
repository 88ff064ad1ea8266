//! tide 0.16 with tide-websockets 0.4: what a tide user has today.

use futures_util::StreamExt;
use peers::server;
use tide_websockets::{Message, WebSocket};

#[async_std::main]
async fn main() -> std::io::Result<()> {
    let mut app = tide::new();
    app.at("/echo").get(WebSocket::new(|_request, mut stream| async move {
        while let Some(Ok(message)) = stream.next().await {
            if matches!(message, Message::Text(_) | Message::Binary(_)) {
                stream.send(message).await?;
            }
        }
        Ok(())
    }));
    app.listen(server::listen()?).await
}
