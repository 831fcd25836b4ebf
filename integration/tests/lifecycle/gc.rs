//! GC: what the runtime lists stays, the rest goes; without a list only what is provably gone.

use berth_integration::Snapshot;
use serde_json::{Value, json};

use crate::common::{Net, assert_as_before, berth_test, tcp};

/// GC with this list, or with none.
fn gc(net: &Net<'_>, valid: Option<Value>) {
    let call = net.call();
    let call = match valid {
        Some(valid) => call.key("cni.dev/valid-attachments", valid),
        None => call,
    };
    call.run("GC").ok();
}

fn entry(id: &str) -> Value {
    json!({"containerID": id, "ifname": "eth0"})
}

#[test]
fn what_is_listed_stays_and_the_rest_goes() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, b) = (net.publish("a", tcp(8080, 80)), net.publish("b", tcp(8081, 80)));
        gc(&net, Some(json!([entry("a")])));
        a.checked().check().ok();
        assert_eq!(host.ping(a.v4(), 1), 1);
        assert!(!b.run("ip -o link").contains("eth0"));
        b.has_left();
        // What the other held is free.
        net.publish("c", tcp(8081, 80)).leave();
    });
}

#[test]
fn an_interface_that_is_not_listed_goes_though_another_of_its_container_stays() {
    berth_test(|host| {
        let net = Net::new(host, 1).with("isDefaultGateway", json!(false));
        let a = net.join("a");
        net.call().container(&a).id("a").ifname("eth1").add().ok();
        gc(&net, Some(json!([entry("a")])));
        let links = a.run("ip -o link");
        assert!(links.contains("eth0") && !links.contains("eth1"), "{links}");
    });
}

#[test]
fn an_empty_list_means_that_nothing_is_valid() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let net = Net::new(host, 1);
        let (a, b) = (net.publish("a", tcp(8080, 80)), net.join("b"));
        gc(&net, Some(json!([])));
        a.has_left();
        b.has_left();
        assert_as_before(host, &before);
    });
}

#[test]
fn without_a_list_only_what_is_provably_gone_goes() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let a = net.publish("a", tcp(8080, 80));
        let gone = host.container("b");
        net.publishing(&gone, tcp(8081, 80)).add().ok();
        gone.remove();
        berth_integration::eventually(std::time::Duration::from_secs(5), || {
            let ports = host.run("ip -o link show master br1").lines().count();
            if ports == 1 { Ok(()) } else { Err(format!("{ports} ports")) }
        });
        gc(&net, None);
        a.checked().check().ok();
        assert_eq!(host.ping(a.v4(), 1), 1);
        let c = net.publish("c", tcp(8081, 80));
        c.leave();
    });
}

#[test]
fn another_network_is_not_touched() {
    berth_test(|host| {
        let (one, two) = (Net::new(host, 1), Net::new(host, 2));
        let (a, c) = (one.join("a"), two.publish("c", tcp(8080, 80)));
        gc(&one, Some(json!([])));
        a.has_left();
        c.checked().check().ok();
        assert_eq!(host.ping(c.v4(), 1), 1);
    });
}

#[test]
fn a_list_with_somebody_unknown_is_no_error() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let a = net.join("a");
        gc(&net, Some(json!([entry("a"), entry("nobody")])));
        a.checked().check().ok();
    });
}

#[test]
fn leases_of_a_pool_are_collected_too() {
    berth_test(|host| {
        let conf = json!({"cniVersion": "1.1.0", "type": "ripam", "name": "n1",
            "ipam": {"type": "ripam", "subnet": "10.80.1.0/30"}});
        let container = host.container("a");
        let lease = |id: &str| host.cni().conf(conf.clone()).container(&container).id(id).add();
        lease("a").ok();
        assert_eq!(lease("b").err().code, 102);
        let call = host.cni().conf(conf.clone()).key("cni.dev/valid-attachments", json!([]));
        call.run("GC").ok();
        lease("b").ok();
        host.cni().conf(conf.clone()).container(&container).id("b").del().ok();
    });
}
