//! Uploads of any size to disk, in ten megabytes of memory: one over a WebSocket, and one as the body of a request.
//!
//! Beside the dependencies in the README:
//!
//! ```toml
//! async-std = { version = "1.13", features = ["attributes"] }
//! ```
//!
//! ```text
//! cargo run --release --example upload
//! head -c 200M /dev/urandom > big
//! curl --upload-file big http://127.0.0.1:8080/files/big
//! python3 -m websockets ws://127.0.0.1:8080/upload
//! ```
//!
//! Over the WebSocket, a file is one binary message, in as many fragments as its sender likes: `recv_frame` returns each
//! as it comes, so no message is ever whole in memory. The answer is its length. Files go to the folder in the second
//! argument, by default a new one among the temporary ones.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_std::fs::{self, File};
use async_std::io::{self, ReadExt, WriteExt};
use tidewire::frame::OpCode;
use tidewire::{HandlerResult, Reject, RequestContext, Server, WebSocketOptions};

/// The longest file.
const LONGEST: u64 = 4 * 1024 * 1024 * 1024;

/// The longest frame. A browser sends a message in frames of its own choice, some of 128 KiB.
const FRAME: usize = 1024 * 1024;

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let folder = env::args().nth(2).map_or_else(|| env::temp_dir().join("uploads"), PathBuf::from);
    fs::create_dir_all(&folder).await?;
    let bound = server(folder).bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

fn server(folder: PathBuf) -> Server<Store> {
    let store = Store { folder: folder.into(), number: Arc::default() };
    let mut server = Server::with_state(store);
    server.get("/upload", upload);
    server.put("/files/:name", put);
    server
}

#[derive(Clone)]
struct Store {
    folder: Arc<Path>,
    number: Arc<AtomicU64>,
}

impl Store {
    /// A new file. Its name is ours: one from a stranger could lead out of the folder.
    async fn create(&self) -> io::Result<(File, PathBuf)> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{}-{number}", std::process::id()));
        Ok((File::create(&path).await?, path))
    }
}

/// Takes one file after another.
async fn upload(mut ctx: RequestContext<Store>) -> HandlerResult {
    let store = ctx.state().clone();
    // `recv_frame` keeps one frame at a time, so the message and its fragments need no limit of their own.
    let options = WebSocketOptions::default()
        .max_frame_size(FRAME)
        .max_message_size(usize::MAX)
        .max_fragments(usize::MAX)
        .message_timeout(None)
        // A client that sends nothing for this long is gone, or waits for nothing.
        .idle_timeout(Some(Duration::from_secs(60)));
    let mut ws = ctx.upgrade_to_websocket(options).await?;
    let mut open: Option<(File, PathBuf, u64)> = None;
    while let Some(frame) = ws.recv_frame().await? {
        match frame.opcode() {
            OpCode::Binary | OpCode::Continuation => {}
            OpCode::Text => return Err(Reject::close(1003, "a file is binary").into()),
            // Pings are answered without us.
            _ => continue,
        }
        let (mut file, path, len) = if let Some(open) = open.take() {
            open
        } else {
            let (file, path) = store.create().await?;
            (file, path, 0)
        };
        let len = len.saturating_add(u64::try_from(frame.payload().len())?);
        let written = if len > LONGEST { Ok(()) } else { file.write_all(frame.payload()).await };
        if len > LONGEST || written.is_err() {
            fs::remove_file(&path).await?;
            written?;
            return Err(Reject::close(1009, "the file is too long").into());
        }
        if frame.fin() {
            file.flush().await?;
            println!("{} has {len} bytes", path.display());
            ws.send(len.to_string()).await?;
        } else {
            open = Some((file, path, len));
        }
    }
    // What is not whole is of no use.
    if let Some((_, path, _)) = open {
        fs::remove_file(path).await?;
    }
    Ok(())
}

/// Takes the body of a request, piece by piece.
async fn put(mut ctx: RequestContext<Store>) -> HandlerResult<String> {
    let store = ctx.state().clone();
    let (file, path) = store.create().await?;
    ctx.set_max_body_size(None);
    let body = ctx.request_mut().take_body();
    match io::copy(body.take(LONGEST), file).await {
        Ok(len) if len < LONGEST => {
            println!("{} has {len} bytes", path.display());
            Ok(format!("{len}\n"))
        }
        outcome => {
            fs::remove_file(path).await?;
            outcome?;
            Err(Reject::status(413, "the file is too long").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewire::testing::{RawFrame, TestClient};

    use super::*;

    /// A folder of this test, and the server over it.
    async fn store(name: &str) -> tidewire::Result<(PathBuf, TestClient)> {
        let folder = env::temp_dir().join(format!("tidewire-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).await?;
        let client = TestClient::new(&server(folder.clone()));
        Ok((folder, client))
    }

    fn files(folder: &Path) -> Vec<Vec<u8>> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| std::fs::read(path).unwrap()).collect()
    }

    #[async_std::test]
    async fn a_file_may_be_a_message_in_fragments_or_a_body() -> tidewire::Result<()> {
        let (folder, client) = store("upload").await?;
        let mut peer = client.peer("/upload").await?;
        peer.send_frame(RawFrame::binary("one ").without_fin()).await?;
        peer.send_frame(RawFrame::continuation("two ").without_fin()).await?;
        peer.send_frame(RawFrame::continuation("three")).await?;
        peer.expect_text("13").await;
        assert_eq!(files(&folder), [b"one two three"]);

        client.put("/files/x").body("four").send().await?.assert_status(200).assert_text("4\n");
        let mut stored = files(&folder);
        stored.sort();
        assert_eq!(stored, [&b"four"[..], b"one two three"]);
        fs::remove_dir_all(folder).await?;
        Ok(())
    }

    #[async_std::test]
    async fn what_is_no_whole_file_is_not_kept() -> tidewire::Result<()> {
        let (folder, client) = store("upload-half").await?;
        let mut ws = client.connect("/upload").await?;
        ws.send("a text").await?;
        assert_eq!(ws.expect_close(1003).await.reason, "a file is binary");
        let mut peer = client.peer("/upload").await?;
        peer.send_frame(RawFrame::binary("half of it").without_fin()).await?;
        peer.send_frame(RawFrame::close(1000, "")).await?;
        peer.expect_close(1000).await;
        client.idle().await;
        assert!(files(&folder).is_empty());
        fs::remove_dir_all(folder).await?;
        Ok(())
    }
}
