//! Encryption as a plan: keys, numbers and orders, for any nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_netlink::xfrm::{EspPolicy, EspState};
use berth_types::BootId;

use proptest::prelude::*;
use rustix::io::Errno;

use super::*;

fn secret(number: u8) -> Secret {
    Secret::new([number + 1; 32])
}

fn member(number: u8) -> Member {
    let text = secret(number).public_text();
    let node = crate::model::Node {
        v: 1,
        name: format!("n{number}").parse().unwrap(),
        vtep4: None,
        vtep6: None,
        underlay_mtu: 1500,
        public_key: Some(text),
        identity: String::new(),
        boot: BootId::new("b"),
        epoch: 1,
    };
    Member::of(&node).unwrap()
}

fn peer(number: u8) -> Peer {
    Peer { member: member(number), vtep: IpAddr::from([192, 0, 2, number + 1]) }
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
        boot: BootId::new("b"),
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
    let zero = Member { public: [0; 32], ..member(1) };
    assert_eq!(pair_keys(&secret(0), &member(0), &zero, 1), None);
    let peers = [Peer { member: zero, ..peer(1) }];
    let held = desired(&secret(0), &peer(0), &peers, Generation(1));
    assert!(held.states.is_empty(), "{held:?}");
    let is_guard = |policy: &EspPolicy| !matches!(policy, EspPolicy::Encrypt { .. });
    assert!(
        held.policies.len() == 2 && held.policies.iter().all(is_guard),
        "nothing is sent, or taken in clear: {held:?}"
    );
}

#[test]
fn nothing_secret_is_shown() {
    let (key, _) = pair_keys(&secret(0), &member(0), &member(1), 1).unwrap();
    assert_eq!(format!("{key:?} {:?}", secret(0)), "EspKey(..) Secret(..)");
    let held = desired(&secret(0), &peer(0), &[peer(1)], Generation(1));
    let steps: Vec<String> =
        steps(&Held::default(), &held, peer(0).vtep).iter().map(ToString::to_string).collect();
    let digits = |key: &[u8]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let all = steps.join("\n");
    for state in &held.states {
        assert!(
            all.contains(&format!("{:#010x}", state.spi)) && !all.contains(&digits(&state.key.0[..4])),
            "{all}"
        );
    }
}

/// A node's kernel, as far as packets of encrypted networks go.
#[derive(Debug, Clone, Default)]
struct Kernel {
    own: Option<IpAddr>,
    held: Held,
    /// In the order in which they were made.
    ages: Vec<EspState>,
}

impl Kernel {
    fn of(peer: &Peer) -> Self {
        Self { own: Some(peer.vtep), ..Self::default() }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::StateAdd(state) => {
                let mut same =
                    self.held.states.iter().filter(|other| (other.to, other.spi) == (state.to, state.spi));
                assert!(same.next().is_none(), "one of the number is there: {state}");
                assert!(self.is_guarded(), "a state before the guards");
                self.held.states.insert(state);
                self.ages.push(state);
            }
            Step::StateDel(state) => {
                assert!(self.held.states.remove(&state), "never made: {state}");
                assert!(self.is_guarded(), "a guard is gone before the states");
                self.ages.retain(|other| *other != state);
            }
            Step::PolicyPut(policy) => drop(self.held.policies.insert(policy)),
            Step::PolicyDel(policy) => assert!(self.held.policies.remove(&policy), "never made: {policy}"),
        }
    }

    /// Whether nothing in clear could leave or be taken in.
    fn is_guarded(&self) -> bool {
        let has = |of: fn(&EspPolicy) -> bool| self.held.policies.iter().any(of);
        has(|policy| matches!(policy, EspPolicy::Require { .. }))
            && has(|policy| matches!(policy, EspPolicy::Block { .. }))
    }

    /// By which state it sends to a tunnel end: the youngest.
    fn sends_by(&self, to: IpAddr) -> Option<&EspState> {
        let asks =
            |policy: &EspPolicy| matches!(policy, EspPolicy::Encrypt { to: other, .. } if *other == to);
        self.held.policies.iter().find(|policy| asks(policy))?;
        self.ages.iter().rev().find(|state| state.to == to && Some(state.from) == self.own)
    }

    fn takes(&self, sent: &EspState) -> bool {
        self.held.states.contains(sent)
    }
}

fn all(nodes: u8) -> Vec<Peer> {
    (0..nodes).map(peer).collect()
}

fn held(number: u8, nodes: u8, generation: u32) -> Held {
    desired(&secret(number), &peer(number), &all(nodes), Generation(generation))
}

#[test]
fn a_generation_is_a_period_of_the_clock() {
    let at = |seconds| Generation::at(Duration::from_secs(seconds), Duration::from_secs(86_400)).0;
    assert_eq!((at(0), at(86_399), at(86_400)), (0, 0, 1));
    assert_eq!(at(1_790_000_000), 20_717);
    let few = Generation::at(Duration::from_millis(9_500), Duration::from_secs(3));
    assert_eq!(few, Generation(3));
    assert_eq!(few.taken(), [Generation(2), Generation(3), Generation(4)]);
}

#[test]
fn the_secret_outlives_its_reader_and_not_its_boot() {
    let dir = tempfile::tempdir().unwrap();
    let boot = BootId::new("one");
    let mut ring = Ring::open(dir.path(), &boot).unwrap();
    let want = desired(ring.secret(), &peer(0), &[peer(1)], Generation(7));
    assert!(!ring.is_spent(&Held::default(), &want), "never laid");
    ring.note(&want, Generation(7)).unwrap();
    let file = dir.path().join("overlay.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let mut again = Ring::open(dir.path(), &boot).unwrap();
    assert_eq!(again.secret().public_text(), ring.secret().public_text());
    assert!(again.is_spent(&Held::default(), &want), "laid, and gone");
    assert!(!again.is_spent(&want, &want));
    // The next generation is new; of an earlier one nothing is wanted again, and the clock may be put back by one.
    let next = desired(again.secret(), &peer(0), &[peer(1)], Generation(8));
    again.note(&next, Generation(8)).unwrap();
    assert!(again.is_spent(&Held::default(), &next));
    assert_eq!(again.generation(Generation(7)), Generation(8));
    assert!(!again.is_ahead(Generation(7)) && again.is_ahead(Generation(6)));
    again.renew(Generation(6)).unwrap();
    assert!(!again.is_spent(&Held::default(), &want));
    assert_ne!(again.secret().public_text(), ring.secret().public_text());

    let other = Ring::open(dir.path(), &BootId::new("two")).unwrap();
    assert_ne!(other.secret().public_text(), ring.secret().public_text());
    Ring::forget(dir.path()).unwrap();
    Ring::forget(dir.path()).unwrap();
    assert!(!file.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is there and whatever is wanted: nothing is clear at any step, no number is taken twice, and what is wanted is
    /// there in the end; another time there is nothing to do.
    #[test]
    fn nothing_is_clear_at_any_step(before in 0_u8..5, after in 0_u8..5, from: u32, turns in 0_u32..6) {
        let here = peer(0);
        let mut kernel = Kernel::of(&here);
        let wants = [held(0, before + 1, from), held(0, after + 1, from.wrapping_add(turns)), Held::default()];
        for want in wants {
            for step in steps(&kernel.held, &want, here.vtep) {
                kernel.apply(&step);
                prop_assert!(kernel.held.states.is_empty() || kernel.is_guarded());
            }
            prop_assert_eq!(&kernel.held, &want);
            prop_assert_eq!(steps(&kernel.held, &want, here.vtep), []);
            let coming = want.states.iter().filter(|state| state.to == here.vtep).map(|state| state.spi);
            let numbers: BTreeSet<u32> = coming.clone().collect();
            prop_assert_eq!(numbers.len(), coming.count());
            prop_assert!(numbers.iter().all(|spi| *spi >= 256));
        }
    }

    /// Nodes whose clocks differ by less than a period turn from one generation to the next whenever they like, and step by
    /// step: whoever sends is understood.
    #[test]
    fn everybody_is_understood_during_a_rotation(
        nodes in 2_u8..5,
        order in proptest::collection::vec(0_usize..64, 200),
        generation in 5_u32..1_000_000,
    ) {
        let peers = all(nodes);
        let mut kernels: Vec<Kernel> = peers.iter().map(Kernel::of).collect();
        let mut at = vec![generation; peers.len()];
        let mut left: Vec<Vec<Step>> = Vec::new();
        for (number, kernel) in (0..nodes).zip(&mut kernels) {
            let steps = steps(&Held::default(), &held(number, nodes, generation), peers[usize::from(number)].vtep);
            steps.iter().for_each(|step| kernel.apply(step));
            left.push(Vec::new());
        }
        for choice in &order {
            let number = choice % peers.len();
            if left[number].is_empty() {
                // Never more than one before the slowest, and who is on its way has not come there.
                let mut come = at.iter().zip(&left).map(|(at, left)| at - u32::from(!left.is_empty()));
                if come.any(|other| other < at[number]) {
                    continue;
                }
                at[number] += 1;
                let want = held(u8::try_from(number).unwrap(), nodes, at[number]);
                left[number] = steps(&kernels[number].held, &want, peers[number].vtep);
            } else {
                let step = left[number].remove(0);
                kernels[number].apply(&step);
            }
            for (from, kernel) in kernels.iter().enumerate() {
                for (to, other) in kernels.iter().enumerate().filter(|(to, _)| *to != from) {
                    let sent = kernel.sends_by(peers[to].vtep);
                    prop_assert!(sent.is_some_and(|sent| other.takes(sent)), "{} to {}", from, to);
                }
            }
        }
        prop_assert!(at.iter().any(|at| *at > generation));
    }

    /// Both ends make the same keys; no two pairs, directions, lives or generations share one.
    #[test]
    fn both_ends_agree_and_no_key_is_used_twice(generation in 0_u32..1000) {
        let mut seen = BTreeSet::new();
        let lives = |number: u8, life: u8| {
            let secret = secret(number + 10 * life);
            let member = Member { public: secret.public(), ..member(number) };
            (secret, member)
        };
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            for life in [1, 2] {
                for generation in [generation, generation + 1] {
                    let ((secret_a, here), (secret_b, there)) = (lives(a, life), lives(b, 1));
                    let (to, from) = pair_keys(&secret_a, &here, &there, generation).unwrap();
                    let (back, forth) = pair_keys(&secret_b, &there, &here, generation).unwrap();
                    prop_assert_eq!((to, from), (forth, back));
                    prop_assert!(seen.insert(to) && seen.insert(from));
                }
            }
        }
    }
}
