//! Whom a container's resolver asks what Docker's own does not know: dockerd takes it from the host's `resolv.conf`, and asks
//! from within the container. A network driver has no say in it, and dockerd does not tell.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// The host's servers.
const HOST: &str = "/etc/resolv.conf";

/// Where systemd-resolved keeps the servers that it asks itself; dockerd reads this where [`HOST`] has its stub alone.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// The stub of systemd-resolved.
const STUB: &str = "127.0.0.53";

/// Whom dockerd has containers ask where the host has only servers of its own loopback (its `defaultIPv4Dns` and
/// `defaultIPv6Dns`).
const PUBLIC: [&str; 4] = ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];

/// The servers that containers without any of their own ask. None where the host has none at all: what Docker gives them
/// then is theirs to ask, and berth knows nobody better.
pub(crate) fn of_containers() -> BTreeSet<IpAddr> {
    let read = |path: &str| match std::fs::read(Path::new(path)) {
        Ok(bytes) => berth_dns::servers_in(&String::from_utf8_lossy(&bytes)),
        Err(_) => Vec::new(),
    };
    given(&read(HOST), || read(UPSTREAM))
}

fn given(host: &[SocketAddr], upstream: impl FnOnce() -> Vec<SocketAddr>) -> BTreeSet<IpAddr> {
    let addrs = |servers: &[SocketAddr]| servers.iter().map(SocketAddr::ip).collect::<BTreeSet<_>>();
    let mut asked = addrs(host);
    if asked.iter().map(ToString::to_string).eq([STUB]) {
        asked.extend(addrs(&upstream()));
    }
    let had_any = !asked.is_empty();
    asked.retain(|addr| !addr.is_loopback());
    match asked.is_empty() && had_any {
        true => PUBLIC.iter().filter_map(|addr| addr.parse().ok()).collect(),
        false => asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(host: &[&str], upstream: &[&str]) -> String {
        let parsed = |servers: &[&str]| -> Vec<SocketAddr> {
            servers.iter().map(|addr| SocketAddr::new(addr.parse().unwrap(), 53)).collect()
        };
        let given = given(&parsed(host), || parsed(upstream));
        given.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn containers_ask_whom_dockerd_gives_them() {
        assert_eq!(shown(&["192.0.2.1", "2001:db8::1"], &[]), "192.0.2.1 2001:db8::1");
        assert_eq!(shown(&["127.0.0.1", "192.0.2.1"], &[]), "192.0.2.1");
        assert_eq!(shown(&["127.0.0.53"], &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(shown(&["127.0.0.53", "192.0.2.1"], &["192.0.2.7"]), "192.0.2.1", "not the stub alone");
        let public = "8.8.4.4 8.8.8.8 2001:4860:4860::8844 2001:4860:4860::8888";
        assert_eq!(shown(&["127.0.0.1", "::1"], &[]), public);
        assert_eq!(shown(&["127.0.0.53"], &[]), public);
        assert_eq!(shown(&[], &["192.0.2.7"]), "");
    }
}
