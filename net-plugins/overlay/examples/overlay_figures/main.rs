//! What the benchmark of the overlay measures inside one process. The records are where `BERTH_STATE_DIR` and `BERTH_RUN_DIR` say.
//!
//! `entries COUNT` programs a network with COUNT attachments elsewhere into the kernel, compares, and puts 100 differences right;
//! it prints milliseconds as JSON. `lease NETWORK` gives addresses of a network that this host is on, as a plugin does, and
//! prints the median in microseconds. `crowd ETCD NETWORK COUNT` writes COUNT attachments of a node that does not exist into a
//! cluster, and prints how long that took in milliseconds.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a tool of the benchmark"
)]

mod crowd;
mod entries;
mod lease;

use berth_overlay::model::{LAYOUT, Node, Occupant, OverlayAttachment};
use berth_store::Dirs;
use berth_types::{BootId, MacAddr, NetworkName, NodeName};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["entries", count] => println!("{}", entries::measure(count.parse().unwrap())),
        ["lease", network] => println!("{}", lease::measure(&network.parse().unwrap())),
        ["crowd", etcd, network, count] => {
            println!("{}", crowd::write(etcd, &network.parse().unwrap(), count.parse().unwrap()));
        }
        _ => unreachable!("known: entries COUNT, lease NETWORK, crowd ETCD NETWORK COUNT"),
    }
}

fn dirs() -> Dirs {
    let var = |key| std::env::var_os(key).unwrap().into();
    Dirs { state: var("BERTH_STATE_DIR"), run: var("BERTH_RUN_DIR") }
}

fn node(name: &str, last: u8) -> Node {
    Node {
        v: LAYOUT,
        name: NodeName::new(name).unwrap(),
        vtep4: Some([192, 0, 2, last].into()),
        vtep6: None,
        underlay_mtu: 1500,
        public_key: None,
        identity: format!("identity of {name}"),
        boot: BootId::new("boot"),
        epoch: 1,
    }
}

/// Container `number` of `node`, without an address.
fn attachment(network: &NetworkName, node: &Node, number: u32) -> OverlayAttachment {
    let [_, high, middle, low] = number.to_be_bytes();
    OverlayAttachment {
        v: LAYOUT,
        network: network.clone(),
        of: Occupant::Container {
            id: format!("{number:064x}").parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        },
        node: node.name.clone(),
        epoch: node.epoch,
        mac: MacAddr([2, 0x77, 0, high, middle, low]),
        addresses: [].into(),
        names: [format!("c{number}")].into(),
        services: Box::default(),
        generation: 1,
    }
}
