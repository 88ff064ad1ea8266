//! Certificates and keys, for both sides of TLS ([RFC 8446]).
//!
//! `pem` reads them, and `error` says what was wrong with them. What a server makes of them is
//! `server/tls/`, and what a client does `client/tls.rs`.
//!
//! [RFC 8446]: https://www.rfc-editor.org/rfc/rfc8446

mod error;
mod pem;

pub use self::error::TlsError;
pub(crate) use self::pem::Pem;
