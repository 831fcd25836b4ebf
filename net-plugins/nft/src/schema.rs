//! The sets and maps of the ruleset: one table that rendering, encoding and reading back all follow.
//!
//! Compatibility: a name is never used again with another type or meaning, because two versions of berth may work on
//! one laid ruleset during an upgrade. A change of type is a new name.

use nftables::types::NfFamily;

/// The name of both tables.
pub const TABLE: &str = "berth";

/// The two tables, one per family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Table {
    /// `inet berth`: addresses, forwarding, published ports.
    Inet,
    /// `bridge berth`: what a bridge port may send.
    Bridge,
}

impl Table {
    pub(crate) const ALL: [Self; 2] = [Self::Inet, Self::Bridge];

    /// `NFPROTO_INET` or `NFPROTO_BRIDGE` of `linux/netfilter.h`.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Bridge => 7,
        }
    }

    pub(crate) const fn family(self) -> NfFamily {
        match self {
            Self::Inet => NfFamily::INet,
            Self::Bridge => NfFamily::Bridge,
        }
    }
}

/// One field of a key, or the data of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    IfName,
    Mac,
    V4,
    V6,
    Proto,
    Port,
    Mark,
}

impl Field {
    /// Bytes of a value, without padding.
    pub(crate) const fn len(self) -> usize {
        match self {
            Self::IfName | Self::V6 => 16,
            Self::Mac => 6,
            Self::V4 | Self::Mark => 4,
            Self::Proto => 1,
            Self::Port => 2,
        }
    }

    /// Bytes of a value inside a concatenation: each field fills whole 32-bit registers.
    pub(crate) const fn padded(self) -> usize {
        self.len().next_multiple_of(4)
    }
}

/// A set or a map of the ruleset.
#[derive(Debug)]
pub(crate) struct SetDef {
    pub(crate) table: Table,
    pub(crate) name: &'static str,
    pub(crate) key: &'static [Field],
    /// Whether keys are ranges (`flags interval`).
    pub(crate) interval: bool,
    /// A map's data; a set has none.
    pub(crate) data: Option<Field>,
}

impl SetDef {
    /// Whether the key is a concatenation. The kernel keeps ranges of these in other structures and other messages.
    pub(crate) const fn is_concat(&self) -> bool {
        self.key.len() > 1
    }

    /// Bytes of a key.
    pub(crate) fn key_length(&self) -> usize {
        match self.key {
            [single] => single.len(),
            several => several.iter().map(|field| field.padded()).sum(),
        }
    }
}

impl PartialEq for SetDef {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table && self.name == other.name
    }
}

impl Eq for SetDef {}

const fn set(name: &'static str, key: &'static [Field]) -> SetDef {
    SetDef { table: Table::Inet, name, key, interval: false, data: None }
}

const fn ranges(name: &'static str, key: &'static [Field]) -> SetDef {
    SetDef { table: Table::Inet, name, key, interval: true, data: None }
}

const fn map(name: &'static str, key: &'static [Field], data: Field) -> SetDef {
    SetDef { table: Table::Inet, name, key, interval: false, data: Some(data) }
}

const fn range_map(name: &'static str, key: &'static [Field], data: Field) -> SetDef {
    SetDef { table: Table::Inet, name, key, interval: true, data: Some(data) }
}

const fn bridge_set(name: &'static str, key: &'static [Field]) -> SetDef {
    SetDef { table: Table::Bridge, name, key, interval: false, data: None }
}

macro_rules! sets {
    ($($id:ident = $def:expr;)*) => {
        $(pub(crate) static $id: SetDef = $def;)*
        /// Every set and map, in the order they are laid.
        pub(crate) static SETS: &[&SetDef] = &[$(&$id),*];
    };
}

use Field::{IfName, Mac, Mark, Port, Proto, V4, V6};

sets! {
    BRIDGES = set("bridges", &[IfName]);
    WITHIN = set("within", &[IfName, IfName]);
    INTERNAL = set("internal", &[IfName]);
    OPEN = set("open", &[IfName]);
    ROUTED = set("routed", &[IfName]);
    CLOSED_ROUTER4 = set("closed_router4", &[IfName]);
    CLOSED_ROUTER6 = set("closed_router6", &[IfName]);
    SUBNETS4 = ranges("subnets4", &[V4]);
    SUBNETS6 = ranges("subnets6", &[V6]);
    MASQ4 = ranges("masq4", &[V4]);
    MASQ6 = ranges("masq6", &[V6]);
    OWN4 = ranges("own4", &[V4, V4]);
    OWN6 = ranges("own6", &[V6, V6]);
    HAIRPIN4 = ranges("hairpin4", &[V4, V4]);
    HAIRPIN6 = ranges("hairpin6", &[V6, V6]);
    MASQ_ALL4 = set("masq_all4", &[V4]);
    MASQ_ALL6 = set("masq_all6", &[V6]);
    DNS4 = set("dns4", &[IfName, V4]);
    DNS6 = set("dns6", &[IfName, V6]);
    LED_ADDR4 = map("led_addr4", &[IfName, V4], V4);
    LED_PORT4 = map("led_port4", &[IfName, V4], Port);
    LED_ADDR6 = map("led_addr6", &[IfName, V6], V6);
    LED_PORT6 = map("led_port6", &[IfName, V6], Port);
    VTEPS4 = set("vteps4", &[V4]);
    VTEPS6 = set("vteps6", &[V6]);
    VXLAN_PORTS = set("vxlan_ports", &[Port]);
    ENCRYPTED_PORTS = set("encrypted_ports", &[Port]);
    OWNER4 = map("owner4", &[V4, Proto, Port], Mark);
    OWNER6 = map("owner6", &[V6, Proto, Port], Mark);
    PORT_ADDR4 = map("port_addr4", &[Proto, Port], V4);
    PORT_PORT4 = map("port_port4", &[Proto, Port], Port);
    PORT_ADDR6 = map("port_addr6", &[Proto, Port], V6);
    PORT_PORT6 = map("port_port6", &[Proto, Port], Port);
    HOSTPORT_ADDR4 = map("hostport_addr4", &[V4, Proto, Port], V4);
    HOSTPORT_PORT4 = map("hostport_port4", &[V4, Proto, Port], Port);
    HOSTPORT_ADDR6 = map("hostport_addr6", &[V6, Proto, Port], V6);
    HOSTPORT_PORT6 = map("hostport_port6", &[V6, Proto, Port], Port);
    RANGE_OWNER4 = range_map("range_owner4", &[V4, Proto, Port], Mark);
    RANGE_OWNER6 = range_map("range_owner6", &[V6, Proto, Port], Mark);
    RANGE_ADDR4 = range_map("range_addr4", &[Proto, Port], V4);
    RANGE_ADDR6 = range_map("range_addr6", &[Proto, Port], V6);
    HOSTRANGE_ADDR4 = range_map("hostrange_addr4", &[V4, Proto, Port], V4);
    HOSTRANGE_ADDR6 = range_map("hostrange_addr6", &[V6, Proto, Port], V6);
    GUARDED = bridge_set("guarded", &[IfName]);
    GUARDED_MAC_ONLY = bridge_set("guarded_mac_only", &[IfName]);
    TRUNK = bridge_set("trunk", &[IfName]);
    APART = bridge_set("apart", &[IfName]);
    APART_ACROSS = bridge_set("apart_across", &[IfName]);
    HOSTS_ACROSS = bridge_set("hosts_across", &[Mac]);
    ALLOWED_MAC = bridge_set("allowed_mac", &[IfName, Mac]);
    ALLOWED4 = bridge_set("allowed4", &[IfName, Mac, V4]);
    ALLOWED6 = bridge_set("allowed6", &[IfName, Mac, V6]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_names_are_unique_and_fit_the_kernel() {
        let mut seen = std::collections::BTreeSet::new();
        for def in SETS {
            assert!(seen.insert((def.table, def.name)), "{} is defined twice", def.name);
            assert!(def.name.len() < 32);
            // NFT_DATA_VALUE_MAXLEN of linux/netfilter/nf_tables.h.
            assert!(def.key.iter().map(|field| field.padded()).sum::<usize>() <= 64);
        }
    }
}
