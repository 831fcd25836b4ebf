//! Who is kept out, and who is kept apart.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use berth_core::network::Reach;
use berth_integration::{Host, Probe, RawSocket, frame, underlay_test};

use super::stage::{Laid, Member, Net, PORT, mtu_over, nodes};

/// By what a test knows its own datagrams.
pub(crate) const MARKER: &[u8] = b"marked by the test";

/// The datagram itself, and not a complaint about it that quotes it.
fn marked(frame: &[u8]) -> bool {
    frame.get(23) == Some(&17) && frame.windows(MARKER.len()).any(|window| window == MARKER)
}

fn v4(addr: IpAddr) -> Ipv4Addr {
    match addr {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => unreachable!("the first address of a member is IPv4"),
    }
}

/// A datagram from one member to another, as an Ethernet frame.
fn datagram(from: &Member<'_>, to: &Member<'_>) -> Vec<u8> {
    let packet = frame::V4 {
        src_mac: from.mac.0,
        dst_mac: to.mac.0,
        src: v4(from.addresses[0]),
        dst: v4(to.addresses[0]),
    };
    packet.udp(999, 999, MARKER)
}

/// Sends a frame in a tunnel's packet, as anybody on the underlay can.
pub(crate) fn inject(host: &Host, vtep: IpAddr, vni: u32, frame: &[u8]) {
    let header = [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), frame].concat();
    host.inside(|| {
        let any: IpAddr = if vtep.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        for _ in 0..20 {
            socket.send_to(&header, SocketAddr::new(vtep, PORT)).unwrap();
        }
    });
}

pub(crate) fn delivered(at: &RawSocket) -> usize {
    at.count(Duration::from_millis(200), marked)
}

/// The last host is a stranger.
#[test]
fn frames_are_taken_from_nodes_of_the_network_and_from_nobody_else() {
    for over_v6 in [false, true] {
        underlay_test(3, 1500, |_, hosts| {
            let all = nodes(hosts, over_v6);
            let (nodes, stranger) = (&all[..2], &hosts[2].0);
            let laid = Laid::new(Net::new(0, mtu_over(1500, &nodes[0])), nodes);
            let members = [laid.join(0, "c0", 2), laid.join(1, "c1", 2)];
            let eth0 = members[1].container.raw("eth0");
            let forged = datagram(&members[0], &members[1]);
            let vni = laid.net.vni();

            inject(stranger, nodes[1].vtep, vni, &forged);
            assert_eq!(delivered(&eth0), 0, "from a stranger");
            inject(nodes[0].host, nodes[1].vtep, vni, &forged);
            assert_eq!(delivered(&eth0), 20, "the same from a node of the network");
            inject(nodes[0].host, nodes[1].vtep, vni + 1, &forged);
            assert_eq!(delivered(&eth0), 0, "of another network");

            // The node leaves, and is a stranger from then on.
            nodes[1].learns(&laid.net, |entries| drop(entries.node(&nodes[0].name(), None)));
            assert!(nodes[1].reconcile(&laid.net).peers_changed);
            inject(nodes[0].host, nodes[1].vtep, vni, &forged);
            assert_eq!(delivered(&eth0), 0, "from a node that left");

            members.into_iter().enumerate().for_each(|(at, member)| nodes[at].detach(member));
            laid.unlay();
        });
    }
}

/// From the first moment: before anybody has said who the other nodes are.
#[test]
fn a_network_that_knows_no_other_node_takes_nothing() {
    underlay_test(2, 1500, |_, hosts| {
        let nodes = nodes(hosts, false);
        let net = Net::new(0, 1450);
        nodes[1].lay(&net);
        let member = nodes[1].attach(&net, "c1", 2, 2);
        let eth0 = member.container.raw("eth0");
        inject(nodes[0].host, nodes[1].vtep, net.vni(), &datagram(&member, &member));
        assert_eq!(delivered(&eth0), 0);
        nodes[1].detach(member);
        nodes[1].unlay(&net);
    });
}

#[test]
fn what_a_container_forges_stays_on_its_node() {
    underlay_test(2, 1500, |_, hosts| {
        let nodes = nodes(hosts, false);
        let laid = Laid::new(Net::new(0, 1450), &nodes);
        let members = [laid.join(0, "c0", 2), laid.join(1, "c1", 2), laid.join(0, "evil", 3)];
        let at_c1 = members[1].container.raw("eth0");
        let evil = members[2].container.raw("eth0");
        let send = |frame: Vec<u8>| {
            (0..10).for_each(|_| evil.send(&frame));
            delivered(&at_c1)
        };
        assert_eq!(send(datagram(&members[2], &members[1])), 10, "its own");
        assert_eq!(send(datagram(&members[0], &members[1])), 0, "another's MAC address");
        let mut mixed = datagram(&members[0], &members[1]);
        mixed[6..12].copy_from_slice(&members[2].mac.0);
        assert_eq!(send(mixed), 0, "another's address");
        for (at, member) in [0, 1, 0].into_iter().zip(members) {
            laid.leave(at, member);
        }
        laid.unlay();
    });
}

#[test]
fn containers_kept_apart_are_so_across_nodes_and_nodes_reach_them() {
    underlay_test(2, 1500, |_, hosts| {
        let nodes = nodes(hosts, false);
        let reach = Reach { masquerade: true, between_containers: false, ..Reach::default() };
        let laid = Laid::new(Net { reach, ..Net::new(0, 1450) }, &nodes);
        let members = [laid.join(0, "c0", 2), laid.join(1, "c1", 2), laid.join(0, "c2", 3)];
        for (at, from) in members.iter().enumerate() {
            for (other, to) in members.iter().enumerate().filter(|(other, _)| *other != at) {
                for addr in to.addresses {
                    assert_eq!(from.container.ping(addr, 1), 0, "member {at} to member {other}");
                }
            }
            for node in &nodes {
                for addr in from.addresses {
                    assert_eq!(node.host.ping(addr, 1), 1, "node {} to member {at}", node.number);
                }
            }
        }
        for (at, member) in [0, 1, 0].into_iter().zip(members) {
            laid.leave(at, member);
        }
        laid.unlay();
    });
}

/// The last host is somebody outside.
#[test]
fn an_internal_network_spans_nodes_and_nothing_leaves_it() {
    underlay_test(3, 1500, |_, hosts| {
        let all = nodes(hosts, false);
        let nodes = &all[..2];
        let reach = Reach { internal: true, ..Reach::default() };
        let laid = Laid::new(Net { reach, ..Net::new(0, 1450) }, nodes);
        let members = [laid.join(0, "c0", 2), laid.join(1, "c1", 2)];
        let _outside = hosts[2].0.serve_tcp(7, "outside");
        for to in members[1].addresses {
            assert_eq!(members[0].container.ping(to, 1), 1);
        }
        for to in [IpAddr::from(hosts[2].1.v4), hosts[2].1.v6.into()] {
            members[0]
                .container
                .probe(&Probe::tcp(SocketAddr::new(to, 7)).timeout(Duration::from_millis(300)))
                .none();
        }
        for (at, member) in members.into_iter().enumerate() {
            laid.leave(at, member);
        }
        laid.unlay();
    });
}

#[test]
fn broadcasts_cross_only_where_the_network_asks_for_it() {
    for flood in [false, true] {
        underlay_test(3, 1500, |_, hosts| {
            let nodes = nodes(hosts, false);
            let laid = Laid::new(Net { flood, ..Net::new(0, 1450) }, &nodes);
            let members: Vec<_> = (0..3).map(|at| laid.join(at, &format!("c{at}"), 2)).collect();
            let listening: Vec<_> = members[1..].iter().map(|member| member.container.raw("eth0")).collect();
            let packet = frame::V4 {
                src_mac: members[0].mac.0,
                dst_mac: frame::BROADCAST,
                src: v4(members[0].addresses[0]),
                dst: Ipv4Addr::new(10, 200, 255, 255),
            };
            let sending = members[0].container.raw("eth0");
            (0..10).for_each(|_| sending.send(&packet.udp(999, 999, MARKER)));
            for raw in &listening {
                assert_eq!(delivered(raw), if flood { 10 } else { 0 }, "flood {flood}");
            }
            drop((listening, sending));
            members.into_iter().enumerate().for_each(|(at, member)| laid.leave(at, member));
            laid.unlay();
        });
    }
}
