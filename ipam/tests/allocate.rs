//! Which address is given, and why one is not.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::HashSet;
use std::path::PathBuf;

use berth_ipam::{AllocateError, Refusal, Request, has_room, leases, release_in};
use berth_types::SandboxId;
use common::{Host, key, pool_of, pools, request, requesting, texts};
use serde_json::json;

#[test]
fn addresses_are_given_in_turn_without_the_gateway() {
    let mut host = Host::new();
    let pools = pools(&json!({"ranges": [[{"subnet": "10.80.0.0/24"}]]}));
    let given = host.ask(&pools, &request("a")).unwrap();
    assert_eq!(given.addresses[0].address.to_string(), "10.80.0.2/24");
    assert_eq!(given.addresses[0].gateway, Some("10.80.0.1".parse().unwrap()));
    assert_eq!(host.take_back("a"), 1);
    assert_eq!(
        host.give(&pools, "b").unwrap(),
        "10.80.0.3/24",
        "a freed address rests while others were never used"
    );
    assert_eq!(host.take_back("a"), 0, "a deletion may come twice");
}

#[test]
fn the_same_owner_is_given_the_same_addresses() {
    let mut host = Host::new();
    let pools = pools(&json!({"ranges": [[{"subnet": "10.80.0.0/24"}], [{"subnet": "fd80::/64"}]]}));
    assert_eq!(host.give(&pools, "a").unwrap(), "10.80.0.2/24 fd80::2/64");
    let moved = Request {
        sandbox: Some((PathBuf::from("/run/netns/x"), SandboxId { dev: 1, ino: 2 })),
        ..request("a")
    };
    assert_eq!(texts(host.ask(&pools, &moved)).unwrap(), "10.80.0.2/24 fd80::2/64");
    let held = host.store.read(|tx| leases(tx, &key("a").network)).unwrap();
    assert!(held.len() == 2 && held.iter().all(|lease| lease.sandbox == moved.sandbox));
    assert_eq!(texts(host.ask(&pools, &requesting("a", &["10.80.0.2"]))).unwrap(), "10.80.0.2/24 fd80::2/64");
    assert_eq!(
        texts(host.ask(&pools, &requesting("a", &["10.80.0.9"]))).unwrap_err(),
        "failed to allocate for range 0: requested IP address 10.80.0.9 is not available to a/eth0 on n0, which holds 10.80.0.2 already"
    );
}

#[test]
fn network_and_broadcast_addresses_are_nobody_s() {
    let mut host = Host::new();
    let pools = pools(&json!({"ranges": [[{
        "subnet": "10.80.0.0/30", "rangeStart": "10.80.0.0", "rangeEnd": "10.80.0.3", "gateway": "10.80.0.2"}]]}));
    assert_eq!(host.give(&pools, "a").unwrap(), "10.80.0.1/30");
    assert!(host.give(&pools, "b").is_err());
    let err = host.ask(&pools, &requesting("b", &["10.80.0.3"])).unwrap_err();
    assert!(err.details().contains("10.80.0.3 is the broadcast address"), "{}", err.details());
}

#[test]
fn a_full_pool_names_its_holders() {
    let mut host = Host::new();
    let pools = pool_of("10.80.0.20", "10.80.0.20");
    let sandbox = Some((PathBuf::from("/run/netns/x"), SandboxId { dev: 1, ino: 2 }));
    assert!(host.store.read(|tx| has_room(tx, &pools, &key("a").network)).unwrap());
    let given = host.ask(&pools, &Request { sandbox, ..request("a") }).unwrap();
    assert_eq!(given.addresses[0].address.to_string(), "10.80.0.20/24");
    let err = host.ask(&pools, &request("b")).unwrap_err();
    assert_eq!(
        err.to_string(),
        "failed to allocate for range 0: no IP addresses available in range set: 10.80.0.20-10.80.0.20"
    );
    assert_eq!(
        err.details(),
        "1 of 1 addresses are held: 10.80.0.20 by a/eth0 on n0 (/run/netns/x); remove containers, or give the network a larger range"
    );
    assert!(!host.store.read(|tx| has_room(tx, &pools, &key("a").network)).unwrap());
    host.take_back("a");
    assert_eq!(
        host.give(&pools, "b").unwrap(),
        "10.80.0.20/24",
        "the last address does not wait for its quarantine"
    );
}

#[test]
fn a_requested_address_is_given_or_refused_with_its_holder() {
    let mut host = Host::new();
    let pools = pools(&json!({"ranges": [[{"subnet": "10.80.0.0/24"}]]}));
    assert_eq!(
        texts(host.ask(&pools, &requesting("a", &["10.80.0.1"]))).unwrap_err(),
        "failed to allocate for range 0: requested ip 10.80.0.1 is subnet's gateway"
    );
    assert_eq!(texts(host.ask(&pools, &requesting("a", &["10.80.0.7"]))).unwrap(), "10.80.0.7/24");
    let err = host.ask(&pools, &requesting("b", &["10.80.0.7"])).unwrap_err();
    assert_eq!(
        err.to_string(),
        "failed to allocate for range 0: requested IP address 10.80.0.7 is not available in range set 10.80.0.1-10.80.0.254"
    );
    assert_eq!(
        err.details(),
        "10.80.0.7 is held by a/eth0 on n0; remove that container or ask for another address"
    );
    for (asked, unused) in
        [(&["10.99.0.1"][..], "10.99.0.1"), (&["10.80.0.8", "10.80.0.9", "10.80.0.8"], "10.80.0.9")]
    {
        let err = host.ask(&pools, &requesting("b", asked)).unwrap_err();
        assert!(matches!(err, AllocateError::Unused { .. }));
        assert_eq!(err.to_string(), format!("failed to allocate all requested IPs: {unused}"));
    }
    assert_eq!(
        host.store.read(|tx| leases(tx, &key("a").network)).unwrap().len(),
        1,
        "a refusal leaves nothing"
    );
}

#[test]
fn an_address_of_a_dead_owner_is_given_on_request_and_in_a_shortage() {
    let mut host = Host::new();
    let pools = pool_of("10.80.0.2", "10.80.0.5");
    for name in ["a", "b", "c"] {
        host.give(&pools, name).unwrap();
    }
    let mut asked = 0;
    let given = host.ask_with(&pools, &request("d"), |_| {
        asked += 1;
        true
    });
    assert_eq!(
        (texts(given).unwrap().as_str(), asked),
        ("10.80.0.5/24", 0),
        "nobody is declared dead without need"
    );
    let given =
        host.ask_with(&pools, &requesting("e", &["10.80.0.3"]), |lease| lease.owner == key("b")).unwrap();
    assert_eq!(given.reclaimed.iter().map(|lease| &lease.owner).collect::<Vec<_>>(), [&key("b")]);
    let given = host.ask_with(&pools, &request("f"), |lease| lease.owner == key("c")).unwrap();
    assert_eq!(given.reclaimed[0].address, given.addresses[0].address.ip());
    let refused = host.ask(&pools, &request("g"));
    assert!(
        matches!(&refused, Err(AllocateError::Range { reason, .. }) if matches!(**reason, Refusal::Exhausted(_)))
    );
}

#[test]
fn ranges_of_a_set_are_used_in_order() {
    let mut host = Host::new();
    let pools = pools(&json!({"ranges": [[
        {"subnet": "10.80.0.0/24", "rangeStart": "10.80.0.9", "rangeEnd": "10.80.0.10"},
        {"subnet": "10.81.0.0/16", "rangeStart": "10.81.0.1", "rangeEnd": "10.81.0.2"}]]}));
    let given: Vec<String> = ["a", "b", "c"].iter().map(|name| host.give(&pools, name).unwrap()).collect();
    assert_eq!(given, ["10.80.0.9/24", "10.80.0.10/24", "10.81.0.2/16"]);
    let err = host.give(&pools, "d").unwrap_err();
    assert!(err.ends_with("range set: 10.80.0.9-10.80.0.10,10.81.0.1-10.81.0.2"), "{err}");
    host.take_back("c");
    host.now += 1;
    host.take_back("a");
    assert_eq!(host.give(&pools, "e").unwrap(), "10.81.0.2/16", "the one that is free for the longest time");
}

#[test]
fn excluded_addresses_are_never_given_and_reserved_ones_only_on_request() {
    let mut host = Host::new();
    let config = |extra: serde_json::Value| {
        let mut ipam = json!({"ranges": [[{"subnet": "10.80.0.0/28"}]]});
        ipam.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        pools(&ipam)
    };
    let narrow =
        config(json!({"exclude": ["10.80.0.2-10.80.0.4"], "reserved": ["10.80.0.5", "10.80.0.8/29"]}));
    assert_eq!(host.give(&narrow, "a").unwrap(), "10.80.0.6/28");
    assert_eq!(texts(host.ask(&narrow, &requesting("b", &["10.80.0.5"]))).unwrap(), "10.80.0.5/28");
    let err = host.ask(&narrow, &requesting("c", &["10.80.0.3"])).unwrap_err();
    assert_eq!(err.details(), "10.80.0.3 is excluded by the configuration; ask for another address");
    host.take_back("b");
    assert_eq!(host.give(&narrow, "c").unwrap(), "10.80.0.7/28");
    assert!(host.give(&narrow, "d").is_err());
    // The configuration is relaxed: every address that is free now is found, whatever happened to it before.
    let wide = config(json!({}));
    let given: Vec<String> = (0..11).map(|n| host.give(&wide, &format!("w{n}")).unwrap()).collect();
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), 11);
    assert!(host.give(&wide, "more").is_err());
    host.take_back("c");
    assert_eq!(
        host.give(&narrow, "back").unwrap(),
        "10.80.0.7/28",
        "the old configuration finds what is its own"
    );
}

#[test]
fn leases_of_a_gone_container_are_released_by_gc_and_no_others() {
    let mut host = Host::new();
    let pools = pools(&json!({"ranges": [[{"subnet": "10.80.0.0/24"}], [{"subnet": "fd80::/64"}]]}));
    for name in ["a", "b"] {
        host.give(&pools, name).unwrap();
    }
    let elsewhere = Request {
        owner: {
            let mut key = key("a");
            key.network = "n1".parse().unwrap();
            key
        },
        ..request("a")
    };
    assert_eq!(
        texts(host.ask(&pools, &elsewhere)).unwrap(),
        "10.80.0.2/24 fd80::2/64",
        "networks do not share"
    );
    let valid = HashSet::from([key("b")]);
    let now = host.time();
    let gone = host.store.write(|tx| release_in(tx, &key("a").network, &valid, now)).unwrap();
    assert!(gone.len() == 2 && gone.iter().all(|lease| lease.owner == key("a")));
    assert_eq!(host.store.read(|tx| leases(tx, &key("b").network)).unwrap().len(), 2);
    assert_eq!(host.store.read(|tx| leases(tx, &elsewhere.owner.network)).unwrap().len(), 2);
}

#[test]
fn a_data_directory_sets_networks_of_one_name_apart() {
    let mut host = Host::new();
    let there = pools(&json!({"subnet": "10.80.0.0/24", "dataDir": "/data"}));
    let here = pools(&json!({"subnet": "10.80.0.0/24"}));
    assert_eq!(host.give(&here, "a").unwrap(), "10.80.0.2/24");
    assert_eq!(host.give(&there, "b").unwrap(), "10.80.0.2/24");
}

#[test]
fn a_reboot_frees_what_was_held_and_a_name_keeps_its_address() {
    let mut host = Host::new();
    let pools =
        pools(&json!({"ranges": [[{"subnet": "10.80.0.0/24"}], [{"subnet": "fd80::/64"}]], "sticky": true}));
    let named = |container: &str, name: &str| Request { sticky: Some(name.to_owned()), ..request(container) };
    host.give(&pools, "x").unwrap();
    assert_eq!(texts(host.ask(&pools, &named("a", "web"))).unwrap(), "10.80.0.3/24 fd80::3/64");
    // A second container of the name gets others, and does not take the name's own.
    assert_eq!(texts(host.ask(&pools, &named("b", "web"))).unwrap(), "10.80.0.4/24 fd80::4/64");
    host.take_back("a");
    host.take_back("b");
    assert_eq!(texts(host.ask(&pools, &named("c", "web"))).unwrap(), "10.80.0.3/24 fd80::3/64");
    host.reboot("boot-1");
    let given: Vec<String> = ["p", "q", "r"].iter().map(|name| host.give(&pools, name).unwrap()).collect();
    assert_eq!(given, ["10.80.0.2/24 fd80::2/64", "10.80.0.4/24 fd80::4/64", "10.80.0.5/24 fd80::5/64"]);
    assert_eq!(texts(host.ask(&pools, &named("d", "web"))).unwrap(), "10.80.0.3/24 fd80::3/64");
}

#[test]
fn a_kept_address_is_given_to_others_only_when_no_other_is_left() {
    let mut host = Host::new();
    let pools = pool_of("10.80.0.2", "10.80.0.4");
    let named = |container: &str, name: &str| Request { sticky: Some(name.to_owned()), ..request(container) };
    assert_eq!(texts(host.ask(&pools, &named("a", "web"))).unwrap(), "10.80.0.2/24");
    host.take_back("a");
    assert_eq!(host.give(&pools, "b").unwrap(), "10.80.0.3/24");
    host.take_back("b");
    assert_eq!(host.give(&pools, "c").unwrap(), "10.80.0.4/24");
    assert_eq!(host.give(&pools, "d").unwrap(), "10.80.0.3/24");
    assert_eq!(host.give(&pools, "e").unwrap(), "10.80.0.2/24");
    host.take_back("e");
    host.take_back("c");
    // The name lost its claim, and makes a new one.
    assert!(texts(host.ask(&pools, &named("f", "web"))).is_ok());
}

#[test]
fn sixteen_processes_with_fifty_containers_each_share_no_address() {
    let host = Host::new();
    let pools = pools(&json!({"ranges": [[{"subnet": "10.80.0.0/22"}], [{"subnet": "fd80::/64"}]]}));
    let given: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..16)
                .map(|process| {
                    let (root, pools) = (host.root.path(), &pools);
                    scope.spawn(move || -> Vec<String> {
                        (0..50)
                            .map(|n| {
                                let mut store = common::open(root, "boot-0");
                                let request = request(&format!("c{process}-{n}"));
                                let now = berth_store::BootTime::now();
                                texts(store.write(|tx| {
                                    berth_ipam::allocate(tx, pools, &request, now, &mut |_| false)
                                }))
                                .unwrap()
                            })
                            .collect()
                    })
                })
                .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let addresses: HashSet<&str> = given.iter().flat_map(|texts| texts.split(' ')).collect();
    assert_eq!((given.len(), addresses.len()), (800, 1600));
}

#[test]
fn a_large_pool_uses_rested_addresses_again_before_its_history_grows_without_bound() {
    let mut host = Host::new();
    // All but the last two addresses of the first /112 are passed over, so that the limit is reached at once.
    let pools = pools(&json!({"subnet": "fd80::/64", "exclude": ["fd80::2-fd80::fffd"], "quarantine": 60}));
    let cycle = |host: &mut Host, name: &str| {
        let given = host.give(&pools, name).unwrap();
        host.take_back(name);
        given
    };
    assert_eq!(cycle(&mut host, "a"), "fd80::fffe/64");
    assert_eq!(cycle(&mut host, "b"), "fd80::ffff/64");
    assert_eq!(cycle(&mut host, "c"), "fd80::1:0/64", "none has rested");
    host.now += 60;
    assert_eq!(host.give(&pools, "d").unwrap(), "fd80::fffe/64");
    assert_eq!(host.give(&pools, "e").unwrap(), "fd80::ffff/64");
    assert_eq!(host.give(&pools, "f").unwrap(), "fd80::1:0/64");
    assert_eq!(host.give(&pools, "g").unwrap(), "fd80::1:1/64");
}
