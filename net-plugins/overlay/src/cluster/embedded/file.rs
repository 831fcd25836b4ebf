//! The file that lists peers and networks: the same on every node, read again when it changes.
//!
//! ```json
//! {
//!   "v": 1,
//!   "slots": 16,
//!   "peers": [
//!     {"name": "n1", "vteps": ["192.0.2.1"]},
//!     {"name": "n2", "vteps": ["192.0.2.2"], "slot": 1}
//!   ],
//!   "networks": [
//!     {"name": "blue", "vni": 4096, "subnets": ["10.7.0.0/24"]}
//!   ]
//! }
//! ```
//!
//! Each subnet is cut into `slots` equal parts (a power of two, 16 unless it says otherwise), and the peer in slot *n* gives
//! from part *n* alone. A peer's slot is its place in the list, from 0, unless it says otherwise; so peers are added at the end,
//! and where one is taken out, those after it are given their `slot`. Then nodes that read a new file at different moments never
//! give one address twice.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_types::{BootId, MacAddr, NetworkName, NodeName, Vni, fnv64};
use ipnetwork::IpNetwork;
use serde::Deserialize;

use crate::cluster::etcd::refuse_taken;
use crate::model::{Block, BlockState, LAYOUT, Node, OverlayNetwork, OverlaySubnet};

/// The UDP port of VXLAN (RFC 7348), unless a network says otherwise.
const VXLAN_PORT: u16 = 4789;

/// What VXLAN adds to a packet over IPv4 and IPv6, from a link of 1500 bytes.
const MTU_V4: u32 = 1500 - 50;
const MTU_V6: u32 = 1500 - 70;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    v: u32,
    #[serde(default = "sixteen")]
    slots: u8,
    peers: Vec<RawPeer>,
    #[serde(default)]
    networks: Vec<RawNetwork>,
}

fn sixteen() -> u8 {
    16
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPeer {
    name: NodeName,
    vteps: Vec<IpAddr>,
    slot: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    name: NetworkName,
    vni: Vni,
    subnets: Vec<IpNetwork>,
    #[serde(default)]
    gateways: Vec<IpAddr>,
    mtu: Option<u32>,
    port: Option<u16>,
    #[serde(default = "yes")]
    masquerade: bool,
    #[serde(default = "yes")]
    between_containers: bool,
    #[serde(default = "yes")]
    isolated: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    encrypted: bool,
    #[serde(default)]
    flood: bool,
    #[serde(default)]
    shared: bool,
}

fn yes() -> bool {
    true
}

/// A file that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeersFile {
    pub(super) peers: BTreeMap<NodeName, Peer>,
    pub(super) networks: BTreeMap<NetworkName, OverlayNetwork>,
    /// The same wherever addresses are dealt alike.
    pub(super) deal: u64,
}

/// A node that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) vteps: Vec<IpAddr>,
    pub(super) slot: u8,
}

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct FileError {
    /// Where, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl PeersFile {
    /// Reads the file's text.
    ///
    /// # Errors
    ///
    /// [`FileError`]: the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let raw: RawFile = serde_json::from_str(text)
            .map_err(|err| FileError { line: err.line().max(1), why: plain(&err.to_string()) })?;
        let RawFile { v, slots, peers, networks } = raw;
        if v != LAYOUT {
            return Err(at(text, "\"v\"", format!("the file's layout is {v}; this version knows {LAYOUT}")));
        }
        if !slots.is_power_of_two() {
            return Err(at(text, "\"slots\"", format!("slots is {slots}, which is no power of two")));
        }
        let peers = checked_peers(text, slots, peers)?;
        let networks = checked_networks(text, slots, &peers, networks)?;
        let dealt: Vec<String> = peers.iter().map(|(name, peer)| format!("{name} {}", peer.slot)).collect();
        let deal = fnv64(dealt.iter().map(String::as_str).chain([slots.to_string().as_str()]));
        Ok(Self { peers, networks, deal })
    }

    /// What is known of a peer that has said nothing yet.
    pub(super) fn node(&self, name: &NodeName) -> Option<Node> {
        let peer = self.peers.get(name)?;
        let v4 = peer.vteps.iter().find_map(|vtep| match vtep {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        let v6 = peer.vteps.iter().find_map(|vtep| match vtep {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        });
        Some(Node {
            v: LAYOUT,
            name: name.clone(),
            vtep4: v4,
            vtep6: v6,
            underlay_mtu: 1500,
            public_key: None,
            identity: String::new(),
            boot: BootId::new(""),
            epoch: 1,
        })
    }

    /// The blocks of all networks, each of the peer in its slot.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Block> {
        let of = |network: &OverlayNetwork, name: &NodeName, peer: &Peer| {
            let blocks = network.subnets.iter().filter_map(|subnet| part(network, subnet.subnet, peer.slot));
            let block = |cidr| Block {
                v: LAYOUT,
                network: network.name.clone(),
                cidr,
                owner: name.clone(),
                epoch: 1,
                state: BlockState::Confirmed,
                sequence: 1,
            };
            blocks.map(block).collect::<Vec<_>>()
        };
        let networks = self.networks.values();
        networks
            .flat_map(move |network| self.peers.iter().flat_map(move |(name, peer)| of(network, name, peer)))
    }

    /// The peer that a connection from `address` is of.
    pub(super) fn peer_at(&self, address: IpAddr) -> Option<&NodeName> {
        let address = address.to_canonical();
        self.peers.iter().find(|(_, peer)| peer.vteps.contains(&address)).map(|(name, _)| name)
    }
}

/// The part of a subnet that slot `slot` gives from.
fn part(network: &OverlayNetwork, subnet: IpNetwork, slot: u8) -> Option<IpNetwork> {
    let length = if subnet.is_ipv4() { network.block4 } else { network.block6 };
    let bits = u32::from(if subnet.is_ipv4() { 32 - length } else { 128 - length });
    let offset = u128::from(slot).checked_shl(bits)?;
    let first: IpAddr = match subnet.network() {
        IpAddr::V4(v4) => {
            std::net::Ipv4Addr::from_bits(v4.to_bits().checked_add(u32::try_from(offset).ok()?)?).into()
        }
        IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits().checked_add(offset)?).into(),
    };
    IpNetwork::new(first, length).ok().filter(|_| subnet.contains(first))
}

fn checked_peers(text: &str, slots: u8, raw: Vec<RawPeer>) -> Result<BTreeMap<NodeName, Peer>, FileError> {
    let mut peers: BTreeMap<NodeName, Peer> = BTreeMap::new();
    for (index, RawPeer { name, vteps, slot }) in raw.into_iter().enumerate() {
        let here = |why: String| at(text, &format!("\"{name}\""), why);
        let slot = slot.map_or(index, usize::from);
        let slot = u8::try_from(slot).ok().filter(|slot| *slot < slots);
        let slot = slot
            .ok_or_else(|| here(format!("peer `{name}` has no slot: there are {slots}, counted from 0")))?;
        if vteps.is_empty() {
            return Err(here(format!("peer `{name}` has no VTEP")));
        }
        for vtep in &vteps {
            if vtep.is_unspecified() || vtep.is_multicast() || vtep.is_loopback() {
                return Err(here(format!("{vtep} cannot be the VTEP of peer `{name}`")));
            }
            if let Some((other, _)) = peers.iter().find(|(_, peer)| peer.vteps.contains(vtep)) {
                return Err(here(format!("peers `{other}` and `{name}` have one VTEP, {vtep}")));
            }
        }
        if let Some((other, _)) = peers.iter().find(|(_, peer)| peer.slot == slot) {
            return Err(here(format!("peers `{other}` and `{name}` have one slot, {slot}")));
        }
        if peers.contains_key(&name) {
            return Err(here(format!("peer `{name}` is listed twice")));
        }
        peers.insert(name, Peer { vteps, slot });
    }
    Ok(peers)
}

fn checked_networks(
    text: &str,
    slots: u8,
    peers: &BTreeMap<NodeName, Peer>,
    raw: Vec<RawNetwork>,
) -> Result<BTreeMap<NetworkName, OverlayNetwork>, FileError> {
    let v6 = peers.values().any(|peer| peer.vteps.iter().all(IpAddr::is_ipv6));
    let mut networks: Vec<OverlayNetwork> = Vec::new();
    for raw in raw {
        let name = raw.name.clone();
        let network = checked_network(slots, v6, raw).map_err(|why| at(text, &format!("\"{name}\""), why))?;
        refuse_taken(&network, &networks).map_err(|err| at(text, &format!("\"{name}\""), err.to_string()))?;
        let vteps = peers.iter().flat_map(|(peer, of)| of.vteps.iter().map(move |vtep| (peer, vtep)));
        for (peer, vtep) in vteps {
            if let Some(subnet) = network.subnets.iter().find(|subnet| subnet.subnet.contains(*vtep)) {
                let why = format!(
                    "subnet {} of `{name}` has the VTEP of peer `{peer}`, {vtep}, in it",
                    subnet.subnet
                );
                return Err(at(text, &format!("\"{name}\""), why));
            }
        }
        networks.push(network);
    }
    Ok(networks.into_iter().map(|network| (network.name.clone(), network)).collect())
}

fn checked_network(slots: u8, v6: bool, raw: RawNetwork) -> Result<OverlayNetwork, String> {
    let bits = u8::try_from(slots.ilog2()).unwrap_or(u8::MAX);
    let name = raw.name;
    let mut lengths: (Option<u8>, Option<u8>) = (None, None);
    let mut subnets = Vec::new();
    if raw.encrypted {
        return Err(format!(
            "network `{name}` cannot be encrypted: peers of a file have no keys of each other"
        ));
    }
    if raw.subnets.is_empty() {
        return Err(format!("network `{name}` has no subnet"));
    }
    for (index, subnet) in raw.subnets.iter().copied().enumerate() {
        if subnet.ip() != subnet.network() {
            return Err(format!(
                "{subnet} is no subnet: it would be {}/{}",
                subnet.network(),
                subnet.prefix()
            ));
        }
        let (length, smallest) = (subnet.prefix() + bits, if subnet.is_ipv4() { 30 } else { 126 });
        if length > smallest {
            return Err(format!("{subnet} is too small for {slots} slots"));
        }
        let family = if subnet.is_ipv4() { &mut lengths.0 } else { &mut lengths.1 };
        if family.replace(length).is_some_and(|before| before != length) {
            return Err(format!("subnets of one family of network `{name}` have different sizes"));
        }
        let first = part_after(subnet);
        let gateway = raw.gateways.get(index).copied().or(first).filter(|gateway| subnet.contains(*gateway));
        let gateway = gateway.ok_or_else(|| format!("the gateway of {subnet} is not in it"))?;
        subnets.push(OverlaySubnet { subnet, gateway });
    }
    let [_, high, middle, low] = raw.vni.get().to_be_bytes();
    Ok(OverlayNetwork {
        v: LAYOUT,
        name,
        vni: raw.vni,
        port: raw.port.unwrap_or(VXLAN_PORT),
        subnets,
        mtu: raw.mtu.unwrap_or(if v6 { MTU_V6 } else { MTU_V4 }),
        gateway_mac: MacAddr::local([0x02, 0xbe, 0x00, high, middle, low]),
        masquerade: raw.masquerade,
        between_containers: raw.between_containers,
        isolated: raw.isolated,
        internal: raw.internal,
        encrypted: false,
        flood: raw.flood,
        block4: lengths.0.unwrap_or(32),
        block6: lengths.1.unwrap_or(128),
        // A slot's part is its node's alone.
        borrowing: false,
        shared: raw.shared,
        created_by: "file".parse().expect("`file` is a name"),
    })
}

/// A subnet's first address after its own.
fn part_after(subnet: IpNetwork) -> Option<IpAddr> {
    berth_ipam::Span::of_network(subnet).nth(1)
}

/// An error at the line where `what` stands first.
fn at(text: &str, what: &str, why: String) -> FileError {
    let line = text.lines().position(|line| line.contains(what)).map_or(1, |index| index + 1);
    FileError { line, why }
}

/// An error of serde_json without its place, which is said before it.
fn plain(text: &str) -> String {
    text.rsplit_once(" at line ").map_or(text, |(plain, _)| plain).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{
  "v": 1,
  "peers": [
    {"name": "n1", "vteps": ["192.0.2.1"]},
    {"name": "n2", "vteps": ["192.0.2.2", "fd00:1::2"]}
  ],
  "networks": [
    {"name": "blue", "vni": 4096, "subnets": ["10.7.0.0/24", "fd00:7::/64"]}
  ]
}"#;

    #[test]
    fn each_peer_has_its_part_of_each_subnet() {
        let file = PeersFile::parse(GOOD).unwrap();
        let blocks: Vec<String> =
            file.blocks().map(|block| format!("{} {}", block.owner, block.cidr)).collect();
        assert_eq!(
            blocks,
            ["n1 10.7.0.0/28", "n1 fd00:7::/68", "n2 10.7.0.16/28", "n2 fd00:7:0:0:1000::/68"]
        );
        let network = file.networks.values().next().unwrap();
        assert_eq!((network.subnets[0].gateway.to_string(), network.mtu), ("10.7.0.1".into(), 1450));
        assert_eq!(file.peer_at("::ffff:192.0.2.2".parse().unwrap()).unwrap().as_str(), "n2");
    }

    #[test]
    fn a_peer_more_or_one_less_leaves_the_parts_of_the_others() {
        let more = GOOD
            .replace("\"fd00:1::2\"]}", "\"fd00:1::2\"]}, {\"name\": \"n3\", \"vteps\": [\"192.0.2.3\"]}");
        let less = GOOD.replace("    {\"name\": \"n1\", \"vteps\": [\"192.0.2.1\"]},\n", "");
        let less = less.replace("\"fd00:1::2\"]}", "\"fd00:1::2\"], \"slot\": 1}");
        let parts = |text: &str| -> Vec<IpNetwork> {
            let file = PeersFile::parse(text).unwrap();
            file.blocks().filter(|block| block.owner.as_str() == "n2").map(|block| block.cidr).collect()
        };
        assert_eq!((parts(GOOD), parts(GOOD)), (parts(&more), parts(&less)));
    }

    #[test]
    fn a_bad_file_is_refused_by_line_and_reason() {
        for (from, to, error) in [
            ("\"v\": 1", "\"v\": 2", "line 2: the file's layout is 2; this version knows 1"),
            ("\"v\": 1,", "\"v\": 1, \"slots\": 12,", "line 2: slots is 12, which is no power of two"),
            ("4096", "0", "line 8: VNI 0 is out of range: a VNI is 1 to 16777215"),
            ("4096", "16777216", "line 8: VNI 16777216 is out of range: a VNI is 1 to 16777215"),
            ("\"peers\": [", "\"peers\": [,", "line 3: expected value"),
            ("[\"192.0.2.1\"]", "[]", "line 4: peer `n1` has no VTEP"),
            ("[\"192.0.2.1\"]", "[\"127.0.0.1\"]", "line 4: 127.0.0.1 cannot be the VTEP of peer `n1`"),
            ("192.0.2.2", "192.0.2.1", "line 5: peers `n1` and `n2` have one VTEP, 192.0.2.1"),
            (
                "\"fd00:1::2\"]}",
                "\"fd00:1::2\"], \"slot\": 0}",
                "line 5: peers `n1` and `n2` have one slot, 0",
            ),
            (
                "\"fd00:1::2\"]}",
                "\"fd00:1::2\"], \"slot\": 16}",
                "line 5: peer `n2` has no slot: there are 16, counted from 0",
            ),
            ("10.7.0.0/24", "10.7.0.1/24", "line 8: 10.7.0.1/24 is no subnet: it would be 10.7.0.0/24"),
            ("10.7.0.0/24", "10.7.0.0/27", "line 8: 10.7.0.0/27 is too small for 16 slots"),
            (
                "10.7.0.0/24",
                "192.0.2.0/24",
                "line 8: subnet 192.0.2.0/24 of `blue` has the VTEP of peer `n1`, 192.0.2.1, in it",
            ),
            ("\"vni\": 4096", "\"colour\": 1", "line 8: unknown field `colour`"),
            (
                "\"vni\": 4096",
                "\"vni\": 4096, \"encrypted\": true",
                "line 8: network `blue` cannot be encrypted: peers of a file have no keys of each other",
            ),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let found = PeersFile::parse(&text).unwrap_err().to_string();
            assert!(found.starts_with(error), "{to}: {found}");
        }
        let twice = GOOD.replace(
            "fd00:7::/64\"]}",
            "fd00:7::/64\"]},\n    {\"name\": \"red\", \"vni\": 5, \"subnets\": [\"10.7.0.128/25\"]}",
        );
        let found = PeersFile::parse(&twice).unwrap_err().to_string();
        assert_eq!(found, "line 9: subnet 10.7.0.128/25 is taken: network `blue`, with 10.7.0.0/24, has it");
    }
}
