//! The threads that serve connections: how they share them, and one that blocks.

use std::env;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::{self, ThreadId};

use async_std::task;
use log::{LevelFilter, Log, Metadata, Record};
use tidewire::rooms::LocalBackplane;
use tidewire::server::{ServerHandle, ServerOptions};
use tidewire::{Hub, RequestContext, Room, Server, WebSocketOptions};

use super::{GET, patient, start};
use crate::support::frames::{TEXT, masked, plain};
use crate::support::peer::{self, within};
use crate::support::server_process::{Process, serve};
use crate::support::tcp::{Tcp, until};

/// A server with so many workers, and an echo at `/ws`.
fn with_workers(count: usize) -> Server {
    let mut server = Server::new();
    server.options(ServerOptions::default().workers(count));
    server.get("/ws", |mut ctx: RequestContext| async move {
        let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        Ok(peer::echo(ws).await?)
    });
    server
}

/// Sends a message, and waits for the same.
fn echo(client: &mut Tcp) {
    client.send(masked(TEXT, "hello"));
    client.expect(plain(TEXT, "hello"));
}

fn stalls(handle: &ServerHandle) -> u64 {
    handle.metrics().workers.iter().map(|worker| worker.stalls).sum()
}

#[test]
fn a_burst_of_connections_is_spread_evenly() {
    const EACH: usize = 50;
    let handle = start(with_workers(4));
    let clients: Vec<_> = (0..4 * EACH).map(|_| Tcp::connect(handle.local_addr())).collect();
    until("all are accepted", || handle.metrics().open_http == clients.len());
    let workers = handle.metrics().workers;
    let connections: Vec<_> = workers.iter().map(|worker| worker.connections).collect();
    assert_eq!(connections, [EACH; 4]);
    let tasks: usize = workers.iter().map(|worker| worker.tasks).sum();
    assert_eq!(tasks, 4 * EACH + 1, "one task accepts, on a worker, too");
    drop(clients);
    within(handle.shutdown(patient()));
    until("no task is left", || handle.metrics().workers.iter().all(|worker| worker.tasks == 0));
}

#[test]
fn a_connection_stays_on_its_thread_from_the_request_to_the_end() {
    let threads = Arc::new(Mutex::new(Vec::<ThreadId>::new()));
    let mut server = Server::new();
    server.options(ServerOptions::default().workers(3));
    let seen = Arc::clone(&threads);
    server.get("/ws", move |mut ctx: RequestContext| {
        let seen = Arc::clone(&seen);
        let note = move || seen.lock().unwrap().push(thread::current().id());
        async move {
            note();
            let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            note();
            while let Some(message) = ws.recv().await? {
                note();
                ws.send(message).await?;
            }
            note();
            Ok(())
        }
    });
    let handle = start(server);
    let mut client = Tcp::upgraded_at(handle.local_addr(), "/ws");
    for _ in 0..10 {
        echo(&mut client);
    }
    drop(client);
    within(handle.shutdown(patient()));
    let threads = threads.lock().unwrap();
    assert!(threads.len() >= 12, "{threads:?}");
    assert!(threads.iter().all(|thread| *thread == threads[0]), "{threads:?}");
}

/// Handlers of `/block` block their thread until the sender is dropped.
fn blocking(server: &mut Server, blocked: &Arc<AtomicUsize>) -> mpsc::Sender<()> {
    let (release, may_go) = mpsc::channel::<()>();
    let (may_go, blocked) = (Arc::new(Mutex::new(may_go)), Arc::clone(blocked));
    server.get("/block", move |_: RequestContext| {
        let (may_go, blocked) = (Arc::clone(&may_go), Arc::clone(&blocked));
        async move {
            blocked.fetch_add(1, Ordering::SeqCst);
            // Fails once nobody can send any more.
            let _ = may_go.lock().unwrap().recv();
            Ok("at last")
        }
    });
    release
}

#[test]
fn handlers_that_block_the_only_worker_stop_nobody_else() {
    let blocked = Arc::new(AtomicUsize::new(0));
    let mut server = with_workers(1);
    let release = blocking(&mut server, &blocked);
    let handle = start(server);
    let mut before = Tcp::upgraded_at(handle.local_addr(), "/ws");
    let mut sleepers: Vec<_> = (1..=3)
        .map(|number| {
            let mut client = Tcp::connect(handle.local_addr());
            client.send(GET.replacen('/', "/block", 1));
            until("its handler blocks", || blocked.load(Ordering::SeqCst) == number);
            // An old connection and a new one, each on the worker whose thread is blocked.
            echo(&mut before);
            echo(&mut Tcp::upgraded_at(handle.local_addr(), "/ws"));
            client
        })
        .collect();
    assert!(stalls(&handle) >= 3, "{:?}", handle.metrics().workers);
    drop(release);
    for sleeper in &mut sleepers {
        assert!(sleeper.head().starts_with("HTTP/1.1 200 "));
        assert_eq!(sleeper.read(7), b"at last");
    }
    echo(&mut before);
    drop((before, sleepers));
    within(handle.shutdown(patient()));
}

#[test]
fn a_task_that_always_wakes_itself_starves_nobody() {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut server = with_workers(1);
    let ends = Arc::clone(&is_over);
    server.get("/spin", move |_: RequestContext| {
        let ends = Arc::clone(&ends);
        async move {
            while !ends.load(Ordering::Relaxed) {
                task::yield_now().await;
            }
            Ok("over")
        }
    });
    let handle = start(server);
    let mut spinning = Tcp::connect(handle.local_addr());
    spinning.send(GET.replacen('/', "/spin", 1));
    let mut client = Tcp::upgraded_at(handle.local_addr(), "/ws");
    for _ in 0..100 {
        echo(&mut client);
    }
    // It waits, and does not block its thread.
    assert_eq!(stalls(&handle), 0);
    is_over.store(true, Ordering::Relaxed);
    assert!(spinning.head().starts_with("HTTP/1.1 200 "));
    drop((client, spinning));
    within(handle.shutdown(patient()));
}

#[test]
fn without_workers_the_executor_serves() {
    let handle = start(with_workers(0));
    assert_eq!(handle.metrics().workers, []);
    echo(&mut Tcp::upgraded_at(handle.local_addr(), "/ws"));
    within(handle.shutdown(patient()));
}

#[test]
fn more_workers_than_any_machine_has_are_refused() {
    let error = within(with_workers(1025).start("127.0.0.1:0")).unwrap_err();
    let error = format!("{error:#}");
    assert_eq!(error, "I/O failed: 1025 workers were asked for, and 1024 is the most");
}

/// Prints what becomes of a server without options. Does nothing when run as a test.
#[test]
fn a_server_without_options() {
    if env::var_os("TIDEWIRE_TEST_OPTIONS").is_some() {
        let outcome = within(Server::new().start("127.0.0.1:0"));
        match outcome {
            Ok(handle) => println!("\n= {} workers", handle.metrics().workers.len()),
            Err(error) => println!("\n= {error:#}"),
        }
    }
}

#[test]
fn the_environment_says_how_many_there_are_by_default() {
    let outcome = |count: Option<&str>| {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "server::workers::a_server_without_options", "--nocapture"]);
        child.env("TIDEWIRE_TEST_OPTIONS", "1").env_remove("TIDEWIRE_WORKERS");
        if let Some(count) = count {
            child.env("TIDEWIRE_WORKERS", count);
        }
        let output = child.stderr(Stdio::inherit()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("= "));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert_eq!(outcome(Some("3")), "3 workers");
    assert_eq!(outcome(Some("0")), "0 workers");
    let cores = thread::available_parallelism().unwrap();
    assert_eq!(outcome(None), format!("{cores} workers"));
    for wrong in ["two", "", "-1", "1.5"] {
        let error = format!("I/O failed: TIDEWIRE_WORKERS is \"{wrong}\", and must be a number");
        assert_eq!(outcome(Some(wrong)), error);
    }
}

/// The threads of servers in this process.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    let names = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        // A thread may have ended meanwhile.
        std::fs::read_to_string(task.unwrap().path().join("comm")).ok()
    });
    names.filter(|name| name.starts_with("tidewire-")).count()
}

/// Counts the threads of a server before it starts, while it runs, and after its end, while its handle is still there.
/// Does nothing when run as a test.
#[cfg(target_os = "linux")]
#[test]
fn a_server_whose_threads_are_counted() {
    if env::var_os("TIDEWIRE_TEST_THREADS").is_some() {
        let before = threads();
        let mut server = with_workers(2);
        // Its tasks for the backplane begin in the handler, and go on after the server.
        let hub: Arc<OnceLock<Hub>> = Arc::default();
        let of_handler = Arc::clone(&hub);
        server.get("/room", move |_: RequestContext| {
            let hub = of_handler.get_or_init(|| Hub::with_backplane(LocalBackplane::new()));
            let room: Room = hub.room("room");
            async move { Ok(room.name().to_owned()) }
        });
        let handle = start(server);
        echo(&mut Tcp::upgraded_at(handle.local_addr(), "/ws"));
        let mut client = Tcp::connect(handle.local_addr());
        client.send(GET.replacen('/', "/room", 1));
        assert!(client.head().starts_with("HTTP/1.1 200 "));
        let during = threads();
        drop(client);
        within(handle.shutdown(patient()));
        until("all threads have ended", || threads() == 0);
        println!("\n= {before} {during} {:?}", handle.metrics().is_shutting_down);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_threads_of_a_server_end_with_it() {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "server::workers::a_server_whose_threads_are_counted", "--nocapture"]);
    let output = child.env("TIDEWIRE_TEST_THREADS", "1").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // Two workers, and the supervisor.
    assert!(text.contains("\n= 0 3 true\n"), "{text}");
}

/// The descriptors that wait for events, of all servers in this process.
#[cfg(target_os = "linux")]
fn event_descriptors() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("[event")).count()
}

/// Counts descriptors before a server starts, and after its end, while the `Sender` of a connection is still there. Does
/// nothing when run as a test.
#[cfg(target_os = "linux")]
#[test]
fn a_server_whose_descriptors_are_counted() {
    if env::var_os("TIDEWIRE_TEST_DESCRIPTORS").is_some() {
        // Those of the executor are there before.
        within(task::sleep(std::time::Duration::from_millis(1)));
        let before = event_descriptors();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let mut server = with_workers(2);
        let keep = Arc::clone(&kept);
        server.get("/kept", move |mut ctx: RequestContext| {
            let keep = Arc::clone(&keep);
            async move {
                let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
                keep.lock().unwrap().push(ws.sender());
                Ok(peer::echo(ws).await?)
            }
        });
        let handle = start(server);
        echo(&mut Tcp::upgraded_at(handle.local_addr(), "/kept"));
        let during = event_descriptors();
        within(handle.shutdown(patient()));
        drop(handle);
        until("all threads have ended", || threads() == 0);
        let kept = kept.lock().unwrap().len();
        println!("\n= {} {} {kept}", during > before, event_descriptors() - before);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_sender_that_is_kept_keeps_no_descriptor_of_its_server() {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args([
        "--exact",
        "server::workers::a_server_whose_descriptors_are_counted",
        "--nocapture",
    ]);
    let output = child.env("TIDEWIRE_TEST_DESCRIPTORS", "1").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\n= true 0 1\n"), "{text}");
}

/// Writes each warning to the standard output.
struct Warnings;

impl Log for Warnings {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        println!("\nwarning: {}", record.args());
    }

    fn flush(&self) {}
}

/// The server whose handlers block. Does nothing when run as a test.
#[test]
fn a_server_with_one_worker_that_blocks() {
    serve(|| {
        log::set_logger(&Warnings).unwrap();
        log::set_max_level(LevelFilter::Warn);
        let mut server = with_workers(1);
        let release = blocking(&mut server, &Arc::default());
        let release = Mutex::new(Some(release));
        server.post("/release", move |_: RequestContext| {
            drop(release.lock().unwrap().take());
            async { Ok(()) }
        });
        server
    });
}

#[test]
fn a_handler_that_blocks_for_long_is_told_by_its_route_and_once() {
    let mut process = Process::start("server::workers::a_server_with_one_worker_that_blocks");
    let mut blocked = Tcp::connect(process.addr);
    blocked.send(GET.replacen('/', "/block", 1));
    let warning = process.line("warning: ");
    assert!(warning.starts_with("a handler has blocked its thread"), "{warning}");
    assert!(warning.ends_with(" route=GET /block"), "{warning}");
    let mut client = Tcp::connect(process.addr);
    client.send("POST /release HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert!(blocked.head().starts_with("HTTP/1.1 200 "));
    drop((client, blocked));
    // The process tells what else it has written.
    let (dropped, rest) = process.end_and_rest();
    assert_eq!((dropped, rest.contains("warning: ")), (0, false), "{rest}");
}

/// Writes each warning to the standard output, and panics.
struct Panics;

impl Log for Panics {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        println!("\nwarning: {}", record.args());
        panic!("on purpose");
    }

    fn flush(&self) {}
}

/// The server whose handlers block, and whose logger panics. Does nothing when run as a test.
#[test]
fn a_server_with_one_worker_that_blocks_and_a_logger_that_panics() {
    serve(|| {
        log::set_logger(&Panics).unwrap();
        log::set_max_level(LevelFilter::Warn);
        let mut server = with_workers(1);
        let release = Mutex::new(Some(blocking(&mut server, &Arc::default())));
        server.post("/release", move |_: RequestContext| {
            drop(release.lock().unwrap().take());
            async { Ok(()) }
        });
        server
    });
}

#[test]
fn a_logger_that_panics_ends_no_supervisor() {
    let test = "server::workers::a_server_with_one_worker_that_blocks_and_a_logger_that_panics";
    let mut process = Process::start(test);
    // Each is told by the supervisor, and each is continued by another thread.
    let mut blocked: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Tcp::connect(process.addr);
            client.send(GET.replacen('/', "/block", 1));
            let warning = process.line("warning: a handler has blocked its thread");
            assert!(warning.ends_with(" route=GET /block"), "{warning}");
            echo(&mut Tcp::upgraded_at(process.addr, "/ws"));
            client
        })
        .collect();
    let mut client = Tcp::connect(process.addr);
    client.send("POST /release HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    for client in &mut blocked {
        assert!(client.head().starts_with("HTTP/1.1 200 "));
    }
    drop((client, blocked));
    assert_eq!(process.end(), 0);
}
