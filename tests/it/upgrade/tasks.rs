//! Tasks beside a handler, which end with the request or the connection.

use std::future::{Future, pending};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use futures::channel::{mpsc, oneshot};
use futures::{SinkExt, StreamExt, TryStreamExt};
use tidewire::frame::Role;
use tidewire::server::ServerOptions;
use tidewire::{RequestContext, Server, WebSocket, WebSocketOptions};

use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{self, within};
use crate::support::pipe::{Knobs, pipe};
use crate::support::tcp::{OPENING, Tcp, bind};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// Tells when it is dropped.
type Life = oneshot::Sender<()>;

/// A future that never ends, and the end of its life.
fn endless() -> (impl Future<Output = ()> + Send + 'static, oneshot::Receiver<()>) {
    let (life, dropped) = oneshot::channel::<()>();
    let future = async move {
        let _life: Life = life;
        pending::<()>().await;
    };
    (future, dropped)
}

/// A server whose handler gets all that `tell` has put into the channel, and one connection at a time.
fn server<F, Fut>(workers: usize, handler: F) -> Server
where
    F: Fn(RequestContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = tidewire::HandlerResult> + Send + 'static,
{
    let mut server = Server::new();
    server.options(ServerOptions::default().workers(workers));
    server.get("/", handler);
    server
}

/// Waits for the end of a life.
fn expect_end(dropped: oneshot::Receiver<()>) {
    assert!(within(dropped).is_err(), "a life says nothing before it ends");
}

/// The next of what handlers have told.
fn next<T>(told: &mut mpsc::UnboundedReceiver<T>) -> T {
    within(told.next()).unwrap()
}

#[test]
fn a_task_of_a_connection_runs_on_its_thread_and_ends_with_it() {
    for workers in [2, 0] {
        let (tell, mut told) = mpsc::unbounded();
        let threads = Arc::new(Mutex::new(Vec::<ThreadId>::new()));
        let seen = Arc::clone(&threads);
        let addr = bind(server(workers, move |mut ctx: RequestContext| {
            let (tell, seen) = (tell.clone(), Arc::clone(&seen));
            async move {
                let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
                seen.lock().unwrap().push(thread::current().id());
                let (sender, own) = (ws.sender(), Arc::clone(&seen));
                let greeting = ws.spawn(async move {
                    own.lock().unwrap().push(thread::current().id());
                    sender.send("hello").await
                });
                assert!(greeting.await.unwrap().is_ok());
                let (task, dropped) = endless();
                ws.spawn(task);
                tell.unbounded_send(dropped).unwrap();
                Ok(peer::echo(ws).await?)
            }
        }));
        let mut client = Tcp::upgraded(addr);
        client.expect(plain(TEXT, "hello"));
        let mut dropped = next(&mut told);
        // Messages wake and end nothing.
        for _ in 0..3 {
            client.send(masked(TEXT, "?"));
            client.expect(plain(TEXT, "?"));
        }
        assert!(matches!(dropped.try_recv(), Ok(None)));
        client.send(masked(CLOSE, close(1000, "")));
        client.expect(plain(CLOSE, close(1000, "")));
        drop(client);
        expect_end(dropped);
        let threads = threads.lock().unwrap();
        assert!(workers == 0 || threads[0] == threads[1], "{threads:?}");
    }
}

#[test]
fn a_task_of_a_connection_can_be_cancelled_and_may_panic() {
    let (tell, mut told) = mpsc::unbounded();
    let addr = bind(server(1, move |mut ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            assert_eq!(ws.spawn(async { panic!("on purpose") }).await, None::<()>);
            let (task, dropped) = endless();
            let task = ws.spawn(task);
            task.cancel();
            assert_eq!(task.await, None);
            tell.unbounded_send(dropped).unwrap();
            Ok(peer::echo(ws).await?)
        }
    }));
    let mut client = Tcp::upgraded(addr);
    expect_end(next(&mut told));
    client.send(masked(TEXT, "still here"));
    client.expect(plain(TEXT, "still here"));
}

#[test]
fn a_task_of_a_connection_without_a_task_ends_with_its_websocket() {
    let (near, _far) = pipe(Knobs::default());
    let options = WebSocketOptions::default();
    let ws = WebSocket::from_stream(near, [].as_slice(), Role::Client, &options);
    let (task, mut dropped) = endless();
    ws.spawn(task);
    assert_eq!(within(ws.spawn(async { 7 })), Some(7));
    assert!(matches!(dropped.try_recv(), Ok(None)));
    drop(ws);
    expect_end(dropped);
}

#[test]
fn a_task_of_a_request_ends_when_its_response_is_there() {
    let (tell, mut told) = mpsc::unbounded();
    let addr = bind(server(1, move |ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            let (task, dropped) = endless();
            ctx.spawn(task);
            tell.unbounded_send(dropped).unwrap();
            Ok(())
        }
    }));
    let mut client = Tcp::connect(addr);
    client.send(GET);
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    expect_end(next(&mut told));
}

#[test]
fn a_task_of_a_request_lives_until_the_body_of_its_response_is_sent() {
    let (tell, mut told) = mpsc::unbounded();
    let mut server = Server::new();
    server.get("/", move |ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            let (mut lines, body) = mpsc::channel::<std::io::Result<String>>(0);
            let (may_end, end) = oneshot::channel::<()>();
            let (life, dropped) = oneshot::channel::<()>();
            tell.unbounded_send((may_end, dropped)).unwrap();
            ctx.spawn(async move {
                let _life: Life = life;
                lines.send(Ok("begin ".to_owned())).await.unwrap();
                end.await.unwrap();
                lines.send(Ok("end".to_owned())).await.unwrap();
                drop(lines);
                pending::<()>().await;
            });
            Ok(tide::Body::from_reader(body.into_async_read(), Some(9)))
        }
    });
    let mut client = Tcp::connect(bind(server));
    client.send(GET);
    let head = client.head();
    assert!(head.contains("content-length: 9\r\n"), "{head}");
    assert!(head.contains("content-type: application/octet-stream\r\n"), "{head}");
    assert_eq!(client.read(6), b"begin ");
    let (may_end, mut dropped) = next(&mut told);
    assert!(matches!(dropped.try_recv(), Ok(None)));
    may_end.send(()).unwrap();
    assert_eq!(client.read(3), b"end");
    expect_end(dropped);
}

#[test]
fn a_task_of_a_request_ends_with_a_client_that_does_not_wait() {
    let (tell, mut told) = mpsc::unbounded();
    let addr = bind(server(1, move |ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            let (task, dropped) = endless();
            ctx.spawn(task);
            tell.unbounded_send(dropped).unwrap();
            pending().await
        }
    }));
    let mut client = Tcp::connect(addr);
    client.send(GET);
    let dropped = next(&mut told);
    socket2::SockRef::from(&client.socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    expect_end(dropped);
}

#[test]
fn a_task_of_a_request_goes_on_after_the_upgrade_and_ends_with_the_connection() {
    let (tell, mut told) = mpsc::unbounded();
    let addr = bind(server(1, move |mut ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            let [before, after] = [endless(), endless()];
            ctx.spawn(before.0);
            let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            ctx.spawn(after.0);
            tell.unbounded_send([before.1, after.1]).unwrap();
            peer::echo(ws).await?;
            // The connection ends, and the handler does not.
            pending().await
        }
    }));
    let mut client = Tcp::upgraded(addr);
    let mut lives = next(&mut told);
    client.send(masked(TEXT, "?"));
    client.expect(plain(TEXT, "?"));
    assert!(lives.iter_mut().all(|dropped| matches!(dropped.try_recv(), Ok(None))));
    drop(client);
    lives.into_iter().for_each(expect_end);
}

#[test]
fn a_task_of_a_request_ends_with_an_upgrade_that_fails() {
    let (tell, mut told) = mpsc::unbounded();
    let addr = bind(server(1, move |mut ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            let (task, dropped) = endless();
            ctx.spawn(task);
            tell.unbounded_send(dropped).unwrap();
            ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            Ok(())
        }
    }));
    let mut client = Tcp::connect(addr);
    client.send(OPENING.replace("Version: 13", "Version: 12"));
    assert!(client.head().starts_with("HTTP/1.1 426 "));
    expect_end(next(&mut told));
}
