//! Limits on open connections: who waits, who is refused, and when a permit is free again.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use async_lock::Semaphore;
use async_std::future::timeout;
use async_std::task;
use futures::StreamExt;
use futures::channel::mpsc;
use tidewire::{
    ConnectionLimit, HandshakeError, RequestContext, Server, ServerOptions, WebSocketOptions,
};

use super::frames::{CLOSE, TEXT, close, masked, plain};
use super::peer::{WITHIN, echo, within};
use super::tcp::{OPENING, Tcp, bind, echo_server};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);

fn limited(limit: &ConnectionLimit) -> WebSocketOptions {
    WebSocketOptions::default().limit(limit)
}

fn echo_within(limit: &ConnectionLimit) -> SocketAddr {
    bind(echo_server(limited(limit)))
}

/// Waits for something that the server does on its own.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
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

#[test]
fn request_n_plus_1_gets_no_101_until_a_permit_frees_and_then_proceeds() {
    let limit = ConnectionLimit::new(2).wait(LONG, 10);
    let addr = echo_within(&limit);
    let mut first = Tcp::upgraded(addr);
    let mut second = Tcp::upgraded(addr);
    assert_eq!((limit.available(), limit.in_use(), limit.waiting()), (0, 2, 0));

    let mut third = queued(addr, &limit);
    expect_echo(&mut first);
    expect_echo(&mut second);
    expect_nothing(&third);

    leave(first);
    expect_101(&mut third);
    expect_echo(&mut third);
    assert_eq!((limit.available(), limit.in_use(), limit.waiting()), (0, 2, 0));
    leave(second);
    leave(third);
    until("both permits are free", || limit.available() == 2);
}

#[test]
fn those_who_wait_are_admitted_in_the_order_in_which_they_came() {
    let limit = ConnectionLimit::new(1).wait(LONG, 10);
    let addr = echo_within(&limit);
    let mut inside = Tcp::upgraded(addr);
    let waiting: Vec<Tcp> = (0..5).map(|_| queued(addr, &limit)).collect();
    for (mut next, left) in waiting.into_iter().zip((0..5).rev()) {
        leave(inside);
        expect_101(&mut next);
        assert_eq!(limit.waiting(), left);
        inside = next;
    }
}

#[test]
fn one_limit_holds_for_routes_and_servers_together() {
    let limit = ConnectionLimit::new(2).wait(LONG, 10);
    let mut server = echo_server(limited(&limit));
    let options = limited(&limit);
    server.get("/other", move |mut ctx: RequestContext| {
        let options = options.clone();
        async move {
            echo(ctx.upgrade_to_websocket(options).await?).await?;
            Ok(())
        }
    });
    let addr = bind(server);
    let mut whole = echo_server(WebSocketOptions::default());
    whole.connection_limit(&limit);
    let other_addr = bind(whole);

    let one = Tcp::upgraded(addr);
    let _other = Tcp::upgraded_at(addr, "/other");
    let mut third = queued(other_addr, &limit);
    leave(one);
    expect_101(&mut third);
}

#[test]
fn a_limit_of_the_route_and_one_of_the_server_must_both_admit() {
    let (narrow, wide) = (ConnectionLimit::new(1), ConnectionLimit::new(2));
    let mut server = echo_server(limited(&narrow));
    let options = WebSocketOptions::default();
    server.get("/free", move |mut ctx: RequestContext| {
        let options = options.clone();
        async move {
            echo(ctx.upgrade_to_websocket(options).await?).await?;
            Ok(())
        }
    });
    server.connection_limit(&wide);
    let addr = bind(server);
    let one = Tcp::upgraded(addr);
    assert!(refused(addr).starts_with("HTTP/1.1 503 "));
    assert_eq!((narrow.in_use(), wide.in_use()), (1, 1), "who is refused holds nothing");
    let _other = Tcp::upgraded_at(addr, "/free");
    leave(one);
    until("a permit of each is free", || (narrow.available(), wide.available()) == (1, 1));
    let _third = Tcp::upgraded_at(addr, "/free");
    assert!(refused(addr).starts_with("HTTP/1.1 503 "));
    assert_eq!((narrow.in_use(), wide.in_use()), (0, 2));
}

/// What the handlers of the next tests do once they have a connection and a message.
async fn end(how: &str, ctx: &mut RequestContext, limit: &ConnectionLimit) -> tide::Result<()> {
    let mut ws = ctx.upgrade_to_websocket(limited(limit)).await?;
    if how == "moves" {
        task::spawn(echo(ws));
        return Ok(());
    }
    ws.recv().await?;
    match how {
        "returns" => Ok(()),
        "fails" => Err(tide::Error::from_str(500, "on purpose")),
        "panics" => panic!("on purpose"),
        "closes" => Ok(ws.close(1000_u16, "").await.map(drop)?),
        _ => Ok(echo(ws).await?),
    }
}

/// A server with a route for each of the ways above.
fn ending(limit: &ConnectionLimit) -> SocketAddr {
    let mut server = Server::new();
    let limit = limit.clone();
    server.get("/:how", move |mut ctx: RequestContext| {
        let limit = limit.clone();
        async move {
            let how = ctx.param("how").unwrap_or_default().to_owned();
            end(&how, &mut ctx, &limit).await
        }
    });
    bind(server)
}

#[test]
fn a_permit_is_free_once_handler_and_connection_are_over_however_the_handler_ends() {
    let limit = ConnectionLimit::new(1);
    let addr = ending(&limit);
    for (how, code) in [("returns", 1000), ("fails", 1011), ("panics", 1011), ("closes", 1000)] {
        let mut client = Tcp::upgraded_at(addr, &format!("/{how}"));
        client.send(masked(TEXT, "Hello"));
        assert_eq!(client.frame().close_code(), Some(code), "{how}");
        // The connection is not over before the client has answered.
        assert_eq!(limit.available(), 0, "{how}");
        client.send(masked(CLOSE, close(code, "")));
        client.expect_end();
        drop(client);
        until(how, || limit.available() == 1);
    }
}

#[test]
fn a_permit_is_free_however_the_client_ends() {
    type Way = (&'static str, fn(&mut Tcp));
    let ways: [Way; 5] = [
        ("a closing handshake", |client| {
            client.send(masked(CLOSE, close(1000, "")));
            client.expect_hex("88 02 03e8");
        }),
        ("an end without one", |_| {}),
        ("an end inside a frame", |client| client.send(&masked(TEXT, "Hello")[..4])),
        ("a frame that breaks the protocol", |client| {
            client.send(plain(TEXT, "Hello"));
            assert_eq!(client.frame().close_code(), Some(1002));
        }),
        // Closed with bytes unread, a socket sends a reset instead of a FIN.
        ("a reset", |client| {
            client.send(masked(TEXT, "Hello"));
            assert_eq!(client.socket.peek(&mut [0]).unwrap(), 1);
        }),
    ];
    let limit = ConnectionLimit::new(1);
    let addr = echo_within(&limit);
    for (way, end) in ways {
        let mut client = Tcp::upgraded(addr);
        expect_echo(&mut client);
        assert_eq!(limit.available(), 0, "{way}");
        end(&mut client);
        drop(client);
        until(way, || limit.available() == 1);
    }
}

#[test]
fn a_permit_stays_with_a_connection_that_its_handler_gave_away() {
    let limit = ConnectionLimit::new(1);
    let addr = ending(&limit);
    let mut client = Tcp::upgraded_at(addr, "/moves");
    for _ in 0..3 {
        expect_echo(&mut client);
        assert_eq!(limit.available(), 0);
    }
    leave(client);
    until("the permit is free", || limit.available() == 1);
}

#[test]
fn a_permit_stays_with_a_handler_that_outlives_its_connection() {
    let limit = ConnectionLimit::new(1);
    let options = limited(&limit);
    let (tell, mut ended) = mpsc::unbounded();
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let (options, tell) = (options.clone(), tell.clone());
        async move {
            echo(ctx.upgrade_to_websocket(options).await?).await?;
            let (go, gone) = futures::channel::oneshot::channel::<()>();
            tell.unbounded_send(go).unwrap();
            let _ = gone.await;
            Ok(())
        }
    });
    let addr = bind(server);
    leave(Tcp::upgraded(addr));
    let go = within(ended.next()).unwrap();
    assert_eq!(limit.available(), 0);
    assert!(refused(addr).starts_with("HTTP/1.1 503 "));
    drop(go);
    until("the permit is free", || limit.available() == 1);
}

#[test]
fn a_client_that_hangs_up_while_it_waits_leaves_the_queue_at_once() {
    let limit = ConnectionLimit::new(1).wait(LONG, 2);
    let addr = echo_within(&limit);
    let inside = Tcp::upgraded(addr);
    let gone = queued(addr, &limit);
    let mut next = queued(addr, &limit);
    drop(gone);
    until("one is left in the queue", || limit.waiting() == 1);
    // Its place in the queue is free as well.
    let _last = queued(addr, &limit);
    leave(inside);
    expect_101(&mut next);
}

#[test]
fn a_client_that_is_gone_when_its_turn_comes_gives_the_permit_to_the_next() {
    let limit = ConnectionLimit::new(1).wait(LONG, 10);
    let addr = echo_within(&limit);
    let inside = Tcp::upgraded(addr);
    for _ in 0..3 {
        let others = limit.waiting();
        let mut gone = Tcp::connect(addr);
        // What came after the request hides that the client has hung up.
        gone.send([OPENING.as_bytes(), &masked(TEXT, "Hello")].concat());
        until("it waits", || limit.waiting() > others);
    }
    let mut next = queued(addr, &limit);
    leave(inside);
    expect_101(&mut next);
    leave(next);
    until("the permit is free", || (limit.available(), limit.waiting()) == (1, 0));
}

#[test]
fn clients_that_do_not_wait_for_their_101_leave_no_permit_behind() {
    let limit = ConnectionLimit::new(3).wait(LONG, 1000);
    let addr = echo_within(&limit);
    for number in 0..60 {
        let mut client = Tcp::connect(addr);
        client.send(OPENING);
        if number % 2 == 0 {
            let _ = client.socket.peek(&mut [0]);
        }
    }
    until("all permits are free", || (limit.available(), limit.waiting()) == (3, 0));
    expect_echo(&mut Tcp::upgraded(addr));
}

#[test]
fn an_upgrade_that_the_handler_abandons_holds_neither_permit_nor_place() {
    let limit = ConnectionLimit::new(1).wait(LONG, 1);
    let options = limited(&limit);
    let seen = limit.clone();
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let (options, limit) = (options.clone(), seen.clone());
        async move {
            let held = limit.in_use();
            let upgrade = ctx.upgrade_to_websocket(options.clone());
            assert!(timeout(Duration::ZERO, upgrade).await.is_err());
            assert_eq!((limit.in_use(), limit.waiting()), (held, 0));
            if held > 0 {
                return Ok("busy".to_owned());
            }
            echo(ctx.upgrade_to_websocket(options).await?).await?;
            Ok(String::new())
        }
    });
    let addr = bind(server);
    let inside = Tcp::upgraded(addr);
    assert!(refused(addr).ends_with("\r\n\r\nbusy"));
    leave(inside);
    until("the permit is free", || limit.available() == 1);
}

#[test]
fn a_context_that_outlives_its_request_in_another_task_keeps_no_permit() {
    let limit = ConnectionLimit::new(1).wait(LONG, 10);
    let options = limited(&limit);
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let options = options.clone();
        async move {
            let upgrade = async move { ctx.upgrade_to_websocket(options).await.map(drop) };
            Ok(task::spawn(upgrade).await?)
        }
    });
    let addr = bind(server);
    let mut inside = Tcp::connect(addr);
    inside.send(OPENING);
    until("it has the permit", || limit.available() == 0);
    let waiting = queued(addr, &limit);
    drop((inside, waiting));
    until("the permit is free", || (limit.available(), limit.waiting()) == (1, 0));
}

#[test]
fn a_101_that_middleware_replaces_gives_the_permit_back() {
    let limit = ConnectionLimit::new(1);
    let mut server = echo_server(limited(&limit));
    server.with(tide::utils::After(|response: tide::Response| async move {
        assert_eq!(response.status(), 101);
        Ok(tide::Response::from("something else"))
    }));
    let addr = bind(server);
    for _ in 0..3 {
        assert!(refused(addr).ends_with("\r\n\r\nsomething else"));
        until("the permit is free", || limit.available() == 1);
    }
}

#[test]
fn a_refusal_is_a_503_that_says_when_to_come_back_and_leaves_the_connection_open() {
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
        "content-length: 88",
        "content-type: text/plain;charset=utf-8",
        "retry-after: 5",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        body,
        "the server has as many connections as it may have\n`Retry-After` tells when to try again."
    );
    leave(inside);
    until("the permit is free", || limit.available() == 1);
    outside.send(OPENING);
    expect_101(&mut outside);
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
fn a_request_that_is_no_opening_handshake_neither_waits_nor_takes_a_permit() {
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
        assert!(refusal.ends_with("\r\n\r\na connection limit of 0 admits nobody"), "{refusal}");

        let mut server = echo_server(WebSocketOptions::default());
        server.connection_limit(&zero);
        let error = within(server.bind("127.0.0.1:0")).unwrap_err().to_string();
        assert_eq!(error, "connection_limit is 0, which admits nobody");
    }
}

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
        // Not known, so the address is that of the proxy.
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

#[test]
fn a_semaphore_of_the_handlers_own_works_the_same_way() {
    let permits = Arc::new(Semaphore::new(2));
    let shared = Arc::clone(&permits);
    let (tell, mut entered) = mpsc::unbounded();
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let (permits, tell) = (Arc::clone(&shared), tell.clone());
        async move {
            tell.unbounded_send(()).unwrap();
            let _permit = permits.acquire_arc().await;
            echo(ctx.upgrade_to_websocket(WebSocketOptions::default()).await?).await?;
            Ok(())
        }
    });
    let addr = bind(server);
    let open = |entered: &mut mpsc::UnboundedReceiver<()>| {
        let mut client = Tcp::connect(addr);
        client.send(OPENING);
        within(entered.next()).unwrap();
        client
    };
    let [mut first, mut second] = [open(&mut entered), open(&mut entered)];
    expect_101(&mut first);
    expect_101(&mut second);
    // Two wait, of whom one gives up.
    let gone = open(&mut entered);
    let mut third = open(&mut entered);
    expect_nothing(&third);
    drop(gone);
    // A reset instead of a closing handshake.
    second.send(masked(TEXT, "Hello"));
    let _ = second.socket.peek(&mut [0]);
    drop(second);
    expect_101(&mut third);
    leave(first);
    let mut rest = Vec::new();
    third.send(masked(CLOSE, close(1000, "")));
    third.socket.read_to_end(&mut rest).unwrap();
    until("both permits are free", || permits.available_permits() == 2);
}
