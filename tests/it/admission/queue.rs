//! Who gets in, in which order, and through which limits.

use std::io::Read;
use std::sync::Arc;

use async_lock::Semaphore;
use futures::StreamExt;
use futures::channel::mpsc;
use tidewire::limits::ConnectionLimit;
use tidewire::{RequestContext, Server, WebSocketOptions};

use super::{
    LONG, echo_within, expect_101, expect_echo, expect_nothing, leave, limited, queued, refused,
    until,
};
use crate::support::frames::{CLOSE, TEXT, close, masked};
use crate::support::peer::{echo, within};
use crate::support::tcp::{OPENING, Tcp, bind, echo_server};

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
fn waiting_requests_are_admitted_in_order_of_arrival() {
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
