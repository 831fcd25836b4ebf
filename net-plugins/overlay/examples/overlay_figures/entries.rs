//! Entries of one network, from the view to the kernel.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_core::Berth;
use berth_core::overlay::Peers;
use berth_netlink::Netlink;
use berth_overlay::cluster::{Entry, Listing, Revision};
use berth_overlay::entries::{Desired, Entries, Holder, vtep_of};
use berth_overlay::joined::{Joined, Seat};
use berth_overlay::model::{Occupant, OverlayNetwork, OverlaySubnet};
use berth_overlay::reconcile::{Report, reconcile};
use berth_overlay::view::View;
use berth_types::{NetworkName, Vni};
use serde_json::{Value, json};

use super::{attachment, dirs, node};

const ROUNDS: usize = 5;
const DIFFERENCES: usize = 100;

/// Medians in milliseconds.
pub(crate) fn measure(count: u32) -> Value {
    let [mut programmed, mut compared, mut mended] = [Vec::new(), Vec::new(), Vec::new()];
    let mut bench = Bench::new(count);
    let everything = usize::try_from(count).unwrap() * 3;
    for _ in 0..ROUNDS {
        bench.lay();
        programmed.push(bench.timed(everything, true));
        compared.push(bench.timed(0, false));
        bench.damage();
        mended.push(bench.timed(DIFFERENCES, false));
        bench.berth.delete_network(&bench.joined.declaration.name).unwrap();
    }
    json!({"programmed": median(programmed), "compared": median(compared), "mended": median(mended)})
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// This host, whose tunnel end is 192.0.2.2, and what it knows of a cluster.
struct Bench {
    berth: Berth,
    netlink: Netlink,
    view: View,
    joined: Joined,
    desired: Desired,
}

impl Bench {
    fn new(count: u32) -> Self {
        let record = network();
        let blocks = ["10.6.0.0/26", "fd00:6::/120"].map(|block| block.parse().unwrap());
        let seat = Seat { node: &"here".parse().unwrap(), local: "192.0.2.2".parse().unwrap() };
        let joined = Joined::new(&record, seat, &blocks).unwrap();
        let view = view(record, count);
        let (berth, netlink) = (Berth::open(&dirs()).unwrap(), Netlink::open().unwrap());
        Self { berth, netlink, view, joined, desired: Desired::default() }
    }

    /// The device, with nothing in it.
    fn lay(&mut self) {
        self.berth.create_overlay(&self.joined.declaration, Some(&Peers::default())).unwrap();
    }

    /// One look, from the view on if that is `anew`; `differing` entries are to be put right by it.
    fn timed(&mut self, differing: usize, anew: bool) -> Duration {
        let started = Instant::now();
        if anew {
            self.desired = desired(&self.view, &self.joined);
        }
        let name = &self.joined.declaration.name;
        let report: Report = reconcile(&mut self.berth, &self.netlink, name, &self.desired).unwrap();
        let took = started.elapsed();
        assert_eq!((report.differences.count(), &report.faults[..]), (differing, &[][..]));
        took
    }

    /// Takes entries out of the kernel, as another program would.
    fn damage(&self) {
        let bridge = &self.joined.declaration.bridge;
        let addresses = self.desired.neighs.keys().take(DIFFERENCES);
        let lines: Vec<String> =
            addresses.map(|address| format!("neighbour delete {address} dev {bridge}\n")).collect();
        let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        ip.stdin.take().unwrap().write_all(lines.concat().as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success());
    }
}

/// What the agent makes of its view for a network that it joins.
fn desired(view: &View, joined: &Joined) -> Desired {
    let mut entries = Entries::new("here".parse().unwrap(), false);
    for (name, node) in view.nodes() {
        entries.node(name, node.node().and_then(|node| vtep_of(node, joined.overlay.local)));
    }
    for (address, attachment) in view.network(&joined.declaration.name).unwrap().believed() {
        let (node, is_node) = (attachment.node.clone(), attachment.of == Occupant::Node);
        entries.address(address, Some(Holder { node, mac: attachment.mac, is_node }));
    }
    entries.desired().clone()
}

fn view(record: OverlayNetwork, count: u32) -> View {
    let nodes: Vec<_> = (1..4).map(|number| node(&format!("n{number}"), 100 + number)).collect();
    let attached = (0..count).map(|number| {
        let of = &nodes[number as usize % nodes.len()];
        let [_, _, high, low] = number.to_be_bytes();
        let v4 = std::net::Ipv4Addr::new(10, 6, 128 + high, low);
        let v6 = std::net::Ipv6Addr::new(0xfd00, 6, 0, 0, 0, 0, 1 + u16::from(high), low.into());
        let attachment = attachment(&record.name, of, number);
        Entry::Attachment(berth_overlay::model::OverlayAttachment {
            addresses: [v4.into(), v6.into()].into(),
            ..attachment
        })
    });
    let mut entries: Vec<Entry> = attached.collect();
    entries.extend(nodes.iter().cloned().map(Entry::Node));
    entries.push(Entry::Network(record));
    let mut view = View::default();
    view.replace(Listing { revision: Revision(1), entries, foreign: Vec::new() });
    view
}

fn network() -> OverlayNetwork {
    let subnet = |subnet: &str, gateway: &str| OverlaySubnet {
        subnet: subnet.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
    };
    let subnets = vec![subnet("10.6.0.0/16", "10.6.0.1"), subnet("fd00:6::/64", "fd00:6::1")];
    let (name, vni) = (NetworkName::new("crowd").unwrap(), Vni::new(4097).unwrap());
    OverlayNetwork { block4: 26, ..OverlayNetwork::usual(name, vni, subnets, "n1".parse().unwrap()) }
}
