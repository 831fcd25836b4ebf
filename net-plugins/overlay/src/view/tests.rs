use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_types::{BootId, ContainerId, MacAddr};
use proptest::prelude::*;

use super::*;
use crate::agent::samples;
use crate::model::{BlockState, LAYOUT, LendState, Occupant};

fn network_name(number: u8) -> NetworkName {
    NetworkName::new(format!("net{number}")).unwrap()
}

fn node_name(number: u8) -> NodeName {
    NodeName::new(format!("node{number}")).unwrap()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn node(number: u8, epoch: u64) -> Node {
    Node {
        v: LAYOUT,
        name: node_name(number),
        vtep4: Some([192, 0, 2, number].into()),
        vtep6: None,
        underlay_mtu: 1500,
        public_key: None,
        identity: format!("host{number}"),
        boot: BootId::new("boot"),
        epoch,
    }
}

fn network(number: u8, mtu: u32) -> OverlayNetwork {
    let vni = Vni::new(4096 + u32::from(number)).unwrap();
    OverlayNetwork { name: network_name(number), vni, mtu, ..samples::network("net") }
}

fn occupant(number: u8) -> Occupant {
    if number == 0 {
        return Occupant::Node;
    }
    Occupant::Container {
        id: ContainerId::new(format!("c{number}")).unwrap(),
        ifname: "eth0".parse().unwrap(),
    }
}

fn attachment(net: u8, on: u8, of: u8, addresses: &[u8], generation: u64) -> OverlayAttachment {
    OverlayAttachment {
        v: LAYOUT,
        network: network_name(net),
        of: occupant(of),
        node: node_name(on),
        epoch: 1,
        mac: MacAddr([2, 0, 0, net, on, of]),
        addresses: addresses.iter().map(|last| ip(*last)).collect(),
        names: [format!("c{of}")].into(),
        services: Box::default(),
        generation,
    }
}

fn block(net: u8, number: u8, owner: u8, sequence: u64) -> Block {
    Block {
        v: LAYOUT,
        network: network_name(net),
        cidr: format!("10.0.0.{}/28", number * 16).parse().unwrap(),
        owner: node_name(owner),
        epoch: 1,
        state: BlockState::Confirmed,
        sequence,
    }
}

fn lend(net: u8, last: u8, borrower: u8) -> Lend {
    Lend {
        v: LAYOUT,
        network: network_name(net),
        address: ip(last),
        borrower: node_name(borrower),
        of: occupant(1),
        state: LendState::Asked,
        sequence: 0,
    }
}

fn listing(entries: impl IntoIterator<Item = Entry>) -> Listing {
    Listing { revision: Revision(1), entries: entries.into_iter().collect(), foreign: Vec::new() }
}

fn put(entry: Entry) -> Vec<Change> {
    vec![Change::Put(entry)]
}

#[test]
fn of_two_records_of_one_address_the_greater_generation_is_believed_and_the_other_kept() {
    let mut view = View::default();
    let (old, new) = (attachment(0, 1, 1, &[2], 5), attachment(0, 2, 2, &[2], 6));
    view.replace(listing([Entry::Network(network(0, 1450)), Entry::Attachment(old.clone())]));
    let deltas = view.apply(Revision(2), put(Entry::Attachment(new.clone())));
    let turn = &deltas.networks[&network_name(0)].addresses[&ip(2)];
    assert_eq!((turn.before.as_deref(), turn.after.as_deref()), (Some(&old), Some(&new)));
    let holders = view.network(&network_name(0)).unwrap().holders(ip(2)).unwrap();
    assert_eq!((&**holders.believed(), &*holders.others()[0]), (&new, &old));
    let deltas = view.apply(Revision(3), vec![Change::Gone(new.key())]);
    let turn = &deltas.networks[&network_name(0)].addresses[&ip(2)];
    assert_eq!((turn.before.as_deref(), turn.after.as_deref()), (Some(&new), Some(&old)));
    assert_eq!(view.network(&network_name(0)).unwrap().conflicts().count(), 0);
}

#[test]
fn a_node_without_presence_is_suspect_and_keeps_its_attachments() {
    let mut view = View::default();
    let entries =
        [Entry::Node(node(1, 1)), Entry::Known(node(1, 1)), Entry::Attachment(attachment(0, 1, 1, &[2], 5))];
    view.replace(listing(entries.clone().into_iter().chain([Entry::Network(network(0, 1450))])));
    assert_eq!(view.node(&node_name(1)).unwrap().status(), NodeStatus::Alive);
    let deltas = view.apply(Revision(2), vec![Change::Gone(EntryKey::Node(node_name(1)))]);
    let turn = &deltas.nodes[&node_name(1)];
    assert_eq!(turn.before.as_ref().unwrap().status(), NodeStatus::Alive);
    assert_eq!(turn.after.as_ref().unwrap().status(), NodeStatus::Suspect);
    assert!(deltas.networks.is_empty());
    assert_eq!(view.node(&node_name(1)).unwrap().node().unwrap().vtep4, node(1, 1).vtep4);
    assert_eq!(view.attachments_of(&node_name(1)).count(), 1);
}

#[test]
fn what_a_listing_lacks_is_gone_and_what_it_repeats_is_no_change() {
    let mut view = View::default();
    let kept = Entry::Attachment(attachment(0, 1, 1, &[2, 3], 5));
    let network = Entry::Network(network(0, 1450));
    let gone = Entry::Attachment(attachment(0, 1, 2, &[4], 5));
    view.replace(listing([network.clone(), kept.clone(), gone.clone(), Entry::Block(block(0, 1, 1, 1))]));
    let deltas = view.replace(listing([network, kept]));
    let delta = &deltas.networks[&network_name(0)];
    assert_eq!(delta.attachments.keys().collect::<Vec<_>>(), [&gone.key()]);
    assert_eq!(delta.addresses.keys().collect::<Vec<_>>(), [&ip(4)]);
    assert_eq!((delta.blocks.len(), &delta.record), (1, &None));
}

#[test]
fn what_cannot_be_read_any_more_stays_as_it_was_until_it_is_gone() {
    let mut view = View::default();
    let entry = Entry::Network(network(0, 1450));
    let foreign =
        Foreign { key: "nets/net0".to_owned(), entry: Some(entry.key()), why: "no JSON".to_owned() };
    view.replace(listing([entry.clone()]));
    assert!(view.apply(Revision(2), vec![Change::Foreign(foreign.clone())]).is_empty());
    assert!(view.replace(Listing { foreign: vec![foreign.clone()], ..listing([]) }).is_empty());
    assert_eq!(view.foreign().collect::<Vec<_>>(), [&foreign]);
    assert!(view.network(&network_name(0)).is_some());
    let deltas = view.apply(Revision(3), vec![Change::Gone(entry.key())]);
    assert!(deltas.networks[&network_name(0)].record.is_some());
    assert_eq!((view.networks().count(), view.foreign().count()), (0, 0));
    let other = Foreign { key: "x".to_owned(), entry: None, why: "no record's key".to_owned() };
    view.apply(Revision(4), vec![Change::Foreign(other.clone())]);
    assert_eq!(view.foreign().count(), 1);
    view.apply(Revision(5), vec![Change::ForeignGone(other.key)]);
    assert_eq!(view.foreign().count(), 0);
}

#[test]
fn a_generation_is_greater_than_any_seen_whatever_the_clock_says() {
    let mut view = View::default();
    assert_eq!(view.next_generation(1_000), 1_000);
    view.replace(listing([Entry::Attachment(attachment(0, 1, 1, &[2], 5_000))]));
    assert_eq!(view.next_generation(1_000), 5_001);
}

#[test]
fn attachments_without_a_network_are_on_no_network() {
    let mut view = View::default();
    view.replace(listing([Entry::Attachment(attachment(0, 1, 1, &[2], 5))]));
    assert!(view.network(&network_name(0)).is_none());
    assert_eq!(view.attachments_of(&node_name(1)).count(), 1);
    view.apply(Revision(2), put(Entry::Network(network(0, 1450))));
    assert_eq!(view.network(&network_name(0)).unwrap().attachments().count(), 1);
    assert_eq!(view.network_of_vni(Vni::new(4096).unwrap()).unwrap().name, network_name(0));
}

fn entries() -> impl Strategy<Value = Entry> {
    let small = || 0_u8..3;
    prop_oneof![
        (small(), 1_u64..3).prop_map(|(number, epoch)| Entry::Node(node(number, epoch))),
        (small(), 1_u64..3).prop_map(|(number, epoch)| Entry::Known(node(number, epoch))),
        (small(), 1400_u32..1402).prop_map(|(number, mtu)| Entry::Network(network(number, mtu))),
        (small(), small(), small(), prop::collection::vec(2_u8..6, 0..3), 1_u64..4).prop_map(
            |(net, on, of, addresses, generation)| Entry::Attachment(attachment(
                net, on, of, &addresses, generation
            ))
        ),
        (small(), small(), small(), 1_u64..3)
            .prop_map(|(net, number, owner, sequence)| Entry::Block(block(net, number, owner, sequence))),
        (small(), 2_u8..6, small()).prop_map(|(net, last, borrower)| Entry::Lend(lend(net, last, borrower))),
    ]
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => entries().prop_map(Change::Put),
        1 => entries().prop_map(|entry| Change::Gone(entry.key())),
    ]
}

/// The believed holder of each address of each network.
fn believed(view: &View) -> BTreeMap<(NetworkName, IpAddr), OverlayAttachment> {
    let of = |(name, network): (&NetworkName, &NetworkView)| {
        let name = name.clone();
        let all = network
            .believed()
            .map(|(address, holder)| ((name.clone(), address), OverlayAttachment::clone(holder)));
        all.collect::<Vec<_>>()
    };
    view.networks.iter().flat_map(of).collect()
}

fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by_key(Entry::key);
    entries
}

proptest! {
    #[test]
    fn changes_applied_are_the_listing_of_the_result(batches in prop::collection::vec(prop::collection::vec(changes(), 0..8), 0..8)) {
        let mut model: BTreeMap<EntryKey, Entry> = BTreeMap::new();
        let mut view = View::default();
        let mut disk: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (number, batch) in batches.into_iter().enumerate() {
            for change in &batch {
                match change {
                    Change::Put(entry) => drop(model.insert(entry.key(), entry.clone())),
                    Change::Gone(key) => drop(model.remove(key)),
                    Change::Foreign(_) | Change::ForeignGone(_) => (),
                }
            }
            let before = view.clone();
            let revision = Revision(i64::try_from(number).unwrap() + 1);
            let deltas = view.apply(revision, batch);

            let mut listed = View::default();
            listed.replace(listing(model.values().cloned()));
            prop_assert_eq!(&view.nodes, &listed.nodes);
            prop_assert_eq!(&view.networks, &listed.networks);
            prop_assert_eq!(sorted(view.entries()), model.values().cloned().collect::<Vec<_>>());

            // What is written down of the deltas leads there too.
            for (path, value) in deltas.records() {
                match value {
                    Some(value) => drop(disk.insert(path, value)),
                    None => prop_assert!(disk.remove(&path).is_some(), "{} was not there", path),
                }
            }
            let written: BTreeMap<String, Vec<u8>> =
                model.values().map(|entry| (entry.key().path(), entry.value())).collect();
            prop_assert_eq!(&disk, &written);

            // The deltas lead from the one to the other, say nothing that is not so, and are what a new listing would say.
            let mut followed = believed(&before);
            for (name, delta) in &deltas.networks {
                for (address, turn) in &delta.addresses {
                    let key = (name.clone(), *address);
                    prop_assert_eq!(followed.get(&key), turn.before.as_deref());
                    prop_assert_ne!(&turn.before, &turn.after);
                    match &turn.after {
                        Some(after) => drop(followed.insert(key, OverlayAttachment::clone(after))),
                        None => drop(followed.remove(&key)),
                    }
                }
            }
            prop_assert_eq!(followed, believed(&view));
            let mut relisted = before;
            let same = relisted.replace(Listing { revision, ..listing(model.values().cloned()) });
            prop_assert_eq!(same, deltas);
        }
    }
}

/// Resident memory of this process, KiB.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4
}

#[test]
fn ten_thousand_attachments_fit_into_a_part_of_the_agents_memory() {
    let before = resident();
    let mut view = View::default();
    let many = (0..10_000_u32).map(|number| {
        let [_, _, high, low] = number.to_be_bytes();
        let id = ContainerId::new(format!("{number:064x}")).unwrap();
        Change::Put(Entry::Attachment(OverlayAttachment {
            of: Occupant::Container { id, ifname: "eth0".parse().unwrap() },
            addresses: [IpAddr::from([10, 1, high, low])].into(),
            names: [format!("service-{number}")].into(),
            ..attachment(0, 1, 1, &[], u64::from(number))
        }))
    });
    for change in many {
        view.apply(Revision(1), vec![change]);
    }
    let grown = resident().saturating_sub(before);
    assert_eq!(view.attachments_of(&node_name(1)).count(), 10_000);
    assert!(grown < 18_000, "10,000 attachments take {grown} KiB");
}
