//! Whom the client trusts.

use tidewire::client::ConnectError;
use tidewire::tls::{ClientCertificates, ClientTls, TlsConfig, TlsError};
use tidewire::{Client, RequestContext, Server, WebSocket, WebSocketOptions};

use super::refusal;
use crate::support::peer::within;
use crate::support::tcp::{bind, echo_server};
use crate::tls::{Authority, authority, server_config};

/// Trusts the authority of the tests.
pub(super) fn trusting() -> ClientTls {
    ClientTls::with_roots(authority().pem()).unwrap()
}

/// The URL of an encrypted echo.
fn echo(config: TlsConfig) -> String {
    let mut server = echo_server(WebSocketOptions::default());
    server.tls(config);
    format!("wss://localhost:{}/", bind(server).port())
}

async fn echoes(mut ws: WebSocket) {
    ws.send("secret").await.unwrap();
    assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some("secret"));
    assert!(ws.close(1000, "").await.unwrap().clean);
}

#[test]
fn a_server_of_an_authority_that_is_trusted_is_talked_to() {
    let url = echo(server_config());
    within(async {
        echoes(Client::new(url).tls(trusting()).connect().await.unwrap()).await;
    });
}

#[test]
fn a_server_of_another_authority_is_not() {
    let url = echo(server_config());
    let other = ClientTls::with_roots(Authority::new().pem()).unwrap();
    for client in [Client::new(&url).tls(other), Client::new(&url)] {
        let error = refusal(within(client.connect()));
        assert!(matches!(*error, ConnectError::Tls { .. }), "{error:?}");
        assert!(!error.is_transient());
    }
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let url = echo(authority().issue("example.com").config());
    let error = refusal(within(Client::new(url).tls(trusting()).connect()));
    assert!(matches!(*error, ConnectError::Tls { .. }), "{error:?}");
    assert_eq!(error.to_string(), "the TLS handshake with localhost failed");
}

#[test]
fn verification_is_off_only_on_request() {
    let url = echo(Authority::new().issue("example.com").config());
    within(async {
        let tls = ClientTls::dangerously_unverified().unwrap();
        echoes(Client::new(url).tls(tls).connect().await.unwrap()).await;
    });
}

#[test]
fn a_client_shows_its_certificate() {
    let clients = Authority::new();
    let config = server_config();
    let config =
        TlsConfig::client_certificates(config, ClientCertificates::Required, clients.pem())
            .unwrap();
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        let shown = ctx.peer_certificates().count();
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        ws.send(format!("{shown}")).await?;
        Ok(())
    });
    server.tls(config);
    let url = format!("wss://localhost:{}/", bind(server).port());

    let identity = clients.issue("client");
    let tls = trusting().certificate(&identity.certificate, &identity.key).unwrap();
    within(async {
        let mut ws = Client::new(&url).tls(tls).connect().await.unwrap();
        assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some("1"));
    });
    // TLS 1.3 tells a client that it is not welcome when it has finished already.
    let error = refusal(within(Client::new(&url).tls(trusting()).connect()));
    assert!(matches!(*error, ConnectError::Tls { .. } | ConnectError::Io(_)), "{error:?}");
}

#[test]
fn certificates_that_cannot_be_used_are_told() {
    let [one, other] = ["one", "other"].map(|name| authority().issue(name));
    let mismatch = trusting().certificate(&one.certificate, &other.key);
    assert!(matches!(mismatch, Err(TlsError::Refused { .. })), "{mismatch:?}");
    let missing = ClientTls::with_roots("");
    assert!(matches!(missing, Err(TlsError::CertificateMissing { .. })), "{missing:?}");
    let unreadable = ClientTls::with_roots_file("/nowhere/ca.pem");
    assert!(matches!(unreadable, Err(TlsError::Unreadable { .. })), "{unreadable:?}");
}

#[test]
fn a_server_without_tls_is_an_error_and_no_hang() {
    let port = bind(echo_server(WebSocketOptions::default())).port();
    let client = Client::new(format!("wss://localhost:{port}/")).tls(trusting());
    let error = refusal(within(client.connect()));
    assert!(matches!(*error, ConnectError::Tls { .. }), "{error:?}");
}

#[cfg(feature = "webpki-roots")]
#[test]
fn mozilla_does_not_trust_the_authority_of_the_tests() {
    let client = Client::new(echo(server_config())).tls(ClientTls::webpki().unwrap());
    let error = refusal(within(client.connect()));
    assert!(matches!(*error, ConnectError::Tls { .. }), "{error:?}");
    assert!(format!("{error:#}").contains("UnknownIssuer"), "{error:#}");
}
