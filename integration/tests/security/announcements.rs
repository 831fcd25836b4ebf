//! Router advertisements, redirects and spanning tree from a container: nobody listens.

use std::net::Ipv6Addr;

use berth_integration::{Host, Place, frame};
use serde_json::json;

use crate::common::{Member, Net, berth_lan_test, berth_test};
use crate::packet::{SILENCE, hidden_advertisement, link_local, mac_of, redirect6, router_advertisement};

/// The prefix that is advertised.
const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xbad, 0, 0, 0, 0, 0, 0);

/// Addresses and routes that an advertisement would change.
fn routing(place: &Place) -> String {
    let routes = place.run("ip -6 route show table all");
    let addresses = place.run("ip -6 -o address show scope global");
    // Entries of the cache come and go; addresses show timers.
    let lines = routes.lines().chain(addresses.lines()).filter(|line| !line.contains("cache"));
    lines.map(|line| line.split(" expires").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// Sends advertisements and redirects of every kind from `member`, to all and to single ones.
fn advertise(host: &Host, member: &Member<'_>, bridge: &str, peer: &Member<'_>) {
    let socket = member.raw("eth0");
    let src = link_local(socket.mac());
    let targets = [
        (frame::mac("33:33:00:00:00:01"), "ff02::1".parse().unwrap()),
        (mac_of(host, bridge), link_local(mac_of(host, bridge))),
        (peer.mac(), link_local(peer.mac())),
    ];
    for (dst_mac, dst) in targets {
        // As itself, and as the gateway, whose redirects would be believed.
        for src in [src, link_local(mac_of(host, bridge))] {
            let packet = frame::V6 { src_mac: socket.mac(), dst_mac, src, dst };
            for _ in 0..5 {
                socket.send(&packet.router_advertisement(PREFIX));
                socket.send(&router_advertisement(&packet, PREFIX, 1800));
                socket.send(&hidden_advertisement(&packet, PREFIX));
                socket.send(&redirect6(&packet, link_local(socket.mac()), "fd00:c633::1".parse().unwrap()));
            }
        }
    }
    // Long enough for the kernel to have used them.
    socket.count(SILENCE, |_| false);
}

/// S16 (CVE-2020-10749, CVE-2020-13401).
#[test]
fn router_advertisements_of_a_container_change_nobodys_routes() {
    for anti_spoofing in [true, false] {
        berth_lan_test(|host, _, _| {
            let net = Net::new(host, 1).with("antiSpoofing", json!(anti_spoofing));
            let (a, b) = (net.join("a"), net.join("b"));
            let before = (routing(host), routing(&b));
            advertise(host, &a, "br1", &b);
            assert_eq!((routing(host), routing(&b)), before, "antiSpoofing={anti_spoofing}");
        });
    }
}

/// S16: they do not even arrive.
#[test]
fn router_advertisements_and_redirects_are_dropped_at_the_port() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, b) = (net.join("a"), net.join("b"));
        let victim = b.raw("eth0");
        advertise(host, &a, "br1", &b);
        let is_nd = |frame: &[u8]| {
            frame.get(12..14) == Some(&[0x86, 0xdd])
                && (matches!((frame.get(20), frame.get(54)), (Some(58), Some(134 | 137)))
                    || frame.get(20) == Some(&60))
        };
        assert_eq!(victim.count(SILENCE, is_nd), 0);
    });
}

/// S16: the switches are right before a link is up, on the host's side and in the container.
#[test]
fn no_link_of_a_network_listens_to_advertisements() {
    berth_test(|host| {
        let a = Net::new(host, 1).join("a");
        for switch in ["accept_ra", "autoconf"] {
            assert_eq!(host.sysctl(&format!("net.ipv6.conf.br1.{switch}")), "0", "bridge {switch}");
            assert_eq!(a.sysctl(&format!("net.ipv6.conf.eth0.{switch}")), "0", "container {switch}");
        }
    });
}

/// The message of a bridge that claims to be the root, IEEE 802.1D section 9.3.1.
fn root_claim(src_mac: frame::Mac) -> Vec<u8> {
    let root = [&[0, 0][..], &src_mac].concat();
    let body = [
        &[0x42, 0x42, 0x03][..],
        &[0, 0, 0, 0, 0x01],
        &root,
        &[0, 0, 0, 0],
        &root,
        &[0x80, 0x01, 0, 0, 20, 0, 2, 0, 15, 0],
    ]
    .concat();
    let length = u16::try_from(body.len()).unwrap();
    frame::ethernet(src_mac, frame::mac("01:80:c2:00:00:00"), length, &body)
}

/// S18.
#[test]
fn spanning_tree_messages_of_a_container_reach_nobody() {
    for anti_spoofing in [true, false] {
        berth_test(|host| {
            let net = Net::new(host, 1).with("antiSpoofing", json!(anti_spoofing));
            let (a, b) = (net.join("a"), net.join("b"));
            let (attacker, victim) = (a.raw("eth0"), b.raw("eth0"));
            for _ in 0..5 {
                attacker.send(&root_claim(attacker.mac()));
            }
            let is_bpdu = |frame: &[u8]| frame.starts_with(&[0x01, 0x80, 0xc2, 0, 0, 0]);
            let arrived = victim.count(SILENCE, is_bpdu);
            // Without the guard they are frames like any others.
            assert_eq!(arrived > 0, !anti_spoofing, "{arrived}");
        });
    }
}

/// S18: an administrator may turn spanning tree on; a container is still no bridge.
#[test]
fn spanning_tree_messages_of_a_container_change_no_port() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, b) = (net.join("a"), net.join("b"));
        host.run("ip link set br1 type bridge forward_delay 200 stp_state 1");
        let ports = || host.run("bridge -d link show | grep -o 'state [a-z]*' | sort | uniq -c");
        berth_integration::eventually(std::time::Duration::from_secs(10), || {
            let states = ports();
            if states.contains("2 state forwarding") { Ok(()) } else { Err(states) }
        });
        let root = || {
            let link = host.json("ip -d -j link show br1");
            link[0]["linkinfo"]["info_data"]["root_id"].clone()
        };
        let before = (root(), ports());
        let attacker = a.raw("eth0");
        for _ in 0..20 {
            attacker.send(&root_claim(attacker.mac()));
        }
        attacker.count(SILENCE, |_| false);
        assert_eq!((root(), ports()), before);
        drop(b);
    });
}
