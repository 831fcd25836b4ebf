//! The configuration, with the texts of the reference plugins 1.9.1 where they say one.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use berth_ipam::{DEFAULT_QUARANTINE, PoolConfig, parse_requested};
use berth_types::Family;
use serde_json::{Value, json};

fn refusal(ipam: &Value) -> String {
    let err = PoolConfig::parse(ipam, None).unwrap_err();
    assert!(!err.details().is_empty());
    err.to_string()
}

fn range(range: Value) -> Value {
    json!({"ranges": [[range]]})
}

#[test]
fn refusals_say_what_the_reference_says() {
    for (ipam, expected) in [
        (range(json!({"subnet": "10.80.0.0/99"})), "invalid CIDR address: 10.80.0.0/99"),
        (range(json!({"subnet": "10.80.0.0"})), "invalid CIDR address: 10.80.0.0"),
        (
            range(json!({"subnet": "10.80.0.0/255.255.255.0"})),
            "invalid CIDR address: 10.80.0.0/255.255.255.0",
        ),
        (
            range(json!({"subnet": "10.80.0.0/31"})),
            "invalid range set 0: Network 10.80.0.0/31 too small to allocate from",
        ),
        (
            range(json!({"subnet": "10.80.0.1/32"})),
            "invalid range set 0: Network 10.80.0.1/32 too small to allocate from",
        ),
        (
            range(json!({"subnet": "fd80::/127"})),
            "invalid range set 0: Network fd80::/127 too small to allocate from",
        ),
        (
            range(json!({"subnet": "10.80.0.5/24"})),
            "invalid range set 0: Network has host bits set. For a subnet mask of length 24 the network address is 10.80.0.0",
        ),
        (
            range(json!({"subnet": "10.80.0.0/24", "rangeStart": "10.81.0.1"})),
            "invalid range set 0: RangeStart 10.81.0.1 not in network 10.80.0.0/24",
        ),
        (
            range(json!({"subnet": "10.80.0.0/24", "rangeEnd": "10.81.0.1"})),
            "invalid range set 0: RangeEnd 10.81.0.1 not in network 10.80.0.0/24",
        ),
        (
            range(json!({"subnet": "10.80.0.0/24", "rangeStart": "10.80.0.9", "rangeEnd": "10.80.0.8"})),
            "invalid range set 0: RangeEnd 10.80.0.8 not in network 10.80.0.0/24 after RangeStart 10.80.0.9",
        ),
        (range(json!({"subnet": "10.80.0.0/24", "rangeStart": "x"})), "invalid IP address: x"),
        (json!({}), "no IP ranges specified"),
        (json!({"ranges": null}), "no IP ranges specified"),
        (json!({"ranges": [[]]}), "invalid range set 0: empty range set"),
        (json!({"ranges": [[{}]]}), "invalid range set 0: range has no subnet"),
        (
            json!({"ranges": [[{"subnet": "10.80.0.0/24"}, {"subnet": "fd80::/64"}]]}),
            "invalid range set 0: mixed address families",
        ),
        (
            json!({"ranges": [[{"subnet": "10.80.0.0/24"}], [{"subnet": "10.81.0.0/24"}, {"subnet": "10.81.0.128/25"}]]}),
            "invalid range set 1: subnets 10.81.0.1-10.81.0.254 and 10.81.0.129-10.81.0.254 overlap",
        ),
        (
            json!({"ranges": [[{"subnet": "10.80.0.0/24"}], [{"subnet": "fd80::/64"}], [{"subnet": "10.80.0.0/25"}]]}),
            "range set 0 overlaps with 2",
        ),
        (json!({"ranges": {}}), "ipam.ranges is an object, not a list"),
        (json!({"ranges": [[{"subnet": 10}]]}), "ipam.ranges[0][0].subnet is a number, not a text"),
        (json!([]), "ipam is a list, not an object"),
        (
            json!({"subnet": "10.80.0.0/24", "routes": [{"gw": "10.80.0.1"}]}),
            "ipam.routes[0].dst is null, not a prefix",
        ),
        (
            json!({"subnet": "10.80.0.0/24", "routes": [{"dst": "0.0.0.0/x"}]}),
            "invalid CIDR address: 0.0.0.0/x",
        ),
        (
            json!({"subnet": "10.80.0.0/24", "exclude": ["10.80.0.9-10.80.0.1"]}),
            "invalid ipam.exclude[0]: `10.80.0.9-10.80.0.1` is not an address, a prefix (10.80.0.0/28) or a range (10.80.0.5-10.80.0.9)",
        ),
        (
            json!({"subnet": "10.80.0.0/24", "quarantine": -1}),
            "ipam.quarantine is a number, not a whole number in its bounds",
        ),
        (json!({"subnet": "10.80.0.0/24", "sticky": "yes"}), "ipam.sticky is a text, not true or false"),
    ] {
        assert_eq!(refusal(&ipam), expected);
    }
}

#[test]
fn ends_and_gateway_have_the_reference_s_defaults() {
    for (subnet, span, gateway) in [
        ("10.80.0.0/24", "10.80.0.1-10.80.0.254", "10.80.0.1"),
        ("10.80.0.0/30", "10.80.0.1-10.80.0.2", "10.80.0.1"),
        ("fd80::/64", "fd80::1-fd80::ffff:ffff:ffff:ffff", "fd80::1"),
        ("fd80::4/126", "fd80::5-fd80::7", "fd80::5"),
    ] {
        let pools = PoolConfig::parse(&json!({"subnet": subnet}), None).unwrap();
        let range = pools.sets[0].ranges()[0];
        assert_eq!(
            (range.span().to_string(), range.gateway().to_string()),
            (span.to_owned(), gateway.to_owned())
        );
        assert_eq!(pools.sets[0].to_string(), span);
    }
}

#[test]
fn runtime_ranges_come_first_and_the_top_level_subnet_next() {
    let ipam =
        json!({"subnet": "10.81.0.0/24", "gateway": "10.81.0.254", "ranges": [[{"subnet": "fd80::/64"}]]});
    let runtime =
        json!([[{"subnet": "10.82.0.0/24"}], [{"subnet": "10.83.0.0/24"}, {"subnet": "10.84.0.0/24"}]]);
    let pools = PoolConfig::parse(&ipam, Some(&runtime)).unwrap();
    let texts: Vec<String> = pools.sets.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "10.82.0.1-10.82.0.254",
            "10.83.0.1-10.83.0.254,10.84.0.1-10.84.0.254",
            "10.81.0.1-10.81.0.254",
            "fd80::1-fd80::ffff:ffff:ffff:ffff"
        ]
    );
    assert_eq!((pools.addresses_of(Family::V4), pools.addresses_of(Family::V6)), (3, 1));
    assert_eq!(pools.sets[2].ranges()[0].gateway().to_string(), "10.81.0.254");
    assert!(PoolConfig::parse(&json!({}), Some(&runtime)).is_ok());
}

#[test]
fn the_other_keys_are_read_and_their_absence_is_a_default() {
    let ipam = json!({
        "type": "host-local", "subnet": "10.80.0.0/24", "rangeStart": "", "gateway": null,
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.80.0.7", "mtu": 1400, "table": 0, "scope": 253}],
        "resolvConf": "/etc/resolv.conf", "dataDir": "/data",
        "reserved": ["10.80.0.5"], "exclude": ["10.80.0.8/29", "10.80.0.20-10.80.0.30"], "quarantine": 5, "sticky": true
    });
    let pools = PoolConfig::parse(&ipam, None).unwrap();
    assert_eq!((pools.routes.len(), pools.routes[1].mtu, pools.routes[1].table), (2, 1400, Some(0)));
    assert_eq!((pools.routes[0].table, pools.routes[1].scope), (None, Some(253)));
    assert_eq!(pools.resolv_conf.as_deref(), Some("/etc/resolv.conf".as_ref()));
    assert_eq!(pools.data_dir.as_deref(), Some("/data".as_ref()));
    assert_eq!(
        (pools.reserved.len(), pools.exclude.len(), pools.quarantine.as_secs(), pools.sticky),
        (1, 2, 5, true)
    );
    let bare = PoolConfig::parse(&json!({"subnet": "10.80.0.0/24"}), None).unwrap();
    assert_eq!((bare.quarantine, bare.sticky, bare.resolv_conf), (DEFAULT_QUARANTINE, false, None));
}

#[test]
fn a_requested_address_may_have_a_prefix_length() {
    for (text, expected) in [
        ("10.80.0.7", "10.80.0.7"),
        ("10.80.0.7/16", "10.80.0.7"),
        ("::ffff:10.80.0.7", "10.80.0.7"),
        ("fd80::7/64", "fd80::7"),
    ] {
        assert_eq!(parse_requested(text).unwrap().to_string(), expected);
    }
    assert_eq!(parse_requested("10.80.0").unwrap_err().to_string(), "invalid IP address: 10.80.0");
    assert_eq!(parse_requested("10.80.0.7/x").unwrap_err().to_string(), "invalid CIDR address: 10.80.0.7/x");
}
