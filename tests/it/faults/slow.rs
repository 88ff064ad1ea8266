//! A peer that does not read what a handler has for it, which is 1 GiB.

use super::separate_process::Apart;
use super::server::{MESSAGE, MESSAGES, numbered};
use super::site::reset;
use crate::support::frames::{BINARY, CLOSE, close, masked, plain};
use crate::support::tcp::Tcp;

/// Growth of memory that has nothing to do with what is sent, in bytes.
const NOISE: usize = 16 << 20;

/// Bytes of a message's header.
const HEADER: usize = 10;

/// A client that has read nothing, of a handler that waits for it to read.
fn stuck(apart: &Apart) -> Tcp {
    let client = apart.upgraded_at("/gigabyte");
    let mut last = [0];
    let mut unchanged = 0;
    while unchanged < 100 {
        let [written, queued] = apart
            .numbers(["tidewire_wire_bytes_total{direction=\"out\"}", "tidewire_queued_bytes"]);
        let is_stuck = last == [written] && queued >= MESSAGE;
        unchanged = if is_stuck { unchanged + 1 } else { 0 };
        last = [written];
        assert!(queued <= (64 << 10) + MESSAGE + HEADER, "{queued} bytes wait");
    }
    client
}

#[test]
fn a_gibibyte_waits_in_bounded_memory_for_a_peer_to_read_it_in_order() {
    let apart = Apart::start();
    let before = apart.process.memory();
    let mut client = stuck(&apart);
    let header = &plain(BINARY, vec![7; MESSAGE])[..HEADER];
    for number in 0..MESSAGES {
        client.expect(header);
        client.expect(numbered(number));
        if number % 1024 == 0 {
            let memory = apart.process.memory();
            assert!(memory < before + NOISE, "{} bytes more", memory - before);
        }
    }
    client.expect_hex("88 02 03e8");
    client.send(masked(CLOSE, close(1000, "")));
    client.expect_end();
    drop(client);
    apart.at_rest("everything is read");
    apart.end();
}

#[test]
fn the_kernel_takes_little_for_a_peer_that_does_not_read() {
    // What is in its buffer, a ping has to wait for, and no heartbeat sees whether the peer reads it. It
    // was more than 2 MiB.
    const LITTLE: usize = 1 << 20;
    let apart = Apart::start();
    let client = stuck(&apart);
    let [taken] = apart.numbers(["tidewire_wire_bytes_total{direction=\"out\"}"]);
    assert!(taken < LITTLE, "{taken} bytes");
    drop(client);
    apart.end();
}

#[test]
fn a_peer_that_dies_with_a_gibibyte_ahead_of_it_leaves_nothing() {
    let apart = Apart::start();
    for dies in [drop, reset] {
        dies(stuck(&apart));
        apart.at_rest("the peer is gone");
    }
    apart.end();
}
