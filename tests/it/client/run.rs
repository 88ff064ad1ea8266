//! A handler on the client's side.

use std::fmt;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::channel::oneshot;
use futures::future::pending;
use tidewire::{Client, Error, Message};

use super::{Scripted, Visit, accepting, refusal};
use crate::support::frames::{CLOSE, PING, PONG, TEXT, Transcript, close, plain};
use crate::support::peer::within;

/// What a client has sent, to the end of its stream. Its close frame is answered.
fn transcript(visit: &mut Visit) -> Transcript {
    let mut bytes = Vec::new();
    let mut buf = [0; 4096];
    loop {
        match visit.socket.read(&mut buf).unwrap() {
            0 => return Transcript::of(&bytes, true),
            len => bytes.extend(&buf[..len]),
        }
        if Transcript::of(&bytes, true).close.is_some() {
            // The client may be gone already.
            let _ = visit.socket.write_all(&plain(CLOSE, close(1000, "")));
            let _ = visit.socket.shutdown(Shutdown::Write);
        }
    }
}

#[test]
fn a_handler_gives_back_its_result_and_its_connection_is_closed() {
    let server = Scripted::new([accepting("", &plain(TEXT, "hello"))]);
    let client = Client::new(server.url());
    let mut visit = None;
    let heard: Message = within(async {
        let serving = async_std::task::spawn_blocking(|| {
            let mut visit = server.visits().remove(0);
            let seen = transcript(&mut visit);
            (visit, seen)
        });
        let running = client.run(|mut ws| async move {
            for number in 0..3 {
                ws.send(format!("{number}")).await?;
            }
            Ok::<_, Error>(ws.recv().await?.unwrap())
        });
        let (outcome, visited) = futures::join!(running, serving);
        visit = Some(visited.1);
        outcome.unwrap()
    });
    assert_eq!(heard.as_text(), Some("hello"));
    let seen = visit.unwrap();
    assert_eq!(seen.messages.len(), 3);
    assert_eq!(seen.close.unwrap().close_code(), Some(1000));
}

#[test]
fn a_handler_that_fails_closes_with_1011() {
    let server = Scripted::new([accepting("", b"")]);
    let client = Client::new(server.url());
    let (outcome, seen) = within(async {
        let serving =
            async_std::task::spawn_blocking(|| transcript(&mut server.visits().remove(0)));
        let running = client.run(|ws| async move {
            drop(ws);
            Err::<(), _>(Error::Closed)
        });
        futures::join!(running, serving)
    });
    assert!(matches!(outcome, Err(Error::Closed)), "{outcome:?}");
    assert_eq!(seen.close.unwrap().close_code(), Some(1011));
}

#[test]
fn an_error_that_cannot_be_written_is_its_callers_all_the_same() {
    struct Unspeakable;

    impl fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("in a Display");
        }
    }

    impl From<Error> for Unspeakable {
        fn from(_: Error) -> Self {
            Self
        }
    }

    let server = Scripted::new([accepting("", b"")]);
    let client = Client::new(server.url());
    let (outcome, seen) = within(async {
        let serving =
            async_std::task::spawn_blocking(|| transcript(&mut server.visits().remove(0)));
        let running = client.run(|ws| async move {
            drop(ws);
            Err::<(), _>(Unspeakable)
        });
        futures::join!(running, serving)
    });
    assert!(outcome.is_err());
    assert_eq!(seen.close.unwrap().close_code(), Some(1011));
}

#[test]
fn a_panic_of_the_handler_is_its_callers() {
    let server = Scripted::new([accepting("", b"")]);
    let client = Client::new(server.url());
    let closing = std::thread::spawn(|| transcript(&mut server.visits().remove(0)));
    let running = client.run(|ws| async move {
        let _ws = ws;
        if true {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        Ok::<(), Error>(())
    });
    let panic = catch_unwind(AssertUnwindSafe(|| within(running))).unwrap_err();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "on purpose");
    assert_eq!(closing.join().unwrap().close.unwrap().close_code(), Some(1011));
}

#[test]
fn pings_are_answered_while_the_handler_is_busy() {
    let server = Scripted::new([accepting("", &plain(PING, "?"))]);
    let client = Client::new(server.url());
    let (ponged, busy) = oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        let mut visit = server.visits().remove(0);
        let mut pong = [0; 7];
        visit.socket.read_exact(&mut pong).unwrap();
        assert_eq!(pong[0], PONG);
        ponged.send(()).unwrap();
        transcript(&mut visit)
    });
    within(client.run(|ws| async move {
        // Nobody is in `recv`.
        busy.await.unwrap();
        drop(ws);
        Ok::<_, Error>(())
    }))
    .unwrap();
    assert_eq!(serving.join().unwrap().close.unwrap().close_code(), Some(1000));
}

#[test]
fn a_dropped_run_ends_its_connection_without_a_close_frame() {
    let server = Scripted::new([accepting("", b"")]);
    let client = Client::new(server.url());
    let (begun, has_begun) = oneshot::channel::<()>();
    within(async {
        let running = client.run(|ws| async move {
            begun.send(()).unwrap();
            pending::<()>().await;
            drop(ws);
            Ok::<_, Error>(())
        });
        futures::future::select(Box::pin(running), has_begun).await;
    });
    let mut rest = Vec::new();
    server.visits()[0].socket.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn without_a_connection_the_handler_does_not_run() {
    let server = Scripted::new(["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"]);
    let outcome = within(Client::new(server.url()).run(|_| async { Ok::<_, Error>(()) }));
    assert_eq!(refusal(outcome).response().unwrap().status(), 503);
}
