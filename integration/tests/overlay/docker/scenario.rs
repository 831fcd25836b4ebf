//! Scenario 10: two hosts, one network, typed once.

use std::time::{Duration, Instant};

use berth_integration::engine::{no_answer, nothing_attached};
use berth_integration::{Debian, Probe, eventually};
use serde_json::json;

use super::stage::{Node, Stage, docker_stage_test};
use crate::stage::SOON;

/// A service on a network that is there.
const COMPOSE: &str = "
version: '3.7'
services:
  web:
    image: nginx
    networks:
      app:
        aliases: [shop]
networks:
  app:
    external: true
";

/// Runs `test` with `app` created and shared on the first node.
fn shared_test(debian: Debian, test: impl FnOnce(&Stage<'_>, &Node<'_>, &Node<'_>)) {
    docker_stage_test(debian, 0, |stage| {
        let [a, b] = &stage.nodes[..] else { unreachable!() };
        a.berth("network create -d overlay app");
        assert_eq!(a.berth("network share app"), "network app is shared; on this host Docker has it");
        b.has_network("app", true);
        test(stage, a, b);
        nothing_attached(a.host);
        nothing_attached(b.host);
        // The cluster knows of no container either.
        eventually(SOON, || {
            let left = stage.etcd.ctl(&["get", "--prefix", "/berth/v1/ep/app/c/", "--keys-only"]);
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        if b.json("overlay status")["networks"] != json!([]) {
            a.berth("network rm app");
        }
        for node in [a, b] {
            node.has_network("app", false);
            eventually(SOON, || match node.json("network ls") {
                left if left == json!([]) => Ok(()),
                left => Err(left.to_string()),
            });
        }
    });
}

fn two_hosts_share_a_network(debian: Debian) {
    shared_test(debian, |stage, a, b| {
        a.serves("server", "app", 8010);
        b.starts("client", "app", "");
        let server = a.docker.label("server");
        b.fetches("client", "server:8010", &server);
        b.fetches("client", "server.app:8010", &server);
        a.fetches("server", "client:80", &b.docker.label("client"));
        // It is one network: number, subnet, gateway and packet are the same.
        let identity = a.identity("app");
        assert!(identity[0].is_u64() && identity[1][0].is_string(), "{identity}");
        assert_eq!(identity, b.identity("app"));
        let links =
            a.docker.exec("server", "ip link show eth0") + &b.docker.exec("client", "ip link show eth0");
        assert_eq!(links.matches(" mtu 1450 ").count(), 2, "{links}");

        // A published port is the host's it is published on.
        a.starts("web", "app", "-p 8080:80 --network-alias shop");
        let web = a.docker.label("web");
        for place in [a.host, b.host] {
            assert_eq!(place.reach(&Probe::http(format!("{}:8080", a.seat.v4))).label, web);
        }
        no_answer(b.host, format!("{}:8080", b.seat.v4));
        b.fetches("client", "shop:80", &web);
        // A name is known on the other host about when the start returns, whatever the machine is busy with.
        a.starts("quick", "app", "");
        let (began, address) = (Instant::now(), a.address("quick", "app"));
        eventually(SOON, || match b.docker.output("exec client nslookup quick").stdout {
            found if found.contains(&address) => Ok(()),
            found => Err(found),
        });
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        a.types("docker rm -f quick");
        is_written_once(stage, a);
        a.agrees();
        b.agrees();
        a.types("docker rm -f web server");
        b.types("docker rm -f client");
    });
}

/// A service that has `app` for its second network, and another name there.
const SECOND: &str = "
version: '3.7'
services:
  web:
    image: nginx
    container_name: NAME
    networks:
      front: {priority: 100}
      app: {aliases: [other]}
networks:
  front:
    external: true
  app:
    external: true
";

/// An attachment costs the cluster one write, with its names and aliases, however it comes about. A machine so busy that they come a
/// second after the attachment, or too late to be known before a start, may need another try.
#[track_caller]
fn is_written_once(stage: &Stage<'_>, node: &Node<'_>) {
    node.types("docker network create front");
    let plain = |name: &str| node.starts(name, "app", "");
    let run = |name: &str| node.starts(name, "app", "--network-alias other");
    let connect = |name: &str| {
        node.types(&format!("docker run -d --name {name} busybox"));
        node.types(&format!("docker network connect --alias other app {name}"));
    };
    let restart = |name: &str| {
        connect(name);
        node.types(&format!("docker restart --time 0 {name}"));
    };
    let before = |name: &str| {
        node.types(&format!("docker create --name {name} --network front busybox"));
        node.types(&format!("docker network connect --alias other app {name}"));
        node.types(&format!("docker start {name}"));
    };
    let compose = |name: &str| {
        let dir = node.docker.project(name, &SECOND.replace("NAME", name));
        node.docker.compose(&dir, "up -d").run();
    };
    let is_once = |way: &str, is_alias: bool, attach: &dyn Fn(&str)| {
        let once = |number: u8| {
            let name = format!("{way}{number}");
            attach(&name);
            let endpoint = "'{{.NetworkSettings.Networks.app.EndpointID}}'";
            let endpoint = node.types(&format!("docker inspect --format {endpoint} {name}"));
            // What a comparison with Docker finds would be written within a second or two.
            std::thread::sleep(Duration::from_secs(2));
            let prefix = format!("/berth/v1/ep/app/c/{}/{}/", node.name, endpoint.trim());
            let record = stage.etcd.ctl(&["get", "--prefix", &prefix, "-w", "fields"]);
            node.types(&format!("docker rm -f {name}"));
            assert!(record.contains(&name) && record.contains("other") == is_alias, "{record}");
            record.lines().any(|line| line == "\"Version\" : 1")
        };
        assert!((0..5).any(once), "each of five attachments ({way}) was written more than once");
    };
    is_once("plain", false, &plain);
    is_once("run", true, &run);
    is_once("connect", true, &connect);
    is_once("restart", true, &restart);
    is_once("before", true, &before);
    is_once("compose", true, &compose);
    node.types("docker network rm front");
}

fn addresses_compose_and_connections(debian: Debian) {
    shared_test(debian, |_, a, b| {
        b.starts("client", "app", "");
        let taken = b.address("client", "app");
        let refused = a.does_not_start("second", "app", &format!("--ip {taken}"));
        assert!(refused.contains(&taken), "{refused}");
        // A free one in the other host's part is lent.
        let octets = b.docker.address("client", "app").octets();
        let wanted = format!("{}.{}.{}.{}", octets[0], octets[1], octets[2], octets[3] + 9);
        a.starts("fixed", "app", &format!("--ip {wanted}"));
        assert_eq!(a.address("fixed", "app"), wanted);
        b.fetches("client", "fixed:80", &a.docker.label("fixed"));
        a.types("docker rm -f fixed");

        // Compose, on a network that is there.
        let dir = a.docker.project("shop", COMPOSE);
        a.docker.compose(&dir, "up -d").run();
        let web = a.docker.run("ps --quiet --filter label=com.docker.compose.service=web");
        b.fetches("client", "shop:80", &a.docker.label(&web));
        b.fetches("client", "web:80", &a.docker.label(&web));
        a.docker.compose(&dir, "down").run();

        // Joined and left while it runs.
        a.types("docker run -d --name late busybox");
        assert!(!b.docker.fetch("client", "late:80").status.success(), "not yet on the network");
        a.types("docker network connect --alias later app late");
        b.fetches("client", "later:80", &a.docker.label("late"));
        a.types("docker network disconnect app late");
        assert!(!b.docker.fetch("client", "late:80").status.success(), "left the network");

        // A second name for the network, another address driver, no such network: each is refused in words.
        let create = "docker network create -d roverlay";
        let subnet = a.identity("app")[1][0].as_str().unwrap().to_owned();
        let ours = format!("--ipam-driver roverlay --ipam-opt network=app --subnet {subnet}");
        for (line, words) in [
            (
                format!("{create} {ours} -o network=app again"),
                "is Docker's network `app` on this host already",
            ),
            (format!("{create} -o network=app again"), "takes none of another address driver"),
            (format!("{create} {ours} again"), "say which network of the cluster it is"),
            (
                format!("{create} --ipam-driver roverlay -o network=app again"),
                "say which network of the cluster it is",
            ),
            (format!("{create} {ours} -o network=app -o colour=red again"), "unknown option `colour`"),
            (
                format!("{create} {ours} -o network=other again"),
                "`--ipam-opt network=app` and `-o network=other` are two",
            ),
            (
                format!("{create} --ipam-driver roverlay --ipam-opt network=app -o network=app again"),
                "say which subnet it is: --subnet",
            ),
            (
                format!(
                    "{create} --ipam-driver roverlay --ipam-opt network=app -o network=app --subnet 10.99.0.0/24 again"
                ),
                "subnet 10.99.0.0/24 is not network `app`'s",
            ),
        ] {
            let said = a.refuses(&line);
            assert!(said.contains(words), "{line}: {said}");
        }
        a.types("docker rm -f late");
        b.types("docker rm -f client");
    });
}

fn what_is_shared_is_taken_back(debian: Debian) {
    shared_test(debian, |stage, a, b| {
        // Not while it is used, and then.
        b.starts("client", "app", "");
        assert_eq!(
            a.berth("network share app --off"),
            "network app is no longer shared; on this host Docker does not have it"
        );
        a.has_network("app", false);
        eventually(SOON, || {
            let shown = b.berth("overlay status");
            if shown.contains("app: it is in use here") { Ok(()) } else { Err(shown) }
        });
        b.fetches("client", "client:80", &b.docker.label("client"));
        b.types("docker rm -f client");
        b.has_network("app", false);

        // What Docker has of that name and is not berth's is left alone, and named.
        b.types("docker network create app");
        a.berth("network share app");
        eventually(SOON, || {
            let shown = b.berth("overlay status");
            if shown.contains("Docker has a network `app` of its own here (driver bridge)") {
                Ok(())
            } else {
                Err(shown)
            }
        });
        let said = b.try_berth("network share app");
        assert!(said.code() == Some(1) && said.stdout.contains("is left alone"), "{said}");
        b.types("docker network rm app");
        b.berth("network share app");
        b.has_network("app", true);
        assert!(stage.etcd.ctl(&["get", "/berth/v1/nets/app"]).contains("\"shared\":true"));

        // With the network, it goes everywhere.
        a.berth("network rm app");
        a.has_network("app", false);
        b.has_network("app", false);
        let said = a.try_berth("network share app");
        assert!(said.code() == Some(1) && said.stderr.contains("has no network `app`"), "{said}");
    });
}

mod docker_20_10 {
    use super::*;

    #[test]
    fn two_hosts_share_a_network() {
        super::two_hosts_share_a_network(Debian::V12);
    }

    #[test]
    fn addresses_compose_and_connections() {
        super::addresses_compose_and_connections(Debian::V12);
    }

    #[test]
    fn what_is_shared_is_taken_back() {
        super::what_is_shared_is_taken_back(Debian::V12);
    }
}

mod docker_26_1 {
    use super::*;

    #[test]
    fn two_hosts_share_a_network() {
        super::two_hosts_share_a_network(Debian::V13);
    }

    #[test]
    fn addresses_compose_and_connections() {
        super::addresses_compose_and_connections(Debian::V13);
    }
}
