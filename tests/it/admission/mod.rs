//! Limits on connections: who gets a permit, when, and for how long.
//!
//! | file | shows |
//! | --- | --- |
//! | `queue` | who gets in, in which order, and through which limits |
//! | `endings` | that a permit is free again, whatever ends its connection |
//! | `refusals` | what those get who do not get in |
//! | `addresses` | limits for each address |
//! | `keys` | limits for each key, such as an account |

mod addresses;
pub(super) mod endings;
mod keys;
mod queue;
mod refusals;

use std::net::SocketAddr;
use std::time::Duration;

use tidewire::limits::ConnectionLimit;
use tidewire::upgrade::UpgradeOptions;

use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::tcp::{OPENING, Tcp, bind, echo_server, until};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);

fn limited(limit: &ConnectionLimit) -> UpgradeOptions {
    UpgradeOptions::default().limit(limit)
}

fn echo_within(limit: &ConnectionLimit) -> SocketAddr {
    bind(echo_server(limited(limit)))
}

/// A client that has sent its request and found no permit.
fn queued(addr: SocketAddr, limit: &ConnectionLimit) -> Tcp {
    let others = limit.waiting();
    let mut client = Tcp::connect(addr);
    client.send(OPENING);
    until("the request waits", || limit.waiting() > others);
    expect_nothing(&client);
    client
}

fn expect_nothing(client: &Tcp) {
    client.socket.set_nonblocking(true).unwrap();
    let peeked = client.socket.peek(&mut [0]);
    client.socket.set_nonblocking(false).unwrap();
    let error = peeked.expect_err("an answer while there is no permit");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

fn expect_101(client: &mut Tcp) {
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

fn expect_echo(client: &mut Tcp) {
    client.send(masked(TEXT, "Hello"));
    client.expect(plain(TEXT, "Hello"));
}

/// The closing handshake, begun by the client.
fn leave(mut client: Tcp) {
    client.send(masked(CLOSE, close(1000, "")));
    client.expect_hex("88 02 03e8");
    client.expect_end();
}

/// The answer to a client that is refused, without its date.
fn refusal(client: &mut Tcp) -> String {
    let head = client.head();
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let body = client.read(len.unwrap().parse().unwrap());
    let lines = head.split_inclusive("\r\n").filter(|line| !line.starts_with("date: "));
    lines.collect::<String>() + &String::from_utf8(body).unwrap()
}

fn refused(addr: SocketAddr) -> String {
    let mut client = Tcp::connect(addr);
    client.send(OPENING);
    refusal(&mut client)
}
