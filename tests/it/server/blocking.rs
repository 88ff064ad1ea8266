//! Code that blocks, on threads where it holds up no connection.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use futures::FutureExt;
use futures::channel::oneshot;
use tidewire::server::ServerOptions;
use tidewire::{RequestContext, Server, blocking};

use super::{GET, start};
use crate::support::peer::{WITHIN, within};
use crate::support::tcp::Tcp;

#[test]
fn a_closure_that_blocks_runs_on_another_thread_and_tells_its_value() {
    let (here, there) = within(async {
        let there = blocking(|| thread::current().id()).await;
        (thread::current().id(), there)
    });
    assert_ne!(here, there);
}

#[test]
fn connections_of_the_same_worker_go_on_meanwhile() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Arc::new(Mutex::new(may_go_on));
    let (tell, begun) = mpsc::channel();
    let mut server = Server::new();
    server.options(ServerOptions::default().workers(1));
    server.get("/blocks", move |_ctx: RequestContext| {
        let (may_go_on, tell) = (may_go_on.clone(), tell.clone());
        async move {
            let run = move || {
                tell.send(()).unwrap();
                may_go_on.lock().unwrap().recv_timeout(WITHIN).unwrap();
                "unblocked"
            };
            Ok(blocking(run).await)
        }
    });
    server.get("/", |_ctx: RequestContext| async { Ok("meanwhile") });
    let handle = start(server);
    let mut blocked = Tcp::connect(handle.local_addr());
    blocked.send("GET /blocks HTTP/1.1\r\nHost: x\r\n\r\n");
    begun.recv_timeout(WITHIN).unwrap();

    let mut other = Tcp::connect(handle.local_addr());
    other.send(GET);
    assert!(other.head().starts_with("HTTP/1.1 200 OK\r\n"));
    other.expect("meanwhile");
    go_on.send(()).unwrap();
    assert!(blocked.head().starts_with("HTTP/1.1 200 OK\r\n"));
    blocked.expect("unblocked");
}

#[test]
fn a_panic_of_the_closure_goes_on_in_the_task_that_waits() {
    let running = blocking(|| -> u8 { panic!("on purpose") });
    let panic = within(AssertUnwindSafe(running).catch_unwind()).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
}

/// A value that panics when it is dropped, after it has told so.
struct Bomb(Option<oneshot::Sender<()>>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.take().unwrap().send(()).unwrap();
        panic!("on purpose");
    }
}

#[test]
fn a_closure_nobody_waits_for_runs_to_its_end_and_its_value_is_dropped() {
    for is_polled in [false, true] {
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let (tell, dropped) = oneshot::channel();
        let mut running = blocking(move || {
            may_go_on.recv_timeout(WITHIN).unwrap();
            Bomb(Some(tell))
        });
        if is_polled {
            assert!((&mut running).now_or_never().is_none());
        }
        drop(running);
        go_on.send(()).unwrap();
        within(dropped).unwrap();
    }
}
