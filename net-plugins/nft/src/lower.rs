//! From an [`Element`] to the entries of sets and maps it is made of. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_types::{Family, IfName, MacAddr, Proto, PublishedPort};
use ipnetwork::IpNetwork;

use crate::element::Element;
use crate::schema::*;

/// One element of a set or map as the kernel knows it. Bytes are in network order, marks in the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) set: &'static SetDef,
    /// The key, or a range's first.
    pub(crate) key: Vec<u8>,
    pub(crate) upper: Upper,
    /// A map's data.
    pub(crate) data: Option<Vec<u8>>,
}

/// The other end of a range. The kernel wants it in different forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upper {
    /// The set has no ranges.
    None,
    /// Concatenations: the last key of the range (`NFTA_SET_ELEM_KEY_END`).
    Last(Vec<u8>),
    /// Single fields: the first key after the range, an element of its own (`NFT_SET_ELEM_INTERVAL_END`).
    Before(Vec<u8>),
    /// Single fields: the range goes to the family's last address, which has no key after it.
    Open,
}

/// The entries of `element` in the order they are to be added; or why there are none.
pub(crate) fn lower(element: &Element) -> Result<Vec<Entry>, &'static str> {
    let single = |set, key: Key| Ok(vec![Entry { set, key: key.done(), upper: Upper::None, data: None }]);
    match element {
        Element::Bridge(name) => single(&BRIDGES, Key::of(&BRIDGES).ifname(name)),
        Element::Within(from, to) => single(&WITHIN, Key::of(&WITHIN).ifname(from).ifname(to)),
        Element::Internal(name) => single(&INTERNAL, Key::of(&INTERNAL).ifname(name)),
        Element::Open(name) => single(&OPEN, Key::of(&OPEN).ifname(name)),
        Element::Routed(name) => single(&ROUTED, Key::of(&ROUTED).ifname(name)),
        Element::Apart(name) => single(&APART, Key::of(&APART).ifname(name)),
        Element::HostAcross(mac) => single(&HOSTS_ACROSS, Key::of(&HOSTS_ACROSS).mac(*mac)),
        Element::ApartAcross(name) => single(&APART_ACROSS, Key::of(&APART_ACROSS).ifname(name)),
        Element::ClosedRouter { family: Family::V4, link } => {
            single(&CLOSED_ROUTER4, Key::of(&CLOSED_ROUTER4).ifname(link))
        }
        Element::ClosedRouter { family: Family::V6, link } => {
            single(&CLOSED_ROUTER6, Key::of(&CLOSED_ROUTER6).ifname(link))
        }
        Element::Subnet(subnet) => Ok(vec![prefix(by_family(subnet.ip(), &SUBNETS4, &SUBNETS6), *subnet)]),
        Element::Masquerade(subnet) => Ok(vec![prefix(by_family(subnet.ip(), &MASQ4, &MASQ6), *subnet)]),
        Element::Own(subnet) => {
            let set = by_family(subnet.ip(), &OWN4, &OWN6);
            let (first, last) = (subnet.network(), subnet.broadcast());
            Ok(vec![range(set, Key::of(set).addr(first).addr(first), Key::of(set).addr(last).addr(last))])
        }
        Element::Hairpin { subnet, addr } => {
            if subnet.is_ipv4() != addr.is_ipv4() {
                return Err("the subnet and the address are of different families");
            }
            let set = by_family(*addr, &HAIRPIN4, &HAIRPIN6);
            let (first, last) = (subnet.network(), subnet.broadcast());
            Ok(vec![range(set, Key::of(set).addr(first).addr(*addr), Key::of(set).addr(last).addr(*addr))])
        }
        Element::MasqueradeAll(addr) => {
            let set = by_family(*addr, &MASQ_ALL4, &MASQ_ALL6);
            single(set, Key::of(set).addr(*addr))
        }
        Element::Dns { bridge, addr } => {
            let set = by_family(*addr, &DNS4, &DNS6);
            single(set, Key::of(set).ifname(bridge).addr(*addr))
        }
        Element::Led { bridge, asked, to } => {
            if asked.is_ipv4() != to.is_ipv4() {
                return Err("who is asked and who answers are of different families");
            }
            let (addr, port) =
                (by_family(*asked, &LED_ADDR4, &LED_ADDR6), by_family(*asked, &LED_PORT4, &LED_PORT6));
            let entry = |set, data| {
                let key = Key::of(set).ifname(bridge).addr(*asked).done();
                Entry { set, key, upper: Upper::None, data: Some(data) }
            };
            Ok(vec![entry(addr, octets(to.ip())), entry(port, to.port().to_be_bytes().to_vec())])
        }
        Element::Vtep(addr) => {
            let set = by_family(*addr, &VTEPS4, &VTEPS6);
            single(set, Key::of(set).addr(*addr))
        }
        Element::VxlanPort(port) => single(&VXLAN_PORTS, Key::of(&VXLAN_PORTS).port(*port)),
        Element::EncryptedPort(port) => single(&ENCRYPTED_PORTS, Key::of(&ENCRYPTED_PORTS).port(*port)),
        Element::Guarded(name) => single(&GUARDED, Key::of(&GUARDED).ifname(name)),
        Element::GuardedMacOnly(name) => single(&GUARDED_MAC_ONLY, Key::of(&GUARDED_MAC_ONLY).ifname(name)),
        Element::Trunk(name) => single(&TRUNK, Key::of(&TRUNK).ifname(name)),
        Element::AllowedMac { port, mac } => {
            single(&ALLOWED_MAC, Key::of(&ALLOWED_MAC).ifname(port).mac(*mac))
        }
        Element::AllowedAddr { port, mac, addr } => {
            let set = by_family(*addr, &ALLOWED4, &ALLOWED6);
            single(set, Key::of(set).ifname(port).mac(*mac).addr(*addr))
        }
        Element::Port { port, owner } => published(port, *owner),
    }
}

/// The maps a published port is entered in.
struct PortMaps {
    owner: &'static SetDef,
    addr: &'static SetDef,
    /// Absent where the port is kept.
    port: Option<&'static SetDef>,
}

impl PortMaps {
    fn of(port: &PublishedPort, kept_range: bool) -> Self {
        let family = |v4, v6| by_family(port.target, v4, v6);
        let (owner, addr, to) = match (kept_range, port.is_any_addr()) {
            (false, true) => (
                family(&OWNER4, &OWNER6),
                family(&PORT_ADDR4, &PORT_ADDR6),
                Some(family(&PORT_PORT4, &PORT_PORT6)),
            ),
            (false, false) => (
                family(&OWNER4, &OWNER6),
                family(&HOSTPORT_ADDR4, &HOSTPORT_ADDR6),
                Some(family(&HOSTPORT_PORT4, &HOSTPORT_PORT6)),
            ),
            (true, true) => (family(&RANGE_OWNER4, &RANGE_OWNER6), family(&RANGE_ADDR4, &RANGE_ADDR6), None),
            (true, false) => {
                (family(&RANGE_OWNER4, &RANGE_OWNER6), family(&HOSTRANGE_ADDR4, &HOSTRANGE_ADDR6), None)
            }
        };
        Self { owner, addr, port: to }
    }
}

/// A range that keeps its port numbers is one entry; any other is entered port by port. The owner comes first: it is
/// the one that refuses.
fn published(port: &PublishedPort, owner: u32) -> Result<Vec<Entry>, &'static str> {
    let PublishedPort { proto, host_addr, host_port, target, target_port, count } = *port;
    if host_addr.is_ipv4() != target.is_ipv4() {
        return Err("the host's and the container's address are of different families");
    }
    let fits = |first: u16| first > 0 && count > 0 && first.checked_add(count - 1).is_some();
    if !fits(host_port) || !fits(target_port) {
        return Err("the ports do not lie between 1 and 65535");
    }
    let kept_range = count > 1 && host_port == target_port;
    let maps = PortMaps::of(port, kept_range);
    let steps = if kept_range { 1 } else { count };
    let mut entries = Vec::with_capacity(usize::from(steps) * 3);
    for step in 0..steps {
        let (first, to) = (host_port + step, target_port + step);
        let mut put = |set: &'static SetDef, data: Vec<u8>| {
            let key = |number| {
                let key = Key::of(set);
                let keyed_by_addr = set.key.len() == 3;
                let key = if keyed_by_addr { key.addr(host_addr) } else { key };
                key.proto(proto).port(number).done()
            };
            let upper = if kept_range { Upper::Last(key(port.last_host_port())) } else { Upper::None };
            entries.push(Entry { set, key: key(first), upper, data: Some(data) });
        };
        put(maps.owner, owner.to_ne_bytes().to_vec());
        put(maps.addr, octets(target));
        if let Some(set) = maps.port {
            put(set, to.to_be_bytes().to_vec());
        }
    }
    Ok(entries)
}

fn by_family(addr: IpAddr, v4: &'static SetDef, v6: &'static SetDef) -> &'static SetDef {
    match addr {
        IpAddr::V4(_) => v4,
        IpAddr::V6(_) => v6,
    }
}

fn range(set: &'static SetDef, first: Key, last: Key) -> Entry {
    Entry { set, key: first.done(), upper: Upper::Last(last.done()), data: None }
}

fn prefix(set: &'static SetDef, subnet: IpNetwork) -> Entry {
    let upper = match subnet.broadcast() {
        IpAddr::V4(last) => u32::from(last).checked_add(1).map(|next| Ipv4Addr::from(next).octets().to_vec()),
        IpAddr::V6(last) => {
            u128::from(last).checked_add(1).map(|next| Ipv6Addr::from(next).octets().to_vec())
        }
    };
    Entry { set, key: octets(subnet.network()), upper: upper.map_or(Upper::Open, Upper::Before), data: None }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A key being written, field by field.
struct Key {
    bytes: Vec<u8>,
    concat: bool,
    length: usize,
}

impl Key {
    fn of(set: &SetDef) -> Self {
        let length = set.key_length();
        Self { bytes: Vec::with_capacity(length), concat: set.is_concat(), length }
    }

    fn field(mut self, field: Field, value: &[u8]) -> Self {
        let end = self.bytes.len() + if self.concat { field.padded() } else { field.len() };
        self.bytes.extend(value);
        self.bytes.resize(end, 0);
        self
    }

    fn ifname(self, name: &IfName) -> Self {
        self.field(Field::IfName, name.as_str().as_bytes())
    }

    fn mac(self, mac: MacAddr) -> Self {
        self.field(Field::Mac, &mac.0)
    }

    fn addr(self, addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => self.field(Field::V4, &v4.octets()),
            IpAddr::V6(v6) => self.field(Field::V6, &v6.octets()),
        }
    }

    fn proto(self, proto: Proto) -> Self {
        self.field(Field::Proto, &[proto.number()])
    }

    fn port(self, port: u16) -> Self {
        self.field(Field::Port, &port.to_be_bytes())
    }

    fn done(self) -> Vec<u8> {
        debug_assert_eq!(self.bytes.len(), self.length, "every field of the set's key is written once");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host: &str, host_port: u16, target: &str, target_port: u16, count: u16) -> Element {
        let (host_addr, target) = (host.parse().unwrap(), target.parse().unwrap());
        let port = PublishedPort { proto: Proto::Tcp, host_addr, host_port, target, target_port, count };
        Element::Port { port, owner: 1 }
    }

    #[test]
    fn a_prefix_ends_before_the_next_address_or_is_open() {
        let upper = |subnet: &str| lower(&Element::Subnet(subnet.parse().unwrap())).unwrap().remove(0).upper;
        assert_eq!(upper("10.0.0.7/24"), Upper::Before(vec![10, 0, 1, 0]));
        assert_eq!(upper("255.255.255.0/24"), Upper::Open);
        assert_eq!(upper("0.0.0.0/0"), Upper::Open);
        assert_eq!(upper("ff00::/8"), Upper::Open);
        let mut next = vec![0xfd, 0x80];
        next.resize(16, 0);
        next[7] = 1;
        assert_eq!(upper("fd80::/64"), Upper::Before(next));
    }

    #[test]
    fn ports_that_cannot_be_are_refused() {
        assert!(lower(&port("0.0.0.0", 80, "fd80::2", 80, 1)).is_err());
        assert!(lower(&port("0.0.0.0", 65535, "10.0.0.2", 65535, 2)).is_err());
        assert!(lower(&port("0.0.0.0", 0, "10.0.0.2", 80, 1)).is_err());
        assert!(lower(&port("0.0.0.0", 80, "10.0.0.2", 80, 0)).is_err());
    }

    #[test]
    fn a_range_is_two_entries_when_it_keeps_its_ports_and_three_a_port_otherwise() {
        assert_eq!(lower(&port("0.0.0.0", 8000, "10.0.0.2", 8000, 1001)).unwrap().len(), 2);
        assert_eq!(lower(&port("0.0.0.0", 8000, "10.0.0.2", 80, 10)).unwrap().len(), 30);
        assert_eq!(lower(&port("::", 8000, "fd80::2", 80, 1)).unwrap().len(), 3);
    }
}
