//! Nodes of an overlay, and who has told them what.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_core::Berth;
use berth_core::attachment::{ContainerLink, DuplicateDetection};
use berth_core::declare::{Declaration, DeclaredSubnet};
use berth_core::network::Reach;
use berth_core::overlay::{OverlayPort, Peers};
use berth_core::request::{Addresses, Addressing, AttachRequest};
use berth_integration::{Container, Host, Seat};
use berth_netlink::{Netlink, Sandbox};
use berth_overlay::entries::{Entries, Holder};
use berth_overlay::mtu;
use berth_overlay::reconcile::{Report, change, reconcile};
use berth_store::Dirs;
use berth_types::{AddressLease, AttachmentKey, Dns, MacAddr, NetworkName, NodeName, Vni};

/// The UDP port of all networks here.
pub(crate) const PORT: u16 = 4789;

/// A network as all nodes know it. Number N has subnets 10.200+N.0.0/16 and fd00:200+N::/64, VNI 4096+N.
#[derive(Debug, Clone)]
pub(crate) struct Net {
    pub(crate) number: u8,
    pub(crate) name: NetworkName,
    pub(crate) mtu: u32,
    pub(crate) reach: Reach,
    pub(crate) flood: bool,
}

impl Net {
    pub(crate) fn new(number: u8, mtu: u32) -> Self {
        let reach = Reach { masquerade: true, ..Reach::default() };
        Self { number, name: format!("net{number}").parse().unwrap(), mtu, reach, flood: false }
    }

    pub(crate) fn vni(&self) -> u32 {
        4096 + u32::from(self.number)
    }

    pub(crate) fn device(&self) -> String {
        format!("bvx{}", self.vni())
    }

    pub(crate) fn bridge(&self) -> String {
        format!("br{}", self.number)
    }

    pub(crate) fn v4(&self, third: u8, last: u8) -> IpAddr {
        IpAddr::from([10, 200 + self.number, third, last])
    }

    pub(crate) fn v6(&self, third: u8, last: u8) -> IpAddr {
        format!("fd00:{}::{third:x}:{last:x}", 200 + u16::from(self.number)).parse().unwrap()
    }

    pub(crate) fn gateways(&self) -> [IpAddr; 2] {
        [self.v4(0, 1), self.v6(0, 1)]
    }
}

/// A node: a host that networks are laid on.
pub(crate) struct Node<'h> {
    pub(crate) host: &'h Host,
    pub(crate) number: u8,
    pub(crate) vtep: IpAddr,
    known: RefCell<BTreeMap<NetworkName, Entries>>,
}

/// A container on a network.
pub(crate) struct Member<'h> {
    pub(crate) container: Container<'h>,
    pub(crate) key: AttachmentKey,
    pub(crate) mac: MacAddr,
    pub(crate) addresses: [IpAddr; 2],
}

/// Nodes of the hosts, with tunnels over IPv4 or IPv6.
pub(crate) fn nodes(hosts: &[(Host, Seat)], v6: bool) -> Vec<Node<'_>> {
    let mut nodes = Vec::new();
    for (number, (host, seat)) in (1_u8..).zip(hosts) {
        let vtep = if v6 { seat.v6.into() } else { seat.v4.into() };
        nodes.push(Node { host, number, vtep, known: RefCell::default() });
    }
    nodes
}

impl<'h> Node<'h> {
    pub(crate) fn name(&self) -> NodeName {
        format!("node{}", self.number).parse().unwrap()
    }

    /// The node's own address in the network, with its MAC address.
    pub(crate) fn own(&self, net: &Net) -> ([IpAddr; 2], MacAddr) {
        let mac = MacAddr::of_names([net.name.as_str(), self.name().as_str()]);
        ([net.v4(0, 10 + self.number), net.v6(0, 10 + self.number)], mac)
    }

    /// Runs `work` with the core on the node.
    pub(crate) fn core<T: Send>(&self, work: impl FnOnce(&mut Berth) -> T + Send) -> T {
        let dirs = Dirs { state: self.host.state_dir(), run: self.host.run_dir() };
        self.host.inside(|| work(&mut Berth::open(&dirs).unwrap()))
    }

    pub(crate) fn declaration(&self, net: &Net) -> Declaration {
        let ([v4, v6], mac) = self.own(net);
        let prefixed =
            |addr: IpAddr| format!("{addr}/{}", if addr.is_ipv4() { 16 } else { 64 }).parse().unwrap();
        let subnet = |own: IpAddr, gateway: IpAddr| DeclaredSubnet {
            subnet: berth_core::network::subnet_of(prefixed(own)),
            gateway: Some(gateway),
        };
        let [gateway4, gateway6] = net.gateways();
        Declaration {
            version: Declaration::VERSION,
            name: net.name.clone(),
            engine: "test".to_owned(),
            bridge: net.bridge().parse().unwrap(),
            mtu: None,
            reach: net.reach,
            subnets: vec![subnet(v4, gateway4), subnet(v6, gateway6)],
            names: None,
            overlay: Some(OverlayPort {
                vni: Vni::new(net.vni()).unwrap(),
                port: PORT,
                local: self.vtep,
                mtu: net.mtu,
                mac,
                addresses: [prefixed(v4), prefixed(v6)].into(),
                flood: net.flood,
                encrypted: false,
            }),
            notes: BTreeMap::new(),
        }
    }

    /// Lays the network on the node.
    pub(crate) fn lay(&self, net: &Net) {
        let declaration = self.declaration(net);
        self.core(|berth| berth.create_overlay(&declaration, Some(&Peers::default())).unwrap());
        self.known.borrow_mut().insert(net.name.clone(), Entries::new(self.name(), net.flood));
    }

    pub(crate) fn unlay(&self, net: &Net) {
        self.core(|berth| berth.delete_network(&net.name).unwrap());
    }

    /// Attaches a container with the addresses `third.last` of the network's subnets.
    pub(crate) fn attach(&self, net: &Net, name: &str, third: u8, last: u8) -> Member<'h> {
        let container = self.host.container(name);
        let key = AttachmentKey {
            network: net.name.clone(),
            container: format!("{name}-{}", self.number).parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        };
        let addresses = [net.v4(third, last), net.v6(third, last)];
        let [gateway4, gateway6] = net.gateways();
        let lease = |addr: IpAddr, gateway| AddressLease {
            address: format!("{addr}/{}", if addr.is_ipv4() { 16 } else { 64 }).parse().unwrap(),
            gateway: Some(gateway),
        };
        let leases = vec![lease(addresses[0], gateway4), lease(addresses[1], gateway6)];
        let network = self.declaration(net).spec();
        let path = container.netns().to_owned();
        let request = || AttachRequest {
            network,
            key: key.clone(),
            sandbox: Sandbox::open(&path).unwrap(),
            addressing: Addressing::Given(Addresses { leases, routes: Vec::new(), dns: Dns::default() }),
            mac: None,
            default_route: true,
            hairpin: false,
            port_isolation: false,
            anti_spoofing: true,
            container_link: ContainerLink::Up,
            duplicate_detection: DuplicateDetection::Off,
            ports: Vec::new(),
            bandwidth: None,
            names: None,
        };
        let attached = self.core(|berth| berth.attach(request()).unwrap());
        assert_eq!(attached.mtu, net.mtu, "both ends have the network's MTU");
        let mac = attached.mac;
        Member { container, key, mac, addresses }
    }

    pub(crate) fn detach(&self, member: Member<'_>) {
        self.core(|berth| berth.detach(&member.key).unwrap());
    }

    /// The whole look.
    pub(crate) fn reconcile(&self, net: &Net) -> Report {
        let desired = self.known.borrow()[&net.name].desired().clone();
        self.core(|berth| {
            let netlink = Netlink::open().unwrap();
            reconcile(berth, &netlink, &net.name, &desired).unwrap()
        })
    }

    /// Tells the node, and writes what that touched at once.
    pub(crate) fn told(&self, net: &Net, addr: IpAddr, holder: Option<Holder>) {
        let mut known = self.known.borrow_mut();
        let entries = known.get_mut(&net.name).unwrap();
        let touched = entries.address(addr, holder);
        let desired = entries.desired().clone();
        let report = self.core(|berth| {
            let netlink = Netlink::open().unwrap();
            change(berth, &netlink, &net.name, &desired, &touched).unwrap()
        });
        assert_eq!(report.faults, []);
    }

    /// Tells the node without writing anything.
    pub(crate) fn learns(&self, net: &Net, work: impl FnOnce(&mut Entries)) {
        work(self.known.borrow_mut().get_mut(&net.name).unwrap());
    }
}

/// A network on some nodes, each of which knows of all.
pub(crate) struct Laid<'a, 'h> {
    pub(crate) net: Net,
    pub(crate) nodes: &'a [Node<'h>],
}

impl<'a, 'h> Laid<'a, 'h> {
    /// Lays it, and tells each node of the others' own addresses.
    pub(crate) fn new(net: Net, nodes: &'a [Node<'h>]) -> Self {
        for node in nodes {
            node.lay(&net);
            node.learns(&net, |entries| {
                for other in nodes {
                    entries.node(&other.name(), Some(other.vtep));
                    let (addresses, mac) = other.own(&net);
                    for addr in addresses {
                        entries.address(addr, Some(Holder { node: other.name(), mac, is_node: true }));
                    }
                }
            });
            let report = node.reconcile(&net);
            assert_eq!(report.faults, []);
            assert!(node.reconcile(&net).is_clean(), "nothing differs after a look");
        }
        Self { net, nodes }
    }

    /// Attaches a container on node `at` (from 0) and tells all.
    pub(crate) fn join(&self, at: usize, name: &str, last: u8) -> Member<'h> {
        let node = &self.nodes[at];
        let member = node.attach(&self.net, name, node.number, last);
        self.tell(at, &member);
        member
    }

    /// Tells all nodes where the member is.
    pub(crate) fn tell(&self, at: usize, member: &Member<'_>) {
        for addr in member.addresses {
            let holder = Holder { node: self.nodes[at].name(), mac: member.mac, is_node: false };
            self.nodes.iter().for_each(|node| node.told(&self.net, addr, Some(holder.clone())));
        }
    }

    /// Takes a container off and tells all.
    pub(crate) fn leave(&self, at: usize, member: Member<'_>) {
        let addresses = member.addresses;
        self.nodes[at].detach(member);
        for addr in addresses {
            self.nodes.iter().for_each(|node| node.told(&self.net, addr, None));
        }
    }

    /// Takes the network off all nodes.
    pub(crate) fn unlay(&self) {
        self.nodes.iter().for_each(|node| node.unlay(&self.net));
    }
}

/// The MTU of a network over an underlay of `underlay` bytes.
pub(crate) fn mtu_over(underlay: u32, node: &Node<'_>) -> u32 {
    mtu::inside(underlay, node.vtep, mtu::Cover::Clear)
}
