//! What commands show: the records, in the form they are printed and in the form of `--json`. Names of fields are
//! promised to programs.

#[cfg(test)]
pub(crate) mod samples;

use std::net::IpAddr;
use std::path::PathBuf;

use berth_core::names::NetworkNames;
use berth_core::network::{NetworkRecord, Vlan};
use berth_core::overlay::OverlayPort;
use berth_core::shown::{Names, Shown};
use berth_core::{Held, PortsRecord};
use berth_store::{AttachmentRow, AttachmentState};
use berth_types::{AttachmentKey, ContainerId, IfName, MacAddr, NetworkName, PublishedPort};
use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::text::{joined, or_dash, those_that_hold};

/// A network.
#[derive(Debug, Serialize)]
pub(crate) struct NetworkView {
    pub(crate) name: NetworkName,
    /// What people call it, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    shown: Option<String>,
    bridge: IfName,
    /// Whether berth made the bridge.
    bridge_is_ours: bool,
    subnets: Vec<IpNetwork>,
    gateways: Vec<IpNetwork>,
    mac: MacAddr,
    mtu: Option<u32>,
    promisc: bool,
    vlan: Option<Vlan>,
    /// Whether it is being made or changed, or its maker was killed.
    pending: bool,
    masquerade: bool,
    between_containers: bool,
    isolated: bool,
    internal: bool,
    /// What is answered about names; absent where the network has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<NetworkNames>,
    /// The port to other hosts; absent where the network has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    overlay: Option<OverlayView>,
    attachments: usize,
}

/// A network's port to other hosts.
#[derive(Debug, Serialize)]
struct OverlayView {
    #[serde(flatten)]
    port: OverlayPort,
    /// The other hosts' tunnel ends, from which frames are taken.
    vteps: Vec<IpAddr>,
}

impl NetworkView {
    pub(crate) fn new(record: NetworkRecord, rows: &[(AttachmentRow, Held)]) -> Self {
        let NetworkRecord {
            version: _,
            name,
            bridge,
            bridge_is_ours,
            reach,
            gateway: _,
            gateways,
            subnets,
            mac,
            mtu,
            promisc,
            vlan,
            announces: _,
            names,
            overlay,
            peers,
            pending,
        } = record;
        let attachments = rows.iter().filter(|(row, _)| row.key.network == name).count();
        Self {
            name,
            shown: None,
            bridge,
            bridge_is_ours,
            subnets: subnets.into_iter().collect(),
            gateways: gateways.into_iter().collect(),
            mac,
            mtu,
            promisc,
            vlan,
            pending,
            masquerade: reach.masquerade,
            between_containers: reach.between_containers,
            isolated: reach.isolated,
            internal: reach.internal,
            names,
            overlay: overlay.map(|port| OverlayView { port, vteps: peers.vteps.into_iter().collect() }),
            attachments,
        }
    }

    /// With what people call it.
    pub(crate) fn named(mut self, names: &Names) -> Self {
        self.shown = names.network(&self.name).map(|shown| shown.name.clone());
        self
    }

    pub(crate) const HEAD: &[&str] = &["NETWORK", "BRIDGE", "SUBNETS", "GATEWAYS", "REACH", "ATTACHMENTS"];

    pub(crate) fn row(&self) -> Vec<String> {
        vec![
            called(self.shown.as_deref(), &self.name),
            self.bridge.to_string(),
            joined(&self.subnets),
            joined(self.gateways.iter().map(IpNetwork::ip)),
            self.reach(),
            self.attachments.to_string(),
        ]
    }

    /// The choices in words, strictest first.
    fn reach(&self) -> String {
        those_that_hold(&[
            (self.internal, "internal"),
            (self.masquerade && !self.internal, "masqueraded"),
            (self.isolated, "isolated"),
            (!self.between_containers, "containers kept apart"),
            (self.overlay.as_ref().is_some_and(|overlay| overlay.port.encrypted), "encrypted between hosts"),
        ])
    }

    /// Labelled lines for `inspect`.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let maker = if self.bridge_is_ours { "made by berth" } else { "was there before" };
        vec![
            (
                "network",
                self.shown
                    .as_ref()
                    .map_or_else(|| self.name.to_string(), |shown| format!("{shown} ({})", self.name)),
            ),
            ("bridge", format!("{} ({maker}, {})", self.bridge, self.mac)),
            ("subnets", joined(&self.subnets)),
            ("gateways", joined(&self.gateways)),
            ("mtu", self.mtu.map_or_else(|| "the kernel's default".to_owned(), |mtu| mtu.to_string())),
            ("reach", self.reach()),
            ("names", self.names_words()),
        ]
    }

    fn names_words(&self) -> String {
        match &self.names {
            None => "none".to_owned(),
            Some(NetworkNames { domain, ttl, .. }) => format!("in {domain}, kept for {ttl} s"),
        }
    }
}

/// An attachment, or published ports of a container another plugin attached.
#[derive(Debug, Serialize)]
pub(crate) struct AttachmentView {
    container: ContainerId,
    network: NetworkName,
    ifname: IfName,
    #[serde(flatten)]
    shown: ShownNames,
    state: &'static str,
    addresses: Vec<IpNetwork>,
    mac: Option<MacAddr>,
    bridge: Option<IfName>,
    host_ifname: Option<IfName>,
    ports: Vec<PublishedPort>,
    sandbox: Option<PathBuf>,
    /// Milliseconds since 1970.
    created_ms: i64,
}

impl AttachmentView {
    pub(crate) fn new((row, held): (AttachmentRow, Held)) -> Self {
        let AttachmentRow { key, state, sandbox, created_ms, .. } = row;
        let AttachmentKey { network, container, ifname } = key;
        let half = Self {
            container,
            network,
            ifname,
            shown: ShownNames::default(),
            state: state.as_str(),
            addresses: Vec::new(),
            mac: None,
            bridge: None,
            host_ifname: None,
            ports: held.published().ports.clone(),
            sandbox: sandbox.map(|(path, _)| path),
            created_ms,
        };
        match held {
            Held::Bridge(record) => Self {
                addresses: record.leases.iter().map(|lease| lease.address).collect(),
                mac: Some(record.mac),
                bridge: Some(record.bridge),
                host_ifname: Some(record.host_ifname),
                ..half
            },
            // Not berth's attachment: only the ports are.
            Held::Ports(PortsRecord { .. }) if state == AttachmentState::Ready => {
                Self { state: "ports", ..half }
            }
            Held::Ports(PortsRecord { .. }) => half,
        }
    }

    /// With what people call it and its network.
    pub(crate) fn named(mut self, names: &Names) -> Self {
        self.shown = ShownNames::of(names, &self.network, &self.container, &self.ifname);
        self
    }

    pub(crate) const HEAD: &[&str] =
        &["CONTAINER", "NETWORK", "INTERFACE", "ADDRESSES", "MAC", "HOST LINK", "PORTS", "STATE"];

    pub(crate) fn row(&self) -> Vec<String> {
        vec![
            self.shown.container(&self.container),
            called(self.shown.network_name.as_deref(), &self.network),
            self.ifname.to_string(),
            joined(&self.addresses),
            or_dash(self.mac),
            or_dash(self.host_ifname.as_ref()),
            joined(self.ports.iter().map(short)),
            self.state.to_owned(),
        ]
    }
}

/// What people call an attachment's container and its network, where the engine knows them by numbers.
#[derive(Debug, Default, Serialize)]
struct ShownNames {
    /// The container's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    container_name: Option<String>,
    /// The container's number, where `container` is the number of its endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<String>,
    /// The network's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    network_name: Option<String>,
}

impl ShownNames {
    fn of(names: &Names, network: &NetworkName, container: &ContainerId, ifname: &IfName) -> Self {
        let key =
            AttachmentKey { network: network.clone(), container: container.clone(), ifname: ifname.clone() };
        let shown = names.attachment(&key).cloned();
        let network_name = names.network(network).map(|shown| shown.name.clone());
        let Some(Shown { name, container, aliases }) = shown else {
            return Self { network_name, ..Self::default() };
        };
        let container_id = Some(container).filter(|id| !id.is_empty());
        Self { container_name: Some(name), container_id, aliases, network_name }
    }

    fn container(&self, number: &ContainerId) -> String {
        self.container_name.clone().unwrap_or_else(|| number.short().to_owned())
    }
}

/// A network as it is shown: its name, or the beginning of a number that is too long to read.
fn called(shown: Option<&str>, name: &NetworkName) -> String {
    match (shown, name.as_str()) {
        (Some(shown), _) => shown.to_owned(),
        (None, number) if number.len() == 64 && number.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            number.chars().take(12).collect()
        }
        (None, name) => name.to_owned(),
    }
}

/// A published port and whose it is.
#[derive(Debug, Serialize)]
pub(crate) struct PortView {
    proto: berth_types::Proto,
    host_addr: IpAddr,
    host_port: u16,
    target: IpAddr,
    target_port: u16,
    /// How many ports in a row.
    count: u16,
    container: ContainerId,
    network: NetworkName,
    ifname: IfName,
    #[serde(flatten)]
    shown: ShownNames,
    #[serde(skip)]
    port: PublishedPort,
}

impl PortView {
    pub(crate) fn new(owner: AttachmentKey, port: PublishedPort) -> Self {
        let PublishedPort { proto, host_addr, host_port, target, target_port, count } = port;
        let AttachmentKey { network, container, ifname } = owner;
        let shown = ShownNames::default();
        Self {
            proto,
            host_addr,
            host_port,
            target,
            target_port,
            count,
            container,
            network,
            ifname,
            shown,
            port,
        }
    }

    /// With what people call its container and its network.
    pub(crate) fn named(mut self, names: &Names) -> Self {
        self.shown = ShownNames::of(names, &self.network, &self.container, &self.ifname);
        self
    }

    pub(crate) const HEAD: &[&str] = &["HOST", "PROTOCOL", "LEADS TO", "CONTAINER", "NETWORK"];

    pub(crate) fn row(&self) -> Vec<String> {
        let (from, to) = ends(&self.port);
        let network = called(self.shown.network_name.as_deref(), &self.network);
        vec![from, self.proto.to_string(), to, self.shown.container(&self.container), network]
    }

    /// By port, then by protocol and address: the order people look for.
    pub(crate) fn order(&self) -> (u16, PublishedPort) {
        (self.host_port, self.port)
    }
}

/// `0.0.0.0:8080`, `10.1.0.2:80`; what [`PublishedPort`] prints, in two halves.
fn ends(port: &PublishedPort) -> (String, String) {
    let text = port.to_string();
    let (from, to) = text.split_once(" -> ").unwrap_or((&text, ""));
    let (from, _) = from.split_once('/').unwrap_or((from, ""));
    (from.to_owned(), to.to_owned())
}

/// `8080->80/tcp`, with the host's address unless it is any.
fn short(port: &PublishedPort) -> String {
    let range = |first: u16| match port.count {
        1 => first.to_string(),
        count => format!("{first}-{}", first.saturating_add(count.saturating_sub(1))),
    };
    let (from, to) = (range(port.host_port), range(port.target_port));
    match (port.is_any_addr(), port.host_addr.is_ipv4()) {
        (true, true) => format!("{from}->{to}/{}", port.proto),
        (true, false) => format!("[::]:{from}->{to}/{}", port.proto),
        (false, true) => format!("{}:{from}->{to}/{}", port.host_addr, port.proto),
        (false, false) => format!("[{}]:{from}->{to}/{}", port.host_addr, port.proto),
    }
}

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;

    #[test]
    fn a_port_is_short_where_the_address_says_nothing() {
        let texts = [
            port("0.0.0.0", 8080, 1),
            port("::", 8080, 1),
            port("127.0.0.1", 8080, 1),
            port("fd80::1", 8080, 3),
        ];
        assert_eq!(
            texts.map(|port| short(&port)),
            ["8080->80/tcp", "[::]:8080->80/tcp", "127.0.0.1:8080->80/tcp", "[fd80::1]:8080-8082->80-82/tcp"]
        );
    }

    #[test]
    fn the_two_ends_of_a_port_are_told_apart() {
        assert_eq!(
            ends(&port("0.0.0.0", 8080, 2)),
            ("0.0.0.0:8080-8081".to_owned(), "10.80.0.2:80-81".to_owned())
        );
        assert_eq!(ends(&port("::", 53, 1)).0, "[::]:53");
    }

    #[test]
    fn an_attachment_in_json_has_the_whole_container_id() {
        let json = serde_json::to_string_pretty(&AttachmentView::new(attachment())).unwrap();
        insta::assert_snapshot!(json);
    }

    #[test]
    fn ports_of_another_plugins_container_have_no_address_of_berths() {
        let row = AttachmentView::new(foreign()).row();
        assert_eq!(row, ["c2", "front", "eth0", "-", "-", "-", "53->80/tcp", "ports"]);
    }

    #[test]
    fn numbers_are_shown_short_and_names_in_their_place() {
        let number: NetworkName = "0123456789abcdef".repeat(4).parse().unwrap();
        assert_eq!(called(None, &number), "0123456789ab");
        assert_eq!(called(Some("app"), &number), "app");
        assert_eq!(called(None, &"podman".parse().unwrap()), "podman");
    }

    #[test]
    fn a_network_in_json_counts_its_attachments() {
        let view = NetworkView::new(network(), &[attachment(), foreign()]);
        insta::assert_snapshot!(serde_json::to_string_pretty(&view).unwrap());
    }
}
