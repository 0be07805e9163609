//! A serving certificate for a Service, signed by an authority of its own whose key is thrown away.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use sha2::{Digest, Sha256};

/// All values are base64 of PEM, as manifests want it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) authority: String,
    pub(super) certificate: String,
    pub(super) key: String,
    /// Changes with the certificate: in a pod template, it makes a new one be loaded.
    pub(super) id: String,
}

/// A certificate for the host name `name`.
pub(super) fn for_service(name: &str) -> Result<Served, rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    let id = hex::encode(Sha256::digest(&certificate))[..12].to_owned();
    let base64 = |text: &str| STANDARD.encode(text);
    Ok(Served {
        authority: base64(&issuer.pem()),
        certificate: base64(&certificate),
        key: base64(&key.serialize_pem()),
        id,
    })
}
