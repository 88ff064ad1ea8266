//! What a process survives, which would end with a panic in the wrong place: each in one of its own.

use std::cell::RefCell;
use std::future::{Future, pending};
use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use futures::io::Cursor;
use log::{LevelFilter, Log, Metadata, Record};
use tidewire::frame::Role;
use tidewire::limits::ConnectionLimit;
use tidewire::server::{ServerHandle, ServerOptions, ShutdownOptions};
use tidewire::upgrade::UpgradeOptions;
use tidewire::{RequestContext, Server, WebSocket, WebSocketOptions};

use super::Bomb;
use super::handlers::{WAYS, expect_echo, panics, server, start};
use crate::support::peer::within;
use crate::support::separate_process;
use crate::support::tcp::{Tcp, until_equal};

#[test]
fn a_program_that_should_not_end() {
    match separate_process::program().as_deref() {
        None => {}
        Some("logger") => {
            log::set_logger(&Panicking).unwrap();
            log::set_max_level(LevelFilter::Trace);
            with_a_log_that_panics();
        }
        Some("subscriber") => {
            // Below that level, tide tells of its routes, where a panic would be the test's own.
            let level = tracing_subscriber::filter::LevelFilter::DEBUG;
            let subscriber = tracing_subscriber::fmt().with_max_level(level);
            subscriber.with_writer(|| PanickingWriter).init();
            with_a_log_that_panics();
        }
        Some("shutdown") => shuts_down(),
        Some("shutdown_brought") => {
            let executor = Arc::new(smol::Executor::new());
            let running = Arc::clone(&executor);
            thread::spawn(move || smol::block_on(running.run(pending::<()>())));
            tidewire::executor::set_spawner(move |task| executor.spawn(task).detach()).unwrap();
            shuts_down();
        }
        Some("thread_ends") => thread_ends(),
        Some(unknown) => panic!("no program {unknown}"),
    }
}

fn run(program: &str) {
    separate_process::run("panics::program::a_program_that_should_not_end", program);
}

#[test]
fn a_logger_that_panics_ends_no_server_and_no_connection_of_another() {
    run("logger");
}

#[test]
fn a_subscriber_that_panics_ends_no_server_and_no_connection_of_another() {
    run("subscriber");
}

#[test]
fn destructors_that_panic_in_a_shutdown_leave_the_process_and_the_others_alone() {
    run("shutdown");
}

#[test]
fn destructors_that_panic_in_a_shutdown_leave_an_executor_that_was_brought_alone() {
    run("shutdown_brought");
}

#[test]
fn a_thread_may_end_with_connections_in_its_keeping() {
    run("thread_ends");
}

struct Panicking;

impl Log for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tidewire")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // What is written may panic before.
            let text = record.args().to_string();
            panic!("in the logger: {text}");
        }
    }

    fn flush(&self) {}
}

/// A subscriber of `tracing` writes the whole record here.
struct PanickingWriter;

impl io::Write for PanickingWriter {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        panic!("in the subscriber: {}", String::from_utf8_lossy(record));
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn with_a_log_that_panics() {
    let (handle, addr) = start();
    let mut beside = Tcp::upgraded(addr);
    for (number, way) in (1..).zip(WAYS) {
        panics(addr, way);
        expect_echo(&mut beside);
        until_equal(way, &Some(number), || handle.metrics().closes.get(&1011).copied());
    }
    // A peer that breaks the protocol, and one that speaks no HTTP.
    let mut rude = Tcp::upgraded(addr);
    rude.send(b"\x81\x05Hello");
    assert_eq!(rude.frame().close_code(), Some(1002));
    drop(rude);
    let mut lost = Tcp::connect(addr);
    lost.send("\x16\x03\x01 is no HTTP\r\n\r\n");
    assert!(lost.head().starts_with("HTTP/1.1 400 "));
    drop(lost);
    until_equal("one is left", &(1, 0), || {
        let metrics = handle.metrics();
        (metrics.open_websockets, metrics.open_http)
    });
    expect_echo(&mut beside);
    drop(beside);
    let report = within(handle.shutdown(ShutdownOptions::default()));
    assert_eq!(report.dropped, 0, "{report:?}");

    // A connection that is turned away by the task that accepts all of them.
    let mut server = server();
    server.options(ServerOptions::default().max_connections_per_address(1));
    let handle = within(server.start("127.0.0.1:0")).unwrap();
    let mut first = Tcp::upgraded(handle.local_addr());
    for number in 1..=3 {
        // A plain one: options of a socket that is reset already cannot be set.
        let second = TcpStream::connect(handle.local_addr()).unwrap();
        until_equal("it is turned away", &number, || handle.metrics().turned_away);
        drop(second);
    }
    expect_echo(&mut first);
}

/// Held by a handler; counts those that are.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn by(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Handlers that wait for ever, with and without a destructor that panics.
fn waiting(limit: &ConnectionLimit, held: &Arc<AtomicUsize>) -> ServerHandle {
    let mut server = Server::new();
    for (path, is_armed) in [("/bomb", true), ("/", false)] {
        let (options, held) = (UpgradeOptions::default().limit(limit), Arc::clone(held));
        server.get(path, move |mut ctx: RequestContext| {
            let (options, held) = (options.clone(), Arc::clone(&held));
            async move {
                let _ws = ctx.upgrade_to_websocket(options).await?;
                let (_held, _bomb) = (Held::by(&held), is_armed.then(|| Bomb));
                pending::<tidewire::HandlerResult>().await
            }
        });
    }
    let held = Arc::clone(held);
    server.get("/http", move |_: RequestContext| {
        let held = Arc::clone(&held);
        async move {
            let (_held, _bomb) = (Held::by(&held), Bomb);
            pending::<tidewire::HandlerResult>().await
        }
    });
    within(server.start("127.0.0.1:0")).unwrap()
}

fn shuts_down() {
    let (limit, held) = (ConnectionLimit::new(4), Arc::new(AtomicUsize::new(0)));
    let handle = waiting(&limit, &held);
    let addr = handle.local_addr();
    let upgraded = ["/bomb", "/", "/bomb", "/"].map(|path| Tcp::upgraded_at(addr, path));
    let mut asking = Tcp::connect(addr);
    asking.send("GET /http HTTP/1.1\r\nHost: x\r\n\r\n");
    until_equal("handlers that wait", &5, || held.load(SeqCst));

    let report = within(handle.shutdown(ShutdownOptions::default().grace(Duration::ZERO)));
    assert_eq!((report.closed, report.lost, report.dropped), (0, 4, 5), "{report:?}");
    assert_eq!(held.load(SeqCst), 0, "others are dropped beside those that panic");
    let metrics = handle.metrics();
    assert_eq!((metrics.open_http, metrics.open_websockets, limit.in_use()), (0, 0, 0));
    drop((upgraded, asking));
}

/// A thread keeps what its destructors, which come last, still use buffers and turns of the thread for.
fn thread_ends() {
    thread_local! {
        static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
    }
    static IS_SENT: AtomicBool = AtomicBool::new(false);

    enum Kept {
        Open(#[expect(dead_code, reason = "it is dropped")] WebSocket),
        Running(
            #[expect(dead_code, reason = "it is dropped")] Pin<Box<dyn Future<Output = ()> + Send>>,
        ),
    }

    struct SaysGoodbye(tidewire::Sender);

    impl Drop for SaysGoodbye {
        fn drop(&mut self) {
            let sending = self.0.send("goodbye");
            let mut sending = std::pin::pin!(sending);
            let sent = sending.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            IS_SENT.store(sent.is_ready(), SeqCst);
        }
    }

    let thread = thread::spawn(|| {
        // First made, last dropped: those of the crate are gone by then.
        KEPT.with_borrow(|kept| assert!(kept.is_empty()));
        let options = WebSocketOptions::default();
        for role in [Role::Server, Role::Client] {
            let stream = Cursor::new(Vec::new());
            let open = WebSocket::from_stream(stream.clone(), [].as_slice(), role, &options);
            let mut running =
                WebSocket::run(stream, [].as_slice(), role, &options, |ws| async move {
                    let _says_goodbye = SaysGoodbye(ws.sender());
                    ws.sender().send("Hello").await?;
                    pending::<tidewire::Result<()>>().await
                });
            let polled = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            KEPT.with_borrow_mut(|kept| kept.extend([Kept::Open(open), Kept::Running(running)]));
        }
    });
    thread.join().unwrap();
    assert!(IS_SENT.load(SeqCst), "a destructor has sent, for what that is worth");
}
