//! The ruleset with packets: who reaches whom, what a container may send, and who is seen as the caller.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[cfg(test)]
mod common;
#[cfg(test)]
#[path = "common/lab.rs"]
mod lab;

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};

use berth_nft::Element;
use berth_types::Family;
use common::{ifname, mac, run, unshare_net};
use lab::{Lab, Ns};

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

/// Sends an ICMPv6 message of `kind` to all nodes of the link, with `target` where an advertisement has its own.
fn icmpv6(ns: &Ns, kind: u8, target: &str) {
    let target: Ipv6Addr = target.parse().unwrap();
    ns.call(move || {
        use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, netdevice, sendto, socket};
        let raw = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
        let mut message = [0; 40];
        message[0] = kind;
        message[8..24].copy_from_slice(&target.octets());
        let index = netdevice::name_to_index(&raw, "eth0").unwrap();
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        sendto(&raw, &message, SendFlags::empty(), &SocketAddrV6::new(all_nodes, 0, 0, index)).unwrap();
    });
}

/// Makes another protocol of everything the container sends from now on.
fn disguise(ns: &Ns, ethertype: &str) {
    ns.run("nft add table netdev disguise");
    ns.run("nft add chain netdev disguise out { type filter hook egress device eth0 priority 0 ; }");
    ns.run("nft flush chain netdev disguise out");
    ns.run(&format!("nft add rule netdev disguise out ether type set {ethertype}"));
}

fn serve_all(lab: &Lab) {
    for (ns, addrs) in [
        (&lab.a, ["10.80.0.2:80", "[fd80::2]:80"]),
        (&lab.b, ["10.80.0.3:80", "[fd80::3]:80"]),
        (&lab.c, ["10.81.0.4:80", "[fd81::4]:80"]),
        (&lab.inner, ["10.82.0.5:80", "[fd82::5]:80"]),
        (&lab.lan, ["192.0.2.2:80", "[2001:db8::2]:80"]),
    ] {
        addrs.iter().for_each(|addr| ns.serve(addr));
    }
}

#[test]
fn networks_reach_themselves_and_the_outside_and_not_each_other() {
    let lab = Lab::new();
    serve_all(&lab);
    for (peer, lan, other, seen) in [
        ("10.80.0.3:80", "192.0.2.2:80", "10.81.0.4:80", ("10.80.0.2", "192.0.2.1")),
        ("[fd80::3]:80", "[2001:db8::2]:80", "[fd81::4]:80", ("fd80::2", "2001:db8::1")),
    ] {
        assert_eq!(lab.a.reaches(peer), ip(seen.0), "within its network, by its own address");
        assert_eq!(lab.a.reaches(lan), ip(seen.1), "to the LAN, masqueraded");
        assert!(lab.a.misses(other), "{other}");
    }
    assert!(lab.counts("between networks"));
    // Both open: they reach each other.
    lab.commit(vec![Element::Open(ifname("br0")), Element::Open(ifname("br1"))]);
    assert!(lab.a.reaches("10.81.0.4:80").is_some());
    assert!(lab.a.reaches("[fd81::4]:80").is_some());
}

#[test]
fn a_container_is_not_reached_by_its_own_address_from_outside() {
    let lab = Lab::new();
    serve_all(&lab);
    for addr in ["10.80.0.2:80", "[fd80::2]:80"] {
        assert!(lab.lan.misses(addr), "{addr}");
        assert!(lab.host.reaches(addr).is_some(), "{addr} from the host");
    }
    assert!(lab.counts("container address by a foreign way"));
    // Neither is the gateway, but the host itself reaches it.
    lab.host.serve("10.80.0.1:99");
    assert!(lab.lan.misses("10.80.0.1:99"));
    assert_eq!(lab.host.reaches("10.80.0.1:99"), ip("10.80.0.1"));
    assert_eq!(lab.a.reaches("10.80.0.1:99"), ip("10.80.0.2"));
}

#[test]
fn a_routed_network_is_reached_from_outside() {
    let lab = Lab::new();
    serve_all(&lab);
    let subnets = ["10.80.0.0/24", "fd80::/64"].map(|subnet| subnet.parse().unwrap());
    let natted = subnets.iter().flat_map(|subnet| [Element::Subnet(*subnet), Element::Masquerade(*subnet)]);
    lab.change(vec![Element::Routed(ifname("br0"))], natted.collect());
    for (addr, seen) in [("10.80.0.2:80", "192.0.2.2"), ("[fd80::2]:80", "2001:db8::2")] {
        assert_eq!(lab.lan.reaches(addr), ip(seen));
    }
    assert_eq!(lab.a.reaches("192.0.2.2:80"), ip("10.80.0.2"), "not masqueraded");
    assert!(lab.c.misses("10.80.0.2:80"), "another network");
}

#[test]
fn a_published_port_is_reached_from_everywhere_and_sees_who_calls() {
    let lab = Lab::new();
    serve_all(&lab);
    lab.publish(("0.0.0.0", 8080), ("10.80.0.2", 80), 1);
    lab.publish(("::", 8080), ("fd80::2", 80), 1);
    for (addr, lan, host) in
        [("192.0.2.1:8080", "192.0.2.2", "192.0.2.1"), ("[2001:db8::1]:8080", "2001:db8::2", "2001:db8::1")]
    {
        assert_eq!(lab.lan.reaches(addr), ip(lan), "the true client");
        assert_eq!(lab.host.reaches(addr), ip(host), "the host");
        assert!(lab.b.reaches(addr).is_some(), "a peer");
        assert!(lab.a.reaches(addr).is_some(), "itself");
        assert!(lab.c.reaches(addr).is_some(), "another network");
        assert!(lab.inner.misses(addr), "an internal network");
    }
    lab.commit(vec![Element::MasqueradeAll("10.80.0.2".parse().unwrap())]);
    assert_eq!(lab.lan.reaches("192.0.2.1:8080"), ip("10.80.0.1"), "masqueraded on request");
}

#[test]
fn localhost_reaches_published_ports_and_nobody_else_reaches_localhost() {
    let lab = Lab::new();
    serve_all(&lab);
    lab.publish(("127.0.0.1", 8080), ("10.80.0.2", 80), 1);
    lab.host.serve("127.0.0.1:99");
    assert!(lab.host.misses("127.0.0.1:8080"), "before the bridge may route loopback addresses");
    lab.host.call(|| std::fs::write("/proc/sys/net/ipv4/conf/br0/route_localnet", "1").unwrap());
    lab.host.call(|| std::fs::write("/proc/sys/net/ipv4/conf/lan0/route_localnet", "1").unwrap());
    assert_eq!(lab.host.reaches("127.0.0.1:8080"), ip("10.80.0.1"));
    assert!(lab.lan.misses("192.0.2.1:8080"));
    // A neighbour that routes 127.0.0.0/8 to the host, and a container that does.
    for (ns, gateway) in [(&lab.lan, "192.0.2.1"), (&lab.a, "10.80.0.1")] {
        ns.run("ip addr del 127.0.0.1/8 dev lo");
        ns.run("ip route flush table local 127.0.0.0/8");
        ns.call(|| std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap());
        ns.run(&format!("ip route add 127.0.0.1/32 via {gateway} dev eth0"));
        assert!(ns.misses("127.0.0.1:8080"));
        assert!(ns.misses("127.0.0.1:99"));
    }
    assert!(lab.counts("loopback address from outside"));
}

#[test]
fn a_published_port_on_ipv6_localhost_is_refused_at_once() {
    let lab = Lab::new();
    serve_all(&lab);
    lab.publish(("::", 8080), ("fd80::2", 80), 1);
    let refused = lab.host.call(|| std::net::TcpStream::connect("[::1]:8080").unwrap_err());
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn one_address_and_ranges_are_published_as_they_say() {
    let lab = Lab::new();
    for port in [7000, 7001, 7002, 9001] {
        lab.a.serve(&format!("10.80.0.2:{port}"));
    }
    lab.b.serve("10.80.0.3:80");
    lab.host.run("ip addr add 192.0.2.7/24 dev lan0");
    lab.publish(("0.0.0.0", 7000), ("10.80.0.2", 7000), 2);
    lab.publish(("192.0.2.7", 7000), ("10.80.0.3", 80), 1);
    lab.publish(("192.0.2.7", 9000), ("10.80.0.2", 9000), 2);
    assert_eq!(lab.lan.reaches("192.0.2.1:7000"), ip("192.0.2.2"));
    assert_eq!(lab.lan.reaches("192.0.2.1:7001"), ip("192.0.2.2"));
    assert!(lab.lan.misses("192.0.2.1:7002"), "beside the range");
    assert_eq!(lab.lan.reaches("192.0.2.7:9001"), ip("192.0.2.2"));
    assert!(lab.lan.misses("192.0.2.1:9001"), "another address");
    let before = lab.b.run("ip -s link show eth0");
    assert_eq!(lab.lan.reaches("192.0.2.7:7000"), ip("192.0.2.2"));
    assert_ne!(lab.b.run("ip -s link show eth0"), before, "the more exact one wins");
}

#[test]
fn traffic_that_passes_through_is_not_taken_by_a_published_port() {
    let lab = Lab::new();
    serve_all(&lab);
    lab.publish(("0.0.0.0", 80), ("10.80.0.3", 80), 1);
    // To a stranger's port 80: the stranger answers, not container b.
    assert_eq!(lab.a.reaches("192.0.2.2:80"), ip("192.0.2.1"));
    assert_eq!(lab.c.reaches("192.0.2.2:80"), ip("192.0.2.1"));
}

#[test]
fn questions_to_servers_of_elsewhere_are_led_to_the_gateway_for_one_network_only() {
    let lab = Lab::new();
    lab.host.serve("10.80.0.1:1053");
    lab.host.serve("[fd80::1]:53");
    lab.lan.serve("192.0.2.2:53");
    lab.lan.serve("192.0.2.2:80");
    lab.lan.serve("[2001:db8::2]:53");
    let led = |asked: &str, to: &str| Element::Led {
        bridge: ifname("br0"),
        asked: asked.parse().unwrap(),
        to: to.parse().unwrap(),
    };
    assert_eq!(lab.a.reaches("192.0.2.2:53"), ip("192.0.2.1"), "the server of elsewhere, masqueraded");
    let ways = vec![led("192.0.2.2", "10.80.0.1:1053"), led("2001:db8::2", "[fd80::1]:53")];
    lab.commit(ways.clone());
    assert_eq!(lab.a.reaches("192.0.2.2:53"), ip("10.80.0.2"), "the host, which sees the container");
    assert_eq!(lab.a.reaches("[2001:db8::2]:53"), ip("fd80::2"));
    assert_eq!(lab.a.reaches("192.0.2.2:80"), ip("192.0.2.1"), "another port");
    assert_eq!(lab.c.reaches("192.0.2.2:53"), ip("192.0.2.1"), "another network");
    let answered = lab.host.call(|| {
        let socket = UdpSocket::bind("10.80.0.1:1053").unwrap();
        std::thread::spawn(move || {
            let (_, from) = socket.recv_from(&mut [0; 16]).unwrap();
            socket.send_to(b"here", from).unwrap();
        })
    });
    let answer = lab.a.call(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        // Of any other sender it is not taken.
        socket.connect("192.0.2.2:53").unwrap();
        socket.send(b"who").unwrap();
        let mut answer = [0; 4];
        socket.recv(&mut answer).unwrap();
        answer
    });
    assert_eq!(&answer, b"here");
    answered.join().unwrap();
    lab.change(Vec::new(), ways);
    assert_eq!(lab.a.reaches("192.0.2.2:53"), ip("192.0.2.1"));
}

#[test]
fn an_internal_network_has_no_way_out_and_none_in() {
    let lab = Lab::new();
    serve_all(&lab);
    lab.publish(("0.0.0.0", 8080), ("10.82.0.5", 80), 1);
    lab.publish(("::", 8080), ("fd82::5", 80), 1);
    for addr in ["192.0.2.2:80", "[2001:db8::2]:80", "10.80.0.2:80", "[fd80::2]:80"] {
        assert!(lab.inner.misses(addr), "{addr}");
    }
    for addr in ["192.0.2.1:8080", "[2001:db8::1]:8080", "10.82.0.5:80", "[fd82::5]:80"] {
        assert!(lab.lan.misses(addr), "{addr} from the LAN");
        assert!(lab.a.misses(addr), "{addr} from another network");
    }
    assert!(lab.host.reaches("10.82.0.5:80").is_some() && lab.host.reaches("[fd82::5]:80").is_some());
    assert!(lab.counts("out of an internal network") && lab.counts("into an internal network"));
}

#[test]
fn containers_kept_apart_reach_each_other_by_published_ports_only() {
    let lab = Lab::new();
    serve_all(&lab);
    lab.change(vec![], vec![Element::Within(ifname("br0"), ifname("br0"))]);
    // What the bridge does for frames that do not pass the rules.
    lab.host.run("bridge link set dev pa isolated on");
    lab.host.run("bridge link set dev pb isolated on");
    lab.publish(("0.0.0.0", 8080), ("10.80.0.2", 80), 1);
    assert!(lab.b.misses("10.80.0.2:80"));
    assert!(lab.c.reaches("192.0.2.1:8080").is_some());
    assert_eq!(lab.lan.reaches("192.0.2.1:8080"), ip("192.0.2.2"));
}

#[test]
fn forwarding_makes_no_router_of_the_host() {
    let lab = Lab::new();
    let other = Ns::new();
    lab.host.run(&format!("ip link add lan1 type veth peer name eth0 netns {}", other.thread));
    lab.host.run("ip addr add 198.51.100.1/24 dev lan1");
    lab.host.run("ip link set lan1 up");
    other.run("ip addr add 198.51.100.2/24 dev eth0");
    other.run("ip link set eth0 up");
    other.run("ip route add default via 198.51.100.1");
    other.serve("198.51.100.2:80");
    assert_eq!(lab.lan.reaches("198.51.100.2:80"), ip("192.0.2.2"), "a router, without the elements");
    let closed = |link| Element::ClosedRouter { family: Family::V4, link: ifname(link) };
    lab.commit(vec![closed("lan0"), closed("lan1")]);
    assert!(lab.lan.misses("198.51.100.2:80"));
    assert!(lab.a.reaches("198.51.100.2:80").is_some(), "containers go on");
    assert!(lab.counts("not a router"));
}

#[test]
fn a_port_sends_only_its_own_addresses() {
    let lab = Lab::new();
    serve_all(&lab);
    assert!(lab.a.reaches("10.80.0.3:80").is_some() && lab.a.reaches("[fd80::3]:80").is_some());
    lab.a.run("ip addr add 10.80.0.9/32 dev eth0");
    lab.a.run("ip route add 10.80.0.3/32 dev eth0 src 10.80.0.9");
    assert!(lab.a.misses("10.80.0.3:80"));
    assert!(lab.counts("foreign IPv4 address"));
    // The host asks who has b's address; a answers too, and is not heard.
    lab.a.run("ip addr add 10.80.0.3/32 dev eth0");
    lab.a.run("ip -6 addr add fd80::3/128 dev eth0 nodad");
    for (addr, server, refused) in [
        ("10.80.0.3", "10.80.0.3:80", "foreign address in ARP"),
        ("fd80::3", "[fd80::3]:80", "foreign IPv6 address"),
    ] {
        // Now and then b speaks first, and the host need not ask.
        let asked = (0..20).any(|_| {
            lab.host.run("ip neigh flush dev br0");
            lab.host.run("ip -6 neigh flush dev br0");
            lab.host.reaches(server);
            assert!(lab.host.run(&format!("ip neigh show {addr} dev br0")).contains("02:00:00:00:00:03"));
            lab.counted(refused) > 0
        });
        assert!(asked, "{refused}");
    }
    icmpv6(&lab.a, 136, "fd80::2");
    assert_eq!(lab.counted("advertised foreign address"), 0);
    icmpv6(&lab.a, 136, "fd80::3");
    assert!(lab.counts_to("advertised foreign address", 1));
    lab.a.run("ip -6 addr add fd80::9/128 dev eth0 nodad");
    lab.a.run("ip -6 route add fd80::3/128 dev eth0 src fd80::9 metric 1");
    lab.a.run("ip -6 addr del fd80::3/128 dev eth0");
    assert!(lab.a.misses("[fd80::3]:80"));
    assert!(lab.counts("foreign IPv6 address"));
    lab.a.run("ip link set eth0 address 02:00:00:00:00:03");
    assert!(lab.a.misses("10.80.0.1:1"));
    assert!(lab.counts("foreign MAC address"));
}

#[test]
fn a_port_is_no_router_no_dhcp_server_and_no_trunk() {
    let lab = Lab::new();
    for kind in [134, 137] {
        icmpv6(&lab.a, kind, "::");
    }
    assert!(lab.counts_to("router advertisement or redirect", 2));
    lab.a.call(|| UdpSocket::bind("10.80.0.2:67").unwrap().send_to(b"x", "10.80.0.1:68").map(drop).unwrap());
    assert!(lab.counts_to("DHCP server", 1));
    lab.a
        .call(|| UdpSocket::bind("[fd80::2]:547").unwrap().send_to(b"x", "[fd80::1]:546").map(drop).unwrap());
    assert!(lab.counts_to("DHCPv6 server", 1));
    disguise(&lab.a, "0x88cc");
    icmpv6(&lab.a, 133, "::");
    assert!(lab.counts("foreign protocol"), "LLDP");
    let dropped = lab.counted("foreign protocol");
    disguise(&lab.a, "vlan");
    icmpv6(&lab.a, 133, "::");
    assert!(lab.counts_to("foreign protocol", dropped + 1), "a VLAN tag");
    lab.commit(vec![Element::Trunk(ifname("pa"))]);
    let tagged = lab.counted("foreign protocol");
    icmpv6(&lab.a, 133, "::");
    assert_eq!(lab.counted("foreign protocol"), tagged, "a VLAN tag of a trunk");
}

#[test]
fn a_port_with_unknown_addresses_is_held_to_its_mac() {
    let lab = Lab::new();
    serve_all(&lab);
    lab.change(vec![Element::GuardedMacOnly(ifname("pa"))], vec![Element::Guarded(ifname("pa"))]);
    lab.a.run("ip addr add 10.80.0.9/32 dev eth0");
    lab.a.run("ip route add 10.80.0.3/32 dev eth0 src 10.80.0.9");
    assert_eq!(lab.a.reaches("10.80.0.3:80"), ip("10.80.0.9"));
    lab.a.run("ip link set eth0 address 02:00:00:00:00:77");
    assert!(lab.a.misses("10.80.0.3:80"));
    lab.commit(vec![Element::AllowedMac { port: ifname("pa"), mac: mac("02:00:00:00:00:77") }]);
    lab.a.run("ip neigh flush dev eth0");
    lab.b.run("ip neigh flush dev eth0");
    assert_eq!(lab.a.reaches("10.80.0.3:80"), ip("10.80.0.9"));
}

#[test]
fn nothing_in_clear_comes_in_to_an_encrypted_port_or_leaves_for_it() {
    let lab = Lab::new();
    let heard = lab.host.call(|| UdpSocket::bind("192.0.2.1:4799").unwrap());
    let other = lab.lan.call(|| UdpSocket::bind("192.0.2.2:4799").unwrap());
    for socket in [&heard, &other] {
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    }
    let send = |ns: &Ns, to: &'static str| {
        ns.call(move || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", to).map_err(|err| err.kind()))
    };
    send(&lab.lan, "192.0.2.1:4799").unwrap();
    assert!(heard.recv(&mut [0; 8]).is_ok(), "no network is encrypted yet");
    send(&lab.host, "192.0.2.2:4799").unwrap();
    assert!(other.recv(&mut [0; 8]).is_ok());
    // Also from a known node.
    lab.commit(vec![
        Element::VxlanPort(4799),
        Element::EncryptedPort(4799),
        Element::Vtep("192.0.2.2".parse().unwrap()),
    ]);
    send(&lab.lan, "192.0.2.1:4799").unwrap();
    assert!(lab.counts_to("encrypted network clear", 1));
    assert_eq!(send(&lab.host, "192.0.2.2:4799"), Err(std::io::ErrorKind::PermissionDenied));
    for socket in [&heard, &other] {
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 8]).is_err());
    }
}

#[test]
fn vxlan_is_taken_from_known_nodes_only() {
    let lab = Lab::new();
    let heard = lab.host.call(|| {
        let socket = UdpSocket::bind("192.0.2.1:4789").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        socket
    });
    lab.commit(vec![Element::VxlanPort(4789), Element::Vtep("198.51.100.9".parse().unwrap())]);
    let send =
        |ns: &Ns| ns.call(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", "192.0.2.1:4789").unwrap());
    send(&lab.lan);
    send(&lab.a);
    assert!(lab.counts_to("VXLAN from a stranger", 2));
    heard.set_nonblocking(true).unwrap();
    assert!(heard.recv(&mut [0; 8]).is_err());
    heard.set_nonblocking(false).unwrap();
    let tracked = || {
        lab.host.call(|| {
            let any = berth_nft::FlowMatch::udp(Family::V4, (4789, 4789));
            berth_nft::flush_flows(&mut berth_nft::NftSocket::open().unwrap(), &[any]).unwrap()
        })
    };
    tracked();
    lab.commit(vec![Element::Vtep("192.0.2.2".parse().unwrap())]);
    send(&lab.lan);
    assert!(heard.recv(&mut [0; 8]).is_ok());
    let to = |addr: &'static str| {
        lab.host.call(move || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", addr).unwrap());
    };
    to("192.0.2.2:4789");
    assert_eq!(tracked(), 0, "to and from a known node");
    to("192.0.2.99:4789");
    assert_eq!(tracked(), 1, "somebody else's");
    // Masqueraded, a container's packet would look like this node's to the other.
    let other = lab.lan.call(|| UdpSocket::bind("192.0.2.2:4789").unwrap());
    lab.a.call(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"forged", "192.0.2.2:4789").unwrap());
    assert!(lab.counts_to("VXLAN from a stranger", 3));
    other.set_nonblocking(true).unwrap();
    assert!(other.recv(&mut [0; 8]).is_err());
}

#[test]
fn a_foreign_policy_of_drop_is_overcome_by_one_rule_about_the_mark() {
    let lab = Lab::new();
    serve_all(&lab);
    lab.publish(("0.0.0.0", 8080), ("10.80.0.2", 80), 1);
    lab.host.run("nft add table ip filter");
    lab.host.run("nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }");
    assert!(lab.lan.misses("192.0.2.1:8080"));
    lab.host.run("nft add chain ip filter DOCKER-USER");
    lab.host.run("nft add rule ip filter FORWARD jump DOCKER-USER");
    let rule = berth_nft::docker_user_accept().nft.replace('"', "");
    lab.host.run(&format!("nft add rule ip filter DOCKER-USER {rule}"));
    assert_eq!(lab.lan.reaches("192.0.2.1:8080"), ip("192.0.2.2"));
    assert!(lab.a.reaches("192.0.2.2:80").is_some());
    assert!(lab.c.misses("10.80.0.2:80"), "isolation stands");
}

#[test]
fn laying_again_under_traffic_lets_nothing_through() {
    let lab = Lab::new();
    serve_all(&lab);
    lab.publish(("0.0.0.0", 8080), ("10.80.0.2", 80), 1);
    lab.host.call(|| {
        let mut socket = berth_nft::NftSocket::open().unwrap();
        (0..20).for_each(|_| berth_nft::lay(&mut socket).unwrap());
    });
    assert!(lab.lan.misses("10.80.0.2:80"));
    assert!(lab.c.misses("10.80.0.2:80"));
    assert_eq!(lab.lan.reaches("192.0.2.1:8080"), ip("192.0.2.2"));
}

/// Keeps the helpers of `common` that the lab is built from in one place.
#[test]
fn namespaces_are_private() {
    std::thread::spawn(|| {
        unshare_net();
        assert_eq!(run("ip -o link").lines().count(), 1);
    })
    .join()
    .unwrap();
}
