//! A server in a process of its own, of which memory and descriptors are counted.

use std::cell::RefCell;
use std::io::Write;

use futures::channel::mpsc;
use tidewire::WebSocketOptions;

use super::server::{Held, server};
use crate::support::server_process::{Process, serve};
use crate::support::tcp::{Tcp, until_equal};

/// The server of these tests. Does nothing when run as a test.
#[test]
fn a_server_in_a_process_of_its_own() {
    let options = WebSocketOptions::default().send_timeout(None);
    // Nobody hears how the connections end.
    serve(|| server(&Held::new(10_000), &options, mpsc::unbounded().0));
}

/// The server, and a connection to ask it how it is.
pub(super) struct Apart {
    pub(super) process: Process,
    control: RefCell<Tcp>,
    /// Descriptors without clients.
    descriptors: usize,
}

impl Apart {
    const TEST: &str = "faults::separate_process::a_server_in_a_process_of_its_own";

    pub(super) fn start() -> Self {
        Self::of(Process::start(Self::TEST))
    }

    /// As [`start`](Self::start), with room for so many descriptors.
    pub(super) fn start_with_files(most: usize) -> Self {
        Self::of(Process::start_with_files(Self::TEST, most))
    }

    fn of(process: Process) -> Self {
        let control = RefCell::new(Tcp::connect(process.addr));
        let mut apart = Self { process, control, descriptors: 0 };
        // What is made once is made before anything is counted.
        drop(apart.upgraded_at("/echo"));
        until_equal("warm", &[0, 0, 0, 0], || apart.held());
        apart.descriptors = apart.process.descriptors();
        apart
    }

    pub(super) fn upgraded_at(&self, path: &str) -> Tcp {
        Tcp::upgraded_at(self.process.addr, path)
    }

    /// Numbers from the server's metrics, and of what its connections hold.
    pub(super) fn numbers<const N: usize>(&self, names: [&str; N]) -> [usize; N] {
        let mut control = self.control.borrow_mut();
        while !asks(&mut control) {
            // It was idle when another connection needed its descriptor.
            *control = Tcp::connect(self.process.addr);
        }
        let head = control.head();
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let text = String::from_utf8(control.read(len.parse().unwrap())).unwrap();
        names.map(|name| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.unwrap().parse().unwrap()
        })
    }

    fn held(&self) -> [usize; 4] {
        let websockets = "tidewire_connections{protocol=\"websocket\"}";
        self.numbers([websockets, "tidewire_queued_bytes", "permits", "members"])
    }

    /// Waits until the server has no connection but the one that asks, and nothing that belonged to
    /// others.
    pub(super) fn at_rest(&self, after: &str) {
        until_equal(after, &([0, 0, 0, 0], [1], self.descriptors), || {
            let http = self.numbers(["tidewire_connections{protocol=\"http\"}"]);
            (self.held(), http, self.process.descriptors())
        });
    }

    /// Ends the server, which must have no task left that does not end on its own.
    pub(super) fn end(self) {
        // An open connection is waited for.
        drop(self.control);
        assert_eq!(self.process.end(), 0);
    }
}

/// Asks the server how it is; false if it has closed the connection.
fn asks(control: &mut Tcp) -> bool {
    let sent = control.socket.write_all(b"GET /state HTTP/1.1\r\nHost: x\r\n\r\n");
    sent.and_then(|()| control.socket.peek(&mut [0])).is_ok_and(|len| len > 0)
}
