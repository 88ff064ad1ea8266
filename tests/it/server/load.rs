//! The threads that serve connections under load: the turns of others, and connections in more than one task.
//!
//! Waiting is counted in what others have done meanwhile, and not in time.

use std::future::{Future, poll_fn};
use std::io::Write;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use async_std::task;
use tidewire::server::ServerOptions;
use tidewire::{Hub, RequestContext, Room, Sender, Server, WebSocketOptions};

use super::{GET, patient, start};
use crate::support::frames::{BINARY, CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{self, within};
use crate::support::tcp::{Tcp, until};

fn with_workers(count: usize) -> Server {
    let mut server = Server::new();
    server.options(ServerOptions::default().workers(count));
    server
}

/// A handler that receives without end yields by itself: beside it another task of the worker has a turn after each of
/// its own. Only while a thread stands still inside that task, and the worker has gone on without it, there are more.
#[test]
fn a_peer_that_is_always_ahead_has_one_turn_at_a_time() {
    /// Messages per turn, which `recv` hands out before it yields.
    const TURN: usize = 64;
    const MESSAGES: usize = 50_000;

    let received = Arc::new(AtomicUsize::new(0));
    let mut server = with_workers(1);
    let count = Arc::clone(&received);
    server.get("/flood", move |mut ctx: RequestContext| {
        let count = Arc::clone(&count);
        async move {
            let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            while ws.recv().await?.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }
    });
    let count = Arc::clone(&received);
    server.get("/innocent", move |_: RequestContext| {
        let count = Arc::clone(&count);
        async move {
            let (mut long, mut before) = (0, count.load(Ordering::SeqCst));
            while before < MESSAGES {
                task::yield_now().await;
                let now = count.load(Ordering::SeqCst);
                long += usize::from(now - before > TURN);
                before = now;
            }
            Ok(format!("{long:05}"))
        }
    });
    let handle = start(server);
    let mut flooding = Tcp::upgraded_at(handle.local_addr(), "/flood");
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    let flood = thread::spawn(move || {
        let frames = masked(BINARY, "x").repeat(10_000);
        while !ends.load(Ordering::SeqCst) {
            flooding.socket.write_all(&frames).unwrap();
        }
    });
    let mut innocent = Tcp::connect(handle.local_addr());
    innocent.send(GET.replacen('/', "/innocent", 1));
    assert!(innocent.head().starts_with("HTTP/1.1 200 "));
    let long = String::from_utf8(innocent.read(5)).unwrap();
    is_over.store(true, Ordering::SeqCst);
    flood.join().unwrap();
    let long: u64 = long.parse().unwrap();
    let stalls: u64 = handle.metrics().workers.iter().map(|worker| worker.stalls).sum();
    assert!(long <= stalls, "{long} waits for more than a turn, and {stalls} stalls");
    within(handle.shutdown(patient()));
}

/// A broadcast is work for each worker, and wakes no member.
#[test]
fn a_broadcast_wakes_no_member_of_any_worker() {
    const MEMBERS: usize = 40;

    let room: Room = Hub::new().room("room");
    let polls = Arc::new(AtomicUsize::new(0));
    let mut server = with_workers(2);
    let (of_server, count) = (room.clone(), Arc::clone(&polls));
    server.get("/ws", move |mut ctx: RequestContext| {
        let (room, count) = (of_server.clone(), Arc::clone(&count));
        async move {
            let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            let _member = room.join(&ws);
            let mut messages = pin!(peer::collect(&mut ws));
            poll_fn(|cx| {
                count.fetch_add(1, Ordering::SeqCst);
                messages.as_mut().poll(cx)
            })
            .await
            .1?;
            Ok(())
        }
    });
    let handle = start(server);
    let mut clients: Vec<_> =
        (0..MEMBERS).map(|_| Tcp::upgraded_at(handle.local_addr(), "/ws")).collect();
    until("all are there", || room.len() == MEMBERS && polls.load(Ordering::SeqCst) == MEMBERS);
    for number in 0..50 {
        let text = format!("number {number}");
        assert_eq!(room.broadcast(text.as_str()).queued, MEMBERS);
        for client in &mut clients {
            client.expect(plain(TEXT, &text));
        }
    }
    assert_eq!(polls.load(Ordering::SeqCst), MEMBERS);
    drop(clients);
    within(handle.shutdown(patient()));
}

/// The connection stays with its worker, and its `WebSocket` goes to async-std's executor.
#[test]
fn connections_whose_websocket_lives_on_another_executor_lose_nothing() {
    const CONNECTIONS: usize = 8;
    const BATCH: usize = 32;
    const BATCHES: usize = 60;

    let mut server = with_workers(2);
    server.get("/ws", |mut ctx: RequestContext| async move {
        let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        Ok(task::spawn(peer::echo(ws)).await?)
    });
    let handle = start(server);
    let addr = handle.local_addr();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            thread::spawn(move || {
                let mut client = Tcp::upgraded_at(addr, "/ws");
                for batch in 0..BATCHES {
                    let texts = (0..BATCH).map(|number| format!("{batch} {number}"));
                    let (sent, expected): (Vec<_>, Vec<_>) =
                        texts.map(|text| (masked(TEXT, &text), plain(TEXT, &text))).unzip();
                    client.send(sent.concat());
                    client.expect(expected.concat());
                }
                client.send(masked(CLOSE, close(1000, "")));
                client.expect(plain(CLOSE, close(1000, "")));
                client.expect_end();
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    let report = within(handle.shutdown(patient()));
    assert_eq!((report.lost, report.dropped), (0, 0), "{report:?}");
}

/// A handler and another thread send, and a third thread closes. What `send` has taken is before the close frame, and
/// nothing is behind it.
#[test]
fn what_a_send_has_taken_is_written_before_the_close_frame() {
    const ROUNDS: usize = 100;

    let (tell, told) = mpsc::channel::<(Sender, mpsc::Receiver<usize>)>();
    let mut server = with_workers(2);
    server.get("/ws", move |mut ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            let (count, counted) = mpsc::channel();
            tell.send((ws.sender(), counted)).unwrap();
            let mut sent = 0;
            while ws.send("handler").await.is_ok() {
                sent += 1;
                // Now in the handler's buffer, now behind a turn of others.
                if sent % 5 == 0 {
                    task::yield_now().await;
                }
            }
            count.send(sent).unwrap();
            Ok(())
        }
    });
    let handle = start(server);
    for round in 0..ROUNDS {
        let mut client = Tcp::upgraded_at(handle.local_addr(), "/ws");
        let (sender, counted) = told.recv().unwrap();
        let other = sender.clone();
        let other = thread::spawn(move || {
            let mut sent = 0;
            while within(other.send("thread")).is_ok() {
                sent += 1;
            }
            sent
        });
        let closing = thread::spawn(move || {
            (0..round % 50).for_each(|_| thread::yield_now());
            within(sender.close(1000, "")).unwrap()
        });
        let (mut handlers, mut threads) = (0, 0);
        loop {
            let seen = client.long_frame();
            match seen.payload.as_slice() {
                b"handler" => handlers += 1,
                b"thread" => threads += 1,
                _ => {
                    assert_eq!(seen.close_code(), Some(1000));
                    break;
                }
            }
        }
        client.send(masked(CLOSE, close(1000, "")));
        client.expect_end();
        let sent = (counted.recv().unwrap(), other.join().unwrap());
        assert_eq!((handlers, threads), sent, "round {round}");
        assert!(closing.join().unwrap().clean);
    }
    within(handle.shutdown(patient()));
}
