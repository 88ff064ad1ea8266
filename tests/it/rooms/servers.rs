//! A hub behind real servers, and real clients, some of whom do not read.

use futures::StreamExt;
use tidewire::rooms::{BroadcastReport, PresenceEvent, PresenceEvents, RoomOptions, SlowConsumer};
use tidewire::{Hub, RequestContext, Room, Server};

use super::options;
use crate::support::frames::{BINARY, CLOSE, TEXT, close, masked, plain};
use crate::support::peer::within;
use crate::support::tcp::{Tcp, bind};

/// Everybody at `/` is in the room and says what the others hear.
fn server(room: &Room) -> Server {
    let room = room.clone();
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let room = room.clone();
        async move {
            let mut ws = ctx.upgrade_to_websocket(options()).await?;
            let member = room.join(&ws);
            while let Some(message) = ws.recv().await? {
                room.broadcast_except(member.id(), message);
            }
            Ok(())
        }
    });
    server
}

fn joined(events: &mut PresenceEvents) {
    assert!(matches!(within(events.next()), Some(PresenceEvent::Joined(..))));
}

#[test]
fn two_servers_share_a_hub() {
    let room: Room = Hub::new().room("room");
    let mut events = room.events();
    let [mut one, mut other] = [(); 2].map(|()| Tcp::upgraded(bind(server(&room))));
    joined(&mut events);
    joined(&mut events);
    one.send(masked(TEXT, "Hello"));
    other.expect_hex("81 05 48656c6c6f");
    other.send(masked(TEXT, "Hi"));
    one.expect_hex("81 02 4869");
    drop(one);
    assert!(matches!(within(events.next()), Some(PresenceEvent::Left(..))));
    assert_eq!(room.len(), 1);
}

/// More than the buffers of two sockets hold, in messages of a size.
const LONG: usize = 64 << 10;
const MESSAGES: usize = 400;

#[test]
fn only_a_member_that_does_not_read_misses_messages() {
    use SlowConsumer::{Close, Conflate, DropNewest, DropOldest};
    for policy in [DropNewest, DropOldest, Conflate, Close] {
        eprintln!("{policy:?}");
        let options = RoomOptions::default().slow_consumer(policy);
        let room: Room = Hub::with_options(options).room("room");
        let mut events = room.events();
        let addr = bind(server(&room));
        let mut stuck = Tcp::upgraded(addr);
        joined(&mut events);
        let mut others = [Tcp::upgraded(addr), Tcp::upgraded(addr)];
        joined(&mut events);
        joined(&mut events);

        let mut sum = BroadcastReport::default();
        for number in 0..MESSAGES {
            let payload = vec![u8::try_from(number % 251).unwrap(); LONG];
            let expected = plain(BINARY, &payload);
            let told = room.broadcast(payload);
            sum.queued += told.queued;
            sum.dropped += told.dropped;
            sum.closed += told.closed;
            sum.gone += told.gone;
            for other in &mut others {
                other.expect(&expected);
            }
        }
        let stats = room.stats();
        let missed = stats.members.dropped + stats.members.replaced + stats.members.gone;
        assert!(missed > 0, "{stats:?}");
        assert_eq!(sum.queued + sum.dropped + sum.closed + sum.gone, 3 * MESSAGES);
        assert_eq!(sum.closed, usize::from(policy == Close));

        // Who begins to read gets what was not left out, whole and in order.
        stuck.send(masked(CLOSE, close(1000, "")));
        let mut seen = 0;
        let code = loop {
            let frame = stuck.long_frame();
            if frame.head != BINARY {
                break frame.close_code();
            }
            assert!(frame.payload == vec![frame.payload[0]; LONG]);
            seen += 1;
        };
        let queued = usize::try_from(stats.members.queued - stats.members.replaced).unwrap();
        if policy == Close {
            assert_eq!(code, Some(1013));
            assert!(2 * MESSAGES + seen < queued, "what waited is not sent");
        } else {
            assert_eq!(code, Some(1000));
            assert_eq!(2 * MESSAGES + seen, queued);
        }
    }
}
