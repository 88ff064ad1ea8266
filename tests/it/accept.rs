//! The server's opening handshake without the server, over a stream in memory.

use std::net::SocketAddr;
use std::time::Duration;

use async_std::task::{self, JoinHandle};
use futures::AsyncWriteExt;
use futures::channel::oneshot;
use tidewire::deflate::DeflateOptions;
use tidewire::upgrade::{UpgradeOptions, UpgradeRequest};
use tidewire::{Error, HandshakeError, Result, WebSocketOptions};

use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{Peer, within};
use crate::support::pipe::{Knobs, pipe};
use crate::support::tcp::OPENING;

/// A server that does this with each request.
fn serve<F, Fut>(handler: F) -> (Peer, JoinHandle<Result<()>>)
where
    F: FnOnce(UpgradeRequest) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    serve_over(Knobs::default(), handler)
}

/// As [`serve`], over a stream with these knobs.
fn serve_over<F, Fut>(knobs: Knobs, handler: F) -> (Peer, JoinHandle<Result<()>>)
where
    F: FnOnce(UpgradeRequest) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (stream, end) = pipe(knobs);
    let serving =
        task::spawn(async move { handler(tidewire::upgrade::accept(stream).await?).await });
    (Peer { end }, serving)
}

async fn echo(request: UpgradeRequest) -> Result<()> {
    let options =
        WebSocketOptions::default().subprotocols(["chat"]).deflate(DeflateOptions::default());
    let options = UpgradeOptions::from(options).header("X-Version", "3");
    let mut ws = request.upgrade(options).await?;
    while let Some(message) = ws.recv().await? {
        ws.send(message).await?;
    }
    Ok(())
}

async fn read_head(peer: &mut Peer) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(peer.read(1).await);
    }
    String::from_utf8(head).unwrap()
}

/// What a peer is told, up to the end of the stream.
async fn answer(peer: &mut Peer) -> String {
    String::from_utf8(peer.rest().await).unwrap()
}

#[test]
fn a_request_is_upgraded_and_frames_that_came_with_it_are_not_lost() {
    within(async {
        let (mut peer, serving) = serve(echo);
        peer.send(
            [OPENING.as_bytes(), &masked(TEXT, "hello"), &masked(CLOSE, close(1000, ""))].concat(),
        )
        .await;
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Version: 3\r\n\r\n";
        peer.expect(head).await;
        peer.expect([plain(TEXT, "hello"), plain(CLOSE, close(1000, ""))].concat()).await;
        peer.end.close().await.unwrap();
        serving.await.unwrap();
    });
}

#[test]
fn an_offer_of_the_client_is_answered() {
    within(async {
        let (mut peer, _serving) = serve(echo);
        let offer = "Sec-WebSocket-Protocol: soap, chat\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
        peer.send(OPENING.replacen("\r\n\r\n", &format!("\r\n{offer}"), 1)).await;
        let head = read_head(&mut peer).await;
        assert!(head.contains("\r\nSec-WebSocket-Protocol: chat\r\n"), "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Extensions: permessage-deflate; "), "{head}");
    });
}

#[test]
fn a_request_shows_its_parts() {
    within(async {
        let (tell, told) = oneshot::channel();
        let (mut peer, _serving) = serve(|request| async move {
            let seen = format!(
                "{} {:?} {:?} {:?} {}",
                request.path(),
                request.query(),
                request.header("HOST"),
                request.offered_subprotocols(),
                request.headers().count(),
            );
            tell.send(seen).unwrap();
            request.refuse(404, "nothing here\n").await
        });
        let opening = OPENING.replacen("GET / ", "GET /a%20b?c=d ", 1);
        peer.send(opening.replacen("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a, b\r\n\r\n", 1))
            .await;
        assert_eq!(told.await.unwrap(), "/a%20b Some(\"c=d\") Some(\"x\") [\"a\", \"b\"] 6");
        peer.end.close().await.unwrap();
        let answer = answer(&mut peer).await;
        assert!(answer.starts_with("HTTP/1.1 404 \r\nConnection: close\r\n"), "{answer}");
        assert!(answer.ends_with("Content-Length: 13\r\n\r\nnothing here\n"), "{answer}");
    });
}

#[test]
fn a_request_that_is_not_an_opening_handshake_is_told_the_reason() {
    let without = |line: &str| OPENING.replacen(line, "", 1);
    for (request, error, more) in [
        (without("Upgrade: websocket\r\n"), HandshakeError::UpgradeMissing, ""),
        (without("Sec-WebSocket-Version: 13\r\n"), HandshakeError::VersionMissing, ""),
        (
            OPENING.replacen("13", "8", 1),
            HandshakeError::VersionUnsupported,
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        ),
        (OPENING.replacen("GET", "POST", 1), HandshakeError::MethodNotGet, "Allow: GET"),
        (OPENING.replacen("HTTP/1.1", "HTTP/1.0", 1), HandshakeError::HttpVersion, ""),
        (
            OPENING.replacen("Host: x", "Host: x\r\nOrigin: https://evil.example", 1),
            HandshakeError::OriginForbidden,
            "",
        ),
        (OPENING.replacen("Host: x", "Host: x\r\nHost: y", 1), HandshakeError::HostRepeated, ""),
        (
            OPENING.replacen("Host: x", "Host: x\r\nSec-WebSocket-Extensions: ;", 1),
            HandshakeError::ExtensionsMalformed,
            "",
        ),
        (
            OPENING.replacen("Host: x", "Host: x\r\nSec-WebSocket-Protocol: chat, a;b", 1),
            HandshakeError::SubprotocolsMalformed,
            "",
        ),
        (
            OPENING.replacen("Host: x", "Host: x\r\nContent-Length: 5", 1),
            HandshakeError::NotUpgradable,
            "",
        ),
        (
            OPENING.replacen("Host: x", "Host: x\r\nTransfer-Encoding: chunked", 1),
            HandshakeError::NotUpgradable,
            "",
        ),
        ("\x16\x03\x01\x02\r\n\r\n".to_owned(), HandshakeError::HeadMalformed, ""),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000)), HandshakeError::HeadTooLarge, ""),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101)),
            HandshakeError::HeadTooLarge,
            "",
        ),
    ] {
        within(async {
            let (mut peer, serving) = serve(echo);
            peer.send(request).await;
            peer.end.close().await.unwrap();
            let answer = answer(&mut peer).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {} \r\n", error.status())), "{answer}");
            assert!(answer.contains(&error.to_string()) && answer.contains(more), "{answer}");
            let outcome = serving.await;
            assert!(matches!(outcome, Err(Error::Handshake(seen)) if seen == error), "{outcome:?}");
        });
    }
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_an_error_of_the_stream() {
    within(async {
        let (mut peer, serving) = serve(echo);
        peer.send("GET / HTTP/1.1\r\nHost").await;
        peer.end.close().await.unwrap();
        assert!(matches!(serving.await, Err(Error::Io(_))));
    });
}

#[test]
fn a_header_that_http_does_not_allow_is_not_sent() {
    for (name, value) in [("X-One", "1\r\nX-Two: 2"), ("X One", "1"), ("", "1"), ("a:b", "1")] {
        within(async {
            let (mut peer, serving) = serve(move |request| async move {
                let options = UpgradeOptions::default().header(name, value);
                request.upgrade(options).await.map(drop)
            });
            peer.send(OPENING).await;
            peer.end.close().await.unwrap();
            let answer = answer(&mut peer).await;
            assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
            let outcome = serving.await;
            assert!(matches!(outcome, Err(Error::Handshake(HandshakeError::InvalidHeader))));
        });
    }
}

#[test]
fn with_a_task_of_its_own_a_connection_is_closed_when_its_handler_returns() {
    within(async {
        let (mut peer, serving) = serve(|request| async move {
            let handler = |mut ws: tidewire::WebSocket| async move {
                ws.send("a").await?;
                ws.send("b").await
            };
            request.run(WebSocketOptions::default(), handler).await
        });
        peer.send(OPENING).await;
        read_head(&mut peer).await;
        peer.expect([plain(TEXT, "a"), plain(TEXT, "b"), plain(CLOSE, close(1000, ""))].concat())
            .await;
        peer.send(masked(CLOSE, close(1000, ""))).await;
        peer.end.close().await.unwrap();
        serving.await.unwrap();
    });
}

#[test]
fn a_header_that_is_not_text_is_present_and_matches_nothing() {
    for (name, error) in [
        ("Origin", HandshakeError::OriginForbidden),
        ("Sec-WebSocket-Extensions", HandshakeError::ExtensionsMalformed),
        ("Sec-WebSocket-Key", HandshakeError::KeyInvalid),
        ("Sec-WebSocket-Protocol", HandshakeError::SubprotocolsMalformed),
        ("Host", HandshakeError::HostRepeated),
    ] {
        within(async {
            let (mut peer, _serving) = serve(echo);
            let (first, rest) = OPENING.split_once("\r\n").unwrap();
            let line = [name.as_bytes(), b": \xff"].concat();
            peer.send([first.as_bytes(), &line, rest.as_bytes()].join(&b"\r\n"[..])).await;
            peer.end.close().await.unwrap();
            let answer = answer(&mut peer).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {} ", error.status())), "{answer}");
            assert!(answer.contains(&error.to_string()), "{answer}");
        });
    }
}

#[test]
fn a_head_may_come_byte_by_byte() {
    within(async {
        let (mut peer, _serving) = serve(echo);
        for byte in OPENING.bytes() {
            peer.send([byte]).await;
            task::yield_now().await;
        }
        assert!(read_head(&mut peer).await.starts_with("HTTP/1.1 101 "));
    });
}

#[test]
fn bytes_that_are_not_http_are_answered_before_a_line_ends() {
    within(async {
        let (mut peer, serving) = serve(echo);
        // The beginning of a TLS handshake, from a client that waits for the answer.
        peer.send(b"\x16\x03\x01\x02").await;
        assert!(read_head(&mut peer).await.starts_with("HTTP/1.1 400 "));
        drop(peer);
        let outcome = serving.await;
        assert!(matches!(outcome, Err(Error::Handshake(HandshakeError::HeadMalformed))));
    });
}

#[test]
fn a_refusal_is_an_answer_with_any_status() {
    for (status, told) in [(404, "404"), (200, "200"), (101, "500"), (0, "500"), (600, "500")] {
        within(async {
            let (mut peer, _serving) =
                serve(move |request| async move { request.refuse(status, "").await });
            peer.send(OPENING).await;
            peer.end.close().await.unwrap();
            let answer = answer(&mut peer).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {told} ")), "{answer}");
        });
    }
}

#[test]
fn an_answer_has_no_content_where_http_allows_none() {
    for (method, status, end) in [
        ("GET", 404, "Content-Length: 5\r\n\r\nnone\n"),
        // RFC 9110 §9.3.2: the length that the answer to a GET would have
        ("HEAD", 404, "Content-Length: 5\r\n\r\n"),
        // §8.6, §15.3.5, §15.3.6, §15.4.5
        ("GET", 204, "charset=utf-8\r\n\r\n"),
        ("GET", 205, "Content-Length: 0\r\n\r\n"),
        ("GET", 304, "charset=utf-8\r\n\r\n"),
    ] {
        within(async {
            let (mut peer, _serving) =
                serve(move |request| async move { request.refuse(status, "none\n").await });
            peer.send(OPENING.replacen("GET", method, 1)).await;
            peer.end.close().await.unwrap();
            let answer = answer(&mut peer).await;
            assert!(answer.ends_with(end), "{method} {status}: {answer}");
        });
    }
    within(async {
        let (mut peer, _serving) = serve(echo);
        peer.send(OPENING.replacen("GET", "HEAD", 1)).await;
        peer.end.close().await.unwrap();
        let answer = answer(&mut peer).await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    });
}

#[test]
fn where_the_caller_speaks_tls_a_page_of_the_same_host_came_over_tls_as_well() {
    for (is_secure, origin, status) in [
        (false, "http://x", 101),
        (false, "ws://x", 101),
        (true, "https://x", 101),
        (true, "wss://x", 101),
        (true, "http://x", 403),
    ] {
        within(async {
            let (mut peer, _serving) = serve(move |request| async move {
                let request = if is_secure { request.over_tls() } else { request };
                request.upgrade(WebSocketOptions::default()).await.map(drop)
            });
            peer.send(OPENING.replacen("Host: x", &format!("Host: x\r\nOrigin: {origin}"), 1))
                .await;
            let head = read_head(&mut peer).await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{is_secure} {origin}: {head}"
            );
        });
    }
}

#[test]
pub(super) fn a_host_that_is_empty_or_none_is_refused() {
    // RFC 9110 §4.2.1, RFC 9112 §3.2; the first of each line is the request target
    for request in [
        "/ |",
        "/ |  ",
        "/ |x y",
        "/ |x, y",
        "/ |x/admin?",
        "/ |user@x",
        "/ |x#y",
        "/ |x\\y",
        "/ |x%2fadmin",
        "/ |x:99999",
        "/ |x:80:80",
        "/ |x:port",
        "/ |:80",
        "/ |[::1",
        "/ |[1]",
        "/ |[::1]80",
        "/ |[fe80::1%25eth0]",
        "/ |::1",
        "/ |é",
        "/ |http://x",
        // The host of the target counts, but what the line says is no host all the same.
        "http://y/ |",
        "http://y/ |x y",
        "http://y:99999/ |y",
        "http://y_:x/ |y",
        "http://[y]/ |y",
    ] {
        within(async {
            let (target, host) = request.split_once(" |").unwrap();
            let (mut peer, serving) = serve(echo);
            let request = OPENING.replacen("Host: x", &format!("Host: {host}"), 1);
            peer.send(request.replacen("GET /", &format!("GET {target}"), 1)).await;
            peer.end.close().await.unwrap();
            let answer = answer(&mut peer).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{target} {host}: {answer}");
            let outcome = serving.await;
            let error = HandshakeError::HostInvalid;
            assert!(matches!(outcome, Err(Error::Handshake(seen)) if seen == error), "{outcome:?}");
        });
    }
    for host in
        ["x", "x:80", "x:", "127.0.0.1:8080", "[::1]", "[::ffff:1.2.3.4]:80", "a_b.example", "X-Y."]
    {
        within(async {
            let (mut peer, _serving) = serve(echo);
            peer.send(OPENING.replacen("Host: x", &format!("Host: {host}"), 1)).await;
            let head = read_head(&mut peer).await;
            assert!(head.starts_with("HTTP/1.1 101 "), "{host}: {head}");
        });
    }
}

#[test]
fn a_target_with_a_fragment_is_refused_before_anyone_sees_it() {
    // RFC 9112 §3.2: no form of a target has one.
    for target in ["/#", "/a#b", "/a?b#c", "http://x/a#b", "http://x#", "#"] {
        for method in ["GET", "HEAD"] {
            within(async {
                let (mut peer, serving) = serve(|_| async { panic!("a request") });
                peer.send(OPENING.replacen("GET /", &format!("{method} {target}"), 1)).await;
                peer.end.close().await.unwrap();
                let answer = answer(&mut peer).await;
                assert!(answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
                assert_eq!(answer.ends_with("\r\n\r\n"), method == "HEAD", "{answer}");
                let outcome = serving.await;
                let error = HandshakeError::TargetInvalid;
                let is_told = matches!(outcome, Err(Error::Handshake(seen)) if seen == error);
                assert!(is_told, "{outcome:?}");
            });
        }
    }
}

#[test]
fn an_absolute_target_says_path_and_host() {
    // RFC 9112 §3.2.2; the last are none of ours, and stay as they are
    for (target, path, query, host) in [
        ("http://y:81/echo?a=b", "/echo", Some("a=b"), "y:81"),
        ("HTTPS://y", "/", None, "y"),
        ("http://y?a=/b", "/", Some("a=/b"), "y"),
        ("/http://y/echo", "/http://y/echo", None, "x"),
        ("ftp://y/echo", "ftp://y/echo", None, "x"),
        ("http://ada@y/echo", "http://ada@y/echo", None, "x"),
        ("http:///echo", "http:///echo", None, "x"),
    ] {
        within(async {
            let (mut peer, serving) = serve(move |request| async move {
                assert_eq!((request.path(), request.query()), (path, query), "{target}");
                assert_eq!(request.header("host"), Some(host), "{target}");
                request.upgrade(WebSocketOptions::default()).await.map(drop)
            });
            // A page of the host that counts may connect.
            let origin = format!("Host: x\r\nOrigin: http://{host}");
            let request = OPENING.replacen("Host: x", &origin, 1);
            peer.send(request.replacen("GET /", &format!("GET {target}"), 1)).await;
            let head = read_head(&mut peer).await;
            assert!(head.starts_with("HTTP/1.1 101 "), "{target}: {head}");
            drop(peer);
            serving.await.unwrap();
        });
    }
}

#[test]
fn the_longest_head_has_16_kib() {
    for (len, status) in [(16 << 10, 101), ((16 << 10) + 1, 431)] {
        within(async {
            let (mut peer, _serving) = serve(echo);
            let padding = "x".repeat(len - OPENING.len() - "X: \r\n".len());
            let head = OPENING.replacen("Host", &format!("X: {padding}\r\nHost"), 1);
            assert_eq!(head.len(), len);
            peer.send(head).await;
            let answer = read_head(&mut peer).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        });
    }
}

#[test]
fn a_client_that_does_not_read_the_101_is_given_up() {
    within(async {
        let knobs = Knobs { in_flight: 10, ..Knobs::default() };
        let (mut peer, serving) = serve_over(knobs, |request| async move {
            let options = UpgradeOptions::default().handshake_timeout(Duration::from_millis(20));
            request.upgrade(options).await.map(drop)
        });
        peer.send(OPENING).await;
        let outcome = serving.await;
        assert!(matches!(outcome, Err(Error::Handshake(HandshakeError::TimedOut))), "{outcome:?}");
        assert_eq!(answer(&mut peer).await, "HTTP/1.1 1");
    });
}

#[test]
fn a_client_that_is_gone_is_an_error_of_the_stream() {
    within(async {
        let (tell, told) = oneshot::channel();
        let (go_on, gone) = oneshot::channel::<()>();
        let (mut peer, serving) = serve(|request| async move {
            tell.send(()).unwrap();
            gone.await.unwrap();
            request.upgrade(WebSocketOptions::default()).await.map(drop)
        });
        peer.send(OPENING.replacen("GET", "POST", 1)).await;
        told.await.unwrap();
        peer.end.reset();
        go_on.send(()).unwrap();
        let outcome = serving.await;
        assert!(matches!(outcome, Err(Error::Io(_))), "{outcome:?}");
    });
}

#[test]
fn bytes_of_a_client_after_a_refusal_are_read_and_dropped() {
    within(async {
        let (mut peer, serving) = serve(|request| async move { request.refuse(404, "").await });
        peer.send(OPENING).await;
        assert!(answer(&mut peer).await.starts_with("HTTP/1.1 404 "));
        for _ in 0..3 {
            peer.send(b"more").await;
            while peer.end.unread() > 0 {
                task::yield_now().await;
            }
        }
        peer.end.close().await.unwrap();
        serving.await.unwrap();
    });
}

#[test]
fn where_the_client_is_the_caller_may_tell() {
    within(async {
        let addr = SocketAddr::from(([192, 0, 2, 1], 5000));
        let (tell, told) = oneshot::channel();
        let (mut peer, _serving) = serve(move |request| async move {
            let shown = format!("{request:?}");
            let ws = request.peer_addr(addr).upgrade(WebSocketOptions::default()).await?;
            tell.send((shown, ws.peer_addr())).unwrap();
            Ok(())
        });
        peer.send(OPENING).await;
        let shown = "UpgradeRequest { path: \"/\", .. }".to_owned();
        assert_eq!(told.await.unwrap(), (shown, Some(addr)));
    });
}
