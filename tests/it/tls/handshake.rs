//! The handshake: who gets through, and what becomes of those who do not.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire::WebSocketOptions;
use tidewire::tls::TlsConfig;
use tidewire::tls::rustls::pki_types::ServerName;
use tidewire::tls::rustls::version::{TLS12, TLS13};
use tidewire::tls::rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, ProtocolVersion, RootCertStore,
};
use tidewire::upgrade::UpgradeOptions;

use super::{
    authority, body, connect, connect_with, encrypted_echo, mirror, server_config, trusting,
};
use crate::support::frames::{CLOSE, TEXT, close, masked};
use crate::support::tcp::{OPENING, Tcp, bind};

/// A deadline that a test waits for.
const SHORT: Duration = Duration::from_millis(300);

/// What a client sends first, whole.
fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(trusting()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

fn is_served(addr: SocketAddr) {
    assert_eq!(body(&mut connect(addr)).unwrap(), "https://localhost/ true []");
}

/// Waits for the end of a connection, and how long that took.
fn time_to_end(client: &mut Tcp, since: Instant) -> Duration {
    let mut rest = Vec::new();
    match client.socket.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    since.elapsed()
}

#[test]
fn https_is_served_and_the_handler_knows() {
    is_served(bind(mirror(server_config())));
}

#[test]
fn wss_echoes_and_closes_with_a_close_notify() {
    let mut client = connect(bind(encrypted_echo(WebSocketOptions::default())));
    client.upgrade("/");
    client.send(masked(TEXT, "Hello"));
    client.expect_hex("81 05 48656c6c6f");
    client.send(masked(CLOSE, close(1000, "")));
    client.expect_hex("88 02 03e8");
    client.expect_end();
}

#[test]
fn over_tls_a_page_of_the_same_host_came_over_tls_as_well() {
    let options = WebSocketOptions::default;
    let strict = bind(encrypted_echo(options()));
    let listed = bind(encrypted_echo(UpgradeOptions::default().allow_origins(["http://x"])));
    for (origin, statuses) in [
        ("https://x", [101, 101]),
        ("wss://x:443", [101, 101]),
        // Whoever stands between the page and its server writes the page.
        ("http://x", [403, 101]),
        ("ws://x", [403, 403]),
        ("http://x:443", [403, 403]),
        ("https://evil.example", [403, 403]),
    ] {
        for (addr, status) in [strict, listed].into_iter().zip(statuses) {
            let mut client = connect(addr);
            client.send(OPENING.replace("Host: x", &format!("Host: x\r\nOrigin: {origin}")));
            let head = client.head();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}: {head}");
        }
    }
}

#[test]
fn versions_1_2_and_1_3_are_spoken() {
    let addr = bind(mirror(server_config()));
    let mut roots = RootCertStore::empty();
    roots.add(authority().0.der().clone()).unwrap();
    for (version, spoken) in
        [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
        let mut client = connect_with(addr, config).unwrap();
        assert_eq!(client.socket.conn.protocol_version(), Some(spoken));
        assert_eq!(body(&mut client).unwrap(), "https://localhost/ true []");
    }
}

#[test]
fn alpn_agrees_on_http_1_1_and_refuses_clients_of_other_protocols_only() {
    let addr = bind(mirror(server_config()));
    let offering = |protocols: &[&[u8]]| {
        let mut config = trusting();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        connect_with(addr, config)
    };
    let agreed = |client: &super::Client| client.socket.conn.alpn_protocol().map(<[u8]>::to_vec);
    assert_eq!(agreed(&offering(&[]).unwrap()), None);
    assert_eq!(agreed(&offering(&[b"h2", b"http/1.1"]).unwrap()), Some(b"http/1.1".to_vec()));

    let refused = offering(&[b"h2"]).unwrap_err();
    let error = refused.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(*error, Error::AlertReceived(AlertDescription::NoApplicationProtocol));
}

#[test]
fn a_session_is_resumed_without_a_certificate() {
    use tidewire::tls::rustls::HandshakeKind;
    let addr = bind(mirror(server_config()));
    let config = Arc::new(trusting());
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut client = connect_with(addr, Arc::clone(&config)).unwrap();
        assert_eq!(client.socket.conn.handshake_kind(), Some(kind));
        body(&mut client).unwrap();
    }
}

#[test]
fn a_client_that_does_not_speak_tls_is_told_so_in_plain_text() {
    let addr = bind(mirror(server_config()));
    for request in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "G", &"POST / HTTP/1.1\r\n".repeat(5_000)]
    {
        let mut client = Tcp::connect(addr);
        client.send(request);
        let mut answer = String::new();
        client.socket.read_to_string(&mut answer).unwrap();
        assert_eq!(
            answer,
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
             content-type: text/plain; charset=utf-8\r\ncontent-length: 45\r\n\r\n\
             this port speaks TLS: use https:// or wss://\n"
        );
    }
}

#[test]
fn clients_that_stop_in_the_middle_of_a_handshake_are_dropped_at_the_deadline() {
    let addr = bind(mirror(server_config().handshake_timeout(SHORT)));
    let hello = client_hello();
    for sent in [&[][..], &hello[..1], &hello[..hello.len() / 2], &hello] {
        let begin = Instant::now();
        let mut client = Tcp::connect(addr);
        client.send(sent);
        let time = time_to_end(&mut client, begin);
        assert!(time >= SHORT, "{} bytes: {time:?}", sent.len());
    }
    is_served(addr);
}

#[test]
fn three_hundred_clients_that_send_their_hello_and_fall_silent_do_not_keep_others_out() {
    let addr = bind(mirror(server_config()));
    let hello = client_hello();
    let stuck: Vec<_> = (0..300)
        .map(|_| {
            let mut client = Tcp::connect(addr);
            client.send(&hello);
            // The server has answered: it waits for the rest of the handshake.
            client.read(1);
            client
        })
        .collect();
    is_served(addr);
    drop(stuck);
}

#[test]
fn a_deadline_of_nothing_is_refused_at_the_start() {
    let config = server_config().handshake_timeout(Duration::ZERO);
    let bound = async_std::task::block_on(mirror(config).bind("127.0.0.1:0"));
    let message = format!("{:#}", bound.unwrap_err());
    assert_eq!(message, "I/O failed: handshake_timeout is 0, so no client could connect");
}

#[test]
fn bytes_that_only_look_like_a_handshake_are_answered_with_an_alert() {
    let mut client = Tcp::connect(bind(mirror(server_config())));
    // A ClientHello of no bytes.
    client.send(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00");
    // A fatal decode_error (RFC 8446 §6.2).
    client.expect(b"\x15\x03\x03\x00\x02\x02\x32");
    client.expect_end();
}

#[test]
fn an_alert_can_be_read_although_the_client_sends_on() {
    let mut config = trusting();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut sent = Vec::new();
    connection.write_tls(&mut sent).unwrap();
    // Bytes that nobody will read would turn the alert into a reset.
    sent.extend(vec![0; 50_000]);
    let mut socket: TcpStream = Tcp::connect(bind(mirror(server_config()))).socket;
    socket.write_all(&sent).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    // The last record is encrypted, and as long as an alert with its type and tag (RFC 8446 §5.2).
    let (_, alert) = answer.split_at(answer.len() - 24);
    assert!(alert.starts_with(b"\x17\x03\x03\x00\x13"), "{answer:02x?}");
}

#[test]
fn a_ready_configuration_is_used_as_it_is() {
    use tidewire::tls::rustls::ServerConfig;
    use tidewire::tls::rustls::pki_types::PrivateKeyDer;
    use tidewire::tls::rustls::pki_types::pem::PemObject;
    let identity = authority().issue("localhost");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&TLS12]).unwrap().with_no_client_auth();
    let config = builder.with_single_cert(vec![identity.der()], key).unwrap();
    let mut client =
        connect_with(bind(mirror(TlsConfig::from_rustls(Arc::new(config)))), trusting()).unwrap();
    assert_eq!(client.socket.conn.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(body(&mut client).unwrap(), "https://localhost/ true []");
}
