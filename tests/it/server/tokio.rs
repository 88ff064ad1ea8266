//! Servers in programs on tokio: their handlers use it, whichever runtime it is, and whether it lives or ends.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc as std_mpsc};
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use tidewire::server::{ServerHandle, ServerOptions};
use tidewire::{RequestContext, Server, WebSocketOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use super::{GET, patient, start};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::within;
use crate::support::tcp::{Tcp, until};

const MOMENT: Duration = Duration::from_millis(1);

const HOUR: Duration = Duration::from_secs(3600);

/// A runtime with one thread, which has this name.
fn multi_thread(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build().unwrap()
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// What libraries on tokio use: timers, tasks, sockets and threads.
async fn use_all_of_tokio() -> tidewire::HandlerResult<&'static str> {
    sleep(MOMENT).await;
    assert!(timeout(MOMENT, pending::<()>()).await.is_err());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let other_side = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await?;
        socket.write_all(b"used").await
    });
    let mut text = String::new();
    TcpStream::connect(addr).await?.read_to_string(&mut text).await?;
    other_side.await??;
    assert_eq!(tokio::task::spawn_blocking(|| text).await?, "used");
    Ok("used")
}

/// The name of the thread that runs this.
fn here() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// A server whose handlers use tokio: at `/all` before an upgrade, at `/ws` after it. `/task` answers with the thread
/// of a task of tokio, and `/handlers` with that of a handler before its upgrade and after it.
fn on_tokio(options: ServerOptions) -> Server {
    let mut server = Server::new();
    server.options(options);
    server.get("/all", |_: RequestContext| use_all_of_tokio());
    server.get("/task", |_: RequestContext| async { Ok(tokio::spawn(async { here() }).await?) });
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while let Some(message) = ws.recv().await? {
            use_all_of_tokio().await?;
            ws.send(message).await?;
        }
        Ok(())
    });
    server.get("/handlers", |mut ctx: RequestContext| async move {
        let before = here();
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        ws.send(before).await?;
        ws.send(here()).await?;
        Ok(())
    });
    server
}

fn workers(count: usize) -> ServerOptions {
    ServerOptions::default().workers(count)
}

/// Sends a request and returns the status and the body of its response.
fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut client = Tcp::connect(addr);
    client.send(GET.replacen('/', path, 1));
    let head = client.head().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let body = client.read(len.unwrap().parse().unwrap());
    (status, String::from_utf8(body).unwrap())
}

fn expect_echo(client: &mut Tcp) {
    client.send(masked(TEXT, "hello"));
    client.expect(plain(TEXT, "hello"));
}

/// All that is wanted of handlers on tokio, by a client that blocks its thread.
fn expect_all(addr: SocketAddr) {
    assert_eq!(get(addr, "/all"), (200, "used".to_owned()));
    expect_echo(&mut Tcp::upgraded_at(addr, "/ws"));
}

/// Serves on a thread inside `block_on`, as a program with `#[tokio::main]` does.
fn serve(runtime: Runtime, server: Server) -> (ServerHandle, thread::JoinHandle<()>) {
    let (tell, told) = std_mpsc::channel();
    let program = thread::spawn(move || {
        runtime.block_on(async {
            let bound = server.bind("127.0.0.1:0").await.unwrap();
            tell.send(bound.handle()).unwrap();
            bound.serve().await.unwrap();
        });
    });
    (told.recv().unwrap(), program)
}

#[test]
fn handlers_use_the_runtime_that_the_server_is_bound_in() {
    for runtime in [current_thread, || multi_thread("around")] {
        // Without workers, too.
        for count in [2, 0] {
            let (handle, program) = serve(runtime(), on_tokio(workers(count)));
            assert_eq!(handle.metrics().workers.len(), count);
            expect_all(handle.local_addr());
            within(handle.shutdown(patient()));
            program.join().unwrap();
        }
    }
}

#[test]
fn the_runtime_that_the_options_name_is_used_inside_another_and_outside_of_any() {
    let (given, around) = (multi_thread("given"), multi_thread("around"));
    let server = || on_tokio(workers(1).tokio(given.handle().clone()));
    let inside = around.block_on(server().start("127.0.0.1:0")).unwrap();
    for handle in [inside, start(server())] {
        assert_eq!(get(handle.local_addr(), "/task"), (200, "given".to_owned()));
        expect_all(handle.local_addr());
        within(handle.shutdown(patient()));
    }
    let handle = around.block_on(on_tokio(workers(1)).start("127.0.0.1:0")).unwrap();
    assert_eq!(get(handle.local_addr(), "/task"), (200, "around".to_owned()));
    within(handle.shutdown(patient()));
}

#[test]
fn a_runtime_takes_no_workers_away() {
    let elsewhere = start(Server::new());
    let inside = multi_thread("around");
    let inside = inside.block_on(Server::new().start("127.0.0.1:0")).unwrap();
    assert_eq!(inside.metrics().workers.len(), elsewhere.metrics().workers.len());
    for handle in [elsewhere, inside] {
        within(handle.shutdown(patient()));
    }
}

#[test]
fn connections_without_workers_run_on_the_runtime() {
    let around = multi_thread("around");
    let handle = around.block_on(on_tokio(workers(0)).start("127.0.0.1:0")).unwrap();
    let mut client = Tcp::upgraded_at(handle.local_addr(), "/handlers");
    client.expect(plain(TEXT, "around"));
    client.expect(plain(TEXT, "around"));
    drop(client);
    within(handle.shutdown(patient()));
}

#[test]
fn threads_that_continue_a_stalled_worker_have_the_runtime_too() {
    let runtime = multi_thread("around");
    let blocked = Arc::new(AtomicUsize::new(0));
    let (release, may_go) = std_mpsc::channel::<()>();
    let may_go = Arc::new(Mutex::new(may_go));
    let mut server = on_tokio(workers(1));
    let number = Arc::clone(&blocked);
    server.get("/block", move |_: RequestContext| {
        let (number, may_go) = (Arc::clone(&number), Arc::clone(&may_go));
        async move {
            number.fetch_add(1, Ordering::SeqCst);
            // Fails once nobody can send any more.
            let _ = may_go.lock().unwrap().recv();
            use_all_of_tokio().await
        }
    });
    let handle = runtime.block_on(server.start("127.0.0.1:0")).unwrap();
    let mut before = Tcp::upgraded_at(handle.local_addr(), "/ws");
    let sleepers: Vec<_> = (1..=3)
        .map(|number| {
            let mut client = Tcp::connect(handle.local_addr());
            client.send(GET.replacen('/', "/block", 1));
            until("its handler blocks", || blocked.load(Ordering::SeqCst) == number);
            expect_echo(&mut before);
            expect_all(handle.local_addr());
            client
        })
        .collect();
    assert!(handle.metrics().workers[0].stalls >= 3, "{:?}", handle.metrics().workers);
    drop(release);
    for mut sleeper in sleepers {
        assert!(sleeper.head().starts_with("HTTP/1.1 200 "));
        assert_eq!(sleeper.read(4), b"used");
    }
    expect_echo(&mut before);
    drop(before);
    within(handle.shutdown(patient()));
}

/// Adds a route whose handler waits with `wait`, after it has been told on the channel that it does.
fn waiting<F>(
    server: &mut Server,
    path: &str,
    waits: &mpsc::UnboundedSender<()>,
    wait: impl Fn() -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = tidewire::HandlerResult> + Send + 'static,
{
    let waits = waits.clone();
    server.get(path, move |mut ctx: RequestContext| {
        let (waits, wait) = (waits.clone(), wait.clone());
        async move {
            let _ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            let mut waiting = Box::pin(wait());
            assert!(futures::poll!(&mut waiting).is_pending());
            waits.unbounded_send(())?;
            waiting.await
        }
    });
}

#[test]
fn a_runtime_that_ends_first_ends_the_waits_of_handlers_and_nothing_else() {
    let runtime = multi_thread("around");
    let (waits, mut waiting_now) = mpsc::unbounded();
    let mut server = on_tokio(workers(1));
    waiting(&mut server, "/timer", &waits, || async {
        sleep(HOUR).await;
        Ok(())
    });
    waiting(&mut server, "/task", &waits, || async { Ok(tokio::spawn(pending()).await?) });
    waiting(&mut server, "/socket", &waits, || async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        listener.accept().await?;
        Ok(())
    });
    server.get("/echo", |mut ctx: RequestContext| async move {
        let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        Ok(crate::support::peer::echo(ws).await?)
    });
    let handle = runtime.block_on(server.start("127.0.0.1:0")).unwrap();
    let addr = handle.local_addr();
    let mut beside = Tcp::upgraded_at(addr, "/echo");
    let mut used = Tcp::upgraded_at(addr, "/ws");
    expect_echo(&mut used);
    let mut waiters = ["/timer", "/task", "/socket"].map(|path| Tcp::upgraded_at(addr, path));
    for _ in &waiters {
        within(waiting_now.next()).unwrap();
    }

    drop(runtime);
    for waiter in &mut waiters {
        assert_eq!(waiter.frame().close_code(), Some(1011));
        waiter.send(masked(CLOSE, close(1011, "")));
        waiter.expect_end();
    }
    used.send(masked(TEXT, "hello"));
    assert_eq!(used.frame().close_code(), Some(1011));
    for _ in 0..3 {
        assert_eq!(get(addr, "/all").0, 500);
        expect_echo(&mut beside);
        expect_echo(&mut Tcp::upgraded_at(addr, "/echo"));
    }
    drop((beside, used));
    let report = within(handle.shutdown(patient()));
    assert_eq!(report.dropped, 0, "{report:?}");
}

#[test]
fn a_runtime_that_ends_first_ends_the_connections_of_a_server_without_workers() {
    let runtime = multi_thread("around");
    let handle = runtime.block_on(on_tokio(workers(0)).start("127.0.0.1:0")).unwrap();
    let mut client = Tcp::upgraded_at(handle.local_addr(), "/ws");
    expect_echo(&mut client);
    drop(runtime);
    client.expect_end();
    Tcp::connect(handle.local_addr()).expect_end();
    let report = within(handle.shutdown(patient()));
    assert_eq!((report.closed, report.dropped), (0, 0), "{report:?}");
}
