//! What those get who do not get in.

use std::time::{Duration, Instant};

use tidewire::limits::ConnectionLimit;
use tidewire::{HandshakeError, RequestContext, Server, WebSocketOptions};

use super::{LONG, echo_within, expect_101, leave, limited, queued, refusal, refused, until};
use crate::support::peer::{echo, within};
use crate::support::tcp::{OPENING, Tcp, bind, echo_server};

#[test]
fn a_refusal_is_a_503_that_says_when_to_come_back_and_ends_the_connection() {
    let limit = ConnectionLimit::new(1);
    let addr = echo_within(&limit);
    let inside = Tcp::upgraded(addr);
    let mut outside = Tcp::connect(addr);
    outside.send(OPENING);
    let refusal = refusal(&mut outside);
    let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.split("\r\n").collect();
    lines[1..].sort_unstable();
    let expected = [
        "HTTP/1.1 503 Service Unavailable",
        "connection: close",
        "content-length: 100",
        "content-type: text/plain;charset=utf-8",
        "retry-after: 5",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        body,
        "there are as many connections as a limit of the server allows\n\
         `Retry-After` tells when to try again."
    );
    outside.expect_end();
    leave(inside);
    until("the permit is free", || limit.available() == 1);
    let mut again = Tcp::connect(addr);
    again.send(OPENING);
    expect_101(&mut again);
}

#[test]
fn the_time_to_come_back_is_rounded_up_to_whole_seconds() {
    for (delay, header) in [
        (Duration::ZERO, "0"),
        (Duration::from_nanos(1), "1"),
        (Duration::from_secs(7), "7"),
        (Duration::from_millis(7001), "8"),
        (Duration::MAX, "18446744073709551615"),
    ] {
        let limit = ConnectionLimit::new(1).retry_after(delay);
        let addr = echo_within(&limit);
        let _inside = Tcp::upgraded(addr);
        let refusal = refused(addr);
        assert!(refusal.contains(&format!("\r\nretry-after: {header}\r\n")), "{refusal}");
    }
}

#[test]
fn a_handler_sees_why_it_got_no_connection_and_may_answer_otherwise() {
    let limit = ConnectionLimit::new(1).retry_after(Duration::from_millis(1500));
    let options = limited(&limit);
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let options = options.clone();
        async move {
            match ctx.upgrade_to_websocket(options).await {
                Ok(ws) => echo(ws).await.map(|()| String::new()).map_err(Into::into),
                Err(tidewire::Error::Handshake(HandshakeError::LimitReached { retry_after })) => {
                    Ok(format!("in {retry_after:?}"))
                }
                Err(error) => Err(error.into()),
            }
        }
    });
    let addr = bind(server);
    let _inside = Tcp::upgraded(addr);
    assert!(refused(addr).ends_with("\r\n\r\nin 1.5s"));
}

#[test]
fn a_queue_that_is_full_refuses_at_once_and_one_that_is_slow_in_the_end() {
    let limit = ConnectionLimit::new(1).wait(LONG, 1);
    let addr = echo_within(&limit);
    let _inside = Tcp::upgraded(addr);
    let _waits = queued(addr, &limit);
    assert!(refused(addr).starts_with("HTTP/1.1 503 "));
    assert_eq!(limit.waiting(), 1);

    let soon = Duration::from_millis(200);
    let limit = ConnectionLimit::new(1).wait(soon, 1);
    let addr = echo_within(&limit);
    let _inside = Tcp::upgraded(addr);
    let begin = Instant::now();
    assert!(refused(addr).contains("\r\nretry-after: 5\r\n"));
    assert!(begin.elapsed() >= soon);
    assert_eq!(limit.waiting(), 0);
}

#[test]
fn a_request_that_is_not_an_opening_handshake_neither_waits_nor_takes_a_permit() {
    let limit = ConnectionLimit::new(1).wait(LONG, 10);
    let addr = echo_within(&limit);
    for is_full in [false, true] {
        let _inside = is_full.then(|| Tcp::upgraded(addr));
        for (line, other, status) in [
            ("Version: 13", "Version: 12", "426"),
            ("Upgrade: websocket\r\n", "", "400"),
            ("Host: x", "Host: x\r\nOrigin: https://evil.example", "403"),
            ("Host: x", "Host: x\r\nSec-WebSocket-Extensions: ;", "400"),
        ] {
            let mut client = Tcp::connect(addr);
            client.send(OPENING.replace(line, other));
            let refusal = refusal(&mut client);
            assert!(refusal.starts_with(&format!("HTTP/1.1 {status} ")), "{other}: {refusal}");
            assert_eq!((limit.in_use(), limit.waiting()), (usize::from(is_full), 0));
        }
    }
}

#[test]
fn a_limit_of_0_is_an_error_that_names_it() {
    for zero in [ConnectionLimit::new(0), ConnectionLimit::per_address(0).wait(LONG, 1)] {
        let refusal = refused(echo_within(&zero));
        assert!(refusal.starts_with("HTTP/1.1 500 "), "{refusal}");
        assert!(
            refusal.ends_with("\r\n\r\na connection limit of 0 admits no connection"),
            "{refusal}"
        );

        let mut server = echo_server(WebSocketOptions::default());
        server.connection_limit(&zero);
        let error = within(server.bind("127.0.0.1:0")).unwrap_err();
        let said = "I/O failed: connection_limit is 0, so no connection could be opened";
        assert_eq!(format!("{error:#}"), said);
    }
}
