//! S17: on one bridge, nobody is believed to be somebody else, and nothing sent as somebody else arrives.

use std::time::Duration;

use berth_integration::{Host, Place, Probe, RawSocket, eventually, frame};
use serde_json::json;

use crate::common::{Member, Net, berth_test};
use crate::packet::{EVIL, SILENCE, link_local, mac_of, udp6};

/// The attacker `a`, its peers `b` and `c`, and their network.
fn three<'h>(net: &Net<'h>) -> (Member<'h>, Member<'h>, Member<'h>) {
    (net.join("a"), net.join("b"), net.join("c"))
}

/// Fills the neighbour tables of the host and of `c` with what is true.
fn acquainted(host: &Host, net: &Net<'_>, b: &Member<'_>, c: &Member<'_>) {
    let _b = b.serve_tcp(80, "b");
    for from in [host as &Place, c] {
        from.probe(&Probe::tcp(format!("{}:80", b.v4()))).all_from("b");
        from.probe(&Probe::tcp(format!("[{}]:80", b.v6()))).all_from("b");
    }
    assert_eq!((c.ping(net.gateway4(), 1), c.ping(net.gateway6(), 1)), (1, 1));
}

/// Neighbour entries of `place` that lead to `mac`.
fn believed(place: &Place, mac: &str) -> usize {
    place.run("ip neighbour show").lines().filter(|line| line.contains(mac)).count()
}

fn text(mac: frame::Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Announcements that the gateway and `b` are at the attacker's address, and at one that nobody has.
fn announce_all(host: &Host, net: &Net<'_>, a: &RawSocket, b: &Member<'_>, c: &Member<'_>) {
    let bridge = mac_of(host, &net.bridge());
    for at in [a.mac(), frame::mac(EVIL)] {
        for (mac, v4, v6) in [(bridge, net.gateway4(), net.gateway6()), (c.mac(), c.v4(), c.v6())] {
            for claimed in [net.gateway4(), b.v4(), c.v4()] {
                a.send(&frame::arp_reply(at, claimed, mac, v4));
                // The sender of the frame is true, what the message says is not.
                let mut honest = frame::arp_reply(at, claimed, mac, v4);
                honest[6..12].copy_from_slice(&a.mac());
                a.send(&honest);
                let mut request = honest.clone();
                request[21] = 1;
                a.send(&request);
            }
            for claimed in [net.gateway6(), b.v6(), c.v6(), link_local(bridge), link_local(b.mac())] {
                for src in [claimed, link_local(a.mac())] {
                    for src_mac in [at, a.mac()] {
                        let packet = frame::V6 { src_mac, dst_mac: mac, src, dst: v6 };
                        a.send(&packet.neighbour_advertisement(claimed, at));
                    }
                }
            }
        }
    }
}

#[test]
fn forged_arp_and_neighbour_advertisements_change_no_table() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, b, c) = three(&net);
        acquainted(host, &net, &b, &c);
        let attacker = a.raw("eth0");
        // Longer than the second in which the kernel ignores ARP about an entry that was just confirmed.
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_millis(1500) {
            announce_all(host, &net, &attacker, &b, &c);
            attacker.count(Duration::from_millis(50), |_| false);
        }
        for mac in [EVIL.to_owned(), text(attacker.mac())] {
            assert_eq!((believed(host, &mac), believed(&c, &mac)), (0, 0), "{mac}");
        }
        let _b = b.serve_tcp(80, "b");
        host.probe(&Probe::tcp(format!("{}:80", b.v4()))).all_from("b");
        c.probe(&Probe::tcp(format!("[{}]:80", b.v6()))).all_from("b");
    });
}

/// The counterpart: the same frames are believed where the guard is off, so the test above sees what there is to see.
#[test]
fn without_the_guard_forged_announcements_are_believed() {
    berth_test(|host| {
        let net = Net::new(host, 1).with("antiSpoofing", json!(false));
        let (a, b, c) = three(&net);
        acquainted(host, &net, &b, &c);
        let attacker = a.raw("eth0");
        eventually(Duration::from_secs(5), || {
            announce_all(host, &net, &attacker, &b, &c);
            let fooled = believed(&c, EVIL) + believed(&c, &text(attacker.mac()));
            if fooled > 0 { Ok(()) } else { Err(c.run("ip neighbour show")) }
        });
    });
}

/// Frames that claim to be from somebody else, all with the payload `forged`.
fn forged(host: &Host, net: &Net<'_>, a: &Member<'_>, b: &Member<'_>, c: &Member<'_>) -> Vec<Vec<u8>> {
    let bridge = mac_of(host, &net.bridge());
    let stranger4 = "10.80.1.200".parse().unwrap();
    let stranger6 = "fd00:80:1::200".parse().unwrap();
    let mut frames = Vec::new();
    for (dst_mac, dst4, dst6) in [(c.mac(), c.v4(), c.v6()), (bridge, net.gateway4(), net.gateway6())] {
        for src_mac in [a.mac(), b.mac(), frame::mac(EVIL), bridge] {
            for src in [
                a.v4(),
                b.v4(),
                net.gateway4(),
                stranger4,
                "127.0.0.1".parse().unwrap(),
                "8.8.8.8".parse().unwrap(),
            ] {
                if (src_mac, src) != (a.mac(), a.v4()) {
                    frames.push(frame::V4 { src_mac, dst_mac, src, dst: dst4 }.udp(1000, 2000, b"forged"));
                }
            }
            for src in [a.v6(), b.v6(), net.gateway6(), stranger6, link_local(b.mac()), link_local(bridge)] {
                if (src_mac, src) != (a.mac(), a.v6()) {
                    frames.push(udp6(&frame::V6 { src_mac, dst_mac, src, dst: dst6 }, 1000, 2000, b"forged"));
                }
            }
        }
    }
    frames
}

#[test]
fn frames_with_somebody_elses_mac_or_address_are_not_delivered() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, b, c) = three(&net);
        let frames = forged(host, &net, &a, &b, &c);
        let (victim, gateway, attacker) = (c.raw("eth0"), host.raw("br1"), a.raw("eth0"));
        frames.iter().for_each(|frame| attacker.send(frame));
        let is_forged = |frame: &[u8]| frame.ends_with(b"forged");
        assert_eq!((victim.count(SILENCE, is_forged), gateway.count(SILENCE, is_forged)), (0, 0));
        // The attacker's own are. (What the victim answers repeats them.)
        let is_forged = |frame: &[u8]| frame.starts_with(&c.mac()) && is_forged(frame);
        let own = frame::V4 { src_mac: a.mac(), dst_mac: c.mac(), src: a.v4(), dst: c.v4() };
        attacker.send(&own.udp(1000, 2000, b"forged"));
        let own = frame::V6 { src_mac: a.mac(), dst_mac: c.mac(), src: a.v6(), dst: c.v6() };
        attacker.send(&udp6(&own, 1000, 2000, b"forged"));
        assert_eq!(victim.count(SILENCE, is_forged), 2);
    });
}

/// A bridge that learned the attacker's claim would send the victim's traffic there.
#[test]
fn a_peers_mac_stays_on_its_own_port() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, b, c) = three(&net);
        acquainted(host, &net, &b, &c);
        let mac = text(b.mac());
        let learned = |on: &str| {
            let table = host.run("bridge fdb show br br1");
            table.lines().filter(|line| line.contains(&mac) && line.contains(on)).count()
        };
        let attacker = a.raw("eth0");
        for dst_mac in [c.mac(), frame::BROADCAST] {
            let packet = frame::V4 { src_mac: b.mac(), dst_mac, src: b.v4(), dst: c.v4() };
            for _ in 0..10 {
                attacker.send(&packet.udp(1000, 2000, b"forged"));
            }
        }
        attacker.count(SILENCE, |_| false);
        assert_eq!(learned(&a.host_ifname()), 0);
        let _b = b.serve_tcp(80, "b");
        c.probe(&Probe::tcp(format!("{}:80", b.v4())).times(3)).all_from("b");
    });
}

#[test]
fn a_container_is_no_dhcp_server() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, _, c) = three(&net);
        let (victim, attacker) = (c.raw("eth0"), a.raw("eth0"));
        for dst_mac in [c.mac(), frame::BROADCAST] {
            let packet =
                frame::V4 { src_mac: a.mac(), dst_mac, src: a.v4(), dst: "255.255.255.255".parse().unwrap() };
            attacker.send(&packet.udp(67, 68, b"forged"));
            let packet = frame::V6 {
                src_mac: a.mac(),
                dst_mac,
                src: link_local(a.mac()),
                dst: "ff02::1".parse().unwrap(),
            };
            attacker.send(&udp6(&packet, 547, 546, b"forged"));
        }
        assert_eq!(victim.count(SILENCE, |frame| frame.ends_with(b"forged")), 0);
    });
}

/// Tunnels in tunnels: what the guard cannot read it does not let through.
#[test]
fn frames_of_other_protocols_and_vlan_tags_are_not_delivered() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, b, c) = three(&net);
        let (victim, gateway, attacker) = (c.raw("eth0"), host.raw("br1"), a.raw("eth0"));
        let inner = frame::V4 { src_mac: b.mac(), dst_mac: c.mac(), src: b.v4(), dst: c.v4() };
        let inner = inner.udp(1000, 2000, b"forged");
        for dst in [c.mac(), mac_of(host, "br1"), frame::BROADCAST] {
            for ethertype in [0x8100, 0x88a8, 0x8847, 0x8863, 0x8864, 0x88cc, 0x9100, 0x0600] {
                let tagged = [&[0, 1][..], &inner[12..]].concat();
                attacker.send(&frame::ethernet(a.mac(), dst, ethertype, &tagged));
            }
        }
        let is_forged = |frame: &[u8]| frame.ends_with(b"forged");
        assert_eq!((victim.count(SILENCE, is_forged), gateway.count(SILENCE, is_forged)), (0, 0));
    });
}

/// The attacker gives itself what is not its own, with the ordinary tools.
#[test]
fn an_address_that_was_not_given_does_not_work() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, b, c) = three(&net);
        let _b = b.serve_tcp(80, "b");
        a.run("ip address add 10.80.1.200/24 dev eth0");
        a.run("ip address add fd00:80:1::200/64 dev eth0 nodad");
        a.probe(&Probe::tcp(format!("{}:80", b.v4())).from("10.80.1.200").timeout(SILENCE)).none();
        a.probe(&Probe::tcp(format!("[{}]:80", b.v6())).from("fd00:80:1::200").timeout(SILENCE)).none();
        assert_eq!((host.ping("10.80.1.200", 1), c.ping("fd00:80:1::200", 1)), (0, 0));
        // What the attacker's own kernel did not find by the false address it tries again by the true one.
        a.run("ip neighbour flush dev eth0");
        a.probe(&Probe::tcp(format!("{}:80", b.v4())).from(a.v4())).all_from("b");
        a.run("ip link set eth0 address 02:00:00:00:00:66");
        a.probe(&Probe::tcp(format!("{}:80", b.v4())).timeout(SILENCE)).none();
    });
}
