//! What lies between hosts that are far from each other: a router, and a wire to each.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::host_test::framed_all;
use crate::{Debian, Host, Seat};

/// A router that hosts are plugged into, each with a subnet of its own: host N has 198.18.N.2/24 and fd00:c612:0:N::2/64, and
/// the router 198.18.N.1 and fd00:c612:0:N::1 on `port N`. It can be run things in, as any host.
#[derive(Debug)]
pub struct Underlay {
    router: Host,
    mtu: u32,
    seats: AtomicU8,
}

impl Deref for Underlay {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.router
    }
}

impl Underlay {
    /// Makes one that carries packets of `mtu` bytes.
    pub fn new(mtu: u32) -> Self {
        let router = Host::bare();
        router.set_sysctl("net.ipv4.ip_forward", "1");
        router.set_sysctl("net.ipv6.conf.all.forwarding", "1");
        // While a link-local address is looked for twice, nobody is asked for on behalf of forwarded packets.
        router.set_sysctl("net.ipv6.conf.default.accept_dad", "0");
        Self { router, mtu, seats: AtomicU8::new(0) }
    }

    /// Plugs `host` in. Its default route stays what it was; the underlay's subnets are reached by the router.
    pub fn join(&self, host: &Host) -> Seat {
        let number = self.seats.fetch_add(1, Ordering::Relaxed) + 1;
        let ifname = format!("lan{}", host.next_uplink() - 1);
        let subnet = |end: u16| Ipv6Addr::new(0xfd00, 0xc612, 0, u16::from(number), 0, 0, 0, end);
        let seat = Seat { ifname, v4: Ipv4Addr::new(198, 18, number, 2), v6: subnet(2) };
        let Seat { ifname, v4, v6 } = &seat;
        let (mtu, netns, router) = (self.mtu, host.net_path(), subnet(1));
        self.batch(&format!(
            "link add port{number} mtu {mtu} type veth peer name {ifname} mtu {mtu} netns {}
             address add 198.18.{number}.1/24 dev port{number}
             address add {router}/64 dev port{number} nodad
             link set port{number} up",
            netns.display()
        ));
        host.set_sysctl(&format!("net.ipv6.conf.{ifname}.accept_dad"), "0");
        host.batch(&format!(
            "link set {ifname} up
             address add {v4}/24 dev {ifname}
             address add {v6}/64 dev {ifname} nodad
             route add 198.18.0.0/16 via 198.18.{number}.1
             route add fd00:c612::/32 via {router}"
        ));
        seat
    }
}

/// Runs `test` with `count` hosts on an underlay that carries packets of `mtu` bytes; the last is for who has nothing to do with
/// the others. Requires what [`crate::host_test`] does, of each host.
pub fn underlay_test(count: usize, mtu: u32, test: impl FnOnce(&Underlay, &[(Host, Seat)])) {
    underlay_test_on(Debian::V12, count, mtu, test);
}

/// As [`underlay_test`], with hosts that have the programs of `debian`.
pub fn underlay_test_on(
    debian: Debian,
    count: usize,
    mtu: u32,
    test: impl FnOnce(&Underlay, &[(Host, Seat)]),
) {
    fn hosts_of((_, hosts): &(Underlay, Vec<(Host, Seat)>)) -> Vec<&Host> {
        hosts.iter().map(|(host, _)| host).collect()
    }
    let make = || {
        let underlay = Underlay::new(mtu);
        let hosts: Vec<(Host, Seat)> = (0..count)
            .map(|_| {
                let host = Host::on(debian);
                let seat = underlay.join(&host);
                (host, seat)
            })
            .collect();
        (underlay, hosts)
    };
    framed_all(make, hosts_of, |(underlay, hosts)| test(underlay, hosts));
}
