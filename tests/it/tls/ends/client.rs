//! The ends of a client.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use futures::channel::oneshot;
use futures::future::{Either, select};
use tidewire::tls::ClientTls;
use tidewire::tls::rustls::pki_types::PrivateKeyDer;
use tidewire::tls::rustls::pki_types::pem::PemObject;
use tidewire::tls::rustls::{
    AlertDescription, Error, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
};
use tidewire::{Client, WebSocketOptions};

use super::super::{Authority, authority};
use super::{PLAIN_CLOSE_NOTIFY, SHORT, Tap, VERSIONS, ends_with_close_notify, expect_all};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{WITHIN, within};
use crate::support::tcp::Tcp;

type Peer = Tcp<StreamOwned<ServerConnection, Tap>>;

/// What the client does, and what the server does about it.
struct End {
    name: &'static str,
    client: fn(Client) -> Pin<Box<dyn Future<Output = ()>>>,
    server: fn(&mut Peer),
}

/// A close frame of ours without a reason.
const CLOSE_LEN: usize = 2 + 4 + 2;

const ENDS: [End; 18] = [
    End {
        name: "we close, and the server ends TLS",
        client: closes,
        server: |peer| {
            open(peer);
            answer_close(peer);
            end_tls(peer);
        },
    },
    End {
        name: "we close, and the server ends TCP",
        client: closes,
        server: |peer| {
            open(peer);
            answer_close(peer);
            end_tcp(peer);
        },
    },
    End {
        name: "we close, and the server waits for us to end",
        client: closes,
        server: |peer| {
            open(peer);
            answer_close(peer);
        },
    },
    End { name: "we close, and the server never answers", client: loses_patience, server: open },
    End {
        name: "the server closes",
        client: receives,
        server: |peer| {
            open(peer);
            peer.send(plain(CLOSE, close(1000, "")));
            peer.read(CLOSE_LEN);
            end_tls(peer);
        },
    },
    End {
        name: "the server closes, and waits for us to end",
        client: receives,
        server: |peer| {
            open(peer);
            peer.send(plain(CLOSE, close(1000, "")));
        },
    },
    End {
        name: "the server ends TLS without a close frame",
        client: receives,
        server: |peer| {
            open(peer);
            end_tls(peer);
        },
    },
    End {
        name: "the server ends TCP without a word",
        client: receives,
        server: |peer| {
            open(peer);
            end_tcp(peer);
        },
    },
    End {
        name: "the server breaks a rule",
        client: receives,
        server: |peer| {
            open(peer);
            peer.send(masked(TEXT, "Hello"));
        },
    },
    End { name: "the WebSocket is dropped", client: drops, server: open },
    End { name: "the handler returns", client: runs, server: open },
    End {
        name: "the server refuses",
        client: fails,
        server: |peer| {
            peer.head();
            peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n");
        },
    },
    End {
        name: "the server refuses in as many words as it likes",
        client: fails,
        server: |peer| {
            peer.head();
            peer.send("HTTP/1.1 403 Forbidden\r\n\r\nno");
        },
    },
    End {
        name: "a redirect that is not followed",
        client: fails,
        server: |peer| {
            peer.head();
            peer.send("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
        },
    },
    End {
        name: "a redirect that is followed",
        client: follows,
        server: |peer| {
            peer.head();
            // Where nobody listens.
            peer.send("HTTP/1.1 302 Found\r\nLocation: wss://localhost:1/\r\n\r\n");
        },
    },
    End {
        name: "a 101 with the wrong key",
        client: fails,
        server: |peer| {
            peer.head();
            peer.send(
                "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Accept: AAAA\r\n\r\n",
            );
        },
    },
    End {
        name: "what is no HTTP",
        client: fails,
        server: |peer| {
            peer.head();
            peer.send("SSH-2.0-OpenSSH_9.2\r\n");
        },
    },
    End {
        name: "no answer",
        client: gives_up,
        server: |peer| {
            peer.head();
        },
    },
];

fn closes(client: Client) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let mut ws = client.connect().await.unwrap();
        let _ = ws.close(1000, "").await;
    })
}

fn loses_patience(client: Client) -> Pin<Box<dyn Future<Output = ()>>> {
    closes(client.options(WebSocketOptions::default().close_timeout(SHORT)))
}

fn receives(client: Client) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let mut ws = client.connect().await.unwrap();
        while let Ok(Some(_)) = ws.recv().await {}
    })
}

fn drops(client: Client) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move { drop(client.connect().await.unwrap()) })
}

fn runs(client: Client) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        client.run(|_ws| async { Ok::<_, tidewire::Error>(()) }).await.unwrap();
    })
}

fn fails(client: Client) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        client.connect().await.unwrap_err();
    })
}

fn gives_up(client: Client) -> Pin<Box<dyn Future<Output = ()>>> {
    fails(client.handshake_timeout(SHORT))
}

fn follows(client: Client) -> Pin<Box<dyn Future<Output = ()>>> {
    fails(client.max_redirects(1))
}

/// Accepts the opening handshake.
fn open(peer: &mut Peer) {
    let head = peer.head();
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = derive_accept_key(key.as_bytes());
    peer.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ));
}

/// Answers the client's close frame.
fn answer_close(peer: &mut Peer) {
    assert_eq!(peer.read(CLOSE_LEN)[..2], *b"\x88\x82");
    peer.send(plain(CLOSE, close(1000, "")));
}

/// Sends a `close_notify`, and reads on.
fn end_tls(peer: &mut Peer) {
    peer.socket.conn.send_close_notify();
    peer.socket.flush().unwrap();
}

/// Sends a FIN, and reads on.
fn end_tcp(peer: &mut Peer) {
    peer.socket.sock.socket.shutdown(Shutdown::Write).unwrap();
}

/// A server of one connection, which it hands to `serve` when TLS is agreed on; and its URL.
fn serve<T: Send + 'static>(
    version: &'static SupportedProtocolVersion,
    serve: impl FnOnce(Peer) -> T + Send + 'static,
) -> (String, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
    let identity = authority().issue("localhost");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
    let config = Arc::new(builder.with_single_cert(vec![identity.der()], key).unwrap());
    let serving = thread::spawn(move || {
        let socket = listener.accept().unwrap().0;
        socket.set_read_timeout(Some(WITHIN)).unwrap();
        let socket = StreamOwned::new(ServerConnection::new(config).unwrap(), Tap::new(socket));
        serve(Tcp { socket })
    });
    (url, serving)
}

fn client(url: &str) -> Client {
    Client::new(url).tls(ClientTls::with_roots(authority().pem()).unwrap())
}

#[test]
fn a_client_says_close_notify_at_every_end() {
    for (name, version) in VERSIONS {
        expect_all(ENDS.map(|End { name: end, client: way, server }| {
            let (url, serving) = serve(version, move |mut peer| {
                server(&mut peer);
                ends_with_close_notify(&mut peer.socket)
            });
            within(way(client(&url)));
            (format!("{end}, TLS {name}"), serving.join().unwrap())
        }));
    }
}

/// Connects, until `reached` is told of; then the attempt is dropped.
async fn connect_until(client: &Client, reached: oneshot::Receiver<()>) {
    let Either::Right(_) = select(Box::pin(client.connect()), reached).await else {
        panic!("the attempt ended before it was dropped")
    };
}

#[test]
fn a_client_that_drops_its_attempt_says_close_notify() {
    let (reach, reached) = oneshot::channel();
    let (url, serving) = serve(VERSIONS[1].1, |mut peer| {
        peer.head();
        reach.send(()).unwrap();
        ends_with_close_notify(&mut peer.socket)
    });
    within(connect_until(&client(&url), reached));
    serving.join().unwrap().unwrap();
}

#[test]
fn a_handshake_that_is_dropped_is_ended_with_close_notify() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
    let (reach, reached) = oneshot::channel();
    let serving = thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        socket.set_read_timeout(Some(WITHIN)).unwrap();
        let mut sent = vec![0];
        socket.read_exact(&mut sent).unwrap();
        reach.send(()).unwrap();
        socket.read_to_end(&mut sent).unwrap();
        sent
    });
    within(connect_until(&client(&url), reached));
    let sent = serving.join().unwrap();
    assert!(sent.starts_with(b"\x16\x03"), "{sent:02x?}");
    assert!(sent.ends_with(PLAIN_CLOSE_NOTIFY), "{sent:02x?}");
}

#[test]
fn a_clean_close_waits_for_nothing_but_the_end_of_the_server() {
    // What the client would wait for a server that does not end.
    const LINGER: Duration = Duration::from_secs(1);
    let closes_at_once = || {
        // The server ends TLS, leaves TCP open, and reads on only when the client has closed.
        let (closed, has_closed) = std::sync::mpsc::channel();
        let (url, serving) = serve(VERSIONS[1].1, move |mut peer| {
            open(&mut peer);
            answer_close(&mut peer);
            end_tls(&mut peer);
            has_closed.recv().unwrap();
            ends_with_close_notify(&mut peer.socket)
        });
        within(async {
            let mut ws = client(&url).connect().await.unwrap();
            let begin = Instant::now();
            assert!(ws.close(1000, "").await.unwrap().clean);
            let time = begin.elapsed();
            closed.send(()).unwrap();
            // It is not the destructor of the `WebSocket` that ends TLS.
            async_std::task::spawn_blocking(move || serving.join().unwrap()).await.unwrap();
            drop(ws);
            time < LINGER
        })
    };
    // A machine that is busy may take as long for other reasons, but not always.
    assert!((0..3).any(|_| closes_at_once()));
}

#[test]
fn a_certificate_that_is_not_trusted_is_told_by_an_alert_instead() {
    let (url, serving) =
        serve(VERSIONS[1].1, |mut peer| peer.socket.read_to_end(&mut Vec::new()).unwrap_err());
    let tls = ClientTls::with_roots(Authority::new().pem()).unwrap();
    within(client(&url).tls(tls).connect()).unwrap_err();
    let error = serving.join().unwrap();
    let error = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(*error, Error::AlertReceived(AlertDescription::UnknownCA));
}
