//! TLS with a certificate and a key from files, which are taken up again when they change.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::limits;

/// What is said over TLS: the relay speaks HTTP/1.1 alone.
const ALPN: &[u8] = b"http/1.1";

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the relay in PEM, and behind it those that lead to a certificate authority.
    pub certificate: PathBuf,
    /// Its private key in PEM, not encrypted.
    pub key: PathBuf,
}

/// Speaks TLS with those who connect. Clones are handles on the same certificate.
#[derive(Clone)]
pub struct Tls(Arc<State>);

struct State {
    files: TlsFiles,
    current: Mutex<Current>,
}

struct Current {
    /// Of what the files held, so that only what is new is taken up.
    hash: [u8; 32],
    config: Arc<ServerConfig>,
}

/// A certificate or a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// A file is too large to be one of a certificate or a key.
    #[error("{} has more than {} bytes: it is no certificate or key in PEM", path.display(), limits::TLS_FILE_BYTES)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate: a line `-----BEGIN CERTIFICATE-----` is expected", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The certificate cannot be used.
    #[error("the certificate in {} cannot be used: {reason}", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no private key in the file.
    #[error("{} holds no private key: a line `-----BEGIN PRIVATE KEY-----` is expected", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key is encrypted.
    #[error("the private key in {} is encrypted; `openssl pkey -in FILE -out PLAIN` decrypts it", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The private key cannot be used.
    #[error("the private key in {} cannot be used: {reason}", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong. Nothing of the key.
        reason: String,
    },
    /// The key is not the one of the certificate.
    #[error("the private key in {} is not that of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
}

impl Tls {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it; never anything of the key.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let (certificate, key) = files.read()?;
        let config = files.config(&certificate, &key)?;
        let current = Current { hash: hash(&certificate, &key), config: Arc::new(config) };
        Ok(Self(Arc::new(State { files, current: Mutex::new(current) })))
    }

    /// Reads the files again every [`TLS_LOOKED_AT_EVERY`](limits::TLS_LOOKED_AT_EVERY), and whenever `asked` says so. A pair that cannot be used
    /// changes nothing, and is logged. Connections that are open stay as they are. Does not end.
    pub async fn follow(self, mut asked: mpsc::Receiver<()>) {
        loop {
            tokio::select! {
                Some(()) = asked.recv() => {}
                () = tokio::time::sleep(limits::TLS_LOOKED_AT_EVERY) => {}
            }
            let own = self.clone();
            match tokio::task::spawn_blocking(move || own.renew()).await {
                Ok(Ok(true)) => tracing::info!("another TLS certificate was taken up"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::error!(%error, "the TLS certificate stays as it was"),
                Err(error) => tracing::error!(%error, "the TLS certificate could not be looked at"),
            }
        }
    }

    /// Takes up what is new in the files. Says whether anything was.
    fn renew(&self) -> Result<bool, TlsError> {
        let State { files, current } = &*self.0;
        let (certificate, key) = files.read()?;
        let hash = hash(&certificate, &key);
        let lock = || current.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().hash == hash {
            return Ok(false);
        }
        let config = Arc::new(files.config(&certificate, &key)?);
        *lock() = Current { hash, config };
        Ok(true)
    }

    /// Shakes hands with somebody who has connected.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.0.current.lock().unwrap_or_else(PoisonError::into_inner).config.clone();
        let accepted = TlsAcceptor::from(config).accept(stream);
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
        timeout(limits::TLS_HANDSHAKE_TIMEOUT, accepted).await.map_err(late)?
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.0.files).finish()
    }
}

impl TlsFiles {
    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
        Ok((read(&self.certificate)?, read(&self.key)?))
    }

    fn config(&self, certificate: &[u8], key: &[u8]) -> Result<ServerConfig, TlsError> {
        let chain = chain(&self.certificate, certificate)?;
        let key = private_key(&self.key, key)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let bad_key =
            |reason: rustls::Error| TlsError::BadKey { path: self.key.clone(), reason: reason.to_string() };
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let built = versions.map_err(bad_key)?.with_no_client_auth().with_single_cert(chain, key);
        let mut config = built.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { certificate: self.certificate.clone(), key: self.key.clone() }
            }
            rustls::Error::InvalidCertificate(reason) => {
                TlsError::BadCertificate { path: self.certificate.clone(), reason: reason.to_string() }
            }
            error => bad_key(error),
        })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |reason| TlsError::Unreadable { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(limits::TLS_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limits::TLS_FILE_BYTES {
        return Err(TlsError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |reason: String| TlsError::BadCertificate { path: path.to_owned(), reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|e| bad(e.to_string()))?;
    if chain.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(chain) }
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    use rustls::pki_types::pem::Error;
    let path = path.to_owned();
    let has = |text: &str| pem.windows(text.len()).any(|found| found == text.as_bytes());
    if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::EncryptedKey { path });
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Error::NoItemsFound => TlsError::NoKey { path },
        error => TlsError::BadKey { path, reason: error.to_string() },
    })
}

fn hash(certificate: &[u8], key: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(certificate.len() as u64).to_be_bytes()).update(certificate).update(key);
    *hasher.finalize().as_bytes()
}
