//! Keys that are nearly known: a person's typing error, which silence would turn into a default.

use serde_json::{Map, Value};
use tracing::warn;

/// Warns of every key in `object` that is not known and one or two typing errors away from a known one. `place` is
/// where the object is, for instance `ipam`.
///
/// An object of more than 200 keys is no configuration a person typed and is not looked at, which bounds the work.
///
/// A warning and no error: runtimes, meta plugins and newer versions of the specification add keys of their own.
pub fn warn_near_misses(place: &str, object: &Map<String, Value>, known: &[&str]) {
    if object.len() > 200 {
        return;
    }
    for (key, meant) in near_misses(object, known) {
        warn!(place, key, meant, "unknown key in the network configuration is ignored");
    }
}

/// The keys of `object` that are nearly one of `known`, each with the one it is nearest to.
pub fn near_misses<'o, 'k>(object: &'o Map<String, Value>, known: &[&'k str]) -> Vec<(&'o str, &'k str)> {
    let unknown = object.keys().filter(|key| !known.contains(&key.as_str()));
    unknown.filter_map(|key| nearest(key, known).map(|meant| (key.as_str(), meant))).collect()
}

fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let distances = known.iter().filter_map(|name| {
        let distance = distance(key, name);
        (distance <= tolerance(name)).then_some((distance, *name))
    });
    distances.min().map(|(_, name)| name)
}

/// Short names are near to everything: `mtu` and `mac` are two errors apart.
fn tolerance(name: &str) -> usize {
    match name.len() {
        0..=3 => 0,
        4..=7 => 1,
        _ => 2,
    }
}

/// Edits between two texts in any case of letters: insert, delete, replace, swap of neighbours. Anything above 2 is
/// given as 3, so a long key costs no more than its length.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<u8> = a.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    let b: Vec<u8> = b.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    within(&a, &b, 2).map_or(3, |left| 2 - left)
}

/// How many of `budget` edits are left after turning `a` into `b`; `None` where they do not suffice.
fn within(a: &[u8], b: &[u8], budget: usize) -> Option<usize> {
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (a.get(same..).unwrap_or_default(), b.get(same..).unwrap_or_default());
    if a.is_empty() && b.is_empty() {
        return Some(budget);
    }
    let budget = budget.checked_sub(1)?;
    let swapped = match (a, b) {
        ([a0, a1, ..], [b0, b1, ..]) if a0 == b1 && a1 == b0 => Some((2, 2)),
        _ => None,
    };
    [Some((1, 0)), Some((0, 1)), Some((1, 1)), swapped]
        .into_iter()
        .flatten()
        .filter_map(|(skip_a, skip_b)| within(a.get(skip_a..)?, b.get(skip_b..)?, budget))
        .max()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: &[&str] = &["bridge", "isGateway", "hairpinMode", "mtu", "vlan", "ipMasq"];

    #[test]
    fn typing_errors_are_found_and_other_words_are_not() {
        for (key, meant) in [
            ("isGatway", Some("isGateway")),
            ("isGatewya", Some("isGateway")),
            ("is-gateway", Some("isGateway")),
            ("is_gate_way", Some("isGateway")),
            ("hairpin_mod", Some("hairpinMode")),
            ("brdige", Some("bridge")),
            ("vlans", Some("vlan")),
            ("ipmask", Some("ipMasq")),
            ("mac", None),
            ("mt", None),
            ("gateway", Some("isGateway")),
            ("brg", None),
            ("prevResult", None),
        ] {
            assert_eq!(nearest(key, KNOWN), meant, "{key}");
        }
    }

    #[test]
    fn known_keys_are_no_misses() {
        let object: Map<String, Value> = [("vlan", 1), ("bridge", 2), ("brigde", 3)]
            .map(|(key, value)| (key.to_owned(), value.into()))
            .into_iter()
            .collect();
        assert_eq!(near_misses(&object, KNOWN), [("brigde", "bridge")]);
        warn_near_misses("top level", &object, KNOWN);
    }

    proptest! {
        #[test]
        fn distance_is_symmetric_and_zero_only_for_equal_words(a in "[a-c]{0,6}", b in "[a-c]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
        }

        #[test]
        fn any_keys_are_compared(a in any::<String>(), b in any::<String>()) {
            prop_assert!(distance(&a, &b) <= 3);
        }
    }
}
