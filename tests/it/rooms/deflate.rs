//! Messages that are compressed once for many: each peer can read them with the one window it has.

use async_std::task;
use futures::future::join_all;
use tidewire::frame::{Frame, OpCode, Role};
use tidewire::rooms::RoomOptions;
use tidewire::websocket::PreparedMessage;
use tidewire::{Hub, Message, Room, WebSocket};

use super::{enter, narrow};
use crate::support::deflate::codec::{Reader, read_frame};
use crate::support::deflate::{ALONE, TAKEOVER, agreed, parameters, words};
use crate::support::peer::{Peer, collect, serve, within};
use crate::support::pipe::{Knobs, Stutter, pipe};
use crate::support::rng::Rng;

/// All that two sides may agree on, as far as it matters here.
const ANSWERS: [&str; 5] = [
    TAKEOVER,
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=12; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover",
    ALONE,
];

fn reader(answer: &str) -> Reader {
    Reader::of_server(parameters(answer))
}

#[test]
fn broadcasts_and_direct_messages_are_read_with_one_window_for_all_parameters() {
    const ROUNDS: usize = 40;
    let trickle = Knobs { read: 500, write: 300, in_flight: 700, stutter: Stutter::Steady };
    for knobs in [Knobs::default(), trickle] {
        within(async {
            let options = RoomOptions::default().max_messages(usize::MAX).max_bytes(usize::MAX);
            let room: Room = Hub::with_options(options).room("room");
            let mut members = vec![];
            for answer in ANSWERS {
                let options = agreed(answer).send_buffer_size(500);
                let (peer, sender) = enter(&room, knobs, &options).await;
                members.push((peer, sender, reader(answer)));
            }
            // Similar texts, so that whatever refers back is tempted to.
            let texts: Vec<_> = (0..ROUNDS)
                .map(|round| words(&mut Rng::new(7), 1_500 + 40 * round) + &round.to_string())
                .collect();
            let senders: Vec<_> = members.iter().map(|(_, sender, _)| sender.clone()).collect();
            let sent = texts.clone();
            let talking = task::spawn(async move {
                for (round, text) in sent.into_iter().enumerate() {
                    let message = Message::from(&*text);
                    match round % 5 {
                        0 | 3 => drop(room.broadcast(message)),
                        1 => drop(room.broadcast(message.uncompressed())),
                        2 => {
                            let prepared = PreparedMessage::new(message.compressed());
                            for sender in &senders {
                                sender.send_prepared(&prepared).await.unwrap();
                            }
                        }
                        _ => {
                            for sender in &senders {
                                sender.send(message.clone()).await.unwrap();
                            }
                        }
                    }
                }
            });
            let reading = members.iter_mut().map(async |(peer, _, reader)| {
                for (round, text) in texts.iter().enumerate() {
                    let seen = reader.next(peer).await;
                    let head = if round % 5 == 1 { 0x81 } else { 0xc1 };
                    assert_eq!(seen.head, head, "round {round}");
                    assert!(seen.payload == text.as_bytes(), "round {round}: {seen:?}");
                }
            });
            join_all(reading).await;
            talking.await;
        });
    }
}

#[test]
fn a_message_is_compressed_once_for_all_members_with_the_same_parameters() {
    within(async {
        let room: Room = Hub::new().room("room");
        let mut payloads = vec![];
        let mut peers = vec![];
        for answer in [TAKEOVER, ALONE, "permessage-deflate; server_max_window_bits=9"] {
            peers.push(enter(&room, Knobs::default(), &agreed(answer)).await.0);
        }
        let text = words(&mut Rng::new(1), 5_000);
        for _ in 0..2 {
            room.broadcast(&*text);
            for peer in &mut peers {
                let frame = read_frame(peer, false).await;
                assert_eq!(frame.head, 0xc1);
                payloads.push(frame.payload);
            }
        }
        // Takeover or not, and each time the same: it refers to nothing before it.
        let [first, alone, narrow, again, ..] = &*payloads else { panic!() };
        assert!(first == alone && first == again);
        assert!(first != narrow, "another window, another message");
    });
}

#[test]
fn a_broadcast_passes_a_long_message_that_is_being_compressed_and_both_can_be_read() {
    within(async {
        let room: Room = Hub::new().room("room");
        let long = words(&mut Rng::new(4), 150_000).replace(|letter: char| !letter.is_ascii(), "_");
        let (stream, end) = pipe(Knobs::default());
        let ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &agreed(TAKEOVER));
        let sender = ws.sender();
        let _member = room.join(&ws);
        sender.send(&long[..5000]).await.unwrap();
        room.broadcast(&long[..5100]);
        sender.send(&long[..5200]).await.unwrap();
        let mut sending = Box::pin(sender.send(long.clone()));
        assert!(futures::poll!(&mut sending).is_pending());
        room.broadcast(&long[..4900]);
        assert!(futures::poll!(&mut sending).is_pending());
        room.broadcast(&long[..4800]);
        sending.await.unwrap();
        sender.send(&long[..4700]).await.unwrap();
        room.broadcast(&long[..4600]);
        // One that is given up half way.
        let mut given_up = Box::pin(sender.send(long.clone()));
        assert!(futures::poll!(&mut given_up).is_pending());
        room.broadcast(&long[..4500]);
        drop(given_up);
        room.broadcast(&long[..4400]);
        sender.send(&long[..4300]).await.unwrap();

        let (mut peer, mut reader) = (Peer { end }, reader(TAKEOVER));
        let mut seen = vec![];
        for _ in 0..10 {
            let message = reader.next(&mut peer).await;
            assert!(long.as_bytes().starts_with(&message.payload));
            seen.push((message.head, message.payload.len()));
        }
        // Plain while the window is taken, which changes nothing in it.
        let (plain, deflated) = (0x81, 0xc1);
        assert_eq!(
            seen,
            [
                (deflated, 5000),
                (deflated, 5100),
                (deflated, 5200),
                (plain, 4900),
                (plain, 4800),
                (deflated, long.len()),
                (deflated, 4700),
                (deflated, 4600),
                (plain, 4500),
                (deflated, 4400),
            ]
        );
        assert_eq!(reader.next(&mut peer).await.payload, &long.as_bytes()[..4300]);
    });
}

#[test]
fn broadcasts_between_compressed_fragments_wait_and_can_be_read() {
    for answer in [TAKEOVER, ALONE] {
        within(async {
            let room: Room = Hub::new().room("room");
            let text = words(&mut Rng::new(5), 3_000);
            let sent = text.clone();
            let mut peer = serve(&agreed(answer), |mut ws| async move {
                let _member = room.join(&ws);
                for _ in 0..2 {
                    let first = Frame::new(false, OpCode::Text, sent[..1500].to_owned());
                    ws.send_frame(first.compressed()).await?;
                    room.broadcast(&*sent);
                    let last = Frame::new(true, OpCode::Continuation, sent[1500..].to_owned());
                    ws.send_frame(last).await?;
                    ws.send(&*sent).await?;
                }
                collect(&mut ws).await.1
            });
            let mut reader = reader(answer);
            for _ in 0..6 {
                let message = reader.next(&mut peer).await;
                assert!(message.payload == text.as_bytes(), "{message:?}");
                assert_eq!(message.head, 0xc1);
            }
        });
    }
}

#[test]
fn messages_that_waited_for_a_slow_member_can_be_read() {
    within(async {
        let room: Room = Hub::new().room("room");
        let (mut peer, sender) =
            enter(&room, narrow(10), &agreed(TAKEOVER).send_buffer_size(1)).await;
        let text = words(&mut Rng::new(6), 1_000);
        for _ in 0..5 {
            room.broadcast(&*text);
        }
        let sending = task::spawn({
            let text = text.clone();
            async move { sender.send(text).await }
        });
        let mut reader = reader(TAKEOVER);
        for _ in 0..6 {
            assert!(reader.next(&mut peer).await.payload == text.as_bytes());
        }
        sending.await.unwrap();
        room.broadcast(&*text);
        assert!(reader.next(&mut peer).await.payload == text.as_bytes());
    });
}
