//! Records, and what is shown of them, for tests.

use berth_core::Published;
use berth_core::attachment::{AttachmentRecord, Guard, PortSpec};
use berth_core::network::Reach;
use berth_store::Owner;
use berth_types::{AddressLease, BootId, Dns};

use super::*;

pub(crate) fn port(text: &str, host_port: u16, count: u16) -> PublishedPort {
    let target: IpAddr = "10.80.0.2".parse().unwrap();
    PublishedPort {
        proto: berth_types::Proto::Tcp,
        host_addr: text.parse().unwrap(),
        host_port,
        target,
        target_port: 80,
        count,
    }
}

pub(crate) fn network() -> NetworkRecord {
    NetworkRecord {
        version: 1,
        name: "front".parse().unwrap(),
        bridge: "berth0".parse().unwrap(),
        bridge_is_ours: true,
        reach: Reach { masquerade: true, between_containers: true, isolated: true, internal: false },
        gateway: true,
        gateways: ["10.80.0.1/24".parse().unwrap(), "fd80::1/64".parse().unwrap()].into(),
        subnets: ["10.80.0.0/24".parse().unwrap(), "fd80::/64".parse().unwrap()].into(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        mtu: None,
        promisc: false,
        vlan: None,
        announces: false,
        names: None,
        overlay: None,
        peers: berth_core::overlay::Peers::default(),
        pending: false,
    }
}

fn row(container: &str, state: AttachmentState) -> AttachmentRow {
    AttachmentRow {
        key: AttachmentKey {
            network: "front".parse().unwrap(),
            container: container.parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        },
        state,
        rules_gone: false,
        boot_id: BootId::new("b"),
        owner: Owner { pid: 1, start: 1 },
        sandbox: None,
        host_ifname: None,
        payload: String::new(),
        created_ms: 1_700_000_000_000,
    }
}

pub(crate) fn attachment() -> (AttachmentRow, Held) {
    let row = row("0123456789abcdef", AttachmentState::Ready);
    let lease = |text: &str| AddressLease { address: text.parse().unwrap(), gateway: None };
    let record = AttachmentRecord {
        version: 1,
        key: row.key.clone(),
        bridge: "berth0".parse().unwrap(),
        host_ifname: "veth1a2b3c4d".parse().unwrap(),
        mac: "02:00:00:00:00:02".parse().unwrap(),
        leases: vec![lease("10.80.0.2/24"), lease("fd80::2/64")],
        routes: Vec::new(),
        dns: Dns::default(),
        port: PortSpec { hairpin: false, isolated: false, apart: false, trunk: false, guard: Guard::Full },
        published: Published {
            ports: vec![port("0.0.0.0", 8080, 1), port("127.0.0.1", 9000, 11)],
            ..Published::default()
        },
        bandwidth: None,
        names: None,
        peer: None,
        sandbox_path: "/run/netns/c1".into(),
        sandbox: None,
    };
    (row, Held::Bridge(Box::new(record)))
}

pub(crate) fn foreign() -> (AttachmentRow, Held) {
    let row = row("c2", AttachmentState::Ready);
    let published = Published { ports: vec![port("0.0.0.0", 53, 1)], ..Published::default() };
    let held = Held::Ports(PortsRecord { published, ..PortsRecord::new(row.key.clone()) });
    (row, held)
}
