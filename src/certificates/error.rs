//! The errors of certificates and keys.

use std::path::PathBuf;
use std::sync::Arc;
use std::{error, fmt, io};

use super::Pem;
use crate::causes;

/// The reason why a TLS configuration cannot be used.
///
/// `origin` is the path of the file at fault, or names the PEM text at fault.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: Arc<io::Error>,
    },
    /// A PEM section does not hold base64, or does not end (RFC 7468 §3).
    InvalidPem {
        /// The file or text.
        origin: String,
        /// The reason.
        reason: String,
    },
    /// No `CERTIFICATE` section.
    CertificateMissing {
        /// The file or text.
        origin: String,
    },
    /// No private key section.
    KeyMissing {
        /// The file or text.
        origin: String,
    },
    /// The private key is protected by a passphrase. A server has no way to ask for one.
    KeyEncrypted {
        /// The file or text.
        origin: String,
    },
    /// The private key belongs to another certificate.
    KeyMismatch {
        /// The file or text of the certificate.
        certificate: String,
        /// The file or text of the key.
        key: String,
    },
    /// A certificate or a key that cannot be used: malformed, or of an unknown kind.
    Refused {
        /// The file or text.
        origin: String,
        /// The reason that rustls gives.
        reason: String,
    },
    /// A ready rustls configuration has a verifier and a certificate of its own, which cannot be changed.
    Ready,
    /// rustls failed for a reason other than a certificate or a key.
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
            Self::Unreadable { path, .. } => write!(f, "cannot read {}", path.display()),
            Self::InvalidPem { origin, reason } => write!(f, "{origin} is not PEM: {reason}"),
            Self::CertificateMissing { origin } => write!(f, "{origin} holds no certificate"),
            Self::KeyMissing { origin } => write!(f, "{origin} holds no private key"),
            Self::KeyEncrypted { origin } => {
                write!(f, "the private key in {origin} is encrypted: decrypt it first")
            }
            Self::KeyMismatch { certificate, key } => {
                write!(
                    f,
                    "the private key in {key} does not belong to the certificate in {certificate}"
                )
            }
            Self::Refused { origin, reason } => write!(f, "{origin} cannot be used: {reason}"),
            Self::Ready => f.write_str(
                "a ready rustls configuration cannot be changed; set verifier and certificate there",
            ),
            Self::Rustls(_) => f.write_str("rustls failed"),
        }?;
        causes::append(self, f)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_repeats_its_cause() {
        let (path, origin) = (PathBuf::from("cert.pem"), || "cert.pem".to_owned());
        let error = Arc::new(io::Error::other("it is gone"));
        let cases = [
            (TlsError::Unreadable { path, error }, 2),
            (TlsError::InvalidPem { origin: origin(), reason: "no base64".to_owned() }, 1),
            (TlsError::CertificateMissing { origin: origin() }, 1),
            (TlsError::KeyMissing { origin: origin() }, 1),
            (TlsError::KeyEncrypted { origin: origin() }, 1),
            (TlsError::KeyMismatch { certificate: origin(), key: origin() }, 1),
            (TlsError::Refused { origin: origin(), reason: "too old".to_owned() }, 1),
            (TlsError::Ready, 1),
            (TlsError::Rustls(rustls::Error::DecryptError), 2),
        ];
        for (error, texts) in cases {
            assert_eq!(causes::check_texts(&error), texts, "{error:#}");
        }
    }
}
