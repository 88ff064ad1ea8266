//! What a test expects of a socket, and what it says when something else comes.

use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tidewire::testing::{Line, TestClient, TestSocket};
use tidewire::{Message, Reject, RequestContext, Server, WebSocket, WebSocketOptions};

use crate::support::peer::within;

/// A server that does what it is told: it echoes, is silent, closes or fails.
fn app() -> Server {
    let mut server = Server::new();
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while let Some(message) = ws.recv().await? {
            match message.as_text() {
                Some("nothing") => {}
                Some("close") => return Err(Reject::close(4003, "kicked").into()),
                Some("end") => return Ok(()),
                Some("fail") => return Err(std::fmt::Error.into()),
                Some("panic") => panic!("on purpose"),
                Some("hang") => pending().await,
                _ => ws.send(message).await?,
            }
        }
        Ok(())
    });
    server
}

/// The message that a test fails with.
pub(super) async fn failure<T>(test: impl Future<Output = T>) -> String {
    let Err(panic) = AssertUnwindSafe(test).catch_unwind().await else {
        panic!("the test passes, and should not");
    };
    *panic.downcast().unwrap()
}

async fn open() -> TestSocket {
    TestClient::new(&app()).connect("/ws").await.unwrap()
}

#[test]
fn what_is_expected_comes() {
    within(async {
        let mut ws = open().await;
        ws.send("Hello").await.unwrap();
        ws.expect_text("Hello").await;
        ws.send([1, 2]).await.unwrap();
        assert_eq!(ws.expect_message([1, 2]).await.as_bytes(), [1, 2]);
        ws.send_json(&json!({ "b": 1, "a": [1, null] })).await.unwrap();
        ws.expect_json(json!({ "a": [1, null], "b": 1 })).await;
        ws.send_text("7").await.unwrap();
        assert_eq!(ws.recv_json::<u8>().await.unwrap(), Some(7));
        ws.send("nothing").await.unwrap();
        ws.expect_silence().await;
        ws.send("nothing").await.unwrap();
        ws.expect_silence_for(Duration::from_secs(3600)).await;
        ws.send("close").await.unwrap();
        let end = ws.expect_close(4003).await;
        assert_eq!((&*end.reason, end.clean), ("kicked", true));
        assert_eq!(ws.recv().await.unwrap(), None);
        assert_eq!(ws.closed().await, end);
    });
}

#[test]
fn a_socket_is_a_websocket() {
    async fn echo_once(ws: &mut WebSocket) -> Option<Message> {
        ws.send("one").await.unwrap();
        ws.recv().await.unwrap()
    }
    within(async {
        let mut ws = open().await;
        assert_eq!(echo_once(&mut ws).await, Some("one".into()));
        ws.send("two").await.unwrap();
        assert_eq!(ws.next().await.unwrap().unwrap(), "two");
        assert!(format!("{ws:?}").starts_with("TestSocket { path: \"/ws\", ws: WebSocket"));
        let mut ws = ws.into_inner();
        assert_eq!(echo_once(&mut ws).await, Some("one".into()));
        assert!(ws.close(1000, "").await.unwrap().clean);
        let mut ws: WebSocket = open().await.into();
        assert_eq!(echo_once(&mut ws).await, Some("one".into()));
    });
}

/// What a test says that sends `sent`, and then does `expects`.
async fn said<'a, F: Future>(
    ws: &'a mut TestSocket,
    sent: &[&str],
    expects: impl FnOnce(&'a mut TestSocket) -> F,
) -> String {
    for message in sent {
        ws.send(*message).await.unwrap();
    }
    failure(expects(ws)).await
}

#[test]
fn another_message_fails_the_test_with_both() {
    within(async {
        let ws = &mut open().await;
        let quiet = "\n  the server has 0 connections of HTTP and 1 of WebSocket; no handler has failed\n  in ";
        let begin = "what came at /ws is not what was expected\n  expected: ";
        let text = said(ws, &["hello"], |ws| ws.expect_text("Hello")).await;
        assert!(
            text.starts_with(&format!(
                "{begin}Text(\"Hello\")\n  found:    Text(\"hello\"){quiet}"
            )),
            "{text}"
        );
        assert!(text.contains(file!()), "{text}");
        let text = said(ws, &["a"], |ws| ws.expect_message([97])).await;
        assert!(text.starts_with(&format!("{begin}Binary(")), "{text}");
        assert!(text.contains("\n  found:    Text(\"a\")\n"), "{text}");
        let text = said(ws, &["a"], |ws| ws.expect_silence()).await;
        assert!(
            text.starts_with(&format!("{begin}no message\n  found:    Text(\"a\"){quiet}")),
            "{text}"
        );
        let text = said(ws, &["a"], |ws| ws.expect_silence_for(Duration::from_secs(60))).await;
        assert!(
            text.starts_with(&format!("{begin}no message\n  found:    Text(\"a\"){quiet}")),
            "{text}"
        );
        let text = said(ws, &["a"], |ws| ws.expect_close(1000)).await;
        assert!(
            text.starts_with(&format!("{begin}a close with 1000\n  found:    Text(\"a\"){quiet}")),
            "{text}"
        );
        let long = "x".repeat(2000);
        let text = said(ws, &[&long], |ws| ws.expect_text("x")).await;
        assert!(text.contains(&format!("found:    Text(\"{}…\")\n", "x".repeat(1024))), "{text}");
        ws.expect_silence().await;
    });
}

#[test]
fn other_json_fails_the_test_with_the_first_place_that_differs() {
    within(async {
        let ws = &mut open().await;
        for (sent, expected, place) in [
            (
                "{\"a\":{\"b\":[1,2]}}",
                json!({ "a": { "b": [1, 3] } }),
                "\n  at .a.b[1]: 2 instead of 3\n",
            ),
            ("{\"a\":1,\"b\":2}", json!({ "a": 1 }), "\n  .b should not be there\n"),
            ("[1]", json!([1, 2]), "\n  [1] is missing\n"),
            ("[]", json!({}), "\n  found:    []\n"),
            ("Hello", json!("Hello"), "\n  found:    Text(\"Hello\"), which is not JSON\n"),
        ] {
            let text = said(ws, &[sent], |ws| ws.expect_json(expected.clone())).await;
            assert!(text.contains(&format!("expected: {expected}\n  found:    ")), "{text}");
            assert!(text.contains(place), "{text}");
        }
    });
}

#[test]
fn the_end_fails_a_test_that_expects_something_else() {
    within(async {
        let begin = "what came at /ws is not what was expected\n  expected: ";
        let text = said(&mut open().await, &["end"], |ws| ws.expect_text("Hello")).await;
        assert!(
            text.starts_with(&format!(
                "{begin}Text(\"Hello\")\n  found:    a close with 1000 by the peer\n"
            )),
            "{text}"
        );
        let text = said(&mut open().await, &["end"], |ws| ws.expect_silence()).await;
        assert!(
            text.starts_with(&format!(
                "{begin}no message\n  found:    a close with 1000 by the peer\n"
            )),
            "{text}"
        );
        let text = said(&mut open().await, &["close"], |ws| ws.expect_close(1000)).await;
        assert!(
            text.starts_with(&format!(
                "{begin}a close with 1000\n  found:    a close with 4003 by the peer, kicked\n"
            )),
            "{text}"
        );
        let text = said(&mut open().await, &["fail"], |ws| ws.expect_close(1000)).await;
        assert!(text.contains("found:    a close with 1011 by the peer\n"), "{text}");
        let failed = "these handlers have failed:\n    GET /ws failed: an error occurred when formatting an argument\n";
        assert!(text.contains(failed), "{text}");
        let text = said(&mut open().await, &["panic"], |ws| ws.expect_text("Hello")).await;
        assert!(text.contains("found:    a close with 1011 by the peer\n"), "{text}");
        assert!(
            text.contains("these handlers have failed:\n    GET /ws panicked: on purpose\n"),
            "{text}"
        );
    });
}

#[test]
fn a_connection_that_is_lost_ends_with_1006() {
    within(async {
        let (client, line) = (TestClient::new(&app()), Line::new());
        let mut ws = client.over(&line).connect("/ws").await.unwrap();
        line.cut();
        ws.expect_close(1006).await;
        let mut ws = client.over(&line).connect("/ws").await.unwrap();
        line.cut();
        let text = failure(ws.expect_text("a")).await;
        assert!(
            text.contains("\n  found:    a close with 1006 by the peer: I/O failed: "),
            "{text}"
        );
    });
}

#[test]
fn a_wait_that_is_too_long_fails_the_test() {
    within(async {
        let mut ws = TestClient::new(&app()).connect("/ws").await.unwrap();
        ws.expect_silence().await;
        let ws = &mut ws.patience(Duration::from_millis(20));
        let end = " within 20ms\n  the server has 0 connections of HTTP and 1 of WebSocket; no handler has failed\n  in ";
        let says = |text: String, begin: &str| {
            assert!(text.starts_with(&format!("{begin}{end}")), "{text}");
            assert!(text.contains(file!()), "{text}");
        };
        says(failure(ws.recv()).await, "no message at /ws");
        says(failure(ws.recv_json::<Value>()).await, "no message at /ws");
        says(failure(ws.recv_frame()).await, "no frame at /ws");
        says(failure(ws.closed()).await, "no end of /ws");
        let nothing = "is expected at /ws, and nothing came";
        says(failure(ws.expect_text("a")).await, &format!("Text(\"a\") {nothing}"));
        says(failure(ws.expect_json([1])).await, &format!("[1] {nothing}"));
        says(failure(ws.expect_close(1001)).await, &format!("a close with 1001 {nothing}"));
        ws.send("hang").await.unwrap();
        let long = vec![0; 200 << 10];
        let text = failure(async {
            loop {
                ws.send(long.clone()).await.unwrap();
            }
        });
        says(text.await, "the server did not take a message at /ws");
        says(failure(ws.close(1000, "")).await, "no end of the closing of /ws");
    });
}

#[test]
fn a_server_that_never_rests_fails_a_test_that_waits_for_that() {
    within(async {
        let mut server = app();
        server.get("/busy", |_: RequestContext| async {
            loop {
                async_std::task::yield_now().await;
            }
            #[expect(unreachable_code, reason = "it names the type")]
            Ok("never")
        });
        let client = TestClient::new(&server);
        let mut ws = client.connect("/ws").await.unwrap().patience(Duration::from_millis(50));
        let client = client.patience(Duration::from_millis(50));
        let busy = client.get("/busy").send();
        let silence = async {
            let text = failure(ws.expect_silence()).await;
            assert!(text.starts_with("the server did not come to rest within 50ms\n"), "{text}");
        };
        let (busy, ()) = futures::join!(busy, silence);
        assert!(busy.is_err());
    });
}

#[test]
fn a_handler_that_answers_late_breaks_no_silence_before() {
    within(async {
        let (go, may_go) = async_std::channel::unbounded::<()>();
        let mut server = Server::new();
        server.get("/ws", move |mut ctx: RequestContext| {
            let may_go = may_go.clone();
            async move {
                let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
                while may_go.recv().await.is_ok() {
                    ws.send("late").await?;
                }
                Ok(())
            }
        });
        let mut ws = TestClient::new(&server).connect("/ws").await.unwrap();
        for _ in 0..100 {
            ws.expect_silence().await;
            go.send(()).await.unwrap();
            ws.expect_text("late").await;
            go.send(()).await.unwrap();
            assert!(failure(ws.expect_silence()).await.contains("found:    Text(\"late\")\n"));
        }
    });
}

#[test]
fn a_handler_that_blocks_its_thread_is_waited_for() {
    within(async {
        let mut server = Server::new();
        server.get("/ws", |mut ctx: RequestContext| async move {
            let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            while let Some(message) = ws.recv().await? {
                // Another thread goes on with the worker meanwhile.
                std::thread::sleep(Duration::from_millis(80));
                ws.send(message).await?;
            }
            Ok(())
        });
        let mut ws = TestClient::new(&server).connect("/ws").await.unwrap();
        ws.send("slow").await.unwrap();
        let text = failure(ws.expect_silence()).await;
        assert!(text.contains("found:    Text(\"slow\")\n"), "{text}");
    });
}

#[test]
fn a_message_breaks_the_silence_however_large_it_is_and_however_slowly_it_comes() {
    within(async {
        // Beyond 64 KiB it is not read ahead.
        for (len, line) in [
            (5, Line::new().chunk_size(1).capacity(1)),
            (70_000, Line::new().chunk_size(9).capacity(100)),
            (1_000_000, Line::new().chunk_size(5000)),
            (1_000_000, Line::new().capacity(1000)),
        ] {
            let mut ws = TestClient::new(&app()).over(&line).connect("/ws").await.unwrap();
            ws.send("x".repeat(len)).await.unwrap();
            let text = failure(ws.expect_silence()).await;
            assert!(text.contains("found:    Text(\"xxx"), "{len} bytes: {text}");
        }
    });
}
