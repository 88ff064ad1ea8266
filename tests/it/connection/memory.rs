//! What a server holds of messages in progress, all together, and what becomes of those who have to wait.

use std::thread::available_parallelism;
use std::time::Duration;

use async_std::task;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use futures::channel::oneshot;
use futures::future::{join_all, pending};
use futures::{FutureExt, StreamExt};
use tidewire::deflate::DeflateOptions;
use tidewire::frame::{OpCode, Role};
use tidewire::server::{Metrics, ServerOptions};
use tidewire::testing::{Line, ManualClock, Peer, TestClient};
use tidewire::websocket::HeartbeatOptions;
use tidewire::{Error, RequestContext, Server, WebSocket, WebSocketOptions};

use crate::support::frames::{BINARY, PING, TEXT, masked, plain};
use crate::support::peer::within;
use crate::support::pipe::{Knobs, pipe};

/// What the servers of most tests may hold, in bytes.
const LIMIT: usize = 256 << 10;

/// What each connection may hold beside that.
const FREE: usize = 16 << 10;

/// A message that is longer than that limit, and within that of a message.
const LONG: usize = 1_000_000;

fn options() -> WebSocketOptions {
    WebSocketOptions::default()
}

/// A client of a server that may hold so much: it echoes at `/echo`, with these options, and tells what the
/// handlers' connections ended with.
fn echo(
    memory: impl Into<Option<usize>>,
    options: WebSocketOptions,
) -> (TestClient, UnboundedReceiver<Error>) {
    let (tell, told) = unbounded();
    let mut server = Server::new();
    server.options(ServerOptions::default().message_memory(memory));
    server.get("/echo", move |mut ctx: RequestContext| {
        let (options, tell) = (options.clone(), tell.clone());
        async move {
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            loop {
                match ws.recv().await {
                    Ok(Some(message)) => ws.send(message).await?,
                    Ok(None) => return Ok(()),
                    Err(error) => drop(tell.unbounded_send(error)),
                }
                if !ws.is_open() {
                    return Ok(());
                }
            }
        }
    });
    (client(&server), told)
}

/// A client whose peers can send whatever they like before the server reads.
fn client(server: &Server) -> TestClient {
    TestClient::new(server).over(&Line::new().capacity(usize::MAX))
}

/// Waits until the figures of the server are so.
async fn until(client: &TestClient, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
    loop {
        let metrics = client.metrics();
        if is_so(&metrics) {
            return metrics;
        }
        task::yield_now().await;
    }
}

/// By how much the limit may be exceeded: by one message, and by what is not counted yet on each thread. That of
/// the test runs tasks, too.
fn slack() -> usize {
    (1 << 20) + (available_parallelism().unwrap().get() + 1) * (128 << 10)
}

#[test]
fn long_messages_wait_while_the_server_holds_too_much_and_short_ones_do_not() {
    within(async {
        let (client, _) = echo(LIMIT, options());
        let mut large = client.peer("/echo").await.unwrap();
        large.send_bytes(&masked(BINARY, vec![7; LONG])[..LONG / 2]).await.unwrap();
        // It has the pass, so all that it has sent is read.
        let metrics = until(&client, |metrics| metrics.message_bytes >= LONG / 2 - FREE).await;
        assert_eq!(metrics.message_bytes_limit, Some(LIMIT));
        let held = metrics.message_bytes;
        assert!((LIMIT..LIMIT + slack()).contains(&held), "{held}");

        let mut second = client.peer("/echo").await.unwrap();
        second.send_bytes(masked(BINARY, vec![8; 100_000])).await.unwrap();
        until(&client, |metrics| metrics.message_pauses == 1).await;
        assert_eq!(client.metrics().message_bytes, held, "no more than is free is read");

        let mut small = client.peer("/echo").await.unwrap();
        for len in [0, 5, 4096, FREE - 200] {
            small.send_bytes(masked(TEXT, "x".repeat(len))).await.unwrap();
            small.expect_bytes(plain(TEXT, "x".repeat(len))).await;
        }
        // What one gives back, the next takes.
        drop(large);
        second.expect_bytes(plain(BINARY, vec![8; 100_000])).await;
        until(&client, |metrics| metrics.message_bytes == 0).await;
        assert_eq!((client.metrics().message_pauses, client.metrics().message_closes), (1, 0));
    });
}

#[test]
fn waiting_connections_have_their_turn_one_after_another() {
    within(async {
        let (client, _) = echo(LIMIT, options());
        let mut large = client.peer("/echo").await.unwrap();
        large.send_bytes(&masked(BINARY, vec![7; LONG])[..LONG / 2]).await.unwrap();
        until(&client, |metrics| metrics.message_bytes >= LONG / 2 - FREE).await;
        let others = (0..20_u8).map(async |number| {
            let mut peer = client.peer("/echo").await.unwrap();
            peer.send_bytes(masked(BINARY, vec![number; 100_000])).await.unwrap();
            peer
        });
        let others = join_all(others).await;
        until(&client, |metrics| metrics.message_pauses == 20).await;
        drop(large);
        let echoes = others.into_iter().enumerate().map(async |(number, mut peer)| {
            let number = u8::try_from(number).unwrap();
            peer.expect_bytes(plain(BINARY, vec![number; 100_000])).await;
        });
        join_all(echoes).await;
        assert_eq!(client.metrics().message_closes, 0);
    });
}

#[test]
fn after_5_s_the_connection_that_holds_most_is_closed_with_1013() {
    within(async {
        let clock = ManualClock::new();
        let options = options().clock(&clock).heartbeat(None).message_timeout(None);
        let (client, mut told) = echo(LIMIT, options);
        let mut large = client.peer("/echo").await.unwrap();
        large.send_bytes(&masked(BINARY, vec![7; LONG])[..LONG / 2]).await.unwrap();
        until(&client, |metrics| metrics.message_bytes >= LONG / 2 - FREE).await;
        let mut second = client.peer("/echo").await.unwrap();
        second.send_bytes(masked(BINARY, vec![8; 100_000])).await.unwrap();
        until(&client, |metrics| metrics.message_pauses == 1).await;

        clock.advance(Duration::from_millis(4_999));
        let mut small = client.peer("/echo").await.unwrap();
        small.send_bytes(masked(TEXT, "Hi")).await.unwrap();
        small.expect_bytes(plain(TEXT, "Hi")).await;
        assert_eq!(client.metrics().message_closes, 0);
        clock.advance(Duration::from_millis(1));
        let reason = large.expect_close(1013).await;
        assert_eq!(reason, "the server holds too many bytes of unfinished messages");
        let error = told.next().await.unwrap();
        assert!(matches!(error, Error::Overloaded), "{error:?}");
        second.expect_bytes(plain(BINARY, vec![8; 100_000])).await;

        let metrics = until(&client, |metrics| metrics.message_bytes == 0).await;
        assert_eq!(metrics.message_closes, 1);
        let text = metrics.to_prometheus();
        for line in [
            "tidewire_message_bytes 0",
            "tidewire_message_bytes_limit 262144",
            "tidewire_message_pauses_total 1",
            "tidewire_message_closes_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    });
}

/// A client of a server that may hold [`LIMIT`]: it takes messages at `/patient`, where no deadline is, and at
/// `/watched`, with these options.
fn watched(watched: WebSocketOptions, clock: &ManualClock) -> TestClient {
    let patient = options().clock(clock).heartbeat(None).message_timeout(None);
    let mut server = Server::new();
    server.options(ServerOptions::default().message_memory(LIMIT));
    for (path, options) in [("/patient", patient), ("/watched", watched.clock(clock))] {
        server.get(path, move |mut ctx: RequestContext| {
            let options = options.clone();
            async move {
                let mut ws = ctx.upgrade_to_websocket(options).await?;
                while let Some(message) = ws.recv().await? {
                    ws.send(message.as_bytes().len().to_string()).await?;
                }
                Ok(())
            }
        });
    }
    client(&server)
}

/// A peer that makes the server hold all that it may, with a message that it does not finish.
async fn spend(client: &TestClient) -> Peer {
    let mut large = client.peer("/patient").await.unwrap();
    large.send_bytes(&masked(BINARY, vec![7; LONG])[..LONG / 2]).await.unwrap();
    until(client, |metrics| metrics.message_bytes >= LONG / 2 - FREE).await;
    large
}

/// Waits until the next deadline of the server's connections is so far away.
async fn due_in(clock: &ManualClock, left: Duration) {
    while clock.next_deadline() != Some(clock.now() + left) {
        task::yield_now().await;
    }
}

#[test]
fn a_pause_takes_no_time_from_a_message_and_adds_none() {
    const SECOND: Duration = Duration::from_secs(1);
    within(async {
        let clock = ManualClock::new();
        let client = watched(options().heartbeat(None).message_timeout(3 * SECOND), &clock);
        let large = spend(&client).await;
        let mut second = client.peer("/watched").await.unwrap();
        let message = masked(BINARY, vec![8; 200_000]);
        second.send_bytes(&message[..1000]).await.unwrap();
        due_in(&clock, 3 * SECOND).await;
        clock.advance(SECOND);
        second.send_bytes(&message[1000..100_000]).await.unwrap();
        until(&client, |metrics| metrics.message_pauses == 1).await;
        // The timer goes off where it was set to, and what is next is the patience of the connection.
        clock.advance(2 * SECOND);
        due_in(&clock, 3 * SECOND).await;
        clock.advance(2 * SECOND);
        drop(large);
        // It has read all that was sent, so it does not wait any more.
        until(&client, |metrics| (80_000..LIMIT).contains(&metrics.message_bytes)).await;
        clock.advance(SECOND);
        due_in(&clock, SECOND).await;
        clock.advance(SECOND);
        let reason = second.expect_close(1008).await;
        assert_eq!(reason, "the peer did not finish a message in time");
    });
}

#[test]
fn a_peer_that_this_side_does_not_read_is_not_given_up() {
    const SECOND: Duration = Duration::from_secs(1);
    let heartbeat = HeartbeatOptions::default().interval(SECOND).timeout(SECOND);
    let cases = [
        options().heartbeat(heartbeat),
        options().heartbeat(None).idle_timeout(SECOND),
        options().heartbeat(None).message_timeout(SECOND),
    ];
    for options in cases {
        within(async {
            let clock = ManualClock::new();
            let client = watched(options, &clock);
            let large = spend(&client).await;
            let mut second = client.peer("/watched").await.unwrap();
            second.send_bytes(masked(BINARY, vec![8; 100_000])).await.unwrap();
            until(&client, |metrics| metrics.message_pauses == 1).await;
            let end = clock.now() + 4 * SECOND;
            while clock.now() < end {
                // A timer is gone until the connection has looked at what is due.
                while clock.next_deadline().is_none_or(|at| at <= clock.now()) {
                    task::yield_now().await;
                }
                clock.advance(Duration::from_millis(250));
            }
            drop(large);
            let answer = loop {
                let frame = second.recv_frame().await.unwrap();
                if frame.opcode() != OpCode::Ping {
                    break frame;
                }
            };
            assert_eq!(answer.payload(), b"100000");
        });
    }
}

#[test]
fn a_connection_that_waits_for_its_peer_is_not_in_line_and_its_time_runs() {
    const SECOND: Duration = Duration::from_secs(1);
    within(async {
        let clock = ManualClock::new();
        let begun = clock.now();
        let heartbeat = HeartbeatOptions::default().interval(SECOND).timeout(10 * SECOND);
        let options = options().message_timeout(5 * SECOND).heartbeat(heartbeat);
        let client = watched(options, &clock);
        let mut second = client.peer("/watched").await.unwrap();
        second.send_bytes(&masked(BINARY, vec![8; 100_000])[..2 * FREE]).await.unwrap();
        until(&client, |metrics| metrics.message_bytes == FREE).await;
        let _large = spend(&client).await;
        // The ping has the connection look for bytes, and there are none.
        clock.advance(SECOND);
        assert_eq!(second.recv_frame().await.unwrap().opcode(), OpCode::Ping);
        due_in(&clock, begun + 5 * SECOND - clock.now()).await;
        assert_eq!(client.metrics().message_pauses, 0);
        clock.advance(4 * SECOND);
        second.expect_close(1008).await;
    });
}

#[test]
fn bytes_read_ahead_for_a_busy_handler_count_and_reading_goes_on_when_bytes_come_back() {
    within(async {
        let (open, gate) = oneshot::channel::<()>();
        let gate = gate.map(drop).shared();
        let mut server = Server::new();
        server.options(ServerOptions::default().message_memory(LIMIT));
        for (path, gate) in [("/busy", pending::<()>().boxed()), ("/gated", gate.boxed())] {
            let gate = gate.shared();
            server.get(path, move |mut ctx: RequestContext| {
                let gate = gate.clone();
                async move {
                    let _ws = ctx.upgrade_to_websocket(options()).await?;
                    gate.await;
                    Ok(())
                }
            });
        }
        let client = client(&server);
        // Each would be read ahead by 64 KiB, and by what comes with the last read.
        let crowd = async |path| {
            let mut peers = vec![];
            for _ in 0..10 {
                let mut peer = client.peer(path).await.unwrap();
                peer.send_bytes(masked(TEXT, "x".repeat(1000)).repeat(200)).await.unwrap();
                peers.push(peer);
            }
            peers
        };
        let gated = crowd("/gated").await;
        until(&client, |metrics| metrics.message_bytes >= LIMIT).await;
        let busy = crowd("/busy").await;
        let metrics = until(&client, |metrics| metrics.message_pauses >= 10).await;
        assert!(metrics.message_bytes < LIMIT + slack(), "{}", metrics.message_bytes);
        // Nobody waits for these messages, so nobody is closed for them.
        open.send(()).unwrap();
        drop(gated);
        until(&client, |metrics| metrics.open_websockets == 10 && metrics.message_bytes >= LIMIT)
            .await;
        assert_eq!(client.metrics().message_closes, 0);
        drop(busy);
    });
}

#[test]
fn a_handler_gives_back_its_bytes_after_every_end() {
    #[derive(Clone, Copy, Debug)]
    enum End {
        Return,
        Panic,
        Drop,
        #[cfg(feature = "tungstenite")]
        HandOver,
    }
    let ends = [
        End::Return,
        End::Panic,
        End::Drop,
        #[cfg(feature = "tungstenite")]
        End::HandOver,
    ];
    for end in ends {
        within(async move {
            let (open, gate) = oneshot::channel::<()>();
            let gate = gate.map(drop).shared();
            let mut server = Server::new();
            server.options(ServerOptions::default().message_memory(LIMIT));
            server.get("/", move |mut ctx: RequestContext| {
                let gate = gate.clone();
                async move {
                    let mut ws = ctx.upgrade_to_websocket(options()).await?;
                    ws.recv().await?;
                    gate.await;
                    match end {
                        End::Return => return Ok(()),
                        End::Panic => panic!("on purpose"),
                        End::Drop => drop(ws),
                        #[cfg(feature = "tungstenite")]
                        End::HandOver => drop(ws.into_tungstenite().await.unwrap().next().await),
                    }
                    pending::<()>().await;
                    Ok(())
                }
            });
            let client = client(&server);
            let mut peer = client.peer("/").await.unwrap();
            peer.send_bytes(masked(TEXT, "x".repeat(1000)).repeat(60)).await.unwrap();
            until(&client, |metrics| metrics.message_bytes > FREE).await;
            open.send(()).unwrap();
            until(&client, |metrics| metrics.message_bytes == 0).await;
            let failed = client.failures().await;
            assert_eq!(failed.len(), usize::from(matches!(end, End::Panic)), "{failed:?}");
        });
    }
}

#[test]
fn messages_that_are_decompressed_count_and_wait_for_each_other() {
    const MEMORY: usize = 2 << 20;
    within(async {
        let mut server = Server::new();
        server.options(ServerOptions::default().message_memory(MEMORY));
        server.get("/sink", |mut ctx: RequestContext| async move {
            let options = options().deflate(DeflateOptions::default());
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            while let Some(message) = ws.recv().await? {
                ws.send(message.as_bytes().len().to_string()).await?;
            }
            Ok(())
        });
        let client = client(&server);
        // A thousand bytes for each byte that is sent.
        let zeros = "0".repeat(LONG);
        let all = (0..12).map(async |_| {
            let upgrade = client.websocket("/sink").deflate(DeflateOptions::default());
            let mut ws = upgrade.connect().await.unwrap();
            ws.send(zeros.as_str()).await.unwrap();
            assert_eq!(ws.recv().await.unwrap(), Some("1000000".into()));
        });
        let watching = async {
            loop {
                let held = client.metrics().message_bytes;
                assert!(held < MEMORY + slack(), "{held} bytes");
                task::yield_now().await;
            }
        };
        futures::future::select(Box::pin(join_all(all)), Box::pin(watching)).await;
        assert_eq!(client.metrics().message_closes, 0);
        until(&client, |metrics| metrics.message_bytes == 0).await;
    });
}

#[test]
fn a_short_message_waits_before_it_becomes_a_long_one() {
    within(async {
        let mut server = Server::new();
        server.options(ServerOptions::default().message_memory(LIMIT));
        server.get("/patient", |mut ctx: RequestContext| async move {
            let options = options().deflate(DeflateOptions::default());
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            if let Some(message) = ws.recv().await? {
                ws.send(message.as_bytes().len().to_string()).await?;
            }
            // It holds nothing of the message then, although it does not receive.
            pending::<()>().await;
            Ok(())
        });
        let client = client(&server);
        let large = spend(&client).await;
        let held = client.metrics().message_bytes;
        let upgrade = client.websocket("/patient").deflate(DeflateOptions::default());
        let mut ws = upgrade.connect().await.unwrap();
        ws.send("0".repeat(LONG)).await.unwrap();
        let metrics = until(&client, |metrics| metrics.message_pauses == 1).await;
        assert!(metrics.message_bytes <= held + FREE, "{} bytes", metrics.message_bytes);
        drop(large);
        assert_eq!(ws.recv().await.unwrap(), Some("1000000".into()));
        until(&client, |metrics| metrics.message_bytes == 0).await;
    });
}

/// A server that may hold [`LIMIT`]: it takes messages at `/patient`, and `handler` is at `/`.
fn beside_patient<Fut>(
    clock: &ManualClock,
    handler: impl Fn(RequestContext) -> Fut + Send + Sync + 'static,
) -> TestClient
where
    Fut: Future<Output = tidewire::HandlerResult> + Send + 'static,
{
    let patient = patient(clock);
    let mut server = Server::new();
    server.options(ServerOptions::default().message_memory(LIMIT));
    server.get("/", handler);
    server.get("/patient", move |mut ctx: RequestContext| {
        let options = patient.clone();
        async move {
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            while let Some(message) = ws.recv().await? {
                ws.send(message.as_bytes().len().to_string()).await?;
            }
            Ok(())
        }
    });
    client(&server)
}

/// [`beside_patient`], with a handler whose connection is received from by another task, and compressed.
fn elsewhere(clock: &ManualClock) -> TestClient {
    let compressed = patient(clock).deflate(DeflateOptions::default());
    beside_patient(clock, move |mut ctx| {
        let options = compressed.clone();
        async move {
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            let receiver = task::spawn(async move {
                while let Some(message) = ws.recv().await? {
                    ws.send(message.as_bytes().len().to_string()).await?;
                }
                Ok::<(), Error>(())
            });
            Ok(receiver.await?)
        }
    })
}

fn patient(clock: &ManualClock) -> WebSocketOptions {
    options().clock(clock).heartbeat(None).message_timeout(None)
}

#[test]
fn a_receiver_in_another_task_that_waits_to_decompress_has_patience_too() {
    within(async {
        let clock = ManualClock::new();
        let client = elsewhere(&clock);
        let mut large = spend(&client).await;
        let upgrade = client.websocket("/").deflate(DeflateOptions::default());
        let mut ws = upgrade.connect().await.unwrap();
        ws.send("0".repeat(LONG)).await.unwrap();
        until(&client, |metrics| metrics.message_pauses == 1).await;
        due_in(&clock, Duration::from_secs(5)).await;
        clock.advance(Duration::from_secs(5));
        large.expect_close(1013).await;
        assert_eq!(ws.recv().await.unwrap(), Some("1000000".into()));
    });
}

#[test]
fn a_receiver_in_another_task_that_waits_to_decompress_keeps_its_place_when_bytes_come() {
    within(async {
        let clock = ManualClock::new();
        let client = elsewhere(&clock);
        let large = spend(&client).await;
        let upgrade = client.websocket("/").deflate(DeflateOptions::default());
        let mut ws = upgrade.connect().await.unwrap();
        ws.send("0".repeat(LONG)).await.unwrap();
        until(&client, |metrics| metrics.message_pauses == 1).await;
        let before = client.metrics().wire_bytes_in;
        ws.ping("still there?").await.unwrap();
        // It takes one byte, to see whether its peer sends ahead, and the rest after the message.
        until(&client, |metrics| metrics.wire_bytes_in > before).await;
        drop(large);
        assert_eq!(ws.recv().await.unwrap(), Some("1000000".into()));
        assert_eq!(client.metrics().message_closes, 0);
    });
}

#[test]
fn a_handler_that_takes_frames_holds_no_more_of_them_than_may_be_read_ahead() {
    let pings = masked(PING, "").repeat(10_000);
    within(async {
        let (ours, _peer) = pipe(Knobs::default());
        let mut ws = WebSocket::from_stream(ours, pings, Role::Server, &options());
        for taken in 1..=10_000_u64 {
            assert_eq!(ws.recv_frame().await.unwrap().unwrap().opcode(), OpCode::Ping);
            // 64 KiB of 64 bytes each.
            assert!(ws.stats().frames_in - taken <= 1_100, "{} of {taken}", ws.stats().frames_in);
        }
    });
}

#[test]
fn short_compressed_messages_wait_for_no_other_connection() {
    within(async {
        let (client, _told) = echo(LIMIT, options().deflate(DeflateOptions::default()));
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut peer = client.peer("/echo").await.unwrap();
            peer.send_bytes(&masked(BINARY, vec![0; LONG])[..LONG / 2]).await.unwrap();
            held.push(peer);
        }
        until(&client, |metrics| metrics.message_pauses > 0).await;
        let upgrade = client.websocket("/echo").deflate(DeflateOptions::default().threshold(0));
        let mut ws = upgrade.connect().await.unwrap();
        // Together they take more than what is free, by what each of them costs.
        for _ in 0..800 {
            ws.send("seventeen letters").await.unwrap();
        }
        for _ in 0..800 {
            assert_eq!(ws.recv().await.unwrap(), Some("seventeen letters".into()));
        }
        assert_eq!(client.metrics().message_closes, 0);
    });
}

#[test]
fn without_a_limit_nothing_is_counted() {
    within(async {
        let (client, _) = echo(None, options());
        let mut peers = vec![];
        for _ in 0..3 {
            let mut peer = client.peer("/echo").await.unwrap();
            peer.send_bytes(masked(BINARY, vec![7; LONG])).await.unwrap();
            let frame = peer.recv_frame().await.unwrap();
            assert_eq!((frame.opcode(), frame.payload().len()), (OpCode::Binary, LONG));
            peers.push(peer);
        }
        let metrics = client.metrics();
        assert_eq!((metrics.message_bytes, metrics.message_bytes_limit), (0, None));
        assert!(!metrics.to_prometheus().contains("message_bytes_limit"));
    });
}

#[cfg(target_os = "linux")]
mod separate_process {
    //! The same, as the memory of a process.

    use std::io::Write;

    use tidewire::WebSocketOptions;
    use tidewire::server::ServerOptions;

    use crate::support::frames::{BINARY, TEXT, masked, plain};
    use crate::support::server_process::{Process, serve};
    use crate::support::tcp::{Tcp, echo_server};

    /// What the server may hold, in bytes.
    const LIMIT: usize = 16 << 20;

    /// What each connection may hold beside that: what is free, twice, and itself.
    const EACH: usize = 40 << 10;

    const CLIENTS: usize = 150;

    /// Growth of memory that has nothing to do with what is sent, in bytes.
    const NOISE: usize = 16 << 20;

    /// The server of this test. Does nothing when run as a test.
    #[test]
    fn echo_with_little_memory_in_a_process_of_its_own() {
        serve(|| {
            let mut server = echo_server(WebSocketOptions::default());
            server.options(ServerOptions::default().message_memory(LIMIT));
            server
        });
    }

    #[test]
    fn a_crowd_with_unfinished_messages_takes_no_more_memory_than_the_guide_says() {
        let process = Process::start(
            "connection::memory::separate_process::echo_with_little_memory_in_a_process_of_its_own",
        );
        let hello = |client: &mut Tcp| {
            client.send(masked(TEXT, "Hello"));
            client.expect(plain(TEXT, "Hello"));
        };
        let mut polite = Tcp::upgraded(process.addr);
        hello(&mut polite);
        let before = process.memory();
        let unfinished = masked(BINARY, vec![7; 1 << 20]);
        let mut crowd = vec![];
        for _ in 0..CLIENTS {
            let client = Tcp::upgraded(process.addr);
            client.socket.set_nonblocking(true).unwrap();
            crowd.push((client, &unfinished[..unfinished.len() - 1]));
        }
        // Each sends what the kernel takes, again and again, until none gets rid of anything.
        let mut idle = 0;
        while idle < 100 {
            let mut sent = 0;
            for (client, left) in &mut crowd {
                let len = client.socket.write(left).unwrap_or_default();
                *left = &left[len..];
                sent += len;
            }
            idle = if sent == 0 { idle + 1 } else { 0 };
            hello(&mut polite);
        }
        let grown = process.memory().saturating_sub(before);
        eprintln!("{grown} bytes for {CLIENTS} clients");
        // Memory of buffers that grow is touched where it is filled, so it is less than what counts.
        assert!(grown < LIMIT + CLIENTS * EACH + NOISE, "{grown} bytes");
        drop(crowd);
        hello(&mut polite);
    }
}
