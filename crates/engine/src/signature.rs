//! Who vouches for a log: an Ed25519 signature (RFC 8032) of its bytes, in a file beside it.
//!
//! The chain of hashes shows that nothing was changed in the midst of a log; whoever rewrites all of it can make a new
//! chain. A signature by a key that they do not have shows that too. Keys and signature are in the forms of OpenSSL, so
//! that anyone can check without Toprope.

use std::path::{Path, PathBuf};

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410, section 4).
const ED25519_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a log could not be signed, or a signature not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// A file cannot be used.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: std::io::Error,
    },
    /// No key of the kind that is used here.
    #[error("{} is no {kind} of Ed25519 in PEM: {why}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Which half is wanted.
        kind: &'static str,
        /// What is wrong.
        why: String,
    },
    /// There is none.
    #[error("{} is not signed: there is no {}", log.display(), of(log).display())]
    Unsigned {
        /// The log.
        log: PathBuf,
    },
    /// Log, signature and key do not belong together.
    #[error("{} is not what {} has signed: the log or its signature was changed, or another key made it", log.display(), key.display())]
    Wrong {
        /// The log.
        log: PathBuf,
        /// The public key.
        key: PathBuf,
    },
}

/// The file with a log's signature.
pub fn of(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

fn io<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(std::io::Error) -> SignatureError + use<'p> {
    move |error| SignatureError::Io { what, path: path.to_owned(), error }
}

/// Signs a log with a private key (PKCS #8 in PEM, as `openssl genpkey -algorithm ed25519` makes it), and returns the
/// signature's file.
///
/// # Errors
/// No such key, or a file cannot be read or written.
pub fn sign(log: &Path, key: &Path) -> Result<PathBuf, SignatureError> {
    let wrong = |why: String| SignatureError::Key { path: key.to_owned(), kind: "private key", why };
    let pem = std::fs::read(key).map_err(io("read", key))?;
    let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|e| wrong(e.to_string()))?;
    // OpenSSL writes the form without the public half, which there is then nothing to be held against.
    let pair =
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.secret_pkcs8_der()).map_err(|e| wrong(e.to_string()))?;
    let bytes = std::fs::read(log).map_err(io("read", log))?;
    let path = of(log);
    std::fs::write(&path, pair.sign(&bytes)).map_err(io("write", &path))?;
    Ok(path)
}

/// Checks a log's signature against a public key (SubjectPublicKeyInfo in PEM, as `openssl pkey -pubout` makes it).
///
/// # Errors
/// [`SignatureError::Wrong`] if it does not fit, [`SignatureError::Unsigned`] if there is none, or a file or key cannot
/// be used.
pub fn check(log: &Path, key: &Path) -> Result<(), SignatureError> {
    let wrong = |why: String| SignatureError::Key { path: key.to_owned(), kind: "public key", why };
    let pem = std::fs::read(key).map_err(io("read", key))?;
    let spki = SubjectPublicKeyInfoDer::from_pem_slice(&pem).map_err(|e| wrong(e.to_string()))?;
    let public = spki.strip_prefix(&ED25519_HEAD).ok_or_else(|| wrong("it is of another kind".into()))?;
    let signature = match std::fs::read(of(log)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(SignatureError::Unsigned { log: log.to_owned() });
        }
        read => read.map_err(io("read", &of(log)))?,
    };
    let bytes = std::fs::read(log).map_err(io("read", log))?;
    let checked = UnparsedPublicKey::new(&ED25519, public).verify(&bytes, &signature);
    checked.map_err(|_| SignatureError::Wrong { log: log.to_owned(), key: key.to_owned() })
}
