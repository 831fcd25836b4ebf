//! Encryption as a plan: keys, numbers and orders, for any nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use rustix::io::Errno;

use super::*;

fn secret(number: u8) -> Secret {
    Secret::new([number + 1; 32])
}

fn member(number: u8, epoch: u64) -> Member {
    let text = secret(number).public_text();
    let node = crate::model::Node {
        v: 1,
        name: format!("n{number}").parse().unwrap(),
        vtep4: None,
        vtep6: None,
        underlay_mtu: 1500,
        public_key: Some(text),
        identity: String::new(),
        boot: berth_types::BootId::new("b"),
        epoch,
    };
    Member::of(&node).unwrap()
}

fn peer(number: u8, epoch: u64) -> Peer {
    Peer { member: member(number, epoch), vtep: IpAddr::from([192, 0, 2, number + 1]) }
}

fn networks() -> BTreeSet<Network> {
    [1, 2].map(|vni| Network { vni: vni.try_into().unwrap(), port: 4789 }).into()
}

#[test]
fn a_network_is_refused_where_the_kernel_cannot_or_nobody_knows() {
    let name: NetworkName = "blue".parse().unwrap();
    assert!(admit(&name, Ok(true)).is_ok());
    let refused = admit(&name, Ok(false)).unwrap_err();
    assert!(
        refused.to_string().starts_with("network `blue` is encrypted, and this node's kernel has no ESP")
    );
    let unknown = NetlinkError::Socket { operation: "open", source: Errno::NFILE.into() };
    assert!(matches!(admit(&name, Err(unknown)), Err(EncryptionError::Unknown(..))));
    // This kernel's answer is the one that counts.
    assert_eq!(probe(&name).is_ok(), xfrm::esp_gcm_supported().unwrap());
}

#[test]
fn keys_that_are_none_are_told_by_their_node() {
    let node = |key: Option<&str>| crate::model::Node {
        v: 1,
        name: "n1".parse().unwrap(),
        vtep4: None,
        vtep6: None,
        underlay_mtu: 1500,
        public_key: key.map(str::to_owned),
        identity: String::new(),
        boot: berth_types::BootId::new("b"),
        epoch: 1,
    };
    assert!(matches!(Member::of(&node(None)), Err(EncryptionError::NoKey(_))));
    let long = "é".repeat(32);
    for bad in ["", "00", "zz", long.as_str(), &"+1".repeat(32)] {
        assert!(matches!(Member::of(&node(Some(bad))), Err(EncryptionError::BadKey(_))), "{bad}");
    }
    assert!(Member::of(&node(Some(&"0a".repeat(32)))).is_ok());
}

#[test]
fn a_public_key_that_gives_everybody_the_same_is_not_used() {
    let zero = Member { public: [0; 32], ..member(1, 1) };
    assert_eq!(pair_keys(&secret(0), &member(0, 1), &zero, 1), None);
    let peers = [Peer { member: zero, ..peer(1, 1) }];
    let steps = establish(&secret(0), &peer(0, 1), &peers, &networks(), Generation(1));
    assert!(
        steps.iter().all(|step| matches!(step, Step::DropClearIn(_) | Step::DropClearOut(_))),
        "{steps:?}"
    );
}

#[test]
fn nothing_secret_is_shown() {
    let (key, _) = pair_keys(&secret(0), &member(0, 1), &member(1, 1), 1).unwrap();
    assert_eq!(format!("{key:?} {:?}", secret(0)), "Key(..) Secret(..)");
}

/// What a node has in its kernel.
#[derive(Debug, Clone, Default)]
struct Kernel {
    drops_in: BTreeSet<Network>,
    drops_out: BTreeSet<Network>,
    states: BTreeSet<State>,
    /// By the peer's tunnel end; what is sent there is encrypted, or not at all.
    policies: BTreeSet<IpAddr>,
    sends_by: BTreeMap<IpAddr, State>,
}

impl Kernel {
    fn apply(&mut self, step: &Step) {
        match step.clone() {
            Step::DropClearIn(network) => drop(self.drops_in.insert(network)),
            Step::DropClearOut(network) => drop(self.drops_out.insert(network)),
            Step::StateAdd(state) => {
                if state.direction == Direction::Out {
                    self.sends_by.entry(state.to).or_insert_with(|| state.clone());
                }
                assert!(self.states.insert(state), "made twice");
            }
            Step::PolicyAdd(to) => drop(self.policies.insert(to)),
            Step::SendBy(state) => drop(self.sends_by.insert(state.to, state)),
            Step::StateDel(state) => {
                assert!(self.states.remove(&state), "never made: {state:?}");
                if self.sends_by.get(&state.to) == Some(&state) {
                    self.sends_by.remove(&state.to);
                }
            }
            Step::PolicyDel(to) => drop(self.policies.remove(&to)),
            Step::AllowClear(network) => {
                self.drops_in.remove(&network);
                self.drops_out.remove(&network);
            }
        }
    }

    /// Whether a clear packet of the network could leave or be taken in.
    fn leaks(&self, network: &Network) -> bool {
        !self.drops_in.contains(network) || !self.drops_out.contains(network)
    }

    /// The state that `sent` is taken in by.
    fn takes(&self, sent: &State) -> bool {
        let same =
            |state: &&State| state.direction == Direction::In && state.spi == sent.spi && state.to == sent.to;
        self.states.iter().find(same).is_some_and(|state| state.key == sent.key && state.from == sent.from)
    }
}

fn all(nodes: u8, epochs: &[u64]) -> Vec<Peer> {
    (0..nodes).map(|number| peer(number, epochs.get(usize::from(number)).copied().unwrap_or(1))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// At each step of establishing and of taking back, a network that was begun leaks nothing, and no two states that come in
    /// at a node have one number.
    #[test]
    fn nothing_is_clear_at_any_step(nodes in 2_u8..6, epochs in proptest::collection::vec(1_u64..9, 6), generation: u32) {
        let peers = all(nodes, &epochs);
        let mut kernel = Kernel::default();
        let here = &peers[0];
        let steps = establish(&secret(0), here, &peers, &networks(), Generation(generation));
        for (at, step) in steps.iter().enumerate() {
            kernel.apply(step);
            if at + 1 >= 2 * networks().len() {
                prop_assert!(networks().iter().all(|network| !kernel.leaks(network)));
            } else {
                prop_assert!(kernel.states.is_empty() && kernel.policies.is_empty());
            }
        }
        prop_assert_eq!(kernel.policies.len(), usize::from(nodes) - 1);
        let coming: Vec<u32> = kernel.states.iter()
            .filter(|state| state.direction == Direction::In).map(|state| state.spi).collect();
        prop_assert_eq!(coming.iter().collect::<BTreeSet<_>>().len(), coming.len());
        prop_assert!(coming.iter().all(|spi| *spi >= 256));
        let steps = retire(&secret(0), here, &peers, &networks(), Generation(generation));
        for step in &steps {
            if matches!(step, Step::AllowClear(_)) {
                prop_assert!(kernel.states.is_empty() && kernel.policies.is_empty());
            } else {
                prop_assert!(networks().iter().all(|network| !kernel.leaks(network)));
            }
            kernel.apply(step);
        }
        prop_assert!(kernel.drops_in.is_empty() && kernel.drops_out.is_empty());
    }

    /// While nodes rotate, in whatever order they take their steps within a turn, whoever sends is understood.
    #[test]
    fn everybody_is_understood_during_a_rotation(
        nodes in 2_u8..5,
        order in proptest::collection::vec(0_usize..64, 200),
        generation: u32,
    ) {
        let peers = all(nodes, &[]);
        let mut kernels = vec![Kernel::default(); peers.len()];
        for (number, kernel) in kernels.iter_mut().enumerate() {
            let secret = secret(u8::try_from(number).unwrap());
            let steps = establish(&secret, &peers[number], &peers, &networks(), Generation(generation));
            steps.iter().for_each(|step| kernel.apply(step));
        }
        let rotations: Vec<[Vec<Step>; 3]> = (0..nodes).map(|number| {
            rotation(&secret(number), &peers[usize::from(number)], &peers, Generation(generation))
        }).collect();
        let mut choices = order.iter().cycle();
        let turn_of = |turn: usize| rotations.iter().map(|turns| turns[turn].clone()).collect::<Vec<_>>();
        for mut left in [turn_of(0), turn_of(1), turn_of(2)] {
            loop {
                let waiting: Vec<usize> = (0..peers.len()).filter(|number| !left[*number].is_empty()).collect();
                if waiting.is_empty() {
                    break;
                }
                let number = waiting[choices.next().unwrap() % waiting.len()];
                let step = left[number].remove(0);
                kernels[number].apply(&step);
                for (from, kernel) in kernels.iter().enumerate() {
                    for (to, other) in kernels.iter().enumerate().filter(|(to, _)| *to != from) {
                        let sent = kernel.sends_by.get(&peers[to].vtep);
                        prop_assert!(sent.is_some_and(|sent| other.takes(sent)), "{} to {}", from, to);
                    }
                }
            }
        }
        let old = Generation(generation);
        prop_assert!(kernels.iter().all(|kernel| kernel.states.iter().all(|state| state.generation != old)));
    }

    /// Both ends make the same keys; no two pairs, directions, lives or generations share one.
    #[test]
    fn both_ends_agree_and_no_key_is_used_twice(generation in 0_u32..1000) {
        let mut seen = BTreeSet::new();
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            for epoch in [1, 2] {
                for generation in [generation, generation + 1] {
                    let (here, there) = (member(a, epoch), member(b, 1));
                    let (to, from) = pair_keys(&secret(a), &here, &there, generation).unwrap();
                    let (back, forth) = pair_keys(&secret(b), &there, &here, generation).unwrap();
                    prop_assert_eq!((to, from), (forth, back));
                    prop_assert!(seen.insert(to) && seen.insert(from));
                }
            }
        }
    }
}
