//! Where each record stands below the cluster's prefix, and what is read there.
//!
//! ```text
//! nodes/NODE                        a node that is there, on a lease
//! known/NODE                        what it last said of itself
//! epoch/NODE                        its epoch, which fences what it wrote in an earlier one
//! nets/NETWORK                      a network
//! idx/vni/VNI, idx/cidr/ADDR-LEN    whose a VNI or a subnet is
//! idx/gen                           changes with each network: subnets that overlap without being equal have no key to meet at
//! blk/NETWORK/ADDR-LEN              a block
//! lend/NETWORK/ADDRESS              a single address
//! ep/NETWORK/c/NODE/CONTAINER/IF    a container's attachment
//! ep/NETWORK/n/NODE                 a node's own address
//! addr/NETWORK/ADDRESS              whose an address is
//! ```
//!
//! All records lie between `WATCHED`'s ends and `addr/` lies outside, so that one watch tells of each attachment once.

use std::net::IpAddr;

use berth_types::{NetworkName, NodeName, Vni};
use ipnetwork::IpNetwork;
use serde::de::DeserializeOwned;

use super::{Entry, EntryKey, Foreign};
use crate::model::{LAYOUT, Occupant};

/// The range that is listed and watched: from the first, to the second excluded.
pub(crate) const WATCHED: (&str, &str) = ("blk/", "nodes0");

/// The key that changes with each network.
pub(crate) const NETWORKS_CHANGED: &str = "idx/gen";

/// No record of ours is larger; what is, is not read.
const LARGEST: usize = 64 << 10;

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A record.
    Entry(Entry),
    /// An index, for transactions only.
    Index,
    /// Something else.
    Foreign(Foreign),
}

impl EntryKey {
    /// The key, below the cluster's prefix.
    pub fn path(&self) -> String {
        match self {
            Self::Node(node) => format!("nodes/{node}"),
            Self::Known(node) => format!("known/{node}"),
            Self::Network(network) => format!("{NETWORKS}{network}"),
            Self::Attachment(network, node, Occupant::Node) => format!("ep/{network}/n/{node}"),
            Self::Attachment(network, node, Occupant::Container { id, ifname }) => {
                format!("ep/{network}/c/{node}/{id}/{ifname}")
            }
            Self::Block(network, cidr) => format!("blk/{network}/{}", cidr_text(*cidr)),
            Self::Lend(network, address) => format!("lend/{network}/{address}"),
        }
    }

    /// Reads [`EntryKey::path`]; `None` if `path` is no record's.
    pub fn of_path(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        let key = match *parts.as_slice() {
            ["nodes", node] => Self::Node(node.parse().ok()?),
            ["known", node] => Self::Known(node.parse().ok()?),
            ["nets", network] => Self::Network(network.parse().ok()?),
            ["ep", network, "n", node] => {
                Self::Attachment(network.parse().ok()?, node.parse().ok()?, Occupant::Node)
            }
            ["ep", network, "c", node, id, ifname] => {
                let of = Occupant::Container { id: id.parse().ok()?, ifname: ifname.parse().ok()? };
                Self::Attachment(network.parse().ok()?, node.parse().ok()?, of)
            }
            ["blk", network, cidr] => Self::Block(network.parse().ok()?, cidr_of(cidr)?),
            ["lend", network, address] => Self::Lend(network.parse().ok()?, address.parse().ok()?),
            _ => return None,
        };
        // One record, one key: `10.0.0.1-28` and `010.0.0.0-28` are none.
        (key.path() == path).then_some(key)
    }
}

impl Entry {
    /// What is written under [`EntryKey::path`].
    pub fn value(&self) -> Vec<u8> {
        let json = match self {
            Self::Node(node) | Self::Known(node) => serde_json::to_vec(node),
            Self::Network(network) => serde_json::to_vec(network),
            Self::Attachment(attachment) => serde_json::to_vec(attachment),
            Self::Block(block) => serde_json::to_vec(block),
            Self::Lend(lend) => serde_json::to_vec(lend),
        };
        json.expect("records have no keys that are not text, the only thing JSON refuses")
    }
}

/// Reads what stands under `path`.
pub fn read(path: &str, value: &[u8]) -> Read {
    if is_index(path) {
        return Read::Index;
    }
    let Some(key) = EntryKey::of_path(path) else {
        return foreign(path, None, "no record of berth's stands under such a key".to_owned());
    };
    match parse(&key, value) {
        Ok(entry) if entry.key() == key => Read::Entry(entry),
        Ok(entry) => {
            let why = format!("it is the record of `{}`", entry.key().path());
            foreign(path, Some(key), why)
        }
        Err(why) => foreign(path, Some(key), why),
    }
}

/// What it means that `path` is gone: a record, or something foreign; nothing for an index.
pub(crate) fn gone(path: &str) -> Option<super::Change> {
    if is_index(path) {
        return None;
    }
    let key = EntryKey::of_path(path).map(super::Change::Gone);
    Some(key.unwrap_or_else(|| super::Change::ForeignGone(path.to_owned())))
}

fn foreign(path: &str, entry: Option<EntryKey>, why: String) -> Read {
    let key: String = path.chars().take(300).collect();
    Read::Foreign(Foreign { key, entry, why })
}

fn is_index(path: &str) -> bool {
    ["epoch/", "idx/", "addr/"].iter().any(|prefix| path.starts_with(prefix))
}

fn parse(key: &EntryKey, value: &[u8]) -> Result<Entry, String> {
    if value.len() > LARGEST {
        return Err(format!("it has {} bytes; no record has more than {LARGEST}", value.len()));
    }
    match key {
        EntryKey::Node(_) => record(value).map(Entry::Node),
        EntryKey::Known(_) => record(value).map(Entry::Known),
        EntryKey::Network(_) => record(value).map(Entry::Network),
        EntryKey::Attachment(..) => record(value).map(Entry::Attachment),
        EntryKey::Block(..) => record(value).map(Entry::Block),
        EntryKey::Lend(..) => record(value).map(Entry::Lend),
    }
}

/// Reads a record of a layout that is known.
pub(crate) fn record<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    #[derive(serde::Deserialize)]
    struct Layout {
        v: u32,
    }
    let Layout { v } = serde_json::from_slice(value).map_err(|err| err.to_string())?;
    if v > LAYOUT {
        return Err(format!("a later version wrote it (layout {v}; this one knows {LAYOUT})"));
    }
    serde_json::from_slice(value).map_err(|err| err.to_string())
}

pub(crate) fn epoch(node: &NodeName) -> String {
    format!("epoch/{node}")
}

pub(crate) fn vni(vni: Vni) -> String {
    format!("idx/vni/{vni}")
}

pub(crate) fn cidr(cidr: IpNetwork) -> String {
    format!("idx/cidr/{}", cidr_text(cidr))
}

pub(crate) fn address(network: &NetworkName, address: IpAddr) -> String {
    format!("addr/{network}/{address}")
}

/// Below it are the networks' records.
pub const NETWORKS: &str = "nets/";

/// Where all container attachments of a network are.
pub(crate) fn containers(network: &NetworkName) -> String {
    format!("ep/{network}/c/")
}

fn cidr_text(cidr: IpNetwork) -> String {
    format!("{}-{}", cidr.network(), cidr.prefix())
}

fn cidr_of(text: &str) -> Option<IpNetwork> {
    let (network, prefix) = text.rsplit_once('-')?;
    IpNetwork::new(network.parse().ok()?, prefix.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_of_every_kind_are_read_back() {
        for path in [
            "nodes/n1",
            "known/n1.example",
            "nets/blue",
            "ep/blue/n/n1",
            "ep/blue/c/n1/0123abc/eth0",
            "blk/blue/10.0.0.16-28",
            "blk/blue/fd00::-120",
            "lend/blue/10.0.0.5",
            "lend/blue/fd00::5",
        ] {
            assert_eq!(EntryKey::of_path(path).unwrap().path(), path);
            assert!((WATCHED.0..WATCHED.1).contains(&path), "{path} is not watched");
        }
        assert!(!(WATCHED.0..WATCHED.1).contains(&"addr/blue/10.0.0.5"));
    }

    #[test]
    fn one_record_has_one_key() {
        for path in [
            "",
            "nodes/",
            "nodes/a/b",
            "nodes/ü",
            "blk/blue/10.0.0.17-28",
            "blk/blue/10.0.0.0-33",
            "lend/blue/x",
        ] {
            assert_eq!(EntryKey::of_path(path), None, "{path}");
        }
        assert_eq!(EntryKey::of_path("lend/blue/fd00:0::5"), None);
    }

    #[test]
    fn what_is_no_record_is_reported_with_the_reason() {
        let why = |path: &str, value: &str| match read(path, value.as_bytes()) {
            Read::Foreign(foreign) => foreign.why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why("hello", "{}"), "no record of berth's stands under such a key");
        assert_eq!(why("nets/blue", "{}"), "missing field `v` at line 1 column 2");
        assert!(why("nets/blue", r#"{"v":1}"#).starts_with("missing field `name`"));
        assert_eq!(why("nets/blue", r#"{"v":2}"#), "a later version wrote it (layout 2; this one knows 1)");
        assert!(why("nets/blue", &"x".repeat(70_000)).starts_with("it has 70000 bytes"));
        let block = r#"{"v":1,"network":"red","cidr":"10.0.0.0/28","owner":"n1","epoch":1,"state":"pending","sequence":1}"#;
        assert_eq!(why("blk/blue/10.0.0.0-28", block), "it is the record of `blk/red/10.0.0.0-28`");
        assert!(matches!(read("blk/red/10.0.0.0-28", block.as_bytes()), Read::Entry(Entry::Block(_))));
        assert_eq!(read("idx/gen", b"x"), Read::Index);
    }

    proptest! {
        #[test]
        fn any_bytes_under_any_key_are_read_without_a_panic(path in ".{0,40}", kind in 0_usize..7, value in prop::collection::vec(any::<u8>(), 0..60)) {
            let known = ["nodes/n", "known/n", "nets/a", "ep/a/n/n", "blk/a/10.0.0.0-28", "lend/a/10.0.0.1", "ep/a/c/n/c/e"];
            let _ = read(&path, &value);
            prop_assert!(matches!(read(known[kind], &value), Read::Foreign(_)), "random bytes are no record");
        }
    }
}
