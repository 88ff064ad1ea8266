//! tokio-tungstenite. Mode `send` flushes each message, `feed` once before it receives.

use futures_util::{SinkExt, StreamExt};
use peers::client::{Job, echoed};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::{Bytes, Message, Result};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let job = Job::begin();
    let tasks: Vec<_> = (0..job.connections).map(|_| tokio::spawn(talk(job.clone()))).collect();
    for task in tasks {
        task.await.expect("no panic").expect("a connection that stays");
    }
}

async fn talk(job: Job) -> Result<()> {
    let stream = TcpStream::connect(job.address()).await?;
    stream.set_nodelay(true)?;
    let (mut ws, _) = client_async(job.url.as_str(), stream).await?;
    let message = Bytes::from(job.message());
    loop {
        for _ in 0..job.in_flight {
            let message = Message::Binary(message.clone());
            if job.mode == "feed" { ws.feed(message).await? } else { ws.send(message).await? }
        }
        ws.flush().await?;
        for _ in 0..job.in_flight {
            ws.next().await.expect("an echo")?;
        }
        echoed(job.in_flight);
    }
}
