//! Many calls at once: nothing is given out twice, and nothing is left.

use std::collections::BTreeSet;

use berth_integration::{CniRan, Container, Host, Snapshot};
use serde_json::json;

use crate::common::{Net, assert_as_before, berth_test};

/// As many runtimes as call at once.
const WIDTH: usize = 16;

/// Calls `command` for all containers, [`WIDTH`] at a time.
fn all<'h>(
    net: impl Fn(usize) -> Net<'h> + Sync,
    containers: &[Container<'h>],
    command: &str,
) -> Vec<CniRan> {
    let call = |(index, container): (usize, &Container<'h>)| net(index).call_for(container).run(command);
    let indexed: Vec<_> = containers.iter().enumerate().collect();
    let chunk = indexed.len().div_ceil(WIDTH);
    std::thread::scope(|scope| {
        let workers: Vec<_> = indexed
            .chunks(chunk)
            .map(|part| scope.spawn(|| part.iter().copied().map(call).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

fn containers(host: &Host, count: usize) -> Vec<Container<'_>> {
    (0..count).map(|n| host.container(&format!("c{n}"))).collect()
}

fn unique(results: &[CniRan], what: &str, values: impl Fn(&CniRan) -> Vec<String>) {
    let all: Vec<String> = results.iter().flat_map(values).collect();
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(all.len(), distinct.len(), "{what} twice in {all:?}");
}

#[test]
fn sixteen_at_a_time_get_different_addresses_macs_and_links() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let containers = containers(host, 64);
        let net = Net::new(host, 1);
        let added = all(|_| net.clone(), &containers, "ADD");
        added.iter().for_each(|ran| drop(ran.clone().ok()));
        unique(&added, "address", CniRan::addresses);
        unique(&added, "MAC", |ran| vec![ran.json["interfaces"][2]["mac"].to_string()]);
        unique(&added, "host link", |ran| vec![ran.json["interfaces"][1]["name"].to_string()]);
        for ran in added.iter().step_by(16) {
            let address = ran.addresses()[0].split('/').next().unwrap().to_owned();
            assert_eq!(host.ping(address, 1), 1);
        }
        all(|_| net.clone(), &containers, "DEL").into_iter().for_each(|ran| drop(ran.ok()));
        drop(containers);
        assert_as_before(host, &before);
    });
}

#[test]
fn the_first_sixteen_of_four_new_networks_at_once_all_succeed() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let containers = containers(host, 16);
        let net = |index: usize| Net::new(host, u8::try_from(index % 4).unwrap());
        all(net, &containers, "ADD").into_iter().for_each(|ran| drop(ran.ok()));
        all(net, &containers, "DEL").into_iter().for_each(|ran| drop(ran.ok()));
        drop(containers);
        assert_as_before(host, &before);
    });
}

#[test]
fn of_a_pool_too_small_for_all_every_address_is_given_once() {
    berth_test(|host| {
        let containers = containers(host, 16);
        let net = Net::new(host, 1).with("ipam", json!({"type": "ripam", "subnet": "10.80.1.0/28"}));
        let added = all(|_| net.clone(), &containers, "ADD");
        let (given, refused): (Vec<_>, Vec<_>) = added.into_iter().partition(CniRan::succeeded);
        // 14 hosts without the gateway.
        assert_eq!((given.len(), refused.len()), (13, 3));
        unique(&given, "address", CniRan::addresses);
        refused.into_iter().for_each(|ran| assert_eq!(ran.err().code, 102));
        all(|_| net.clone(), &containers, "DEL").into_iter().for_each(|ran| drop(ran.ok()));
    });
}

#[test]
fn of_sixteen_that_want_one_port_exactly_one_gets_it() {
    berth_test(|host| {
        let containers = containers(host, 16);
        let net = Net::new(host, 1)
            .with("runtimeConfig", json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]}));
        let added = all(|_| net.clone(), &containers, "ADD");
        let (given, refused): (Vec<_>, Vec<_>) = added.into_iter().partition(CniRan::succeeded);
        assert_eq!(given.len(), 1);
        refused.into_iter().for_each(|ran| assert_eq!(ran.err().code, 100));
        all(|_| net.clone(), &containers, "DEL").into_iter().for_each(|ran| drop(ran.ok()));
    });
}

#[test]
fn of_sixteen_adds_of_one_container_exactly_one_succeeds() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let container = host.container("a");
        let call = net.call_for(&container);
        let results: Vec<CniRan> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..16).map(|_| scope.spawn(|| call.add())).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|ran| ran.succeeded()).count(), 1);
        for ran in results.into_iter().filter(|ran| !ran.succeeded()) {
            let error = ran.err();
            assert!([11, 103].contains(&error.code), "{error}");
        }
        assert!(container.run("ip -o -4 address show dev eth0").contains("10.80.1."));
        call.del().ok();
    });
}

/// Catalogue row 6.
#[test]
fn adds_and_dels_of_one_container_in_turmoil_leave_nothing_after_the_last_del() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let net = Net::new(host, 1);
        let container = host.container("a");
        let call = net.call_for(&container);
        std::thread::scope(|scope| {
            for turn in 0..8 {
                let call = &call;
                scope.spawn(move || {
                    for round in 0..6 {
                        let ran = if (turn + round) % 2 == 0 { call.add() } else { call.del() };
                        assert!(ran.succeeded() || ran.json["code"].is_u64(), "{}", ran.ran);
                    }
                });
            }
        });
        call.del().ok();
        drop(container);
        assert_as_before(host, &before);
    });
}

#[test]
fn networks_come_and_go_at_once_without_a_loss() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let containers = containers(host, 8);
        std::thread::scope(|scope| {
            for (index, container) in containers.iter().enumerate() {
                scope.spawn(move || {
                    let net = Net::new(host, u8::try_from(index % 2).unwrap());
                    for _ in 0..5 {
                        let ran = net.call_for(container).add();
                        let address = ran.addresses();
                        ran.ok();
                        let address = address[0].split('/').next().unwrap().to_owned();
                        assert_eq!(host.ping(&address, 1), 1, "{address}");
                        net.call_for(container).del().ok();
                        // While others are attached or about to be.
                        host.berth(["gc"]).run();
                    }
                });
            }
        });
        drop(containers);
        assert_as_before(host, &before);
    });
}
