//! Futures of a compressed connection dropped after 0, 1, 2 … polls, then asked for again: nothing
//! is lost, nothing comes twice, and with takeover both sides stay in step.

use std::future::Future;

use tidewire::frame::{Frame, OpCode, Role};
use tidewire::{Message, Result, WebSocket};

use crate::support::attempts::patience;
use crate::support::cancel_each_poll::{self, TRICKLE, insist, insist_on_all};
use crate::support::deflate::codec::{Deflater, Reader};
use crate::support::deflate::{ALONE, DEFLATED, TAKEOVER, agreed, parameters, words};
use crate::support::frames::{BINARY, CLOSE, CONTINUATION, FIN, PING, Seen, TEXT, close, masked};
use crate::support::peer::{Drive, Peer, drive, within};
use crate::support::pipe::{Knobs, Stutter, pipe};
use crate::support::rng::Rng;

/// In a few pieces, and not each time it is asked.
const CHUNKS: Knobs =
    Knobs { read: 20_000, write: 20_000, in_flight: 4_000, stutter: Stutter::Steady };

/// Runs `handler` with each number of polls after which it abandons a call.
fn each_number_of_polls<H, HF, P, PF>(knobs: Knobs, answer: &'static str, handler: H, peer: P)
where
    H: Fn(usize, WebSocket) -> HF,
    HF: Future<Output = Result<bool>> + Send + 'static,
    P: Fn(Peer) -> PF,
    PF: Future<Output = ()>,
{
    eprintln!("{answer}");
    cancel_each_poll::each_number_of_polls(knobs, &agreed(answer), handler, peer, |_, ()| {});
}

fn opening_words(answer: &str) -> Vec<Vec<u8>> {
    let mut deflater = Deflater::new(6, 15, answer == TAKEOVER);
    let fragments = deflater.fragments(&[b"Hello, ", b"hello"]);
    vec![
        masked((TEXT & !FIN) | DEFLATED, &fragments[0]),
        masked(PING, "p"),
        masked(CONTINUATION, &fragments[1]),
        masked(TEXT, "plain"),
        masked(BINARY | DEFLATED, deflater.deflate("Hello, hello")),
        masked(TEXT | DEFLATED, deflater.deflate("Hello, hello, hello")),
        masked(CLOSE, close(1000, "")),
    ]
}

async fn converse(mut peer: Peer, answer: &str) {
    peer.send(opening_words(answer).concat()).await;
    peer.expect_hex("8a 01 70 88 02 03e8").await;
    peer.expect_end().await;
}

#[test]
fn recv_loses_nothing() {
    async fn handler(polls: usize, mut ws: WebSocket) -> Result<bool> {
        let (received, was_enough) = insist_on_all!(polls, ws.recv());
        let sent = [
            Message::text("Hello, hello"),
            Message::text("plain"),
            Message::binary("Hello, hello"),
            Message::text("Hello, hello, hello"),
        ];
        assert_eq!(received, sent);
        Ok(was_enough)
    }
    for answer in [ALONE, TAKEOVER] {
        each_number_of_polls(TRICKLE, answer, handler, |peer| converse(peer, answer));
    }
}

#[test]
fn recv_frame_loses_nothing() {
    async fn handler(polls: usize, mut ws: WebSocket) -> Result<bool> {
        let (received, was_enough) = insist_on_all!(polls, ws.recv_frame());
        let sent = [
            Frame::new(false, OpCode::Text, "Hello, "),
            Frame::new(true, OpCode::Ping, "p"),
            Frame::new(true, OpCode::Continuation, "hello"),
            Frame::new(true, OpCode::Text, "plain"),
            Frame::new(true, OpCode::Binary, "Hello, hello"),
            Frame::new(true, OpCode::Text, "Hello, hello, hello"),
            Frame::new(true, OpCode::Close, close(1000, "")),
        ];
        assert_eq!(received, sent);
        Ok(was_enough)
    }
    for answer in [ALONE, TAKEOVER] {
        each_number_of_polls(TRICKLE, answer, handler, |peer| converse(peer, answer));
    }
}

#[test]
fn recv_of_messages_that_take_many_steps_loses_nothing() {
    // The second refers to the end of the first, and the third is its repetition.
    let texts = [700_000, 200_000, 200_000].map(|len| "abc".repeat(len / 3));
    for answer in [ALONE, TAKEOVER] {
        let mut deflater = Deflater::new(1, 15, answer == TAKEOVER);
        let sent = texts.clone().map(|text| masked(TEXT | DEFLATED, deflater.deflate(text)));
        let sent = sent.concat();
        let texts = texts.clone().map(Message::from);
        each_number_of_polls(
            CHUNKS,
            answer,
            |polls, mut ws| {
                let texts = texts.clone();
                async move {
                    let mut was_enough = true;
                    for text in texts {
                        let (next, at_once) = insist!(polls, ws.recv());
                        was_enough &= at_once;
                        assert!(next? == Some(text), "another message after {polls} polls");
                    }
                    Ok(was_enough)
                }
            },
            |mut peer| {
                let sent = sent.clone();
                async move { peer.send(sent).await }
            },
        );
    }
}

/// Reads to the last message, each of which has to be what `texts` say, except that the one in the
/// middle may be missing.
async fn read_with_or_without(mut peer: Peer, answer: &str, texts: &[String; 4]) {
    let mut reader = Reader::of_server(parameters(answer));
    let mut seen = vec![];
    while seen.last().is_none_or(|last: &Seen| last.payload != texts[3].as_bytes()) {
        seen.push(reader.next(&mut peer).await);
    }
    let seen: Vec<_> = seen.iter().map(|message| &*message.payload).collect();
    let all = texts.each_ref().map(String::as_bytes);
    let is_whole_or_nothing = seen == all || seen == [all[0], all[2], all[3]];
    let lens: Vec<_> = seen.iter().map(|payload| payload.len()).collect();
    assert!(is_whole_or_nothing, "lengths {lens:?}");
}

#[test]
fn a_long_send_that_is_abandoned_has_sent_the_whole_or_nothing_and_later_messages_can_be_read() {
    let mut rng = Rng::new(3);
    let long = words(&mut rng, 90_000);
    // What comes after it resembles it, so that a window that is not the peer's would show.
    let texts = [words(&mut rng, 40_000), long.clone(), long[9000..20_000].to_owned(), long + "!"];
    let texts = texts.map(|text| format!("{text}."));
    for answer in [ALONE, TAKEOVER] {
        each_number_of_polls(
            CHUNKS,
            answer,
            |polls, mut ws| {
                let [first, abandoned, short, last] = texts.clone();
                async move {
                    // Fills the queue, so that what comes next has to wait.
                    ws.send(first).await?;
                    let was_enough = patience(polls, ws.send(abandoned)).await.is_some();
                    ws.send(short).await?;
                    ws.send(last).await?;
                    Ok(was_enough)
                }
            },
            |peer| read_with_or_without(peer, answer, &texts),
        );
    }
}

#[test]
fn a_mebibyte_that_is_abandoned_has_sent_the_whole_or_nothing_and_later_messages_can_be_read() {
    let long = words(&mut Rng::new(4), 10_500).repeat(100);
    let texts = ["first", &long, &long[..3000], &long[600_000..]].map(str::to_owned);
    for by in Drive::BOTH {
        for polls in [0, 1, 17, 33, 34] {
            eprintln!("{by:?}, {polls} polls");
            let (stream, end) = pipe(Knobs::default());
            let [first, abandoned, short, last] = texts.clone();
            drive(by, stream, Role::Server, &agreed(TAKEOVER), |mut ws| async move {
                ws.send(first).await?;
                let _ = patience(polls, ws.sender().send(abandoned)).await;
                ws.send(short).await?;
                ws.send(last).await
            });
            within(read_with_or_without(Peer { end }, TAKEOVER, &texts));
        }
    }
}

#[test]
fn compressed_fragments_that_are_abandoned_do_not_tear_the_message() {
    for answer in [ALONE, TAKEOVER] {
        each_number_of_polls(
            TRICKLE,
            answer,
            |polls, mut ws| async move {
                let mut was_enough = true;
                for (fin, opcode) in [(false, OpCode::Text), (true, OpCode::Continuation)].repeat(2)
                {
                    let sent = ws.stats().frames_out;
                    let frame = Frame::new(fin, opcode, "Hello, hello").compressed();
                    if patience(polls, ws.send_frame(frame.clone())).await.is_none() {
                        was_enough = false;
                        if ws.stats().frames_out == sent {
                            ws.send_frame(frame).await?;
                        }
                    }
                }
                ws.close(1000_u16, "").await?;
                Ok(was_enough)
            },
            async |mut peer: Peer| {
                let mut reader = Reader::of_server(parameters(answer));
                for _ in 0..2 {
                    let payload = b"Hello, helloHello, hello".to_vec();
                    assert_eq!(reader.next(&mut peer).await, Seen { head: 0xc1, payload });
                }
                peer.expect_hex("88 02 03e8").await;
                peer.send(masked(CLOSE, "")).await;
                peer.expect_end().await;
            },
        );
    }
}
