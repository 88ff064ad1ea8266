//! Many tasks that send compressed messages over one connection: each is whole and can be read with
//! the one window that the peer has.

use std::future::Future;

use async_std::task;
use futures::channel::oneshot;
use futures::future::{join, join_all};
use tidewire::frame::{Frame, OpCode, Role};
use tidewire::{Error, Message, Result, Sender, WebSocket};

use crate::support::attempts::patience;
use crate::support::deflate::codec::Reader;
use crate::support::deflate::{ALONE, TAKEOVER, agreed, noise, parameters, words};
use crate::support::frames::{BINARY, CLOSE, PING, masked};
use crate::support::peer::{Drive, Peer, drive, within};
use crate::support::pipe::{Knobs, Stutter, pipe};
use crate::support::rng::Rng;

const SENDERS: usize = 6;

const MESSAGES: usize = 12;

/// The same message each time: its name, which is sender and number, and mostly text that resembles
/// that of others.
fn message(sender: usize, number: usize) -> Vec<u8> {
    let mut rng = Rng::new(u64::try_from(sender * MESSAGES + number).unwrap());
    let most = [10, 300, 5_000, 80_000, 200_000][rng.below(5)];
    let len = 10 + rng.below(most);
    let mut message = vec![u8::try_from(sender).unwrap(), u8::try_from(number).unwrap()];
    if rng.one_in(5) {
        message.extend(noise(&mut rng, len.min(50_000)));
    } else {
        // The words are those of all.
        message.extend(words(&mut Rng::new(1), len).into_bytes());
    }
    message
}

/// How a message is sent: as the options say, or as it asks for.
fn request(sender: usize, number: usize) -> Message {
    let message = Message::binary(message(sender, number));
    match (sender + number) % 7 {
        0 => message.compressed(),
        1 => message.uncompressed(),
        _ => message,
    }
}

/// Sends all messages of a sender and gives some of them up; which of them went out for certain.
async fn send_all(sender: Sender, of: usize) -> Result<Vec<bool>> {
    let mut rng = Rng::new(u64::try_from(of).unwrap());
    let mut certain = vec![];
    for number in 0..MESSAGES {
        let polls = if rng.one_in(2) { rng.below(4) } else { usize::MAX };
        let sent = patience(polls, sender.send(request(of, number))).await;
        certain.push(sent.transpose()?.is_some());
    }
    Ok(certain)
}

/// What each sender, and the handler as the last of them, is certain to have sent.
async fn send_from_many_tasks(mut ws: WebSocket) -> Result<Vec<Vec<bool>>> {
    let senders: Vec<_> = (1..SENDERS).map(|of| task::spawn(send_all(ws.sender(), of))).collect();
    let mut own = vec![];
    for number in 0..MESSAGES {
        if number % 4 == 3 {
            // The others wait in between.
            let payload = message(0, number);
            let middle = payload.len() / 2;
            let first = Frame::new(false, OpCode::Binary, payload[..middle].to_vec());
            ws.send_frame(first.compressed()).await?;
            task::yield_now().await;
            let last = Frame::new(true, OpCode::Continuation, payload[middle..].to_vec());
            ws.send_frame(last).await?;
        } else {
            ws.send(request(0, number)).await?;
        }
        own.push(true);
        ws.ping("between").await?;
    }
    let mut certain = vec![own];
    for result in join_all(senders).await {
        certain.push(result?);
    }
    ws.close(1000_u16, "").await?;
    Ok(certain)
}

/// Reads to the close frame: the messages of each sender come in its order.
async fn read_all(mut peer: Peer, answer: &str) -> Vec<Vec<usize>> {
    let mut reader = Reader::of_server(parameters(answer));
    let mut seen = vec![vec![]; SENDERS];
    loop {
        let item = reader.next(&mut peer).await;
        match item.head & 0x8f {
            PING => {}
            BINARY => {
                let [sender, number] = [0, 1].map(|at| usize::from(item.payload[at]));
                let is_it = item.payload == message(sender, number);
                assert!(is_it, "message {number} of {sender} is another: {item:?}");
                seen[sender].push(number);
            }
            _ => {
                assert_eq!(item.close_code(), Some(1000));
                break;
            }
        }
    }
    peer.send(masked(CLOSE, "")).await;
    peer.expect_end().await;
    seen
}

#[test]
fn messages_of_many_tasks_can_be_read_and_those_of_each_are_in_order() {
    let narrow =
        Knobs { write: 3_000, in_flight: 9_000, stutter: Stutter::Steady, ..Knobs::default() };
    for (answer, by, knobs) in [
        (TAKEOVER, Drive::Task, Knobs::default()),
        (TAKEOVER, Drive::Task, narrow),
        (TAKEOVER, Drive::Caller, narrow),
        (ALONE, Drive::Task, narrow),
    ] {
        eprintln!("{answer}, {by:?}, {knobs:?}");
        let (stream, end) = pipe(knobs);
        let (tell, told) = oneshot::channel();
        drive(by, stream, Role::Server, &agreed(answer), |ws| async move {
            let _ = tell.send(send_from_many_tasks(ws).await);
            Ok(())
        });
        let (seen, certain) = within(join(read_all(Peer { end }, answer), told));
        for (of, (seen, certain)) in seen.iter().zip(certain.unwrap().unwrap()).enumerate() {
            assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?} of {of}");
            let numbers = certain.iter().enumerate().filter(|(_, is_certain)| **is_certain);
            let missing: Vec<_> = numbers.filter(|(number, _)| !seen.contains(number)).collect();
            assert!(missing.is_empty(), "{missing:?} of {of} among {seen:?}");
            eprintln!("{of}: {} given up", MESSAGES - certain.iter().filter(|is| **is).count());
        }
    }
}

/// Runs another task, to its end, in another thread.
fn meanwhile<T: Send>(call: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| task::block_on(call)).join().unwrap())
}

#[test]
fn messages_of_a_handler_and_of_others_during_its_turn_refer_to_each_other_in_order() {
    for answer in [TAKEOVER, ALONE] {
        let (text, long) = (words(&mut Rng::new(2), 3_000), words(&mut Rng::new(3), 60_000));
        let texts = [text.clone(), format!("{text}!"), long.clone(), text, format!("{long}!")];
        let (stream, end) = pipe(Knobs::default());
        let sent = texts.clone();
        drive(Drive::Task, stream, Role::Server, &agreed(answer), |mut ws| async move {
            let [first, second, third, fourth, fifth] = sent;
            let sender = ws.sender();
            // None of these waits for the turn to end.
            ws.send(first).await?;
            meanwhile(sender.send(second))?;
            meanwhile(sender.send(third))?;
            ws.send(fourth).await?;
            meanwhile(sender.send(fifth))?;
            Ok(())
        });
        let (mut peer, mut reader) = (Peer { end }, Reader::of_server(parameters(answer)));
        within(async {
            for text in texts {
                let message = reader.next(&mut peer).await;
                assert_eq!(message.head, 0xc1);
                assert!(message.payload == text.as_bytes(), "{message:?}");
            }
        });
    }
}

#[test]
fn while_a_long_message_is_compressed_those_of_others_pass_it_and_can_be_read() {
    within(async {
        let long = words(&mut Rng::new(4), 150_000);
        let (stream, end) = pipe(Knobs::default());
        let ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &agreed(TAKEOVER));
        let (first, second) = (ws.sender(), ws.sender());
        first.send(&long[..1000]).await.unwrap();
        let mut sending = Box::pin(first.send(long.clone()));
        assert!(futures::poll!(&mut sending).is_pending());
        second.send(&long[..900]).await.unwrap();
        let mut other = Box::pin(second.send(long.clone() + "!"));
        assert!(futures::poll!(&mut sending).is_pending());
        assert!(!matches!(futures::poll!(&mut other), std::task::Poll::Ready(Err(_))));
        sending.await.unwrap();
        second.send(&long[..800]).await.unwrap();
        drop(other);
        let last = second.send(&long[..700]).await;
        assert!(!matches!(last, Err(Error::Closed)));

        let (mut peer, mut reader) = (Peer { end }, Reader::of_server(parameters(TAKEOVER)));
        let mut lens = vec![];
        while lens.last() != Some(&700) {
            let message = reader.next(&mut peer).await;
            assert!(message.payload.starts_with(&long.as_bytes()[..700]));
            lens.push(message.payload.len());
        }
        // The other long one may have been queued, whole, before it was dropped.
        lens.retain(|len| *len != 150_001);
        assert_eq!(lens, [1000, 900, 150_000, 800, 700]);
    });
}
