//! fastwebsockets over hyper, which writes each frame. There is one mode.

use fastwebsockets::{FragmentCollector, Frame, Payload, WebSocketError, handshake};
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use peers::client::{Job, echoed};
use tokio::net::TcpStream;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let job = Job::begin();
    let tasks = tokio::task::LocalSet::new();
    let talking = tasks.run_until(async {
        let running: Vec<_> =
            (0..job.connections).map(|_| tokio::task::spawn_local(talk(job.clone()))).collect();
        for ended in running {
            ended.await.expect("no panic").expect("a connection that stays");
        }
    });
    talking.await;
}

async fn talk(job: Job) -> Result<(), WebSocketError> {
    let stream = TcpStream::connect(job.address()).await?;
    stream.set_nodelay(true)?;
    let request = Request::builder()
        .uri(&job.url)
        .header("Host", job.address())
        .header("Upgrade", "websocket")
        .header("Connection", "upgrade")
        .header("Sec-WebSocket-Key", handshake::generate_key())
        .header("Sec-WebSocket-Version", "13")
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let (mut ws, _) = handshake::client(&Local, request, stream).await?;
    ws.set_max_message_size(peers::server::MAX_MESSAGE);
    let mut ws = FragmentCollector::new(ws);
    let message = job.message();
    loop {
        for _ in 0..job.in_flight {
            ws.write_frame(Frame::binary(Payload::Borrowed(&message))).await?;
        }
        for _ in 0..job.in_flight {
            ws.read_frame().await?;
        }
        echoed(job.in_flight);
    }
}

/// hyper's tasks stay on this thread, too.
struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
