//! ADD and DEL in every order, with every kind of sandbox.

use std::fs;

use berth_integration::Snapshot;
use serde_json::json;

use crate::common::{Net, assert_as_before, berth_lan_test, berth_test, tcp};

#[test]
fn a_second_add_is_refused_and_the_first_stays() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let a = net.join("a");
        let before = Snapshot::of(host);
        let error = a.call().add().err();
        assert_eq!(error.code, 103, "{error}");
        before.assert_same(&Snapshot::of(host));
        assert_eq!(host.ping(a.v4(), 1), 1);
        a.checked().check().ok();
    });
}

#[test]
fn a_del_that_is_repeated_succeeds_and_changes_nothing() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, b) = (net.publish("a", tcp(8080, 80)), net.join("b"));
        let call = a.call();
        a.leave();
        let after = Snapshot::of(host);
        for _ in 0..20 {
            call.del().ok();
        }
        after.assert_same(&Snapshot::of(host));
        assert_eq!(host.ping(b.v4(), 1), 1);
    });
}

#[test]
fn a_del_before_any_add_succeeds_and_changes_nothing() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let container = host.container("a");
        let call = Net::new(host, 1).publishing(&container, tcp(8080, 80));
        call.del().ok();
        drop(container);
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn del_without_a_namespace_takes_everything_away() {
    for variable in [Some(""), None] {
        berth_test(|host| {
            let before = Snapshot::of(host);
            let a = Net::new(host, 1).publish("a", tcp(8080, 80));
            let del = match variable {
                Some(empty) => a.call().env("CNI_NETNS", empty),
                None => a.call().env_remove("CNI_NETNS"),
            };
            del.del().ok();
            a.has_left();
            assert_as_before(host, &before);
        });
    }
}

#[test]
fn del_with_a_namespace_that_is_gone_takes_everything_away() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let net = Net::new(host, 1);
        let container = host.container("a");
        let call = net.publishing(&container, tcp(8080, 80));
        call.add().ok();
        container.remove();
        call.del().ok();
        assert_as_before(host, &before);
    });
}

#[test]
fn del_with_a_namespace_that_is_unpinned_but_alive_takes_the_link_away() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let net = Net::new(host, 1);
        let mut container = host.container("a");
        let call = net.publishing(&container, tcp(8080, 80));
        call.add().ok();
        container.unpin();
        call.del().ok();
        assert!(!container.run("ip -o link").contains("eth0"));
        drop(container);
        assert_as_before(host, &before);
    });
}

/// S48: the path of a sandbox that is gone may lead to somebody else's.
#[test]
fn del_whose_path_leads_to_another_namespace_by_now_leaves_that_one_alone() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let mut first = host.container("a");
        let call = net.publishing(&first, tcp(8080, 80));
        call.add().ok();
        first.unpin();
        // The same path and interface name, another namespace, not berth's.
        let second = host.container("a");
        second.run("ip link add eth0 type veth peer name eth9");
        second.run("ip address add 10.99.0.1/24 dev eth0");
        second.run("ip link set eth0 up");
        second.run("ip link set lo up");
        let before = second.view();
        call.del().ok();
        assert_eq!(before.difference(&second.view()), "");
        assert!(!first.run("ip -o link").contains("eth0"));
        second.run("ip link del eth0");
        second.run("ip link set lo down");
        // What the attachment held on the host is free.
        let next = net.publish("b", tcp(8080, 80));
        next.leave();
        drop(first);
    });
}

/// S48: podman's and kubelet's paths by process number lead to the host once the number is reused.
#[test]
fn del_whose_path_leads_to_the_host_by_now_leaves_the_host_alone() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let net = Net::new(host, 1);
        let container = host.container("a");
        let call = net.call_for(&container).ifname("up0");
        call.add().ok();
        container.remove();
        let own = host.net_path();
        call.env("CNI_NETNS", own.to_str().unwrap()).del().ok();
        assert_as_before(host, &before);
    });
}

#[test]
fn add_to_the_hosts_own_namespace_is_refused() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let own = host.net_path();
        let error = Net::new(host, 1).call().env("CNI_NETNS", own.to_str().unwrap()).add().err();
        assert_eq!(error.code, 8, "{error}");
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn add_where_the_interface_name_is_taken_is_refused_and_undone() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let container = host.container("a");
        container.run("ip link add eth0 type veth peer name other");
        let inside = container.view();
        let error = Net::new(host, 1).publishing(&container, tcp(8080, 80)).add().err();
        assert_eq!(error.code, 103, "{error}");
        assert_eq!(inside.difference(&container.view()), "");
        container.run("ip link del eth0");
        drop(container);
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn a_container_that_left_can_come_back() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        for _ in 0..5 {
            let a = net.publish("a", tcp(8080, 80));
            assert_eq!(host.ping(a.v4(), 1), 1);
            a.leave();
        }
    });
}

#[test]
fn an_add_after_its_container_vanished_without_del_succeeds() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let container = host.container("a");
        net.publishing(&container, tcp(8080, 80)).add().ok();
        container.remove();
        let link = |host: &berth_integration::Host| host.run("ip -o link").contains("master br1");
        berth_integration::eventually(std::time::Duration::from_secs(5), || {
            if link(host) { Err("the veth of the removed namespace is still there".into()) } else { Ok(()) }
        });
        let again = net.publish("a", tcp(8080, 80));
        assert_eq!(host.ping(again.v4(), 1), 1);
    });
}

#[test]
fn every_released_version_of_the_protocol_gets_its_own_result() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let container = host.container("a");
        for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let call = net.call_for(&container).key("cniVersion", json!(version));
            let result = call.add().ok();
            assert_eq!(result["cniVersion"], json!(version));
            if version < "0.3.0" {
                assert!(result["ip4"]["ip"].is_string() && result["ip6"]["ip"].is_string(), "{result}");
            } else {
                assert_eq!(result["ips"].as_array().unwrap().len(), 2, "{result}");
                assert_eq!(result["ips"][0].get("version").is_some(), version < "1.0.0", "{result}");
                assert_eq!(result["interfaces"].as_array().unwrap().len(), 3, "{result}");
            }
            call.del().ok();
        }
    });
}

#[test]
fn version_and_a_call_without_a_command_need_nothing() {
    berth_test(|host| {
        let call = host.cni().exact("rbridge", json!({}));
        let versions = call.clone().stdin(*b"").run("VERSION").ok();
        assert_eq!(versions["supportedVersions"].as_array().unwrap().len(), 7, "{versions}");
        let about = host.cmd(host.cni().plugins().join("rbridge")).env_remove("CNI_COMMAND").output();
        assert!(about.status.success() && about.stdout.is_empty(), "{about}");
        assert!(about.stderr.contains("rbridge"), "{about}");
    });
}

/// S50.
#[test]
fn when_nothing_is_left_the_hosts_switches_and_tables_are_as_they_were() {
    berth_lan_test(|host, _, _| {
        let switches =
            ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.route_localnet"];
        let read = || switches.map(|name| host.sysctl(name));
        let before = read();
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        assert_eq!((host.sysctl(switches[0]), host.sysctl(switches[1])), ("1".into(), "1".into()));
        a.leave();
        host.berth(["gc"]).run();
        assert_eq!(read(), before);
        assert!(!host.run("nft list tables").contains("berth"));
    });
}

/// S50: an administrator's own setting is not berth's to take back.
#[test]
fn forwarding_that_was_on_before_stays_on() {
    berth_test(|host| {
        host.set_sysctl("net.ipv4.ip_forward", "1");
        Net::new(host, 1).join("a").leave();
        host.berth(["gc"]).run();
        assert_eq!(host.sysctl("net.ipv4.ip_forward"), "1");
        host.set_sysctl("net.ipv4.ip_forward", "0");
    });
}

/// S49.
#[test]
fn records_can_be_read_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    berth_test(|host| {
        let (state, run) = (host.state_dir(), host.run_dir());
        fs::remove_dir(&state).unwrap();
        fs::remove_dir(&run).unwrap();
        let a = Net::new(host, 1).join("a");
        for dir in [&state, &run] {
            let Ok(meta) = fs::metadata(dir) else { continue };
            assert_eq!(meta.permissions().mode() & 0o7777, 0o700, "{dir:?}");
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{entry:?}");
            }
        }
        a.leave();
        fs::create_dir_all(&state).unwrap();
    });
}
