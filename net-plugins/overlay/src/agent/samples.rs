//! Records for tests.

use berth_types::{BootId, Vni};

use crate::model::{LAYOUT, Node, Occupant, OverlayAttachment, OverlayNetwork, OverlaySubnet};

pub(crate) fn node(name: &str, number: u8) -> Node {
    Node {
        v: LAYOUT,
        name: name.parse().unwrap(),
        vtep4: Some([192, 0, 2, number].into()),
        vtep6: None,
        underlay_mtu: 1500,
        public_key: None,
        identity: format!("identity of {name}"),
        boot: BootId::new("boot"),
        epoch: 1,
    }
}

pub(crate) fn network(name: &str) -> OverlayNetwork {
    let subnet =
        OverlaySubnet { subnet: "10.0.0.0/24".parse().unwrap(), gateway: "10.0.0.1".parse().unwrap() };
    OverlayNetwork::usual(name.parse().unwrap(), Vni::new(4097).unwrap(), vec![subnet], "n1".parse().unwrap())
}

pub(crate) fn attachment(node: &str, container: &str, address: &str, generation: u64) -> OverlayAttachment {
    OverlayAttachment {
        v: LAYOUT,
        network: "blue".parse().unwrap(),
        of: Occupant::Container { id: container.parse().unwrap(), ifname: "eth0".parse().unwrap() },
        node: node.parse().unwrap(),
        epoch: 1,
        mac: "0a:00:00:00:00:01".parse().unwrap(),
        addresses: [address.parse().unwrap()].into(),
        names: Box::default(),
        services: Box::default(),
        generation,
    }
}

pub(crate) fn named(attachment: OverlayAttachment, name: &str) -> OverlayAttachment {
    OverlayAttachment { names: [name.to_owned()].into(), ..attachment }
}
