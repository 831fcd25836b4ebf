//! The address driver, as dockerd asks for it.

use serde_json::{Value, json};

use crate::caller::{Caller, answer, plugin_test};

fn pool(docker: &Caller<'_>, pool: &str, sub_pool: &str) -> Value {
    docker.ipam("RequestPool", &json!({
        "AddressSpace": "berth-local", "Pool": pool, "SubPool": sub_pool, "Options": null, "V6": pool.contains(':'),
    }))
}

fn gateway(docker: &Caller<'_>, id: &Value, address: &str) -> Value {
    let options = json!({"RequestAddressType": "com.docker.network.gateway"});
    docker.ipam("RequestAddress", &json!({"PoolID": id, "Address": address, "Options": options}))["Address"]
        .clone()
}

fn request(docker: &Caller<'_>, id: &Value, address: &str) -> Value {
    docker.ipam("RequestAddress", &json!({"PoolID": id, "Address": address, "Options": {}}))["Address"]
        .clone()
}

fn refuses(docker: &Caller<'_>, id: &Value, address: &str) -> String {
    docker.refuse("IpamDriver.RequestAddress", &json!({"PoolID": id, "Address": address, "Options": null}))
}

fn close(docker: &Caller<'_>, id: &Value) {
    docker.ipam("ReleasePool", &json!({"PoolID": id}));
}

#[test]
fn a_pool_gives_each_address_once() {
    plugin_test(|docker| {
        let given = pool(docker, "10.80.0.0/29", "");
        assert_eq!(given["Pool"], "10.80.0.0/29");
        let id = &given["PoolID"];
        assert_eq!(gateway(docker, id, ""), "10.80.0.1/29");
        let mut all: Vec<Value> = (0..4).map(|_| request(docker, id, "")).collect();
        all.push(request(docker, id, "10.80.0.6"));
        all.sort_by_key(Value::to_string);
        assert_eq!(all, [2, 3, 4, 5, 6].map(|n| json!(format!("10.80.0.{n}/29"))));
        assert!(refuses(docker, id, "").contains("10.80.0.1-10.80.0.6"), "{}", refuses(docker, id, ""));
        assert!(refuses(docker, id, "10.80.0.4").contains("address 10.80.0.4 is in use"));
        assert!(refuses(docker, id, "10.80.0.1").contains("in use by gateway"));
        assert!(refuses(docker, id, "10.81.0.4").contains("is not in subnet"));
        assert!(refuses(docker, id, "10.80.0.7").contains("is no host's"));
        assert!(refuses(docker, id, "here").contains("`here` is no address"));
        // Freed twice is freed.
        for _ in 0..2 {
            docker.ipam("ReleaseAddress", &json!({"PoolID": id, "Address": "10.80.0.4"}));
        }
        assert_eq!(request(docker, id, ""), "10.80.0.4/29");
        close(docker, id);
        close(docker, id);
    });
}

#[test]
fn ranges_gateways_and_auxiliary_addresses_are_where_they_were_asked_for() {
    plugin_test(|docker| {
        let id = &pool(docker, "10.80.0.0/16", "10.80.5.0/24")["PoolID"];
        assert_eq!(gateway(docker, id, "10.80.0.254"), "10.80.0.254/16");
        // Outside of the range, and answered.
        assert_eq!(request(docker, id, "10.80.9.9"), "10.80.9.9/16");
        assert_eq!(request(docker, id, "10.80.5.1"), "10.80.5.1/16");
        for n in [0, 2, 3] {
            assert_eq!(request(docker, id, ""), format!("10.80.5.{n}/16"));
        }
        let refused = docker
            .refuse("IpamDriver.RequestPool", &json!({"Pool": "10.90.0.0/24", "SubPool": "10.91.0.0/25"}));
        assert!(refused.contains("range 10.91.0.0/25 is not a part of subnet 10.90.0.0/24"), "{refused}");
        close(docker, id);
        let id = &pool(docker, "fd00:80::/64", "")["PoolID"];
        assert_eq!(gateway(docker, id, ""), "fd00:80::1/64");
        assert_eq!(request(docker, id, ""), "fd00:80::2/64");
        close(docker, id);
    });
}

#[test]
fn chosen_subnets_are_nobodys() {
    plugin_test(|docker| {
        docker.host.run("ip address add 172.17.5.1/24 dev up0");
        let first = pool(docker, "", "");
        assert_eq!(first["Pool"], "172.18.0.0/16");
        // dockerd asks again while it holds what it does not like.
        let second = pool(docker, "", "");
        assert_eq!(second["Pool"], "172.19.0.0/16");
        let refused =
            docker.refuse("IpamDriver.RequestPool", &json!({"Pool": "172.18.3.0/24", "Options": {}}));
        assert!(refused.contains("overlaps pool 172.18.0.0/16"), "{refused}");
        let v6 = docker.ipam("RequestPool", &json!({"Pool": "", "SubPool": "", "V6": true}));
        assert!(v6["Pool"].as_str().unwrap().starts_with("fd"), "{v6}");
        for given in [&first, &second, &v6] {
            close(docker, &given["PoolID"]);
        }
        docker.host.run("ip address del 172.17.5.1/24 dev up0");
    });
}

#[test]
fn what_dockerd_asks_for_again_when_it_starts_is_given_again() {
    plugin_test(|docker| {
        let id = pool(docker, "10.80.0.0/24", "")["PoolID"].clone();
        gateway(docker, &id, "10.80.0.1");
        request(docker, &id, "10.80.0.9");
        // In the same life it would be a second network's.
        let again = json!({"Pool": "10.80.0.0/24", "SubPool": "", "V6": false});
        assert!(docker.refuse("IpamDriver.RequestPool", &again).contains("overlaps pool"));
        for restart in ["berthd lives on", "berthd starts anew too"] {
            if restart != "berthd lives on" {
                docker.daemon.crash();
                docker.daemon.start();
            }
            docker.call("Plugin.Activate", &Value::Null);
            assert_eq!(docker.ipam("RequestPool", &again)["PoolID"], id, "{restart}");
            assert_eq!(gateway(docker, &id, "10.80.0.1"), "10.80.0.1/24");
            assert_eq!(request(docker, &id, "10.80.0.9"), "10.80.0.9/24");
            assert!(refuses(docker, &id, "10.80.0.9").contains("is in use"), "{restart}");
        }
        // `ripam` is another driver, with a start of its own.
        answer(docker.host, "ripam", "Plugin.Activate", "");
        assert!(docker.refuse("IpamDriver.RequestPool", &again).contains("overlaps pool"));
        close(docker, &id);
    });
}

#[test]
fn a_pool_whose_record_was_lost_gives_nothing_twice() {
    plugin_test(|docker| {
        docker.create(1);
        let id = pool(docker, "10.80.1.0/24", "")["PoolID"].clone();
        assert_eq!(request(docker, &id, ""), "10.80.1.2/24");
        let one = docker.connect(1, 1, 2);
        docker.daemon.stop();
        docker.host.run("rm -r /run/berth");
        docker.daemon.start();
        assert_eq!(request(docker, &id, ""), "10.80.1.3/24");
        close(docker, &id);
        docker.disconnect(one);
        docker.delete(1);
    });
}

#[test]
fn a_name_gets_its_address_again_where_that_was_chosen() {
    plugin_test(|docker| {
        let opened =
            docker.ipam("RequestPool", &json!({"Pool": "10.80.0.0/24", "Options": {"sticky": "true"}}));
        let id = &opened["PoolID"];
        let of = |name: &str| {
            let options = json!({"com.docker.network.endpoint.name": name});
            docker.ipam("RequestAddress", &json!({"PoolID": id, "Address": "", "Options": options}))["Address"].clone()
        };
        let web = of("web");
        docker.ipam("ReleaseAddress", &json!({"PoolID": id, "Address": web}));
        assert_ne!(of("db"), web);
        assert_eq!(of("web"), web);
        let refused = docker
            .refuse("IpamDriver.RequestPool", &json!({"Pool": "10.81.0.0/24", "Options": {"colour": "red"}}));
        assert!(refused.contains("unknown option `colour`; known are quarantine"), "{refused}");
        close(docker, id);
    });
}
