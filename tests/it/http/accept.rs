//! Listening and accepting.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use tidewire::Server;
use tidewire::server::ServerOptions;

use super::{Client, PONG, WITHIN, pong, serve};

#[test]
fn a_server_listens_on_any_form_of_address() {
    fn port<E: std::fmt::Debug>(bound: Result<tidewire::server::BoundServer, E>) -> u16 {
        bound.unwrap().local_addr().port()
    }
    async_std::task::block_on(async {
        assert_ne!(port(pong().bind("127.0.0.1:0").await), 0);
        assert_ne!(port(pong().bind(String::from("127.0.0.1:0")).await), 0);
        assert_ne!(port(pong().bind(("localhost", 0)).await), 0);
        assert_ne!(port(pong().bind((Ipv4Addr::LOCALHOST, 0)).await), 0);
        assert_ne!(port(pong().bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await), 0);
    });
}

#[test]
fn a_taken_port_is_an_error_that_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let error = async_std::task::block_on(pong().listen(addr)).unwrap_err();
    let message = format!("{error:#}");
    assert!(message.starts_with(&format!("I/O failed: cannot listen on {addr}: ")), "{message}");
}

#[test]
fn an_option_out_of_its_range_is_an_error_that_names_it() {
    let mut server = Server::new();
    server.options(ServerOptions::default().max_head_size(0));
    let error = async_std::task::block_on(server.bind("127.0.0.1:0")).unwrap_err();
    assert!(format!("{error:#}").contains("max_head_size is 0"), "{error:#}");
}

#[test]
fn a_client_of_a_wildcard_address_is_told_the_real_one() {
    let mut server = Server::new();
    server.at("/").get(|req: tide::Request<()>| async move {
        Ok(format!("{} {}", req.local_addr().unwrap_or_default(), req.url()))
    });
    let bound = async_std::task::block_on(server.bind("0.0.0.0:0")).unwrap();
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, bound.local_addr().port()));
    async_std::task::spawn(bound.serve());
    let response = Client::to(addr, "GET / HTTP/1.0\r\n\r\n").rest();
    assert!(response.ends_with(&format!("{addr} http://{addr}/")), "{response}");
}

#[test]
fn connections_that_are_gone_before_they_are_accepted_do_no_harm() {
    let bound = async_std::task::block_on(pong().bind("127.0.0.1:0")).unwrap();
    let addr = bound.local_addr();
    for _ in 0..20 {
        drop(Client::to(addr, "GET / HTTP/1.1\r\n"));
    }
    async_std::task::spawn(bound.serve());
    assert_eq!(Client::to(addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").response(), PONG);
}

#[test]
fn two_hundred_half_open_requests_leave_room_for_others() {
    let addr = serve(pong());
    let half_open: Vec<_> = (0..200).map(|_| Client::to(addr, "GET / HT")).collect();
    assert_eq!(Client::to(addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").response(), PONG);
    drop(half_open);
}

/// Set for the process that runs as the server of the tests below.
const SHORT_OF_FILES: &str = "TIDEWIRE_TEST_SHORT_OF_FILES";

/// A server that may have 32 descriptors; its address, and what it prints.
#[cfg(target_os = "linux")]
fn short_of_files() -> (SocketAddr, mpsc::Receiver<String>, KillOnDrop) {
    let exe = env::current_exe().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 32 && exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(exe)
        .arg("http::accept::server_short_of_files")
        .env(SHORT_OF_FILES, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = lines_of(&mut child);
    let addr = next(&lines, "listening on ").parse().unwrap();
    (addr, lines, KillOnDrop(child))
}

/// What comes after `prefix` in the next line that begins with it.
fn next(lines: &mpsc::Receiver<String>, prefix: &str) -> String {
    std::iter::from_fn(|| lines.recv_timeout(WITHIN).ok())
        .find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
        .unwrap_or_else(|| panic!("no line that begins with {prefix:?}"))
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_out_of_file_descriptors_waits_without_spinning_and_recovers() {
    let (addr, lines, server) = short_of_files();
    // None of them is idle.
    let crowd: Vec<_> = (0..64).map(|_| Client::to(addr, "GET /")).collect();
    for pause in ["5ms", "10ms", "20ms", "40ms", "80ms"] {
        next(
            &lines,
            &format!(
                "WARN cannot accept connections next_try_in={pause} error=Too many open files"
            ),
        );
    }
    drop(crowd);
    assert_eq!(Client::to(addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").response(), PONG);
    drop(server);
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_out_of_file_descriptors_closes_idle_connections_for_those_that_come() {
    let (addr, _lines, server) = short_of_files();
    let mut crowd = Vec::new();
    for _ in 0..64 {
        let mut client = Client::to(addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response(), PONG);
        crowd.push(client);
    }
    drop(server);
}

/// The server of the tests above, in a process of its own. Does nothing when run as a test.
#[test]
fn server_short_of_files() {
    if env::var_os(SHORT_OF_FILES).is_none() {
        return;
    }
    log::set_logger(&Stdout).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    async_std::task::block_on(async {
        let bound = pong().bind("127.0.0.1:0").await.unwrap();
        println!("\nlistening on {}", bound.local_addr());
        bound.serve().await.unwrap();
    });
}

struct Stdout;

impl log::Log for Stdout {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("{} {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}
