//! Thousands of connections that go at once.

use std::fs;

use super::separate_process::Apart;
use super::site::reset;
use crate::support::frames::{BINARY, masked};
use crate::support::tcp::{OPENING, Tcp, until_equal};

/// Connections, where the system allows as many.
const CROWD: usize = 5000;

/// Descriptors that each of the two processes needs for something else.
const RESERVE: usize = 100;

/// What is left behind is left in each of these. Tables and queues grow in the first ones.
const ROUNDS: usize = 4;

/// What each connection may seem to leave behind in each round, in bytes.
const LEAK: usize = 16;

/// How many connections this process may have besides those of other tests.
fn crowd() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    // "unlimited" is enough as well.
    let soft = files.split_ascii_whitespace().next().unwrap().parse().unwrap_or(usize::MAX);
    let open = fs::read_dir("/proc/self/fd").unwrap().count();
    let free = soft.saturating_sub(open).saturating_sub(RESERVE);
    free.min(CROWD)
}

#[test]
fn five_thousand_connections_that_are_reset_at_once_leave_nothing() {
    let (apart, number) = (Apart::start(), crowd());
    eprintln!("{number} connections");
    assert!(number >= 100, "this process may open no more files: ulimit -n");
    let rounds = [(); ROUNDS].map(|()| {
        let clients = upgraded(&apart, number);
        // A handler enters its room after the client has the 101.
        let held = || apart.numbers(["permits", "members"]);
        until_equal("all are members", &[number; 2], held);
        clients.into_iter().for_each(reset);
        apart.at_rest("all are gone");
        let [allocated] = apart.numbers(["allocated"]);
        allocated
    });
    eprintln!("{rounds:?} bytes are allocated");
    let growth = rounds.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).min();
    assert!(growth < Some(LEAK * number), "{growth:?} bytes more in each round");
    apart.end();
}

/// So many connections, half of them in the middle of a message.
fn upgraded(apart: &Apart, number: usize) -> Vec<Tcp> {
    let mut clients: Vec<_> = (0..number).map(|_| Tcp::connect(apart.process.addr)).collect();
    for client in &mut clients {
        client.send(OPENING.replacen('/', "/echo", 1));
    }
    for client in &mut clients {
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }
    for client in clients.iter_mut().step_by(2) {
        client.send(&masked(BINARY, [7; 100])[..50]);
    }
    clients
}
