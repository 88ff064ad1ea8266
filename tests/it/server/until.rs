//! Servers that end when a future resolves, and the future of signals. Signals are a matter of a whole process, so each
//! program has its own: this test binary again, for one test.

use std::future::pending;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use async_std::task;
use futures::FutureExt;
use futures::channel::oneshot;
use tidewire::server::{ServerOptions, ShutdownOptions};
use tidewire::{CloseCode, Server, WebSocketOptions, signals};

use super::{arrival, patient, slow, stuck};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::within;
use crate::support::separate_process;
use crate::support::tcp::{Tcp, echo_server};

/// A server with so many workers, 0 for none.
fn echo_with_workers(workers: usize) -> Server {
    let mut server = echo_server(WebSocketOptions::default());
    server.options(ServerOptions::default().workers(workers));
    server
}

#[test]
fn a_server_ends_in_order_when_its_future_resolves_and_returns_the_report() {
    for workers in [0, 2] {
        let bound = within(echo_with_workers(workers).bind("127.0.0.1:0")).unwrap();
        let addr = bound.local_addr();
        let (end, ended) = oneshot::channel();
        let serving = task::spawn(bound.serve_until(ended.map(|options| options.unwrap())));
        let mut client = Tcp::upgraded(addr);
        client.send(masked(TEXT, "hello"));
        client.expect(plain(TEXT, "hello"));

        end.send(patient().close_code(CloseCode::SERVICE_RESTART)).unwrap();
        client.expect(plain(CLOSE, close(1012, "")));
        client.send(masked(CLOSE, close(1012, "")));
        client.expect_end();
        let report = within(serving).unwrap();
        assert_eq!((report.closed, report.lost, report.dropped), (1, 0, 0), "{workers} workers");
        TcpListener::bind(addr).unwrap();
    }
}

#[test]
fn a_future_that_is_ready_ends_the_server_at_once() {
    for workers in [0, 2] {
        within(echo_with_workers(workers).listen_until("127.0.0.1:0", async {})).unwrap();
    }
}

#[test]
fn a_response_under_way_is_completed_when_the_future_resolves() {
    let (server, mut arrivals) = slow();
    let bound = within(server.bind("127.0.0.1:0")).unwrap();
    let (addr, handle) = (bound.local_addr(), bound.handle());
    let (end, ended) = oneshot::channel::<()>();
    let serving = task::spawn(bound.serve_until(ended.map(drop)));
    let mut client = Tcp::connect(addr);
    client.send(super::GET.as_bytes());
    let open = arrival(&mut arrivals);
    drop(end);
    within(handle.shutting_down());
    open.send(()).unwrap();
    assert!(client.head().starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(within(serving).unwrap().dropped, 0);
}

#[test]
fn a_handle_may_end_the_server_before_its_future_does() {
    let bound = within(echo_server(WebSocketOptions::default()).bind("127.0.0.1:0")).unwrap();
    let handle = bound.handle();
    let serving = task::spawn(bound.serve_until(pending::<()>()));
    let report = within(handle.shutdown(patient()));
    assert_eq!(within(serving).unwrap(), report);
}

#[test]
fn a_server_that_is_not_waited_for_any_more_listens_no_more() {
    let bound = within(echo_with_workers(2).bind("127.0.0.1:0")).unwrap();
    let addr = bound.local_addr();
    let mut serving = Box::pin(bound.serve_until(pending::<()>()));
    assert!(serving.as_mut().now_or_never().is_none());
    let mut client = Tcp::upgraded(addr);
    drop(serving);
    assert!(TcpStream::connect(addr).is_err());
    client.send(masked(TEXT, "still here?"));
    client.expect(plain(TEXT, "still here?"));
}

/// Is the program, in a process that was started for it. Does nothing when run as a test.
#[test]
fn a_program_that_ends_at_a_signal() {
    let Some(program) = separate_process::program() else { return };
    match &*program {
        "async-std" => {
            task::block_on(serve_until_signals(echo_server(WebSocketOptions::default())));
        }
        "tokio" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let server = echo_server(WebSocketOptions::default());
                let handle = server.start("127.0.0.1:0").await.unwrap();
                println!("\nlistening on {}", handle.local_addr());
                tokio::select! {
                    () = signals() => {}
                    () = tokio::time::sleep(Duration::from_secs(3600)) => unreachable!(),
                }
                println!("report {:?}", handle.shutdown(ShutdownOptions::default()).await);
            });
        }
        "stuck" => task::block_on(serve_until_signals(stuck().0)),
        "twice" => task::block_on(async {
            // A server for the address alone: the program waits for its signals by itself.
            let mut signals = signals();
            println!("\nlistening on 127.0.0.1:1");
            (&mut signals).await;
            println!("first");
            (&mut signals).await;
            println!("second");
        }),
        other => panic!("no program {other}"),
    }
}

async fn serve_until_signals(server: Server) {
    let bound = server.bind("127.0.0.1:0").await.unwrap();
    let options = ShutdownOptions::default().grace(Duration::from_secs(3600));
    let signals = signals();
    println!("\nlistening on {}", bound.local_addr());
    println!("report {:?}", bound.serve_until(signals.map(|()| options)).await.unwrap());
}

/// A process that runs one of the programs above. It ends when this is dropped.
struct Program {
    child: Child,
    out: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Program {
    fn start(program: &str) -> Self {
        let test = "server::until::a_program_that_ends_at_a_signal";
        let mut command = separate_process::command(test, program);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut program = Self { child, out, addr: SocketAddr::from(([127, 0, 0, 1], 0)) };
        program.addr = program.line("listening on ").parse().unwrap();
        program
    }

    /// What follows `prefix` in the next line that begins with it.
    fn line(&mut self, prefix: &str) -> String {
        let mut lines = self.out.by_ref().lines().map_while(Result::ok);
        lines.find_map(|line| line.strip_prefix(prefix).map(str::to_owned)).unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the end of the process, which must be one with success.
    fn expect_success(mut self) {
        self.out.read_to_string(&mut String::new()).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails if it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
#[test]
fn a_signal_closes_the_connections_of_a_program_and_ends_it_with_success() {
    for program in ["async-std", "tokio"] {
        for name in ["INT", "TERM"] {
            let mut program = Program::start(program);
            let mut clients = [(); 3].map(|()| Tcp::upgraded(program.addr));
            for client in &mut clients {
                client.send(masked(TEXT, "hello"));
                client.expect(plain(TEXT, "hello"));
            }
            program.signal(name);
            for mut client in clients {
                client.expect(plain(CLOSE, close(1001, "")));
                client.send(masked(CLOSE, close(1001, "")));
                client.expect_end();
            }
            let report = program.line("report ");
            assert!(report.contains("closed: 3, lost: 0, dropped: 0"), "{report}");
            program.expect_success();
        }
    }
}

#[cfg(all(unix, feature = "client"))]
#[test]
fn a_program_under_load_ends_in_order_at_a_signal() {
    use futures::StreamExt;
    use futures::channel::mpsc;

    let mut program = Program::start("tokio");
    let (tell, mut echoes) = mpsc::unbounded();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (url, tell) = (format!("ws://{}/", program.addr), tell.clone());
            task::spawn(async move {
                let mut ws = tidewire::connect(&url).await.unwrap();
                while ws.send("load").await.is_ok() {
                    let Ok(Some(_)) = ws.recv().await else { break };
                    tell.unbounded_send(()).unwrap();
                }
                ws.close_info().map(|info| info.reported_code())
            })
        })
        .collect();
    // Far more than the first of each.
    within(async {
        for _ in 0..1000 {
            echoes.next().await.unwrap();
        }
    });
    program.signal("TERM");
    for client in clients {
        assert_eq!(within(client), Some(1001));
    }
    let report = program.line("report ");
    assert!(report.contains("closed: 8, lost: 0, dropped: 0"), "{report}");
    program.expect_success();
}

#[cfg(unix)]
#[test]
fn a_second_signal_cuts_the_grace_period_short() {
    for (first, second) in [("INT", "INT"), ("TERM", "INT"), ("INT", "TERM")] {
        let mut program = Program::start("stuck");
        let mut client = Tcp::upgraded(program.addr);
        program.signal(first);
        // The shutdown has begun, and the handler does not end.
        client.expect(plain(CLOSE, close(1001, "")));
        program.signal(second);
        let report = program.line("report ");
        assert!(!report.contains("dropped: 0"), "{report}");
        program.expect_success();
    }
}

#[cfg(unix)]
#[test]
fn the_future_of_signals_waits_for_one_signal_after_the_other() {
    let mut program = Program::start("twice");
    program.signal("TERM");
    program.line("first");
    program.signal("TERM");
    program.line("second");
    program.expect_success();
}
