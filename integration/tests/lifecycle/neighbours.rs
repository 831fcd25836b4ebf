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

/// A router's advertisements are nobody's business on a network that berth routes, whatever the family.
#[test]
fn a_container_asks_for_no_router() {
    berth_test(|host| {
        let net = narrow(host);
        let a = net.join("a");
        for (switch, value) in [("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0")] {
            assert_eq!(a.sysctl(&format!("net.ipv6.conf.eth0.{switch}")), value, "{switch}");
        }
    });
}
