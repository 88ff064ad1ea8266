//! Certificates of clients.

use tidewire::tls::rustls::{AlertDescription, Error};
use tidewire::tls::{ClientCertificates, TlsConfig, TlsError};

use super::{Authority, Identity, authority, body, client_config, connect_with, mirror};
use crate::support::tcp::bind;

/// What a client with or without a certificate is answered, or the alert that it is sent.
fn answer(config: TlsConfig, shows: Option<&Identity>) -> Result<String, AlertDescription> {
    let client = connect_with(bind(mirror(config)), client_config(authority(), shows));
    let answer = client.and_then(|mut client| body(&mut client));
    answer.map_err(|error| match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(Error::AlertReceived(alert)) => *alert,
        _ => panic!("{error:?}"),
    })
}

fn asking(mode: ClientCertificates, roots: &Authority) -> TlsConfig {
    let config = authority().issue("localhost").config();
    config.client_certificates(mode, roots.pem()).unwrap()
}

#[test]
fn a_certificate_that_is_required_is_asked_for_and_seen_by_the_handler() {
    let roots = Authority::new();
    let config = asking(ClientCertificates::Required, &roots);
    let client = roots.issue("client");
    let seen = format!("https://localhost/ true [{}]", client.der().len());
    assert_eq!(answer(config.clone(), Some(&client)), Ok(seen));
    assert_eq!(answer(config, None), Err(AlertDescription::CertificateRequired));
}

#[test]
fn a_certificate_that_is_optional_is_checked_if_it_is_shown() {
    let roots = Authority::new();
    let config = asking(ClientCertificates::Optional, &roots);
    let client = roots.issue("client");
    let seen = format!("https://localhost/ true [{}]", client.der().len());
    assert_eq!(answer(config.clone(), Some(&client)), Ok(seen));
    assert_eq!(answer(config.clone(), None), Ok("https://localhost/ true []".to_owned()));
    let stranger = Authority::new().issue("client");
    assert_eq!(answer(config, Some(&stranger)), Err(AlertDescription::UnknownCA));
}

#[test]
fn roots_without_a_certificate_are_refused_by_name() {
    let config = || authority().issue("localhost").config();
    let empty = config().client_certificates(ClientCertificates::Required, "").unwrap_err();
    assert_eq!(
        empty.to_string(),
        "the PEM text of the client certificates' roots holds no certificate"
    );
    let missing = config().client_certificates_file(ClientCertificates::Required, "/no/roots.pem");
    let message = format!("{:#}", missing.unwrap_err());
    assert!(message.starts_with("cannot read /no/roots.pem: "), "{message}");
}

#[test]
fn a_ready_configuration_keeps_its_own_verifier() {
    use std::sync::Arc;
    use tidewire::tls::rustls::ServerConfig;
    use tidewire::tls::rustls::server::ResolvesServerCertUsingSni;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let ready = builder.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
    let ready = TlsConfig::from_rustls(Arc::new(ready));
    let refused = ready.client_certificates(ClientCertificates::Required, authority().pem());
    assert!(matches!(refused, Err(TlsError::Ready)), "{refused:?}");
}
