//! Members whose connection is closed by others.

use std::time::Duration;

use futures::StreamExt;
use tidewire::rooms::PresenceEvent;
use tidewire::{Error, Hub, Room};

use super::{enter, options, room};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{Peer, collect, serve, within};
use crate::support::pipe::Knobs;

/// A member who kicks the members that it names.
fn kicking(room: &Room<String>, name: &'static str) -> Peer {
    let room = room.clone();
    serve(&options(), move |mut ws| async move {
        let _member = room.join_with(&ws, name.to_owned());
        while let Some(message) = ws.recv().await? {
            let kicked = message.as_text().unwrap();
            let members = room.members();
            let id = members.iter().find(|(_, name)| **name == kicked).map(|(id, _)| *id);
            room.broadcast(format!("good-bye, {kicked}"));
            let was_there = room.close_member(id.unwrap_or(ws.id()), 4003, "kicked")?;
            ws.send(format!("{was_there}")).await?;
        }
        Ok(())
    })
}

#[test]
fn a_member_is_closed_from_the_handler_of_another_and_leaves() {
    within(async {
        let room = Hub::new().room("room");
        let mut events = room.events();
        let mut ann = kicking(&room, "ann");
        assert!(matches!(events.next().await, Some(PresenceEvent::Joined(..))));
        let mut bob = kicking(&room, "bob");
        assert!(matches!(events.next().await, Some(PresenceEvent::Joined(..))));
        ann.send(masked(TEXT, "bob")).await;
        // What was broadcast before comes before.
        bob.expect(plain(TEXT, "good-bye, bob")).await;
        bob.expect(plain(CLOSE, close(4003, "kicked"))).await;
        ann.expect([plain(TEXT, "good-bye, bob"), plain(TEXT, "true")].concat()).await;
        // It is a member until its handler has ended, and gets nothing more.
        assert_eq!(room.broadcast("to ann").gone, 1);
        ann.expect(plain(TEXT, "to ann")).await;
        bob.send(masked(CLOSE, close(4003, ""))).await;
        bob.expect_end().await;
        let Some(PresenceEvent::Left(_, name)) = events.next().await else { panic!() };
        assert_eq!(*name, "bob");
        // Oneself, too.
        ann.send(masked(TEXT, "ann")).await;
        ann.expect(plain(TEXT, "good-bye, ann")).await;
        ann.expect(plain(CLOSE, close(4003, "kicked"))).await;
    });
}

#[test]
fn a_stranger_is_not_closed_and_neither_is_a_member_by_a_code_that_may_not_be_sent() {
    within(async {
        let [room, other] = [(); 2].map(|()| room());
        let (mut peer, sender) = enter(&room, Knobs::default(), &options()).await;
        let (_peer, stranger) = enter(&other, Knobs::default(), &options()).await;
        assert!(!room.close_member(stranger.id(), 4003, "kicked").unwrap());
        for (code, reason) in [(1005, ""), (999, ""), (4003, &*"x".repeat(124))] {
            for id in [sender.id(), stranger.id()] {
                let error = room.close_member(id, code, reason).unwrap_err();
                assert!(matches!(error, Error::InvalidClose(_)), "{error:?}");
            }
        }
        assert!(sender.is_open() && stranger.is_open());
        room.broadcast("still here");
        peer.expect(plain(TEXT, "still here")).await;
    });
}

#[test]
fn a_closed_member_that_does_not_answer_is_gone_after_the_close_timeout() {
    within(async {
        let room = room();
        let options = options().close_timeout(Duration::from_millis(50));
        let mut events = room.events();
        let inside = room.clone();
        let mut peer = serve(&options, |mut ws| async move {
            let _member = inside.join(&ws);
            collect(&mut ws).await.1
        });
        let Some(PresenceEvent::Joined(id, _)) = events.next().await else { panic!() };
        assert!(room.close_member(id, 4003, "").unwrap());
        peer.expect(plain(CLOSE, close(4003, ""))).await;
        assert!(matches!(events.next().await, Some(PresenceEvent::Left(..))));
    });
}
