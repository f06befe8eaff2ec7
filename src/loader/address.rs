//! Which addresses a source may stand at: a source is a user's word, and the loader runs inside the cluster.

use std::net::{IpAddr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

use crate::address::forbidden;

/// A host that may not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{} is {what}, where no source may stand", named(host, *address))]
pub(super) struct ForbiddenAddress {
    host: String,
    address: IpAddr,
    what: &'static str,
}

/// `name (address)`; an address that stands in the URL is its own name.
fn named(host: &str, address: IpAddr) -> String {
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(_) | IpAddr::V6(_)) => host.to_owned(),
        Err(_) => format!("{host} ({address})"),
    }
}

/// Addresses written into the URL never meet the resolver.
pub(super) fn check_literal(url: &Url, allow_loopback: bool) -> Result<(), ForbiddenAddress> {
    let address = match url.host() {
        Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
        Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
        _ => return Ok(()),
    };
    match forbidden(address, allow_loopback) {
        Some(what) => {
            Err(ForbiddenAddress { host: url.host_str().unwrap_or_default().into(), address, what })
        }
        None => Ok(()),
    }
}

/// Resolves names and refuses one that has any forbidden address: the connection is made to exactly the addresses
/// that were checked.
pub(super) struct Resolver {
    pub allow_loopback: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_loopback = self.allow_loopback;
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            for address in &found {
                let address = address.ip();
                if let Some(what) = forbidden(address, allow_loopback) {
                    return Err(ForbiddenAddress { host: host.into(), address, what }.into());
                }
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
