//! A network between hosts, and a neighbour on it who may mean harm.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::Host;

/// A bridge that hosts are plugged into, in a namespace of its own. The namespace is a neighbour too, the first address of
/// the LAN: 198.51.100.1/24 and fd00:c633::1/64 on `lan0`. It can be run things in, as any host.
#[derive(Debug)]
pub struct Lan {
    host: Host,
    seats: AtomicU8,
}

/// What a host has on a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// The host's link to it: `lan0`, and `lan1` for a second LAN.
    pub ifname: String,
    /// Its address there.
    pub v4: Ipv4Addr,
    /// Its IPv6 address there.
    pub v6: Ipv6Addr,
}

impl Deref for Lan {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Default for Lan {
    fn default() -> Self {
        Self::new()
    }
}

impl Lan {
    /// The neighbour's own address.
    pub const V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    /// The neighbour's own IPv6 address.
    pub const V6: Ipv6Addr = v6(1);

    /// Makes a LAN that no host is on yet.
    pub fn new() -> Self {
        let host = Host::bare();
        host.batch(&format!(
            "link add lan0 type bridge forward_delay 0 mcast_snooping 0
             link set lan0 up
             address add {}/24 dev lan0
             address add {}/64 dev lan0 nodad",
            Self::V4,
            Self::V6
        ));
        Self { host, seats: AtomicU8::new(1) }
    }

    /// Plugs `host` in. Its default route stays what it was.
    pub fn join(&self, host: &Host) -> Seat {
        let number = self.seats.fetch_add(1, Ordering::Relaxed) + 1;
        let ifname = format!("lan{}", host.next_uplink() - 1);
        let seat = Seat { ifname, v4: Ipv4Addr::new(198, 51, 100, number), v6: v6(number) };
        let Seat { ifname, v4, v6 } = &seat;
        let netns = host.net_path();
        self.batch(&format!(
            "link add port{number} type veth peer name {ifname} netns {}
             link set port{number} master lan0 up",
            netns.display()
        ));
        host.batch(&format!(
            "link set {ifname} up
             address add {v4}/24 dev {ifname}
             address add {v6}/64 dev {ifname} nodad"
        ));
        seat
    }
}

const fn v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0xc633, 0, 0, 0, 0, 0, number as u16)
}
