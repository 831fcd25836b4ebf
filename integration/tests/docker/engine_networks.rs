//! Scenarios 3, 7 and 9: what networks are, what is said of them, and what they do not let through.

use berth_integration::engine::{no_answer, stage_test};
use berth_integration::{Debian, Lan, Probe};
use serde_json::json;

use crate::common::{agree, on_both_dockers};

on_both_dockers!(
    networks_are_listed_inspected_and_removed,
    internal_static_and_dual_stack_networks,
    berths_own_addresses,
);

/// Scenarios 3 and 7.
fn networks_are_listed_inspected_and_removed(debian: Debian) {
    stage_test(debian, &[], |stage| {
        let docker = &stage.docker;
        let id =
            stage.types("docker network create -d DRIVER --subnet 10.5.0.0/16 --label tier=1 app-network");
        let listed = stage.types("docker network ls --filter driver=DRIVER --format '{{.Name}} {{.Scope}}'");
        assert!(listed.lines().any(|line| line == "app-network local"), "{listed}");
        stage.types("docker run -d --name web --network app-network nginx");
        let inspected = docker.json("network inspect app-network");
        let network = &inspected[0];
        assert_eq!(network["Id"], id.as_str());
        assert_eq!(network["Driver"], stage.driver);
        assert_eq!(network["IPAM"]["Config"][0]["Subnet"], "10.5.0.0/16");
        let containers = network["Containers"].as_object().unwrap();
        let (_, web) = containers.iter().next().unwrap();
        assert_eq!((&web["Name"], &web["IPv4Address"]), (&json!("web"), &json!("10.5.0.2/16")));
        let inside = docker.exec("web", "ip addr show eth0");
        assert!(inside.contains("inet 10.5.0.2/16") && inside.contains(web["MacAddress"].as_str().unwrap()));
        assert!(docker.exec("web", "ip route").starts_with("default via 10.5.0.1 dev eth0"));

        let refused = stage.refuses("docker network rm app-network");
        assert!(refused.contains("has active endpoints"), "{refused}");
        stage.types("docker network create -d DRIVER unused");
        stage.types("docker network prune --force");
        let left = stage.types("docker network ls --filter type=custom --format '{{.Name}}'");
        assert_eq!(left, "app-network");
        agree(stage);
        stage.types(
            "docker rm -f web
             docker network rm app-network",
        );
        stage.refuses("docker network inspect app-network");

        // `none` is loopback alone, `host` is the host.
        let links = stage.types("docker run --rm --network none busybox ip -o link");
        assert!(links.lines().count() == 1 && links.contains(": lo:"), "{links}");
        stage.types("docker run -d --name web --network host -p 8085:80 nginx");
        docker.answers(stage.host, "127.0.0.1:80", "web");
        no_answer(stage.host, "127.0.0.1:8085");
        assert!(docker.exec("web", "ip -o link").contains("up0"));
        stage.types("docker rm -f web");
        if stage.is_berth() {
            stage.types("docker network create -d rnone quiet");
            let links = stage.types("docker run --rm --network quiet busybox ip -o link");
            assert!(links.lines().count() == 1 && links.contains(": lo:"), "{links}");
            stage.types("docker network rm quiet");
            let refused = stage.refuses("docker network create -d rhost mine");
            assert!(refused.contains("--network host"), "{refused}");
        }
    });
}

/// Scenario 9.
fn internal_static_and_dual_stack_networks(debian: Debian) {
    stage_test(debian, &[], |stage| {
        let lan = Lan::new();
        let seat = lan.join(stage.host);
        let (host, docker) = (stage.host, &stage.docker);
        let _server = lan.serve_http(80, "outside");
        stage.types(
            "docker network create -d DRIVER --internal inner
             docker network create -d DRIVER --subnet 10.6.0.0/24 --gateway 10.6.0.254 --ip-range 10.6.0.128/25 \
                --aux-address host1=10.6.0.129 fixed
             docker network create -d DRIVER --ipv6 --subnet 10.7.0.0/24 --subnet fd00:7::/64 dual",
        );
        // No way out, and none in; inside all is well.
        stage.types(
            "docker run -d --name in1 --network inner busybox
             docker run -d --name in2 --network inner -p 8086:80 nginx",
        );
        docker.fetches("in1", "in2:80", "in2");
        // Docker 20.10's own driver gives a route that leads nowhere.
        assert!(!stage.is_berth() || !docker.exec("in1", "ip route").contains("default"));
        assert!(!docker.pings("in1", Lan::V4) && !docker.fetch("in1", "198.51.100.1:80").status.success());
        no_answer(&lan, format!("{}:8086", seat.v4));

        // The address and the link address that were asked for, and those that were not.
        stage.types(
            "docker run -d --name own --network fixed --ip 10.6.0.77 --mac-address 02:00:00:00:00:77 -p 8087:80 nginx
             docker run -d --name any --network fixed busybox",
        );
        let endpoint = docker.endpoint("own", "fixed");
        assert_eq!(
            (&endpoint["IPAddress"], &endpoint["Gateway"]),
            (&json!("10.6.0.77"), &json!("10.6.0.254"))
        );
        assert!(docker.exec("own", "ip link show eth0").contains("02:00:00:00:00:77"));
        assert_eq!(docker.address("any", "fixed").octets(), [10, 6, 0, 128]);
        docker.fetches("any", "own:80", "own");
        let outside = docker.fetch("any", "198.51.100.1:80");
        assert_eq!(outside.stdout, "outside", "{outside}");
        let taken = stage.refuses("docker run -d --name twice --network fixed --ip 10.6.0.77 nginx");
        assert!(taken.to_lowercase().contains("address"), "{taken}");
        stage.types("docker rm -f twice");

        // Both families.
        stage.types(
            "docker run -d --name d1 --network dual -p 8088:80 nginx
             docker run -d --name d2 --network dual busybox",
        );
        let v6 = docker.endpoint("d1", "dual")["GlobalIPv6Address"].as_str().unwrap().to_owned();
        assert!(v6.starts_with("fd00:7::"), "{v6}");
        docker.fetches("d2", format!("[{v6}]:80"), "d1");
        docker.fetches("d2", "d1:80", "d1");
        if stage.is_berth() {
            docker.answers(&lan, format!("[{}]:8088", seat.v6), "d1");
        }
        docker.answers(&lan, format!("{}:8088", seat.v4), "d1");
        agree(stage);
        stage.types(
            "docker rm -f in1 in2 own any d1 d2
             docker network rm inner fixed dual",
        );
        host.run(&format!("ip link delete {}", seat.ifname));
    });
}

/// berth's IPAM, by either name, and its choice of subnets that are free.
fn berths_own_addresses(debian: Debian) {
    stage_test(debian, &[], |stage| {
        if !stage.is_berth() {
            return;
        }
        let (host, docker) = (stage.host, &stage.docker);
        stage.types(
            "docker network create -d rbridge --ipam-driver rbridge first
             docker network create -d rbridge --ipam-driver ripam second
             docker network create -d rbridge --ipam-driver ripam --subnet 10.8.0.0/24 --gateway 10.8.0.1 third
             docker run -d --name web --network first -p 8080:80 nginx
             docker run -d --name mysql --network first mysql
             docker run -d --name own --network third --ip 10.8.0.9 nginx",
        );
        docker.fetches("web", "mysql:3306", "mysql");
        docker.answers(host, "127.0.0.1:8080", "web");
        assert_eq!(docker.address("own", "third").octets(), [10, 8, 0, 9]);
        host.probe(&Probe::http("10.8.0.9:80")).all_from(&docker.label("own"));
        agree(stage);
        // A subnet of another network or behind a route of the host is refused by name.
        let overlap =
            stage.refuses("docker network create -d rbridge --ipam-driver ripam --subnet 10.8.0.0/25 fourth");
        assert!(overlap.contains("10.8.0.0/2"), "{overlap}");
        let overlap =
            stage.refuses("docker network create -d rbridge --ipam-driver ripam --subnet 192.0.2.0/25 fifth");
        assert!(overlap.contains("192.0.2.0/24"), "{overlap}");
        stage.types(
            "docker rm -f web mysql own
             docker network rm first second third",
        );
    });
}
