//! Limits for each key that a handler says, such as an account.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;

use tidewire::limits::ConnectionLimit;
use tidewire::upgrade::UpgradeOptions;
use tidewire::{HandshakeError, RequestContext, Server, WebSocketOptions};

use super::{LONG, expect_101, leave, refusal, until};
use crate::support::frames::{CLOSE, TEXT, close, masked};
use crate::support::peer::echo;
use crate::support::tcp::{OPENING, Tcp, bind};

/// A server whose handler knows its users by the path, and ends as that says.
fn server(limit: &ConnectionLimit, seen: &Seen) -> Server {
    let (limit, seen) = (limit.clone(), seen.clone());
    let mut server = Server::new();
    server.get("/:user/:how", move |mut ctx: RequestContext| {
        let (limit, seen) = (limit.clone(), seen.clone());
        async move {
            let (user, how): (String, String) = (ctx.param("user")?, ctx.param("how")?);
            let options = UpgradeOptions::default().limit(&limit).limit_key(&user);
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            let _seen = seen.enter(&user);
            match &*how {
                "echo" => Ok(echo(ws).await?),
                "fails" => Err(std::io::Error::other("on purpose").into()),
                "panics" => panic!("on purpose"),
                _ => Ok(ws.recv().await.map(drop)?),
            }
        }
    });
    server
}

/// The number of handlers of each user: now, and at most.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<HashMap<String, (usize, usize)>>>);

struct Entered(Seen, String);

impl Seen {
    fn enter(&self, user: &str) -> Entered {
        let mut seen = self.0.lock().unwrap();
        let (now, most) = seen.entry(user.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        Entered(self.clone(), user.to_owned())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().get_mut(&self.1).unwrap().0 -= 1;
    }
}

/// The answer to an opening handshake at this path.
fn ask(addr: SocketAddr, path: &str) -> (u16, Tcp) {
    let mut client = Tcp::connect(addr);
    client.send(OPENING.replace("GET / ", &format!("GET {path} ")));
    let status = {
        let mut start = [0; 12];
        // The rest is for who cares.
        while client.socket.peek(&mut start).unwrap() < start.len() {}
        std::str::from_utf8(&start[9..]).unwrap().parse().unwrap()
    };
    (status, client)
}

fn has_no_key(limit: &ConnectionLimit) -> bool {
    limit.in_use() == 0 && format!("{limit:?}").contains("accounts: 0")
}

#[test]
fn each_key_has_so_many_connections_and_one_more_is_refused_as_by_other_limits() {
    let limit = ConnectionLimit::per_key(2);
    let addr = bind(server(&limit, &Seen::default()));
    let mut inside = vec![];
    for (path, expected) in
        [("/ada/echo", 101), ("/ada/echo", 101), ("/ada/echo", 503), ("/bob/echo", 101)]
    {
        let (status, mut client) = ask(addr, path);
        assert_eq!(status, expected, "{path}");
        if status == 101 {
            expect_101(&mut client);
            inside.push(client);
        } else {
            let refusal = refusal(&mut client);
            assert!(refusal.contains("retry-after: 5\r\n"), "{refusal}");
            let text = HandshakeError::LimitReached { retry_after: LONG }.to_string();
            assert!(refusal.contains(&text), "{refusal}");
        }
    }
    assert_eq!(["ada", "bob", "eve"].map(|key| limit.available_to_key(key)), [0, 1, 2]);
    assert_eq!((limit.in_use(), limit.available()), (3, 0));
    leave(inside.remove(0));
    until("one is free", || limit.available_to_key("ada") == 1);
    let (status, mut client) = ask(addr, "/ada/echo");
    assert_eq!(status, 101);
    expect_101(&mut client);
    leave(client);
    inside.into_iter().for_each(leave);
    until("no key is left", || has_no_key(&limit));
}

#[test]
fn a_key_has_no_more_connections_than_it_may_under_races_and_leaves_nothing_behind() {
    const MOST: usize = 2;
    let (limit, seen) = (ConnectionLimit::per_key(MOST), Seen::default());
    let addr = bind(server(&limit, &seen));
    let threads: Vec<_> = (0..6)
        .map(|thread: usize| {
            thread::spawn(move || {
                let mut refused = 0;
                for round in 0..30 {
                    let user = ["ada", "bob"][(thread + round / 10) % 2];
                    let how = ["echo", "fails", "panics", "returns"][(thread + round) % 4];
                    let (status, mut client) = ask(addr, &format!("/{user}/{how}"));
                    if status != 101 {
                        assert_eq!(status, 503);
                        refused += 1;
                        continue;
                    }
                    expect_101(&mut client);
                    match round % 3 {
                        // Gone without a word.
                        0 => {}
                        1 => client.send(masked(CLOSE, close(1000, ""))),
                        _ => client.send(masked(TEXT, "Hello")),
                    }
                }
                refused
            })
        })
        .collect();
    let refused: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    until("no key is left", || has_no_key(&limit));
    let seen = seen.0.lock().unwrap();
    assert!(refused > 0, "nobody was refused: {seen:?}");
    assert!(seen.values().all(|(now, most)| *now == 0 && *most <= MOST), "{seen:?}");
    assert_eq!(seen.len(), 2);
}

#[test]
fn requests_of_a_key_wait_for_permits_of_that_key() {
    let limit = ConnectionLimit::per_key(1).wait(LONG, 1);
    let addr = bind(server(&limit, &Seen::default()));
    let mut ada = Tcp::upgraded_at(addr, "/ada/echo");
    let mut waits = Tcp::connect(addr);
    waits.send(OPENING.replace("GET / ", "GET /ada/echo "));
    until("it waits", || limit.waiting() == 1);
    // The queue of this key is full, and that of another is not asked.
    assert_eq!(ask(addr, "/ada/echo").0, 503);
    leave(Tcp::upgraded_at(addr, "/bob/echo"));
    super::expect_echo(&mut ada);
    leave(ada);
    expect_101(&mut waits);
    leave(waits);
    until("no key is left", || has_no_key(&limit));
}

#[test]
fn a_handler_that_says_no_key_is_told_so_and_one_that_refuses_needs_none() {
    let (each, all) = (ConnectionLimit::per_key(1), ConnectionLimit::new(5));
    let mut server = Server::new();
    server.connection_limit(&each).connection_limit(&all);
    server.get("/forgets", |mut ctx: RequestContext| async move {
        Ok(echo(ctx.upgrade_to_websocket(WebSocketOptions::default()).await?).await?)
    });
    server.get("/refuses", |mut ctx: RequestContext| async move {
        ctx.reject_websocket(4401, "log in first").await
    });
    server.get("/knows", |mut ctx: RequestContext| async move {
        // Numbers and names are alike.
        let options = UpgradeOptions::default().limit_key(7);
        Ok(echo(ctx.upgrade_to_websocket(options).await?).await?)
    });
    let addr = bind(server);
    let (status, mut client) = ask(addr, "/forgets");
    assert_eq!(status, 500);
    let refusal = refusal(&mut client);
    assert!(refusal.contains(&HandshakeError::LimitKeyMissing.to_string()), "{refusal}");
    assert_eq!((each.in_use(), all.in_use()), (0, 0));

    let mut refused = Tcp::upgraded_at(addr, "/refuses");
    assert_eq!(refused.frame().close_code(), Some(4401));
    refused.send(masked(CLOSE, close(4401, "")));
    refused.expect_end();

    let inside = Tcp::upgraded_at(addr, "/knows");
    assert_eq!(each.available_to_key("7"), 0);
    assert_eq!(ask(addr, "/knows").0, 503);
    leave(inside);
    until("no key is left", || has_no_key(&each) && all.in_use() == 0);
}
