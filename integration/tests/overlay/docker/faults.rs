//! What goes on while daemons die, hosts boot anew and the cluster's records are away.

use std::time::Duration;

use berth_integration::engine::nothing_attached;
use berth_integration::{Debian, eventually};
use serde_json::json;

use super::stage::{Node, Stage, docker_stage_test};
use crate::stage::SOON;

/// Runs `test` with `app` shared, a server that is restarted on the first node and a client on the second.
fn served_test(test: impl FnOnce(&mut Stage<'_>)) {
    docker_stage_test(Debian::V12, 0, |stage| {
        let [a, b] = &stage.nodes[..] else { unreachable!() };
        a.berth("network create -d overlay app --subnet 10.5.0.0/24");
        a.berth("network share app");
        b.has_network("app", true);
        a.starts("server", "app", "--restart always");
        b.starts("client", "app", "--restart always");
        is_served(stage);
        test(stage);
        let [a, b] = &stage.nodes[..] else { unreachable!() };
        a.types("docker rm -f server");
        b.types("docker rm -f client");
        nothing_attached(a.host);
        nothing_attached(b.host);
        a.berth("network rm app");
        a.has_network("app", false);
        b.has_network("app", false);
    });
}

#[track_caller]
fn is_served(stage: &Stage<'_>) {
    let [a, b] = &stage.nodes[..] else { unreachable!() };
    let label = a.docker.label("server");
    b.fetches("client", "server:80", &label);
    b.fetches("client", &format!("{}:80", a.address("server", "app")), &label);
}

/// Waits until a container with a restart policy runs again.
#[track_caller]
fn comes_back(node: &Node<'_>, name: &str) {
    eventually(Duration::from_secs(40), || {
        let state = node.docker.run(&format!("inspect --format {{{{.State.Running}}}} {name}"));
        if state == "true" { Ok(()) } else { Err(node.docker.run("ps --all")) }
    });
}

#[test]
fn daemons_that_are_killed_break_nothing_that_need_not_break() {
    served_test(|stage| {
        stage.nodes[0].berthd.crash();
        // By address; for names there is nobody now but on the other host.
        is_served(stage);
        stage.nodes[0].berthd.start();
        stage.nodes[0].is_connected();
        is_served(stage);
        stage.nodes[0].agrees();
        // A dockerd that starts ends what runs, and starts what is to be restarted.
        stage.nodes[0].docker.crash();
        stage.nodes[0].docker.start();
        comes_back(&stage.nodes[0], "server");
        is_served(stage);
        stage.nodes[0].agrees();
        assert_eq!(stage.nodes[0].json("ps").as_array().unwrap().len(), 1);
        // Both at once.
        stage.nodes[1].docker.crash();
        stage.nodes[1].berthd.crash();
        stage.nodes[1].berthd.start();
        stage.nodes[1].docker.start();
        comes_back(&stage.nodes[1], "client");
        is_served(stage);
        stage.nodes[1].agrees();
        assert_eq!(stage.nodes[1].json("ps").as_array().unwrap().len(), 1);
    });
}

#[test]
fn containers_come_back_on_their_network_after_a_reboot() {
    served_test(|stage| {
        stage.nodes[0].reboots();
        comes_back(&stage.nodes[0], "server");
        stage.nodes[0].is_connected();
        is_served(stage);
        stage.nodes[0].agrees();
        assert_eq!(stage.nodes[0].identity("app"), stage.nodes[1].identity("app"));
        // A new container too, and it is another address.
        let [a, b] = &stage.nodes[..] else { unreachable!() };
        a.starts("late", "app", "");
        assert_ne!(a.address("late", "app"), a.address("server", "app"));
        b.fetches("client", "late:80", &a.docker.label("late"));
        a.types("docker rm -f late");
        berth_integration::engine::reboots_are_over(a.host);
    });
}

#[test]
fn containers_start_while_the_clusters_records_are_away() {
    served_test(|stage| {
        stage.etcd.kill();
        is_served(stage);
        let [a, b] = &stage.nodes[..] else { unreachable!() };
        a.starts("late", "app", "");
        a.fetches("server", "late:80", &a.docker.label("late"));
        a.types("docker rm -f late");
        a.starts("later", "app", "");
        stage.etcd.start();
        stage.etcd.healthy();
        a.is_connected();
        b.is_connected();
        b.fetches("client", "later:80", &a.docker.label("later"));
        a.types("docker rm -f later");
        eventually(SOON, || {
            let known = stage.etcd.ctl(&["get", "--prefix", "/berth/v1/ep/app/c/", "--keys-only"]);
            let count = known.lines().filter(|line| !line.is_empty()).count();
            if count == 2 { Ok(()) } else { Err(known) }
        });
    });
}

#[test]
fn what_docker_forgot_while_berthd_was_down_is_forgotten() {
    docker_stage_test(Debian::V12, 0, |stage| {
        let (one, others) = stage.nodes.split_first_mut().unwrap();
        let other = &others[0];
        one.creates("app", "--subnet 10.5.0.0/24");
        other.creates("app", "");
        one.starts("gone", "app", "");
        other.starts("client", "app", "");
        other.fetches("client", "gone:80", &one.docker.label("gone"));
        one.berthd.stop();
        // Docker waits 15 seconds for each answer, says so or not, and forgets.
        for words in [["rm", "-f", "gone"].as_slice(), &["network", "rm", "app"]] {
            one.docker.cmd(words.iter().copied()).spawn().wait(Duration::from_secs(100));
        }
        one.has_network("app", false);
        one.berthd.start();
        one.is_connected();
        nothing_attached(one.host);
        eventually(SOON, || {
            let ran = other.docker.fetch("client", "gone:80");
            if ran.status.success() { Err(ran.to_string()) } else { Ok(()) }
        });
        // Forgotten with it: the same is created anew.
        let again = "docker network create -d roverlay --ipam-driver roverlay --ipam-opt network=app -o network=app \
                     --subnet 10.5.0.0/24 app";
        eventually(SOON, || {
            let ran = one.docker.shell(again).output();
            if ran.status.success() { Ok(()) } else { Err(ran.to_string()) }
        });
        one.starts("next", "app", "");
        other.fetches("client", "next:80", &one.docker.label("next"));
        one.types("docker rm -f next\n docker network rm app");
        other.types("docker rm -f client\n docker network rm app");
        nothing_attached(other.host);
        // The cluster's network stays until it is removed there.
        assert_ne!(other.json("network ls"), json!([]));
        other.berth("network rm app");
    });
}
