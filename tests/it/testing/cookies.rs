//! The cookies of a client: kept, sent, and those of one visitor.

use std::time::Duration;

use tidewire::testing::{TestClient, TestRequest};
use tidewire::{Reject, RequestContext, Server, WebSocketOptions};

use crate::support::peer::within;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn app() -> Server {
    let mut server = Server::new();
    server.get("/login/:name", |mut ctx: RequestContext| async move {
        let cookie = format!("session={}; Path=/; Max-Age=3600", ctx.param::<String>("name")?);
        ctx.response().insert_header("Set-Cookie", format!("{cookie}; Secure; HttpOnly"));
        Ok("welcome")
    });
    server.get("/logout", |mut ctx: RequestContext| async move {
        ctx.response().insert_header("Set-Cookie", "session=; Path=/; Max-Age=0");
        Ok("bye")
    });
    server.get("/me", |ctx: RequestContext| async move {
        Ok(ctx.header("cookie").unwrap_or("nobody").to_owned())
    });
    server.get("/ws", |mut ctx: RequestContext| async move {
        let Some(name) = ctx.cookie("session").map(str::to_owned) else {
            return Err(Reject::status(401, "log in first").header("Set-Cookie", "tried=1").into());
        };
        ctx.response().append_header("Set-Cookie", "socket=1; Path=/");
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        ws.send(name).await?;
        while ws.recv().await?.is_some() {}
        Ok(())
    });
    server
}

async fn text(request: TestRequest) -> String {
    request.send().await.unwrap().text().into_owned()
}

#[test]
fn a_cookie_of_a_login_goes_with_later_requests_and_handshakes() {
    within(async {
        let client = TestClient::new(&app());
        assert_eq!(text(client.get("/me")).await, "nobody");
        client.websocket("/ws").refused().await.assert_status(401);
        assert_eq!(client.cookie("tried").as_deref(), Some("1"), "of a refusal");
        assert_eq!(client.cookie("session"), None);

        assert_eq!(text(client.get("/login/ann")).await, "welcome");
        assert_eq!(text(client.get("/me")).await, "tried=1; session=ann");
        let mut ws = client.connect("/ws").await.unwrap();
        ws.expect_text("ann").await;
        assert_eq!(client.cookie("socket").as_deref(), Some("1"), "of an upgrade");
        client.peer("/ws").await.unwrap().expect_text("ann").await;
        assert_eq!(text(client.clone().get("/me")).await, "tried=1; session=ann; socket=1");

        assert_eq!(text(client.get("/logout")).await, "bye");
        client.websocket("/ws").refused().await.assert_status(401);
    });
}

#[test]
fn each_visitor_has_a_jar_and_some_have_none() {
    within(async {
        let ann = TestClient::new(&app());
        let (bob, nobody) = (ann.cookies(true), ann.cookies(false));
        for (client, login) in [(&ann, "/login/ann"), (&bob, "/login/bob"), (&nobody, "/login/no")]
        {
            assert_eq!(text(client.get(login)).await, "welcome");
        }
        assert_eq!(text(ann.get("/me")).await, "session=ann");
        assert_eq!(text(bob.patience(HOUR).get("/me")).await, "session=bob");
        assert_eq!(text(nobody.get("/me")).await, "nobody");
        assert_eq!(
            (ann.cookie("session").as_deref(), nobody.cookie("session")),
            (Some("ann"), None)
        );
        nobody.websocket("/ws").refused().await.assert_status(401);
    });
}

#[test]
fn a_cookie_of_the_test_takes_the_place_of_the_jar() {
    within(async {
        let client = TestClient::new(&app());
        assert_eq!(text(client.get("/login/ann")).await, "welcome");
        assert_eq!(text(client.get("/me").header("cookie", "a=1")).await, "a=1");
        client.websocket("/ws").header("Cookie", "a=1").refused().await.assert_status(401);
        let forged = client.websocket("/ws").header("Cookie", "session=eve").connect().await;
        forged.unwrap().expect_text("eve").await;
    });
}

#[test]
fn a_cookie_ages_with_the_time_that_the_test_turns() {
    within(async {
        let client = TestClient::new(&app());
        assert_eq!(text(client.get("/login/ann")).await, "welcome");
        client.advance(59 * MINUTE).await;
        assert_eq!(text(client.get("/me")).await, "session=ann");
        client.advance(MINUTE).await;
        assert_eq!(client.cookie("session"), None);
        assert_eq!(text(client.get("/me")).await, "nobody");
    });
}
