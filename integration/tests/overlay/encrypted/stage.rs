//! Two nodes with an encrypted network, and what passes on the wire between them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use berth_integration::{Lan, RawSocket, eventually, frame, patience};
use berth_netlink::xfrm::esp_gcm_supported;

use crate::control::etcd::Etcd;
use crate::stage::{Member, Node, SOON, leave, nodes_test_with};

/// What a test prints that has carried an encrypted network.
pub(super) const CARRIED: &str = "encrypted packets were carried";

/// UDP ports of the tunnels of networks in clear, and of those that are encrypted.
pub(super) const CLEAR: u16 = 4789;
pub(super) const ENCRYPTED: u16 = 4799;

/// What pings carry, and nothing else does: 16 bytes.
pub(super) const MARKER: &[u8; 16] = b"marked by a test";

/// How the nodes are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Setup {
    /// Whether the tunnels go over IPv6.
    pub(super) over_v6: bool,
    /// How long a generation of keys lasts, seconds.
    pub(super) period: Option<u32>,
}

/// Two nodes.
pub(super) struct Pair<'s> {
    pub(super) lan: &'s Lan,
    pub(super) etcd: Etcd<'s>,
    pub(super) nodes: Vec<Node<'s>>,
}

/// Runs `test` with the encrypted network `secret`, which both nodes may join; where the kernel cannot encrypt, it has to be
/// refused by name instead.
#[expect(clippy::print_stdout, reason = "whoever started the other kernel reads it")]
pub(super) fn encrypted_test(setup: Setup, test: impl FnOnce(&mut Pair<'_>)) {
    let period = setup.period.unwrap_or(86_400).to_string();
    nodes_test_with(2, &["--key-period", &period], |lan, nodes| {
        let mut pair = Pair { lan, etcd: Etcd::at(lan, &Lan::V4.to_string()), nodes };
        for node in &pair.nodes {
            let address: IpAddr = if setup.over_v6 { node.seat.v6.into() } else { node.seat.v4.into() };
            let endpoint = &pair.etcd.endpoint;
            node.berth(&format!(
                "node join --etcd http://{endpoint} --name {} --address {address}",
                node.name
            ));
        }
        pair.nodes.iter().for_each(Node::is_connected);
        let create =
            ["network", "create", "-d", "overlay", "secret", "--subnet", "10.6.0.0/24", "--encrypted"];
        let created = pair.nodes[0].host.berth(create).output();
        if esp_gcm_supported().unwrap() {
            created.success();
            test(&mut pair);
            println!("{CARRIED}");
        } else {
            let says = "network `secret` is encrypted, and this node's kernel has no ESP with AES-GCM";
            assert!(!created.status.success() && created.stderr.contains(says), "{created}");
        }
        leave(pair.nodes);
    });
}

impl<'s> Pair<'s> {
    pub(super) fn both(&self) -> (&Node<'s>, &Node<'s>) {
        (&self.nodes[0], &self.nodes[1])
    }

    /// A container on each node that is on `secret`, `vault` and `safe`; they reach each other.
    pub(super) fn members(&self) -> [Member<'s>; 2] {
        let (one, two) = self.both();
        let members = [one.add_to("secret", "c3", "vault"), two.add_to("secret", "c4", "safe")];
        members[0].reaches(&members[1]);
        members[1].reaches(&members[0]);
        members
    }

    /// What stands under a key of the cluster.
    pub(super) fn record(&self, key: &str) -> serde_json::Value {
        let text = self.etcd.ctl(&["get", "--print-value-only", key]);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The key that a node has published.
    pub(super) fn public_key(&self, node: &str) -> String {
        let record = self.record(&format!("/berth/v1/nodes/{node}"));
        record["public_key"].as_str().unwrap_or_default().to_owned()
    }

    /// Has twenty datagrams to a node's tunnel end arrive from another's address, with `inner` in a VXLAN header: sent by somebody
    /// else on the underlay, whom no rule of the other node holds back.
    pub(super) fn forge(&self, (from, to): (&Node<'_>, &Node<'_>), port: u16, vni: u32, inner: &[u8]) {
        let wire = self.lan.raw("lan0");
        let packet =
            frame::V4 { src_mac: wire.mac(), dst_mac: link_mac(to), src: from.seat.v4, dst: to.seat.v4 };
        let payload = [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), inner].concat();
        (0..20).for_each(|_| wire.send(&packet.udp(40_000, port, &payload)));
    }
}

fn link_mac(node: &Node<'_>) -> frame::Mac {
    let link = node.host.json(&format!("ip -j link show {}", node.seat.ifname));
    frame::mac(link[0]["address"].as_str().unwrap())
}

/// A datagram from one member to another, with the marker, as an Ethernet frame.
pub(super) fn datagram(from: &Member<'_>, to: &Member<'_>) -> Vec<u8> {
    let addr = |member: &Member<'_>| member.address.parse::<Ipv4Addr>().unwrap();
    let packet = frame::V4 { src_mac: from.mac(), dst_mac: to.mac(), src: addr(from), dst: addr(to) };
    packet.udp(999, 999, MARKER)
}

/// How many datagrams with the marker came to a container, without complaints that quote them.
pub(super) fn delivered(at: &RawSocket) -> usize {
    let is_one =
        |frame: &[u8]| has_marker(frame) && packet(frame).is_some_and(|(protocol, _)| protocol == 17);
    at.count(patience(Duration::from_millis(200)), is_one)
}

pub(super) fn has_marker(frame: &[u8]) -> bool {
    frame.windows(MARKER.len()).any(|window| window == MARKER)
}

/// What passed a link since the socket was opened.
pub(super) fn passed(wire: &RawSocket) -> Vec<Vec<u8>> {
    let quiet = patience(Duration::from_millis(100));
    std::iter::from_fn(|| wire.recv(quiet, |_| true)).take(10_000).collect()
}

/// The protocol of a packet and its first bytes, of either family.
fn packet(frame: &[u8]) -> Option<(u8, &[u8])> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((*frame.get(23)?, frame.get(34..)?)),
        [0x86, 0xdd] => Some((*frame.get(20)?, frame.get(54..)?)),
        _ => None,
    }
}

pub(super) fn is_esp(frame: &[u8]) -> bool {
    packet(frame).is_some_and(|(protocol, _)| protocol == 50)
}

pub(super) fn is_udp_to(frame: &[u8], port: u16) -> bool {
    packet(frame)
        .is_some_and(|(protocol, rest)| protocol == 17 && rest.get(2..4) == Some(&port.to_be_bytes()[..]))
}

/// Whether it is of an encrypted network and anybody on the way can read it.
pub(super) fn is_in_clear(frame: &[u8]) -> bool {
    has_marker(frame) || is_udp_to(frame, ENCRYPTED)
}

/// Pings with the marker; how many were answered.
pub(super) fn mark(from: &Member<'_>, to: &Member<'_>, count: u32) -> u32 {
    let ran = from.container.line(&ping_line(to, count)).output();
    received(&ran.stdout)
}

pub(super) fn ping_line(to: &Member<'_>, count: u32) -> String {
    let pattern: String = MARKER.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("ping -n -i 0.2 -W 5 -c {count} -p {pattern} {}", to.address)
}

pub(super) fn received(stdout: &str) -> u32 {
    let words: Vec<&str> = stdout.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|word| *word == "received");
    at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok()).unwrap_or(0)
}

/// Waits until a node's status of `secret` is as wanted.
pub(super) fn says(node: &Node<'_>, wanted: impl Fn(&serde_json::Value) -> bool) {
    eventually(SOON, || {
        let status = node.status();
        let all = status["networks"].as_array().cloned().unwrap_or_default();
        match all.into_iter().find(|network| network["name"] == "secret") {
            Some(network) if wanted(&network) => Ok(()),
            _ => Err(status.to_string()),
        }
    });
}
