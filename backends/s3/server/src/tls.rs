//! TLS with a certificate of an authority that nobody knows who was not told of it.

use std::io;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

/// What a server shows to those who connect.
#[derive(Clone, Debug)]
pub struct Tls {
    authority: String,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// A certificate for these hosts, names or addresses, by an authority made for it.
    ///
    /// # Errors
    /// Where there is no randomness, or a name that no certificate can hold.
    pub fn new(hosts: &[&str]) -> io::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority of tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![1]);
        params.serial_number = Some(1.into());
        let authority = CertifiedIssuer::self_signed(params, Key::generate()?).map_err(io::Error::other)?;
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let key = Key::generate()?;
        let mut params = CertificateParams::new(hosts).map_err(io::Error::other)?;
        params.serial_number = Some(2.into());
        let certificate = params.signed_by(&key, &authority).map_err(io::Error::other)?;
        let key = PrivateKeyDer::try_from(key.encoded).map_err(io::Error::other)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { authority: authority.pem(), config: Arc::new(config) })
    }

    /// The certificate of the authority, for those who are to trust it: a file of the kind that `SSL_CERT_FILE` names.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        &self.authority
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.config.clone().into()
    }
}

/// A key that signs, of the library that everything else here is encrypted by.
struct Key {
    pair: EcdsaKeyPair,
    /// As PKCS #8 has it.
    encoded: Vec<u8>,
}

impl Key {
    fn generate() -> io::Result<Self> {
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let encoded = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).map_err(io::Error::other)?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, encoded.as_ref()).map_err(io::Error::other)?;
        Ok(Self { pair, encoded: encoded.as_ref().to_vec() })
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        signature.map(|signature| signature.as_ref().to_vec()).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
