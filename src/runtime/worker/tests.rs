//! Foreign code and other threads against a worker.

use std::future::{Future, poll_fn};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::io::{AsyncRead, AsyncReadExt};

use super::pass::wait_until;
use super::readiness::{Direction, Source};
use super::{Worker, Workers, current};
use crate::runtime::socket::Socket;
use crate::runtime::{Clock, Timer, Tokio, block_on, yield_now};

/// A deadline that no test needs.
const LONG: Duration = Duration::from_secs(3600);

fn within<T>(future: impl Future<Output = T>) -> T {
    let limit = Some(Duration::from_secs(30));
    block_on(Clock::default().timeout(limit, future)).expect("it ends in time")
}

/// Runs `future` on the workers, and waits for its value.
fn run<T: Send + 'static>(
    workers: &Workers,
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    let (tell, told) = oneshot::channel();
    workers.spawn(async move {
        let _ = tell.send(future.await);
    });
    within(told).unwrap()
}

/// Waits until the workers have ended.
fn end(workers: Workers) {
    let ended = workers.end();
    drop(workers);
    within(ended);
}

fn worker_of(workers: &Workers) -> Arc<Worker> {
    run(workers, async { current().unwrap() })
}

/// Two ends of a connection, of which neither blocks.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    for end in [&socket, &client] {
        end.set_nonblocking(true).unwrap();
    }
    (socket, client)
}

/// A waker that does something when its last clone is dropped.
struct OnDrop(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl OnDrop {
    fn waker(act: impl FnOnce() + Send + 'static) -> Waker {
        Waker::from(Arc::new(Self(Mutex::new(Some(Box::new(act))))))
    }
}

impl Wake for OnDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        let act = self.0.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
    }
}

/// Leaves the only clone of the waker with a socket of this thread's worker.
fn leave(waker: Waker, socket: &mut Socket<TcpStream>) {
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(socket).poll_read(&mut cx, &mut [0]).is_pending());
    drop(waker);
}

fn is_ready(source: &Source, direction: Direction) -> bool {
    source.poll_ready(&mut Context::from_waker(Waker::noop()), direction).is_ready()
}

/// The waker of an old reader of the socket is dropped when the socket's number is freed.
fn close_with(waker: impl FnOnce() -> Waker + Send + 'static) {
    let workers = Workers::start(1, Tokio::default()).unwrap();
    let (socket, _client) = pair();
    run(&workers, async move {
        let mut socket = Socket::accepted(socket);
        leave(waker(), &mut socket);
        drop(socket);
    });
    // The number is free before the worker polls next.
    for _ in 0..3 {
        run(&workers, yield_now());
    }
    end(workers);
}

#[test]
fn a_waker_that_panics_when_its_socket_is_freed_ends_no_worker() {
    close_with(|| OnDrop::waker(|| panic!("on purpose")));
}

#[test]
fn a_waker_may_close_another_socket_when_its_own_is_freed() {
    close_with(|| {
        let (other, client) = pair();
        let mut other = Socket::accepted(other);
        leave(Waker::noop().clone(), &mut other);
        OnDrop::waker(move || drop((other, client)))
    });
}

#[test]
fn a_waker_that_panics_when_its_timer_lets_it_go_harms_nobody() {
    let workers = Workers::start(1, Tokio::default()).unwrap();
    let bomb = || OnDrop::waker(|| panic!("on purpose"));
    let waiting = |waker: Waker| {
        let (mut timer,) =
            run(&workers, async { (Clock::default().timer(Instant::now() + LONG),) });
        assert!(Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_pending());
        timer
    };
    let timer = waiting(bomb());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(timer))).is_ok());
    let mut timer = waiting(bomb());
    let again = || Pin::new(&mut timer).poll(&mut Context::from_waker(Waker::noop())).is_pending();
    assert!(catch_unwind(AssertUnwindSafe(again)).unwrap());
    let mut timer = waiting(bomb());
    timer.set_at(Instant::now());
    let end = || Pin::new(&mut timer).poll(&mut Context::from_waker(Waker::noop())).is_ready();
    assert!(catch_unwind(AssertUnwindSafe(end)).unwrap());
}

#[test]
fn a_panic_whose_payload_panics_ends_no_worker() {
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }

    let workers = Workers::start(1, Tokio::default()).unwrap();
    workers.spawn(async { panic_any(Bomb) });
    run(&workers, yield_now());
    end(workers);
}

#[test]
fn a_number_is_given_to_no_other_socket_while_an_event_for_it_may_be_fetched() {
    let worker = Worker::new(Arc::default()).unwrap();
    let register = |end: TcpStream| {
        let mut end = mio::net::TcpStream::from_std(end);
        let (key, source) = worker.register(&mut end).unwrap();
        (end, key, source)
    };
    let (end, mut peer) = pair();
    let (mut old, old_key, _) = register(end);
    peer.write_all(b"for the old one").unwrap();
    worker.deregister(&mut old, old_key);
    let (end, _second_peer) = pair();
    let (_second, second_key, _) = register(end);
    assert_ne!(second_key, old_key);
    worker.free_closed(&mut Vec::new());
    let (end, _third_peer) = pair();
    let (_third, third_key, source) = register(end);
    assert_eq!(third_key, old_key);
    // What it begins with is cleared, and what it gets is its own.
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(seen) = source.poll_ready(&mut cx, Direction::Read) else { panic!() };
    source.clear(seen, Direction::Read);
    let mut found = Vec::new();
    worker.poll(&mut found);
    assert!(found.iter().any(|(of, _)| Arc::ptr_eq(of, &source)), "it can be written to");
    assert!(!is_ready(&source, Direction::Read));
}

#[test]
fn a_wait_of_months_is_cut() {
    let now = Instant::now();
    // What `epoll_wait` takes, in milliseconds.
    for days in [1, 24, 25, 49, 50, 30 * 365] {
        let wait = wait_until(now + Duration::from_secs(days * 24 * 60 * 60), now);
        assert!(i32::try_from(wait.as_millis()).is_ok(), "{days} days: {wait:?}");
    }
    assert_eq!(wait_until(now, now + LONG), Duration::ZERO);
}

/// Other threads set and drop timers while the worker has much to do.
#[test]
fn timers_that_other_threads_move_are_neither_lost_nor_early() {
    const THREADS: usize = 4;
    const TIMERS: usize = 60;
    const MOVES: u64 = 20;

    let workers = Workers::start(1, Tokio::default()).unwrap();
    let worker = worker_of(&workers);
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    workers.spawn(async move {
        while !ends.load(Ordering::Relaxed) {
            yield_now().await;
        }
    });
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let timers: Vec<Timer> = run(&workers, async {
                (0..TIMERS).map(|_| Clock::default().timer(Instant::now() + LONG)).collect()
            });
            thread::spawn(move || {
                for (index, mut timer) in timers.into_iter().enumerate() {
                    let mut poll =
                        || Pin::new(&mut timer).poll(&mut Context::from_waker(Waker::noop()));
                    let _ = poll();
                    for number in 0..MOVES {
                        let wait = if number % 2 == 0 { LONG } else { Duration::from_micros(300) };
                        timer.set_at(Instant::now() + wait);
                        let _ = Pin::new(&mut timer).poll(&mut Context::from_waker(Waker::noop()));
                    }
                    if (thread + index) % 3 == 0 {
                        continue;
                    }
                    let deadline = Instant::now() + Duration::from_micros(500);
                    timer.set_at(deadline);
                    within(timer);
                    assert!(Instant::now() >= deadline);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(worker.timers().first().is_none());
    drop(worker);
    end(workers);
}

/// Another thread spawns without end. The event of a socket is behind the tasks that are queued, and behind one pass.
#[test]
fn a_flooded_queue_does_not_keep_a_worker_from_its_sockets() {
    const QUEUED: usize = 256;
    const PASS: usize = 64;

    let workers = Arc::new(Workers::start(1, Tokio::default()).unwrap());
    let [is_over, ran, queued] = [0; 3].map(|zero| Arc::new(AtomicUsize::new(zero)));
    let flood = {
        let (workers, is_over) = (Arc::clone(&workers), Arc::clone(&is_over));
        let (ran, queued) = (Arc::clone(&ran), Arc::clone(&queued));
        thread::spawn(move || {
            while is_over.load(Ordering::SeqCst) == 0 {
                if queued.load(Ordering::SeqCst) >= QUEUED {
                    thread::yield_now();
                    continue;
                }
                queued.fetch_add(1, Ordering::SeqCst);
                let (ran, queued) = (Arc::clone(&ran), Arc::clone(&queued));
                workers.spawn(async move {
                    ran.fetch_add(1, Ordering::SeqCst);
                    queued.fetch_sub(1, Ordering::SeqCst);
                });
            }
        })
    };
    let (socket, mut client) = pair();
    let count = Arc::clone(&ran);
    let waits = run(&workers, async move {
        let mut socket = Socket::accepted(socket);
        let mut waits = Vec::new();
        while waits.len() < 100 || count.load(Ordering::SeqCst) < 10_000 {
            let mut buf = [0];
            let mut read = pin!(socket.read(&mut buf));
            assert!(poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await);
            client.write_all(b"x").unwrap();
            let before = count.load(Ordering::SeqCst);
            read.await.unwrap();
            waits.push(count.load(Ordering::SeqCst) - before);
        }
        waits
    });
    is_over.store(1, Ordering::SeqCst);
    flood.join().unwrap();
    let longest = waits.iter().max().unwrap();
    // One pass until the event is fetched, and then the queue as it is, with a pass that has begun.
    assert!(*longest <= QUEUED + 2 * PASS, "{longest} tasks");
}
