//! Certificates and keys, for both sides of TLS ([RFC 8446]).
//!
//! `pem` reads them, and `error` holds their errors. `server/tls/` and `client/tls.rs` use them.
//!
//! [RFC 8446]: https://www.rfc-editor.org/rfc/rfc8446

mod error;
mod pem;

pub use self::error::TlsError;
pub(crate) use self::pem::Pem;
