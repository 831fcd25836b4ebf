//! The steps a plan is made of. Each is idempotent ("exists" on add and "absent" on delete are success) and has an
//! inverse, which undoes it only where it did something.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv6Addr;

use berth_netlink::sysctl::SysctlKey;
use berth_nft::Element;
use berth_types::{Family, IfName, MacAddr, PublishedPort, Route};
use ipnetwork::IpNetwork;

use crate::attachment::{Bandwidth, DuplicateDetection};
use crate::overlay::OverlayPort;

/// One change of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes a bridge, down, with its own MAC address so that it does not follow its ports'.
    BridgeAdd {
        /// Its name.
        name: IfName,
        /// Its address.
        mac: MacAddr,
        /// Its MTU, bytes.
        mtu: Option<u32>,
        /// Its alias.
        alias: String,
        /// Whether it filters VLANs.
        vlan_filtering: bool,
    },
    /// Sets the alias of a host link.
    LinkAlias {
        /// The link.
        link: IfName,
        /// Its alias.
        alias: String,
    },
    /// Makes a bridge promiscuous.
    Promisc {
        /// The bridge.
        link: IfName,
    },
    /// Writes a kernel switch of the host, keeping the value it had.
    Sysctl {
        /// The switch.
        key: SysctlKey,
        /// The value.
        value: String,
        /// Whether it outlives the change that needed it and is recorded for `berth uninstall` to restore.
        host_wide: bool,
    },
    /// Gives a host link an address.
    AddrAdd {
        /// The link.
        link: IfName,
        /// Host address and prefix.
        address: IpNetwork,
        /// Never chosen as a source while there is another.
        deprecated: bool,
    },
    /// Takes an address from a host link.
    AddrDel {
        /// The link.
        link: IfName,
        /// Host address and prefix.
        address: IpNetwork,
    },
    /// Brings a host link up.
    LinkUp {
        /// The link.
        link: IfName,
    },
    /// Adds elements to the constant ruleset, in one transaction.
    ElementsAdd(BTreeSet<Element>),
    /// Makes the veth pair: the container's end in its sandbox and the host's end on the bridge, down.
    VethAdd {
        /// The host's end.
        host: IfName,
        /// Its alias.
        alias: String,
        /// The container's end.
        container: IfName,
        /// The container's MAC address.
        mac: MacAddr,
        /// MTU of both ends, bytes.
        mtu: Option<u32>,
        /// The bridge.
        bridge: IfName,
        /// Frames may go back out of the port.
        hairpin: bool,
        /// The port reaches no other isolated port.
        isolated: bool,
    },
    /// Puts a host link on a bridge.
    PortAdd {
        /// The link.
        port: IfName,
        /// The bridge.
        bridge: IfName,
        /// Frames may go back out of the port.
        hairpin: bool,
        /// The port reaches no other isolated port.
        isolated: bool,
    },
    /// Makes the VXLAN device of an overlay, down, as a port of its bridge.
    VxlanAdd {
        /// The network's port to other hosts.
        overlay: OverlayPort,
        /// Its alias.
        alias: String,
        /// The bridge.
        bridge: IfName,
    },
    /// Gives a VXLAN device that is there its place, MTU and settings again.
    VxlanSet {
        /// The network's port to other hosts.
        overlay: OverlayPort,
        /// Its alias.
        alias: String,
        /// The bridge.
        bridge: IfName,
    },
    /// Removes a VXLAN device of the network that is not what it should be.
    VxlanDel {
        /// The device.
        link: IfName,
    },
    /// Gives a bridge its MAC address and MTU again.
    BridgeSet {
        /// The bridge.
        bridge: IfName,
        /// Its address.
        mac: MacAddr,
        /// Its MTU, bytes.
        mtu: u32,
    },
    /// Sets the VLANs of a bridge port.
    PortVlan {
        /// The port.
        port: IfName,
        /// First and last VLAN.
        range: (u16, u16),
        /// Untagged and the port's own.
        pvid: bool,
    },
    /// Takes the bridge's default VLAN from a port.
    PortVlanDel {
        /// The port.
        port: IfName,
        /// The VLAN.
        vid: u16,
    },
    /// Limits the rate out of a host link, and through an IFB device the rate into it.
    Shape {
        /// The host's end of the pair.
        link: IfName,
        /// The IFB device, where there is a limit from the container.
        ifb: IfName,
        /// The limits.
        limits: Bandwidth,
    },
    /// Gives the container's end an address.
    SandboxAddrAdd {
        /// The link in the sandbox.
        link: IfName,
        /// Host address and prefix.
        address: IpNetwork,
        /// Whether the kernel probes for duplicates.
        duplicate_detection: DuplicateDetection,
    },
    /// Writes kernel switches of the sandbox. One that this kernel does not have is passed over: a kernel without IPv6
    /// refuses an IPv6 address by itself.
    SandboxSysctls(Vec<(SysctlKey, String)>),
    /// Brings a link of the sandbox up.
    SandboxLinkUp {
        /// The link.
        link: IfName,
        /// Whether it gets an IPv6 link-local address.
        link_local: bool,
    },
    /// Adds a route inside the sandbox.
    SandboxRouteAdd {
        /// The link it leaves by.
        link: IfName,
        /// The route; its gateway is filled in.
        route: Route,
    },
    /// Waits until packets pass between the container and the bridge, and are taken in for their addresses: the kernel puts
    /// carriers and IPv6 addresses into effect in its own time.
    AwaitForwarding {
        /// The link in the sandbox.
        link: IfName,
        /// The host's end.
        port: IfName,
        /// The bridge: its carrier is that of its first port.
        bridge: IfName,
        /// IPv6 addresses in the sandbox.
        addresses: Vec<Ipv6Addr>,
        /// IPv6 addresses of the bridge.
        gateways: Vec<Ipv6Addr>,
    },
    /// Tells the neighbours whose addresses these are now.
    Announce {
        /// The link in the sandbox, through which packets pass.
        link: IfName,
        /// Its MAC address.
        mac: MacAddr,
    },
    /// Drops tracked UDP flows that a changed mapping would otherwise keep on their old way.
    ConntrackFlush(PublishedPort),
}

/// Steps in the order they are done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
}

impl Plan {
    /// Adds a step at the end.
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Adds elements, unless there are none.
    pub fn push_elements(&mut self, elements: BTreeSet<Element>) {
        if !elements.is_empty() {
            self.push(Step::ElementsAdd(elements));
        }
    }

    /// Adds all steps of `other` at the end.
    pub fn append(&mut self, other: Plan) {
        self.steps.extend(other.steps);
    }

    /// The steps, first to be done first.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The host-wide switches it sets, with their values.
    pub fn host_wide_switches(&self) -> impl Iterator<Item = (&SysctlKey, &str)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Sysctl { key, value, host_wide: true } => Some((key, value.as_str())),
            _ => None,
        })
    }

    /// The links it closes to each other, by family.
    pub fn closed_uplinks(&self) -> impl Iterator<Item = (Family, &IfName)> {
        let elements = self.steps.iter().filter_map(|step| match step {
            Step::ElementsAdd(elements) => Some(elements),
            _ => None,
        });
        elements.flatten().filter_map(|element| match element {
            Element::ClosedRouter { family, link } => Some((*family, link)),
            _ => None,
        })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BridgeAdd { name, mac, mtu, vlan_filtering, .. } => {
                write!(f, "bridge add {name} mac {mac}")?;
                mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))?;
                if *vlan_filtering { write!(f, " vlan_filtering") } else { Ok(()) }
            }
            Self::LinkAlias { link, alias } => write!(f, "link set {link} alias \"{alias}\""),
            Self::Promisc { link } => write!(f, "link set {link} promisc on"),
            Self::Sysctl { key, value, .. } => write!(f, "sysctl {key} = {value}"),
            Self::AddrAdd { link, address, deprecated } => {
                write!(f, "address add {address} on {link}")?;
                if *deprecated { write!(f, ", never a source") } else { Ok(()) }
            }
            Self::AddrDel { link, address } => write!(f, "address del {address} on {link}"),
            Self::LinkUp { link } => write!(f, "link set {link} up"),
            Self::ElementsAdd(elements) => {
                write!(f, "nft add elements")?;
                elements.iter().try_for_each(|element| write!(f, "\n    {element}"))
            }
            Self::VethAdd { host, container, mac, mtu, bridge, hairpin, isolated, alias: _ } => {
                write!(f, "veth add {host} on {bridge}, peer {container} mac {mac} in the sandbox")?;
                mtu.iter().try_for_each(|mtu| write!(f, " mtu {mtu}"))?;
                let flags = [(hairpin, " hairpin"), (isolated, " isolated")];
                flags.iter().filter(|(set, _)| **set).try_for_each(|(_, flag)| f.write_str(flag))
            }
            Self::PortAdd { port, bridge, hairpin, isolated } => {
                write!(f, "link set {port} master {bridge}")?;
                let flags = [(hairpin, " hairpin"), (isolated, " isolated")];
                flags.iter().filter(|(set, _)| **set).try_for_each(|(_, flag)| f.write_str(flag))
            }
            Self::VxlanAdd { overlay, bridge, .. } => {
                write!(f, "vxlan add {} on {bridge}, {overlay}", overlay.device())
            }
            Self::VxlanSet { overlay, bridge, .. } => {
                write!(f, "vxlan set {} on {bridge}, {overlay}", overlay.device())
            }
            Self::VxlanDel { link } => write!(f, "link delete {link}"),
            Self::BridgeSet { bridge, mac, mtu } => write!(f, "link set {bridge} mac {mac} mtu {mtu}"),
            Self::PortVlan { port, range: (first, last), pvid } => {
                write!(f, "bridge vlan add {first}-{last} on {port}")?;
                if *pvid { write!(f, " pvid untagged") } else { Ok(()) }
            }
            Self::PortVlanDel { port, vid } => write!(f, "bridge vlan del {vid} on {port}"),
            Self::Shape { link, limits: Bandwidth { ingress, egress }, ifb } => {
                write!(f, "shape {link}")?;
                ingress.iter().try_for_each(|(rate, burst)| {
                    write!(f, " to the container {rate} bit/s burst {burst}")
                })?;
                egress
                    .iter()
                    .try_for_each(|(rate, burst)| write!(f, " from it by {ifb} {rate} bit/s burst {burst}"))
            }
            Self::SandboxAddrAdd { link, address, .. } => {
                write!(f, "sandbox: address add {address} on {link}")
            }
            Self::SandboxSysctls(switches) => {
                for (index, (key, value)) in switches.iter().enumerate() {
                    write!(f, "{}sandbox: sysctl {key} = {value}", if index == 0 { "" } else { "\n" })?;
                }
                Ok(())
            }
            Self::SandboxLinkUp { link, link_local } => {
                write!(
                    f,
                    "sandbox: link set {link} up{}",
                    if *link_local { "" } else { " without a link-local address" }
                )
            }
            Self::SandboxRouteAdd { link, route } => {
                write!(f, "sandbox: route add {}", route.dst)?;
                route.gw.iter().try_for_each(|gw| write!(f, " via {gw}"))?;
                write!(f, " on {link}")
            }
            Self::AwaitForwarding { link, port, bridge, addresses, gateways } => {
                write!(f, "wait until {link}, {port} and {bridge} pass packets")?;
                addresses.iter().chain(gateways).try_for_each(|addr| write!(f, ", for {addr} too"))
            }
            Self::Announce { link, mac } => write!(f, "sandbox: announce {link} at {mac}"),
            Self::ConntrackFlush(port) => write!(f, "conntrack flush {port}"),
        }
    }
}
