//! tidewire's client. Mode `run` gives each connection a task of its own, `bare` none.

use async_std::task;
use peers::client::{Job, echoed};
use tidewire::{Client, Message, Result, WebSocket, WebSocketOptions};

#[async_std::main]
async fn main() {
    let job = Job::begin();
    let options = WebSocketOptions::default().max_message_size(peers::server::MAX_MESSAGE);
    let client = Client::new(job.url.clone()).options(options);
    let tasks: Vec<_> = (0..job.connections)
        .map(|_| {
            let (client, job) = (client.clone(), job.clone());
            task::spawn(async move {
                if job.mode == "run" {
                    client.run(move |ws| talk(ws, job)).await
                } else {
                    talk(client.connect().await?, job).await
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a connection that stays");
    }
}

async fn talk(mut ws: WebSocket, job: Job) -> Result<()> {
    let message = Message::binary(job.message());
    loop {
        for _ in 0..job.in_flight {
            ws.send(message.clone()).await?;
        }
        for _ in 0..job.in_flight {
            ws.recv().await?;
        }
        echoed(job.in_flight);
    }
}
