//! Memory for context takeover, shared by the connections of a real server.

use std::net::SocketAddr;
use std::sync::Mutex;

use async_std::task;
use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use tidewire::deflate::{DeflateBudget, DeflateOptions};
use tidewire::upgrade::UpgradeOptions;
use tidewire::{RequestContext, Sender, Server, WebSocketOptions};

use crate::support::deflate::{ALONE, TAKEOVER};
use crate::support::frames::{CLOSE, close, hex, masked};
use crate::support::peer::{echo, within};
use crate::support::tcp::{OPENING, Tcp, bind, echo_server};

/// Enough for one connection, not for two.
const ONE: usize = 400 << 10;

/// Options of connections that share the budget.
fn sharing(budget: &DeflateBudget) -> WebSocketOptions {
    let deflate = DeflateOptions::default()
        .server_context_takeover(true)
        .client_context_takeover(true)
        .budget(budget);
    WebSocketOptions::default().deflate(deflate)
}

fn request(offer: &str) -> String {
    OPENING.replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"))
}

/// A connection, and what was agreed on.
fn connect(addr: SocketAddr, offer: &str) -> (Tcp, String) {
    let mut client = Tcp::connect(addr);
    client.send(request(offer));
    let head = client.head();
    let mut lines = head.lines();
    let answer = lines.find_map(|line| line.strip_prefix("sec-websocket-extensions: "));
    (client, answer.unwrap_or_else(|| panic!("{head}")).to_owned())
}

/// Waits until nothing of the budget is spent.
fn is_given_back(budget: &DeflateBudget, all: usize) {
    within(async {
        while budget.available() != all {
            task::yield_now().await;
        }
    });
}

/// Says good-bye, and waits for the end.
fn leave(mut client: Tcp) {
    client.send(masked(CLOSE, close(1000, "")));
    client.expect_hex("88 02 03e8");
    client.expect_end();
}

#[test]
fn a_spent_budget_makes_connections_agree_on_no_takeover_until_it_is_given_back() {
    let budget = DeflateBudget::new(ONE);
    let addr = bind(echo_server(sharing(&budget)));
    let (mut first, answer) = connect(addr, TAKEOVER);
    assert_eq!(answer, TAKEOVER);
    let spent = ONE - budget.available();
    // 287 KiB for a compressor and 47 for a decompressor, as documented.
    assert!((330 << 10..340 << 10).contains(&spent), "{spent} bytes");

    for _ in 0..3 {
        let (mut second, answer) = connect(addr, TAKEOVER);
        assert_eq!(answer, ALONE);
        second.send(hex("c1 87 00000000 f248cdc9c90700"));
        second.expect_hex("81 05 48656c6c6f");
        leave(second);
    }
    assert_eq!(budget.available(), ONE - spent);
    first.send(hex("c1 87 00000000 f248cdc9c90700  c1 85 00000000 f200110000"));
    first.expect_hex("81 05 48656c6c6f  81 05 48656c6c6f");
    leave(first);
    is_given_back(&budget, ONE);
    assert_eq!(connect(addr, TAKEOVER).1, TAKEOVER);
}

#[test]
fn the_budget_is_spent_by_the_memory_of_the_parameters() {
    let budget = DeflateBudget::new(ONE);
    let addr = bind(echo_server(sharing(&budget)));
    for (offer, least, most) in [
        (ALONE, 0, 0),
        ("permessage-deflate; server_no_context_takeover", 40, 50),
        ("permessage-deflate; client_no_context_takeover", 280, 295),
        ("permessage-deflate; client_no_context_takeover; server_max_window_bits=12", 170, 180),
    ] {
        let (client, answer) = connect(addr, offer);
        assert_eq!(answer, offer);
        let spent = (ONE - budget.available()) >> 10;
        assert!((least..=most).contains(&spent), "{offer}: {spent} KiB");
        // A client need not say good-bye.
        drop(client);
        is_given_back(&budget, ONE);
    }
}

#[test]
fn connections_that_open_at_once_spend_no_more_than_there_is() {
    let budget = DeflateBudget::new(3 * ONE - 1);
    let addr = bind(echo_server(sharing(&budget)));
    let connecting: Vec<_> =
        (0..8).map(|_| std::thread::spawn(move || connect(addr, TAKEOVER))).collect();
    let connections: Vec<_> = connecting.into_iter().map(|it| it.join().unwrap()).collect();
    let with_takeover = connections.iter().filter(|(_, answer)| answer == TAKEOVER).count();
    assert_eq!(with_takeover, 3);
    assert!(budget.available() < ONE, "{} bytes", budget.available());
    drop(connections);
    is_given_back(&budget, 3 * ONE - 1);
}

#[test]
fn a_handshake_that_fails_spends_nothing() {
    let budget = DeflateBudget::new(ONE);
    let bad_header = bind(echo_server(UpgradeOptions::from(sharing(&budget)).header("x y", "z")));
    let good = bind(echo_server(sharing(&budget)));
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (addr, line, other, status) in [
        (bad_header, "", "", 500),
        (good, key, "Sec-WebSocket-Key: short", 400),
        (good, "Host: x", "Host: x\r\nOrigin: http://y", 403),
        (good, "Host: x", "Host: x\r\nContent-Length: 1", 400),
    ] {
        let mut client = Tcp::connect(addr);
        client.send(request(TAKEOVER).replace(line, other));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{other}: {head}");
        assert_eq!(budget.available(), ONE, "{other}");
    }
}

#[test]
fn a_client_that_vanishes_before_the_101_gives_its_part_back() {
    let budget = DeflateBudget::new(ONE);
    let (tell, mut entered) = mpsc::unbounded();
    let mut server = Server::new();
    let options = sharing(&budget);
    server.get("/", move |mut ctx: RequestContext| {
        let (tell, options) = (tell.clone(), options.clone());
        async move {
            let (go, gone) = oneshot::channel::<()>();
            tell.unbounded_send(go).unwrap();
            let _ = gone.await;
            echo(ctx.upgrade_to_websocket(options).await?).await?;
            Ok(())
        }
    });
    let addr = bind(server);
    for _ in 0..5 {
        let mut client = Tcp::connect(addr);
        client.send(request(TAKEOVER));
        let go = within(entered.next()).unwrap();
        drop(client);
        drop(go);
        is_given_back(&budget, ONE);
    }
}

#[test]
fn an_upgrade_that_was_abandoned_gives_its_part_back() {
    let budget = DeflateBudget::new(ONE);
    let (tell, mut told) = mpsc::unbounded();
    let mut server = Server::new();
    let options = sharing(&budget);
    server.get("/", move |mut ctx: RequestContext| {
        let (tell, options, budget) = (tell.clone(), options.clone(), budget.clone());
        async move {
            let mut upgrade = Box::pin(ctx.upgrade_to_websocket(options));
            assert!(futures::poll!(&mut upgrade).is_pending());
            let meanwhile = budget.available();
            drop(upgrade);
            tell.unbounded_send((meanwhile, budget.available())).unwrap();
            Ok("plain after all")
        }
    });
    let mut client = Tcp::connect(bind(server));
    client.send(request(TAKEOVER));
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    let (meanwhile, after) = within(told.next()).unwrap();
    assert!(meanwhile < ONE && after == ONE, "{meanwhile}, {after}");
}

#[test]
fn a_handler_that_goes_on_after_its_upgrade_failed_keeps_nothing_of_the_budget() {
    let budget = DeflateBudget::new(ONE);
    let (tell, told) = oneshot::channel();
    let (go, gone) = oneshot::channel::<()>();
    let once = Mutex::new(Some((tell, gone)));
    let mut server = Server::new();
    // The answer is not the one that the handler wants.
    server.with(tide::utils::After(|_| async { Ok(tide::Response::new(200)) }));
    let options = sharing(&budget);
    server.get("/", move |mut ctx: RequestContext| {
        let (tell, gone) = once.lock().unwrap().take().unwrap();
        let options = options.clone();
        async move {
            tell.send(ctx.upgrade_to_websocket(options).await.is_err()).unwrap();
            let _ = gone.await;
            Ok(())
        }
    });
    let mut client = Tcp::connect(bind(server));
    client.send(request(TAKEOVER));
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert!(within(told).unwrap(), "the upgrade fails");
    is_given_back(&budget, ONE);
    drop(go);
}

#[test]
fn a_sender_that_outlives_its_connection_keeps_nothing_of_the_budget() {
    let budget = DeflateBudget::new(ONE);
    let (tell, mut told) = mpsc::unbounded::<Sender>();
    let mut server = Server::new();
    let options = sharing(&budget);
    server.get("/", move |mut ctx: RequestContext| {
        let (tell, options) = (tell.clone(), options.clone());
        async move {
            let ws = ctx.upgrade_to_websocket(options).await?;
            tell.unbounded_send(ws.sender()).unwrap();
            echo(ws).await?;
            Ok(())
        }
    });
    let (client, _) = connect(bind(server), TAKEOVER);
    let sender = within(told.next()).unwrap();
    leave(client);
    within(sender.closed());
    is_given_back(&budget, ONE);
    assert!(!sender.is_open());
}
