//! Connections one after the other.

use std::error::Error as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_std::task;
use futures::stream::FusedStream;
use futures::{FutureExt, StreamExt};
use tidewire::client::{ConnectError, Reconnect, ReconnectOptions, ReconnectState};
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
    let moment = Duration::from_millis(1);
    ReconnectOptions::default().first_delay(moment).try_again_later(moment)
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
fn after_try_again_later_the_pause_is_five_seconds_at_least() {
    for (code, least) in [(1013, 5), (1012, 0)] {
        let server = Scripted::ending([closing("first", code)]);
        let mut reconnect = reconnect(&server, ReconnectOptions::default());
        within(async { hear(reconnect.next().await.unwrap().unwrap()).await });
        let begin = Instant::now();
        assert!(reconnect.next().now_or_never().is_none());
        let ReconnectState::Waiting { until, .. } = reconnect.state() else {
            panic!("{:?}", reconnect.state())
        };
        let pause = until - begin;
        assert!(pause >= Duration::from_secs(least), "{code}: {pause:?}");
        assert!(pause <= Duration::from_secs(2 * least + 1), "{code}: {pause:?}");
    }
}

/// A closure that counts the tries: it fails at the first `failing`, and then adds the number to the query and the
/// headers.
fn counting(options: ReconnectOptions, failing: usize) -> (ReconnectOptions, Arc<AtomicUsize>) {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let options = options.prepare(move |client| {
        let number = counted.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            // It may take its time.
            task::yield_now().await;
            if number <= failing {
                return Err(format!("no token {number}").into());
            }
            let token = format!("no. {number}&");
            Ok(client.query("token", &token).header("X-Token", token))
        }
    });
    (options, tries)
}

#[test]
fn each_try_is_prepared_anew() {
    let server = Scripted::ending([closing("first", 1001), BUSY.to_vec(), closing("last", 1000)]);
    let (options, _) = counting(quick(), 0);
    let reconnect = Client::new(format!("{}?a=b", server.url())).reconnect(options);
    assert_eq!(within(words(reconnect)), ["first", "last"]);
    for (number, visit) in (1..).zip(server.visits()) {
        let line = format!("GET /ws?a=b&token=no.+{number}%26 HTTP/1.1\r\n");
        assert!(visit.head.starts_with(&line), "{}", visit.head);
        let headers = visit.head.lines().filter(|line| line.starts_with("x-token"));
        assert_eq!(headers.collect::<Vec<_>>(), [format!("x-token: no. {number}&")]);
    }
}

#[test]
fn a_try_may_go_to_another_url() {
    let server = Scripted::ending([closing("only", 1000)]);
    let url = server.url();
    let options = quick().prepare(move |client| {
        let client = client.url(url.clone());
        async { Ok(client) }
    });
    // Port 1 of this machine, where nothing listens.
    let reconnect = Client::new("ws://127.0.0.1:1/").reconnect(options);
    assert_eq!(within(words(reconnect)), ["only"]);
}

#[test]
fn a_preparation_that_fails_is_a_try_that_fails() {
    let server = Scripted::ending([closing("only", 1000)]);
    let (options, tries) = counting(quick(), 3);
    let mut reconnect = reconnect(&server, options);
    let ws = within(reconnect.next()).unwrap().unwrap();
    assert_eq!((tries.load(Ordering::Relaxed), reconnect.failures()), (4, 3));
    assert_eq!(within(hear(ws)), "only");
}

#[test]
fn a_preparation_that_fails_may_end_it() {
    let give_up = |options: ReconnectOptions| {
        let (options, tries) = counting(options, usize::MAX);
        let mut reconnect = Client::new("ws://127.0.0.1:1/").reconnect(options);
        let error = refusal(within(reconnect.next()));
        assert!(within(reconnect.next()).unwrap().is_none());
        (error, tries.load(Ordering::Relaxed))
    };
    let (error, tries) = give_up(quick().max_attempts(2));
    assert_eq!(tries, 2);
    assert_eq!(format!("{error:#}"), "the connection could not be prepared: no token 2");
    assert_eq!(error.source().unwrap().to_string(), "no token 2");
    let is_worth_another = |error: &ConnectError| !matches!(error, ConnectError::Prepare(_));
    assert_eq!(give_up(quick().after_error(is_worth_another)).1, 1);
}

#[test]
fn after_a_panic_of_a_preparation_there_are_no_more_connections() {
    let closures = [
        quick().prepare(|client| if true { panic!("on purpose") } else { async { Ok(client) } }),
        quick().prepare(|client| async {
            task::yield_now().await;
            if true { panic!("on purpose") } else { Ok(client) }
        }),
    ];
    for options in closures {
        let mut reconnect = Client::new("ws://127.0.0.1:1/").reconnect(options);
        within(async {
            assert!(AssertUnwindSafe(reconnect.next()).catch_unwind().await.is_err());
            assert!(reconnect.next().await.unwrap().is_none());
        });
        assert_eq!(reconnect.state(), ReconnectState::Ended);
    }
}

#[test]
fn its_state_is_told_to_those_who_watch() {
    let server = Scripted::ending([closing("first", 1013), closing("last", 1000)]);
    let pause = Duration::from_millis(20);
    let mut reconnect = reconnect(&server, quick().try_again_later(pause));
    let mut states = reconnect.states();
    // One that another task waits for, from the first state to the last.
    let watching = task::spawn(reconnect.states().collect::<Vec<_>>());
    within(async {
        assert_eq!(reconnect.state(), ReconnectState::Connecting);
        assert_eq!(states.next().await, Some(ReconnectState::Connecting));
        assert!(states.next().now_or_never().is_none());

        let ws = reconnect.next().await.unwrap().unwrap();
        assert_eq!(reconnect.state(), ReconnectState::Open);
        assert_eq!(states.next().await, Some(ReconnectState::Open));

        hear(ws).await;
        let begin = Instant::now();
        assert!(reconnect.next().now_or_never().is_none());
        let waiting = states.next().await.unwrap();
        assert_eq!(reconnect.state(), waiting);
        assert!(matches!(waiting, ReconnectState::Waiting { until, .. } if until >= begin + pause));

        // What comes between is left out.
        let ws = reconnect.next().await.unwrap().unwrap();
        assert_eq!(states.next().await, Some(ReconnectState::Open));
        hear(ws).await;
        assert!(reconnect.next().await.unwrap().is_none());
        assert_eq!(reconnect.state(), ReconnectState::Ended);
        assert!(!states.is_terminated());
        assert_eq!(states.next().await, Some(ReconnectState::Ended));
        assert!(states.is_terminated());
        assert_eq!(states.next().await, None);
        let seen = watching.await;
        assert_eq!(seen.last(), Some(&ReconnectState::Ended), "{seen:?}");
    });
}

#[test]
fn when_it_is_dropped_those_who_watch_are_told_the_end() {
    let reconnect = Client::new("ws://127.0.0.1:1/").reconnect(quick());
    let mut states = reconnect.states();
    assert_eq!(within(states.next()), Some(ReconnectState::Connecting));
    let waiting = task::spawn(async move { states.next().await });
    drop(reconnect);
    assert_eq!(within(waiting), Some(ReconnectState::Ended));
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
            task::yield_now().await;
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
