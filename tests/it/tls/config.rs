//! Files that are missing, empty, or not what they should be.

use std::fs;
use std::path::{Path, PathBuf};

use tidewire::Error;
use tidewire::tls::{TlsConfig, TlsError};

use super::authority;

/// A folder of its own for each test, with its files.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let name = format!("tidewire-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn write(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn refusal(chain: &Path, key: &Path) -> TlsError {
    TlsConfig::from_pem_files(chain, key).unwrap_err()
}

#[test]
fn bad_files_are_named_with_their_fault() {
    let folder = Folder::new("bad-files");
    let identity = authority().issue("localhost");
    let chain = folder.write("chain.pem", &identity.certificate);
    let key = folder.write("key.pem", &identity.key);
    let other = folder.write("other.pem", &authority().issue("localhost").key);
    let empty = folder.write("empty.pem", "");
    let missing = Path::new("/no/such.pem");
    let section =
        |name: &str, body: &str| format!("-----BEGIN {name}-----\n{body}\n-----END {name}-----\n");
    let encrypted = folder.write("encrypted.pem", &section("ENCRYPTED PRIVATE KEY", "AAAA"));
    let legacy = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA";
    let legacy = folder.write("legacy.pem", &section("RSA PRIVATE KEY", legacy));
    let garbled = folder.write("garbled.pem", &section("CERTIFICATE", "!"));
    let unfinished = folder.write("unfinished.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n");
    let no_der = folder.write("no-der.pem", &section("CERTIFICATE", "AAAA"));
    let no_key = folder.write("no-key.pem", &section("PRIVATE KEY", "AAAA"));

    assert!(TlsConfig::from_pem_files(&chain, &key).is_ok());
    for (chain, key, at_fault, says) in [
        (missing, &*key, missing, "No such file"),
        (&*chain, missing, missing, "No such file"),
        (&empty, &key, &*empty, "holds no certificate"),
        (&key, &key, &*key, "holds no certificate"),
        (&chain, &empty, &*empty, "holds no private key"),
        (&chain, &chain, &*chain, "holds no private key"),
        (&chain, &encrypted, &*encrypted, "is encrypted"),
        (&chain, &legacy, &*legacy, "is encrypted"),
        (&chain, &other, &*other, "does not belong to the certificate in"),
        (&garbled, &key, &*garbled, "is not PEM"),
        (&chain, &unfinished, &*unfinished, "is not PEM"),
        (&no_der, &key, &*no_der, "cannot be used"),
        (&chain, &no_key, &*no_key, "cannot be used"),
    ] {
        let message = format!("{:#}", refusal(chain, key));
        assert!(message.contains(at_fault.to_str().unwrap()), "{message}");
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn text_is_as_good_as_files_and_both_parts_may_be_in_one() {
    let identity = authority().issue("localhost");
    let both = format!("Bag Attributes\n{}{}", identity.key, identity.certificate);
    assert!(TlsConfig::from_pem(&both, &both).is_ok());
    let missing = TlsConfig::from_pem("", &both).unwrap_err().to_string();
    assert_eq!(missing, "the PEM text of the certificate holds no certificate");
    let missing = TlsConfig::from_pem(&both, "").unwrap_err().to_string();
    assert_eq!(missing, "the PEM text of the private key holds no private key");
}

#[test]
fn a_refusal_is_passed_on_with_its_message() {
    let error = Error::from(refusal(Path::new("/no/such.pem"), Path::new("/no/such.pem")));
    let message = format!("{error:#}");
    assert!(message.starts_with("TLS is not configured: cannot read /no/such.pem: "), "{message}");
    let Error::Tls(error) = error else { panic!("{error:?}") };
    let TlsError::Unreadable { error, .. } = &*error else { panic!("{error:?}") };
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn debug_output_holds_no_key() {
    let identity = authority().issue("localhost");
    let shown = format!("{:?}", identity.config());
    assert!(shown.contains("private key") && !shown.contains("BEGIN"), "{shown}");
}
