//! The same bytes through TLS: a real server, and a client that reads to the `close_notify`.

use tidewire::WebSocketOptions;

use super::{Delivery, Exchange, Violation, by_kind, merged};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain, shown};
use crate::support::tcp::bind;
use crate::tls::{Client, connect, encrypted_echo};

/// Longest message that is sent in records of one byte.
const BYTE_BY_BYTE: usize = 256;

/// Clients of one echo, in turn.
struct Clients(std::net::SocketAddr);

impl Clients {
    fn of_echo(options: &WebSocketOptions) -> Self {
        Self(bind(encrypted_echo(options.clone())))
    }

    /// Has sent the bytes, after the opening handshake.
    fn sending(&self, delivery: Delivery, bytes: &[u8]) -> Client {
        let mut client = connect(self.0);
        client.upgrade("/");
        match delivery {
            Delivery::ByteByByte if bytes.len() <= BYTE_BY_BYTE => {
                for byte in bytes {
                    client.send([*byte]);
                }
            }
            _ => client.send(bytes),
        }
        client
    }
}

/// Sends each exchange in every way to an echo, and closes.
pub(super) fn each_is_answered(options: &WebSocketOptions, exchanges: &[Exchange]) {
    let clients = Clients::of_echo(options);
    for Exchange { what, sent, seen } in exchanges {
        for delivery in Delivery::ALL {
            eprintln!("{what}, {delivery:?}, TLS: {}", shown(sent));
            let (sent, seen) = merged(delivery, sent, seen);
            let mut client = clients.sending(delivery, &sent);
            let read = client.read(seen.len());
            let same = by_kind(&read) == by_kind(&seen);
            assert!(same, "{} instead of {}", shown(&read), shown(&seen));
            client.send(masked(CLOSE, close(1000, "")));
            client.expect_hex("88 02 03e8");
            client.expect_end();
        }
    }
}

/// Sends each violation in every way; the echo says with which code it fails the connection.
pub(super) fn each_fails_the_connection(options: &WebSocketOptions, violations: &[Violation]) {
    let clients = Clients::of_echo(options);
    for Violation { what, sent, code } in violations {
        for delivery in Delivery::ALL {
            eprintln!("{what}, {delivery:?}, TLS: {}, {code}", shown(sent));
            let (sent, before) = match delivery {
                Delivery::Merged => ([&*masked(TEXT, "Hi"), sent].concat(), plain(TEXT, "Hi")),
                _ => (sent.clone(), Vec::new()),
            };
            let mut client = clients.sending(delivery, &sent);
            client.expect(before);
            assert_eq!(client.frame().close_code(), Some(*code));
            client.expect_end();
        }
    }
}

/// Sends each close frame in every way, and reads the answer and the end.
pub(super) fn each_is_closed<'a>(cases: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    let clients = Clients::of_echo(&WebSocketOptions::default());
    for (sent, seen) in cases {
        for delivery in Delivery::ALL {
            eprintln!("{}, {delivery:?}, TLS", shown(sent));
            let mut client = clients.sending(delivery, sent);
            client.expect(seen);
            client.expect_end();
        }
    }
}
