//! TLS in front of HTTP ([RFC 8446], [RFC 2818]).
//!
//! rustls encrypts. `config` is the configuration, with certificates that `crate::certificates` reads; `acceptor`
//! makes the handshake of each connection.
//!
//! [RFC 2818]: https://www.rfc-editor.org/rfc/rfc2818
//! [RFC 8446]: https://www.rfc-editor.org/rfc/rfc8446

mod acceptor;
mod config;

pub(super) use self::acceptor::{Acceptor, serve};
pub use self::config::{ClientCertificates, TlsConfig};
