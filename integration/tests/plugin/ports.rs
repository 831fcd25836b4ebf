//! Published ports, as dockerd asks for them.

use berth_integration::Probe;
use serde_json::{Value, json};

use crate::caller::{about, plugin_test, program, tcp};

#[test]
fn ports_follow_program_and_revoke() {
    plugin_test(|docker| {
        docker.create(1);
        let one = docker.connect(1, 1, 2);
        let _server = one.container.serve_http(80, "one");
        docker.host.probe(&Probe::http("192.0.2.2:8080")).none();
        // Twice is once.
        for _ in 0..2 {
            docker.net("ProgramExternalConnectivity", &program(1, 1, tcp(8080)));
        }
        for addr in ["192.0.2.2:8080", "127.0.0.1:8080"] {
            docker.host.probe(&Probe::http(addr)).all_from("one");
        }
        // A container reaches its own port at the host's address.
        one.container.probe(&Probe::http("192.0.2.2:8080")).all_from("one");
        // Docker says what holds now, not what comes on top.
        docker.net("ProgramExternalConnectivity", &program(1, 1, tcp(8081)));
        docker.host.probe(&Probe::http("192.0.2.2:8081")).all_from("one");
        docker.host.probe(&Probe::http("192.0.2.2:8080")).none();
        docker.well();
        for _ in 0..2 {
            docker.net("RevokeExternalConnectivity", &about(1, 1));
        }
        docker.host.probe(&Probe::http("192.0.2.2:8081")).none();
        assert_eq!(docker.berth(&["ports"]), json!([]));
        docker.disconnect(one);
        docker.delete(1);
    });
}

#[test]
fn a_free_port_is_found_and_kept() {
    plugin_test(|docker| {
        docker.create(1);
        docker.host.set_sysctl("net.ipv4.ip_local_port_range", "40000\t40003");
        let any = json!([
            {"Proto": 6, "Port": 80, "HostPort": 0}, {"Proto": 6, "Port": 81, "HostPort": 0},
            {"Proto": 17, "Port": 80, "HostPort": 0},
        ]);
        let shown = || -> Vec<(Value, Value, Value)> {
            let ports = docker.berth(&["ports"]);
            let one = |port: &Value| {
                (port["proto"].clone(), port["host_port"].clone(), port["target_port"].clone())
            };
            ports.as_array().unwrap().iter().map(one).collect()
        };
        let _busy = docker.host.serve_tcp(40_001, "busy");
        let one = docker.connect(1, 1, 2);
        docker.net("ProgramExternalConnectivity", &program(1, 1, any.clone()));
        let first = shown();
        assert_eq!(first.len(), 3);
        assert!(first.iter().all(|(proto, port, _)| *proto == "udp" || *port != 40_001), "{first:?}");
        // Asked again, it stays.
        docker.net("ProgramExternalConnectivity", &program(1, 1, any.clone()));
        assert_eq!(shown(), first);
        // One of TCP's four is taken by a program, two by the first container: one is left.
        let two = docker.connect(1, 2, 3);
        docker.net(
            "ProgramExternalConnectivity",
            &program(1, 2, json!([{"Proto": 6, "Port": 80, "HostPort": 0}])),
        );
        let three = docker.connect(1, 3, 4);
        let refused = docker.net_refuses("ProgramExternalConnectivity", &program(1, 3, tcp(0)));
        assert!(refused.contains("no port of the host from 40000 to 40003 is free"), "{refused}");
        for connected in [one, two, three] {
            docker.disconnect(connected);
        }
        docker.delete(1);
        docker.host.set_sysctl("net.ipv4.ip_local_port_range", "32768\t60999");
    });
}

#[test]
fn a_taken_port_is_refused_and_its_holder_named() {
    plugin_test(|docker| {
        docker.create(1);
        let (one, two) = (docker.connect(1, 1, 2), docker.connect(1, 2, 3));
        docker.net("ProgramExternalConnectivity", &program(1, 1, tcp(8080)));
        let refused = docker.net_refuses("ProgramExternalConnectivity", &program(1, 2, tcp(8080)));
        assert!(
            refused.contains("host port 8080/tcp") && refused.contains("is published by e00000000000"),
            "{refused}"
        );
        let _server = docker.host.serve_tcp(8090, "program");
        let refused = docker.net_refuses("ProgramExternalConnectivity", &program(1, 2, tcp(8090)));
        assert!(refused.contains("8090") && refused.contains("in use by"), "{refused}");
        let v6 = json!([{"Proto": 6, "Port": 80, "HostIP": "::1", "HostPort": 8091}]);
        let refused = docker.net_refuses("ProgramExternalConnectivity", &program(1, 2, v6));
        assert!(refused.contains("no address of that family"), "{refused}");
        // Nothing of the refused is left.
        assert_eq!(docker.berth(&["ports"]).as_array().unwrap().len(), 1);
        docker.well();
        docker.disconnect(one);
        docker.net("ProgramExternalConnectivity", &program(1, 2, tcp(8080)));
        docker.disconnect(two);
        docker.delete(1);
    });
}

/// dockerd keeps in memory which endpoint is the gateway, and revokes nothing after a restart.
#[test]
fn ports_move_to_another_endpoint_of_the_same_sandbox() {
    plugin_test(|docker| {
        docker.create(1);
        docker.create(2);
        let one = docker.connect(1, 1, 2);
        docker.net("ProgramExternalConnectivity", &program(1, 1, tcp(8080)));
        docker.net("CreateEndpoint", &crate::caller::endpoint(2, 2, 2));
        let mut join = about(2, 2);
        join["SandboxKey"] = json!(one.container.netns());
        docker.net("Join", &join);
        docker.net("ProgramExternalConnectivity", &program(2, 2, tcp(8080)));
        let ports = docker.berth(&["ports"]);
        assert_eq!(ports[0]["target"], "10.80.2.2");
        assert_eq!(ports.as_array().unwrap().len(), 1);
        docker.net("DeleteEndpoint", &about(2, 2));
        docker.disconnect(one);
        docker.delete(1);
        docker.delete(2);
    });
}

#[test]
fn a_dead_holder_of_a_port_gives_way() {
    plugin_test(|docker| {
        docker.create(1);
        let one = docker.connect(1, 1, 2);
        docker.net("ProgramExternalConnectivity", &program(1, 1, tcp(8080)));
        // The container and its namespace go, and nobody says so.
        one.container.remove();
        let two = docker.connect(1, 2, 3);
        let _server = two.container.serve_http(80, "two");
        docker.net("ProgramExternalConnectivity", &program(1, 2, tcp(8080)));
        docker.host.probe(&Probe::http("192.0.2.2:8080")).all_from("two");
        docker.disconnect(two);
        docker.delete(1);
    });
}
