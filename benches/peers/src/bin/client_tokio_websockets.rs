//! tokio-websockets. Mode `send` flushes each message, `feed` once before it receives.

use futures_util::{SinkExt, StreamExt};
use peers::client::{Job, echoed};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Error, Limits, Message};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let job = Job::begin();
    let tasks: Vec<_> = (0..job.connections).map(|_| tokio::spawn(talk(job.clone()))).collect();
    for task in tasks {
        task.await.expect("no panic").expect("a connection that stays");
    }
}

async fn talk(job: Job) -> Result<(), Error> {
    let stream = TcpStream::connect(job.address()).await?;
    stream.set_nodelay(true)?;
    let uri = job.url.parse().expect("a URI");
    let limits = Limits::default().max_payload_len(Some(peers::server::MAX_MESSAGE));
    let (mut ws, _) = ClientBuilder::from_uri(uri).limits(limits).connect_on(stream).await?;
    let message = job.message();
    loop {
        for _ in 0..job.in_flight {
            let message = Message::binary(message.clone());
            if job.mode == "feed" { ws.feed(message).await? } else { ws.send(message).await? }
        }
        ws.flush().await?;
        for _ in 0..job.in_flight {
            ws.next().await.expect("an echo")?;
        }
        echoed(job.in_flight);
    }
}
