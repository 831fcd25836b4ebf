//! What people see of a cluster, and of what is wrong with it.

use berth_integration::{eventually, frame};
use serde_json::{Value, json};

use crate::data::safety::{MARKER, delivered, inject};
use crate::stage::{Member, Node, SOON, stage_test};

/// The network `name`, as `network ls` has it.
fn listed(node: &Node<'_>, name: &str) -> Value {
    let all = node.json("network ls");
    all.as_array().unwrap().iter().find(|network| network["name"] == name).cloned().unwrap_or_default()
}

#[test]
fn networks_of_the_cluster_are_listed_on_hosts_that_have_not_joined_them() {
    stage_test(2, |stage| {
        let [one, two] = &mut stage.nodes[..] else { panic!("two nodes") };
        one.berth("network create -d overlay blue --subnet 10.5.0.0/24");
        one.berth("network create -d overlay spare");
        let web = one.add("c1", "web");
        eventually(SOON, || match listed(two, "blue") {
            blue if blue["joined"] == false && blue["attachments"] == 1 => Ok(()),
            other => Err(format!("{other}")),
        });
        assert_eq!(listed(two, "blue")["subnets"], json!(["10.5.0.0/24"]));
        let table = two.berth("network ls");
        assert!(table.lines().any(|line| line.contains("blue") && line.contains("not joined")), "{table}");
        assert_eq!(listed(one, "spare")["joined"], false, "created here, and used by nobody");
        assert_eq!(listed(one, "blue")["bridge"].as_str().map(|name| &name[..3]), Some("bbr"));
        let inspected = two.json("network inspect blue");
        assert_eq!(inspected["network"]["nodes"], json!(["n1"]), "{inspected}");
        let text = two.berth("network inspect blue");
        assert!(text.contains("not joined: the first container on this host joins it"), "{text}");
        let unknown = two.host.berth(["network", "inspect", "green"]).output();
        assert!(!unknown.status.success() && unknown.stderr.contains("no such network"), "{unknown}");

        // Without an agent only what is on this host is known to be so.
        one.daemon.crash();
        assert_eq!(listed(one, "spare"), Value::Null);
        assert_eq!(listed(one, "blue")["attachments"], 1);
        one.daemon.start();
        one.is_connected();
        // Known on the disk of who created it, too.
        one.berth("network rm spare");
        eventually(SOON, || match listed(two, "spare") {
            Value::Null => Ok(()),
            still => Err(format!("{still}")),
        });
        web.del();
    });
}

#[test]
fn a_way_that_has_become_too_narrow_is_said_by_name_on_every_host() {
    stage_test(2, |stage| {
        let [one, two] = &stage.nodes[..] else { panic!("two nodes") };
        one.berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let (web, db) = (one.add("c1", "web"), two.add("c2", "db"));
        web.reaches(&db);
        let narrow = |node: &Node<'_>| node.status()["networks"][0]["narrow"].clone();
        assert_eq!(narrow(one), Value::Null);
        let says = |node: &Node<'_>, what: &str| {
            eventually(SOON, || match narrow(node).to_string() {
                said if said.contains(what) => Ok(()),
                other => Err(format!("{} says {other}, not {what}", node.name)),
            });
        };
        let ifname = &two.seat.ifname;
        // The uplinks of tests are veths, and what happens to those, or to a route, is heard of once a minute; an address that goes is
        // at once.
        let look = "ip address add 192.0.2.200/32 dev lo; ip address delete 192.0.2.200/32 dev lo";
        let route = format!("{} dev {ifname}", one.seat.v4);
        two.host.run(&format!("ip route add {route} mtu 1300; {look}"));
        says(two, "the way to node `n1` (198.51.100.2) carries 1300 bytes and the network needs 1500");
        two.host.run(&format!("ip route delete {route}"));
        two.host.run(&format!("ip link set {ifname} mtu 1400; {look}"));
        says(two, "the link of node `n2` carries 1400 bytes and the network needs 1500");
        says(one, "the link of node `n2` carries 1400 bytes and the network needs 1500");
        says(two, "the way to node `n1` (198.51.100.2) carries 1400 bytes");
        let told = one.host.berth(["overlay", "status"]).output();
        assert_eq!(told.code(), Some(1), "{told}");
        let found = one.host.berth(["doctor"]).output();
        assert!(found.stdout.contains("[overlay-mtu] network blue the link of node `n2` carries"), "{found}");
        // Containers keep what the cluster's record says; the bridge does, too.
        assert_eq!(db.container.json("ip -j link show eth0")[0]["mtu"], 1450);
        let refused = two.host.berth(["network", "create", "wide", "--mtu", "1450"]).output();
        assert!(
            !refused.status.success() && refused.stderr.contains("the link of node n2 lets 1350"),
            "{refused}"
        );
        two.host.run(&format!("ip link set {ifname} mtu 1500; {look}"));
        for node in [one, two] {
            eventually(SOON, || match narrow(node) {
                Value::Null => Ok(()),
                still => Err(format!("{} says {still}", node.name)),
            });
        }
        [web, db].into_iter().for_each(Member::del);
    });
}

#[test]
fn an_encrypted_network_is_refused_by_name_wherever_it_comes_from() {
    stage_test(2, |stage| {
        let [node, other] = &stage.nodes[..] else { panic!("two nodes") };
        let says = |text: &str| {
            assert!(text.contains("network `secret`") && text.contains("encrypt"), "{text}");
        };
        let created = node.host.berth(["network", "create", "secret", "--encrypted"]).output();
        assert!(!created.status.success(), "{created}");
        says(&created.stderr);
        let call = node.call_of("secret");
        let call = call.key("subnet", json!("10.8.0.0/24")).key("encrypted", json!(true));
        says(&node.try_with(call, "c0", "x").map(drop).unwrap_err().msg);

        // Somebody else's berth has created it: it is not joined in clear.
        node.berth("network create -d overlay plain --subnet 10.8.0.0/24");
        let record = stage.etcd.ctl(&["get", "--print-value-only", "/berth/v1/nets/plain"]);
        let record = record
            .trim()
            .replace("\"plain\"", "\"secret\"")
            .replace("\"encrypted\":false", "\"encrypted\":true");
        assert!(record.contains("\"encrypted\":true"), "{record}");
        node.berth("network rm plain");
        stage.etcd.ctl(&["put", "/berth/v1/nets/secret", &record]);
        eventually(SOON, || match listed(node, "secret") {
            Value::Null => Err("it is not seen".to_owned()),
            _ => Ok(()),
        });
        says(&node.try_add_to("secret", "c1", "x").1.err().msg);
        assert_eq!(node.host.run("ip -br link show type vxlan"), "");

        // Nor is anything of it taken in clear, though frames of the other node are.
        node.berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let (web, db) = (node.add("c2", "web"), other.add("c3", "db"));
        db.reaches(&web);
        let eth0 = web.container.raw("eth0");
        let packet = frame::V4 {
            src_mac: db.mac(),
            dst_mac: web.mac(),
            src: db.address.parse().unwrap(),
            dst: web.address.parse().unwrap(),
        };
        let vni = |network: &str| u32::try_from(listed(node, network)["vni"].as_u64().unwrap()).unwrap();
        let blue = node.status()["networks"][0]["vni"].as_u64().unwrap();
        for (vni, taken) in [(u32::try_from(blue).unwrap(), 20), (vni("secret"), 0)] {
            inject(other.host, node.seat.v4.into(), vni, &packet.udp(999, 999, MARKER));
            assert_eq!(delivered(&eth0), taken, "VNI {vni}");
        }
        drop(eth0);
        [web, db].into_iter().for_each(Member::del);
        stage.etcd.ctl(&["del", "/berth/v1/nets/secret"]);
    });
}
