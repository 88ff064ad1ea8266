//! The server, and all that it does in the background, on an executor of the application.
#![cfg(feature = "server")]

use std::sync::{Arc, OnceLock};
use std::thread;

use smol::Executor;
use smol_check::within;
use tidewire::executor::SpawnerAlreadySet;
use tidewire::server::ShutdownOptions;
use tidewire::{Error, RequestContext, Server, WebSocketOptions};

/// One thread, whose name tells it.
fn executor() -> &'static Arc<Executor<'static>> {
    static EXECUTOR: OnceLock<Arc<Executor<'static>>> = OnceLock::new();
    EXECUTOR.get_or_init(|| {
        let executor = Arc::new(Executor::new());
        let running = Arc::clone(&executor);
        let run = move || smol::block_on(running.run(std::future::pending::<()>()));
        thread::Builder::new().name("brought".into()).spawn(run).expect("a thread");
        executor
    })
}

fn thread_name() -> String {
    thread::current().name().unwrap_or("none").to_owned()
}

#[test]
fn handlers_run_on_the_executor_that_the_application_brings() {
    let executor = executor();
    tidewire::executor::set_spawner(|future| executor.spawn(future).detach())
        .expect("the first one");
    let second: Result<(), SpawnerAlreadySet> = tidewire::executor::set_spawner(|_| {});
    assert!(second.is_err());

    let mut server = Server::new();
    server.get("/thread", |_: RequestContext| async { Ok(thread_name()) });
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while let Some(message) = ws.recv().await? {
            ws.send(thread_name()).await?;
            ws.send(message).await?;
        }
        Ok(())
    });
    within(async {
        let handle = server.start("127.0.0.1:0").await?;
        let url = format!("ws://{}/ws", handle.local_addr());
        let mut ws = tidewire::connect(&url).await?;
        ws.send("echo").await?;
        for expected in ["brought", "echo"] {
            assert_eq!(
                ws.recv().await?.as_ref().and_then(|message| message.as_text()),
                Some(expected)
            );
        }
        let waiting = tidewire::connect(&url).await?;

        // Neither client answers the close frame in time, so both tasks are dropped where they stand.
        let grace = std::time::Duration::from_millis(50);
        let report = handle.shutdown(ShutdownOptions::default().grace(grace)).await;
        assert_eq!(report.dropped, 2, "{report:?}");
        drop(waiting);
        Ok::<_, Error>(())
    })
    .unwrap();
}
