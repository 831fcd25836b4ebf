//! Blocks: what is claimed, fetched early, given back and borrowed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::blocks::{
    IDLE, LOST_AFTER, LOST_STEP, LocalPoolError, LocalSubnet, OwnBlock, Stage, Step, SubnetState,
    block_around, block_length, borrowable, is_lost, local_pool, next_block, plan, usable,
};
use common::{Host, requesting, texts};
use ipnetwork::IpNetwork;
use proptest::prelude::*;

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn open(cidr: &str, used: u128) -> OwnBlock {
    OwnBlock { cidr: net(cidr), stage: Stage::Open, used, idle: None }
}

/// 10.0.0.0/24 with its blocks of 16.
fn state<'a>(own: &'a [OwnBlock], taken: &'a BTreeSet<IpNetwork>, seed: u64) -> SubnetState<'a> {
    SubnetState { subnet: net("10.0.0.0/24"), length: 28, gateway: ip("10.0.0.1"), own, taken, seed }
}

fn taken(own: &[OwnBlock]) -> BTreeSet<IpNetwork> {
    own.iter().map(|block| block.cidr).collect()
}

fn planned(own: &[OwnBlock]) -> Vec<Step> {
    plan(&state(own, &taken(own), 1))
}

#[test]
fn blocks_are_as_large_as_their_subnet_allows() {
    for (subnet, length) in [
        ("10.0.0.0/8", 26),
        ("10.0.0.0/16", 26),
        ("10.0.0.0/22", 27),
        ("10.0.0.0/24", 28),
        ("10.0.0.0/25", 27),
        ("10.0.0.0/28", 30),
        ("10.0.0.0/29", 29),
        ("fd00::/64", 120),
        ("fd00::/120", 124),
        ("fd00::/126", 126),
    ] {
        assert_eq!(block_length(net(subnet)), length, "{subnet}");
    }
    assert_eq!(block_around(net("10.0.0.0/24"), 28, ip("10.0.0.77")), Some(net("10.0.0.64/28")));
    assert_eq!(block_around(net("10.0.0.0/24"), 28, ip("10.0.1.77")), None);
    assert_eq!(block_around(net("fd00::/64"), 120, ip("fd00::1ff")), Some(net("fd00::100/120")));
}

#[test]
fn the_gateway_and_the_subnets_own_addresses_are_nobodys() {
    let usable = |block: &str| usable(net("10.0.0.0/24"), ip("10.0.0.1"), net(block));
    assert_eq!([usable("10.0.0.0/28"), usable("10.0.0.16/28"), usable("10.0.0.240/28")], [14, 16, 15]);
}

#[test]
fn the_next_block_is_fetched_at_three_quarters_and_none_before() {
    assert_eq!(planned(&[]), [Step::Claim(net("10.0.0.16/28"))]);
    assert_eq!(planned(&[open("10.0.0.16/28", 11)]), []);
    assert_eq!(planned(&[open("10.0.0.16/28", 12)]), [Step::Claim(net("10.0.0.32/28"))]);
    assert_eq!(planned(&[open("10.0.0.16/28", 16), open("10.0.0.32/28", 7)]), []);
    assert_eq!(
        planned(&[open("10.0.0.16/28", 16), open("10.0.0.32/28", 8)]),
        [Step::Claim(net("10.0.0.48/28"))]
    );
    // One that is being fetched is enough.
    let fetching = OwnBlock { stage: Stage::Pending, ..open("10.0.0.32/28", 0) };
    assert_eq!(planned(&[open("10.0.0.16/28", 16), fetching]), []);
}

#[test]
fn an_idle_block_is_given_back_but_never_the_last_one() {
    let idle = |cidr: &str| OwnBlock { idle: Some(IDLE), ..open(cidr, 0) };
    let young = OwnBlock { idle: Some(IDLE - Duration::from_secs(1)), ..idle("10.0.0.32/28") };
    assert_eq!(planned(&[idle("10.0.0.16/28")]), []);
    assert_eq!(planned(&[open("10.0.0.16/28", 3), young]), []);
    assert_eq!(planned(&[open("10.0.0.16/28", 8), idle("10.0.0.32/28")]), [Step::Drain(net("10.0.0.32/28"))]);
    // It would be fetched again soon.
    assert_eq!(planned(&[open("10.0.0.16/28", 9), idle("10.0.0.32/28")]), []);
    assert_eq!(planned(&[idle("10.0.0.16/28"), idle("10.0.0.32/28")]), [Step::Drain(net("10.0.0.32/28"))]);
    let drained = OwnBlock { stage: Stage::Draining, ..open("10.0.0.32/28", 0) };
    assert_eq!(planned(&[open("10.0.0.16/28", 3), drained]), [Step::GiveBack(net("10.0.0.32/28"))]);
    let draining = OwnBlock { used: 1, ..drained };
    assert_eq!(planned(&[open("10.0.0.16/28", 3), draining]), []);
}

#[test]
fn a_subnet_with_no_free_block_is_short_only_when_all_is_given() {
    let all: BTreeSet<IpNetwork> = (0..16).map(|n| net(&format!("10.0.0.{}/28", n * 16))).collect();
    assert_eq!(plan(&state(&[open("10.0.0.16/28", 15)], &all, 0)), []);
    assert_eq!(plan(&state(&[open("10.0.0.16/28", 16)], &all, 0)), [Step::Short]);
    assert_eq!(plan(&state(&[], &all, 0)), [Step::Short]);
}

#[test]
fn addresses_are_borrowed_from_above_and_from_each_in_turn() {
    let (own, taken) = ([], BTreeSet::new());
    let state = state(&own, &taken, 0);
    let others = [net("10.0.0.0/28"), net("10.0.0.240/28")];
    let used = |address: IpAddr| address == ip("10.0.0.14");
    let wanted = borrowable(&state, &others, used, 4);
    assert_eq!(wanted, ["10.0.0.15", "10.0.0.254", "10.0.0.13", "10.0.0.253"].map(ip));
    let all = borrowable(&state, &others, |_| false, 100);
    assert_eq!(all.len(), 14 + 15);
}

#[test]
fn one_node_after_the_other_reclaims_what_a_lost_one_has() {
    assert!(!is_lost(LOST_AFTER - Duration::from_secs(1), LOST_AFTER, 0));
    assert!(is_lost(LOST_AFTER, LOST_AFTER, 0));
    assert!(!is_lost(LOST_AFTER, LOST_AFTER, 1));
    assert!(is_lost(LOST_AFTER + LOST_STEP, LOST_AFTER, 1));
}

fn local(blocks: &[&str], borrowed: &[&str], lent: &[&str]) -> LocalSubnet {
    LocalSubnet {
        subnet: net("10.0.0.0/24"),
        gateway: ip("10.0.0.1"),
        blocks: blocks.iter().map(|block| net(block)).collect(),
        borrowed: borrowed.iter().map(|address| ip(address)).collect(),
        lent: lent.iter().map(|address| ip(address)).collect(),
    }
}

#[test]
fn a_pool_gives_from_the_blocks_without_what_is_lent_and_borrowed_addresses_to_who_asks() {
    let mut host = Host::new();
    let local = local(&["10.0.0.0/30", "10.0.0.252/30"], &["10.0.0.77"], &["10.0.0.253"]);
    let pool = local_pool(&[local], Duration::ZERO).unwrap();
    let mut got: Vec<String> = Vec::new();
    for number in 0..4 {
        got.push(host.give(&pool, &format!("c{number}")).unwrap());
    }
    assert_eq!(got[..4], ["10.0.0.2/24", "10.0.0.3/24", "10.0.0.252/24", "10.0.0.254/24"]);
    assert!(host.give(&pool, "c9").is_err());
    let mut ask = |name: &str, address: &str| texts(host.ask(&pool, &requesting(name, &[address])));
    assert_eq!(ask("c9", "10.0.0.77").unwrap(), "10.0.0.77/24");
    assert!(ask("c10", "10.0.0.253").is_err());
    assert!(ask("c10", "10.0.0.99").is_err());
}

#[test]
fn without_a_block_there_is_no_pool() {
    let error = local_pool(&[local(&[], &[], &[])], Duration::ZERO).unwrap_err();
    assert!(matches!(error, LocalPoolError::NoBlock { .. }));
    assert_eq!(error.to_string(), "this node has no block of 10.0.0.0/24");
}

proptest! {
    #[test]
    fn nodes_claim_until_all_blocks_are_taken_and_none_twice(seeds in prop::collection::vec(any::<u64>(), 1..5), v6 in any::<bool>()) {
        let (subnet, length, gateway, count) = if v6 { ("fd00::/112", 120, "fd00::1", 256) } else { ("10.0.0.0/23", 28, "10.0.0.1", 32) };
        let mut all: BTreeSet<IpNetwork> = BTreeSet::new();
        for turn in 0..count {
            let seed = seeds[turn % seeds.len()];
            let state = SubnetState { subnet: net(subnet), length, gateway: ip(gateway), own: &[], taken: &all, seed };
            let block = next_block(&state).unwrap();
            prop_assert_eq!(block_around(net(subnet), length, block.network()), Some(block));
            prop_assert!(all.insert(block), "{} twice", block);
        }
        let state = SubnetState { subnet: net(subnet), length, gateway: ip(gateway), own: &[], taken: &all, seed: 7 };
        prop_assert_eq!(next_block(&state), None);
    }
}
