//! What a test says when it fails, and that it does.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::FutureExt;
use tidewire::limits::ConnectionLimit;
use tidewire::testing::{Line, RawFrame, TestClient, TestResponse};
use tidewire::{RequestContext, Server, WebSocketOptions};

use super::{SOON, echo, within};

/// The message that a test fails with.
async fn failure<T>(test: impl Future<Output = T>) -> String {
    let Err(panic) = AssertUnwindSafe(test).catch_unwind().await else {
        panic!("the test passes, and should not");
    };
    *panic.downcast().unwrap()
}

fn assertion(assert: impl FnOnce()) -> String {
    *catch_unwind(AssertUnwindSafe(assert)).unwrap_err().downcast().unwrap()
}

type Assertion = fn(&TestResponse);

#[test]
fn an_assertion_shows_the_answer() {
    let mut server = Server::new();
    server.get("/list", |mut ctx: RequestContext| async move {
        ctx.response().insert_header("x-one", "1");
        Ok("first line\nsecond line\n")
    });
    server.get("/long", |_ctx: RequestContext| async { Ok("x".repeat(5000)) });
    let client = TestClient::new(&server);
    let response = within(client.get("/list?page=2").send()).unwrap();
    let assertions: [(Assertion, &str); 6] = [
        (
            |it| {
                it.assert_status(404);
            },
            "200 instead of 404\n",
        ),
        (
            |it| {
                it.assert_header("x-one", "2");
            },
            "x-one is Some(\"1\"), not \"2\"\n",
        ),
        (
            |it| {
                it.assert_no_header("X-One");
            },
            "there should be no X-One\n",
        ),
        (
            |it| {
                it.assert_text("else");
            },
            "the body is not \"else\"\n",
        ),
        (
            |it| {
                it.assert_contains("else");
            },
            "no \"else\" in the body\n",
        ),
        (
            |it| {
                it.assert_json([1, 2]);
            },
            "the body is not [1,2]\n",
        ),
    ];
    for (assert, begin) in assertions {
        let message = assertion(|| assert(&response));
        assert!(message.starts_with(begin), "{message}");
        assert!(message.contains("\nGET /list?page=2 was answered with 200\n"), "{message}");
        assert!(message.contains("\n  x-one: 1\n"), "{message}");
        assert!(message.ends_with("\n\n  first line\n  second line"), "{message}");
    }
    let long = within(client.get("/long").send()).unwrap();
    assert!(format!("{long:?}").ends_with("xxx… (5000 bytes)"));
}

#[test]
fn a_failed_expectation_shows_the_bytes_and_the_line_of_the_test() {
    let client = echo(WebSocketOptions::default());
    within(async {
        let mut peer = client.peer("/ws").await.unwrap();
        let mut hello = async || {
            peer.send_frame(RawFrame::text("Hello")).await.unwrap();
        };
        for _ in 0..6 {
            hello().await;
        }
        let line = line!();
        let messages = [
            failure(peer.expect_text("Hullo")).await,
            failure(peer.expect_close(1000)).await,
            failure(peer.expect_hex("81 05 48656c6c70")).await,
            failure(peer.expect_bytes(b"\x81\x06Hello")).await,
        ];
        let begins = [
            "Frame { fin: true, opcode: Text,",
            "Frame { fin: true, opcode: Text,",
            "810548656c6c6f came instead of 810548656c6c70",
            "810548656c6c6f came instead of 810648656c6c6f",
        ];
        for ((message, begin), number) in messages.iter().zip(begins).zip(line + 2..) {
            assert!(message.starts_with(begin), "{message}");
            assert!(message.contains(&format!("{}:{number}:", file!())), "{message}");
        }
        assert!(peer.send_hex("8").await.is_err());
        let message = assertion(|| drop(peer.expect_hex("8 g")));
        assert!(message.contains("not bytes in hex") && message.contains(file!()), "{message}");

        let mut peer = client.peer("/ws").await.unwrap();
        peer.send_frame(RawFrame::close(4000, "enough")).await.unwrap();
        let message = failure(peer.expect_close(1000)).await;
        assert!(message.starts_with("a close frame with 4000 \"\" came instead of"), "{message}");
        let message = failure(peer.expect_text("Hello")).await;
        assert!(message.contains("unexpected end of file"), "{message}");

        let mut peer = client.peer("/ws").await.unwrap();
        peer.send_frame(RawFrame::close(1000, "")).await.unwrap();
        let message = failure(peer.end_of_stream()).await;
        assert!(message.starts_with("880203e8 came before the end"), "{message}");
    });
}

#[test]
fn a_missing_event_is_reported_when_patience_is_over() {
    let mut server = Server::new();
    server.get("/never", |_ctx: RequestContext| std::future::pending::<tidewire::HandlerResult>());
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        ws.recv().await?;
        Ok(())
    });
    within(async {
        let client = TestClient::new(&server).patience(SOON);
        let error = client.get("/never?a=b").send().await.unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "I/O failed: no whole answer to GET /never?a=b within 30ms"
        );
        let error = client.connect("/never").await.unwrap_err();
        assert!(error.is_timeout() && format!("{error:#}").contains("in time"), "{error:#}");

        let client = TestClient::new(&server).patience(SOON);
        let mut peer = client.peer("/ws").await.unwrap();
        let error = peer.recv_frame().await.unwrap_err();
        assert_eq!(format!("{error:#}"), "I/O failed: no frame came within 30ms");
        let error = peer.rest().await.unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "I/O failed: the server did not end the stream within 30ms"
        );
        let message = failure(client.idle()).await;
        assert!(message.starts_with("1 connections or handlers are left, and not 0:"), "{message}");
        assert!(message.contains("0 speak HTTP, and 1 WebSocket"), "{message}");
        assert!(message.contains(file!()), "{message}");

        // A handler that does not read, and a line that holds no more.
        let mut peer = client.over(&Line::new().capacity(200)).peer("/ws").await.unwrap();
        let error = peer.send_bytes(vec![0x81; 1 << 20]).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "I/O failed: the server did not read within 30ms");
    });
}

#[test]
fn a_refusal_that_does_not_come_fails_the_test() {
    let client = echo(WebSocketOptions::default());
    within(async {
        let message = failure(client.websocket("/ws").refused()).await;
        assert!(message.starts_with("GET /ws was upgraded, and should be refused"), "{message}");
        let upgrade = client.websocket("/ws").header("Upgrade", "h2c");
        let message = failure(upgrade.refused()).await;
        assert!(message.starts_with("GET /ws should be refused: the header"), "{message}");
        client.shutdown().await;
        let message = failure(client.websocket("/ws").refused()).await;
        assert!(message.contains("the server has been shut down"), "{message}");
    });
}

#[test]
fn a_server_that_could_not_be_bound_is_told_at_once() {
    let mut server = Server::new();
    server.connection_limit(&ConnectionLimit::new(0));
    let message = assertion(|| drop(TestClient::new(&server)));
    assert!(
        message
            .starts_with("I/O failed: connection_limit is 0, so no connection could be opened\n"),
        "{message}"
    );
    assert!(message.contains(file!()), "{message}");
}
