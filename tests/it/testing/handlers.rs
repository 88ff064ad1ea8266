//! Handlers that fail, and so fail the test, unless it asks for them; and refusals, which do not.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidewire::server::Json;
use tidewire::testing::{RawFrame, TestClient};
use tidewire::{Reject, RequestContext, Server, WebSocketOptions};

use super::SOON;
use super::sockets::failure;
use crate::support::peer::within;

fn app() -> Server {
    let mut server = Server::new();
    server.get("/fine", |_: RequestContext| async { Ok("fine") });
    server.get("/error/:id", |_: RequestContext| async {
        let error = std::io::Error::other("the database is gone");
        Err::<&str, _>(anyhow::Error::new(error).context("no lot").into())
    });
    server.get("/panic", |_: RequestContext| async {
        panic!("on {}", "purpose") as tidewire::HandlerResult
    });
    server.get("/no-json", |_: RequestContext| async { Ok(Json(HashMap::from([((1, 2), 3)]))) });
    server.get("/at-once", |ctx: RequestContext| {
        assert!(ctx.header("host").is_none(), "before the future");
        async { Ok("fine") }
    });
    server.get("/reject/:status", |ctx: RequestContext| async move {
        Err::<&str, _>(Reject::status(ctx.param("status")?, "no").into())
    });
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while let Some(message) = ws.recv().await? {
            match message.as_text() {
                Some("error") => return Err(std::io::Error::other("the database is gone").into()),
                Some("panic") => panic!("on purpose"),
                // Of another connection: this one goes on.
                Some("upstream") => return Err(tidewire::Error::Closed.into()),
                Some("json") => drop(message.parse::<u32>()?),
                Some("kick") => return Err(Reject::close(4003, "kicked").into()),
                Some("busy") => return Err(Reject::close(1013, "later").into()),
                Some("send after the close") => {
                    ws.close(1000, "").await?;
                    ws.send("late").await?;
                }
                _ => ws.send(message).await?,
            }
        }
        Ok(())
    });
    server
}

/// What a test fails with whose last client is dropped.
fn dropped(client: TestClient) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(client))).expect_err("the test passes");
    *panic.downcast().unwrap()
}

const BEGIN: &str = "a handler has failed, and the test has not asked about it:\n  ";
const END: &str =
    "\n  `TestClient::failures` takes what has failed, and `expect_failure` waits for it";

#[test]
fn a_handler_that_has_failed_fails_the_test_at_the_next_request() {
    within(async {
        let client = TestClient::new(&app());
        client.get("/error/7").send().await.unwrap().assert_status(500);
        let text = failure(client.get("/fine").send()).await;
        let said = "GET /error/:id failed: no lot: the database is gone";
        assert!(text.starts_with(&format!("{BEGIN}{said}{END}\n  in ")), "{text}");
        assert!(text.contains(file!()), "{text}");
        // It has been told of.
        client.get("/fine").send().await.unwrap().assert_status(200);

        client.get("/panic").send().await.unwrap().assert_status(500);
        let text = failure(client.connect("/ws")).await;
        assert!(
            text.starts_with(&format!("{BEGIN}GET /panic panicked: on purpose{END}\n")),
            "{text}"
        );
        client.get("/at-once").send().await.unwrap().assert_status(500);
        let text = failure(async { client.open().map(drop) }).await;
        let said = "GET /at-once panicked: before the future";
        assert!(text.starts_with(&format!("{BEGIN}{said}{END}\n")), "{text}");
    });
}

#[test]
fn a_handler_that_has_failed_fails_the_test_at_its_end() {
    for (message, said) in [
        ("error", "GET /ws failed: the database is gone"),
        ("panic", "GET /ws panicked: on purpose"),
        ("send after the close", ""),
    ] {
        let client = TestClient::new(&app());
        within(async {
            let mut ws = client.connect("/ws").await.unwrap();
            ws.send(message).await.unwrap();
            // With a worker, the client that is dropped waits for what becomes of it.
            if client.metrics().workers.is_empty() {
                ws.expect_close(if said.is_empty() { 1000 } else { 1011 }).await;
            }
        });
        if said.is_empty() {
            drop(client);
        } else {
            assert_eq!(dropped(client), format!("{BEGIN}{said}{END}"));
        }
    }
    let client = TestClient::new(&app());
    within(client.get("/reject/500").send()).unwrap().assert_status(500);
    within(client.failures());
    within(client.get("/reject/502").send()).unwrap().assert_status(502);
    assert_eq!(dropped(client), format!("{BEGIN}GET /reject/:status failed: no{END}"));
    // The error is one of a connection, but not of this one.
    let client = TestClient::new(&app());
    within(async {
        let mut ws = client.connect("/ws").await.unwrap();
        ws.send("upstream").await.unwrap();
        ws.expect_close(1011).await;
    });
    assert!(dropped(client).starts_with(&format!("{BEGIN}GET /ws failed: ")));
    // It has returned `Ok`, with a value that is no answer.
    let client = TestClient::new(&app());
    within(client.get("/no-json").send()).unwrap().assert_status(500);
    let text = dropped(client);
    assert!(text.starts_with(&format!("{BEGIN}GET /no-json failed: key must be a")), "{text}");
}

#[test]
fn a_test_that_fails_already_says_that_and_no_more() {
    let panic = catch_unwind(|| {
        let client = TestClient::new(&app());
        within(client.get("/panic").send()).unwrap().assert_status(200);
    });
    let text: String = *panic.unwrap_err().downcast().unwrap();
    assert!(text.starts_with("500 instead of 200\n"), "{text}");
}

#[test]
fn a_test_that_asks_for_a_failure_goes_on() {
    within(async {
        let client = TestClient::new(&app());
        let mut ws = client.connect("/ws").await.unwrap();
        ws.send("panic").await.unwrap();
        let failed = client.expect_failure("on purpose").await;
        assert_eq!(
            (failed.route(), failed.text(), failed.is_panic()),
            ("GET /ws", "on purpose", true)
        );
        ws.expect_close(1011).await;
        client.get("/error/7").send().await.unwrap().assert_status(500);
        let failed = client.expect_failure("GET /error/:id failed: no lot").await;
        assert_eq!(failed.to_string(), "GET /error/:id failed: no lot: the database is gone");
        assert!(!failed.is_panic());

        let mut ws = client.connect("/ws").await.unwrap();
        ws.send("error").await.unwrap();
        let failures = client.failures().await;
        assert_eq!(failures.len(), 1, "those that come from what was sent before: {failures:?}");
        assert_eq!(client.failures().await, []);
    });
}

#[test]
fn a_failure_that_does_not_come_fails_the_test() {
    within(async {
        let client = TestClient::new(&app());
        client.get("/error/7").send().await.unwrap().assert_status(500);
        let text = failure(client.patience(SOON).expect_failure("on purpose")).await;
        assert!(text.starts_with("no handler has failed with \"on purpose\" within "), "{text}");
        let others = "these handlers have failed:\n    GET /error/:id failed: no lot: the database is gone\n";
        assert!(text.contains(others), "{text}");
    });
}

#[test]
fn failures_may_be_allowed() {
    within(async {
        let client = TestClient::new(&app()).allow_failures();
        client.get("/panic").send().await.unwrap().assert_status(500);
        client.get("/error/7").send().await.unwrap().assert_status(500);
        assert_eq!(client.failures().await, []);
    });
}

#[test]
fn what_refuses_a_client_and_what_a_client_breaks_is_no_failure() {
    within(async {
        let client = TestClient::new(&app());
        for status in [400, 404, 503] {
            let response = client.get(&format!("/reject/{status}")).send().await.unwrap();
            response.assert_status(status);
        }
        client.get("/reject/none").send().await.unwrap().assert_status(400);
        client.get("/ws").send().await.unwrap().assert_status(400);
        client.get("/nowhere").send().await.unwrap().assert_status(404);
        for (message, code) in [("json", 1007), ("kick", 4003), ("busy", 1013)] {
            let mut ws = client.connect("/ws").await.unwrap();
            ws.send(message).await.unwrap();
            ws.expect_close(code).await;
        }
        // The handlers end with an error of `recv` or `send`.
        let mut peer = client.peer("/ws").await.unwrap();
        peer.send_frame(RawFrame::text("a").unmasked()).await.unwrap();
        peer.expect_close(1002).await;
        let mut peer = client.peer("/ws").await.unwrap();
        peer.send_frame(RawFrame::text("a")).await.unwrap();
        peer.line().cut();
        drop(client.peer("/ws").await.unwrap());
        drop(client.connect("/ws").await.unwrap());
        assert_eq!(client.failures().await, []);
    });
}
