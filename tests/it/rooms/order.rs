//! What arrives before what, whoever sends it.

use std::future::Future;
use std::pin::pin;

use async_std::task;
use futures::SinkExt;
use futures::channel::oneshot;
use futures::future::{join_all, pending};
use futures::{join, poll};
use tidewire::frame::{Frame, OpCode};
use tidewire::rooms::{RoomOptions, SlowConsumer};
use tidewire::{Hub, Message, Result, WebSocket, WebSocketOptions};

use super::{enter, narrow, options, room, until_arrived};
use crate::support::attempts::patience;
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{collect, serve, serve_over, within};
use crate::support::pipe::{Knobs, Stutter};

/// Bounds that are never reached.
fn ample() -> RoomOptions {
    RoomOptions::default().max_messages(usize::MAX).max_bytes(usize::MAX)
}

/// Runs `call` to its end in another thread, while this one waits.
fn meanwhile<T: Send>(call: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| task::block_on(call)).join().unwrap())
}

#[test]
fn messages_and_broadcasts_of_a_handler_in_one_turn_arrive_in_order() {
    // With room for all of it, and with room for one message.
    for options in [options(), options().send_buffer_size(1)] {
        within(async {
            let room = room();
            let mut peer = serve(&options, |mut ws| async move {
                let _member = room.join(&ws);
                for number in 0..3 {
                    ws.send(format!("sent {number}")).await?;
                    room.broadcast(format!("broadcast {number}"));
                    ws.sender().send(format!("sender {number}")).await?;
                    room.send_to(ws.id(), format!("to {number}"));
                    ws.sender().send_prepared(&format!("prepared {number}").into()).await?;
                }
                Ok(())
            });
            for number in 0..3 {
                for what in ["sent", "broadcast", "sender", "to", "prepared"] {
                    peer.expect(plain(TEXT, format!("{what} {number}"))).await;
                }
            }
            peer.expect(plain(CLOSE, close(1000, ""))).await;
        });
    }
}

#[test]
fn a_broadcast_of_another_task_during_the_turn_of_a_handler_keeps_its_place() {
    within(async {
        let room = room();
        let mut peer = serve(&options(), |mut ws| async move {
            let _member = room.join(&ws);
            for number in 0..3 {
                ws.send(format!("before {number}")).await?;
                meanwhile(async { room.broadcast(format!("during {number}")) });
                ws.send(format!("after {number}")).await?;
            }
            Ok(())
        });
        for number in 0..3 {
            for what in ["before", "during", "after"] {
                peer.expect(plain(TEXT, format!("{what} {number}"))).await;
            }
        }
    });
}

#[test]
fn all_members_see_the_messages_of_a_room_in_one_order_and_each_tasks_in_its_own() {
    const TASKS: usize = 4;
    const MESSAGES: usize = 60;
    let trickle = Knobs { read: 7, write: 30, in_flight: 50, stutter: Stutter::Steady };
    within(async {
        let room = Hub::<()>::with_options(ample()).room("room");
        let small = options().send_buffer_size(40);
        let mut peers = vec![];
        for (knobs, options) in
            [(Knobs::default(), options()), (trickle, options()), (trickle, small)]
        {
            peers.push(enter(&room, knobs, &options).await.0);
        }
        let tasks = (0..TASKS).map(|number| {
            let room = room.clone();
            task::spawn(async move {
                for message in 0..MESSAGES {
                    room.broadcast(format!("{number} {message}"));
                    task::yield_now().await;
                }
            })
        });
        let talking = join_all(tasks.collect::<Vec<_>>());
        let reading = join_all(peers.iter_mut().map(|peer| async {
            let mut seen = vec![];
            for _ in 0..TASKS * MESSAGES {
                seen.push(String::from_utf8(peer.frame().await.payload).unwrap());
            }
            seen
        }));
        let (_, seen) = join!(talking, reading);
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0], seen[2]);
        for number in 0..TASKS {
            let own = format!("{number} ");
            let own = seen[0].iter().filter_map(|text| text.strip_prefix(&own));
            assert!(own.eq((0..MESSAGES).map(|message| message.to_string()).collect::<Vec<_>>()));
        }
    });
}

#[test]
fn messages_and_broadcasts_of_one_task_to_a_slow_member_arrive_in_order() {
    const MESSAGES: usize = 100;
    within(async {
        let room = Hub::<()>::with_options(ample()).room("room");
        let small = options().send_buffer_size(20);
        let (mut peer, sender) = enter(&room, narrow(30), &small).await;
        let talking = task::spawn(async move {
            for number in 0..MESSAGES {
                match number % 4 {
                    0 => sender.send(number.to_string()).await.unwrap(),
                    1 => sender.send_prepared(&number.to_string().into()).await.unwrap(),
                    _ => drop(room.broadcast(number.to_string())),
                }
            }
        });
        for number in 0..MESSAGES {
            peer.expect(plain(TEXT, number.to_string())).await;
        }
        talking.await;
    });
}

#[test]
fn broadcasts_wait_for_the_end_of_a_message_in_fragments() {
    for options in [options(), options().send_buffer_size(1)] {
        within(async {
            let room = room();
            let mut peer = serve(&options, |mut ws| async move {
                let _member = room.join(&ws);
                ws.send_frame(Frame::new(false, OpCode::Text, "a")).await?;
                room.broadcast("between");
                ws.ping("p").await?;
                ws.send_frame(Frame::new(false, OpCode::Continuation, "b")).await?;
                room.broadcast("between");
                ws.send_frame(Frame::new(true, OpCode::Continuation, "c")).await?;
                ws.send("after").await?;
                collect(&mut ws).await.1
            });
            peer.expect_hex("01 01 61 89 01 70 00 01 62 80 01 63").await;
            peer.expect(plain(TEXT, "between").repeat(2)).await;
            peer.expect(plain(TEXT, "after")).await;
        });
    }
}

#[test]
fn a_close_inside_a_fragmented_message_is_not_preceded_by_messages_that_wait_for_its_end() {
    within(async {
        let room = room();
        let mut peer = serve(&options(), |mut ws| async move {
            let _member = room.join(&ws);
            ws.send_frame(Frame::new(false, OpCode::Text, "a")).await?;
            room.broadcast("between");
            ws.close(1000_u16, "").await.map(drop)
        });
        peer.expect_hex("01 01 61 88 02 03e8").await;
        peer.send(masked(CLOSE, close(1000, ""))).await;
        peer.expect_end().await;
    });
}

#[test]
fn a_close_follows_earlier_broadcasts() {
    within(async {
        let room = room();
        let small = options().send_buffer_size(1);
        let (mut peer, sender) = enter(&room, narrow(10), &small).await;
        for number in 0..5 {
            room.broadcast(format!("before {number}"));
        }
        assert!(patience(1, sender.close(1000_u16, "")).await.is_none());
        assert_eq!(room.broadcast("after").gone, 1);
        for number in 0..5 {
            peer.expect(plain(TEXT, format!("before {number}"))).await;
        }
        peer.expect_hex("88 02 03e8").await;
    });
}

#[test]
fn a_flush_waits_for_earlier_broadcasts() {
    within(async {
        let room = room();
        let small = options().send_buffer_size(1);
        let (mut peer, sender) = enter(&room, narrow(10), &small).await;
        for number in 0..5 {
            room.broadcast(format!("before {number}"));
        }
        let mut flush = Box::pin(sender.flush());
        for number in 0..4 {
            // The last is written when the one before it is read.
            assert!(futures::poll!(&mut flush).is_pending(), "{number}");
            peer.expect(plain(TEXT, format!("before {number}"))).await;
        }
        flush.await.unwrap();
        peer.expect(plain(TEXT, "before 4")).await;
    });
}

#[test]
fn a_direct_send_has_its_turn_among_any_number_of_broadcasts() {
    const LONGEST: usize = 30;
    fn small() -> WebSocketOptions {
        options().send_buffer_size(100)
    }
    within(async {
        let room = room();
        let text = "x".repeat(48);
        let (tell, told) = oneshot::channel();
        let (go, gone) = oneshot::channel::<()>();
        let inside = room.clone();
        // The handler itself, and another task.
        let mut peer = serve_over(narrow(50), &small(), |mut ws| async move {
            let _member = inside.join(&ws);
            let _ = tell.send(ws.sender());
            gone.await.unwrap();
            ws.send("handler").await?;
            collect(&mut ws).await.1
        });
        let sender = told.await.unwrap();
        for _ in 0..10 {
            room.broadcast(&*text);
        }
        let sending = task::spawn(async move { sender.send("sender").await });
        go.send(()).unwrap();
        let (mut direct, mut others) = (vec![], 0);
        while direct.len() < 2 {
            // Two for each that is read: there is never nothing to broadcast.
            room.broadcast(&*text);
            room.broadcast(&*text);
            let frame = peer.frame().await;
            if frame.payload == text.as_bytes() {
                others += 1;
            } else {
                direct.push(String::from_utf8(frame.payload).unwrap());
            }
            assert!(others < 10 * LONGEST, "{direct:?}");
        }
        direct.sort();
        assert_eq!(direct, ["handler", "sender"]);
        sending.await.unwrap();
    });
}

#[test]
fn a_direct_send_follows_earlier_broadcasts_in_the_turn_of_any_handler() {
    const ONE_FRAME: usize = 3;
    within(async {
        let ticker = RoomOptions::default().slow_consumer(SlowConsumer::Conflate);
        let room = Hub::with_options(ticker).room("room");
        let (mut peer, sender) = enter(&room, narrow(ONE_FRAME), &options()).await;
        for text in ["0", "1"] {
            sender.send(text).await.unwrap();
        }
        until_arrived(&peer, ONE_FRAME).await;
        room.broadcast("a");
        let mut early = pin!(sender.send("early"));
        assert!(poll!(early.as_mut()).is_pending());
        // In place of "a", and behind the first: it is its turn now, and not that of the second.
        room.broadcast("b");
        let mut late = pin!(sender.send("late"));
        assert!(poll!(late.as_mut()).is_pending());
        let reading = async {
            for text in ["0", "1", "early", "b", "late"] {
                peer.expect(plain(TEXT, text)).await;
            }
        };
        let (early, late, ()) = join!(early, late, reading);
        early.and(late).unwrap();
    });
}

#[test]
fn broadcasts_go_on_when_a_sender_that_waited_for_its_turn_has_given_up() {
    within(async {
        let room = room();
        let small = options().send_buffer_size(1);
        let (mut peer, sender) = enter(&room, narrow(5), &small).await;
        for _ in 0..4 {
            room.broadcast("abc");
        }
        assert!(patience(1, sender.send("given up")).await.is_none());
        room.broadcast("abc");
        peer.expect(plain(TEXT, "abc").repeat(5)).await;
    });
}

/// What a peer reads while a member waits for `flush`, and more is broadcast all the time.
async fn is_flushed_in_time<F>(flush: impl FnOnce(WebSocket) -> F + Send + 'static)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (room, text) = (room(), "s".repeat(100));
    let (tell, told) = oneshot::channel();
    let (go, gone) = oneshot::channel::<()>();
    let (tell_flushed, mut flushed) = oneshot::channel();
    let handler_room = room.clone();
    let mut peer = serve_over(narrow(8), &options(), |ws| async move {
        let _member = handler_room.join(&ws);
        tell.send(()).unwrap();
        gone.await.unwrap();
        flush(ws).await?;
        tell_flushed.send(()).unwrap();
        pending().await
    });
    told.await.unwrap();
    room.broadcast("before");
    go.send(()).unwrap();
    peer.expect(plain(TEXT, "before")).await;
    let sent = plain(TEXT, text);
    peer.expect(&sent[..1]).await;
    // There is more to write, whatever the peer has read.
    for _ in 0..20 {
        room.broadcast("behind");
    }
    peer.expect(&sent[1..]).await;
    while flushed.try_recv().unwrap().is_none() {
        peer.expect(plain(TEXT, "behind")).await;
        room.broadcast("behind");
    }
}

#[test]
fn a_flush_that_begins_during_the_turn_of_a_handler_waits_for_its_messages() {
    for sent in ["", "sent before"] {
        within(async {
            let mut peer = serve(&options(), move |mut ws| async move {
                if !sent.is_empty() {
                    ws.send(sent).await?;
                }
                let sender = ws.sender();
                let mut flush = Box::pin(async move { sender.flush().await });
                assert!(meanwhile(patience(1, &mut flush)).is_none());
                task::spawn(flush).await
            });
            if !sent.is_empty() {
                peer.expect(plain(TEXT, sent)).await;
            }
            peer.expect(plain(CLOSE, close(1000, ""))).await;
        });
    }
}

#[test]
fn a_flush_ends_although_more_is_broadcast_all_the_time() {
    within(is_flushed_in_time(|mut ws| async move {
        SinkExt::send(&mut ws, Message::text("s".repeat(100))).await
    }));
    // Begun by another task, before the handler has let go of what it sends.
    within(is_flushed_in_time(|mut ws| async move {
        ws.send("s".repeat(100)).await?;
        let sender = ws.sender();
        let mut flush = Box::pin(async move { sender.flush().await });
        assert!(meanwhile(patience(1, &mut flush)).is_none());
        let flushed = task::spawn(flush).await;
        drop(ws);
        flushed
    }));
}
