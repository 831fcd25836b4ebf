//! The allocator against a model of it: three lists and no index.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use berth_ipam::{AllocateError, PoolConfig, Refusal, leases};
use common::{Host, key, pools, request, requesting};
use proptest::prelude::*;
use serde_json::json;

/// The addresses 10.80.0.1 to .12, of which .1 is the gateway, .4 excluded and .7 reserved.
fn pool() -> PoolConfig {
    pools(&json!({
        "ranges": [[{"subnet": "10.80.0.0/24", "rangeEnd": "10.80.0.12"}]],
        "exclude": ["10.80.0.4"], "reserved": ["10.80.0.7"], "quarantine": 30
    }))
}

#[derive(Debug, Clone)]
enum Step {
    /// The container asks for any address.
    Any(u8),
    /// The container asks for this one.
    This(u8, u8),
    Release(u8),
    Dies(u8),
    Pass(u8),
    Reboot,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..16_u8).prop_map(Step::Any),
        3 => (0..16_u8, 0..14_u8).prop_map(|(who, what)| Step::This(who, what)),
        6 => (0..16_u8).prop_map(Step::Release),
        1 => (0..16_u8).prop_map(Step::Dies),
        2 => (1..50_u8).prop_map(Step::Pass),
        1 => Just(Step::Reboot),
    ]
}

/// What a person would write on paper.
#[derive(Default)]
struct Model {
    held: BTreeMap<u8, u8>,
    used: BTreeSet<u8>,
    /// Free since, address.
    freed: BTreeSet<(i64, u8)>,
    dead: BTreeSet<u8>,
}

const GIVEN_UNASKED: [u8; 9] = [2, 3, 5, 6, 8, 9, 10, 11, 12];

impl Model {
    fn holder(&self, address: u8) -> Option<u8> {
        self.held.iter().find(|(_, held)| **held == address).map(|(who, _)| *who)
    }

    fn free(&mut self, who: u8, now: i64) {
        if let Some(address) = self.held.remove(&who) {
            self.freed.insert((now, address));
        }
    }

    fn give(&mut self, who: u8, address: u8) -> u8 {
        self.freed.retain(|(_, freed)| *freed != address);
        self.used.insert(address);
        self.held.insert(who, address);
        address
    }

    fn any(&mut self, who: u8, now: i64) -> Option<u8> {
        if let Some(held) = self.held.get(&who) {
            return Some(*held);
        }
        let fresh = GIVEN_UNASKED.iter().find(|address| !self.used.contains(address)).copied();
        if let Some(fresh) = fresh {
            return Some(self.give(who, fresh));
        }
        if self.oldest().is_none() {
            let dead = |address: &u8| GIVEN_UNASKED.contains(address);
            let lost: Vec<u8> =
                self.dead.iter().filter(|who| self.held.get(who).is_some_and(dead)).copied().collect();
            lost.into_iter().for_each(|who| self.free(who, now));
        }
        self.oldest().map(|address| self.give(who, address))
    }

    fn oldest(&self) -> Option<u8> {
        self.freed.iter().map(|(_, address)| *address).find(|address| GIVEN_UNASKED.contains(address))
    }

    fn this(&mut self, who: u8, address: u8, now: i64) -> Option<u8> {
        if let Some(held) = self.held.get(&who) {
            return (*held == address).then_some(address);
        }
        if !(GIVEN_UNASKED.contains(&address) || address == 7) {
            return None;
        }
        match self.holder(address) {
            Some(holder) if !self.dead.contains(&holder) => None,
            Some(holder) => {
                self.free(holder, now);
                Some(self.give(who, address))
            }
            None => Some(self.give(who, address)),
        }
    }
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut host, mut model, pools) = (Host::new(), Model::default(), pool());
    let name = |who: u8| format!("c{who}");
    let address = |last: u8| IpAddr::from(Ipv4Addr::new(10, 80, 0, last));
    for (index, step) in steps.iter().enumerate() {
        // Each step is at a time of its own, so that the order of what is freed is one order.
        host.now += 1;
        let dead: BTreeSet<_> = model.dead.iter().map(|who| key(&name(*who))).collect();
        let asked = match step {
            Step::Any(who) => Some((*who, request(&name(*who)), model.any(*who, host.now))),
            Step::This(who, what) => {
                let asked = requesting(&name(*who), &[&address(*what).to_string()]);
                Some((*who, asked, model.this(*who, *what, host.now)))
            }
            Step::Release(who) => {
                let had = model.held.contains_key(who);
                model.free(*who, host.now);
                prop_assert_eq!(host.take_back(&name(*who)), usize::from(had));
                None
            }
            Step::Dies(who) => {
                model.dead.insert(*who);
                None
            }
            Step::Pass(seconds) => {
                host.now += i64::from(*seconds);
                None
            }
            Step::Reboot => {
                host.reboot(&format!("boot-{index}"));
                model = Model::default();
                None
            }
        };
        if let Some((who, asked, expected)) = asked {
            let given = host.ask_with(&pools, &asked, |lease| dead.contains(&lease.owner));
            let found = given.as_ref().ok().map(|given| given.addresses[0].address.ip());
            prop_assert_eq!(found, expected.map(address), "step {}: {:?}", index, given);
            if let Err(AllocateError::Range { reason, .. }) = &given
                && let Refusal::Exhausted(exhausted) = &**reason
            {
                prop_assert_eq!((exhausted.usable, exhausted.held), (9, 9));
            }
            if found.is_some() {
                model.dead.remove(&who);
            }
        }
        let held = host.store.read(|tx| leases(tx, &key("c0").network)).unwrap();
        let held: BTreeMap<_, _> = held.into_iter().map(|lease| (lease.owner, lease.address)).collect();
        let expected = model.held.iter().map(|(who, last)| (key(&name(*who)), address(*last))).collect();
        prop_assert_eq!(held, expected, "step {}", index);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_gives_what_the_model_gives(steps in prop::collection::vec(step(), 1..80)) {
        run(&steps)?;
    }
}
