//! Servers that send the client elsewhere (RFC 9110 §15.4).

use tidewire::Client;
use tidewire::client::ConnectError;

use super::{Scripted, accepting, refusal};
use crate::support::peer::within;

fn redirect(status: u16, location: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
        .into()
}

/// A client with a secret.
fn client(url: String) -> Client {
    Client::new(url).header("Cookie", "id=1").header("X-Public", "2")
}

#[test]
fn redirects_are_not_followed_unasked() {
    let server = Scripted::new([redirect(302, "/elsewhere")]);
    let error = refusal(within(tidewire::connect(server.url())));
    assert!(matches!(*error, ConnectError::Redirected(_)), "{error:?}");
    assert_eq!(error.to_string(), "the server redirects with 302 to \"/elsewhere\"");
}

#[test]
fn each_status_that_redirects_is_followed_as_often_as_allowed() {
    for status in [301, 302, 303, 307, 308] {
        let server = Scripted::new([redirect(status, "/elsewhere?x"), accepting("", b"")]);
        within(client(server.url()).max_redirects(1).connect()).unwrap();
        let visits = server.visits();
        assert!(visits[1].head.starts_with("GET /elsewhere?x HTTP/1.1\r\n"), "{}", visits[1].head);
        assert!(visits[1].head.contains("cookie: id=1\r\n"), "the same server");
        let key = |head: &str| {
            head.lines().find(|line| line.starts_with("Sec-WebSocket-Key")).map(str::to_owned)
        };
        assert_ne!(key(&visits[0].head), key(&visits[1].head), "each request has a key of its own");
    }
    let server = Scripted::new(vec![redirect(302, "/again"); 3]);
    let error = refusal(within(client(server.url()).max_redirects(2).connect()));
    assert!(matches!(*error, ConnectError::Redirected(_)), "{error:?}");
    assert_eq!(server.visits().len(), 3);
}

#[test]
fn another_server_is_told_no_secrets() {
    let there = Scripted::new([accepting("", b"")]);
    let here = Scripted::new([redirect(307, &there.url())]);
    within(client(here.url()).max_redirects(5).connect()).unwrap();
    let head = &there.visits()[0].head;
    assert!(head.contains("x-public: 2\r\n") && !head.contains("cookie"), "{head}");
}

#[test]
fn the_target_of_a_redirect_does_not_matter_to_a_client_that_does_not_follow() {
    let server = Scripted::new([redirect(302, "ftp://x/")]);
    let error = refusal(within(tidewire::connect(server.url())));
    assert!(matches!(*error, ConnectError::Redirected(_)), "{error:?}");
}

#[test]
fn a_redirect_without_a_target_is_a_refusal() {
    for (location, is_url) in [("ftp://x/", true), ("ws://:1", true), ("", false)] {
        let header = if is_url { format!("Location: {location}\r\n") } else { String::new() };
        let response = format!("HTTP/1.1 302 Found\r\n{header}Content-Length: 0\r\n\r\n");
        let error =
            refusal(within(client(Scripted::new([response]).url()).max_redirects(1).connect()));
        match *error {
            ConnectError::InvalidUrl { .. } => assert!(is_url),
            ConnectError::Refused(_) => assert!(!is_url),
            _ => panic!("{error:?}"),
        }
    }
}

#[cfg(feature = "tls")]
#[test]
fn wss_is_not_left_for_ws() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tidewire::{RequestContext, Server};

    use crate::support::tcp::bind;

    let was_asked = Arc::new(AtomicBool::new(false));
    let mut plain = Server::new();
    let asked = Arc::clone(&was_asked);
    plain.get("/", move |_: RequestContext| {
        asked.store(true, Ordering::Relaxed);
        async { Ok("") }
    });
    let plain = bind(plain);
    let mut server = Server::new();
    server.get("/", move |_: RequestContext| async move {
        let response = tide::Response::builder(302).header("location", format!("ws://{plain}/"));
        Ok(response.build())
    });
    server.tls(crate::tls::server_config());
    let port = bind(server).port();
    let client = Client::new(format!("wss://localhost:{port}/")).max_redirects(5);
    let error = refusal(within(client.tls(super::tls::trusting()).connect()));
    assert!(matches!(*error, ConnectError::Redirected(_)), "{error:?}");
    assert!(!was_asked.load(Ordering::Relaxed));
}
