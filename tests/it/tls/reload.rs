//! A new certificate for a server that runs.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use tidewire::tls::rustls::ServerConfig;
use tidewire::tls::rustls::crypto::ring;
use tidewire::tls::rustls::pki_types::CertificateDer;
use tidewire::tls::rustls::server::{ClientHello, ResolvesServerCert};
use tidewire::tls::rustls::sign::CertifiedKey;
use tidewire::tls::{ClientCertificates, TlsConfig};

use super::config::Folder;
use super::{Authority, authority, body, client_config, connect_with, mirror, trusting};
use crate::support::peer::WITHIN;
use crate::support::tcp::bind;

/// The certificate that the server shows now.
fn shown(addr: SocketAddr) -> CertificateDer<'static> {
    let client = connect_with(addr, trusting()).unwrap();
    client.socket.conn.peer_certificates().unwrap()[0].clone()
}

#[test]
fn connections_after_a_reload_see_the_new_certificate_and_those_before_live_on() {
    let folder = Folder::new("reload");
    let [old, new] = [0, 1].map(|_| authority().issue("localhost"));
    let chain = folder.write("chain.pem", &old.certificate);
    let key = folder.write("key.pem", &old.key);
    let config = TlsConfig::from_pem_files(&chain, &key).unwrap();
    let addr = bind(mirror(config.clone()));
    assert_eq!(shown(addr), old.der());
    let mut before = connect_with(addr, trusting()).unwrap();

    folder.write("chain.pem", &new.certificate);
    folder.write("key.pem", &new.key);
    assert_eq!(shown(addr), old.der());
    config.reload().unwrap();
    assert_eq!(shown(addr), new.der());
    assert_eq!(body(&mut before).unwrap(), "https://localhost/ true []");
}

#[test]
fn a_bad_certificate_is_an_error_and_the_old_one_stays() {
    let folder = Folder::new("bad-reload");
    let old = authority().issue("localhost");
    let chain = folder.write("chain.pem", &old.certificate);
    let key = folder.write("key.pem", &old.key);
    let config = TlsConfig::from_pem_files(&chain, &key).unwrap();
    let addr = bind(mirror(config.clone()));
    // As it is between the two writes of a renewal.
    folder.write("chain.pem", &authority().issue("localhost").certificate);
    let message = config.reload().unwrap_err().to_string();
    assert!(message.contains("does not belong to the certificate"), "{message}");
    assert_eq!(shown(addr), old.der());
}

#[test]
fn a_session_of_before_cannot_be_resumed() {
    use tidewire::tls::rustls::HandshakeKind;
    let config = authority().issue("localhost").config();
    let addr = bind(mirror(config.clone()));
    let client = Arc::new(trusting());
    for kind in [HandshakeKind::Full, HandshakeKind::Full] {
        let mut client = connect_with(addr, Arc::clone(&client)).unwrap();
        assert_eq!(client.socket.conn.handshake_kind(), Some(kind));
        body(&mut client).unwrap();
        config.reload().unwrap();
    }
}

#[test]
fn another_configuration_takes_the_place_of_one_that_has_no_files() {
    let [old, new] = [0, 1].map(|_| authority().issue("localhost"));
    let config = old.config();
    let addr = bind(mirror(config.clone()));
    config.reload().unwrap();
    assert_eq!(shown(addr), old.der());
    config.replace(&new.config());
    assert_eq!(shown(addr), new.der());
}

#[test]
fn the_roots_of_clients_are_reloaded_as_well() {
    let folder = Folder::new("roots");
    let [first, second] = [0, 1].map(|_| Authority::new());
    let roots = folder.write("roots.pem", &first.pem());
    let config = authority().issue("localhost").config();
    let config = config.client_certificates_file(ClientCertificates::Required, &roots).unwrap();
    let addr = bind(mirror(config.clone()));
    let client = second.issue("client");
    let answer = || {
        let client = client_config(authority(), Some(&client));
        connect_with(addr, client).and_then(|mut client| body(&mut client))
    };
    answer().unwrap_err();
    folder.write("roots.pem", &second.pem());
    config.reload().unwrap();
    answer().unwrap();
}

#[test]
fn a_replaced_value_may_use_the_configuration_when_it_is_dropped() {
    /// An application's own, in a configuration that it replaces once more in the end.
    #[derive(Debug)]
    struct Resolver(OnceLock<TlsConfig>, mpsc::Sender<()>);

    impl ResolvesServerCert for Resolver {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            None
        }
    }

    impl Drop for Resolver {
        fn drop(&mut self) {
            self.0.get().unwrap().replace(&authority().issue("localhost").config());
            self.1.send(()).unwrap();
        }
    }

    let (tell, dropped) = mpsc::channel();
    let resolver = Arc::new(Resolver(OnceLock::new(), tell));
    let rustls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
    let config = TlsConfig::from_rustls(Arc::new(rustls));
    resolver.0.set(config.clone()).unwrap();
    drop(resolver);
    thread::spawn(move || config.replace(&authority().issue("localhost").config()));
    dropped.recv_timeout(WITHIN).unwrap();
}
