//! Libraries on tokio in handlers: an HTTP client and the client of a database, on a port and in the test kit.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tidewire::testing::TestClient;
use tidewire::{HandlerResult, RequestContext, Server, WebSocketOptions};

/// A database of this test, on a socket file of its own.
struct Database {
    server: Child,
    socket: String,
}

impl Database {
    async fn start(name: &str) -> Self {
        let socket = env::temp_dir().join(format!("tidewire-{name}-{}.sock", process::id()));
        let socket = socket.to_str().expect("a path of text").to_owned();
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", &socket])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server has to be installed (Debian: redis-server)");
        Self { server, socket }
    }

    /// Waits until it takes connections.
    async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis+unix://{}", self.socket)).unwrap();
        let begin = Instant::now();
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return connection,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(20), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

#[derive(Clone)]
struct App {
    database: MultiplexedConnection,
    http: reqwest::Client,
}

fn server(app: App) -> Server<App> {
    let mut server = Server::with_state(app);
    server.get("/quote", |_: RequestContext<App>| async { Ok("the tide waits for nobody") });
    server.get("/count", count);
    server.get("/fetch", fetch);
    server
}

/// Counts messages in the database, and tells the number.
async fn count(mut ctx: RequestContext<App>) -> HandlerResult {
    let mut database = ctx.state().database.clone();
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    while let Some(message) = ws.recv().await? {
        let number: u64 = database.incr(message.as_text().unwrap_or_default(), 1).await?;
        ws.send(number.to_string()).await?;
    }
    Ok(())
}

/// Fetches the pages that it is told. A computation runs on a thread of tokio's.
async fn fetch(mut ctx: RequestContext<App>) -> HandlerResult {
    let http = ctx.state().http.clone();
    let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    while let Some(message) = ws.recv().await? {
        let url = message.as_text().unwrap_or_default();
        let page = http.get(url).timeout(Duration::from_secs(20)).send().await?.text().await?;
        let words = tokio::task::spawn_blocking(move || page.split(' ').count()).await?;
        ws.send(words.to_string()).await?;
    }
    Ok(())
}

async fn app(database: &Database) -> App {
    App { database: database.connection().await, http: reqwest::Client::new() }
}

#[tokio::test]
async fn handlers_on_a_port_use_libraries_on_tokio() -> Result<(), Box<dyn std::error::Error>> {
    let database = Database::start("port").await;
    let bound = server(app(&database).await).bind("127.0.0.1:0").await?;
    let (addr, handle) = (bound.local_addr(), bound.handle());
    let serving = tokio::spawn(bound.serve());

    let mut ws = tidewire::connect(&format!("ws://{addr}/fetch")).await?;
    for _ in 0..3 {
        ws.send(format!("http://{addr}/quote")).await?;
        assert_eq!(ws.recv().await?, Some("5".into()));
    }
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(tidewire::connect(&format!("ws://{addr}/count")).await?);
    }
    for (number, ws) in (1..).zip(&mut clients) {
        ws.send("visits").await?;
        assert_eq!(ws.recv().await?, Some(format!("{number}").into()));
    }
    drop((ws, clients));
    handle.shutdown(Default::default()).await;
    serving.await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_in_the_test_kit_use_libraries_on_tokio() -> tidewire::Result<()> {
    let database = Database::start("kit").await;
    let client = TestClient::new(&server(app(&database).await));
    let mut ws = client.connect("/count").await?;
    for number in 1..4 {
        ws.send("visits").await?;
        ws.expect_text(&number.to_string()).await;
    }
    // A database that is gone is a failure of the application, and not of the client.
    drop(database);
    ws.send("visits").await?;
    ws.expect_close(1011).await;
    let failure = client.expect_failure("").await;
    assert_eq!(failure.route(), "GET /count");
    Ok(())
}
