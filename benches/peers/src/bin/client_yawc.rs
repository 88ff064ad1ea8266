//! yawc. Mode `send` flushes each message, `feed` once before it receives.

use futures_util::{SinkExt, StreamExt};
use peers::client::{Job, echoed};
use tokio::net::TcpStream;
use yawc::{Frame, Options, Result, WebSocket};

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
    let options = Options::default().with_max_payload_read(peers::server::MAX_MESSAGE);
    let mut ws = WebSocket::handshake(job.url.parse().expect("a URL"), stream, options).await?;
    let message = job.message();
    loop {
        for _ in 0..job.in_flight {
            let frame = Frame::binary(message.clone());
            if job.mode == "feed" { ws.feed(frame).await? } else { ws.send(frame).await? }
        }
        ws.flush().await?;
        for _ in 0..job.in_flight {
            ws.next().await.expect("an echo");
        }
        echoed(job.in_flight);
    }
}
