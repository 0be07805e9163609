//! Names of stores, resolved in process: glibc's resolver would load name-service modules of the image that the agent is a
//! guest in, and those need not fit a static binary.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use object_store::client::{DnsFuture, DnsResolver};

/// Resolves by `/etc/resolv.conf` and `/etc/hosts`.
#[derive(Debug)]
pub(super) struct Resolver(Arc<AssertUnwindSafe<TokioResolver>>);

impl Resolver {
    pub(super) fn from_system() -> Result<Self, hickory_resolver::net::NetError> {
        let resolver = TokioResolver::builder_tokio()?.build()?;
        Ok(Self(Arc::new(AssertUnwindSafe(resolver))))
    }
}

impl DnsResolver for Resolver {
    fn resolve(&self, host: &str) -> DnsFuture {
        let (resolver, host) = (self.0.clone(), host.to_owned());
        Box::pin(async move {
            match resolver.lookup_ip(host.as_str()).await {
                Ok(found) => Ok(found.iter().collect::<Vec<IpAddr>>()),
                Err(error) => Err(format!("the name {host} does not resolve: {error}").into()),
            }
        })
    }
}
