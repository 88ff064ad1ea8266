//! What a program does with a server on an executor of its own.

use std::io::Read;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidewire::executor::set_spawner;
use tidewire::limits::ConnectionLimit;
use tidewire::server::{ServerHandle, ServerOptions, ShutdownOptions};
use tidewire::upgrade::UpgradeOptions;
use tidewire::{Error, RequestContext, Sender, Server};

use super::brought::{Executor, Future};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{WITHIN, echo, within};
use crate::support::tcp::{OPENING, Tcp, until, until_equal};

const PING: &str = "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n";

const ANSWER: &str = "HTTP/1.1 200 OK\r\n";

/// A timeout that is to pass.
const SOON: Duration = Duration::from_millis(50);

pub(super) fn run(executor: &str) {
    match executor {
        "threads" => {
            set(|future| drop(thread::spawn(|| async_std::task::block_on(future))));
            is_used();
        }
        "eager" => {
            let executor = Executor::start();
            let alive = Arc::clone(&executor);
            set(move |mut future| {
                if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                    executor.spawn(future);
                }
            });
            is_used();
            until_equal("tasks are left", &0, || alive.alive());
        }
        "inline" => {
            let executor = Executor::inline();
            let alive = Arc::clone(&executor);
            set(move |future| executor.spawn(future));
            is_used();
            until_equal("tasks are left", &0, || alive.alive());
        }
        "drops" => {
            set(drop);
            is_of_no_use();
        }
        "panics" => {
            set(|_| panic!("there is no runtime on this thread"));
            is_of_no_use();
        }
        "keeps" => keeps(),
        "stops" => stops(|executor| {
            executor.stop();
            executor.drop_all();
        }),
        "stops_when_woken" => stops(Executor::stop),
        "refuses_handlers" => refuses_handlers(),
        unknown => panic!("no executor {unknown}"),
    }
}

fn set(spawner: impl Fn(Future) + Send + Sync + 'static) {
    set_spawner(spawner).expect("the first one");
}

/// Those of the connections at `/closed`.
static SENDERS: Mutex<Vec<Sender>> = Mutex::new(Vec::new());

/// A server with an echo at `/` and a wait for the end at `/closed`, for so many connections as `limit` admits,
/// and `pong` at `/ping`.
fn server(limit: &ConnectionLimit) -> Server {
    let options = UpgradeOptions::default().limit(limit);
    let mut server = Server::new();
    let waiting = options.clone();
    server.get("/closed", move |mut ctx: RequestContext| {
        let options = waiting.clone();
        async move {
            let ws = ctx.upgrade_to_websocket(options).await?;
            SENDERS.lock().unwrap().push(ws.sender());
            ws.closed().await;
            Ok(())
        }
    });
    server.options(ServerOptions::default().max_connections(8));
    server.get("/ping", |_: RequestContext| async { Ok("pong") });
    server.get("/", move |mut ctx: RequestContext| {
        let options = options.clone();
        async move { Ok(echo(ctx.upgrade_to_websocket(options).await?).await?) }
    });
    server
}

/// Serves on a thread of this program.
fn serve(server: Server) -> (ServerHandle, JoinHandle<Result<(), Error>>) {
    let bound = within(server.bind("127.0.0.1:0")).unwrap();
    let handle = bound.handle();
    (handle, thread::spawn(|| async_std::task::block_on(bound.serve())))
}

fn impatient() -> ShutdownOptions {
    ShutdownOptions::default().grace(SOON)
}

fn expect_echo(client: &mut Tcp) {
    client.send(masked(TEXT, "Hello"));
    client.expect(plain(TEXT, "Hello"));
}

fn expect_pong(client: &mut Tcp) {
    client.send(PING);
    let head = client.head();
    assert!(head.starts_with(ANSWER), "{head}");
    client.expect("pong");
}

/// A client that is served until its connection is dropped: it sees the end, or a reset.
fn expect_dropped(client: &mut Tcp) {
    let mut rest = Vec::new();
    if let Err(error) = client.socket.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(rest, b"");
}

fn expect_nothing_held(handle: &ServerHandle, limit: &ConnectionLimit) {
    until_equal("something is held", &(0, 0, 0), || {
        let metrics = handle.metrics();
        (metrics.open_http, metrics.open_websockets, limit.in_use())
    });
}

/// Over sockets and in memory: requests, connections, and a shutdown that nothing outlives.
fn is_used() {
    let limit = ConnectionLimit::new(3);
    for is_in_background in [true, false] {
        let (handle, serving) = if is_in_background {
            (within(server(&limit).start("127.0.0.1:0")).unwrap(), None)
        } else {
            let (handle, serving) = serve(server(&limit));
            (handle, Some(serving))
        };
        let addr = handle.local_addr();
        let mut idle = Tcp::connect(addr);
        expect_pong(&mut idle);
        let mut clients = [(); 3].map(|()| Tcp::upgraded(addr));
        clients.iter_mut().for_each(expect_echo);
        let mut refused = Tcp::connect(addr);
        refused.send(OPENING);
        assert!(refused.head().starts_with("HTTP/1.1 503 "));
        drop(refused);
        let [mut leaves, mut answers, silent] = clients;
        leaves.send(masked(CLOSE, close(1000, "")));
        leaves.expect_hex("88 02 03e8");
        leaves.expect_end();
        until("the permit is free", || limit.available() == 1);

        let answering = thread::spawn(move || {
            expect_dropped(&mut idle);
            drop(idle);
            answers.expect_hex("88 02 03e9");
            answers.send(masked(CLOSE, close(1001, "")));
            answers.expect_end();
        });
        let report = within(handle.shutdown(impatient()));
        // The client that does not answer the close frame.
        assert_eq!((report.closed, report.lost, report.dropped), (1, 1, 1), "{report:?}");
        answering.join().unwrap();
        drop(silent);
        expect_nothing_held(&handle, &limit);
        if let Some(serving) = serving {
            serving.join().unwrap().unwrap();
        }
    }
    #[cfg(feature = "testing")]
    in_memory::is_used(&limit);
}

/// The executor runs nothing: clients are let go, and whoever waits is told.
fn is_of_no_use() {
    let limit = ConnectionLimit::new(1);
    let error = within(server(&limit).start("127.0.0.1:0")).unwrap_err();
    let said = "I/O failed: the executor of `set_spawner` runs no tasks";
    assert_eq!(format!("{error:#}"), said);

    let (handle, serving) = serve(server(&limit));
    for _ in 0..20 {
        expect_dropped(&mut Tcp::connect(handle.local_addr()));
    }
    expect_nothing_held(&handle, &limit);
    let report = within(handle.shutdown(ShutdownOptions::default()));
    assert_eq!((report.closed, report.lost, report.dropped), (0, 0, 0), "{report:?}");
    serving.join().unwrap().unwrap();
    #[cfg(feature = "testing")]
    in_memory::is_of_no_use(&limit);
}

/// Tasks are kept, and never polled.
fn keeps() {
    static KEPT: Mutex<Vec<Future>> = Mutex::new(Vec::new());
    let clear = || drop(std::mem::take(&mut *KEPT.lock().unwrap()));

    set(|future| KEPT.lock().unwrap().push(future));
    let limit = ConnectionLimit::new(1);
    let (handle, serving) = serve(server(&limit));
    let mut client = Tcp::connect(handle.local_addr());
    client.send(PING);
    until("the connection is accepted", || KEPT.lock().unwrap().len() == 1);
    let report = within(handle.shutdown(impatient()));
    assert_eq!((report.closed, report.lost, report.dropped), (0, 0, 1), "{report:?}");
    serving.join().unwrap().unwrap();
    clear();
    expect_dropped(&mut client);
    expect_nothing_held(&handle, &limit);
    #[cfg(feature = "testing")]
    in_memory::is_kept(&limit, clear);
}

/// The executor stops while the server is in use.
fn stops(stop: impl FnOnce(&Executor)) {
    let executor = Executor::start();
    let brought = Arc::clone(&executor);
    set(move |future| brought.spawn(future));
    let limit = ConnectionLimit::new(3);
    let (handle, serving) = serve(server(&limit));
    let addr = handle.local_addr();
    let mut idle = [(); 3].map(|()| Tcp::connect(addr));
    idle.iter_mut().for_each(expect_pong);
    let mut clients = [(); 2].map(|()| Tcp::upgraded(addr));
    clients.iter_mut().for_each(expect_echo);
    let waiting = Tcp::upgraded_at(addr, "/closed");
    until("its handler waits", || !SENDERS.lock().unwrap().is_empty());
    let sender = SENDERS.lock().unwrap().pop().unwrap();
    let (tell, told) = mpsc::channel();
    executor.spawn(Box::pin(async move {
        let mut closed = pin!(sender.closed());
        tell.send(futures::poll!(&mut closed).is_pending()).unwrap();
        closed.await;
    }));
    assert!(told.recv_timeout(WITHIN).unwrap());

    stop(&executor);
    within(handle.shutdown(impatient()));
    serving.join().unwrap().unwrap();
    expect_nothing_held(&handle, &limit);
    assert_eq!(executor.alive(), 0);
    idle.iter_mut().for_each(expect_dropped);
    drop(waiting);
}

/// The tasks that accept and that speak HTTP have a place, and the handler has none.
fn refuses_handlers() {
    let executor = Executor::with_room(2);
    set(move |future| executor.spawn(future));
    let limit = ConnectionLimit::new(1);
    let handle = within(server(&limit).start("127.0.0.1:0")).unwrap();
    let addr: SocketAddr = handle.local_addr();
    let mut client = Tcp::connect(addr);
    client.send(OPENING);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    drop(client);
    expect_nothing_held(&handle, &limit);
    assert_eq!(handle.metrics().refused["shutting_down"], 1);
    within(handle.shutdown(ShutdownOptions::default()));
}

#[cfg(feature = "testing")]
mod in_memory {
    use std::io::ErrorKind;

    use tidewire::testing::TestClient;

    use super::*;

    pub(super) fn is_used(limit: &ConnectionLimit) {
        let client = TestClient::new(&server(limit));
        within(async {
            client.get("/ping").send().await.unwrap().assert_text("pong");
            let mut ws = client.connect("/").await.unwrap();
            ws.send("Hello").await.unwrap();
            assert_eq!(ws.recv().await.unwrap(), Some("Hello".into()));
            let (report, end) = futures::join!(client.shutdown(), ws.recv());
            assert_eq!((end.unwrap(), report.closed, report.dropped), (None, 1, 0));
            client.idle().await;
        });
        assert_eq!(limit.in_use(), 0);
    }

    pub(super) fn is_of_no_use(limit: &ConnectionLimit) {
        let client = TestClient::new(&server(limit));
        within(async {
            let errors = [
                client.get("/ping").send().await.unwrap_err(),
                client.connect("/").await.unwrap_err(),
                client.peer("/").await.unwrap_err(),
                client.open().unwrap_err(),
            ];
            for error in errors {
                let Error::Io(error) = error else { panic!("{error}") };
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                let said = "the executor of `set_spawner` runs no tasks";
                assert!(error.to_string().starts_with(said), "{error}");
            }
            client.idle().await;
            assert_eq!(client.shutdown().await.dropped, 0);
        });
    }

    pub(super) fn is_kept(limit: &ConnectionLimit, clear: impl FnOnce()) {
        let client = TestClient::new(&server(limit)).patience(SOON);
        within(async {
            let error = client.get("/ping").send().await.unwrap_err();
            assert_eq!(
                format!("{error:#}"),
                "I/O failed: no whole answer to GET /ping within 50ms"
            );
            client.connect("/").await.unwrap_err();
            assert_eq!(client.shutdown_with(impatient()).await.dropped, 2);
            clear();
            client.idle().await;
        });
    }
}
