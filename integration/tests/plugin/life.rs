//! berthd killed, stopped, started, and the host with it.

use std::time::Duration;

use berth_integration::{Probe, eventually};
use serde_json::{Value, json};

use crate::caller::{about, answer, endpoint, network, plugin_test, program, tcp, try_answer};

#[test]
fn a_killed_daemon_is_missed_by_nobody() {
    plugin_test(|docker| {
        docker.create(1);
        let one = docker.connect(1, 1, 2);
        let _server = one.container.serve_http(80, "one");
        docker.net("ProgramExternalConnectivity", &program(1, 1, tcp(8080)));
        docker.daemon.crash();
        docker.host.probe(&Probe::http("192.0.2.2:8080")).all_from("one");
        docker.daemon.start();
        docker.host.probe(&Probe::http("192.0.2.2:8080")).all_from("one");
        docker.well();
        // What was begun before is finished after.
        let created = docker.net("CreateEndpoint", &endpoint(1, 2, 3));
        docker.daemon.crash();
        docker.daemon.start();
        let two = docker.join(1, 2, 3, created["Interface"]["MacAddress"].as_str().unwrap());
        assert_eq!(two.container.ping("10.80.1.2", 1), 1);
        docker.disconnect(one);
        docker.disconnect(two);
        docker.delete(1);
    });
}

/// The daemon is killed at moments spread over a life of a container; each call is then made again, as an engine and its
/// user would, and everything must end well.
#[test]
fn killed_at_any_time_nothing_is_left_or_lost() {
    plugin_test(|docker| {
        let calls: Vec<(&str, Value)> = vec![
            ("NetworkDriver.CreateNetwork", network(1, json!({}))),
            ("NetworkDriver.CreateEndpoint", endpoint(1, 1, 2)),
            ("NetworkDriver.Join", {
                let mut join = about(1, 1);
                join["SandboxKey"] = json!("/run/docker/netns/x");
                join
            }),
            ("NetworkDriver.ProgramExternalConnectivity", program(1, 1, tcp(8080))),
            ("NetworkDriver.RevokeExternalConnectivity", about(1, 1)),
            ("NetworkDriver.Leave", about(1, 1)),
            ("NetworkDriver.DeleteEndpoint", about(1, 1)),
            ("NetworkDriver.DeleteNetwork", json!({"NetworkID": crate::caller::network_id(1)})),
        ];
        for round in 0..6_u64 {
            for (index, (method, body)) in calls.iter().enumerate() {
                let text = body.to_string();
                let head = format!(
                    "POST /{method} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                    text.len()
                );
                let host = docker.host;
                std::thread::scope(|scope| {
                    let asking = scope.spawn(move || try_answer(host, "rbridge", head.as_bytes()));
                    // Not a wait for anything: the moment of the kill is what varies.
                    std::thread::sleep(Duration::from_micros(
                        700 * round + 300 * u64::try_from(index).unwrap(),
                    ));
                    docker.daemon.crash();
                    // Answered or cut off; either may be.
                    drop(asking.join().unwrap());
                });
                docker.daemon.start();
                docker.call(method, body);
            }
            docker.well();
            assert_eq!(docker.berth(&["network", "ls"]), json!([]), "round {round}");
        }
    });
}

#[test]
fn a_network_outlives_a_reboot() {
    plugin_test(|docker| {
        docker.net("CreateNetwork", &network(1, json!({"mtu": "1400"})));
        let one = docker.connect(1, 1, 2);
        docker.net("ProgramExternalConnectivity", &program(1, 1, tcp(8080)));
        docker.daemon.crash();
        one.container.remove();
        let bridge = docker.berth(&["network", "ls"])[0]["bridge"].as_str().unwrap().to_owned();
        docker.host.run(&format!("ip link delete {bridge}"));
        docker.host.run("nft delete table inet berth; nft delete table bridge berth; rm -r /run/berth");
        docker.host.set_sysctl("net.ipv4.ip_forward", "0");
        docker.daemon.start();
        // No CreateNetwork comes: Docker creates a network once.
        let two = docker.connect(1, 2, 2);
        let _server = two.container.serve_http(80, "two");
        docker.net("ProgramExternalConnectivity", &program(1, 2, tcp(8080)));
        docker.host.probe(&Probe::http("192.0.2.2:8080")).all_from("two");
        assert_eq!(two.container.json("ip -j link show eth0")[0]["mtu"], 1400);
        docker.well();
        docker.disconnect(two);
        docker.delete(1);
    });
}

#[test]
fn a_network_without_containers_is_not_collected() {
    plugin_test(|docker| {
        docker.create(1);
        docker.host.run("true");
        berth_integration::engine::berth(docker.host, ["gc"]).run();
        assert_eq!(docker.berth(&["network", "ls"]).as_array().unwrap().len(), 1);
        let refused =
            berth_integration::engine::berth(docker.host, ["network", "rm", &crate::caller::network_id(1)])
                .output();
        assert!(!refused.status.success() && refused.stderr.contains("docker network rm"), "{refused}");
        // A deleted bridge is made again.
        let bridge = docker.berth(&["network", "ls"])[0]["bridge"].as_str().unwrap().to_owned();
        docker.host.run(&format!("ip link delete {bridge}"));
        berth_integration::engine::berth(docker.host, ["gc"]).run();
        docker.host.run(&format!("ip link show {bridge}"));
        docker.well();
        docker.delete(1);
    });
}

#[test]
fn an_api_that_is_absent_or_hangs_hurts_nobody() {
    plugin_test(|docker| {
        docker.create(1);
        // Accepts, and says nothing.
        let silent =
            docker.host.inside(|| std::os::unix::net::UnixListener::bind("/run/docker.sock").unwrap());
        docker.call("Plugin.Activate", &Value::Null);
        eventually(Duration::from_secs(20), || {
            silent.set_nonblocking(true).unwrap();
            match silent.accept() {
                Ok(_) => Ok(()),
                Err(err) => Err(format!("berthd did not ask: {err}")),
            }
        });
        let one = docker.connect(1, 1, 2);
        assert_eq!(one.container.ping("10.80.1.1", 1), 1);
        docker.disconnect(one);
        docker.delete(1);
        docker.daemon.stop();
        drop(silent);
        docker.host.run("rm /run/docker.sock");
        assert!(
            !docker.host.run("ls -A /run/docker/plugins").contains("sock"),
            "a stopped daemon leaves no socket"
        );
        docker.daemon.start();
        assert_eq!(answer(docker.host, "rnone", "Plugin.Activate", "").status, 200);
    });
}
