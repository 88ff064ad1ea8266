//! Connections of async-tungstenite that go on here, and those that come back.

use std::time::Duration;

use async_std::net::TcpListener;
use async_std::task;
use async_tungstenite::tungstenite::protocol::frame::Frame;
use async_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use async_tungstenite::tungstenite::{Message, protocol};
use async_tungstenite::{WebSocketStream, accept_async, client_async};
use futures::channel::oneshot;
use futures::future::join;
use futures::io::AsyncWriteExt;
use futures::{SinkExt, StreamExt};
use tidewire::frame::Role;
use tidewire::tungstenite::{BridgeStream, HandOverError};
use tidewire::{WebSocket, WebSocketOptions};

use super::{conversation, encode_for, take};
use crate::support::frames::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, close, masked, plain,
};
use crate::support::peer::{Drive, Peer, collect, drive, echo, within};
use crate::support::pipe::{End, Knobs, Stutter, pipe};

fn options() -> WebSocketOptions {
    WebSocketOptions::default()
}

/// A connection of tungstenite, and its peer.
async fn open(knobs: Knobs, role: Role) -> (WebSocketStream<BridgeStream>, Peer) {
    let (stream, end) = pipe(knobs);
    (wrap(stream, role).await, Peer { end })
}

async fn wrap(stream: End, role: Role) -> WebSocketStream<BridgeStream> {
    let role = protocol::Role::from(role);
    WebSocketStream::from_raw_socket(BridgeStream::new(stream), role, None).await
}

/// The connection, of which nobody waits for the rest of a message.
async fn take_over(stream: WebSocketStream<BridgeStream>, role: Role) -> WebSocket {
    WebSocket::from_tungstenite(stream, role, &options()).await.unwrap()
}

fn received(messages: Vec<Message>) -> Vec<tidewire::Message> {
    messages.into_iter().map(|message| message.try_into().unwrap()).collect()
}

/// Takes over after the first message, with `cut` bytes of the conversation glued to that.
async fn try_cut(role: Role, cut: usize) {
    let encode = encode_for(role);
    let (wire, messages) = conversation(encode);
    let (mut stream, mut peer) = open(Knobs::default(), role).await;
    let (before, after) = wire.split_at(cut);
    peer.send([encode(TEXT, b"first"), before.to_vec()].concat()).await;
    assert_eq!(take(&mut stream, 1).await, [Message::text("first")]);

    let goodbye = encode(CLOSE, &close(1000, ""));
    let talk = async {
        // Tungstenite has what came before the cut, and the rest comes while it is asked for that.
        task::yield_now().await;
        peer.send([after, &goodbye].concat()).await;
        peer.end.close().await.unwrap();
    };
    let (mut ws, ()) = join(take_over(stream, role), talk).await;
    let (collected, end) = collect(&mut ws).await;
    assert_eq!(collected, received(messages), "{role:?} cut at {cut}");
    end.unwrap();

    let mut next = async || match role {
        Role::Server => peer.frame().await,
        Role::Client => peer.masked_frame().await,
    };
    let (pong, closed) = (next().await, next().await);
    assert_eq!((pong.head, &*pong.payload), (PONG, b"between".as_slice()), "{cut}");
    assert_eq!(closed.close_code(), Some(1000), "{cut}");
}

#[test]
fn messages_that_tungstenite_has_read_are_received_for_every_cut() {
    for role in [Role::Server, Role::Client] {
        for cut in 0..=conversation(encode_for(role)).0.len() {
            within(try_cut(role, cut));
        }
    }
}

#[test]
fn bytes_that_tungstenite_has_not_written_are_written_first() {
    within(async {
        let narrow = Knobs { in_flight: 100, stutter: Stutter::Steady, ..Knobs::default() };
        let (mut stream, mut peer) = open(narrow, Role::Server).await;
        for n in 0..3 {
            SinkExt::feed(&mut stream, Message::binary(vec![n; 200])).await.unwrap();
        }
        let handler = async move {
            take_over(stream, Role::Server).await.send("last").await.unwrap();
        };
        let expect = async {
            for n in 0..3 {
                peer.expect(plain(BINARY, [n; 200])).await;
            }
            peer.expect(plain(TEXT, "last")).await;
        };
        join(handler, expect).await;
    });
}

#[test]
fn pings_that_were_not_answered_yet_are_answered_once() {
    within(async {
        let (stream, mut peer) = open(Knobs::default(), Role::Server).await;
        peer.send([masked(PING, "p"), masked(TEXT, "x")].concat()).await;
        let ws = take_over(stream, Role::Server).await;
        peer.send(masked(CLOSE, close(1000, ""))).await;
        echo(ws).await.unwrap();
        peer.expect(plain(PONG, "p")).await;
        peer.expect(plain(TEXT, "x")).await;
        peer.expect_close(1000).await;
    });
}

#[test]
fn a_first_frame_glued_to_the_101_is_received() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let mut peer = Peer { end };
        let answer = async {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.extend(peer.read(1).await);
            }
            let request = String::from_utf8(request).unwrap();
            let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
            let accept = async_tungstenite::tungstenite::handshake::derive_accept_key(
                key.unwrap().as_bytes(),
            );
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            peer.send([head.as_bytes(), &plain(TEXT, "one"), &plain(TEXT, "two")[..2]].concat())
                .await;
            head
        };
        let opening = client_async("ws://host/", BridgeStream::new(stream));
        let (opened, _) = join(opening, answer).await;
        let taking = take_over(opened.unwrap().0, Role::Client);
        let rest = async {
            task::yield_now().await;
            peer.send(&plain(TEXT, "two")[2..]).await;
        };
        let (mut ws, ()) = join(taking, rest).await;
        assert_eq!(ws.recv().await.unwrap(), Some("one".into()));
        assert_eq!(ws.recv().await.unwrap(), Some("two".into()));
        ws.send("three").await.unwrap();
        peer.expect_frame_of_client(TEXT, "three").await;
    });
}

impl Peer {
    async fn expect_frame_of_client(&mut self, head: u8, payload: &str) {
        let frame = self.masked_frame().await;
        assert_eq!((frame.head, frame.payload), (head, payload.into()));
    }
}

#[test]
fn a_connection_goes_back_and_forth_and_loses_nothing() {
    let messages: Vec<String> = (0..6).map(|n| format!("message {n}")).collect();
    let wire: Vec<u8> = messages.iter().flat_map(|text| masked(TEXT, text)).collect();
    let expected: Vec<_> = messages[..5].iter().map(tidewire::Message::from).collect();
    for by in Drive::BOTH {
        for cut in messages[0].len() + 6..=wire.len() {
            within(async {
                let (stream, end) = pipe(Knobs::default());
                let (start, begun) = oneshot::channel();
                let (tell, told) = oneshot::channel();
                drive(by, stream, Role::Server, &options(), async move |mut ws: WebSocket| {
                    let mut collected = vec![ws.recv().await?.unwrap()];
                    let mut stream = ws.into_tungstenite().await.unwrap();
                    start.send(()).unwrap();
                    for _ in 0..2 {
                        ws = take_over(stream, Role::Server).await;
                        collected.push(ws.recv().await?.unwrap());
                        stream = ws.into_tungstenite().await.unwrap();
                        collected.extend(received(take(&mut stream, 1).await));
                    }
                    tell.send(collected).unwrap();
                    echo(take_over(stream, Role::Server).await).await
                });
                let mut peer = Peer { end };
                peer.send(&wire[..cut]).await;
                begun.await.unwrap();
                peer.send(&wire[cut..]).await;
                assert_eq!(told.await.unwrap(), expected, "cut at {cut}");
                peer.expect(plain(TEXT, &messages[5])).await;
            });
        }
    }
}

/// Asks for the hand-over, which is refused.
async fn refused(
    stream: WebSocketStream<BridgeStream>,
    reason: HandOverError,
) -> (WebSocketStream<BridgeStream>, Vec<Message>) {
    let options = options().message_timeout(Duration::from_millis(20));
    let taken = WebSocket::from_tungstenite(stream, Role::Server, &options).await;
    let error = taken.unwrap_err();
    assert_eq!(error.reason(), reason, "{error:#}");
    assert_eq!(error.to_string(), "the connection was not taken over");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(format!("{error:#}").starts_with(&format!("{error}: {cause}")), "{error:#}");
    error.into_parts()
}

#[test]
fn half_a_message_is_waited_for_and_then_given_back() {
    let (first, last) = (masked(TEXT & !FIN, "Hel"), masked(CONTINUATION, "lo"));
    let wire = [first, last].concat();
    for cut in 1..wire.len() {
        within(async {
            let (mut stream, mut peer) = open(Knobs::default(), Role::Server).await;
            let whole = [masked(TEXT, "first"), masked(TEXT, "one")].concat();
            peer.send([&whole, &wire[..cut]].concat()).await;
            assert_eq!(take(&mut stream, 1).await, [Message::text("first")]);
            let (mut stream, read) = refused(stream, HandOverError::ReceivingMessage).await;
            assert_eq!(read, [Message::text("one")]);
            peer.send([&wire[cut..], &masked(TEXT, "two")].concat()).await;
            let expected = [Message::text("Hello"), Message::text("two")];
            assert_eq!(take(&mut stream, 2).await, expected, "{cut}");
        });
    }
}

#[test]
fn a_connection_that_closes_is_given_back() {
    within(async {
        let (mut stream, mut peer) = open(Knobs::default(), Role::Server).await;
        let goodbye = masked(CLOSE, close(1000, ""));
        peer.send([masked(TEXT, "one"), masked(TEXT, "two"), goodbye].concat()).await;
        assert_eq!(take(&mut stream, 1).await, [Message::text("one")]);
        let (mut stream, read) = refused(stream, HandOverError::Closed).await;
        assert_eq!(
            (read.as_slice(), take(&mut stream, 1).await),
            (&[][..], vec![Message::text("two")])
        );
        while let Some(Ok(_)) = stream.next().await {}
        peer.expect_hex("88 02 03e8").await;
    });
    within(async {
        let (mut stream, mut peer) = open(Knobs::default(), Role::Server).await;
        stream.close(None).await.unwrap();
        refused(stream, HandOverError::Closed).await;
        peer.expect_hex("88 00").await;
    });
    within(async {
        let (mut stream, peer) = open(Knobs::default(), Role::Server).await;
        drop(peer);
        assert!(stream.next().await.unwrap().is_err());
        refused(stream, HandOverError::Closed).await;
    });
}

#[test]
fn a_close_frame_inside_the_message_that_is_waited_for_is_given_back() {
    within(async {
        let (mut stream, mut peer) = open(Knobs::default(), Role::Server).await;
        peer.send([masked(TEXT, "one"), masked(TEXT & !FIN, "Hel")].concat()).await;
        assert_eq!(take(&mut stream, 1).await, [Message::text("one")]);
        let closing = async {
            task::yield_now().await;
            peer.send(masked(CLOSE, close(1000, ""))).await;
        };
        let ((mut stream, read), ()) = join(refused(stream, HandOverError::Closed), closing).await;
        assert!(read.first().is_some_and(Message::is_close), "{read:?}");
        while let Some(Ok(_)) = stream.next().await {}
        peer.expect_hex("88 02 03e8").await;
    });
}

#[test]
fn a_message_that_tungstenite_sends_in_part_is_ended_first() {
    within(async {
        let (mut stream, mut peer) = open(Knobs::default(), Role::Server).await;
        let frame = |payload: &'static [u8], opcode, fin| {
            Message::Frame(Frame::message(payload, OpCode::Data(opcode), fin))
        };
        SinkExt::feed(&mut stream, frame(b"a", Data::Text, false)).await.unwrap();
        let (mut stream, _) = refused(stream, HandOverError::SendingMessage).await;
        SinkExt::feed(&mut stream, frame(b"b", Data::Continue, true)).await.unwrap();
        take_over(stream, Role::Server).await.send("c").await.unwrap();
        peer.expect_hex("01 01 61 80 01 62 81 01 63").await;
    });
}

#[test]
fn a_stream_in_which_something_else_has_passed_is_given_back() {
    within(async {
        let (mut stream, mut peer) = open(Knobs::default(), Role::Server).await;
        // A length in more bytes than it needs, which tungstenite puts up with.
        peer.send(b"\x82\xfe\x00\x01\x00\x00\x00\x00x").await;
        assert_eq!(take(&mut stream, 1).await, [Message::binary(b"x".as_slice())]);
        refused(stream, HandOverError::Unreadable).await;
    });
}

#[test]
fn a_server_of_async_tungstenite_echoes_by_our_loop() {
    within(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = task::spawn(async move {
            let socket = listener.accept().await.unwrap().0;
            let stream = accept_async(BridgeStream::new(socket)).await.unwrap();
            echo(take_over(stream, Role::Server).await).await
        });
        let socket = async_std::net::TcpStream::connect(addr).await.unwrap();
        let (mut client, _) = client_async(format!("ws://{addr}/"), socket).await.unwrap();
        for size in [0, 125, 126, 65_536, 1 << 20] {
            let message = Message::binary(vec![7; size]);
            WebSocketStream::send(&mut client, message.clone()).await.unwrap();
            assert_eq!(take(&mut client, 1).await, [message]);
        }
        client.close(None).await.unwrap();
        while let Some(Ok(_)) = client.next().await {}
        server.await.unwrap();
    });
}
