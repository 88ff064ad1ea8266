//! Refusals that a page can read.

use tidewire::{RequestContext, Server};

use super::GET;
use crate::support::frames::{CLOSE, close, masked, plain};
use crate::support::tcp::{OPENING, Tcp, bind};

/// A server that rejects everybody.
fn rejecting(code: u16, reason: &'static str) -> Tcp {
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| async move {
        ctx.reject_websocket(code, reason).await
    });
    Tcp::connect(bind(server))
}

#[test]
fn a_websocket_client_of_any_origin_is_told_by_a_close_frame() {
    for origin in ["", "Origin: https://elsewhere.example\r\n"] {
        let mut client = rejecting(4401, "token expired");
        client.send(OPENING.replace("\r\n\r\n", &format!("\r\n{origin}\r\n")));
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        client.expect(plain(CLOSE, close(4401, "token expired")));
        client.send(masked(CLOSE, close(4401, "")));
        client.expect_end();
    }
}

#[test]
fn a_client_that_offers_subprotocols_is_told_in_the_first_of_them() {
    // A browser fails a handshake that agrees to none of those that its page has offered.
    let mut client = rejecting(4401, "token expired");
    let offer = "\r\nSec-WebSocket-Protocol: chat.v2, chat.v1\r\n\r\n";
    client.send(OPENING.replace("\r\n\r\n", offer));
    let head = client.head().to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nsec-websocket-protocol: chat.v2\r\n"), "{head}");
    client.expect(plain(CLOSE, close(4401, "token expired")));
}

#[test]
fn any_other_request_is_told_by_the_status_that_says_the_same() {
    for (code, status) in
        [(4401, 401), (4403, 403), (4429, 429), (4503, 503), (4999, 403), (1008, 403)]
    {
        let mut client = rejecting(code, "no");
        client.send(GET);
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{code}: {head}");
    }
}

#[test]
fn a_close_frame_that_cannot_be_sent_is_the_servers_own_error() {
    let too_long: &'static str = Box::leak("x".repeat(124).into_boxed_str());
    for (code, reason) in [(1005, ""), (999, ""), (4401, too_long)] {
        let mut client = rejecting(code, reason);
        client.send(OPENING);
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 500 "), "{code}: {head}");
    }
}
