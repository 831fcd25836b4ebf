//! Differences, without a kernel but a model of one.

use proptest::prelude::*;

use super::*;

const DEVICE: Device = Device { vxlan: 8, bridge: 7 };

fn mac(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number])
}

fn vtep(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn addr(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

fn entry(mac: MacAddr, vtep: Option<IpAddr>, table: FdbTable, state: FdbState) -> FdbEntry {
    FdbEntry { index: DEVICE.vxlan, mac, vtep, table, state }
}

fn neigh(number: u8, to: u8, permanent: bool) -> Neigh {
    Neigh { index: DEVICE.bridge, addr: addr(number), mac: Some(mac(to)), permanent }
}

/// One remote attachment.
fn desired() -> Desired {
    Desired {
        fdb: BTreeMap::from([(mac(2), vtep(2))]),
        neighs: BTreeMap::from([(addr(2), mac(2))]),
        flood: BTreeSet::new(),
        vteps: BTreeSet::from([vtep(2)]),
        node_macs: BTreeSet::new(),
    }
}

/// The kernel as it should be, with what it puts there itself.
fn seen() -> Seen {
    Seen {
        fdb: vec![
            entry(mac(2), Some(vtep(2)), FdbTable::Link, FdbState::Static),
            entry(mac(2), None, FdbTable::Bridge, FdbState::Static),
            entry(mac(9), None, FdbTable::Bridge, FdbState::Permanent),
        ],
        neighs: vec![neigh(2, 2, true), neigh(7, 7, false)],
    }
}

fn shown(differences: &Differences) -> Vec<String> {
    differences.changes.iter().map(|change| format!("{change:?}")).collect()
}

#[test]
fn a_kernel_that_is_right_is_left_alone() {
    assert_eq!(diff(&desired(), &seen(), DEVICE), Differences::default());
    let all = diff(&desired(), &Seen::default(), DEVICE);
    assert_eq!(
        (all.missing, all.wrong, all.stray, all.changes.len()),
        (2, 0, 0, 2),
        "both tables by one request"
    );
    let none = diff(&Desired::default(), &seen(), DEVICE);
    assert_eq!((none.missing, none.wrong, none.stray), (0, 0, 3));
}

#[test]
fn each_kind_of_damage_is_put_right_and_nothing_else() {
    let replaced = |at: usize, by: FdbEntry| {
        let mut seen = seen();
        seen.fdb[at] = by;
        seen
    };
    let without = |at: usize| {
        let mut seen = seen();
        seen.fdb.remove(at);
        seen
    };
    let with = |entry: FdbEntry| {
        let mut seen = seen();
        seen.fdb.push(entry);
        seen
    };
    let neighs = |neighs: Vec<Neigh>| Seen { neighs, ..seen() };
    let own = |to| entry(mac(2), Some(vtep(to)), FdbTable::Link, FdbState::Static);
    let cases = [
        ("another tunnel end", replaced(0, own(3)), (0, 1, 0), "FdbReplace(FdbSpec", "Both"),
        ("the device's entry is gone", without(0), (0, 1, 0), "FdbReplace(FdbSpec", "Both"),
        ("the bridge's entry is gone", without(1), (1, 0, 0), "FdbReplace(FdbSpec", "table: Bridge"),
        (
            "the bridge's entry ages",
            replaced(1, entry(mac(2), None, FdbTable::Bridge, FdbState::Ageing)),
            (0, 1, 0),
            "FdbReplace(FdbSpec",
            "table: Bridge",
        ),
        ("a second tunnel end", with(own(4)), (0, 0, 1), "FdbDel(FdbSpec", "192.0.2.4"),
        (
            "somebody's entry",
            with(entry(mac(5), Some(vtep(5)), FdbTable::Link, FdbState::Permanent)),
            (0, 0, 1),
            "FdbDel(FdbSpec",
            "table: Link",
        ),
        (
            "something learned",
            with(entry(mac(5), None, FdbTable::Bridge, FdbState::Ageing)),
            (0, 0, 1),
            "FdbDel(FdbSpec",
            "table: Bridge",
        ),
        (
            "somebody floods",
            with(entry(ALL_ZEROS, Some(vtep(6)), FdbTable::Link, FdbState::Permanent)),
            (0, 0, 1),
            "FdbDel(FdbSpec",
            "192.0.2.6",
        ),
        ("the neighbour is gone", neighs(vec![]), (1, 0, 0), "NeighReplace", "10.0.0.2"),
        ("the neighbour ages", neighs(vec![neigh(2, 2, false)]), (0, 1, 0), "NeighReplace", "10.0.0.2"),
        ("the neighbour is another", neighs(vec![neigh(2, 5, true)]), (0, 1, 0), "NeighReplace", "10.0.0.2"),
        (
            "somebody's neighbour",
            neighs(vec![neigh(2, 2, true), neigh(3, 3, true)]),
            (0, 0, 1),
            "NeighDel",
            "10.0.0.3",
        ),
    ];
    for (what, seen, counts, change, about) in cases {
        let found = diff(&desired(), &seen, DEVICE);
        assert_eq!((found.missing, found.wrong, found.stray), counts, "{what}");
        let changes = shown(&found);
        assert_eq!(changes.len(), 1, "{what}: {changes:?}");
        assert!(changes[0].starts_with(change) && changes[0].contains(about), "{what}: {changes:?}");
    }
}

#[test]
fn a_network_that_floods_has_each_tunnel_end_once() {
    let desired = Desired { flood: BTreeSet::from([vtep(2), vtep(3)]), ..desired() };
    let mut seen = seen();
    seen.fdb.push(entry(ALL_ZEROS, Some(vtep(2)), FdbTable::Link, FdbState::Static));
    let found = diff(&desired, &seen, DEVICE);
    let spec = FdbSpec { index: 8, mac: ALL_ZEROS, vtep: Some(vtep(3)), table: FdbTable::Link };
    assert_eq!(found.changes, [EntryChange::FdbAppend(spec)]);
}

/// The kernel's tables, as the changes act on them.
fn applied(mut seen: Seen, changes: &[EntryChange]) -> Seen {
    for change in changes {
        match change {
            EntryChange::FdbReplace(spec) => {
                if spec.table != FdbTable::Link {
                    seen.fdb.retain(|entry| !(entry.mac == spec.mac && entry.table == FdbTable::Bridge));
                    seen.fdb.push(entry(spec.mac, None, FdbTable::Bridge, FdbState::Static));
                }
                if spec.table != FdbTable::Bridge {
                    let own = |entry: &FdbEntry| entry.mac == spec.mac && entry.table == FdbTable::Link;
                    // Replacing changes the first of several, unless the right one is among them (`vxlan_fdb_replace`).
                    if !seen.fdb.iter().any(|entry| own(entry) && entry.vtep == spec.vtep) {
                        if let Some(at) = seen.fdb.iter().position(own) {
                            seen.fdb.remove(at);
                        }
                        seen.fdb.push(entry(spec.mac, spec.vtep, FdbTable::Link, FdbState::Static));
                    }
                }
            }
            EntryChange::FdbAppend(spec) => {
                seen.fdb.push(entry(spec.mac, spec.vtep, FdbTable::Link, FdbState::Static));
            }
            EntryChange::FdbDel(spec) => seen.fdb.retain(|entry| {
                let meant = entry.mac == spec.mac && entry.table == spec.table;
                !meant || (spec.vtep.is_some() && entry.vtep != spec.vtep)
            }),
            EntryChange::NeighReplace(spec) => {
                seen.neighs.retain(|neigh| neigh.addr != spec.addr);
                let (index, addr, mac) = (spec.index, spec.addr, Some(spec.mac));
                seen.neighs.push(Neigh { index, addr, mac, permanent: true });
            }
            EntryChange::NeighDel { addr, .. } => seen.neighs.retain(|neigh| neigh.addr != *addr),
        }
    }
    seen
}

fn any_entry() -> impl Strategy<Value = FdbEntry> {
    let state = prop_oneof![Just(FdbState::Permanent), Just(FdbState::Static), Just(FdbState::Ageing)];
    (0_u8..6, proptest::option::of(1_u8..5), any::<bool>(), state).prop_map(|(number, to, own, state)| {
        let mac = if number == 0 && own { ALL_ZEROS } else { mac(number) };
        if own {
            entry(mac, to.map(vtep), FdbTable::Link, state)
        } else {
            entry(mac, None, FdbTable::Bridge, state)
        }
    })
}

fn any_neigh() -> impl Strategy<Value = Neigh> {
    (0_u8..6, 0_u8..6, any::<bool>()).prop_map(|(number, to, permanent)| neigh(number, to, permanent))
}

fn any_desired() -> impl Strategy<Value = Desired> {
    let fdb = proptest::collection::btree_map((1_u8..6).prop_map(mac), (1_u8..5).prop_map(vtep), 0..5);
    let neighs = proptest::collection::btree_map((1_u8..6).prop_map(addr), (1_u8..6).prop_map(mac), 0..5);
    let flood = proptest::collection::btree_set((1_u8..5).prop_map(vtep), 0..3);
    (fdb, neighs, flood).prop_map(|(fdb, neighs, flood)| Desired {
        fdb,
        neighs,
        vteps: flood.clone(),
        node_macs: BTreeSet::new(),
        flood,
    })
}

proptest! {
    /// Whatever the kernel holds, after the changes nothing differs.
    #[test]
    fn whatever_was_there_nothing_differs_afterwards(
        fdb in proptest::collection::vec(any_entry(), 0..12),
        neighs in proptest::collection::vec(any_neigh(), 0..6),
        desired in any_desired(),
    ) {
        // A table has an address once; only the device's own has several tunnel ends of one.
        let mut unique: Vec<FdbEntry> = Vec::new();
        for entry in fdb {
            let twice = |had: &FdbEntry| had.mac == entry.mac && had.table == entry.table
                && (entry.table == FdbTable::Bridge || had.vtep == entry.vtep);
            if !unique.iter().any(twice) {
                unique.push(entry);
            }
        }
        let by_addr: BTreeMap<IpAddr, Neigh> = neighs.into_iter().map(|neigh| (neigh.addr, neigh)).collect();
        let seen = Seen { fdb: unique, neighs: by_addr.into_values().collect() };
        // What is an address of the device itself is none of a remote attachment's.
        let own = |mac: &MacAddr| seen.fdb.iter().any(|entry| {
            entry.mac == *mac && entry.table == FdbTable::Bridge && entry.state == FdbState::Permanent
        });
        prop_assume!(!desired.fdb.keys().any(own));
        let after = applied(seen.clone(), &diff(&desired, &seen, DEVICE).changes);
        prop_assert_eq!(diff(&desired, &after, DEVICE), Differences::default());
    }
}
