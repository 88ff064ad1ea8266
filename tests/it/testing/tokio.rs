//! Tests of an application on tokio. Each has a runtime of its own, which ends with it, and they run in any order.

use std::future::pending;
use std::time::Duration;

use tidewire::server::ServerOptions;
use tidewire::testing::TestClient;
use tidewire::{RequestContext, Server, WebSocketOptions};
use tokio::time::sleep;

const MOMENT: Duration = Duration::from_millis(1);

fn app() -> Server {
    let mut server = Server::new();
    server.get("/task", |_: RequestContext| async {
        sleep(MOMENT).await;
        Ok(tokio::spawn(async { "a task" }).await?)
    });
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while let Some(message) = ws.recv().await? {
            sleep(MOMENT).await;
            ws.send(message).await?;
        }
        Ok(())
    });
    server.get("/never", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        ws.send("It waits").await?;
        Ok(tokio::spawn(pending::<()>()).await?)
    });
    server
}

/// Uses the application, and leaves a connection behind whose handler waits for the runtime, as its client does.
async fn is_used(client: TestClient) -> tidewire::Result<()> {
    client.get("/task").send().await?.assert_status(200).assert_text("a task");
    let mut ws = client.connect("/ws").await?;
    ws.send("Hello").await?;
    assert_eq!(ws.recv().await?, Some("Hello".into()));
    let mut ws = client.connect("/never").await?;
    assert_eq!(ws.recv().await?, Some("It waits".into()));
    tokio::spawn(async move {
        let end = ws.recv().await;
        unreachable!("{client:?} has {end:?} while the test runs");
    });
    Ok(())
}

#[tokio::test]
async fn a_test_on_one_thread() -> tidewire::Result<()> {
    is_used(TestClient::new(&app())).await
}

#[tokio::test]
async fn another_test_on_one_thread() -> tidewire::Result<()> {
    is_used(TestClient::new(&app())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_on_several_threads() -> tidewire::Result<()> {
    is_used(TestClient::new(&app())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_test_on_several_threads() -> tidewire::Result<()> {
    is_used(TestClient::new(&app())).await
}

#[tokio::test]
async fn a_test_without_workers() -> tidewire::Result<()> {
    let mut server = app();
    server.options(ServerOptions::default().workers(0));
    is_used(TestClient::new(&server)).await
}

#[tokio::test]
async fn a_test_that_ends_its_server() -> tidewire::Result<()> {
    let client = TestClient::new(&app());
    let mut ws = client.connect("/ws").await?;
    ws.send("Hello").await?;
    assert_eq!(ws.recv().await?, Some("Hello".into()));
    let (report, end) = tokio::join!(client.shutdown(), ws.recv());
    assert_eq!((end?, report.closed, report.dropped), (None, 1, 0));
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_client_goes_on_after_its_runtime_where_no_handler_uses_that() {
    let first = runtime();
    let mut server = app();
    server.options(ServerOptions::default().workers(1));
    server.get("/ping", |_: RequestContext| async { Ok("pong") });
    let client = first.block_on(async {
        let client = TestClient::new(&server);
        client.get("/task").send().await.unwrap().assert_status(200);
        client
    });
    drop(first);
    runtime().block_on(async {
        client.get("/task").send().await.unwrap().assert_status(500);
        client.expect_failure("GET /task").await;
        client.get("/ping").send().await.unwrap().assert_text("pong");
    });
}

#[test]
fn a_client_without_workers_says_that_its_runtime_has_ended() {
    let first = runtime();
    let mut server = app();
    server.options(ServerOptions::default().workers(0));
    let client = first.block_on(async {
        let client = TestClient::new(&server);
        client.get("/task").send().await.unwrap().assert_status(200);
        client
    });
    drop(first);
    runtime().block_on(async {
        let error = client.get("/task").send().await.unwrap_err();
        let said = "I/O failed: the tokio runtime of the server runs no tasks: \
                    was its runtime that of another test?";
        assert_eq!(format!("{error:#}"), said);
        assert_eq!(client.shutdown().await.dropped, 0);
    });
}
