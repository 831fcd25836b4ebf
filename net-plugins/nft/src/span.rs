//! Ranges: what a batch means for the sets that hold them, decided here and not by the kernel.
//!
//! The kernel's own check is not enough. Its tree (`nft_set_rbtree.c`) takes a range that begins before another and
//! ends with it; its lookup of concatenations (`nft_set_pipapo.c`) takes a range that encloses another, and may then
//! delete the wrong one of the two. `nft` therefore compares with what it read before. So does this module, and the
//! batch carries the generation that was read: the kernel refuses it when anything changed since.

use std::collections::BTreeMap;

use crate::lower::{Entry, Upper};
use crate::schema::{SetDef, Table};

/// The ranges of the sets that a batch touches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spans {
    sets: BTreeMap<(Table, &'static str), Vec<Entry>>,
}

/// How a change meets what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clash {
    /// The same range leads elsewhere or is owned by another.
    OtherData,
    /// Another range has a key in common with it.
    Overlap,
}

impl Spans {
    /// Enters what `set` holds now.
    pub(crate) fn insert(&mut self, set: &'static SetDef, entries: Vec<Entry>) {
        self.sets.insert((set.table, set.name), entries);
    }

    fn of(&mut self, entry: &Entry) -> &mut Vec<Entry> {
        self.sets.entry((entry.set.table, entry.set.name)).or_default()
    }

    /// Adds `entry`; that it is there already is no clash.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<(), Clash> {
        let spans = self.of(entry);
        match spans.iter().find(|other| same_range(other, entry)) {
            Some(other) if other.data == entry.data => return Ok(()),
            Some(_) => return Err(Clash::OtherData),
            None => (),
        }
        if spans.iter().any(|other| overlap(other, entry)) {
            return Err(Clash::Overlap);
        }
        spans.push(entry.clone());
        Ok(())
    }

    /// Removes `entry`; that it is not there is no clash.
    pub(crate) fn remove(&mut self, entry: &Entry) -> Result<(), Clash> {
        let spans = self.of(entry);
        let Some(at) = spans.iter().position(|other| same_range(other, entry)) else { return Ok(()) };
        if spans.get(at).is_some_and(|other| other.data != entry.data) {
            return Err(Clash::OtherData);
        }
        spans.swap_remove(at);
        Ok(())
    }

    /// The entries of `self` that `other` does not have.
    pub(crate) fn without(&self, other: &Self) -> Vec<Entry> {
        let there = |set, entry| other.sets.get(set).is_some_and(|entries| entries.contains(entry));
        let entries =
            self.sets.iter().flat_map(|(set, entries)| entries.iter().map(move |entry| (set, entry)));
        entries.filter(|(set, entry)| !there(*set, *entry)).map(|(_, entry)| entry.clone()).collect()
    }
}

fn same_range(left: &Entry, right: &Entry) -> bool {
    left.key == right.key && last(left) == last(right)
}

/// Whether the two have a key in common: in every field.
fn overlap(left: &Entry, right: &Entry) -> bool {
    let (left_last, right_last) = (last(left), last(right));
    let mut at = 0;
    left.set.key.iter().all(|field| {
        let width = if left.set.is_concat() { field.padded() } else { field.len() };
        let part = |bytes: &'_ [u8]| bytes.get(at..at + width).map(<[u8]>::to_vec);
        let meets = part(&left.key) <= part(&right_last) && part(&right.key) <= part(&left_last);
        at += width;
        meets
    })
}

/// The last key of the range.
fn last(entry: &Entry) -> Vec<u8> {
    match &entry.upper {
        Upper::None => entry.key.clone(),
        Upper::Last(last) => last.clone(),
        Upper::Open => vec![0xff; entry.key.len()],
        Upper::Before(next) => {
            let mut last = next.clone();
            for byte in last.iter_mut().rev() {
                let borrow = *byte == 0;
                *byte = byte.wrapping_sub(1);
                if !borrow {
                    break;
                }
            }
            last
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Element;
    use crate::lower::lower;
    use berth_types::{Proto, PublishedPort};

    fn subnet(text: &str) -> Entry {
        lower(&Element::Subnet(text.parse().unwrap())).unwrap().remove(0)
    }

    fn range(host: &str, first: u16, count: u16, owner: u32) -> Entry {
        let (host_addr, target) = (host.parse().unwrap(), "10.0.0.2".parse().unwrap());
        let port = PublishedPort {
            proto: Proto::Tcp,
            host_addr,
            host_port: first,
            target,
            target_port: first,
            count,
        };
        lower(&Element::Port { port, owner }).unwrap().remove(0)
    }

    #[test]
    fn every_way_to_overlap_is_seen() {
        let mut spans = Spans::default();
        spans.add(&subnet("10.0.1.0/24")).unwrap();
        spans.add(&subnet("10.0.1.0/24")).unwrap();
        for overlapping in
            ["10.0.0.0/23", "10.0.0.0/8", "0.0.0.0/0", "10.0.1.0/25", "10.0.1.128/25", "10.0.1.9/32"]
        {
            assert_eq!(spans.add(&subnet(overlapping)), Err(Clash::Overlap), "{overlapping}");
        }
        for beside in ["10.0.0.0/24", "10.0.2.0/24", "255.0.0.0/8"] {
            spans.add(&subnet(beside)).unwrap();
        }
    }

    #[test]
    fn ranges_of_ports_overlap_in_every_field_or_not_at_all() {
        let mut spans = Spans::default();
        spans.add(&range("0.0.0.0", 8000, 100, 1)).unwrap();
        spans.add(&range("192.0.2.1", 8000, 100, 1)).unwrap();
        for (first, count) in [(7000, 3000), (8099, 2), (7999, 2), (8010, 5)] {
            assert_eq!(spans.add(&range("0.0.0.0", first, count, 1)), Err(Clash::Overlap));
        }
        assert_eq!(spans.add(&range("0.0.0.0", 8000, 100, 2)), Err(Clash::OtherData));
        assert_eq!(spans.remove(&range("0.0.0.0", 8000, 100, 2)), Err(Clash::OtherData));
        assert_eq!(spans.remove(&range("0.0.0.0", 8000, 50, 2)), Ok(()));
    }

    #[test]
    fn the_difference_is_what_has_to_be_sent() {
        let mut before = Spans::default();
        before.insert(&crate::schema::SUBNETS4, vec![subnet("10.0.0.0/24"), subnet("10.0.1.0/24")]);
        let mut after = before.clone();
        after.remove(&subnet("10.0.0.0/24")).unwrap();
        after.remove(&subnet("10.0.1.0/24")).unwrap();
        after.add(&subnet("10.0.0.0/23")).unwrap();
        after.add(&subnet("10.9.0.0/24")).unwrap();
        after.remove(&subnet("10.9.0.0/24")).unwrap();
        assert_eq!(after.without(&before), [subnet("10.0.0.0/23")]);
        assert_eq!(before.without(&after), [subnet("10.0.0.0/24"), subnet("10.0.1.0/24")]);
    }
}
