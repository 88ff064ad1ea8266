//! A permit is free again, whatever ends its connection.

use std::net::SocketAddr;
use std::time::Duration;

use async_std::future::timeout;
use async_std::task;
use futures::StreamExt;
use futures::channel::mpsc;
use tidewire::limits::ConnectionLimit;
use tidewire::{HandshakeError, RequestContext, Server};

use super::{
    LONG, echo_within, expect_101, expect_echo, leave, limited, queued, refusal, refused, until,
};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{echo, within};
use crate::support::tcp::{OPENING, Tcp, bind, echo_server};

/// What the handlers of the next tests do once they have a connection and a message.
async fn end(
    how: &str,
    ctx: &mut RequestContext,
    limit: &ConnectionLimit,
) -> tidewire::HandlerResult {
    let mut ws = ctx.upgrade_to_websocket(limited(limit)).await?;
    if how == "moves" {
        task::spawn(echo(ws));
        return Ok(());
    }
    ws.recv().await?;
    match how {
        "returns" => Ok(()),
        "fails" => Err(std::io::Error::other("on purpose").into()),
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
            let how: String = ctx.param("how")?;
            end(&how, &mut ctx, &limit).await
        }
    });
    bind(server)
}

#[test]
fn a_permit_is_free_once_handler_and_connection_are_over_for_every_end_of_the_handler() {
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
fn a_permit_is_free_for_every_end_of_the_client() {
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
pub(in super::super) fn a_client_that_sends_before_its_101_does_not_wait() {
    // RFC 6455 §4.1: it MUST NOT. Bytes behind a request hide that their sender has hung up.
    let limit = ConnectionLimit::new(1).wait(LONG, 10);
    let mut server = echo_server(limited(&limit));
    server.post("/http", |mut ctx: RequestContext| async move { ctx.body_string().await });
    let addr = bind(server);
    let inside = Tcp::upgraded(addr);
    let post = "POST /http HTTP/1.1\r\nHost: x\r\n";
    let empty = format!("{post}\r\n");
    let sized = format!("{post}Content-Length: 4\r\n\r\n\r\n\r\n");
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n");
    for (before, early) in [
        ("", &masked(TEXT, "Hello")[..]),
        ("", b"x"),
        ("", b"\r\n"),
        ("", b"\r\n\r\n"),
        (&empty, b"x"),
        (&sized, b"x"),
        (&chunked, b"x"),
        (&chunked, b"\r\n\r\n"),
    ] {
        for is_later in [false, true] {
            let mut client = Tcp::connect(addr);
            let request = [before, OPENING].concat();
            if is_later {
                client.send(request);
                until("it waits", || limit.waiting() == 1);
                client.send(early);
            } else {
                client.send([request.as_bytes(), early].concat());
            }
            if !before.is_empty() {
                assert!(refusal(&mut client).starts_with("HTTP/1.1 200 "), "{before}");
            }
            let refusal = refusal(&mut client);
            assert!(refusal.starts_with("HTTP/1.1 400 "), "{before}{early:?}: {refusal}");
            assert!(refusal.contains(&HandshakeError::EarlyData.to_string()), "{refusal}");
            client.expect_end();
            assert_eq!(limit.waiting(), 0);
        }
    }
    // Where nobody has to wait, nothing is hidden by it.
    leave(inside);
    until("the permit is free", || limit.available() == 1);
    let mut client = Tcp::connect(addr);
    client.send([OPENING.as_bytes(), &masked(TEXT, "Hello")].concat());
    expect_101(&mut client);
    client.expect(plain(TEXT, "Hello"));
}

#[test]
fn a_thousand_dead_clients_do_not_keep_one_that_is_alive_out_of_the_queue() {
    const DEAD: usize = 1000;
    let limit = ConnectionLimit::new(1).wait(LONG, DEAD);
    let addr = echo_within(&limit);
    let inside = Tcp::upgraded(addr);
    for number in 0..DEAD {
        let mut client = Tcp::connect(addr);
        let early = [Vec::new(), b"x".to_vec(), masked(TEXT, "Hello")][number % 3].clone();
        client.send([OPENING.as_bytes(), &early].concat());
        if number % 2 == 0 {
            // A reset instead of a FIN.
            socket2::SockRef::from(&client.socket).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    until("none of them waits", || limit.waiting() == 0);
    let mut alive = queued(addr, &limit);
    leave(inside);
    expect_101(&mut alive);
    expect_echo(&mut alive);
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
            let upgrade = async move { echo(ctx.upgrade_to_websocket(options).await?).await };
            Ok(task::spawn(upgrade).await?)
        }
    });
    let addr = bind(server);
    // The endpoint learns that another task has asked.
    let inside = Tcp::upgraded(addr);
    assert_eq!(limit.available(), 0);
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
