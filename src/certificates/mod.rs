//! Certificates and keys, for both sides of TLS.
//!
//! `pem` reads them, and `error` holds their errors. `server/tls/` and `client/tls.rs` use them.

mod error;
mod pem;

pub use self::error::TlsError;
pub(crate) use self::pem::Pem;
