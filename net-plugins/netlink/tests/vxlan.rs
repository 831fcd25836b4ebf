//! VXLAN devices, their entries and packets between two hosts.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot be set up fails")]

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use berth_netlink::{
    AddrFlags, BridgeSpec, Concern, EntryChange, FdbEntry, FdbSpec, FdbState, FdbTable, Holder, Link,
    LinkEvents, LinkKind, NeighSpec, Netlink, NetlinkError, PortChange, VethSpec, Vxlan, VxlanSpec,
};
use berth_types::{MacAddr, Vni};
use common::{World, bridge, link, name, output, veth};
use rustix::io::Errno;

const NODAD: AddrFlags = AddrFlags { nodad: true, noprefixroute: false, deprecated: false };

/// Much more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const QUIET: PortChange = PortChange {
    hairpin: None,
    isolated: Some(false),
    learning: Some(false),
    flood: Some(false),
    mcast_flood: Some(false),
    bcast_flood: Some(false),
    neigh_suppress: Some(true),
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn spec(device: &str, vni: u32, local: &str) -> VxlanSpec {
    VxlanSpec {
        name: name(device),
        vni: Vni::new(vni).unwrap(),
        port: 4789,
        local: ip(local),
        mac: MacAddr([2, 0, 0, 0, 9, 9]),
        mtu: 1450,
        ttl: None,
        alias: Some("berth blue vxlan".to_owned()),
        master: None,
        port_settings: PortChange::default(),
    }
}

/// A host with a VXLAN device on a bridge, down.
fn prepared(world: &World, local: &str) -> (Link, Link) {
    let br0 = world.on_host.bridge_add(&BridgeSpec { mtu: Some(1450), ..bridge("br0") }).unwrap();
    let wanted = VxlanSpec { master: Some(br0.index), port_settings: QUIET, ..spec("vx0", 4096, local) };
    (world.on_host.vxlan_add(&wanted).unwrap(), br0)
}

#[test]
fn a_vxlan_device_is_created_as_asked_and_read_back() {
    let world = World::new();
    let (created, br0) = prepared(&world, "192.0.2.1");
    let read = link(&world.on_host, "vx0");
    assert_eq!(created, read);
    let vxlan = Vxlan { vni: 4096, port: 4789, local: Some(ip("192.0.2.1")), learning: false };
    assert_eq!((&read.kind, read.vxlan, read.mtu, read.up), (&LinkKind::Vxlan, Some(vxlan), 1450, false));
    assert_eq!((read.master, read.alias.as_deref()), (Some(br0.index), Some("berth blue vxlan")));
    assert_eq!(read.mac, Some(MacAddr([2, 0, 0, 0, 9, 9])));
    let port = read.port.unwrap();
    assert!(port.neigh_suppress);
    assert!(!(port.learning || port.flood || port.mcast_flood || port.bcast_flood || port.isolated));
    let details = output(&world.host, "ip", &["-d", "link", "show", "dev", "vx0"]);
    for wanted in ["nolearning", "udpcsum", "noudp6zerocsumtx", "noudp6zerocsumrx", "addrgenmode none"] {
        assert!(details.contains(wanted), "{wanted}: {details}");
    }
    let v6 = world.on_host.vxlan_add(&VxlanSpec { ttl: Some(9), ..spec("vx1", 7, "2001:db8::1") }).unwrap();
    assert_eq!(v6.vxlan.and_then(|vxlan| vxlan.local), Some(ip("2001:db8::1")));
    assert!(output(&world.host, "ip", &["-d", "link", "show", "dev", "vx1"]).contains("ttl 9"));
}

#[test]
fn conflicts_name_the_holder() {
    let world = World::new();
    world.on_host.vxlan_add(&spec("flannel.1", 4096, "192.0.2.1")).unwrap();
    let refused = |spec: &VxlanSpec| world.on_host.vxlan_add(spec).unwrap_err();
    let taken = refused(&spec("vx0", 4096, "192.0.2.1"));
    assert!(
        matches!(&taken, NetlinkError::VniTaken { holder: Holder::Link(link), .. } if link.as_str() == "flannel.1")
    );
    assert!(taken.to_string().starts_with("VNI 4096 on UDP port 4789 is taken by link `flannel.1`\n"));
    let named = refused(&spec("flannel.1", 4097, "192.0.2.1"));
    assert!(matches!(named, NetlinkError::NameTaken { .. }), "{named}");
    // Another UDP port is another network.
    world.on_host.vxlan_add(&VxlanSpec { port: 8472, ..spec("vx1", 4096, "192.0.2.1") }).unwrap();
}

#[test]
fn a_udp_port_in_use_is_told_with_its_holder_when_the_device_goes_up() {
    let world = World::new();
    let vx0 = world.on_host.vxlan_add(&spec("vx0", 4096, "192.0.2.1")).unwrap();
    let vx1 = world.on_host.vxlan_add(&spec("vx1", 4097, "192.0.2.1")).unwrap();
    let err = world.host.run(|| {
        let _server = UdpSocket::bind("0.0.0.0:4789").unwrap();
        Netlink::open().unwrap().link_set_up(vx0.index).unwrap_err()
    });
    let err = err.unwrap();
    assert_eq!(err.errno(), Some(Errno::ADDRINUSE));
    let NetlinkError::UdpPortTaken { holder: Holder::Process(process), port: 4789, .. } = &err else {
        panic!("{err}")
    };
    assert_eq!(process.pid, std::process::id());
    // Once it is free, devices share it.
    world.on_host.link_set_up(vx0.index).unwrap();
    world.on_host.link_set_up(vx1.index).unwrap();
}

#[test]
fn a_full_bridge_is_told_in_words() {
    let world = World::new();
    let br0 = world.on_host.bridge_add(&bridge("br0")).unwrap();
    for number in 1..=1023 {
        let device = format!("vx{number}");
        let wanted = VxlanSpec { alias: None, master: Some(br0.index), ..spec(&device, number, "192.0.2.1") };
        world.on_host.vxlan_add(&wanted).unwrap();
    }
    let full = |err: NetlinkError| {
        assert!(matches!(err, NetlinkError::BridgeFull { .. }), "{err}");
        assert!(err.to_string().starts_with("bridge `br0` is full: it has 1023 ports"), "{err}");
    };
    let last = VxlanSpec { master: Some(br0.index), ..spec("vx1024", 1024, "192.0.2.1") };
    full(world.on_host.vxlan_add(&last).unwrap_err());
    assert_eq!(world.on_host.link_by_name(&name("vx1024")).unwrap(), None);
    let pair = VethSpec { master: Some(br0.index), ..veth("veth0", "eth0") };
    full(world.on_host.veth_add(&pair, &world.container).unwrap_err());
    assert_eq!(world.on_host.link_by_name(&name("veth0")).unwrap(), None);
    let alone = world.on_host.vxlan_add(&spec("vx1024", 1024, "192.0.2.1")).unwrap();
    full(world.on_host.link_set_master(alone.index, Some(br0.index)).unwrap_err());
}

fn mac(number: u32) -> MacAddr {
    let [_, b, c, d] = number.to_be_bytes();
    MacAddr([2, 0x42, 0, b, c, d])
}

/// What a remote attachment needs: its entry in both tables and its two neighbours.
fn remote(number: u32, vx0: u32, br0: u32, vtep: IpAddr) -> [EntryChange; 3] {
    let mac = mac(number);
    let v4 = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 200, 0, 0)) + number);
    let v6 = Ipv6Addr::from(u128::from("fd00:200::".parse::<Ipv6Addr>().unwrap()) + u128::from(number));
    [
        EntryChange::FdbReplace(FdbSpec { index: vx0, mac, vtep: Some(vtep), table: FdbTable::Both }),
        EntryChange::NeighReplace(NeighSpec { index: br0, addr: v4.into(), mac }),
        EntryChange::NeighReplace(NeighSpec { index: br0, addr: v6.into(), mac }),
    ]
}

#[test]
fn ten_thousand_remote_attachments_are_written_read_and_taken_back() {
    let world = World::new();
    let (vx0, br0) = prepared(&world, "192.0.2.1");
    for index in [br0.index, vx0.index] {
        world.on_host.link_set_up(index).unwrap();
    }
    let vtep = ip("192.0.2.2");
    let all =
        |vtep| (1..=10_000).flat_map(move |n| remote(n, vx0.index, br0.index, vtep)).collect::<Vec<_>>();
    // The second writing moves them, the third finds them as they are.
    for vtep in [vtep, ip("192.0.2.3"), ip("192.0.2.3")] {
        let start = Instant::now();
        assert_eq!(world.on_host.entries_change(&all(vtep)).unwrap(), []);
        println!("10,000 remote attachments written in {:?}", start.elapsed());
        let start = Instant::now();
        let entries = world.on_host.fdb(vx0.index).unwrap();
        let ours = entries.iter().filter(|entry| entry.state == FdbState::Static);
        let (own, bridges): (Vec<&FdbEntry>, Vec<&FdbEntry>) =
            ours.partition(|entry| entry.table == FdbTable::Link);
        assert_eq!((own.len(), bridges.len()), (10_000, 10_000));
        assert!(own.iter().all(|entry| entry.vtep == Some(vtep)));
        assert!(bridges.iter().all(|entry| entry.vtep.is_none()));
        let neighs = world.on_host.neighs(br0.index).unwrap();
        assert_eq!(neighs.iter().filter(|neigh| neigh.permanent).count(), 20_000);
        println!("read in {:?}", start.elapsed());
    }
    let gone: Vec<_> = all(ip("192.0.2.3")).into_iter().map(deletion).collect();
    assert_eq!(world.on_host.entries_change(&gone).unwrap(), []);
    assert_eq!(world.on_host.entries_change(&gone).unwrap(), [], "absent is success");
    assert!(world.on_host.fdb(vx0.index).unwrap().iter().all(|entry| entry.state != FdbState::Static));
    assert!(world.on_host.neighs(br0.index).unwrap().iter().all(|neigh| !neigh.permanent));
}

fn deletion(change: EntryChange) -> EntryChange {
    match change {
        EntryChange::FdbReplace(spec) => EntryChange::FdbDel(spec),
        EntryChange::NeighReplace(NeighSpec { index, addr, .. }) => EntryChange::NeighDel { index, addr },
        other => other,
    }
}

#[test]
fn a_refused_entry_is_told_and_the_others_are_made() {
    let world = World::new();
    let (vx0, br0) = prepared(&world, "192.0.2.1");
    world.on_host.link_set_up(br0.index).unwrap();
    let vtep = ip("192.0.2.2");
    let mut changes: Vec<_> = (1..=300).flat_map(|n| remote(n, vx0.index, br0.index, vtep)).collect();
    let bad =
        EntryChange::FdbReplace(FdbSpec { index: 4711, mac: mac(1), vtep: None, table: FdbTable::Link });
    for at in [700, 400, 0] {
        changes.insert(at, bad);
    }
    let faults = world.on_host.entries_change(&changes).unwrap();
    assert_eq!(faults.len(), 3);
    assert!(faults.iter().all(|fault| fault.change == bad && fault.refusal.errno == Errno::NODEV));
    let own = world.on_host.fdb(vx0.index).unwrap().into_iter().filter(|entry| entry.vtep == Some(vtep));
    assert_eq!(own.map(|entry| entry.mac).collect::<BTreeSet<_>>().len(), 300);
    // The bridge's half is gone; the link's goes all the same.
    let spec = FdbSpec { index: vx0.index, mac: mac(7), vtep: None, table: FdbTable::Bridge };
    assert!(world.on_host.fdb_del(&spec).unwrap());
    assert!(world.on_host.fdb_del(&FdbSpec { table: FdbTable::Both, ..spec }).unwrap());
    assert!(world.on_host.fdb(vx0.index).unwrap().iter().all(|entry| entry.mac != mac(7)));
}

#[test]
fn the_address_of_all_zeros_has_several_destinations() {
    let world = World::new();
    let (vx0, _) = prepared(&world, "192.0.2.1");
    let to = |vtep| FdbSpec {
        index: vx0.index,
        mac: MacAddr([0; 6]),
        vtep: Some(ip(vtep)),
        table: FdbTable::Link,
    };
    let (a, b) = (to("192.0.2.2"), to("192.0.2.3"));
    let appended = [EntryChange::FdbAppend(a), EntryChange::FdbAppend(b), EntryChange::FdbAppend(a)];
    assert_eq!(world.on_host.entries_change(&appended).unwrap(), []);
    let vteps = || -> BTreeSet<IpAddr> {
        let entries = world.on_host.fdb(vx0.index).unwrap().into_iter();
        entries.filter(|entry| entry.mac == MacAddr([0; 6])).filter_map(|entry| entry.vtep).collect()
    };
    assert_eq!(vteps(), BTreeSet::from([ip("192.0.2.2"), ip("192.0.2.3")]));
    assert_eq!(world.on_host.entries_change(&[EntryChange::FdbDel(a)]).unwrap(), []);
    assert_eq!(vteps(), BTreeSet::from([ip("192.0.2.3")]));
}

/// What a host of the pair has.
struct End {
    world: World,
    vx0: Link,
    br0: Link,
}

/// Two hosts on one wire, each with a container on the network, which knows nothing of the other yet.
fn two(underlay: [&str; 2]) -> [End; 2] {
    let worlds = [World::new(), World::new()];
    let [a, b] = &worlds;
    a.on_host.veth_add(&veth("u0", "u0"), &b.host).unwrap();
    let mut number = 0;
    worlds.map(|world| {
        number += 1;
        let local = underlay[number - 1];
        let u0 = link(&world.on_host, "u0");
        let length = if ip(local).is_ipv4() { 24 } else { 64 };
        world.on_host.addr_add(u0.index, format!("{local}/{length}").parse().unwrap(), NODAD).unwrap();
        world.on_host.link_set_up(u0.index).unwrap();
        let (vx0, br0) = prepared(&world, local);
        let peer_mac = Some(mac(u32::try_from(number).unwrap()));
        let pair = VethSpec { peer_mac, master: Some(br0.index), mtu: Some(1430), ..veth("veth0", "eth0") };
        let port = world.on_host.veth_add(&pair, &world.container).unwrap().host_index;
        let eth0 = link(&world.in_container, "eth0").index;
        for address in [format!("10.200.0.{number}/16"), format!("fd00:200::{number}/64")] {
            world.in_container.addr_add(eth0, address.parse().unwrap(), NODAD).unwrap();
        }
        for index in [br0.index, vx0.index, port] {
            world.on_host.link_set_up(index).unwrap();
        }
        world.in_container.link_set_up(eth0).unwrap();
        End { world, vx0, br0 }
    })
}

#[test]
fn containers_of_two_hosts_exchange_packets_over_either_underlay() {
    for underlay in [["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8::2"]] {
        let ends = two(underlay);
        let [a, b] = &ends;
        for (end, number, vtep) in [(a, 2, underlay[1]), (b, 1, underlay[0])] {
            let changes = remote(number, end.vx0.index, end.br0.index, ip(vtep));
            assert_eq!(end.world.on_host.entries_change(&changes).unwrap(), []);
            let port = link(&end.world.on_host, "veth0").index;
            assert!(end.world.on_host.link_await_up(port, PATIENCE).unwrap());
        }
        for [from, to] in [["10.200.0.1", "10.200.0.2"], ["fd00:200::1", "fd00:200::2"]] {
            let server = b.world.container.run(|| UdpSocket::bind((ip(to), 7)).unwrap()).unwrap();
            let client = a.world.container.run(|| UdpSocket::bind((ip(from), 0)).unwrap()).unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let sent = [7_u8; 1300];
            client.send_to(&sent, server.local_addr().unwrap()).unwrap();
            let mut buffer = [0; 2000];
            let (length, sender) = server.recv_from(&mut buffer).unwrap();
            assert_eq!((length, sender), (1300, client.local_addr().unwrap()), "over {underlay:?}");
        }
    }
}

/// What `work` in the host's namespace gives news of.
fn news_of(world: &World, events: &mut LinkEvents, work: &str) -> bool {
    const OURS: Concern<'_> = Concern { alias: "berth ", names: &["vx", "br"] };
    events.read(OURS).unwrap();
    output(&world.host, "sh", &["-c", work]);
    // What the kernel says of a change is in the queue when the change returns.
    events.read(OURS).unwrap().suspicious
}

#[test]
fn whatever_is_changed_of_a_named_link_is_news_and_other_ports_settings_are_not() {
    let world = World::new();
    let (vx0, _) = prepared(&world, "192.0.2.1");
    world.on_host.link_set_up(vx0.index).unwrap();
    output(
        &world.host,
        "sh",
        &["-c", "ip link add v0 type veth peer name v1; ip link set v0 alias 'berth x' master br0 up"],
    );
    let mut events = world.host.run(|| LinkEvents::open().unwrap()).unwrap();
    for change in [
        "bridge link set dev vx0 learning on",
        "bridge link set dev vx0 neigh_suppress off",
        "ip link set vx0 type bridge_slave isolated on",
        "ip link set vx0 type vxlan learning",
        "ip link set vx0 mtu 1400",
        "ip link set br0 mtu 1300",
        "ip link set br0 address 02:00:00:00:00:99",
    ] {
        assert!(news_of(&world, &mut events, change), "{change}");
    }
    for change in
        ["true", "bridge link set dev v0 learning off", "ip link set v0 type bridge_slave isolated on"]
    {
        // The kernel may still have something to say of what was before: carriers are told of within a second.
        let until = Instant::now() + PATIENCE;
        while news_of(&world, &mut events, change) {
            assert!(Instant::now() < until, "{change}");
        }
    }
}
