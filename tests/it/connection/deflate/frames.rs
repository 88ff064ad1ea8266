//! Compressed messages by their frames: received one by one, and sent one by one.

use futures::FutureExt;
use futures::channel::oneshot;
use tidewire::frame::{Frame, FrameError, OpCode, Role};
use tidewire::{Error, Message, WebSocket};

use crate::support::deflate::codec::{Deflater, Reader, read_frame};
use crate::support::deflate::{ALONE, DEFLATED, TAKEOVER, agreed, noise, parameters, words};
use crate::support::frames::{BINARY, CONTINUATION, FIN, PING, Seen, TEXT, hex, masked};
use crate::support::peer::{Drive, Peer, drive, serve, within};
use crate::support::pipe::{Knobs, pipe};
use crate::support::rng::Rng;

/// A message in fragments, as a client sends them.
fn fragments(deflater: &mut Deflater, head: u8, parts: &[&str]) -> Vec<Vec<u8>> {
    let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
    let payloads = deflater.fragments(&parts);
    let last = payloads.len() - 1;
    let frames = payloads.iter().enumerate().map(|(at, payload)| {
        let head = if at == 0 { head | DEFLATED } else { CONTINUATION };
        masked(if at == last { head } else { head & !FIN }, payload)
    });
    frames.collect()
}

fn frame(fin: bool, opcode: OpCode, payload: &str) -> Frame {
    Frame::new(fin, opcode, payload.to_owned())
}

#[test]
fn recv_frame_shows_the_fragments_of_a_compressed_message_one_by_one_as_they_were() {
    for answer in [ALONE, TAKEOVER] {
        for by in Drive::BOTH {
            for read in [1, usize::MAX] {
                eprintln!("{answer}, {by:?}, {read}");
                let mut deflater = Deflater::new(6, 15, answer == TAKEOVER);
                let mut sent = fragments(&mut deflater, TEXT, &["Hel", "", "lo", ""]);
                sent.insert(2, masked(PING, "p"));
                sent.extend(fragments(&mut deflater, BINARY, &["Hello"]));
                sent.push(masked(TEXT, "plain"));
                sent.extend(fragments(&mut deflater, TEXT, &["", "Hello"]));
                let expected = [
                    frame(false, OpCode::Text, "Hel"),
                    frame(false, OpCode::Continuation, ""),
                    frame(true, OpCode::Ping, "p"),
                    frame(false, OpCode::Continuation, "lo"),
                    frame(true, OpCode::Continuation, ""),
                    frame(true, OpCode::Binary, "Hello"),
                    frame(true, OpCode::Text, "plain"),
                    frame(false, OpCode::Text, ""),
                    frame(true, OpCode::Continuation, "Hello"),
                ];
                within(async {
                    let (stream, end) = pipe(Knobs { read, ..Knobs::default() });
                    let (tell, told) = oneshot::channel();
                    drive(by, stream, Role::Server, &agreed(answer), |mut ws| async move {
                        let mut frames = vec![];
                        for _ in 0..9 {
                            frames.extend(ws.recv_frame().await?);
                        }
                        tell.send(frames).unwrap();
                        Ok(())
                    });
                    let mut peer = Peer { end };
                    peer.send(sent.concat()).await;
                    assert_eq!(told.await.unwrap(), expected);
                });
            }
        }
    }
}

#[test]
fn recv_frame_shows_the_decompressed_part_of_a_fragment_that_ends_inside_a_block() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let mut ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &agreed(ALONE));
        let mut peer = Peer { end };
        let mut seen = String::new();
        for (sent, fin) in [
            ("41 83 00000000 f248cd", false),
            ("00 80 00000000", false),
            ("00 82 00000000 c9c9", false),
            ("80 82 00000000 0700", true),
        ] {
            // Each can be shown before the next has come.
            peer.send(hex(sent)).await;
            let frame = ws.recv_frame().await.unwrap().unwrap();
            assert_eq!(frame.fin(), fin, "{frame:?}");
            seen += std::str::from_utf8(frame.payload()).unwrap();
            assert!("Hello".starts_with(&seen), "{seen}");
        }
        assert_eq!(seen, "Hello");
    });
}

#[test]
fn recv_inside_a_message_that_recv_frame_began_is_refused_and_loses_nothing() {
    for answer in [ALONE, TAKEOVER] {
        within(async {
            let (stream, end) = pipe(Knobs::default());
            let options = agreed(answer);
            let mut ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options);
            let mut peer = Peer { end };
            let mut deflater = Deflater::new(6, 15, answer == TAKEOVER);
            let first = fragments(&mut deflater, TEXT, &["one, ", "two, ", "three"]);
            let second = fragments(&mut deflater, TEXT, &["one, two, three"]);
            peer.send([first, second].concat().concat()).await;

            let mut frames = vec![ws.recv_frame().await.unwrap().unwrap()];
            for _ in 0..2 {
                let refused = ws.recv().await;
                assert!(matches!(refused, Err(Error::MessageBegun)), "{refused:?}");
                frames.push(ws.recv_frame().await.unwrap().unwrap());
            }
            let expected = [
                frame(false, OpCode::Text, "one, "),
                frame(false, OpCode::Continuation, "two, "),
                frame(true, OpCode::Continuation, "three"),
            ];
            assert_eq!(frames, expected);
            assert_eq!(ws.recv().await.unwrap(), Some(Message::from("one, two, three")));
        });
    }
}

#[test]
fn recv_inside_a_fragment_that_recv_frame_began_to_decompress_loses_nothing() {
    let long = "a".repeat(1 << 20);
    let mut deflater = Deflater::new(6, 15, true);
    let sent = fragments(&mut deflater, TEXT, &[&long[1..], "b"]).concat();
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let options = agreed(TAKEOVER);
        let mut ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options);
        let mut peer = Peer { end };
        peer.send(sent).await;
        assert!(ws.recv_frame().now_or_never().is_none(), "it takes several steps");
        let refused = ws.recv().await;
        assert!(matches!(refused, Err(Error::MessageBegun)), "{refused:?}");
        assert_eq!(ws.recv_frame().await.unwrap(), Some(frame(false, OpCode::Text, &long[1..])));
        let last = ws.recv_frame().await.unwrap();
        assert_eq!(last, Some(frame(true, OpCode::Continuation, "b")));
    });
}

#[test]
fn frames_that_are_sent_compressed_are_fragments_of_one_message() {
    let mut rng = Rng::new(1);
    let (long, random) = (words(&mut rng, 100_000), noise(&mut rng, 5000));
    let parts: [&[u8]; 5] = [b"Hello, ", long.as_bytes(), b"", &random, long.as_bytes()];
    let whole = parts.concat();
    for answer in [ALONE, TAKEOVER] {
        for by in Drive::BOTH {
            within(async {
                let (stream, end) = pipe(Knobs::default());
                let frames = parts.map(<[u8]>::to_vec);
                drive(by, stream, Role::Server, &agreed(answer), |mut ws| async move {
                    for _ in 0..2 {
                        for (at, part) in frames.iter().enumerate() {
                            let opcode =
                                if at == 0 { OpCode::Binary } else { OpCode::Continuation };
                            let frame = Frame::new(at == 4, opcode, part.clone());
                            // Only the first has to say so.
                            let frame = if at == 0 { frame.compressed() } else { frame };
                            ws.send_frame(frame).await?;
                            ws.ping(at.to_string()).await?;
                        }
                    }
                    ws.send_frame(Frame::new(true, OpCode::Text, "Hello").compressed()).await?;
                    ws.send_frame(Frame::new(false, OpCode::Text, "plain ")).await?;
                    ws.send_frame(Frame::new(true, OpCode::Continuation, "frames")).await?;
                    ws.send(Message::from("Hello").compressed()).await
                });
                let mut peer = Peer { end };
                let mut reader = Reader::of_server(parameters(answer));
                for _ in 0..2 {
                    for at in 0..5 {
                        let frame = read_frame(&mut peer, false).await;
                        let head = [0x42, 0x00, 0x00, 0x00, 0x80][at];
                        assert_eq!(frame.head, head, "frame {at}");
                        let message = reader.take(frame);
                        assert_eq!(
                            message.map(|it| it.payload == whole),
                            (at == 4).then_some(true)
                        );
                        let ping = at.to_string().into();
                        assert_eq!(
                            reader.next(&mut peer).await,
                            Seen { head: PING, payload: ping }
                        );
                    }
                }
                for (head, text) in [(0xc1, "Hello"), (TEXT, "plain frames"), (0xc1, "Hello")] {
                    let message = reader.next(&mut peer).await;
                    assert_eq!(message, Seen { head, payload: text.into() });
                }
            });
        }
    }
}

#[test]
fn messages_between_the_fragments_of_a_compressed_one_are_refused_and_change_nothing() {
    let long = words(&mut Rng::new(2), 100_000);
    for answer in [ALONE, TAKEOVER] {
        within(async {
            let text = long.clone();
            let mut peer = serve(&agreed(answer), |mut ws| async move {
                ws.send(&text).await?;
                ws.send_frame(
                    Frame::new(false, OpCode::Text, text[..50_000].to_owned()).compressed(),
                )
                .await?;
                for between in ["short", &text] {
                    for message in [between.into(), Message::from(between).compressed()] {
                        let refused = ws.send(message).await;
                        let reason = FrameError::MessageInterrupted(OpCode::Text);
                        assert!(
                            matches!(&refused, Err(Error::Frame(it)) if *it == reason),
                            "{refused:?}"
                        );
                    }
                }
                let begins = Frame::new(false, OpCode::Binary, "begins").compressed();
                assert!(ws.send_frame(begins).await.is_err());
                ws.send_frame(Frame::new(true, OpCode::Continuation, text[50_000..].to_owned()))
                    .await?;
                let stray = Frame::new(true, OpCode::Continuation, "stray").compressed();
                assert!(ws.send_frame(stray).await.is_err());
                ws.send(&text).await
            });
            let mut reader = Reader::of_server(parameters(answer));
            for _ in 0..3 {
                let message = reader.next(&mut peer).await;
                assert!(message.head == 0xc1 && message.payload == long.as_bytes());
            }
        });
    }
}

#[test]
fn a_message_refused_between_plain_fragments_leaves_no_trace_in_the_window() {
    let mut rng = Rng::new(3);
    let (before, long) = (words(&mut rng, 1000).into_bytes(), words(&mut rng, 70_000).into_bytes());
    for refused in [&long[..20_000], &long] {
        // It would refer to what was refused.
        let again = refused[refused.len() - 10_000..].to_vec();
        within(async {
            let sent = [before.clone(), refused.to_vec(), again.clone()];
            let mut peer = serve(&agreed(TAKEOVER), |mut ws| async move {
                let [before, refused, again] = sent;
                ws.send(before.clone()).await?;
                ws.send_frame(Frame::new(false, OpCode::Binary, "a")).await?;
                assert!(ws.send(refused).await.is_err());
                ws.send_frame(Frame::new(true, OpCode::Continuation, "b")).await?;
                ws.send(again).await?;
                ws.send(before).await
            });
            let mut reader = Reader::of_server(parameters(TAKEOVER));
            for (head, payload) in
                [(0xc2, &*before), (BINARY, b"ab"), (0xc2, &again), (0xc2, &before)]
            {
                let message = reader.next(&mut peer).await;
                assert!(message.head == head && message.payload == payload, "{message:?}");
            }
        });
    }
}

#[test]
fn a_control_frame_is_never_compressed_even_if_it_is_marked() {
    for answer in [ALONE, TAKEOVER] {
        within(async {
            let mut peer = serve(&agreed(answer), |mut ws| async move {
                ws.send_frame(Frame::new(true, OpCode::Ping, "p").compressed()).await?;
                ws.send_frame(Frame::new(false, OpCode::Text, "a").compressed()).await?;
                ws.send_frame(Frame::new(true, OpCode::Pong, "q").compressed()).await?;
                ws.send_frame(Frame::new(true, OpCode::Continuation, "b")).await
            });
            peer.expect_hex("89 01 70").await;
            let mut reader = Reader::of_server(parameters(answer));
            assert_eq!(reader.next(&mut peer).await, Seen { head: 0x8a, payload: b"q".to_vec() });
            assert_eq!(reader.next(&mut peer).await, Seen { head: 0xc1, payload: b"ab".to_vec() });
        });
    }
}
