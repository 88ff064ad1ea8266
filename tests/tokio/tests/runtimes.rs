//! The test kit on runtimes of tokio, of which each test has its own.

use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use tidewire::testing::TestClient;
use tidewire::{RequestContext, Server, WebSocketOptions};
use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime that tasks are given to.
static CURRENT: Mutex<Option<Handle>> = Mutex::new(None);

/// Gives tasks to `runtime` from now on, and lets other tests wait.
fn use_runtime(runtime: &Runtime) -> MutexGuard<'static, ()> {
    static SPAWNER: Once = Once::new();
    static TURN: Mutex<()> = Mutex::new(());

    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    SPAWNER.call_once(|| {
        let spawner = |task| {
            let runtime = CURRENT.lock().unwrap().clone();
            drop(runtime.expect("a runtime was used").spawn(task));
        };
        tidewire::executor::set_spawner(spawner).expect("the first one");
    });
    set(runtime);
    turn
}

fn set(runtime: &Runtime) {
    *CURRENT.lock().unwrap() = Some(runtime.handle().clone());
}

fn app() -> Server {
    let mut server = Server::new();
    server.get("/ping", |_: RequestContext| async { Ok("pong") });
    server.get("/slow", |_: RequestContext| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok("slow")
    });
    server.get("/never", |_: RequestContext| std::future::pending::<tidewire::HandlerResult>());
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while let Some(message) = ws.recv().await? {
            ws.send(message).await?;
        }
        Ok(())
    });
    server
}

/// As `#[tokio::test]` makes them.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn is_used(client: &TestClient) {
    client.get("/slow").send().await.unwrap().assert_text("slow");
    let mut ws = client.connect("/ws").await.unwrap();
    ws.send("Hello").await.unwrap();
    ws.expect_text("Hello").await;
    ws.expect_silence_for(Duration::from_secs(3600)).await;
    let (report, end) = tokio::join!(client.shutdown(), ws.recv());
    assert_eq!((end.unwrap(), report.closed, report.dropped), (None, 1, 0));
    client.idle().await;
}

#[test]
fn one_runtime_after_the_other_serves_its_test() {
    for _ in 0..3 {
        let runtime = runtime();
        let _turn = use_runtime(&runtime);
        runtime.block_on(async { is_used(&TestClient::new(&app())).await });
    }
}

#[test]
fn a_test_whose_tasks_go_to_the_runtime_of_another_fails_at_once_and_says_why() {
    let first = runtime();
    let _turn = use_runtime(&first);
    first.block_on(async { is_used(&TestClient::new(&app())).await });
    drop(first);

    let begin = Instant::now();
    runtime().block_on(async {
        let client = TestClient::new(&app());
        let said = "I/O failed: the executor of `set_spawner` runs no tasks: \
                    was its runtime that of another test?";
        let error = client.get("/ping").send().await.unwrap_err();
        assert_eq!(format!("{error:#}"), said);
        let error = client.connect("/ws").await.unwrap_err();
        assert_eq!(format!("{error:#}"), said);
        client.idle().await;
        assert_eq!(client.shutdown().await.dropped, 0);
    });
    assert!(begin.elapsed() < Duration::from_secs(4), "patience is for what may still come");
}

#[test]
fn a_request_that_outlives_the_runtime_of_its_server_fails_and_says_why() {
    let first = runtime();
    let _turn = use_runtime(&first);
    let client = TestClient::new(&app());
    // Its task runs while the runtime does, and that is now.
    let mut never = Box::pin(client.get("/never").send());
    first.block_on(async {
        while client.metrics().open_http == 0 {
            tokio::select! { biased;
                answer = &mut never => panic!("an answer: {answer:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    });
    drop(first);
    let second = runtime();
    let error = second.block_on(never).unwrap_err();
    let said = "I/O failed: the executor of `set_spawner` runs no tasks any more: ";
    assert!(format!("{error:#}").starts_with(said), "{error:#}");
    set(&second);
    second.block_on(is_used(&client));
}

#[test]
fn patience_ends_a_wait_for_a_runtime_that_stands_still() {
    let idle = runtime();
    let _turn = use_runtime(&idle);
    let client = TestClient::new(&app()).patience(Duration::from_millis(50));
    runtime().block_on(async {
        let error = client.get("/ping").send().await.unwrap_err();
        assert_eq!(format!("{error:#}"), "I/O failed: no whole answer to GET /ping within 50ms");
    });
}
