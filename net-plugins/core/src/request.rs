//! What an adapter asks the core for, and what it gets back.

use std::net::IpAddr;
use std::path::PathBuf;

use berth_ipam::PoolConfig;
use berth_netlink::Sandbox;
use berth_store::ReadTx;
use berth_types::{
    AddressLease, AttachmentKey, Dns, IfName, MacAddr, Proto, PublishedPort, Route, SandboxId,
};
use ipnetwork::IpNetwork;

use crate::attachment::{Bandwidth, ContainerLink, DuplicateDetection};
use crate::error::CoreError;
use crate::names::MemberNames;
use crate::network::NetworkSpec;

/// One attachment, as an adapter asks for it.
pub struct AttachRequest {
    /// The network, made where it does not exist.
    pub network: NetworkSpec,
    /// Who it is.
    pub key: AttachmentKey,
    /// The container's namespace; the host's own where the engine takes the link from there.
    pub sandbox: Sandbox,
    /// Where addresses come from.
    pub addressing: Addressing,
    /// A MAC address asked for.
    pub mac: Option<MacAddr>,
    /// Whether the gateway is the container's default route.
    pub default_route: bool,
    /// Frames may go back out of the container's port.
    pub hairpin: bool,
    /// The port reaches no other isolated port.
    pub port_isolation: bool,
    /// Whether forged frames from the container are dropped.
    pub anti_spoofing: bool,
    /// Whether the container's end is brought up.
    pub container_link: ContainerLink,
    /// Whether IPv6 duplicate addresses are looked for.
    pub duplicate_detection: DuplicateDetection,
    /// Ports to publish.
    pub ports: Vec<PortRequest>,
    /// Rate limits.
    pub bandwidth: Option<Bandwidth>,
    /// What it is called, where the network has names. Where absent, its engine tells its names later.
    pub names: Option<MemberNames>,
}

/// Reads what this host may give out of pools that are others' too.
pub type PoolsRead = Box<dyn Fn(&ReadTx<'_>) -> Result<PoolConfig, CoreError> + Send>;

/// Where an attachment's addresses come from.
pub enum Addressing {
    /// berth's own pools, in the same transaction as the attachment's record.
    Pool {
        /// The pools.
        config: Box<PoolConfig>,
        /// Resolver settings that go with them.
        resolv_conf: Dns,
        /// What is asked of them.
        request: berth_ipam::Request,
    },
    /// This host's part of pools that it shares with others: what that is, is read in the transaction that gives.
    Shared {
        /// Reads the pools.
        pools: PoolsRead,
        /// What is asked of them.
        request: berth_ipam::Request,
    },
    /// Somebody else's, for instance a delegated IPAM plugin's; or none at all.
    Given(Addresses),
    /// An engine's, which gives each to one attachment of a network at a time: whoever is recorded with one of them is a
    /// leftover that the engine has forgotten, and goes.
    Assigned(Addresses),
}

/// Addresses with what belongs to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The addresses.
    pub leases: Vec<AddressLease>,
    /// Routes that come with them.
    pub routes: Vec<Route>,
    /// Resolver settings that come with them.
    pub dns: Dns,
}

/// A port to publish, before the container's addresses are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRequest {
    /// The protocol.
    pub proto: Proto,
    /// The host's address; absent is every address of both families.
    pub host_addr: Option<IpAddr>,
    /// The first port of the host.
    pub host_port: u16,
    /// The first port of the container.
    pub container_port: u16,
    /// How many in a row.
    pub count: u16,
}

impl PortRequest {
    /// The ports this publishes for a container with `leases`: one for the first address of each family that the
    /// host address allows. A host address of a family the container does not have publishes nothing.
    pub fn resolve(&self, targets: &[IpAddr]) -> Vec<PublishedPort> {
        let first = |v4: bool| targets.iter().copied().find(|addr| addr.is_ipv4() == v4);
        let families = [(true, IpAddr::from([0_u8; 4])), (false, IpAddr::from([0_u16; 8]))];
        let port = |(v4, any): (bool, IpAddr)| {
            let host_addr = match self.host_addr {
                None => any,
                Some(addr) if addr.is_ipv4() == v4 => addr,
                Some(_) => return None,
            };
            Some(PublishedPort {
                proto: self.proto,
                host_addr,
                host_port: self.host_port,
                target: first(v4)?,
                target_port: self.container_port,
                count: self.count,
            })
        };
        families.into_iter().filter_map(port).collect()
    }
}

/// A port of the container that is to be published on some port of the host: the first that is free, from `start` on and
/// from `first` again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortChoice {
    /// The protocol.
    pub proto: Proto,
    /// The host's address; absent is every address of both families, and the port is then free on both.
    pub host_addr: Option<IpAddr>,
    /// The container's port.
    pub container_port: u16,
    /// The lowest port of the host that will do, not 0.
    pub first: u16,
    /// The highest.
    pub last: u16,
    /// Where to begin to look, between the two.
    pub start: u16,
}

impl PortChoice {
    /// The ports of the host that will do, in the order of preference.
    pub fn candidates(&self) -> impl Iterator<Item = u16> + use<> {
        let Self { first, last, start, .. } = *self;
        (start..=last).chain(first..start)
    }

    /// The choice once it is made.
    pub fn at(&self, host_port: u16) -> PortRequest {
        let Self { proto, host_addr, container_port, .. } = *self;
        PortRequest { proto, host_addr, host_port, container_port, count: 1 }
    }
}

/// An attachment that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Who it is.
    pub key: AttachmentKey,
    /// The bridge.
    pub bridge: IfName,
    /// The bridge's MAC address.
    pub bridge_mac: MacAddr,
    /// The host's end of the pair.
    pub host_ifname: IfName,
    /// Its MAC address.
    pub host_mac: MacAddr,
    /// The container end's MAC address.
    pub mac: MacAddr,
    /// MTU of the pair, bytes.
    pub mtu: u32,
    /// Addresses, routes and resolver settings.
    pub addresses: Addresses,
    /// The sandbox, as the caller named it.
    pub sandbox_path: PathBuf,
    /// What was published.
    pub ports: Vec<PublishedPort>,
}

/// Ports to publish for a container that somebody else attached.
pub struct PublishRequest {
    /// Whose they are.
    pub key: AttachmentKey,
    /// The ports.
    pub ports: Vec<PortRequest>,
    /// Ports of the container that any of several of the host will do for.
    pub choices: Vec<PortChoice>,
    /// The container's addresses with their prefixes.
    pub targets: Vec<IpNetwork>,
    /// Whether hairpin and localhost traffic is masqueraded, and so answered.
    pub masquerade_hairpin: bool,
    /// Whether the container's port may send frames back where they came from, where berth attached it: with br_netfilter,
    /// what a container sends to its own published port is translated on the bridge.
    pub hairpin_port: bool,
    /// Whether every source is masqueraded.
    pub masquerade_all: bool,
    /// The host link that leads to the container, where the caller knows it.
    pub link: Option<IfName>,
    /// The container's sandbox, where the caller knows it: when it is gone, so are the ports.
    pub sandbox: Option<(PathBuf, SandboxId)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_begins_where_it_is_told_and_leaves_nothing_out() {
        let choice = |first, last, start| {
            let proto = Proto::Tcp;
            let choice = PortChoice { proto, host_addr: None, container_port: 80, first, last, start };
            choice.candidates().collect::<Vec<_>>()
        };
        assert_eq!(choice(1, 4, 3), [3, 4, 1, 2]);
        assert_eq!(choice(65_534, 65_535, 65_534), [65_534, 65_535]);
        assert_eq!(choice(7, 7, 7), [7]);
    }

    #[test]
    fn a_port_is_published_in_the_families_it_can_be() {
        let both: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let request = |host_addr: Option<&str>| PortRequest {
            proto: Proto::Tcp,
            host_addr: host_addr.map(|addr| addr.parse().unwrap()),
            host_port: 8080,
            container_port: 80,
            count: 1,
        };
        let text = |host: Option<&str>, targets: &[IpAddr]| -> Vec<String> {
            request(host).resolve(targets).iter().map(ToString::to_string).collect()
        };
        assert_eq!(text(None, &both), ["0.0.0.0:8080/tcp -> 10.0.0.2:80", "[::]:8080/tcp -> [fd00::2]:80"]);
        assert_eq!(text(Some("127.0.0.1"), &both), ["127.0.0.1:8080/tcp -> 10.0.0.2:80"]);
        assert_eq!(text(Some("::1"), both.get(..1).unwrap()), Vec::<String>::new());
    }
}
