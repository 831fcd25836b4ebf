//! What neighbours know of an address that moves from one container to the next.

use std::net::Ipv4Addr;

use serde_json::json;

use crate::common::{Member, Net, berth_test};

/// A pool with one address beside the observer's and the gateway's.
fn narrow(host: &berth_integration::Host) -> Net<'_> {
    Net::new(host, 1)
        .with("ipam", json!({"type": "ripam", "subnet": "10.80.1.0/29", "rangeEnd": "10.80.1.3"}))
}

/// What `observer` has in its cache of `addr`: the MAC address, however old.
fn known(observer: &Member<'_>, addr: Ipv4Addr) -> String {
    let entries = observer.run(&format!("ip -o neigh show {addr}"));
    entries.split("lladdr ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("").to_owned()
}

#[test]
fn an_address_keeps_its_mac_when_it_moves_to_the_next_container() {
    berth_test(|host| {
        let net = narrow(host);
        let observer = net.join("observer");
        let first = net.join("first");
        let addr = first.v4();
        assert_eq!(observer.ping(addr, 1), 1);
        let mac = known(&observer, addr);
        first.leave();
        let second = net.join("second");
        assert_eq!(second.v4(), addr);
        assert_eq!((known(&observer, addr), observer.ping(addr, 1)), (mac, 1));
        assert_eq!(host.ping(addr, 1), 1);
    });
}

/// Where MAC addresses are asked for, an address may have had another one: neighbours are told, and need not find out by
/// losing packets for seconds.
#[test]
fn neighbours_are_told_of_an_address_whose_mac_changes() {
    berth_test(|host| {
        let net = narrow(host);
        let observer = net.join("observer");
        for (name, mac) in [("a", Some("02:00:00:00:00:aa")), ("b", None), ("c", Some("02:00:00:00:00:cc"))] {
            let container = host.container(name);
            let call = net.call_for(&container);
            let call = match mac {
                Some(mac) => call.key("runtimeConfig", json!({"mac": mac})),
                None => call,
            };
            let member = Member::add(call, container);
            // By what it was told, before it sends anything to that address.
            if name != "a" {
                let told = || known(&observer, member.v4());
                let now = member.result()["interfaces"][2]["mac"].as_str().unwrap().to_owned();
                berth_integration::eventually(std::time::Duration::from_secs(2), || {
                    if told() == now { Ok(()) } else { Err(format!("{name}: {} and not {now}", told())) }
                });
            }
            assert_eq!(observer.ping(member.v4(), 1), 1, "{name}");
            member.leave();
        }
    });
}

/// Each would have routes and group memberships of its own, and floods that tell everybody of them.
#[test]
fn nobody_speaks_ipv6_on_a_network_of_ipv4_alone() {
    berth_test(|host| {
        let a = narrow(host).join("a");
        assert_eq!(a.run("ip -6 -o address show dev eth0"), "");
        assert_eq!(host.run(&format!("ip -6 -o address show dev {}", a.host_ifname())), "");
        // A container may still give itself one.
        a.run("ip -6 address add fd00:9::2/64 dev eth0 nodad");
        assert!(a.run("ip -6 -o address show dev eth0").contains("fd00:9::2/64"));
    });
}
