//! Certificates of a cluster: one authority, and a certificate for each user and server of it.
//!
//! Names and groups follow <https://kubernetes.io/docs/setup/best-practices/certificates/>.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use snafu::{ResultExt, Snafu};

#[derive(Debug, Snafu)]
#[snafu(display("failed to make a certificate for {name}"))]
pub struct Error {
    name: String,
    source: rcgen::Error,
}

/// A certificate and its private key, both PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Who a certificate is for.
#[derive(Clone, Debug, Default)]
pub struct Subject<'a> {
    /// The user name, or the server's.
    pub name: &'a str,
    /// A Kubernetes group.
    pub group: Option<&'a str>,
    /// DNS names and addresses that a server answers to; a certificate without any is for clients only.
    pub hosts: &'a [String],
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pair: Pair,
}

impl Authority {
    pub fn new(name: &str) -> Result<Self, Error> {
        let mut params = params(&Subject { name, ..Subject::default() })?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().context(Snafu { name })?;
        let certificate = params.self_signed(&key).context(Snafu { name })?;
        let pair = Pair { certificate: certificate.pem(), key: key.serialize_pem() };
        Ok(Self { issuer: Issuer::new(params, key), pair })
    }

    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    pub fn issue(&self, subject: &Subject<'_>) -> Result<Pair, Error> {
        let name = subject.name;
        let mut params = params(subject)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !subject.hosts.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context(Snafu { name })?;
        let certificate = params.signed_by(&key, &self.issuer).context(Snafu { name })?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn params(subject: &Subject<'_>) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(subject.hosts).context(Snafu { name: subject.name })?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.name);
    if let Some(group) = subject.group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    // A day of slack for clocks; a cluster of the testbed is far younger than a year.
    let (from, to) = (today.yesterday().unwrap_or(today), today.saturating_add(jiff::Span::new().years(1)));
    let at = |date: jiff::civil::Date| {
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    (params.not_before, params.not_after) = (at(from), at(to));
    Ok(params)
}

/// The key that signs service account tokens.
#[derive(Clone, Debug)]
pub struct TokenKey {
    /// PEM.
    pub private: String,
    /// PEM.
    pub public: String,
}

impl TokenKey {
    pub fn new() -> Result<Self, Error> {
        let key = KeyPair::generate().context(Snafu { name: "service account tokens" })?;
        Ok(Self { private: key.serialize_pem(), public: key.public_key_pem() })
    }
}

/// All that a control plane needs before it knows its nodes.
#[derive(Debug)]
pub struct Pki {
    pub authority: Authority,
    /// Signs the certificate with which the API server calls extension API servers.
    pub front_proxy: Authority,
    pub token_key: TokenKey,
}

impl Pki {
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            authority: Authority::new("vertice-testbed")?,
            front_proxy: Authority::new("vertice-testbed-front-proxy")?,
            token_key: TokenKey::new()?,
        })
    }

    /// A client certificate of a user, in a group or in none.
    pub fn user(&self, name: &str, group: Option<&str>) -> Result<Pair, Error> {
        self.authority.issue(&Subject { name, group, hosts: &[] })
    }
}
