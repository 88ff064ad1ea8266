//! Where the client of a request is, with and without proxies in between (RFC 7239).

use std::net::SocketAddr;

use tidewire::server::ServerOptions;
use tidewire::{RequestContext, Server};

use super::{Client, serve};

/// A server that tells each client its address, and trusts these proxies.
fn mirror(proxies: &[&str]) -> SocketAddr {
    mirror_with(ServerOptions::default().trusted_proxies(proxies))
}

fn mirror_with(options: ServerOptions) -> SocketAddr {
    let mut server = Server::new();
    server.get("/", |ctx: RequestContext| async move {
        Ok(ctx.client_ip().map_or_else(|| "unknown".to_owned(), |ip| ip.to_string()))
    });
    server.options(options);
    serve(server)
}

/// What a request with these header lines is told.
fn told(addr: SocketAddr, lines: impl AsRef<[u8]>) -> String {
    let request = [b"GET / HTTP/1.1\r\nHost: x\r\n", lines.as_ref(), b"\r\n"].concat();
    let response = Client::to(addr, request).response();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    body.to_owned()
}

#[test]
fn without_a_trusted_proxy_no_header_is_believed() {
    let addr = mirror(&[]);
    let other = mirror(&["10.0.0.0/8", "unix:"]);
    for lines in ["", "X-Forwarded-For: 192.0.2.1\r\n", "Forwarded: for=192.0.2.1\r\n"] {
        assert_eq!(told(addr, lines), "127.0.0.1", "{lines}");
        assert_eq!(told(other, lines), "127.0.0.1", "{lines}");
    }
}

#[test]
fn a_trusted_proxy_is_believed_and_addresses_to_its_left_are_not() {
    let addr = mirror(&["127.0.0.0/8", "10.0.0.7"]);
    for (lines, client) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        ("x-forwarded-for: 9.9.9.9, 192.0.2.1\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 9.9.9.9, 192.0.2.1, 10.0.0.7\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 9.9.9.9, unknown\r\n", "unknown"),
        ("X-Forwarded-For: 9.9.9.9, unknown, 10.0.0.7\r\n", "unknown"),
        // RFC 9110 §5.6.1: an element without content is none.
        ("X-Forwarded-For: 192.0.2.1,\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 9.9.9.9, 192.0.2.1 ,, \r\n", "192.0.2.1"),
        ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For:\r\n", "192.0.2.1"),
        ("Forwarded: for=192.0.2.1,\r\n", "192.0.2.1"),
        ("Forwarded: for=9.9.9.9,for=192.0.2.1 , ,\r\nForwarded: ,\r\n", "192.0.2.1"),
        ("X-Forwarded-For:\r\n", "127.0.0.1"),
        ("Forwarded: for=9.9.9.9, for=\"[2001:db8::1]:4711\";proto=https\r\n", "2001:db8::1"),
        ("Forwarded: for=\"9.9.9.9, for=192.0.2.1\r\n", "unknown"),
        ("Forwarded: for=_hidden\r\n", "unknown"),
        ("Forwarded: for=\"\r\nForwarded: for=10.0.0.7\r\n", "unknown"),
        // Which of the two the proxy has written is not known.
        ("Forwarded: for=9.9.9.9\r\nX-Forwarded-For: 192.0.2.1\r\n", "unknown"),
        ("Forwarded: for=\"\r\nX-Forwarded-For: 192.0.2.1\r\n", "unknown"),
        ("Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
    ] {
        assert_eq!(told(addr, lines), client, "{lines}");
    }
    // The part of the proxy counts even if that of the client is no text.
    assert_eq!(told(addr, b"X-Forwarded-For: \xe9\xff, 192.0.2.1\r\n"), "192.0.2.1");
    let list = "10.0.0.7,".repeat(1500);
    assert_eq!(told(addr, format!("X-Forwarded-For: {list}10.0.0.7\r\n")), "unknown");
}

#[test]
fn where_the_header_is_named_no_other_is_looked_at() {
    let both = "Forwarded: for=6.6.6.6\r\nX-Real-IP: 7.7.7.7\r\nX-Forwarded-For: 192.0.2.1\r\n";
    for (name, told_by_all, told_by_none) in [
        ("X-Forwarded-For", "192.0.2.1", "127.0.0.1"),
        ("forwarded", "6.6.6.6", "127.0.0.1"),
        ("x-real-ip", "7.7.7.7", "127.0.0.1"),
        ("CF-Connecting-IP", "127.0.0.1", "127.0.0.1"),
    ] {
        let options = ServerOptions::default().trusted_proxies(["127.0.0.1"]);
        let addr = mirror_with(options.client_ip_header(name));
        assert_eq!(told(addr, both), told_by_all, "{name}");
        assert_eq!(told(addr, ""), told_by_none, "{name}");
    }
    // Without a proxy that is trusted the name of a header changes nothing.
    let addr = mirror_with(ServerOptions::default().client_ip_header("X-Forwarded-For"));
    assert_eq!(told(addr, both), "127.0.0.1");
}

#[test]
fn a_check_for_this_machine_is_not_passed_by_a_header_that_a_client_adds() {
    let addr = mirror(&["127.0.0.1"]);
    // What the proxy passes on, and what it adds.
    for client in ["", "Forwarded: for=6.6.6.6\r\n", "Forwarded: for=\"\r\n", "Forwarded: ,\r\n"] {
        let seen = told(addr, format!("{client}X-Forwarded-For: 192.0.2.1\r\n"));
        assert!(["192.0.2.1", "unknown"].contains(&&*seen), "{client}: {seen}");
    }
    for client in ["", "X-Forwarded-For: 6.6.6.6\r\n", "X-Forwarded-For: x\r\n"] {
        let seen = told(addr, format!("{client}Forwarded: for=192.0.2.1\r\n"));
        assert!(["192.0.2.1", "unknown"].contains(&&*seen), "{client}: {seen}");
        let seen = told(addr, format!("{client}Forwarded: for=\", for=192.0.2.1\r\n"));
        assert_eq!(seen, "unknown", "{client}");
    }
}

#[test]
fn a_proxy_that_is_not_an_address_is_an_error_when_the_server_is_bound() {
    for (list, message) in [
        (["127.0.0.1", "10.0.0.0/33"], "`10.0.0.0/33` is neither an address nor a network"),
        (["proxy.example", "::1"], "`proxy.example` is neither an address nor a network"),
        (["::1", "10.0.0.1/8"], "`10.0.0.1/8` is inside the network 10.0.0.0/8"),
    ] {
        let mut server = Server::new();
        server.options(ServerOptions::default().trusted_proxies(list));
        let error = async_std::task::block_on(server.bind("127.0.0.1:0")).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with(&format!("I/O failed: trusted_proxies: {message}")), "{error}");
    }
}
