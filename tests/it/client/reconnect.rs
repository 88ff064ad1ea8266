//! Connections one after the other.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use tidewire::client::{ConnectError, Reconnect, ReconnectOptions};
use tidewire::{Client, CloseInfo, Error, Message, WebSocket};

use super::{Scripted, accepting, refusal};
use crate::support::frames::{CLOSE, TEXT, close, plain};
use crate::support::peer::within;

const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";

/// A connection on which the server says a word and closes.
fn closing(word: &str, code: u16) -> Vec<u8> {
    accepting("", &[plain(TEXT, word), plain(CLOSE, close(code, ""))].concat())
}

/// Pauses that no test has to wait for.
fn quick() -> ReconnectOptions {
    ReconnectOptions::default().first_delay(Duration::from_millis(1))
}

fn reconnect(server: &Scripted, options: ReconnectOptions) -> Reconnect {
    Client::new(server.url()).reconnect(options)
}

/// Receives one message, and goes on to the end.
async fn hear(mut ws: WebSocket) -> String {
    let heard = ws.recv().await.unwrap().unwrap();
    assert_eq!(ws.recv().await.unwrap(), None::<Message>);
    heard.as_text().unwrap().to_owned()
}

/// All words of the connections up to the last.
async fn words(mut reconnect: Reconnect) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(ws) = reconnect.next().await.unwrap() {
        words.push(hear(ws).await);
    }
    words
}

#[test]
fn a_server_that_goes_away_is_come_back_to_until_it_says_goodbye() {
    let server = Scripted::ending([
        closing("first", 1001),
        BUSY.to_vec(),
        closing("second", 1012),
        BUSY.to_vec(),
        BUSY.to_vec(),
        closing("last", 1000),
    ]);
    assert_eq!(within(words(reconnect(&server, quick()))), ["first", "second", "last"]);
}

#[test]
fn a_close_code_says_whether_there_is_another() {
    for code in [1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 4999] {
        let server = Scripted::ending([closing("only", code)]);
        assert_eq!(within(words(reconnect(&server, quick()))), ["only"], "{code}");
    }
    for code in [1001, 1011, 1012, 1013, 1014] {
        let server = Scripted::ending([closing("first", code), closing("last", 1000)]);
        assert_eq!(within(words(reconnect(&server, quick()))), ["first", "last"], "{code}");
    }
}

#[test]
fn the_caller_may_decide_which_ends_are_worth_another() {
    let server = Scripted::ending([closing("first", 4000), closing("last", 1001)]);
    let options = quick().after_close(|info: &CloseInfo| info.reported_code() == 4000);
    assert_eq!(within(words(reconnect(&server, options))), ["first", "last"]);
}

#[test]
fn a_connection_without_a_goodbye_is_replaced() {
    let cut = accepting("", &plain(TEXT, "cut"));
    let server = Scripted::ending([cut, closing("last", 1000)]);
    let mut reconnect = reconnect(&server, quick());
    within(async {
        let mut ws = reconnect.next().await.unwrap().unwrap();
        assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some("cut"));
        assert!(matches!(ws.recv().await, Err(Error::Io(_))));
        assert_eq!(hear(reconnect.next().await.unwrap().unwrap()).await, "last");
        assert!(reconnect.next().await.unwrap().is_none());
    });
}

#[test]
fn a_connection_that_the_caller_drops_was_the_last() {
    let server = Scripted::new([accepting("", &plain(TEXT, "enough"))]);
    let mut reconnect = reconnect(&server, quick());
    within(async {
        let mut ws = reconnect.next().await.unwrap().unwrap();
        assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some("enough"));
        drop(ws);
        assert!(reconnect.next().await.unwrap().is_none());
    });
}

#[test]
fn an_error_that_another_try_does_not_help_ends_it() {
    let server = Scripted::ending(["HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n"]);
    let mut reconnect = reconnect(&server, quick());
    within(async {
        let error = refusal(reconnect.next().await);
        assert!(matches!(*error, ConnectError::Refused(_)), "{error:?}");
        assert!(reconnect.next().await.unwrap().is_none());
    });
}

#[test]
fn the_last_of_so_many_attempts_is_told() {
    let server = Scripted::ending([BUSY; 3]);
    let mut reconnect = reconnect(&server, quick().max_attempts(3));
    let error = refusal(within(reconnect.next()));
    assert_eq!(error.response().unwrap().status(), 503);
    assert_eq!(server.visits().len(), 3);
}

#[test]
fn the_server_may_say_when_to_come_back() {
    let busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".to_vec();
    let server = Scripted::ending([busy, closing("last", 1000)]);
    let begin = Instant::now();
    assert_eq!(within(words(reconnect(&server, quick()))), ["last"]);
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[test]
fn failures_count_until_a_connection_was_stable() {
    let responses = || [closing("a", 1001), closing("b", 1001), closing("c", 1000)];
    for (stable_after, failures) in [(Duration::MAX, 2), (Duration::ZERO, 1)] {
        let server = Scripted::ending(responses());
        let mut reconnect = reconnect(&server, quick().stable_after(stable_after));
        within(async {
            for _ in 0..3 {
                hear(reconnect.next().await.unwrap().unwrap()).await;
            }
        });
        assert_eq!(reconnect.failures(), failures);
    }
}

#[test]
fn connections_that_were_lost_too_soon_count_as_failures_and_end_nothing() {
    let words = ["one", "two", "three"];
    let server = words.map(|word| closing(word, 1001)).into_iter().chain([BUSY.to_vec()]);
    let server = Scripted::ending(server.collect::<Vec<_>>());
    let mut reconnect = reconnect(&server, quick().max_attempts(2));
    within(async {
        for word in words {
            assert_eq!(hear(reconnect.next().await.unwrap().unwrap()).await, word);
        }
        // The first that fails is one too many.
        assert_eq!(refusal(reconnect.next().await).response().unwrap().status(), 503);
        assert!(reconnect.next().await.unwrap().is_none());
    });
}

#[test]
fn an_abandoned_wait_goes_on_where_it_was() {
    let server = Scripted::ending([BUSY.to_vec(), closing("last", 1000)]);
    let mut reconnect = reconnect(&server, quick());
    within(async {
        let ws = loop {
            // Each call is dropped at its first wait.
            if let Some(outcome) = reconnect.next().now_or_never() {
                break outcome.unwrap().unwrap();
            }
            async_std::task::yield_now().await;
        };
        assert_eq!(hear(ws).await, "last");
    });
    // No try was begun twice.
    assert_eq!(server.visits().len(), 2);
}

#[test]
fn as_a_stream_it_ends_after_the_error() {
    let server = Scripted::ending([closing("first", 1001), b"HTTP/1.1 410 Gone\r\n\r\n".to_vec()]);
    let client = Client::new(server.url());
    let serving = std::thread::spawn(|| drop(server.visits()));
    let outcomes = within(
        client
            .reconnect(quick())
            .then(|outcome| async { Ok::<_, Error>(hear(outcome?).await) })
            .collect::<Vec<_>>(),
    );
    assert_eq!(outcomes.len(), 2);
    assert_eq!(outcomes[0].as_deref().unwrap(), "first");
    assert!(outcomes[1].is_err());
    serving.join().unwrap();
}

#[test]
fn after_a_panic_of_the_callers_closure_there_are_no_more_connections() {
    let server = Scripted::ending([BUSY, &closing("lost", 1001)]);
    for options in [
        quick().after_error(|_: &ConnectError| panic!("on purpose")),
        quick().after_close(|_: &CloseInfo| panic!("on purpose")),
    ] {
        let mut reconnect = reconnect(&server, options);
        within(async {
            let panicking = async {
                while let Ok(Some(ws)) = reconnect.next().await {
                    hear(ws).await;
                }
            };
            assert!(AssertUnwindSafe(panicking).catch_unwind().await.is_err());
            assert!(reconnect.next().await.unwrap().is_none());
        });
    }
}
