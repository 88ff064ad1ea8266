//! A login: a page, a session in a cookie, a WebSocket behind it that ends with the session, and logging out everywhere.
//!
//! Beside the dependencies in the README:
//!
//! ```toml
//! getrandom = "0.4"
//! serde = { version = "1", features = ["derive"] }
//! ```
//!
//! ```text
//! cargo run --release --example login
//! ```
//!
//! Then open <http://127.0.0.1:8080/> in two windows, and log in as `ada` with `lovelace`. What one window says, all
//! windows of the same user see. If the page comes from a development server of yours, name its origin:
//! `-- 127.0.0.1:8080 http://127.0.0.1:5173`.
//!
//! Behind TLS, add `Secure` to the cookie. A real program keeps hashes of passwords, made by a crate for that.

use std::collections::HashMap;
use std::env;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tidewire::tide::{Body, Response, StatusCode, http::mime};
use tidewire::upgrade::UpgradeOptions;
use tidewire::{HandlerResult, Hub, Reject, RequestContext, Server};

/// How long a session lasts.
const LASTS: Duration = Duration::from_secs(60 * 60);

/// Sessions at once. A login beyond is refused.
const MOST: usize = 10_000;

const USERS: [(&str, &str); 2] = [("ada", "lovelace"), ("grace", "hopper")];

#[async_std::main]
async fn main() -> tidewire::Result<()> {
    let addr = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let bound = server(env::args().skip(2).collect()).bind(addr.as_str()).await?;
    println!("listening on http://{}", bound.local_addr());
    bound.serve_until(tidewire::signals()).await?;
    Ok(())
}

fn server(origins: Vec<String>) -> Server<App> {
    let app = App { sessions: Arc::default(), users: Hub::new(), origins: origins.into() };
    let mut server = Server::with_state(app);
    server.get("/", page);
    server.post("/login", login);
    server.post("/logout-everywhere", logout_everywhere);
    server.get("/ws", talk);
    server
}

/// What handlers share.
#[derive(Clone)]
struct App {
    sessions: Arc<Mutex<HashMap<String, Session>>>,
    /// A room for each user: all connections of that user.
    users: Hub,
    /// Pages of these origins may connect, besides our own.
    origins: Arc<[String]>,
}

#[derive(Clone)]
struct Session {
    user: &'static str,
    until: Instant,
}

impl App {
    /// The session of a request, by its cookie.
    fn session(&self, ctx: &RequestContext<Self>) -> HandlerResult<Session> {
        let found = ctx.cookie("session").and_then(|token| self.find(token));
        Ok(found.ok_or(Reject::status(401, "log in first"))?)
    }

    fn find(&self, token: &str) -> Option<Session> {
        let session = self.with_sessions(|sessions| sessions.get(token).cloned())?;
        (session.until > Instant::now()).then_some(session)
    }

    /// Begins a session, and returns its token.
    fn begin(&self, user: &'static str) -> HandlerResult<String> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        let token = format!("{:032x}", u128::from_le_bytes(bytes));
        let now = Instant::now();
        let is_begun = self.with_sessions(|sessions| {
            sessions.retain(|_, session| session.until > now);
            let has_room = sessions.len() < MOST;
            if has_room {
                sessions.insert(token.clone(), Session { user, until: now + LASTS });
            }
            has_room
        });
        if is_begun { Ok(token) } else { Err(Reject::status(503, "come back later").into()) }
    }

    fn end_all(&self, user: &str) {
        self.with_sessions(|sessions| sessions.retain(|_, session| session.user != user));
    }

    fn with_sessions<T>(&self, run: impl FnOnce(&mut HashMap<String, Session>) -> T) -> T {
        run(&mut self.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Deserialize)]
struct Login {
    name: String,
    password: String,
}

/// Answers with the cookie. JSON, since a form of another site cannot send it.
async fn login(mut ctx: RequestContext<App>) -> HandlerResult<Response> {
    let Login { name, password } = ctx.body_json().await?;
    let user = USERS.iter().find(|user| **user == (&*name, &*password));
    let (user, _) = user.ok_or(Reject::status(401, "wrong name or password"))?;
    let token = ctx.state().begin(user)?;
    let age = LASTS.as_secs();
    let cookie = format!("session={token}; Max-Age={age}; Path=/; HttpOnly; SameSite=Lax");
    Ok(Response::builder(StatusCode::NoContent).header("Set-Cookie", cookie).build())
}

/// Ends all sessions of the user, and closes all connections.
async fn logout_everywhere(ctx: RequestContext<App>) -> HandlerResult<Response> {
    let app = ctx.state();
    let user = app.session(&ctx)?.user;
    app.end_all(user);
    let connections = app.users.room(user);
    for (id, _) in connections.members() {
        connections.close_member(id, 4401, "logged out")?;
    }
    let gone = "session=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax";
    Ok(Response::builder(StatusCode::NoContent).header("Set-Cookie", gone).build())
}

async fn talk(mut ctx: RequestContext<App>) -> HandlerResult {
    let app = ctx.state().clone();
    // A page cannot read the 401 of an opening handshake. It can read a close frame.
    let Ok(session) = app.session(&ctx) else {
        return ctx.reject_websocket(4401, "log in first").await;
    };
    let token = ctx.cookie("session").unwrap_or_default().to_owned();
    // A page of another site must not use the cookie of a visitor: by default only our own may connect.
    let options = UpgradeOptions::default().allow_origins(app.origins.iter().cloned());
    let mut ws = ctx.upgrade_to_websocket(options).await?;
    ws.expire_at(session.until, 4401, "the session is over")?;

    let windows = app.users.room(session.user);
    let _member = windows.join(&ws);
    // The user may have logged out before this connection was among those that are closed then.
    if app.find(&token).is_none() {
        return Err(Reject::close(4401, "logged out").into());
    }
    ws.send(format!("Hello, {}", session.user)).await?;
    while let Some(message) = ws.recv().await? {
        windows.broadcast(message);
    }
    Ok(())
}

async fn page(_: RequestContext<App>) -> HandlerResult<Body> {
    let mut page = Body::from(PAGE);
    page.set_mime(mime::HTML);
    Ok(page)
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Login</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
  body { max-width: 26rem; margin: 3rem auto; padding: 0 1rem; }
  form { display: flex; gap: .5rem; flex-wrap: wrap; margin: 1rem 0; }
  input { flex: 1 1 8rem; }
  input, button { font: inherit; padding: .4rem .7rem; border-radius: .4rem; border: 1px solid #8888; }
  #log { list-style: none; padding: 0; }
  #log li { padding: .3rem 0; border-bottom: 1px solid #8884; overflow-wrap: anywhere; }
  [hidden] { display: none !important; }
</style>
<h1>Login</h1>
<p id="state" role="status">…</p>
<form id="login" hidden>
  <input name="name" placeholder="Name" autocomplete="username" required>
  <input name="password" type="password" placeholder="Password" autocomplete="current-password" required>
  <button>Log in</button>
</form>
<form id="say" hidden>
  <input name="text" placeholder="Say something" autocomplete="off" required>
  <button>Send</button>
  <button type="button" id="out">Log out everywhere</button>
</form>
<ul id="log"></ul>
<script>
  const byId = (id) => document.getElementById(id);
  let socket;

  function show(state, isIn) {
    byId("state").textContent = state;
    byId("login").hidden = isIn;
    byId("say").hidden = !isIn;
  }

  function connect() {
    socket = new WebSocket(new URL("/ws", location.href.replace(/^http/, "ws")));
    socket.onopen = () => show("You are logged in.", true);
    socket.onmessage = ({ data }) => {
      const line = document.createElement("li");
      line.textContent = data;
      byId("log").append(line);
    };
    socket.onclose = ({ code, reason }) => {
      // 4401: only a login helps. All else is the network's, and may be tried again.
      if (code === 4401) return show(reason, false);
      show("The connection was lost.", true);
      setTimeout(connect, 1000 + 2000 * Math.random());
    };
  }

  byId("login").onsubmit = async (event) => {
    event.preventDefault();
    const body = JSON.stringify(Object.fromEntries(new FormData(event.target)));
    const headers = { "Content-Type": "application/json" };
    const response = await fetch("/login", { method: "POST", headers, body });
    if (response.ok) connect(); else show(await response.text(), false);
  };
  byId("say").onsubmit = (event) => {
    event.preventDefault();
    socket.send(event.target.text.value);
    event.target.reset();
  };
  byId("out").onclick = () => fetch("/logout-everywhere", { method: "POST" });
  connect();
</script>
"#;

#[cfg(test)]
mod tests {
    use tidewire::testing::TestClient;

    use super::*;

    const ADA: &str = r#"{"name":"ada","password":"lovelace"}"#;

    async fn log_in(client: &TestClient) -> tidewire::Result<()> {
        client.post("/login").body(ADA).send().await?.assert_status(204);
        Ok(())
    }

    #[async_std::test]
    async fn a_session_begins_with_the_right_password_and_ends_after_its_time()
    -> tidewire::Result<()> {
        let client = TestClient::new(&server(Vec::new()));
        let mut stranger = client.connect("/ws").await?;
        assert_eq!(stranger.expect_close(4401).await.reason, "log in first");
        let wrong = client.post("/login").body(r#"{"name":"ada","password":"x"}"#).send().await?;
        wrong.assert_status(401).assert_text("wrong name or password");

        log_in(&client).await?;
        let mut ws = client.connect("/ws").await?;
        ws.expect_text("Hello, ada").await;
        client.advance(LASTS).await;
        assert_eq!(ws.expect_close(4401).await.reason, "the session is over");
        Ok(())
    }

    #[async_std::test]
    async fn who_logs_out_everywhere_is_out_in_all_windows() -> tidewire::Result<()> {
        let client = TestClient::new(&server(Vec::new()));
        log_in(&client).await?;
        let mut windows = [client.connect("/ws").await?, client.connect("/ws").await?];
        for ws in &mut windows {
            ws.expect_text("Hello, ada").await;
        }
        windows[0].send("tea").await?;
        for ws in &mut windows {
            ws.expect_text("tea").await;
        }
        client.post("/logout-everywhere").send().await?.assert_status(204);
        for ws in &mut windows {
            assert_eq!(ws.expect_close(4401).await.reason, "logged out");
        }
        client.connect("/ws").await?.expect_close(4401).await;
        Ok(())
    }

    #[async_std::test]
    async fn a_page_of_another_site_cannot_use_the_cookie() -> tidewire::Result<()> {
        let client = TestClient::new(&server(vec!["http://localhost:5173".to_owned()]));
        log_in(&client).await?;
        let evil = client.websocket("/ws").origin("https://evil.example").refused().await;
        evil.assert_status(403);
        let mut ws = client.websocket("/ws").origin("http://localhost:5173").connect().await?;
        ws.expect_text("Hello, ada").await;
        Ok(())
    }
}
