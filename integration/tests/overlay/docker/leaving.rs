//! `docker network rm`: the host leaves the network, which goes on elsewhere.

use berth_integration::{Debian, eventually};
use serde_json::json;

use super::stage::{Node, Stage, docker_stage_test};
use crate::stage::SOON;

const SUBNET: &str = "--subnet 10.5.0.0/24";

/// Waits until a node is on no network, in its own words and by its kernel.
#[track_caller]
fn has_left(node: &Node<'_>) {
    eventually(SOON, || {
        let networks = &node.json("overlay status")["networks"];
        let links = node.host.run("ip -o link show type vxlan; ip -o link show type bridge");
        let left = links.lines().filter(|line| line.contains("alias berth")).count();
        if *networks == json!([]) && left == 0 { Ok(()) } else { Err(format!("{networks}\n{links}")) }
    });
}

/// Waits until the cluster has nothing of node `a` on `app`, and the other node's kernel no entry that leads there.
#[track_caller]
fn is_gone_elsewhere(stage: &Stage<'_>, a: &Node<'_>, b: &Node<'_>) {
    eventually(SOON, || {
        let records = stage.etcd.ctl(&["get", "--prefix", "--keys-only", "/berth/v1/ep/app/"]);
        let blocks = stage.etcd.ctl(&["get", "--prefix", "/berth/v1/blk/app/"]);
        let entries = b.host.run("bridge fdb show");
        let leads = format!("dst {} ", a.seat.v4);
        let own = format!("\"owner\":\"{}\"", a.name);
        let is_own =
            |key: &str| key.ends_with(&format!("/n/{}", a.name)) || key.contains(&format!("/c/{}/", a.name));
        if records.lines().any(is_own) || blocks.contains(&own) || entries.contains(&leads) {
            Err(format!("{records}\n{blocks}\n{entries}"))
        } else {
            Ok(())
        }
    });
}

fn a_removed_network_is_left_and_goes_on_elsewhere(debian: Debian) {
    docker_stage_test(debian, 0, |stage| {
        let [a, b] = &stage.nodes[..] else { unreachable!() };
        a.creates("app", SUBNET);
        b.creates("app", "");
        let identity = a.identity("app");
        a.starts("server", "app", "");
        b.starts("client", "app", "");
        b.fetches("client", "server:80", &a.docker.label("server"));
        // Not while it is used.
        assert!(a.refuses("docker network rm app").contains("active endpoints"));
        a.fetches("server", "client:80", &b.docker.label("client"));
        a.types("docker rm -f server\n docker network rm app");
        has_left(a);
        is_gone_elsewhere(stage, a, b);
        assert_eq!(a.json("network ls")[0]["joined"], false, "the cluster has it still");
        // The other host goes on, with blocks that were others' too.
        b.starts("second", "app", "");
        b.fetches("client", "second:80", &b.docker.label("second"));
        b.agrees();
        a.agrees();

        // By its name it is the same again.
        a.creates("app", "");
        assert_eq!(a.identity("app"), identity);
        a.starts("server", "app", "");
        b.fetches("client", "server:80", &a.docker.label("server"));
        a.fetches("server", "second:80", &b.docker.label("second"));
        a.agrees();

        // While the cluster is away too; what it has to hear, it hears when it is back.
        stage.etcd.kill();
        a.types("docker rm -f server\n docker network rm app");
        has_left(a);
        stage.etcd.start();
        stage.etcd.healthy();
        a.is_connected();
        is_gone_elsewhere(stage, a, b);
        b.types("docker rm -f client second\n docker network rm app");
        has_left(b);
        a.berth("network rm app");
    });
}

#[test]
fn docker_20_10_removes_a_network_and_it_is_left() {
    a_removed_network_is_left_and_goes_on_elsewhere(Debian::V12);
}

#[test]
fn docker_26_1_removes_a_network_and_it_is_left() {
    a_removed_network_is_left_and_goes_on_elsewhere(Debian::V13);
}

#[test]
fn a_network_that_was_removed_while_berthd_was_down_is_left_when_it_is_back() {
    docker_stage_test(Debian::V12, 0, |stage| {
        let (a, others) = stage.nodes.split_first_mut().unwrap();
        let b = &others[0];
        a.creates("app", SUBNET);
        b.creates("app", "");
        b.starts("client", "app", "");
        a.berthd.stop();
        // Docker waits for the driver, says that it failed, or not, and forgets.
        a.docker.cmd(["network", "rm", "app"]).spawn().wait(std::time::Duration::from_secs(100));
        a.has_network("app", false);
        a.berthd.start();
        a.is_connected();
        has_left(a);
        b.types("docker rm -f client\n docker network rm app");
        has_left(b);
        b.berth("network rm app");
    });
}
