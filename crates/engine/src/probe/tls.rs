//! TLS as probes speak it.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use toprope_model::fields;

use super::{Context, ProbeError};

fields! {
    /// How to speak TLS.
    pub(super) struct Tls {
        /// A PEM file of the authorities to trust instead of the system's.
        ca: Option<String>,
        /// Accept any certificate, also one that is expired, made out to another name, or signed by nobody.
        insecure: bool = "false",
        /// A PEM file with the client's certificate; needs `key`.
        cert: Option<String>,
        /// A PEM file with the key of `cert`.
        key: Option<String>,
        /// The name that is asked for and that the certificate must be made out to, where it is not the URL's host:
        /// for a server that is reached by its address.
        pub(super) server_name: Option<String>,
    }
}

/// The configuration for these options.
///
/// # Errors
/// A file that cannot be read or holds nothing of what it should.
pub(super) fn config(tls: Option<&Tls>, context: &Context) -> Result<ClientConfig, ProbeError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring speaks both versions of TLS that are built in");
    let Some(tls) = tls else {
        return Ok(builder.with_root_certificates(system_roots()).with_no_client_auth());
    };
    let builder = match &tls.ca {
        _ if tls.insecure => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&context.directory.join(ca))? {
                roots.add(certificate).map_err(|e| ProbeError(format!("{ca} holds no usable authority: {e}")))?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_root_certificates(system_roots()),
    };
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(&context.directory.join(cert))?;
            let path = context.directory.join(key);
            let key = PrivateKeyDer::from_pem_file(&path)
                .map_err(|e| ProbeError(format!("there is no usable key in {}: {e}", path.display())))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| ProbeError(format!("the certificate {cert} cannot be used with its key: {e}")))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(ProbeError::new("a client's certificate needs both `cert` and `key`")),
    }
}

/// A configuration for a client that is never asked to speak TLS: it reads no file and trusts nobody.
pub(super) fn unused() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks both versions of TLS that are built in")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ProbeError> {
    let cannot =
        |e: &dyn std::fmt::Display| ProbeError(format!("no certificate can be read in {}: {e}", path.display()));
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|e| cannot(&e))?.collect();
    match found {
        Ok(found) if found.is_empty() => Err(cannot(&"it holds none in PEM form")),
        Ok(found) => Ok(found),
        Err(e) => Err(cannot(&e)),
    }
}

/// The authorities that this system trusts; those that browsers trust where it has none, as in a bare container.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Arc::new(roots)
    });
    Arc::clone(roots)
}

/// Accepts every certificate, for `insecure: true`; still checks that the server holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
