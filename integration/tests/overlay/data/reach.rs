//! Who reaches whom, and with how large a packet.

use std::net::IpAddr;
use std::time::Duration;

use berth_core::doctor::examine;
use berth_core::request::{PortRequest, PublishRequest};
use berth_integration::{Host, Place, Probe, Seat, Underlay, underlay_test};
use berth_netlink::Netlink;
use berth_overlay::mtu;
use berth_store::Dirs;
use berth_types::{AttachmentKey, Proto};

use super::stage::{Laid, Member, Net, PORT, mtu_over, nodes};

/// How many pings of `size` bytes, headers included, are answered without being cut in pieces.
fn whole(from: &Place, to: IpAddr, size: u32) -> usize {
    let headers = if to.is_ipv4() { 28 } else { 48 };
    let data = size - headers;
    let ran = from.line(&format!("ping -M do -c 3 -i 0.05 -W 1 -q -s {data} {to}")).output();
    let text = ran.stdout;
    let answered = text.split(", ").find_map(|part| part.strip_suffix(" received"));
    answered.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Whether a frame on the underlay carries ARP, a neighbour solicitation or an advertisement through a tunnel.
fn asks(frame: &[u8]) -> bool {
    let (ethertype, ip) = match frame.get(12..14) {
        Some([0x08, 0x00]) => (4, 20),
        Some([0x86, 0xdd]) => (6, 40),
        _ => return false,
    };
    let proto = frame.get(14 + if ethertype == 4 { 9 } else { 6 });
    let udp = 14 + ip;
    if proto != Some(&17) || frame.get(udp + 2..udp + 4) != Some(&PORT.to_be_bytes()) {
        return false;
    }
    let inner = frame.get(udp + 16..).unwrap_or_default();
    match inner.get(12..14) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => inner.get(20) == Some(&58) && matches!(inner.get(54), Some(133..=137)),
        _ => false,
    }
}

fn everybody_reaches_everybody(laid: &Laid<'_, '_>, members: &[Member<'_>]) {
    let Laid { net, nodes } = laid;
    for (at, member) in members.iter().enumerate() {
        let own = nodes.iter().flat_map(|node| node.own(net).0);
        let others = members.iter().filter(|other| other.key != member.key).flat_map(|other| other.addresses);
        for to in others.chain(own).chain(net.gateways()) {
            assert_eq!(member.container.ping(to, 1), 1, "member {at} to {to}");
        }
        for node in *nodes {
            for to in member.addresses {
                assert_eq!(node.host.ping(to, 1), 1, "node {} to {to}", node.number);
            }
        }
    }
}

fn over(underlay_mtu: u32, v6: bool) {
    underlay_test(2, underlay_mtu, |underlay: &Underlay, hosts: &[(Host, Seat)]| {
        let nodes = nodes(hosts, v6);
        let mtu = mtu_over(underlay_mtu, &nodes[0]);
        // What the routes say is what the underlay carries.
        let (peer, vtep) = (nodes[1].name(), nodes[1].vtep);
        let ways = nodes[0].host.inside(|| mtu::ways(&Netlink::open().unwrap(), [(&peer, vtep)]).unwrap());
        assert_eq!(mtu::choose(underlay_mtu, nodes[0].vtep, mtu::Cover::Clear, &ways), mtu);

        let wire = underlay.raw("port1");
        let laid = Laid::new(Net::new(0, mtu), &nodes);
        let members = [laid.join(0, "c0", 2), laid.join(1, "c1", 2)];
        everybody_reaches_everybody(&laid, &members);
        for to in members[1].addresses {
            assert_eq!(whole(&members[0].container, to, mtu), 3, "{mtu} bytes to {to}");
            assert_eq!(whole(&members[0].container, to, mtu + 1), 0, "{} bytes to {to}", mtu + 1);
            let _server = members[1].container.serve_tcp(80, "c1");
            let to = std::net::SocketAddr::new(to, 80);
            members[0].container.probe(&Probe::tcp(to).times(5)).all_from("c1");
            nodes[0].host.probe(&Probe::tcp(to)).all_from("c1");
        }
        // Nobody is there; the question is not taken across.
        assert_eq!(members[0].container.ping(laid.net.v4(9, 9), 1), 0);
        assert_eq!(members[0].container.ping(laid.net.v6(9, 9), 1), 0);
        assert_eq!(wire.count(Duration::from_millis(100), asks), 0, "ARP or ND on the underlay");
        for node in &nodes {
            let dirs = Dirs { state: node.host.state_dir(), run: node.host.run_dir() };
            let found = node.host.inside(|| examine(&dirs));
            assert!(found.is_clean(), "{found:?}");
            let wrong = node.core(|berth| berth.check_all(None).unwrap());
            assert!(wrong.iter().all(|checked| checked.differences.is_empty()), "{wrong:?}");
        }
        let [c0, c1] = members;
        laid.leave(0, c0);
        laid.leave(1, c1);
        laid.unlay();
    });
}

#[test]
fn over_ipv4_with_1500_bytes() {
    over(1500, false);
}

#[test]
fn over_ipv4_with_1450_bytes() {
    over(1450, false);
}

#[test]
fn over_ipv4_with_9000_bytes() {
    over(9000, false);
}

#[test]
fn over_ipv6() {
    over(1500, true);
}

#[test]
fn three_nodes_and_two_networks_that_are_kept_apart() {
    underlay_test(3, 1500, |_, hosts| {
        let nodes = nodes(hosts, false);
        let mtu = mtu_over(1500, &nodes[0]);
        let [blue, red] = [0, 1].map(|number| Laid::new(Net::new(number, mtu), &nodes));
        let blues: Vec<_> = (0..3).map(|at| blue.join(at, &format!("b{at}"), 2)).collect();
        let reds: Vec<_> = (0..3).map(|at| red.join(at, &format!("r{at}"), 2)).collect();
        everybody_reaches_everybody(&blue, &blues);
        everybody_reaches_everybody(&red, &reds);
        for (at, from) in blues.iter().enumerate() {
            for to in reds.iter().flat_map(|red| red.addresses) {
                assert_eq!(from.container.ping(to, 1), 0, "blue on node {at} to red {to}");
            }
        }
        for (laid, members) in [(&blue, blues), (&red, reds)] {
            members.into_iter().enumerate().for_each(|(at, member)| laid.leave(at, member));
            laid.unlay();
        }
    });
}

/// The last host has nothing to do with the network: it is somebody on the LAN.
#[test]
fn the_outside_is_reached_by_the_own_node_and_reaches_a_port_of_any_node() {
    underlay_test(3, 1500, |_, hosts| {
        let all = nodes(hosts, false);
        let (nodes, lan) = (&all[..2], &hosts[2].0);
        let laid = Laid::new(Net::new(0, mtu_over(1500, &nodes[0])), nodes);
        let member = laid.join(1, "c1", 2);

        let _outside = lan.serve_tcp(7, "lan");
        for (to, own) in [
            (IpAddr::from(hosts[2].1.v4), hosts[1].1.v4.into()),
            (hosts[2].1.v6.into(), IpAddr::from(hosts[1].1.v6)),
        ] {
            let reply = member.container.reach(&Probe::tcp(std::net::SocketAddr::new(to, 7)));
            assert_eq!(reply.seen_as.map(|seen| seen.ip()), Some(own), "masqueraded by its own node");
        }

        // Node 0 publishes a port of the container on node 1.
        let key = AttachmentKey { container: "published".parse().unwrap(), ..member.key.clone() };
        let port =
            PortRequest { proto: Proto::Tcp, host_addr: None, host_port: 8080, container_port: 80, count: 1 };
        let targets = [format!("{}/16", member.addresses[0]), format!("{}/64", member.addresses[1])];
        let request = PublishRequest {
            key: key.clone(),
            ports: vec![port],
            choices: Vec::new(),
            targets: targets.iter().map(|target| target.parse().unwrap()).collect(),
            masquerade_hairpin: false,
            hairpin_port: false,
            masquerade_all: true,
            link: None,
            sandbox: None,
        };
        nodes[0].core(|berth| berth.publish(&request).unwrap());
        let _server = member.container.serve_tcp(80, "c1");
        let (own, _) = nodes[0].own(&laid.net);
        for (to, own) in [IpAddr::from(hosts[0].1.v4), hosts[0].1.v6.into()].into_iter().zip(own) {
            let reply = lan.reach(&Probe::tcp(std::net::SocketAddr::new(to, 8080)));
            assert_eq!(reply.label, "c1");
            assert_eq!(
                reply.seen_as.map(|seen| seen.ip()),
                Some(own),
                "the node's own address, and not the gateway's"
            );
        }
        nodes[0].core(|berth| berth.unpublish(&key).unwrap());
        laid.leave(1, member);
        laid.unlay();
    });
}

#[test]
fn traffic_follows_an_address_to_another_node_and_nothing_goes_to_the_old_one() {
    underlay_test(3, 1500, |_, hosts| {
        let nodes = nodes(hosts, false);
        let laid = Laid::new(Net::new(0, mtu_over(1500, &nodes[0])), &nodes);
        let client = laid.join(0, "client", 2);
        let old = laid.join(1, "old", 7);
        let addresses = old.addresses;
        {
            let _server = old.container.serve_tcp(80, "old");
            for to in addresses {
                client.container.reach(&Probe::tcp(std::net::SocketAddr::new(to, 80)));
            }
        }
        // The address is given anew at once, with no moment in between, to a container on another node.
        nodes[1].detach(old);
        let new = nodes[2].attach(&laid.net, "new", 2, 7);
        assert_eq!(new.addresses, addresses);
        laid.tell(2, &new);
        let to_old = nodes[1].host.raw(&laid.net.device());
        let _server = new.container.serve_tcp(80, "new");
        for to in addresses {
            client.container.probe(&Probe::tcp(std::net::SocketAddr::new(to, 80)).times(10)).all_from("new");
            assert_eq!(nodes[1].host.ping(to, 1), 1, "the old node finds it too");
        }
        let to_address = |frame: &[u8]| {
            let sent = |at: usize, addr: IpAddr| match addr {
                IpAddr::V4(v4) => frame.get(at..at + 4) == Some(&v4.octets()),
                IpAddr::V6(v6) => frame.get(at..at + 16) == Some(&v6.octets()),
            };
            let from_client = client.addresses.iter().zip([26, 22]).any(|(addr, at)| sent(at, *addr));
            from_client && addresses.iter().zip([30, 38]).any(|(addr, at)| sent(at, *addr))
        };
        assert_eq!(to_old.count(Duration::from_millis(200), to_address), 0, "packets to the old owner");
        for node in &nodes {
            assert!(
                node.reconcile(&laid.net).is_clean(),
                "what was written by changes is what a look asks for"
            );
        }
        laid.leave(2, new);
        laid.leave(0, client);
        laid.unlay();
    });
}
