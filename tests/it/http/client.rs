//! Where the client of a request is, with and without proxies in between (RFC 7239).

use std::net::SocketAddr;

use tidewire::{RequestContext, Server, ServerOptions};

use super::{Client, serve};

/// A server that tells each client its address, and trusts these proxies.
fn mirror(proxies: &[&str]) -> SocketAddr {
    let mut server = Server::new();
    server.get("/", |ctx: RequestContext| async move {
        Ok(ctx.client_ip().map_or_else(|| "unknown".to_owned(), |ip| ip.to_string()))
    });
    server.options(ServerOptions::default().trusted_proxies(proxies));
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
fn a_trusted_proxy_is_believed_and_who_stands_to_its_left_is_not() {
    let addr = mirror(&["127.0.0.0/8", "10.0.0.7"]);
    for (lines, client) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        ("x-forwarded-for: 9.9.9.9, 192.0.2.1\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 9.9.9.9, 192.0.2.1, 10.0.0.7\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        ("X-Forwarded-For: 9.9.9.9, unknown\r\n", "127.0.0.1"),
        ("X-Forwarded-For: 9.9.9.9,\r\n", "127.0.0.1"),
        ("X-Forwarded-For:\r\n", "127.0.0.1"),
        ("Forwarded: for=9.9.9.9, for=\"[2001:db8::1]:4711\";proto=https\r\n", "2001:db8::1"),
        ("Forwarded: for=\"9.9.9.9, for=192.0.2.1\r\n", "127.0.0.1"),
        ("Forwarded: for=_hidden\r\n", "127.0.0.1"),
        // Which of the two the proxy has written is not known.
        ("Forwarded: for=9.9.9.9\r\nX-Forwarded-For: 192.0.2.1\r\n", "127.0.0.1"),
        ("Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
    ] {
        assert_eq!(told(addr, lines), client, "{lines}");
    }
    // The part of the proxy counts even if that of the client is no text.
    assert_eq!(told(addr, b"X-Forwarded-For: \xe9\xff, 192.0.2.1\r\n"), "192.0.2.1");
    let list = "10.0.0.7,".repeat(1500);
    assert_eq!(told(addr, format!("X-Forwarded-For: {list}10.0.0.7\r\n")), "10.0.0.7");
}

#[test]
fn a_proxy_that_is_no_address_is_an_error_when_the_server_is_bound() {
    for (list, message) in [
        (["127.0.0.1", "10.0.0.0/33"], "`10.0.0.0/33` is neither an address nor a network"),
        (["proxy.example", "::1"], "`proxy.example` is neither an address nor a network"),
        (["::1", "10.0.0.1/8"], "`10.0.0.1/8` is inside the network 10.0.0.0/8"),
    ] {
        let mut server = Server::new();
        server.options(ServerOptions::default().trusted_proxies(list));
        let error = async_std::task::block_on(server.bind("127.0.0.1:0")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("trusted_proxies: {message}")), "{error}");
    }
}
