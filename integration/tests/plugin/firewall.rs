//! Docker's own filter in front of berth's traffic.

use berth_integration::Probe;
use serde_json::Value;

use crate::caller::{plugin_test, program, tcp};

/// What dockerd makes of FORWARD, as far as it matters.
const DOCKERS: &str = "iptables -N DOCKER-USER; iptables -A DOCKER-USER -s 203.0.113.9 -j DROP; \
     iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -j DOCKER-USER; iptables -P FORWARD DROP";

#[test]
fn dockers_forward_policy_lets_berths_traffic_through_and_nothing_else() {
    plugin_test(|docker| {
        docker.host.set_sysctl("net.ipv4.ip_forward", "1");
        let others = docker.host.container("other");
        docker.host.run(&format!(
            "ip link add o0 type veth peer name eth0 netns {}; ip address add 198.51.100.1/24 dev o0; ip link set o0 up",
            others.name()
        ));
        others.cmd("ip").args(["-batch", "-"]).stdin("link set eth0 up\naddress add 198.51.100.2/24 dev eth0\nroute add default via 198.51.100.1\n").run();
        docker.host.run(DOCKERS);
        docker.call("Plugin.Activate", &Value::Null);
        docker.create(1);
        let one = docker.connect(1, 1, 2);
        let _server = one.container.serve_http(80, "one");
        docker.net("ProgramExternalConnectivity", &program(1, 1, tcp(8080)));
        others.probe(&Probe::http("198.51.100.1:8080")).all_from("one");
        assert_eq!(one.container.ping("198.51.100.2", 1), 1, "out, masqueraded");
        // The administrator's rule comes before berth's, and the policy stands.
        let rules = docker.host.run("iptables -S DOCKER-USER");
        let rules: Vec<&str> = rules.lines().collect();
        assert!(rules[1].contains("-s 203.0.113.9/32 -j DROP"), "{rules:?}");
        assert!(rules[2].contains("--comment berth -j ACCEPT"), "{rules:?}");
        assert_eq!(rules[3], "-A DOCKER-USER -j RETURN");
        assert!(docker.host.run("iptables -S FORWARD").starts_with("-P FORWARD DROP"));
        // dockerd starts anew and makes its chain anew.
        docker.host.run("iptables -F DOCKER-USER; iptables -A DOCKER-USER -j RETURN");
        docker.call("Plugin.Activate", &Value::Null);
        let two = docker.connect(1, 2, 3);
        assert!(docker.host.run("iptables -S DOCKER-USER").contains("--comment berth"));
        docker.disconnect(one);
        docker.disconnect(two);
        docker.delete(1);
        assert!(
            !docker.host.run("iptables -S DOCKER-USER").contains("berth"),
            "it goes with the last network"
        );
        docker.host.run("iptables -P FORWARD ACCEPT; nft delete table ip filter; ip link delete o0");
        others.remove();
        docker.host.set_sysctl("net.ipv4.ip_forward", "0");
    });
}
