//! Hostile clients of a real server: memory stays bounded, others are served, nothing spins.
//!
//! Memory and CPU time are those of the process, so each of these tests has one to itself: it runs
//! this test binary again, for one server.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;
use std::{fs, thread};

use tidewire::{RequestContext, WebSocketOptions};

use crate::support::frames::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, close, hex, masked, plain,
};
use crate::support::server_process::{Process, serve};
use crate::support::tcp::{OPENING, Tcp, echo_server};

/// Growth of memory that has nothing to do with what a client does, in bytes.
const NOISE: usize = 16 << 20;

/// How long the server waits on the route `/wait`.
const WAIT: Duration = Duration::from_millis(500);

/// CPU time that such a wait may cost.
const IDLE: Duration = Duration::from_millis(50);

/// An echo in a process of its own.
struct Victim {
    process: Process,
    addr: SocketAddr,
}

impl Victim {
    fn start() -> Self {
        let process = Process::start("connection::abuse::echo_in_a_process_of_its_own");
        let victim = Self { addr: process.addr, process };
        // What is made once is made before anything is measured.
        victim.serves();
        victim
    }

    /// A polite client is served, to the end.
    fn serves(&self) {
        let mut client = Tcp::upgraded(self.addr);
        client.send(masked(TEXT, "Hello"));
        client.expect_hex("81 05 48656c6c6f");
        client.send(masked(CLOSE, close(1000, "")));
        client.expect_hex("88 02 03e8");
        client.expect_end();
    }

    /// Resident memory, in bytes.
    fn memory(&self) -> usize {
        self.process.memory()
    }

    /// CPU time so far, of which the kernel keeps hundredths of a second.
    fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(self.process.proc("stat")).unwrap();
        let (_, stat) = stat.rsplit_once(") ").unwrap();
        let ticks: u64 = stat.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Nothing goes on, although the server still has its clients: waiting costs no CPU time.
    ///
    /// What a client sent may be worked on for a while, so one of several waits is enough.
    fn rests(&self) {
        let mut spent = (0..20).map(|_| self.cpu_time_of_a_wait());
        assert!(spent.any(|spent| spent <= IDLE), "the server does not come to rest");
    }

    fn cpu_time_of_a_wait(&self) -> Duration {
        // The server closes, and waits for an answer that it does not get.
        let mut client = Tcp::upgraded_at(self.addr, "/wait");
        assert_eq!(client.frame().close_code(), Some(1000));
        let before = self.cpu_time();
        client.expect_end();
        self.cpu_time().saturating_sub(before)
    }
}

/// The server of these tests. Does nothing when run as a test.
#[test]
fn echo_in_a_process_of_its_own() {
    serve(|| {
        let mut server = echo_server(WebSocketOptions::default().send_timeout(None));
        server.get("/wait", |mut ctx: RequestContext| async move {
            let options = WebSocketOptions::default().close_timeout(WAIT);
            ctx.upgrade_to_websocket(options).await?.close(1000_u16, "").await?;
            Ok(())
        });
        server
    });
}

/// Writes the same bytes again and again, until the server takes no more.
fn write_until_stuck(client: &mut Tcp, bytes: &[u8], most: usize) -> usize {
    client.socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut written = 0;
    while written < most {
        match client.socket.write(&bytes[written % bytes.len()..]) {
            Ok(len) => written += len,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                break;
            }
        }
    }
    written
}

#[test]
fn two_hundred_half_open_handshakes_leave_room_for_others() {
    let victim = Victim::start();
    let before = victim.memory();
    let mut half_open = vec![];
    for cut in (0..200).map(|number| number % OPENING.len()) {
        let mut client = Tcp::connect(victim.addr);
        client.send(&OPENING[..cut]);
        half_open.push((client, cut));
    }
    victim.serves();
    victim.rests();
    assert!(victim.memory() < before + NOISE);
    // They are not lost either.
    for (mut client, cut) in half_open {
        client.send(&OPENING[cut..]);
        assert!(client.head().starts_with("HTTP/1.1 101 "));
    }
}

#[test]
fn handshakes_that_are_given_up_leave_nothing() {
    let victim = Victim::start();
    let before = victim.memory();
    for _ in 0..300 {
        Tcp::connect(victim.addr).send(OPENING);
    }
    victim.serves();
    victim.rests();
    assert!(victim.memory() < before + NOISE);
}

#[test]
fn ten_thousand_pings_with_unread_pongs_are_answered_in_bounded_memory() {
    let victim = Victim::start();
    let before = victim.memory();
    let mut client = Tcp::upgraded(victim.addr);
    let pings = (0..10_000_u32).flat_map(|number| {
        let mut payload = vec![7; 121];
        payload.extend(number.to_be_bytes());
        masked(PING, payload)
    });
    client.send(pings.collect::<Vec<_>>());
    client.send(masked(TEXT, "done"));
    victim.serves();
    assert!(victim.memory() < before + NOISE);

    // Each pong answers a later ping than the one before, and the last ping is answered.
    let mut last = None;
    loop {
        let frame = client.frame();
        if frame.head == TEXT {
            break;
        }
        assert_eq!(frame.head, PONG);
        let number = u32::from_be_bytes(*frame.payload.last_chunk().unwrap());
        assert!(last < Some(number), "{number} after {last:?}");
        last = Some(number);
    }
    victim.rests();
    victim.serves();
}

#[test]
fn endless_pings_with_unread_pongs_cost_bounded_memory() {
    let victim = Victim::start();
    let before = victim.memory();
    let mut client = Tcp::upgraded(victim.addr);
    let pings = masked(PING, [7; 125]).repeat(1000);
    let written = write_until_stuck(&mut client, &pings, 64 << 20);
    eprintln!("{written} bytes of pings");
    victim.serves();
    assert!(victim.memory() < before + NOISE, "{} bytes more", victim.memory() - before);
    victim.rests();
}

#[test]
fn a_hundred_thousand_empty_fragments_are_too_many() {
    let victim = Victim::start();
    let before = victim.memory();
    let mut client = Tcp::upgraded(victim.addr);
    let fragments = masked(CONTINUATION & !FIN, "").repeat(100_000);
    client.send(masked(TEXT & !FIN, ""));
    // The server may end the connection before it has read them all.
    let _ = client.socket.write_all(&fragments);
    assert_eq!(client.frame().close_code(), Some(1008));
    victim.serves();
    victim.rests();
    assert!(victim.memory() < before + NOISE);
}

#[test]
fn a_length_that_is_announced_costs_nothing() {
    let victim = Victim::start();
    let before = victim.memory();
    let mut client = Tcp::upgraded(victim.addr);
    client.send(hex("82 ff 7fffffffffffffff 00000000"));
    assert_eq!(client.frame().close_code(), Some(1009));
    let mut client = Tcp::upgraded(victim.addr);
    client.send(hex("82 ff 8000000000000000 00000000"));
    assert_eq!(client.frame().close_code(), Some(1002));

    // A hundred clients announce 1 MiB each, which is allowed, and send a byte of it.
    let mut announced = vec![];
    for _ in 0..100 {
        let mut client = Tcp::upgraded(victim.addr);
        client.send(hex("82 ff 0000000000100000 00000000 07"));
        announced.push(client);
    }
    victim.serves();
    assert!(victim.memory() < before + NOISE);
    victim.rests();
}

#[test]
fn a_client_that_never_reads_its_echoes_is_left_waiting() {
    let victim = Victim::start();
    let before = victim.memory();
    for message in [masked(BINARY, vec![7; 100_000]), masked(TEXT, "a").repeat(10_000)] {
        let mut client = Tcp::upgraded(victim.addr);
        let written = write_until_stuck(&mut client, &message, 256 << 20);
        eprintln!("{written} bytes of messages");
        assert!(written < 256 << 20, "the server takes all that it cannot answer");
        victim.serves();
        assert!(victim.memory() < before + NOISE, "{} bytes more", victim.memory() - before);
        victim.rests();

        // Who begins to read gets everything.
        let (mut all, mut buf) = (0, vec![0; 1 << 16]);
        let echoed = echo_of(&message);
        let whole = written / message.len() * echoed.len();
        while all < whole {
            let len = client.socket.read(&mut buf).unwrap();
            assert!(len > 0, "the end after {all} of {whole} bytes");
            for (at, byte) in buf[..len].iter().enumerate() {
                assert!(*byte == echoed[(all + at) % echoed.len()], "byte {}", all + at);
            }
            all += len;
        }
    }
}

/// What an echo answers to frames of one of the two kinds above.
fn echo_of(message: &[u8]) -> Vec<u8> {
    if message[0] == BINARY {
        plain(BINARY, vec![7; 100_000])
    } else {
        plain(TEXT, "a").repeat(10_000)
    }
}

#[test]
fn a_client_that_never_stops_does_not_keep_others_waiting() {
    let victim = Victim::start();
    let mut client = Tcp::upgraded(victim.addr);
    let mut reader = client.socket.try_clone().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writing = thread::spawn(move || {
        let messages = masked(TEXT, "a").repeat(10_000);
        while stopped.try_recv().is_err() {
            client.send(&messages);
        }
    });
    let reading = thread::spawn(move || {
        let mut buf = vec![0; 1 << 16];
        while reader.read(&mut buf).is_ok_and(|len| len > 0) {}
    });
    for _ in 0..20 {
        victim.serves();
    }
    stop.send(()).unwrap();
    writing.join().unwrap();
    drop(victim);
    reading.join().unwrap();
}
