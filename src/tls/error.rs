//! What can be wrong with certificates and keys.

use std::path::PathBuf;
use std::sync::Arc;
use std::{error, fmt, io};

use super::Pem;
use crate::error::Error;

/// Why a TLS configuration cannot be used.
///
/// `origin` is the file at fault, or says which PEM text it was.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: Arc<io::Error>,
    },
    /// There is a PEM section, but what it holds is not base64, or it does not end (RFC 7468 §3).
    InvalidPem {
        /// Where.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No `CERTIFICATE` section.
    CertificateMissing {
        /// Where.
        origin: String,
    },
    /// No private key section.
    KeyMissing {
        /// Where.
        origin: String,
    },
    /// The private key is protected by a passphrase, which there is nobody to ask for.
    KeyEncrypted {
        /// Where.
        origin: String,
    },
    /// The private key belongs to another certificate.
    KeyMismatch {
        /// Where the certificate is.
        certificate: String,
        /// Where the key is.
        key: String,
    },
    /// A certificate or a key that cannot be used: malformed, or of an unknown kind.
    Refused {
        /// Where.
        origin: String,
        /// What rustls says.
        reason: String,
    },
    /// A ready rustls configuration has a client verifier of its own.
    Ready,
    /// rustls itself failed, without fault of the certificate.
    Rustls(rustls::Error),
}

impl TlsError {
    pub(crate) fn refused(origin: &Pem, error: &dyn fmt::Display) -> Self {
        Self::Refused { origin: origin.to_string(), reason: error.to_string() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(f, "cannot read {}: {error}", path.display())
            }
            Self::InvalidPem { origin, reason } => write!(f, "{origin} is not PEM: {reason}"),
            Self::CertificateMissing { origin } => write!(f, "{origin} holds no certificate"),
            Self::KeyMissing { origin } => write!(f, "{origin} holds no private key"),
            Self::KeyEncrypted { origin } => {
                write!(f, "the private key in {origin} is encrypted: decrypt it first")
            }
            Self::KeyMismatch { certificate, key } => {
                write!(
                    f,
                    "the private key in {key} is not that of the certificate in {certificate}"
                )
            }
            Self::Refused { origin, reason } => write!(f, "{origin} cannot be used: {reason}"),
            Self::Ready => f.write_str("the client verifier of a ready configuration is its own"),
            Self::Rustls(error) => error.fmt(f),
        }
    }
}

impl error::Error for TlsError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Unreadable { error, .. } => Some(&**error),
            Self::Rustls(error) => Some(error),
            _ => None,
        }
    }
}

impl From<TlsError> for Error {
    /// An [`Error::Io`] of the kind [`InvalidInput`](io::ErrorKind::InvalidInput), or of the kind
    /// that the system gave.
    fn from(error: TlsError) -> Self {
        let kind = match &error {
            TlsError::Unreadable { error, .. } => error.kind(),
            _ => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error).into()
    }
}
