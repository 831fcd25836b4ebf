//! Spelling of keys. Go's JSON matches keys in any case of letters, and containerd relies on it: it sends
//! `HostPort` for `hostPort`. Here every known key is brought to its canonical spelling once, so that everything
//! behind can match exactly.
//!
//! Only known keys of known objects are touched. What users name themselves (labels, annotations, the networks in
//! podman's aliases, sysctls) is a [`Kind::Leaf`] and stays as it is.

use serde_json::{Map, Value};

/// The known keys of one object.
#[derive(Debug)]
pub struct Shape(pub &'static [(&'static str, Kind)]);

/// What is behind a known key.
#[derive(Debug)]
pub enum Kind {
    /// Anything whose inner keys, if any, are not ours to spell.
    Leaf,
    /// An object.
    Object(&'static Shape),
    /// A list of objects.
    List(&'static Shape),
    /// A list of lists of objects.
    Lists(&'static Shape),
}

use Kind::{Leaf, List, Lists, Object};

impl Shape {
    /// No key at all.
    pub const EMPTY: &'static Self = &Self(&[]);

    /// The known keys' names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let Self(keys) = *self;
        keys.iter().map(|(name, _)| *name)
    }

    /// The name and kind that `key` means, exactly or in another case of letters.
    fn find(&self, key: &str) -> Option<&'static (&'static str, Kind)> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))
    }
}

/// A configuration, without the keys of single plugins.
pub static NETWORK: Shape = Shape(&[
    ("cniVersion", Leaf),
    ("name", Leaf),
    ("type", Leaf),
    ("capabilities", Leaf),
    ("ipMasq", Leaf),
    ("ipam", Object(&IPAM)),
    ("dns", Object(&DNS)),
    ("args", Object(&ARGS)),
    ("runtimeConfig", Object(&RUNTIME_CONFIG)),
    ("prevResult", Object(&RESULT)),
    ("cni.dev/valid-attachments", List(&ATTACHMENT)),
    ("cni.dev/attachments", List(&ATTACHMENT)),
]);

/// `ipam`, for host-local and static.
pub static IPAM: Shape = Shape(&[
    ("type", Leaf),
    ("ranges", Lists(&RANGE)),
    ("routes", List(&ROUTE)),
    ("subnet", Leaf),
    ("rangeStart", Leaf),
    ("rangeEnd", Leaf),
    ("gateway", Leaf),
    ("dataDir", Leaf),
    ("resolvConf", Leaf),
    ("addresses", List(&ADDRESS)),
    ("dns", Object(&DNS)),
]);

static RANGE: Shape = Shape(&[("subnet", Leaf), ("rangeStart", Leaf), ("rangeEnd", Leaf), ("gateway", Leaf)]);

static ADDRESS: Shape = Shape(&[("address", Leaf), ("gateway", Leaf)]);

static ROUTE: Shape = Shape(&[
    ("dst", Leaf),
    ("gw", Leaf),
    ("mtu", Leaf),
    ("advmss", Leaf),
    ("priority", Leaf),
    ("table", Leaf),
    ("scope", Leaf),
]);

static DNS: Shape = Shape(&[("nameservers", Leaf), ("domain", Leaf), ("search", Leaf), ("options", Leaf)]);

static ARGS: Shape = Shape(&[("cni", Object(&CNI_ARGS))]);

static CNI_ARGS: Shape = Shape(&[("ips", Leaf), ("mac", Leaf), ("labels", Leaf), ("sysctl", Leaf)]);

static RUNTIME_CONFIG: Shape = Shape(&[
    ("portMappings", List(&PORT_MAPPING)),
    ("ipRanges", Lists(&RANGE)),
    ("bandwidth", Object(&BANDWIDTH)),
    ("dns", Object(&RUNTIME_DNS)),
    ("ips", Leaf),
    ("mac", Leaf),
    ("infinibandGUID", Leaf),
    ("deviceID", Leaf),
    ("aliases", Leaf),
    ("cgroupPath", Leaf),
    ("io.kubernetes.cri.pod-annotations", Leaf),
]);

static PORT_MAPPING: Shape =
    Shape(&[("hostPort", Leaf), ("containerPort", Leaf), ("protocol", Leaf), ("hostIP", Leaf)]);

static BANDWIDTH: Shape =
    Shape(&[("ingressRate", Leaf), ("ingressBurst", Leaf), ("egressRate", Leaf), ("egressBurst", Leaf)]);

static RUNTIME_DNS: Shape = Shape(&[("servers", Leaf), ("searches", Leaf), ("options", Leaf)]);

static ATTACHMENT: Shape = Shape(&[("containerID", Leaf), ("ifname", Leaf)]);

/// A result of any version.
pub static RESULT: Shape = Shape(&[
    ("cniVersion", Leaf),
    ("interfaces", List(&INTERFACE)),
    ("ips", List(&IP)),
    ("routes", List(&ROUTE)),
    ("dns", Object(&DNS)),
    ("ip4", Object(&OLD_IP)),
    ("ip6", Object(&OLD_IP)),
]);

static INTERFACE: Shape = Shape(&[
    ("name", Leaf),
    ("mac", Leaf),
    ("mtu", Leaf),
    ("sandbox", Leaf),
    ("socketPath", Leaf),
    ("pciID", Leaf),
]);

static IP: Shape = Shape(&[("version", Leaf), ("interface", Leaf), ("address", Leaf), ("gateway", Leaf)]);

static OLD_IP: Shape = Shape(&[("ip", Leaf), ("gateway", Leaf), ("routes", List(&ROUTE))]);

/// An error of a plugin.
pub static ERROR: Shape = Shape(&[("cniVersion", Leaf), ("code", Leaf), ("msg", Leaf), ("details", Leaf)]);

/// Spells the known keys of `object` as `shapes` do; where two shapes know a key, what is inside it may have the
/// keys of both.
///
/// A known key that is `null` is dropped: it means absent. Where a key is given in several spellings, the exact one
/// counts, else the last.
pub fn normalise(object: Map<String, Value>, shapes: &[&Shape]) -> Map<String, Value> {
    let mut out = Map::new();
    let mut respelled = Vec::new();
    for (key, value) in object {
        let known: Vec<_> = shapes.iter().filter_map(|shape| shape.find(&key)).collect();
        let Some((name, _)) = known.first() else {
            out.insert(key, value);
            continue;
        };
        if value.is_null() {
            continue;
        }
        let value = normalise_value(value, &known.iter().map(|(_, kind)| kind).collect::<Vec<_>>());
        if *name == key {
            out.insert(key, value);
        } else {
            respelled.push((*name, value));
        }
    }
    let exact: Vec<bool> = respelled.iter().map(|(name, _)| out.contains_key(*name)).collect();
    for ((name, value), exact) in respelled.into_iter().zip(exact) {
        if !exact {
            out.insert(name.to_owned(), value);
        }
    }
    out
}

fn normalise_value(value: Value, kinds: &[&Kind]) -> Value {
    let shapes_of = |pick: fn(&Kind) -> Option<&'static Shape>| -> Vec<&Shape> {
        kinds.iter().filter_map(|kind| pick(kind)).collect()
    };
    match value {
        Value::Object(object) => {
            let shapes = shapes_of(|kind| if let Object(shape) = kind { Some(shape) } else { None });
            Value::Object(normalise(object, &shapes))
        }
        Value::Array(items) => {
            let flat = shapes_of(|kind| if let List(shape) = kind { Some(shape) } else { None });
            let nested = shapes_of(|kind| if let Lists(shape) = kind { Some(shape) } else { None });
            Value::Array(items.into_iter().map(|item| normalise_item(item, &flat, &nested)).collect())
        }
        leaf => leaf,
    }
}

fn normalise_item(item: Value, flat: &[&Shape], nested: &[&Shape]) -> Value {
    match item {
        Value::Object(object) if !flat.is_empty() => Value::Object(normalise(object, flat)),
        Value::Array(items) if !nested.is_empty() => {
            Value::Array(items.into_iter().map(|item| normalise_item(item, nested, &[])).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn normalised(value: Value, extra: &'static Shape) -> Value {
        let Value::Object(object) = value else { panic!("not an object") };
        Value::Object(normalise(object, &[&NETWORK, extra]))
    }

    #[test]
    fn what_containerd_sends_is_understood() {
        let sent = json!({
            "name": "n0", "cniVersion": "1.0.0", "type": "rportmap",
            "runtimeConfig": {
                "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
                "dns": {"Servers": ["10.0.0.1"], "Searches": ["a"], "Options": null},
                "bandwidth": {"IngressRate": 1, "IngressBurst": 2, "EgressRate": 3, "EgressBurst": 4},
                "ipRanges": [[{"Subnet": "10.0.0.0/24", "RangeStart": "10.0.0.5", "Gateway": ""}]],
                "io.kubernetes.cri.pod-annotations": {"Name": "x", "name": "y", "CNIVERSION": null},
            }
        });
        assert_eq!(
            normalised(sent, Shape::EMPTY),
            json!({
                "name": "n0", "cniVersion": "1.0.0", "type": "rportmap",
                "runtimeConfig": {
                    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
                    "dns": {"servers": ["10.0.0.1"], "searches": ["a"]},
                    "bandwidth": {"ingressRate": 1, "ingressBurst": 2, "egressRate": 3, "egressBurst": 4},
                    "ipRanges": [[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.5", "gateway": ""}]],
                    "io.kubernetes.cri.pod-annotations": {"Name": "x", "name": "y", "CNIVERSION": null},
                }
            })
        );
    }

    #[test]
    fn plugins_add_keys_at_the_top_and_inside_known_objects() {
        static EXTRA: Shape =
            Shape(&[("isGateway", Leaf), ("ipam", Object(&EXTRA_IPAM)), ("vlanTrunk", List(&TRUNK))]);
        static EXTRA_IPAM: Shape = Shape(&[("quarantine", Leaf)]);
        static TRUNK: Shape = Shape(&[("minID", Leaf), ("maxID", Leaf)]);
        let sent = json!({
            "ISGATEWAY": true,
            "IPAM": {"Type": "host-local", "Subnet": "10.80.0.0/24", "QUARANTINE": 5, "Routes": [{"DST": "::/0"}]},
            "vlantrunk": [{"MINID": 1, "maxid": 2}, 7],
        });
        assert_eq!(
            normalised(sent, &EXTRA),
            json!({
                "isGateway": true,
                "ipam": {"type": "host-local", "subnet": "10.80.0.0/24", "quarantine": 5, "routes": [{"dst": "::/0"}]},
                "vlanTrunk": [{"minID": 1, "maxID": 2}, 7],
            })
        );
    }

    #[test]
    fn the_exact_spelling_wins_unless_it_is_null() {
        for (sent, name) in [
            (json!({"Name": "a", "name": "b"}), json!("b")),
            (json!({"name": "b", "NAME": "a", "nAME": "c"}), json!("b")),
            (json!({"name": null, "Name": "a"}), json!("a")),
        ] {
            assert_eq!(normalised(sent, Shape::EMPTY), json!({"name": name}));
        }
    }

    #[test]
    fn unknown_keys_and_users_own_maps_stay_as_they_are() {
        let sent = json!({
            "x-Unknown": null, "Vendor": {"NAME": 1},
            "capabilities": {"portMappings": true, "IPS": false},
            "args": {"cni": {"labels": [{"KEY": "Name", "value": null}], "sysctl": {"Net.X": "1"}}, "other": {"IPS": null}},
            "runtimeConfig": {"aliases": {"Net": ["A"]}, "Custom": {"Mac": 1}},
        });
        assert_eq!(normalised(sent.clone(), Shape::EMPTY), sent);
    }

    #[test]
    fn a_value_of_another_kind_is_left_for_the_typed_reader_to_refuse() {
        let sent = json!({"ipam": ["Type"], "dns": "x", "prevResult": {"ips": {"Address": 1}, "interfaces": [[{"Name": 1}]]}});
        assert_eq!(normalised(sent.clone(), Shape::EMPTY), sent);
    }

    /// JSON with keys out of the known ones in any case of letters.
    fn json_like() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z]{0,4}".prop_map(Value::from)
        ];
        let key = prop::sample::select(vec![
            "name",
            "Name",
            "IPAM",
            "ipam",
            "type",
            "Type",
            "ranges",
            "Ranges",
            "subnet",
            "SUBNET",
            "dns",
            "Dns",
            "options",
            "runtimeConfig",
            "RuntimeConfig",
            "portMappings",
            "PORTMAPPINGS",
            "hostPort",
            "HostPort",
            "prevResult",
            "prevresult",
            "ips",
            "IPs",
            "address",
            "Address",
            "ip4",
            "IP4",
            "routes",
            "Routes",
            "dst",
            "Dst",
            "args",
            "cni",
            "labels",
            "zz",
        ]);
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec((key.clone().prop_map(str::to_owned), inner), 0..6)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(value in json_like()) {
            if let Value::Object(object) = value {
                let once = normalise(object, &[&NETWORK]);
                prop_assert_eq!(normalise(once.clone(), &[&NETWORK]), once);
            }
        }

        #[test]
        fn no_known_key_is_left_in_another_spelling(value in json_like()) {
            if let Value::Object(object) = value {
                for key in normalise(object, &[&NETWORK]).keys() {
                    prop_assert!(NETWORK.find(key).is_none_or(|(name, _)| name == key), "{}", key);
                }
            }
        }
    }
}
