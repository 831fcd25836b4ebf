use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A result that uses everything the newest version can tell.
fn full() -> CniResult {
    let sandbox = Some("/run/netns/c0".to_owned());
    CniResult {
        interfaces: vec![
            Interface {
                name: "br0".into(),
                mac: "c2:b0:57:49:47:01".into(),
                mtu: 1500,
                ..Interface::default()
            },
            Interface {
                name: "eth0".into(),
                mac: "c2:b0:57:49:47:02".into(),
                sandbox,
                pci_id: "0000:01:00.0".into(),
                ..Interface::default()
            },
            Interface { name: "vhost0".into(), socket_path: "/run/v.sock".into(), ..Interface::default() },
        ],
        ips: vec![
            ip("10.80.0.2/24", Some("10.80.0.1"), Some(1)),
            ip("fd80::2/64", None, Some(1)),
            ip("10.81.0.2/24", None, Some(0)),
        ],
        routes: vec![
            Route::new("0.0.0.0/0".parse().unwrap(), Some("10.80.0.1".parse().unwrap())),
            Route {
                mtu: 1400,
                advmss: 1360,
                priority: 100,
                table: Some(0),
                scope: Some(253),
                ..Route::new("fd00::/8".parse().unwrap(), None)
            },
        ],
        dns: Dns {
            nameservers: vec!["10.80.0.1".into()],
            domain: "d".into(),
            search: vec!["s".into()],
            options: vec!["ndots:2".into()],
        },
    }
}

fn ip(address: &str, gateway: Option<&str>, interface: Option<usize>) -> IpConfig {
    IpConfig {
        interface,
        address: address.parse().unwrap(),
        gateway: gateway.map(|text| text.parse().unwrap()),
    }
}

fn text(result: &CniResult, version: CniVersion) -> String {
    String::from_utf8(result.to_json(version).unwrap()).unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("not an object") };
    object
}

#[test]
fn a_full_result_in_every_form() {
    use CniVersion::*;
    insta::assert_snapshot!(text(&full(), V0_1_0), @r#"{"cniVersion":"0.1.0","ip4":{"ip":"10.80.0.2/24","gateway":"10.80.0.1","routes":[{"dst":"0.0.0.0/0","gw":"10.80.0.1"}]},"ip6":{"ip":"fd80::2/64","routes":[{"dst":"fd00::/8"}]},"dns":{"nameservers":["10.80.0.1"],"domain":"d","search":["s"],"options":["ndots:2"]}}"#);
    insta::assert_snapshot!(text(&full(), V0_4_0), @r#"{"cniVersion":"0.4.0","interfaces":[{"name":"br0","mac":"c2:b0:57:49:47:01"},{"name":"eth0","mac":"c2:b0:57:49:47:02","sandbox":"/run/netns/c0"},{"name":"vhost0"}],"ips":[{"version":"4","interface":1,"address":"10.80.0.2/24","gateway":"10.80.0.1"},{"version":"6","interface":1,"address":"fd80::2/64"},{"version":"4","interface":0,"address":"10.81.0.2/24"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.80.0.1"},{"dst":"fd00::/8","mtu":1400,"advmss":1360,"priority":100,"table":0,"scope":253}],"dns":{"nameservers":["10.80.0.1"],"domain":"d","search":["s"],"options":["ndots:2"]}}"#);
    insta::assert_snapshot!(text(&full(), V1_0_0), @r#"{"cniVersion":"1.0.0","interfaces":[{"name":"br0","mac":"c2:b0:57:49:47:01"},{"name":"eth0","mac":"c2:b0:57:49:47:02","sandbox":"/run/netns/c0"},{"name":"vhost0"}],"ips":[{"interface":1,"address":"10.80.0.2/24","gateway":"10.80.0.1"},{"interface":1,"address":"fd80::2/64"},{"interface":0,"address":"10.81.0.2/24"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.80.0.1"},{"dst":"fd00::/8","mtu":1400,"advmss":1360,"priority":100,"table":0,"scope":253}],"dns":{"nameservers":["10.80.0.1"],"domain":"d","search":["s"],"options":["ndots:2"]}}"#);
    insta::assert_snapshot!(text(&full(), V1_1_0), @r#"{"cniVersion":"1.1.0","interfaces":[{"name":"br0","mac":"c2:b0:57:49:47:01","mtu":1500},{"name":"eth0","mac":"c2:b0:57:49:47:02","sandbox":"/run/netns/c0","pciID":"0000:01:00.0"},{"name":"vhost0","socketPath":"/run/v.sock"}],"ips":[{"interface":1,"address":"10.80.0.2/24","gateway":"10.80.0.1"},{"interface":1,"address":"fd80::2/64"},{"interface":0,"address":"10.81.0.2/24"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.80.0.1"},{"dst":"fd00::/8","mtu":1400,"advmss":1360,"priority":100,"table":0,"scope":253}],"dns":{"nameservers":["10.80.0.1"],"domain":"d","search":["s"],"options":["ndots:2"]}}"#);
    for (one, other) in [(V0_1_0, V0_2_0), (V0_3_0, V0_4_0), (V0_3_1, V0_4_0)] {
        assert_eq!(text(&full(), one).replacen(one.as_str(), other.as_str(), 1), text(&full(), other));
    }
}

/// The shapes of the reference plugins' answers for a bridge with one IPv4 address, by version.
#[test]
fn answers_have_the_references_shape_in_every_version() {
    let result = CniResult {
        interfaces: vec![
            Interface { name: "br0".into(), mac: "MAC".into(), mtu: 1500, ..Interface::default() },
            Interface { name: "VETH0".into(), mac: "MAC".into(), mtu: 1500, ..Interface::default() },
            Interface {
                name: "eth0".into(),
                mac: "MAC".into(),
                sandbox: Some("NS0".into()),
                ..Interface::default()
            },
        ],
        ips: vec![ip("10.80.0.2/24", Some("10.80.0.1"), Some(2))],
        ..CniResult::default()
    };
    let interfaces = json!([{"mac": "MAC", "name": "br0"}, {"mac": "MAC", "name": "VETH0"}, {"mac": "MAC", "name": "eth0", "sandbox": "NS0"}]);
    for version in CniVersion::ALL {
        let expected = match version.as_str() {
            "0.1.0" | "0.2.0" => {
                json!({"cniVersion": version.as_str(), "dns": {}, "ip4": {"gateway": "10.80.0.1", "ip": "10.80.0.2/24"}})
            }
            "0.3.0" | "0.3.1" | "0.4.0" => {
                json!({"cniVersion": version.as_str(), "dns": {}, "interfaces": interfaces,
                "ips": [{"address": "10.80.0.2/24", "gateway": "10.80.0.1", "interface": 2, "version": "4"}]})
            }
            "1.0.0" => json!({"cniVersion": "1.0.0", "interfaces": interfaces,
                "ips": [{"address": "10.80.0.2/24", "gateway": "10.80.0.1", "interface": 2}]}),
            _ => {
                let mut interfaces = interfaces.clone();
                (interfaces[0]["mtu"], interfaces[1]["mtu"]) = (json!(1500), json!(1500));
                json!({"cniVersion": "1.1.0", "interfaces": interfaces,
                    "ips": [{"address": "10.80.0.2/24", "gateway": "10.80.0.1", "interface": 2}]})
            }
        };
        let told: Value = serde_json::from_slice(&result.to_json(*version).unwrap()).unwrap();
        assert_eq!(told, expected, "{version}");
    }
}

#[test]
fn an_empty_result_in_every_form() {
    let empty = CniResult::default();
    for version in CniVersion::ALL {
        match empty.to_json(*version) {
            Ok(line) if *version < CniVersion::V1_0_0 => {
                assert_eq!(
                    String::from_utf8(line).unwrap(),
                    format!("{{\"cniVersion\":\"{version}\",\"dns\":{{}}}}\n")
                );
            }
            Ok(line) => {
                assert_eq!(String::from_utf8(line).unwrap(), format!("{{\"cniVersion\":\"{version}\"}}\n"))
            }
            Err(error) => {
                assert!(*version < CniVersion::V0_3_0);
                let error = CniError::from(error);
                assert_eq!(
                    (error.code.number(), error.msg.as_str()),
                    (999, "cannot convert: no valid IP addresses")
                );
            }
        }
    }
}

#[test]
fn an_ipam_result_is_read_in_every_version() {
    let expected = CniResult {
        ips: vec![ip("10.0.0.2/24", Some("10.0.0.1"), None)],
        routes: vec![Route::new("0.0.0.0/0".parse().unwrap(), None)],
        ..CniResult::default()
    };
    for version in CniVersion::ALL {
        let sent = if *version < CniVersion::V0_3_0 {
            json!({"cniVersion": version.as_str(), "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]}, "dns": {}})
        } else {
            json!({"cniVersion": version.as_str(), "ips": [{"version": "4", "address": "10.0.0.2/24", "gateway": "10.0.0.1"}], "routes": [{"dst": "0.0.0.0/0", "gw": ""}], "dns": {}})
        };
        let without_version =
            Map::from_iter(object(sent.clone()).into_iter().filter(|(key, _)| key != "cniVersion"));
        assert_eq!(
            CniResult::from_object(object(sent), CniVersion::LATEST).as_ref(),
            Ok(&expected),
            "{version}"
        );
        assert_eq!(CniResult::from_object(without_version, *version).as_ref(), Ok(&expected), "{version}");
    }
    assert_eq!(CniResult::from_json(b"null", CniVersion::V0_4_0), Ok(CniResult::default()));
}

#[test]
fn other_spellings_nulls_and_unknown_keys_are_read() {
    let sent = json!({
        "CNIVersion": "1.0.0", "Interfaces": [{"Name": "eth0", "Mac": null, "Sandbox": "", "colour": 1}],
        "IPs": [{"Address": "10.0.0.2/24", "Gateway": null, "Interface": null}], "routes": null, "DNS": null, "extra": {},
    });
    let expected = CniResult {
        interfaces: vec![Interface { name: "eth0".into(), ..Interface::default() }],
        ips: vec![ip("10.0.0.2/24", None, None)],
        ..CniResult::default()
    };
    assert_eq!(CniResult::from_object(object(sent), CniVersion::LATEST), Ok(expected));
}

#[test]
fn malformed_results_are_refused_by_place() {
    for (sent, message) in [
        (json!({"cniVersion": "9.0.0"}), "unsupported result version `9.0.0`"),
        (json!({"cniVersion": 1}), "invalid `cniVersion`: invalid type: integer `1`, expected a string"),
        (json!({"ips": {}}), "invalid `ips`: it is an object, not an array"),
        (
            json!({"ips": [{"address": "10.0.0.1/24"}, {"address": "10.0.0.2"}]}),
            "invalid `ips[1]`: invalid CIDR address: 10.0.0.2",
        ),
        (json!({"ips": [{"address": "10.0.0.1/33"}]}), "invalid `ips[0]`: invalid CIDR address: 10.0.0.1/33"),
        (
            json!({"ips": [{"address": "10.0.0.1/255.255.255.0"}]}),
            "invalid `ips[0]`: invalid CIDR address: 10.0.0.1/255.255.255.0",
        ),
        (json!({"ips": [{"address": "10.0.0.1/+8"}]}), "invalid `ips[0]`: invalid CIDR address: 10.0.0.1/+8"),
        (
            json!({"ips": [{"address": "10.0.0.1/8", "interface": -1}]}),
            "invalid `ips[0]`: invalid value: integer `-1`, expected u32",
        ),
        (json!({"ips": [null]}), "invalid `ips[0]`: invalid type: null, expected struct WireIp"),
        (json!({"routes": [{"gw": "10.0.0.1"}]}), "invalid `routes[0]`: missing field `dst`"),
        (json!({"routes": [{"dst": "::/0", "gw": "x"}]}), "invalid `routes[0]`: invalid IP address: x"),
        (
            json!({"routes": [{"dst": "::/0", "scope": 256}]}),
            "invalid `routes[0]`: invalid value: integer `256`, expected u8",
        ),
        (json!({"interfaces": [{"mac": ""}]}), "invalid `interfaces[0]`: missing field `name`"),
        (json!({"cniVersion": "0.2.0", "ip4": {"gateway": "10.0.0.1"}}), "invalid `ip4.ip`: it is missing"),
        (
            json!({"cniVersion": "0.2.0", "ip4": 5}),
            "invalid `ip4`: invalid type: integer `5`, expected a map",
        ),
        (
            json!({"cniVersion": "0.2.0", "ip6": {"ip": "::1/128", "routes": [{}]}}),
            "invalid `ip6.routes[0]`: missing field `dst`",
        ),
    ] {
        let error = CniResult::from_object(object(sent.clone()), CniVersion::LATEST).unwrap_err();
        assert_eq!(error.to_string(), message, "{sent}");
    }
}

/// What `version` can tell of `result`, with the interfaces as the version knows them.
fn tellable(mut result: CniResult, version: CniVersion) -> CniResult {
    if version < CniVersion::V1_1_0 {
        for interface in &mut result.interfaces {
            let Interface { name, mac, sandbox, .. } = std::mem::take(interface);
            *interface = Interface { name, mac, sandbox, ..Interface::default() };
        }
    }
    if version < CniVersion::V0_3_0 {
        let first = |family| result.first_ip(family).map(|ip| IpConfig { interface: None, ..*ip });
        let ips: Vec<IpConfig> = [first(Family::V4), first(Family::V6)].into_iter().flatten().collect();
        let told = |family: Family| ips.iter().any(|ip| Family::of(ip.address.ip()) == family);
        let mut routes: Vec<Route> =
            result.routes.iter().map(|route| Route::new(route.dst, route.gw)).collect();
        routes.retain(|route| told(Family::of(route.dst.ip())));
        routes.sort_by_key(|route| Family::of(route.dst.ip()));
        result = CniResult { interfaces: Vec::new(), ips, routes, dns: result.dns };
    }
    result
}

fn any_address() -> impl Strategy<Value = IpNetwork> {
    prop_oneof![
        (any::<std::net::Ipv4Addr>(), 0_u8..=32).prop_map(|(addr, prefix)| IpNetwork::new(
            addr.into(),
            prefix
        )
        .unwrap()),
        (any::<std::net::Ipv6Addr>(), 0_u8..=128).prop_map(|(addr, prefix)| IpNetwork::new(
            addr.into(),
            prefix
        )
        .unwrap()),
    ]
}

fn any_result() -> impl Strategy<Value = CniResult> {
    let word = || "[a-z0-9./: ü\"\\\\]{0,8}";
    let interface = (word(), word(), any::<u32>(), prop::option::of("[a-z/]{1,8}"), word(), word()).prop_map(
        |(name, mac, mtu, sandbox, socket_path, pci_id)| Interface {
            name,
            mac,
            mtu,
            sandbox,
            socket_path,
            pci_id,
        },
    );
    let ip = (prop::option::of(0_usize..9), any_address(), any::<Option<IpAddr>>())
        .prop_map(|(interface, address, gateway)| IpConfig { interface, address, gateway });
    let route = (
        any_address(),
        any::<Option<IpAddr>>(),
        any::<(u32, u32, u32)>(),
        any::<Option<u32>>(),
        any::<Option<u8>>(),
    )
        .prop_map(|(dst, gw, (mtu, advmss, priority), table, scope)| Route {
            dst,
            gw,
            mtu,
            advmss,
            priority,
            table,
            scope,
        });
    let words = || prop::collection::vec("[a-z]{0,5}", 0..3);
    let dns = (words(), word(), words(), words()).prop_map(|(nameservers, domain, search, options)| Dns {
        nameservers,
        domain,
        search,
        options,
    });
    let many = |size| 0..size;
    (
        prop::collection::vec(interface, many(4)),
        prop::collection::vec(ip, many(4)),
        prop::collection::vec(route, many(4)),
        dns,
    )
        .prop_map(|(interfaces, ips, routes, dns)| CniResult { interfaces, ips, routes, dns })
}

proptest! {
    #[test]
    fn a_result_keeps_what_its_version_can_tell(result in any_result(), version in prop::sample::select(CniVersion::ALL)) {
        match result.to_json(version) {
            Ok(line) => {
                prop_assert_eq!(CniResult::from_json(&line, CniVersion::LATEST), Ok(tellable(result, version)));
            }
            Err(error) => {
                prop_assert_eq!(error, ConvertError::NoAddresses);
                prop_assert!(version < CniVersion::V0_3_0 && result.ips.is_empty());
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in any::<Vec<u8>>(), version in prop::sample::select(CniVersion::ALL)) {
        let _ = CniResult::from_json(&bytes, version);
    }
}
