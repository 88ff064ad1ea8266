//! Which messages are compressed, and what is counted.

use futures::SinkExt;
use futures::channel::oneshot;
use tidewire::deflate::DeflateOptions;
use tidewire::frame::Role;
use tidewire::websocket::ConnectionStats;
use tidewire::{Message, WebSocket};

use crate::support::deflate::codec::{Deflater, Reader, read_frame};
use crate::support::deflate::{ALONE, DEFLATED, TAKEOVER, agreed, noise, parameters, words};
use crate::support::frames::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Seen, TEXT, close, masked,
};
use crate::support::peer::{Drive, Peer, drive, echo, serve, within};
use crate::support::pipe::{Knobs, pipe};
use crate::support::rng::Rng;

/// Longer than what is compressed in one step.
const LONG: usize = 100_000;

/// Sends the messages with either parameters, by either kind of connection; each has to arrive as
/// it is, with the head that it should have.
fn each_has_its_head(options: &DeflateOptions, messages: &[(u8, Message)]) {
    for answer in [ALONE, TAKEOVER] {
        for by in Drive::BOTH {
            eprintln!("{answer}, {by:?}");
            let (stream, end) = pipe(Knobs::default());
            let sent: Vec<Message> = messages.iter().map(|(_, message)| message.clone()).collect();
            let options = agreed(answer).deflate(options.clone());
            drive(by, stream, Role::Server, &options, |mut ws| async move {
                for message in sent {
                    ws.send(message).await?;
                }
                Ok(())
            });
            let (mut peer, mut reader) = (Peer { end }, Reader::of_server(parameters(answer)));
            within(async {
                for (at, (head, message)) in messages.iter().enumerate() {
                    let seen = reader.next(&mut peer).await;
                    assert_eq!(seen.head, *head, "message {at}: {message:?}");
                    assert!(seen.payload == message.as_bytes(), "message {at}: {message:?}");
                }
            });
        }
    }
}

#[test]
fn messages_from_the_threshold_on_are_compressed() {
    let text = |len| Message::from("a".repeat(len));
    for threshold in [256, 1000, 40_000] {
        let options = DeflateOptions::default().threshold(threshold);
        each_has_its_head(
            &options,
            &[
                (TEXT, text(threshold - 1)),
                (TEXT | DEFLATED, text(threshold)),
                (TEXT | DEFLATED, text(threshold + 1)),
                (TEXT, text(0)),
                (BINARY, Message::binary(vec![0; threshold - 1])),
                (BINARY | DEFLATED, Message::binary(vec![0; threshold])),
            ],
        );
    }
    each_has_its_head(
        &DeflateOptions::default(),
        &[(TEXT, text(255)), (TEXT | DEFLATED, text(256))],
    );
    let all = DeflateOptions::default().threshold(0);
    // What is sent of nothing is a byte, so it is not smaller.
    each_has_its_head(&all, &[(TEXT, text(0)), (TEXT, text(1)), (TEXT | DEFLATED, text(30))]);
}

#[test]
fn a_message_may_say_that_it_is_compressed_or_that_it_is_not() {
    let short = || Message::from("Hello");
    let long = |len| Message::from(words(&mut Rng::new(5), len));
    each_has_its_head(
        &DeflateOptions::default(),
        &[
            (TEXT | DEFLATED, short().compressed()),
            (TEXT, short().uncompressed()),
            (TEXT, long(1000).uncompressed()),
            (TEXT | DEFLATED, long(1000)),
            (TEXT, long(LONG).uncompressed()),
            (TEXT | DEFLATED, long(LONG).compressed()),
            // The last word counts.
            (TEXT, short().compressed().uncompressed()),
            (TEXT | DEFLATED, long(1000).uncompressed().compressed()),
            (TEXT | DEFLATED, short().compressed()),
        ],
    );
    // It also says so where nothing else is compressed.
    let options = DeflateOptions::default().threshold(usize::MAX);
    each_has_its_head(&options, &[(TEXT, long(LONG)), (TEXT | DEFLATED, long(LONG).compressed())]);
}

#[test]
fn a_message_that_does_not_become_smaller_is_sent_plain_and_leaves_no_trace_in_the_window() {
    let mut rng = Rng::new(6);
    for level in [1, 6] {
        let options = DeflateOptions::default().level(level);
        let (few, many) = (noise(&mut rng, 1000), noise(&mut rng, LONG));
        let text = words(&mut rng, 5000);
        let text = || (TEXT | DEFLATED, Message::from(&text));
        let messages = [
            text(),
            (BINARY, Message::binary(few.clone())),
            // These would refer to the noise, which has gone plain.
            (BINARY | DEFLATED, Message::binary([&few[..], &few].concat())),
            text(),
            (BINARY, Message::binary(many.clone())),
            (BINARY | DEFLATED, Message::binary([&many[LONG - 3000..], &[0; 3000]].concat())),
            (BINARY | DEFLATED, Message::binary(few).compressed()),
            (BINARY | DEFLATED, Message::binary(many).compressed()),
            text(),
        ];
        each_has_its_head(&options, &messages);
    }
}

#[test]
fn every_level_window_and_memory_is_one_that_a_peer_can_read() {
    let mut rng = Rng::new(8);
    let (text, long) = (words(&mut rng, 3000), words(&mut rng, 50_000));
    for (level, bits, memory) in
        (0..=9).flat_map(|level| [(level, 9 + level % 3, 9), (level, 15, 1)])
    {
        for takeover in ["", "; server_no_context_takeover"] {
            let answer = format!("permessage-deflate{takeover}; server_max_window_bits={bits}");
            let options = DeflateOptions::default().level(level).memory_level(memory);
            let texts = [text.clone(), long.clone(), text.clone()];
            within(async {
                let sent = texts.clone();
                let mut peer = serve(&agreed(&answer).deflate(options), |mut ws| async move {
                    for text in sent {
                        ws.send(Message::from(text).compressed()).await?;
                    }
                    Ok(())
                });
                let mut reader = Reader::of_server(parameters(&answer));
                for text in texts {
                    let seen = reader.next(&mut peer).await;
                    let is_it = seen.head == 0xc1 && seen.payload == text.as_bytes();
                    assert!(is_it, "level {level}, {bits} bits, {answer}: {seen:?}");
                }
            });
        }
    }
}

#[test]
fn a_window_of_eight_bits_is_answered_by_plain_messages_since_zlib_cannot_use_it() {
    within(async {
        let mut peer = serve(&agreed("permessage-deflate; server_max_window_bits=8"), echo);
        let text = "a".repeat(100);
        let payload = Deflater::new(6, 15, false).deflate(text.repeat(5));
        peer.send(masked(TEXT | DEFLATED, payload)).await;
        let echoed = read_frame(&mut peer, false).await;
        assert_eq!(echoed, Seen { head: TEXT, payload: text.repeat(5).into() });
    });
}

#[test]
fn a_sink_sends_long_and_short_messages_in_order() {
    let long = words(&mut Rng::new(9), 10_000).repeat(105);
    for answer in [ALONE, TAKEOVER] {
        for by in Drive::BOTH {
            let (stream, end) = pipe(Knobs::default());
            let texts = [long.clone(), "first".into(), long[..600].into(), "last".into()];
            let sent = texts.clone();
            drive(by, stream, Role::Server, &agreed(answer), |mut ws| async move {
                for text in sent {
                    ws.feed(text).await?;
                }
                SinkExt::<Message>::flush(&mut ws).await?;
                assert_eq!(ws.stats().messages_out, 4);
                SinkExt::<Message>::close(&mut ws).await
            });
            let (mut peer, mut reader) = (Peer { end }, Reader::of_server(parameters(answer)));
            within(async {
                for text in texts {
                    assert!(reader.next(&mut peer).await.payload == text.as_bytes());
                }
                peer.expect_hex("88 02 03e8").await;
                peer.send(masked(CLOSE, "")).await;
            });
        }
    }
}

#[test]
fn stats_count_payloads_as_the_application_has_them_and_the_wire_as_it_is() {
    let text = "a".repeat(1000);
    for (answer, by) in [(ALONE, Drive::Task), (TAKEOVER, Drive::Caller)] {
        let mut deflater = Deflater::new(6, 15, answer == TAKEOVER);
        let fragments = deflater.fragments(&[text.as_bytes(), b"Hello"]);
        let sent = [
            masked((TEXT & !FIN) | DEFLATED, &fragments[0]),
            masked(PING, "ping"),
            masked(CONTINUATION, &fragments[1]),
            masked(TEXT, "plain"),
            masked(BINARY | DEFLATED, deflater.deflate(&text)),
            masked(CLOSE, close(1000, "")),
        ];
        let sent = sent.concat();
        within(async {
            let (stream, end) = pipe(Knobs::default());
            let (tell, told) = oneshot::channel::<ConnectionStats>();
            drive(by, stream, Role::Server, &agreed(answer), |mut ws: WebSocket| async move {
                while let Some(message) = ws.recv().await? {
                    ws.send(message).await?;
                }
                ws.flush().await?;
                tell.send(ws.stats()).unwrap();
                Ok(())
            });
            let mut peer = Peer { end };
            peer.send(&sent).await;
            let received = peer.rest().await;
            drop(peer);
            let stats = told.await.unwrap();
            assert_eq!((stats.messages_in, stats.messages_out), (3, 3));
            assert_eq!((stats.frames_in, stats.frames_out), (6, 5));
            let payload_bytes = 1005 + 5 + 1000;
            assert_eq!(
                (stats.payload_bytes_in, stats.payload_bytes_out),
                (payload_bytes, payload_bytes)
            );
            let wire_bytes = [&sent, &received].map(|bytes| u64::try_from(bytes.len()).unwrap());
            assert_eq!([stats.wire_bytes_in, stats.wire_bytes_out], wire_bytes);
            assert!(received.len() < 200 && received.contains(&PONG), "{} bytes", received.len());
        });
    }
}

#[test]
fn a_direct_send_does_not_overtake_a_long_message_of_the_sink() {
    let long = noise(&mut Rng::new(6), LONG);
    for (name, last) in [("send", BINARY), ("ping", PING), ("close", CLOSE), ("flush", 0)] {
        for answer in [ALONE, TAKEOVER] {
            eprintln!("{name}, {answer}");
            let (stream, end) = pipe(Knobs::default());
            let message = Message::binary(long.clone());
            let handler = move |mut ws: WebSocket| async move {
                ws.feed(message).await?;
                match last {
                    BINARY => ws.send(vec![7]).await?,
                    PING => ws.ping(vec![7]).await?,
                    CLOSE => drop(ws.close(1000, "").await?),
                    // What was taken counts as sent.
                    _ => ws.flush().await?,
                }
                std::future::pending().await
            };
            drive(Drive::Task, stream, Role::Server, &agreed(answer), handler);
            let (mut peer, mut reader) = (Peer { end }, Reader::of_server(parameters(answer)));
            within(async {
                assert!(reader.next(&mut peer).await.payload == long, "the long one comes first");
                if last != 0 {
                    assert_eq!(peer.frame().await.head, last);
                }
            });
        }
    }
}
