//! Calls that no dockerd should make.

use serde_json::json;

use crate::caller::{
    about, answer, endpoint, endpoint_id, network, network_id, plugin_test, program, tcp, try_answer,
};

/// Methods with arguments, by socket.
const METHODS: [(&str, &[&str]); 4] = [
    (
        "rbridge",
        &[
            "NetworkDriver.CreateNetwork",
            "NetworkDriver.DeleteNetwork",
            "NetworkDriver.CreateEndpoint",
            "NetworkDriver.Join",
            "NetworkDriver.ProgramExternalConnectivity",
            "NetworkDriver.RevokeExternalConnectivity",
            "NetworkDriver.Leave",
            "NetworkDriver.DeleteEndpoint",
            "IpamDriver.RequestPool",
            "IpamDriver.ReleasePool",
            "IpamDriver.RequestAddress",
            "IpamDriver.ReleaseAddress",
        ],
    ),
    (
        "roverlay",
        &[
            "NetworkDriver.CreateNetwork",
            "NetworkDriver.DeleteNetwork",
            "NetworkDriver.CreateEndpoint",
            "NetworkDriver.Join",
            "NetworkDriver.Leave",
            "NetworkDriver.DeleteEndpoint",
            "IpamDriver.RequestPool",
            "IpamDriver.RequestAddress",
            "IpamDriver.ReleaseAddress",
        ],
    ),
    ("ripam", &["IpamDriver.RequestPool", "IpamDriver.ReleasePool", "IpamDriver.RequestAddress"]),
    ("rhost", &["NetworkDriver.CreateNetwork"]),
];

#[test]
fn bodies_that_are_none_are_refused_by_every_method() {
    plugin_test(|docker| {
        let deep = "[".repeat(100_000);
        let bodies = [
            "",
            " ",
            "{",
            "nonsense",
            "\u{0}",
            "[1,2]",
            "5",
            "\"text\"",
            r#"{"NetworkID":5,"PoolID":5,"Pool":5}"#,
            &deep,
        ];
        for (plugin, methods) in METHODS {
            for method in methods {
                for body in bodies {
                    let refused = answer(docker.host, plugin, method, body).refused();
                    assert!(refused.len() < 300, "{method}: {refused}");
                }
            }
        }
        assert_eq!(docker.berth(&["network", "ls"]), json!([]));
    });
}

#[test]
fn methods_without_arguments_take_whatever_comes() {
    plugin_test(|docker| {
        for body in ["", "{}", "null", "nonsense"] {
            for (method, words) in [
                ("Plugin.Activate", r#"["NetworkDriver","IpamDriver"]"#),
                ("NetworkDriver.GetCapabilities", r#""Scope":"local""#),
                ("IpamDriver.GetCapabilities", r#""RequiresRequestReplay":true"#),
                ("IpamDriver.GetDefaultAddressSpaces", r#""LocalDefaultAddressSpace":"berth-local""#),
            ] {
                let answer = answer(docker.host, "rbridge", method, body);
                assert!(answer.status == 200 && answer.text.contains(words), "{method}: {answer:?}");
            }
        }
    });
}

#[test]
fn unknown_methods_are_not_found() {
    plugin_test(|docker| {
        for method in
            ["NetworkDriver.Explode", "VolumeDriver.List", "", "../NetworkDriver.Join", "NetworkDriver.join"]
        {
            let answer = answer(docker.host, "rbridge", method, "{}");
            assert_eq!(answer.status, 404, "{method}");
            assert!(answer.text.starts_with(r#"{"Err":"this plugin has no method"#), "{}", answer.text);
        }
    });
}

#[test]
fn a_body_too_large_or_broken_off_is_refused_and_the_next_call_is_answered() {
    plugin_test(|docker| {
        let huge = format!(r#"{{"NetworkID":"{}"}}"#, "a".repeat(20 << 20));
        let refused = answer(docker.host, "rbridge", "NetworkDriver.DeleteNetwork", &huge).refused();
        assert!(refused.contains("larger than 16 MB"), "{refused}");
        // Says that more will come than does.
        let broken = "POST /NetworkDriver.Leave HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{";
        let stream = docker.host.inside(|| {
            use std::io::Write as _;
            let mut stream =
                std::os::unix::net::UnixStream::connect("/run/docker/plugins/rbridge.sock").unwrap();
            stream.write_all(broken.as_bytes()).unwrap();
            stream
        });
        drop(stream);
        assert!(try_answer(docker.host, "rbridge", b"GARBAGE\r\n\r\n").unwrap().status == 400);
        docker.create(1);
        docker.delete(1);
    });
}

#[test]
fn hostile_names_are_refused() {
    plugin_test(|docker| {
        docker.create(1);
        let long = "a".repeat(100_000);
        for id in ["", "../../etc", "a b", "a/b", "-x", "a\nb", "ü", &long] {
            for method in ["CreateEndpoint", "Join", "Leave", "DeleteEndpoint"] {
                let call = json!({"NetworkID": id, "EndpointID": id, "Interface": {}, "Options": {}, "SandboxKey": "/x"});
                // A name that is long and otherwise good is unknown, which is nothing to a deletion.
                let answer =
                    answer(docker.host, "rbridge", &format!("NetworkDriver.{method}"), &call.to_string());
                if id.len() < 1000 {
                    answer.refused();
                }
            }
            let call = json!({"NetworkID": id, "Options": {}, "IPv4Data": [], "IPv6Data": []});
            if id.len() < 1000 {
                docker.net_refuses("CreateNetwork", &call);
            }
        }
        docker.well();
        docker.delete(1);
    });
}

#[test]
fn what_is_unknown_is_refused_or_nothing_to_take_away() {
    plugin_test(|docker| {
        let refused = docker.net_refuses("CreateEndpoint", &endpoint(7, 1, 2));
        assert!(refused.contains("berth does not know network"), "{refused}");
        docker.create(1);
        let mut join = about(1, 9);
        join["SandboxKey"] = json!("/run/docker/netns/x");
        assert!(docker.net_refuses("Join", &join).contains("berth does not know endpoint"));
        assert!(
            docker
                .net_refuses("ProgramExternalConnectivity", &program(1, 9, tcp(80)))
                .contains("does not know")
        );
        for method in ["RevokeExternalConnectivity", "Leave", "DeleteEndpoint"] {
            docker.net(method, &about(1, 9));
            docker.net(method, &about(7, 9));
        }
        docker.net("DeleteNetwork", &json!({"NetworkID": network_id(7)}));
        assert_eq!(docker.net("EndpointOperInfo", &about(1, 9)), json!({"Value": {}}));
        let refused =
            docker.refuse("IpamDriver.RequestAddress", &json!({"PoolID": "no/pool", "Address": ""}));
        assert!(refused.contains("there is no pool `no/pool`"), "{refused}");
        docker.ipam("ReleaseAddress", &json!({"PoolID": "no/pool", "Address": "10.0.0.1"}));
        docker.ipam("ReleasePool", &json!({"PoolID": "no/pool"}));
        docker.delete(1);
    });
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    plugin_test(|docker| {
        docker.create(1);
        let with = |address: &str, mac: &str| {
            let mut call = endpoint(1, 1, 2);
            call["Interface"]["Address"] = json!(address);
            call["Interface"]["MacAddress"] = json!(mac);
            call
        };
        for (call, words) in [
            (with("10.80.1.2", "02:00:00:00:00:zz"), "invalid MAC address"),
            (with("10.80.1.2/24", "ff:ff:ff:ff:ff:ff"), "cannot be an interface's"),
            (with("10.80.1.2/99", ""), "is no address with a prefix"),
            (with("here", ""), "is no address with a prefix"),
        ] {
            let refused = docker.net_refuses("CreateEndpoint", &call);
            assert!(refused.contains(words), "{refused}");
        }
        docker.net("CreateEndpoint", &endpoint(1, 1, 2));
        for bindings in
            [json!("80"), json!([80]), json!([{"Proto": 300, "Port": 80}]), json!([{"Proto": 1, "Port": 80}])]
        {
            docker.net_refuses("ProgramExternalConnectivity", &program(1, 1, bindings));
        }
        assert_eq!(docker.berth(&["ports"]), json!([]));
        docker.delete(1);
    });
}

#[test]
fn calls_in_the_wrong_order_and_twice_end_well() {
    plugin_test(|docker| {
        docker.create(1);
        docker.create(1);
        let created = docker.net("CreateEndpoint", &endpoint(1, 1, 2));
        assert_eq!(docker.net("CreateEndpoint", &endpoint(1, 1, 2)), created, "again, the same");
        docker.net("Leave", &about(1, 1));
        docker.net("ProgramExternalConnectivity", &program(1, 1, tcp(8080)));
        let mut join = about(1, 1);
        join["SandboxKey"] = json!("/run/docker/netns/x");
        assert_eq!(docker.net("Join", &join), docker.net("Join", &join));
        docker.net("DeleteEndpoint", &about(1, 1));
        for method in ["Leave", "RevokeExternalConnectivity", "DeleteEndpoint"] {
            docker.net(method, &about(1, 1));
        }
        // Another endpoint with the address of one that is still there: dockerd forgot that one.
        docker.net("CreateEndpoint", &endpoint(1, 2, 2));
        docker.net("CreateEndpoint", &endpoint(1, 3, 2));
        let shown = docker.berth(&["ps"]);
        assert_eq!(shown.as_array().unwrap().len(), 1);
        assert_eq!(shown[0]["container"], endpoint_id(3));
        docker.well();
        // A network that is deleted takes along what dockerd forgot on it.
        docker.delete(1);
        docker.delete(1);
        assert_eq!(docker.berth(&["ps"]), json!([]));
        docker.net("CreateNetwork", &network(1, json!({"icc": "false"})));
        docker.delete(1);
    });
}
