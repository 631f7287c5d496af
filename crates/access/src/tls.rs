//! TLS to brokers and destinations: whom we trust, and who we are.
//!
//! The files are read anew at each use, so that rotated certificates are taken without a restart.
//! TLS 1.2 and 1.3 with ring. Whatever is wrong is an error: nothing here falls back to less.
//!
//! **Bound**: of a file, [`FILE_BYTES_MAX`] are read.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// A file of certificates may be this long: some hundred of them.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Files in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Who vouches for the other side. Default: whom the system trusts.
    pub ca: Option<PathBuf>,
    /// Our certificate and those between it and its root, ours first. Default: none is shown.
    pub certificate: Option<PathBuf>,
    /// The private key of `certificate`; the two come together.
    pub key: Option<PathBuf>,
}

/// Why there is no TLS; each names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing, is no file, or is not ours to read.
    #[error("failed to read {}: make the file readable for the agent", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("failed to use {}: it holds no {what} in PEM", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// One that cannot vouch for anybody, or one of an unknown kind.
    #[error("failed to use {}: {source}", path.display())]
    Refused {
        /// Which file.
        path: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// Certificate and key are not of each other.
    #[error("failed to use the key {}: it is not that of the certificate {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Only one of the two is named.
    #[error("failed to use {}: a certificate and its key must be named together", path.display())]
    Alone {
        /// Which file.
        path: PathBuf,
    },
    /// The machine trusts nobody.
    #[error("failed to read the system's CA certificates: install them, or name a `ca`")]
    System(#[source] rustls::Error),
}

impl Config {
    /// Reads the files; blocks.
    ///
    /// # Errors
    /// When one of them cannot be used, or the system's CA certificates where no `ca` is named.
    pub fn client(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::System)?;
        let builder = match &self.ca {
            Some(path) => builder.with_root_certificates(roots(path)?),
            None => builder.with_platform_verifier().map_err(Error::System)?,
        };
        match (&self.certificate, &self.key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|source| match source {
                    rustls::Error::InconsistentKeys(_) => {
                        Error::Mismatch { certificate: certificate.clone(), key: key.clone() }
                    }
                    source => Error::Refused { path: key.clone(), source },
                }),
            (Some(path), None) | (None, Some(path)) => Err(Error::Alone { path: path.clone() }),
        }
    }

    /// Reads the files beside the async runtime.
    ///
    /// # Errors
    /// As [`Config::client`].
    pub async fn client_aside(&self) -> Result<ClientConfig, Error> {
        let config = self.clone();
        let done = tokio::task::spawn_blocking(move || config.client()).await;
        done.unwrap_or_else(|error| Err(Error::System(rustls::Error::General(error.to_string()))))
    }
}

fn roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| Error::Refused { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let content = || Error::Content { path: path.to_owned(), what: "certificate" };
    certificates.ok().filter(|certificates| !certificates.is_empty()).ok_or_else(content)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| Error::Content { path: path.to_owned(), what: "private key" })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| Error::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        /// `a.pem` and `a.key` belong together, `b.pem` and `b.key` too; `ca.pem` signed neither.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["ca", "a", "b"] {
                let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
                std::fs::write(folder.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
                let key = made.signing_key.serialize_pem();
                std::fs::write(folder.path().join(format!("{name}.key")), key).unwrap();
            }
            std::fs::write(folder.path().join("other"), "nothing of the kind").unwrap();
            Self { folder }
        }

        /// Empty names stand for nothing.
        #[track_caller]
        fn check(&self, ca: &str, certificate: &str, key: &str, fault: Option<&str>) {
            let path = |name: &str| (!name.is_empty()).then(|| self.folder.path().join(name));
            let config = Config { ca: path(ca), certificate: path(certificate), key: path(key) };
            match (config.client(), fault) {
                (Ok(_), None) => {}
                (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
                (made, _) => panic!("{:?}", made.map(drop)),
            }
        }
    }

    #[test]
    fn every_fault_names_its_file() {
        let files = Files::new();
        files.check("ca.pem", "", "", None);
        files.check("ca.pem", "a.pem", "a.key", None);
        files.check("none.pem", "", "", Some("none.pem: make the file readable"));
        files.check("other", "", "", Some("other: it holds no certificate in PEM"));
        files.check("a.key", "", "", Some("a.key: it holds no certificate in PEM"));
        files.check("ca.pem", "none.pem", "a.key", Some("none.pem: make the file readable"));
        files.check("ca.pem", "a.pem", "none.key", Some("none.key: make the file readable"));
        files.check("ca.pem", "a.pem", "a.pem", Some("a.pem: it holds no private key in PEM"));
        files.check("ca.pem", "a.pem", "b.key", Some("b.key: it is not that of the certificate"));
        files.check("ca.pem", "a.pem", "", Some("a.pem: a certificate and its key must be named together"));
        files.check("ca.pem", "", "a.key", Some("a.key: a certificate and its key must be named together"));
    }

    #[test]
    fn a_rotated_certificate_is_taken_at_the_next_use() {
        let files = Files::new();
        files.check("ca.pem", "a.pem", "b.key", Some("not that of"));
        std::fs::copy(files.folder.path().join("b.pem"), files.folder.path().join("a.pem")).unwrap();
        files.check("ca.pem", "a.pem", "b.key", None);
    }
}
