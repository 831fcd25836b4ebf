//! Addresses and ports that cannot be had.

use berth_integration::Snapshot;
use serde_json::json;

use crate::common::{Net, assert_as_before, berth_test, tcp};
use crate::refusal::{refused, refused_quietly};

#[test]
fn a_pool_without_addresses_is_named_and_gives_again_after_one_del() {
    berth_test(|host| {
        let net = Net::new(host, 1).with("ipam", json!({"type": "ripam", "subnet": "10.80.1.0/29"}));
        let members: Vec<_> = (0..5).map(|n| net.join(&format!("m{n}"))).collect();
        let container = host.container("late");
        let error = refused(host, &net.call_for(&container), "ADD", 102, "full pool");
        assert!(
            error.msg.contains("10.80.1.1-10.80.1.6") || error.to_string().contains("10.80.1.6 by m4"),
            "{error}"
        );
        let mut members = members.into_iter();
        members.next().unwrap().leave();
        let call = net.call_for(&container);
        call.add().ok();
        call.del().ok();
    });
}

/// Of a set that is full the address comes from no other, and what the first set gave is given back.
#[test]
fn an_exhausted_second_range_gives_the_first_address_back() {
    berth_test(|host| {
        let net = Net::new(host, 1).with(
            "ipam",
            json!({"type": "ripam", "ranges": [[{"subnet": "10.80.1.0/24"}], [{"subnet": "fd00:80:1::/126"}]]}),
        );
        let members: Vec<_> = (0..2).map(|n| net.join(&format!("m{n}"))).collect();
        let container = host.container("late");
        refused(host, &net.call_for(&container), "ADD", 102, "full pool");
        let leases = host.berth(["status", "--json"]).output();
        assert!(!leases.stdout.contains("late"), "{leases}");
        drop(members);
    });
}

#[test]
fn a_range_set_goes_on_with_its_next_range() {
    berth_test(|host| {
        let net = Net::new(host, 1).with(
            "ipam",
            json!({"type": "ripam", "ranges": [[{"subnet": "10.80.1.0/30"}, {"subnet": "10.80.7.0/30"}]]}),
        );
        let members = [net.join("a"), net.join("b")];
        let addresses: Vec<_> = members.iter().map(|member| member.v4().to_string()).collect();
        assert_eq!(addresses, ["10.80.1.2", "10.80.7.2"]);
        let container = host.container("late");
        refused(host, &net.call_for(&container), "ADD", 102, "full set");
    });
}

#[test]
fn addresses_of_containers_that_are_gone_are_taken_back_when_a_pool_runs_short() {
    berth_test(|host| {
        let net = Net::new(host, 1).with("ipam", json!({"type": "ripam", "subnet": "10.80.1.0/29"}));
        for n in 0..12 {
            let container = host.container(&format!("gone{n}"));
            net.call_for(&container).add().ok();
            // As after a crash of the runtime: no DEL.
            container.remove();
        }
        let last = net.join("last");
        assert_eq!(host.ping(last.v4(), 1), 1);
    });
}

#[test]
fn an_address_that_somebody_has_is_refused_and_the_holder_named() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let holder = net.join("the-holder");
        let container = host.container("a");
        for asked in [format!("IP={}", holder.v4()), format!("IP={}", holder.v6())] {
            let error = refused(host, &net.call_for(&container).args(&asked), "ADD", 101, &asked);
            assert!(error.to_string().contains("the-holder"), "{error}");
        }
        assert_eq!(host.ping(holder.v4(), 1), 1);
    });
}

#[test]
fn addresses_that_nobody_can_have_are_refused() {
    berth_test(|host| {
        let net = Net::new(host, 1).with("ipam", json!({"type": "ripam", "ranges": [
            [{"subnet": "10.80.1.0/24", "rangeStart": "10.80.1.10", "rangeEnd": "10.80.1.20", "gateway": "10.80.1.15"}]]}));
        let container = host.container("a");
        for (what, asked) in [
            ("outside the subnet", "10.99.0.5"),
            ("outside the range", "10.80.1.9"),
            ("outside the range", "10.80.1.21"),
            ("the gateway", "10.80.1.15"),
            ("the network's", "10.80.1.0"),
            ("broadcast", "10.80.1.255"),
            ("the other family", "fd00:80:1::5"),
            ("nobody's", "0.0.0.0"),
            ("loopback", "127.0.0.1"),
            ("multicast", "224.0.0.1"),
        ] {
            let before = Snapshot::of(host);
            let call = net.call_for(&container).args(&format!("IP={asked}"));
            let error = refused_quietly(&call, "ADD", &[7, 101], what);
            assert!(error.to_string().contains(asked), "{what}: {error}");
            before.assert_same(&Snapshot::of(host));
        }
    });
}

/// CVE-free but often asked: one container cannot ask for two addresses of one range set.
#[test]
fn more_requested_addresses_than_range_sets_are_refused() {
    berth_test(|host| {
        let container = host.container("a");
        let call = Net::new(host, 1).call_for(&container).args("IP=10.80.1.5,10.80.1.6");
        let before = Snapshot::of(host);
        let error = refused_quietly(&call, "ADD", &[7, 101], "two of one set");
        assert!(error.to_string().contains("10.80.1.6"), "{error}");
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn a_subnet_that_another_network_has_is_refused() {
    berth_test(|host| {
        let one = Net::new(host, 1);
        let a = one.join("a");
        let container = host.container("b");
        for subnet in ["10.80.1.0/24", "10.80.1.128/25", "10.80.0.0/16"] {
            let two = Net::new(host, 2).with("ipam", json!({"type": "ripam", "subnet": subnet}));
            let error = refused(host, &two.call_for(&container), "ADD", 105, subnet);
            assert!(error.to_string().contains("n1"), "the other network is not named: {error}");
        }
        assert_eq!(host.ping(a.v4(), 1), 1);
    });
}

#[test]
fn a_gateway_address_where_the_bridge_has_another_is_refused_or_forced() {
    berth_test(|host| {
        host.run("ip link add br1 type bridge");
        host.run("ip address add 10.80.1.77/24 dev br1");
        host.run("ip link set br1 up");
        let before = Snapshot::of(host);
        let container = host.container("a");
        let net = Net::new(host, 1);
        let error = refused(host, &net.call_for(&container), "ADD", 104, "another address");
        assert!(error.to_string().contains("10.80.1.77"), "{error}");
        let forced = net.with("forceAddress", json!(true)).call_for(&container);
        forced.add().ok();
        assert!(!host.run("ip -o address show dev br1").contains("10.80.1.77"));
        forced.del().ok();
        drop(container);
        // The bridge was somebody else's and stays.
        crate::common::collect(host);
        assert!(host.run("ip -o link show br1").contains("br1"));
        drop(before);
        host.run("ip link del br1");
    });
}

#[test]
fn of_several_ports_one_that_is_taken_leaves_none_published() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let holder = net.publish("holder", tcp(8081, 80));
        let container = host.container("a");
        let ports = json!([{"hostPort": 8080, "containerPort": 80}, {"hostPort": 8081, "containerPort": 80}]);
        refused(host, &net.publishing(&container, ports), "ADD", 100, "second taken");
        net.publish("b", tcp(8080, 80)).leave();
        holder.checked().check().ok();
    });
}

#[test]
fn one_port_twice_in_one_request_is_refused() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let container = host.container("a");
        let ports = json!([{"hostPort": 8080, "containerPort": 80}, {"hostPort": 8080, "containerPort": 81}]);
        let call = Net::new(host, 1).publishing(&container, ports);
        refused_quietly(&call, "ADD", &[7, 100], "twice");
        drop(container);
        assert_as_before(host, &before);
    });
}
