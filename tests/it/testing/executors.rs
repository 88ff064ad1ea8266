//! The test kit by whichever executor runs a test.

use std::time::Duration;

use serde_json::json;
use tidewire::testing::TestClient;
use tidewire::{Reject, RequestContext, Server, WebSocketOptions};

fn app() -> Server {
    let mut server = Server::new();
    server.get("/login", |mut ctx: RequestContext| async move {
        ctx.response().insert_header("Set-Cookie", "name=ann");
        Ok("welcome")
    });
    server.get("/ws", |mut ctx: RequestContext| async move {
        let name = ctx.cookie("name").ok_or(Reject::status(401, "log in first"))?.to_owned();
        let options = WebSocketOptions::default().idle_timeout(Duration::from_secs(3600));
        let mut ws = ctx.upgrade_to_websocket(options).await?;
        ws.send_json(&json!({ "hello": name })).await?;
        while let Some(message) = ws.recv().await? {
            assert_ne!(message, "panic", "a message");
            ws.send(message).await?;
        }
        Ok(())
    });
    server
}

/// All that the test kit waits for.
async fn is_used() {
    let client = TestClient::new(&app());
    client.websocket("/ws").refused().await.assert_status(401);
    client.get("/login").send().await.unwrap().assert_text("welcome");
    let mut ws = client.connect("/ws").await.unwrap();
    ws.expect_json(json!({ "hello": "ann" })).await;
    ws.send("Hello").await.unwrap();
    ws.expect_text("Hello").await;
    ws.expect_silence_for(Duration::from_secs(3599)).await;
    client.advance(Duration::from_secs(1)).await;
    assert_eq!(ws.expect_close(1001).await.reason, "idle timeout");
    let mut ws = client.connect("/ws").await.unwrap();
    ws.send("panic").await.unwrap();
    assert!(client.expect_failure("a message").await.is_panic());
    drop(ws);
    client.idle().await;
}

#[async_std::test]
async fn a_test_of_async_std() {
    is_used().await;
}

#[test]
fn a_test_of_smol() {
    smol::block_on(is_used());
}

#[test]
fn a_test_of_futures() {
    futures::executor::block_on(is_used());
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_test_of_tokio() {
    is_used().await;
}

#[cfg(feature = "tokio")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_of_tokio_on_several_threads() {
    is_used().await;
}
