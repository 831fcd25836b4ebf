//! Many calls at once.

use std::collections::BTreeSet;

use berth_integration::engine::nothing_attached;
use serde_json::{Value, json};

use crate::caller::{about, answer, endpoint, plugin_test, program};

/// Runs `call` for 0 to 199, all at once.
fn at_once<T: Send>(call: impl Fn(u32) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let call = &call;
        let threads: Vec<_> = (0..200).map(|n| scope.spawn(move || call(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn two_hundred_calls_at_once_are_all_answered() {
    plugin_test(|docker| {
        docker.create(1);
        let host = docker.host;
        let call = |method: &str, body: &Value| {
            let answer = answer(host, "rbridge", &format!("NetworkDriver.{method}"), &body.to_string());
            assert_eq!(answer.status, 200, "{method}: {}", answer.text);
        };
        at_once(|n| {
            call("CreateEndpoint", &endpoint(1, n, n + 2));
            let mut join = about(1, n);
            join["SandboxKey"] = json!(format!("/run/docker/netns/{n}"));
            call("Join", &join);
            let any = json!([{"Proto": 6, "Port": 80, "HostPort": 0}]);
            call("ProgramExternalConnectivity", &program(1, n, any));
        });
        let ports = docker.berth(&["ports"]);
        let numbers: BTreeSet<String> =
            ports.as_array().unwrap().iter().map(|port| port["host_port"].to_string()).collect();
        assert_eq!(numbers.len(), 200, "each its own port");
        docker.well();
        at_once(|n| {
            call("Leave", &about(1, n));
            call("DeleteEndpoint", &about(1, n));
        });
        nothing_attached(docker.host);
        docker.delete(1);
    });
}

#[test]
fn two_hundred_askers_get_two_hundred_addresses() {
    plugin_test(|docker| {
        let id = docker.ipam("RequestPool", &json!({"Pool": "10.80.0.0/24"}))["PoolID"].clone();
        let host = docker.host;
        let given: BTreeSet<String> = at_once(|_| {
            let body = json!({"PoolID": id, "Address": "", "Options": {}}).to_string();
            let answer = answer(host, "rbridge", "IpamDriver.RequestAddress", &body);
            assert_eq!(answer.status, 200, "{}", answer.text);
            answer.text
        })
        .into_iter()
        .collect();
        assert_eq!(given.len(), 200);
        docker.ipam("ReleasePool", &json!({"PoolID": id}));
    });
}

#[test]
fn the_same_call_two_hundred_times_at_once_is_one() {
    plugin_test(|docker| {
        let host = docker.host;
        let create = crate::caller::network(1, json!({})).to_string();
        for (method, body) in [
            ("CreateNetwork", create),
            ("CreateEndpoint", endpoint(1, 1, 2).to_string()),
            ("ProgramExternalConnectivity", program(1, 1, crate::caller::tcp(8080)).to_string()),
            ("DeleteEndpoint", about(1, 1).to_string()),
        ] {
            at_once(|_| {
                let answer = answer(host, "rbridge", &format!("NetworkDriver.{method}"), &body);
                assert_eq!(answer.status, 200, "{method}: {}", answer.text);
            });
        }
        docker.delete(1);
    });
}
