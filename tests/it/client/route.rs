//! The way to the server: addresses, deadlines, sockets in the file system, proxies.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidewire::client::{ConnectError, ConnectStep};
use tidewire::server::Listeners;
use tidewire::{Client, WebSocket, WebSocketOptions};

use super::{Scripted, read_head, refusal};
use crate::support::peer::within;
use crate::support::tcp::{bind, echo_server};

async fn echoes(mut ws: WebSocket) {
    ws.send("hello").await.unwrap();
    assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some("hello"));
}

#[test]
fn a_name_with_addresses_of_both_families_is_reached_over_the_one_that_answers() {
    let port = bind(echo_server(WebSocketOptions::default())).port();
    within(async {
        // `localhost` may be ::1 as well, where nobody listens.
        echoes(tidewire::connect(format!("ws://localhost:{port}/")).await.unwrap()).await;
    });
}

#[test]
fn a_refused_connection_is_reported_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let error = refusal(within(tidewire::connect(format!("ws://{addr}/"))));
    let ConnectError::Connect { addr: tried, .. } = &*error else { panic!("{error:?}") };
    assert_eq!(*tried, addr.to_string());
    assert!(error.is_transient());
}

#[test]
fn a_name_without_an_address_is_told() {
    let error = refusal(within(tidewire::connect("ws://nobody.invalid/")));
    let ConnectError::Resolve { host, .. } = &*error else { panic!("{error:?}") };
    assert_eq!(host, "nobody.invalid");
}

/// A listener whose queue is full: the system drops whoever comes next.
#[cfg(target_os = "linux")]
fn deaf() -> (TcpListener, Vec<TcpStream>) {
    use socket2::{Domain, Socket, Type};

    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let addr = listener.local_addr().unwrap();
    let short = Duration::from_millis(100);
    let queue = std::iter::from_fn(|| TcpStream::connect_timeout(&addr, short).ok()).collect();
    (listener, queue)
}

#[cfg(target_os = "linux")]
#[test]
fn a_host_that_does_not_answer_is_given_up() {
    let (listener, _queue) = deaf();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let client = Client::new(url).connect_timeout(Duration::from_millis(50));
    let error = refusal(within(client.connect()));
    assert!(matches!(*error, ConnectError::TimedOut(ConnectStep::Connect)), "{error:?}");
}

#[cfg(unix)]
#[test]
fn a_socket_in_the_file_system_is_as_good_as_a_port() {
    let folder = std::env::temp_dir().join(format!("tidewire-client-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    within(async {
        let server = echo_server(WebSocketOptions::default());
        let bound = server.bind_to(Listeners::new().unix(&path).unwrap()).unwrap();
        async_std::task::spawn(bound.serve());
        let client = Client::new("ws://example.com/").unix_socket(&path);
        let ws = client.connect().await.unwrap();
        assert_eq!(ws.peer_addr(), None);
        echoes(ws).await;

        let nobody = Client::new("ws://example.com/").unix_socket(folder.join("nobody"));
        let error = refusal(nobody.connect().await);
        assert!(matches!(*error, ConnectError::Connect { .. }), "{error:?}");
    });
    std::fs::remove_dir_all(folder).unwrap();
}

/// A proxy for one tunnel; ends with the head of the request for it.
fn proxy() -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://ada:x@{}", listener.local_addr().unwrap());
    let serving = thread::spawn(move || {
        let mut client = listener.accept().unwrap().0;
        let head = read_head(&mut client);
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let server = TcpStream::connect(target).unwrap();
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
        let back = relay(server.try_clone().unwrap(), client.try_clone().unwrap());
        relay(client, server).join().unwrap();
        back.join().unwrap();
        head
    });
    (url, serving)
}

/// Passes on what comes, and its end.
fn relay(mut from: TcpStream, mut to: TcpStream) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buf = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut buf) {
            if to.write_all(&buf[..len]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    })
}

#[test]
fn a_proxy_is_asked_for_a_tunnel_with_its_own_credentials() {
    let addr = bind(echo_server(WebSocketOptions::default()));
    let (url, serving) = proxy();
    within(async {
        let client = Client::new(format!("ws://{addr}/")).proxy(url);
        let mut ws = client.connect().await.unwrap();
        ws.send("through").await.unwrap();
        assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some("through"));
        ws.close(1000, "").await.unwrap();
    });
    let head = serving.join().unwrap();
    assert!(head.starts_with(&format!("CONNECT {addr} HTTP/1.1\r\nHost: {addr}\r\n")), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic YWRhOng=\r\n"), "{head}");
}

#[cfg(feature = "tls")]
#[test]
fn tls_goes_through_a_tunnel() {
    let mut server = echo_server(WebSocketOptions::default());
    server.tls(crate::tls::server_config());
    let port = bind(server).port();
    let (proxy, _) = proxy();
    within(async {
        let client = Client::new(format!("wss://localhost:{port}/")).proxy(proxy);
        echoes(client.tls(super::tls::trusting()).connect().await.unwrap()).await;
    });
}

#[test]
fn a_proxy_that_refuses_is_told_from_a_server_that_does() {
    for response in [
        "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nwho?",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let proxy = Scripted::new([response]);
        let client = Client::new("ws://example.com/").proxy(format!("http://{}", proxy.addr));
        let error = refusal(within(client.connect()));
        assert!(matches!(*error, ConnectError::ProxyRefused(_)), "{error:?}");
        assert!(proxy.visits()[0].head.starts_with("CONNECT example.com:80 HTTP/1.1\r\n"));
    }
}

#[test]
fn a_proxy_may_speak_http_1_0() {
    let proxy = Scripted::ending(["HTTP/1.0 200 Connection established\r\n\r\n"]);
    let client = Client::new("ws://example.com/").proxy(format!("http://{}", proxy.addr));
    // There is a tunnel, and nobody at its end.
    let error = refusal(within(client.connect()));
    assert!(matches!(*error, ConnectError::Io(_)), "{error:?}");
}

#[test]
fn a_proxy_that_is_none_fails_before_anything_is_sent() {
    for url in ["socks5://127.0.0.1:1", "nonsense"] {
        let error = refusal(within(Client::new("ws://x/").proxy(url).connect()));
        assert!(matches!(*error, ConnectError::InvalidUrl { .. }), "{error:?}");
    }
}
