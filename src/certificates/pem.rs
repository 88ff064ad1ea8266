//! Certificates and keys in their textual encoding ([RFC 7468]).
//!
//! [RFC 7468]: https://www.rfc-editor.org/rfc/rfc7468

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, fs};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// A source of PEM text. A file is read each time.
#[derive(Clone)]
pub(crate) enum Pem {
    File(PathBuf),
    /// The purpose of the text, for messages, and the text.
    Text(&'static str, Arc<[u8]>),
}

impl Pem {
    /// Reads all certificates, in order. There is at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let text = self.read()?;
        let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        match certificates.map_err(|error| self.invalid(&error))? {
            none if none.is_empty() => {
                Err(TlsError::CertificateMissing { origin: self.to_string() })
            }
            certificates => Ok(certificates),
        }
    }

    /// Reads the first private key: PKCS #8, PKCS #1 or SEC 1.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let text = self.read()?;
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
            _ if is_encrypted(&text) => TlsError::KeyEncrypted { origin: self.to_string() },
            pem::Error::NoItemsFound => TlsError::KeyMissing { origin: self.to_string() },
            error => self.invalid(&error),
        })
    }

    /// Reads all certificates as roots to trust.
    pub(crate) fn root_store(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for root in self.certificates()? {
            roots.add(root).map_err(|error| TlsError::refused(self, &error))?;
        }
        Ok(roots)
    }

    fn read(&self) -> Result<Cow<'_, [u8]>, TlsError> {
        match self {
            Self::File(path) => match fs::read(path) {
                Ok(text) => Ok(text.into()),
                Err(error) => {
                    Err(TlsError::Unreadable { path: path.clone(), error: Arc::new(error) })
                }
            },
            Self::Text(_, text) => Ok((&**text).into()),
        }
    }

    fn invalid(&self, error: &pem::Error) -> TlsError {
        TlsError::InvalidPem { origin: self.to_string(), reason: error.to_string() }
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Text(what, _) => write!(f, "the PEM text of the {what}"),
        }
    }
}

/// Leaves out the text, which may be a private key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a key needs a passphrase, in the form of PKCS #8 (RFC 7468 §11) or of RFC 1421.
fn is_encrypted(text: &[u8]) -> bool {
    const MARKS: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
    MARKS.iter().any(|mark| text.windows(mark.len()).any(|part| part == *mark))
}
