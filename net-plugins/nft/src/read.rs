//! Reading elements back: for people, `check` and garbage collection. Nothing decides by it what to allow.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use berth_types::{Family, IfName, MacAddr, Proto, PublishedPort};
use ipnetwork::IpNetwork;

use crate::element::Element;
use crate::kernel::{INTERVAL_END, elements, get, msg, nfta};
use crate::lower::{Entry, Upper, lower};
use crate::schema::*;
use crate::socket::{NftSocket, SocketError};
use crate::wire::{AttrSet, Message, NLM_F_DUMP, Writer};

/// How often everything is read again because the ruleset changed meanwhile.
const TRIES: u32 = 20;

/// Every element of the ruleset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dump {
    /// What could be read, sorted.
    pub elements: Vec<Element>,
    /// What no element explains: half of a published port, or something another program put there.
    pub strays: Vec<String>,
}

/// Why elements could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The ruleset, or a part of it, is not there.
    #[error("berth's nftables ruleset is not laid")]
    NoRuleset,
    /// The element cannot be.
    #[error("{element}: {reason}")]
    Invalid {
        /// The element.
        element: Box<Element>,
        /// What contradicts itself.
        reason: &'static str,
    },
    /// The kernel could not be talked to.
    #[error(transparent)]
    Socket(SocketError),
}

impl From<SocketError> for ReadError {
    fn from(err: SocketError) -> Self {
        if err.errno() == Some(libc::ENOENT) { Self::NoRuleset } else { Self::Socket(err) }
    }
}

/// One element of a set as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    /// Where a range of a single field ends: an element of its own, before one that starts at the same key.
    starts: bool,
    key_end: Option<Vec<u8>>,
    data: Option<Vec<u8>>,
}

impl NftSocket {
    /// Reads all elements. It costs one request for each set.
    pub fn dump_elements(&mut self) -> Result<Dump, ReadError> {
        let sets = steady(self, |socket| {
            let mut sets = BTreeMap::new();
            for def in SETS {
                sets.insert((def.table, def.name), rows(socket, def)?);
            }
            Ok(sets)
        })?;
        Ok(raise(sets))
    }

    /// Whether `element` is there, exactly as it is. It costs one request for each of its entries.
    pub fn contains(&mut self, element: &Element) -> Result<bool, ReadError> {
        let entries = lower(element)
            .map_err(|reason| ReadError::Invalid { element: Box::new(element.clone()), reason })?;
        for entry in entries {
            if !has(self, &entry)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Reads with `read` until no transaction came in between, or for the last time as it is.
fn steady<T>(
    socket: &mut NftSocket,
    read: impl Fn(&mut NftSocket) -> Result<T, SocketError>,
) -> Result<T, SocketError> {
    let mut before = generation(socket)?;
    for _ in 1..TRIES {
        let found = read(socket)?;
        let after = generation(socket)?;
        if after == before {
            return Ok(found);
        }
        before = after;
    }
    read(socket)
}

/// All elements of a set, sorted by key.
pub(crate) fn rows(socket: &mut NftSocket, def: &SetDef) -> Result<Vec<Row>, SocketError> {
    let mut found: Vec<Row> = socket.dump(
        "read a set of berth's tables",
        |writer, seq| {
            get(writer, seq, def.table, msg::GETSETELEM, NLM_F_DUMP, |attrs| elements(attrs, def.name, []));
        },
        collect,
    )?;
    found.sort();
    Ok(found)
}

/// The ranges a set holds now, as entries.
pub(crate) fn spans(socket: &mut NftSocket, def: &'static SetDef) -> Result<Vec<Entry>, SocketError> {
    let rows = rows(socket, def)?;
    if def.is_concat() {
        let entry = |Row { key, key_end, data, .. }| {
            let upper = Upper::Last(key_end.unwrap_or_else(|| key.clone()));
            Entry { set: def, key, upper, data }
        };
        return Ok(rows.into_iter().map(entry).collect());
    }
    let entry = |(key, before): (Vec<u8>, Option<Vec<u8>>)| Entry {
        set: def,
        key,
        upper: before.map_or(Upper::Open, Upper::Before),
        data: None,
    };
    Ok(ranges(rows).into_iter().map(entry).collect())
}

/// The ruleset's generation: the number of transactions in this namespace so far.
pub(crate) fn generation(socket: &mut NftSocket) -> Result<Option<u32>, SocketError> {
    let request =
        |writer: &mut Writer, seq| get(writer, seq, Table::Inet, msg::GETGEN, crate::wire::NLM_F_ACK, |_| ());
    socket.dump("read the ruleset's generation", request, |found: &mut Option<u32>, message| {
        *found = message.attrs().u32(nfta::GEN_ID);
    })
}

fn collect(found: &mut Vec<Row>, message: Message<'_>) {
    let elements = message.attrs().nested(nfta::ELEM_LIST_ELEMENTS).map(AttrSet::each);
    for (_, element) in elements.into_iter().flatten() {
        let element = AttrSet::of(element);
        let value =
            |kind| element.nested(kind).and_then(|data| data.get(nfta::DATA_VALUE)).map(<[u8]>::to_vec);
        // The key of a range without an end is absent in some kernels' answers; nothing of berth's is like that.
        let Some(key) = value(nfta::ELEM_KEY) else { continue };
        let starts = element.u32(nfta::ELEM_FLAGS).unwrap_or(0) & INTERVAL_END == 0;
        found.push(Row { key, starts, key_end: value(nfta::ELEM_KEY_END), data: value(nfta::ELEM_DATA) });
    }
}

/// Asks for one entry by its key. Of a range of a single field both ends are compared, so its set is read whole.
fn has(socket: &mut NftSocket, entry: &Entry) -> Result<bool, SocketError> {
    if matches!(entry.upper, Upper::Before(_) | Upper::Open) {
        return Ok(steady(socket, |socket| spans(socket, entry.set))?.contains(entry));
    }
    let asked = socket.dump(
        "read a set of berth's tables",
        |writer, seq| {
            get(writer, seq, entry.set.table, msg::GETSETELEM, crate::wire::NLM_F_ACK, |attrs| {
                elements(attrs, entry.set.name, [&Entry { data: None, ..entry.clone() }]);
            });
        },
        collect,
    );
    let found = match asked {
        // No such element; a set that is not there is the ruleset's absence, and the dump says so.
        Err(err) if err.errno() == Some(libc::ENOENT) => {
            rows(socket, crate::ruleset::marker_set())?;
            return Ok(false);
        }
        result => result?,
    };
    Ok(found.iter().any(|row| {
        let last = match &entry.upper {
            Upper::Last(last) => row.key_end.as_ref().unwrap_or(&row.key) == last,
            _ => true,
        };
        row.key == entry.key && last && row.data == entry.data
    }))
}

/// Pairs starts and ends: (first key, first key after it, or none when the range goes to the last key there is).
fn ranges(mut rows: Vec<Row>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    rows.sort();
    let mut ranges: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
    for row in rows {
        match (row.starts, ranges.last_mut()) {
            (true, _) => ranges.push((row.key, None)),
            (false, Some((_, before @ None))) => *before = Some(row.key),
            // An end without a start: nft writes one at zero, as a hint to itself.
            (false, _) => (),
        }
    }
    ranges
}

type Sets = BTreeMap<(Table, &'static str), Vec<Row>>;

/// From the entries of all sets to elements.
fn raise(mut sets: Sets) -> Dump {
    let mut dump = Dump::default();
    raise_ports(&mut sets, &mut dump);
    raise_led(&mut sets, &mut dump);
    for def in SETS.iter().filter(|def| def.data.is_some()) {
        let rest = take(&mut sets, def).into_iter();
        dump.strays.extend(rest.map(|row| format!("{}: {}", def.name, hex(&row.key))));
    }
    for def in SETS.iter().filter(|def| def.data.is_none()) {
        let rows = sets.remove(&(def.table, def.name)).unwrap_or_default();
        if def.interval && !def.is_concat() {
            for (start, before) in ranges(rows) {
                match subnet(&start, before.as_deref()).and_then(|subnet| raise_subnet(def, subnet)) {
                    Some(element) => dump.elements.push(element),
                    None => dump.strays.push(format!("{}: a range from {}", def.name, hex(&start))),
                }
            }
            continue;
        }
        for row in rows {
            match raise_row(def, &row) {
                Some(element) => dump.elements.push(element),
                None => dump.strays.push(format!("{}: {}", def.name, hex(&row.key))),
            }
        }
    }
    dump.elements.sort();
    dump.strays.sort();
    dump
}

fn raise_subnet(def: &SetDef, subnet: IpNetwork) -> Option<Element> {
    match def.name {
        "subnets4" | "subnets6" => Some(Element::Subnet(subnet)),
        "masq4" | "masq6" => Some(Element::Masquerade(subnet)),
        _ => None,
    }
}

fn raise_row(def: &SetDef, row: &Row) -> Option<Element> {
    let mut first = Fields { def, bytes: &row.key };
    let mut last = Fields { def, bytes: row.key_end.as_ref().unwrap_or(&row.key) };
    let element = match def.name {
        "bridges" => Element::Bridge(first.ifname()?),
        "within" => Element::Within(first.ifname()?, first.ifname()?),
        "internal" => Element::Internal(first.ifname()?),
        "open" => Element::Open(first.ifname()?),
        "routed" => Element::Routed(first.ifname()?),
        "apart" => Element::Apart(first.ifname()?),
        "hosts_across" => Element::HostAcross(first.mac()?),
        "apart_across" => Element::ApartAcross(first.ifname()?),
        "closed_router4" => Element::ClosedRouter { family: Family::V4, link: first.ifname()? },
        "closed_router6" => Element::ClosedRouter { family: Family::V6, link: first.ifname()? },
        "guarded" => Element::Guarded(first.ifname()?),
        "guarded_mac_only" => Element::GuardedMacOnly(first.ifname()?),
        "trunk" => Element::Trunk(first.ifname()?),
        "masq_all4" | "masq_all6" => Element::MasqueradeAll(first.addr()?),
        "vteps4" | "vteps6" => Element::Vtep(first.addr()?),
        "vxlan_ports" => Element::VxlanPort(first.port()?),
        "encrypted_ports" => Element::EncryptedPort(first.port()?),
        "dns4" | "dns6" => Element::Dns { bridge: first.ifname()?, addr: first.addr()? },
        "allowed_mac" => Element::AllowedMac { port: first.ifname()?, mac: first.mac()? },
        "allowed4" | "allowed6" => {
            Element::AllowedAddr { port: first.ifname()?, mac: first.mac()?, addr: first.addr()? }
        }
        "own4" | "own6" => {
            let (from, to) = (prefix(first.addr()?, last.addr()?)?, prefix(first.addr()?, last.addr()?)?);
            (from == to).then_some(Element::Own(from))?
        }
        "hairpin4" | "hairpin6" => {
            let subnet = prefix(first.addr()?, last.addr()?)?;
            let addr = first.addr()?;
            (last.addr()? == addr).then_some(Element::Hairpin { subnet, addr })?
        }
        _ => return None,
    };
    Some(element)
}

/// A published port's maps: who owns it, where it leads, and to which port unless that is kept.
struct PortSets {
    owner: &'static SetDef,
    addr: &'static SetDef,
    port: Option<&'static SetDef>,
}

/// Maps whose key has no address stand under the owner's key with the unspecified one.
const PORT_SETS: [PortSets; 8] = [
    PortSets { owner: &OWNER4, addr: &PORT_ADDR4, port: Some(&PORT_PORT4) },
    PortSets { owner: &OWNER4, addr: &HOSTPORT_ADDR4, port: Some(&HOSTPORT_PORT4) },
    PortSets { owner: &RANGE_OWNER4, addr: &RANGE_ADDR4, port: None },
    PortSets { owner: &RANGE_OWNER4, addr: &HOSTRANGE_ADDR4, port: None },
    PortSets { owner: &OWNER6, addr: &PORT_ADDR6, port: Some(&PORT_PORT6) },
    PortSets { owner: &OWNER6, addr: &HOSTPORT_ADDR6, port: Some(&HOSTPORT_PORT6) },
    PortSets { owner: &RANGE_OWNER6, addr: &RANGE_ADDR6, port: None },
    PortSets { owner: &RANGE_OWNER6, addr: &HOSTRANGE_ADDR6, port: None },
];

fn raise_ports(sets: &mut Sets, dump: &mut Dump) {
    for PortSets { owner, addr, port } in &PORT_SETS {
        for row in take(sets, addr) {
            let owners = sets.get_mut(&(owner.table, owner.name));
            let owned = owners.and_then(|rows| remove_matching(rows, addr, &row));
            let ported =
                port.map(|port| sets.get_mut(&(port.table, port.name)).and_then(|rows| same_key(rows, &row)));
            match raise_port(addr, &row, owned, ported) {
                Some(element) => dump.elements.push(element),
                None => dump.strays.push(format!("{}: {}", addr.name, hex(&row.key))),
            }
        }
    }
}

/// Questions led elsewhere: one map has the address, the other the port, under one key.
fn raise_led(sets: &mut Sets, dump: &mut Dump) {
    for (addr, port) in [(&LED_ADDR4, &LED_PORT4), (&LED_ADDR6, &LED_PORT6)] {
        for row in take(sets, addr) {
            let ported = sets.get_mut(&(port.table, port.name)).and_then(|rows| same_key(rows, &row));
            match raise_led_row(addr, &row, ported) {
                Some(element) => dump.elements.push(element),
                None => dump.strays.push(format!("{}: {}", addr.name, hex(&row.key))),
            }
        }
    }
}

fn raise_led_row(def: &SetDef, row: &Row, ported: Option<Row>) -> Option<Element> {
    let mut key = Fields { def, bytes: &row.key };
    let (bridge, asked) = (key.ifname()?, key.addr()?);
    let port = u16::from_be_bytes(*ported?.data?.first_chunk()?);
    Some(Element::Led { bridge, asked, to: SocketAddr::new(addr(row.data.as_deref()?)?, port) })
}

fn take(sets: &mut Sets, def: &SetDef) -> Vec<Row> {
    sets.remove(&(def.table, def.name)).unwrap_or_default()
}

fn same_key(rows: &mut Vec<Row>, row: &Row) -> Option<Row> {
    let at = rows.iter().position(|other| other.key == row.key && other.key_end == row.key_end)?;
    Some(rows.swap_remove(at))
}

/// Takes the owner's row of `row`, a row of the map `addr`.
fn remove_matching(rows: &mut Vec<Row>, addr: &SetDef, row: &Row) -> Option<Row> {
    let unspecified = match (addr.key.len(), addr.data) {
        (3, _) => 0,
        (_, Some(Field::V4)) => 4,
        _ => 16,
    };
    let keyed = |bytes: &[u8]| {
        let mut key = vec![0; unspecified];
        key.extend(bytes);
        key
    };
    let wanted = Row { key: keyed(&row.key), key_end: row.key_end.as_deref().map(keyed), ..row.clone() };
    same_key(rows, &wanted)
}

/// `ported`: `None` where the port is kept, `Some(None)` where the entry that says the port is missing.
fn raise_port(def: &SetDef, row: &Row, owner: Option<Row>, ported: Option<Option<Row>>) -> Option<Element> {
    let owner = u32::from_ne_bytes(*owner?.data?.first_chunk()?);
    let target = addr(row.data.as_deref()?)?;
    let mut first = Fields { def, bytes: &row.key };
    let mut last = Fields { def, bytes: row.key_end.as_ref().unwrap_or(&row.key) };
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let by_addr = def.key.len() == 3;
    let (host_addr, last_addr) = if by_addr { (first.addr()?, last.addr()?) } else { (any, any) };
    let (proto, last_proto) = (first.proto()?, last.proto()?);
    let (host_port, last_port) = (first.port()?, last.port()?);
    let count = last_port.checked_sub(host_port)?.checked_add(1)?;
    let target_port = match ported {
        None => host_port,
        Some(row) => u16::from_be_bytes(*row?.data?.first_chunk()?),
    };
    let same = host_addr == last_addr && proto == last_proto;
    let port = PublishedPort { proto, host_addr, host_port, target, target_port, count };
    same.then_some(Element::Port { port, owner })
}

/// A key being read, field by field.
struct Fields<'a> {
    def: &'a SetDef,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, field: Field) -> Option<&'a [u8]> {
        let width = if self.def.is_concat() { field.padded() } else { field.len() };
        let (value, rest) = self.bytes.split_at_checked(width)?;
        self.bytes = rest;
        value.get(..field.len())
    }

    fn ifname(&mut self) -> Option<IfName> {
        let bytes = self.take(Field::IfName)?;
        let name = bytes.split(|byte| *byte == 0).next()?;
        IfName::new(std::str::from_utf8(name).ok()?).ok()
    }

    fn mac(&mut self) -> Option<MacAddr> {
        self.take(Field::Mac)?.first_chunk().map(|bytes| MacAddr(*bytes))
    }

    fn addr(&mut self) -> Option<IpAddr> {
        let field = if self.def.key.contains(&Field::V4) { Field::V4 } else { Field::V6 };
        addr(self.take(field)?)
    }

    fn proto(&mut self) -> Option<Proto> {
        self.take(Field::Proto)?.first().and_then(|number| Proto::from_number(*number))
    }

    fn port(&mut self) -> Option<u16> {
        self.take(Field::Port)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }
}

fn addr(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => bytes.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

/// The subnet from `start` to just before `before`, or to the family's end.
fn subnet(start: &[u8], before: Option<&[u8]>) -> Option<IpNetwork> {
    let start = addr(start)?;
    let before = before.map(addr);
    let last = match (start, before) {
        (IpAddr::V4(_), None) => IpAddr::V4(Ipv4Addr::BROADCAST),
        (IpAddr::V6(_), None) => IpAddr::V6(Ipv6Addr::from(u128::MAX)),
        (IpAddr::V4(_), Some(Some(IpAddr::V4(next)))) => IpAddr::V4(u32::from(next).checked_sub(1)?.into()),
        (IpAddr::V6(_), Some(Some(IpAddr::V6(next)))) => IpAddr::V6(u128::from(next).checked_sub(1)?.into()),
        _ => return None,
    };
    prefix(start, last)
}

/// The prefix that is exactly `first` to `last`.
fn prefix(first: IpAddr, last: IpAddr) -> Option<IpNetwork> {
    let length = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (u32::from(first) ^ u32::from(last)).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (u128::from(first) ^ u128::from(last)).leading_zeros(),
        _ => return None,
    };
    let network = IpNetwork::new(first, u8::try_from(length).ok()?).ok()?;
    (network.network() == first && network.broadcast() == last).then_some(network)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
