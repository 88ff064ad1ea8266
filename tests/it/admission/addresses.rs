//! Limits for each address, behind proxies or not.

use std::net::SocketAddr;

use tidewire::HandshakeError;
use tidewire::limits::ConnectionLimit;
use tidewire::server::ServerOptions;

use super::{LONG, echo_within, expect_101, expect_nothing, leave, limited, refusal, until};
use crate::support::tcp::{OPENING, Tcp, bind, echo_server};

/// An echo behind a proxy on this machine.
fn behind_a_proxy(limit: &ConnectionLimit) -> SocketAddr {
    let mut server = echo_server(limited(limit));
    server.options(ServerOptions::default().trusted_proxies(["127.0.0.1"]));
    bind(server)
}

/// A request that the proxy passes on for a client.
fn opening_for(client: &str) -> String {
    OPENING.replace("Host: x\r\n", &format!("Host: x\r\nX-Forwarded-For: {client}\r\n"))
}

#[test]
fn a_limit_per_address_counts_clients_behind_a_trusted_proxy_one_by_one() {
    let limit = ConnectionLimit::per_address(1);
    let addr = behind_a_proxy(&limit);
    let mut inside = vec![];
    // What a client says about itself stands to the left of what the proxy says.
    for (client, status) in [
        ("192.0.2.1", 101),
        ("192.0.2.1", 503),
        ("192.0.2.9, 192.0.2.1", 503),
        ("::ffff:192.0.2.1", 503),
        ("192.0.2.2", 101),
        ("2001:db8:0:1::1", 101),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", 503),
        ("2001:db8:0:2::1", 101),
        // All whose address the proxy keeps to itself are one.
        ("unknown", 101),
        ("192.0.2.7, _hidden", 503),
    ] {
        let mut proxy = Tcp::connect(addr);
        proxy.send(opening_for(client));
        let head = proxy.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{client}: {head}");
        inside.push(proxy);
    }
    assert_eq!((limit.in_use(), limit.available(), limit.waiting()), (5, 0, 0));
    let available = ["192.0.2.1", "192.0.2.3"].map(|ip| limit.available_to(ip.parse().unwrap()));
    assert_eq!(available, [0, 1]);
    drop(inside);
    until("all permits are free", || (limit.in_use(), limit.available()) == (0, 1));
}

#[test]
fn a_client_has_as_much_of_an_ipv6_address_as_the_limit_says() {
    for (limit, statuses) in [
        (ConnectionLimit::per_address(1), [101, 503, 101, 101]),
        (ConnectionLimit::per_address(1).ipv6_prefix(48), [101, 503, 503, 101]),
        (ConnectionLimit::per_address(1).ipv6_prefix(128), [101, 101, 101, 101]),
    ] {
        let addr = behind_a_proxy(&limit);
        let clients = ["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1", "2001:db8:1::1"];
        let mut inside = Vec::new();
        for (client, status) in clients.into_iter().zip(statuses) {
            let mut proxy = Tcp::connect(addr);
            proxy.send(opening_for(client));
            let head = proxy.head();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{client}: {head}");
            inside.push(proxy);
        }
        assert_eq!(
            limit.available_to("2001:db8:0:1::9".parse().unwrap()),
            usize::from(statuses[1] == 101)
        );
    }
}

#[test]
fn a_client_that_makes_its_address_disputed_has_only_its_own_permit() {
    let limit = ConnectionLimit::per_address(1);
    let named = ServerOptions::default().trusted_proxies(["127.0.0.1"]);
    let mut server = echo_server(limited(&limit));
    server.options(named.client_ip_header("X-Forwarded-For"));
    let (unnamed, named) = (behind_a_proxy(&limit), bind(server));
    let mut inside = vec![];
    for (addr, forwarded, status) in [
        (unnamed, "", 101),
        (unnamed, "", 503),
        // A header of the client's own, which the proxy passes on.
        (unnamed, "Forwarded: for=6.6.6.6\r\n", 400),
        (unnamed, "Forwarded: for=\"\r\n", 400),
        (unnamed, "Forwarded: for=192.0.2.1\r\n", 503),
        (named, "Forwarded: for=6.6.6.6\r\n", 503),
    ] {
        let mut proxy = Tcp::connect(addr);
        let opening = opening_for("192.0.2.1");
        proxy.send(opening.replace("Host: x\r\n", &format!("Host: x\r\n{forwarded}")));
        if status == 400 {
            let reason = HandshakeError::AddressDisputed.to_string();
            let refusal = refusal(&mut proxy);
            assert!(refusal.starts_with("HTTP/1.1 400 "), "{forwarded}: {refusal}");
            assert!(refusal.contains(&reason), "{forwarded}: {refusal}");
        } else {
            let head = proxy.head();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{forwarded}: {head}");
        }
        inside.push(proxy);
    }
    assert_eq!(limit.in_use(), 1);
}

#[test]
fn an_address_that_waits_does_not_hold_up_the_others() {
    let limit = ConnectionLimit::per_address(1).wait(LONG, 1);
    let addr = behind_a_proxy(&limit);
    let open = |client: &str| {
        let mut proxy = Tcp::connect(addr);
        proxy.send(opening_for(client));
        proxy
    };
    let mut first = open("192.0.2.1");
    expect_101(&mut first);
    let mut second = open("192.0.2.1");
    until("it waits", || limit.waiting() == 1);
    assert!(refusal(&mut open("192.0.2.1")).starts_with("HTTP/1.1 503 "));
    let mut other = open("192.0.2.2");
    expect_101(&mut other);
    expect_nothing(&second);
    leave(first);
    expect_101(&mut second);
}

#[test]
fn without_a_trusted_proxy_the_headers_do_not_count() {
    let limit = ConnectionLimit::per_address(1);
    let addr = echo_within(&limit);
    let mut first = Tcp::connect(addr);
    first.send(opening_for("192.0.2.1"));
    expect_101(&mut first);
    let mut second = Tcp::connect(addr);
    second.send(opening_for("192.0.2.2"));
    assert!(refusal(&mut second).starts_with("HTTP/1.1 503 "));
}
