//! How soon a container that `docker run` has started is known by its name on another node, and how often that is written.
//!
//! Docker tells a network driver no names: berth learns them from Docker's API, while the container starts. So what is measured
//! is from the return of `docker run --detach` on one node until the other's DNS server answers for the name; less than nothing
//! where it answered before.

use std::net::SocketAddr;
use std::time::Instant;

use berth_integration::Debian;
use berth_integration::bench::{self, Wanted, row};
use berth_integration::engine::Dockerd;

use crate::stage::{Member, Stage};
use crate::visible::first_answer;
use crate::writes::Writes;

/// Containers that are started, one after the other.
const STARTS: usize = 40;

/// Containers that are started at once, and how often.
const AT_ONCE: usize = 6;
const ROUNDS: usize = 4;

/// Services that Compose starts at once.
const SERVICES: u32 = 10;

/// Containers whose writes are counted.
const WRITTEN: u32 = 40;

/// What is measured, and its node's number and network.
const RELEASES: [(Debian, usize, &str); 2] = [(Debian::V12, 11, "green"), (Debian::V13, 12, "white")];

/// From where names are asked for, and whom.
struct Eye {
    member: Member,
    gateway: SocketAddr,
}

pub(crate) fn measure(stage: &Stage) {
    for (number, (debian, node, network)) in (0_u8..).zip(RELEASES) {
        let mut node = stage.node_of(debian, node, "docker,overlay,dns");
        let docker = Dockerd::new(node.host, debian, &[]);
        let gateway = SocketAddr::new([10, 8, number, 1].into(), 53);
        docker.run(&format!(
            "network create --driver roverlay --ipam-driver roverlay --ipam-opt network={network} --opt network={network} \
             --subnet 10.8.{number}.0/24 {network}"
        ));
        let eye = Eye { member: stage.nodes[0].attach(network, &format!("eye-{network}")).0, gateway };
        alone(&docker, network, &eye);
        together(&docker, network, &eye);
        written(stage, &docker, network);
        composed(stage, &docker, network);
        eye.member.del();
        docker.run(&format!("network rm {network}"));
        docker.end();
        node.berth(&format!("network rm {network}"));
        node.berth("node leave");
        node.daemon.stop();
    }
}

/// One after the other: names, and other names.
fn alone(docker: &Dockerd<'_>, network: &str, eye: &Eye) {
    let (mut names, mut aliases) = (Vec::new(), Vec::new());
    for number in 0..STARTS {
        let (name, alias) = (format!("s{number}"), format!("also{number}"));
        let (returned, [named, also]) = std::thread::scope(|scope| {
            let asked = [&name, &alias]
                .map(|name| scope.spawn(|| first_answer(&eye.member.container, eye.gateway, name)));
            docker.run(&format!(
                "run --detach --name {name} --network {network} --network-alias {alias} busybox"
            ));
            (Instant::now(), asked.map(|asked| asked.join().unwrap()))
        });
        names.push(millis(returned, named));
        aliases.push(millis(returned, also));
        docker.run(&format!("rm --force {name}"));
    }
    report(docker, "a container's name is", &names);
    report(docker, "a container's `--network-alias` is", &aliases);
}

/// Several at once.
fn together(docker: &Dockerd<'_>, network: &str, eye: &Eye) {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let names: Vec<String> = (0..AT_ONCE).map(|number| format!("t{round}-{number}")).collect();
        std::thread::scope(|scope| {
            let start = |name: &String| {
                let line = format!("run --detach --name {name} --network {network} busybox");
                let named = scope.spawn({
                    let name = name.clone();
                    move || first_answer(&eye.member.container, eye.gateway, &name)
                });
                let returned = scope.spawn(move || {
                    docker.run(&line);
                    Instant::now()
                });
                (returned, named)
            };
            let started: Vec<_> = names.iter().map(start).collect();
            let of = |(returned, named): (std::thread::ScopedJoinHandle<'_, Instant>, _)| {
                let named: std::thread::ScopedJoinHandle<'_, Instant> = named;
                millis(returned.join().unwrap(), named.join().unwrap())
            };
            times.extend(started.into_iter().map(of));
        });
        remove_all(docker);
    }
    report(docker, &format!("the name of each of {AT_ONCE} containers started at once is"), &times);
}

/// What an attachment costs the cluster: of a container that is started, and of one that runs.
fn written(stage: &Stage, docker: &Dockerd<'_>, network: &str) {
    let version = docker.run("version --format {{.Server.Version}}");
    let names: Vec<String> = (0..WRITTEN).map(|number| format!("w{number}")).collect();
    let of_each = |what: &str, line: &str| {
        let writes = Writes::of(stage, || {
            for name in &names {
                docker.run(&line.replace("NAME", name));
            }
        });
        let words = format!("writes of etcd for {what} (Docker {version})");
        row(&words, "", writes.each(WRITTEN), None, Wanted::AtMost(1.0));
    };
    for (what, also) in [("", ""), (" with a `--network-alias`", "--network-alias also ")] {
        let what = format!("a container{what} that `docker run` starts");
        of_each(&what, &format!("run --detach --name NAME --network {network} {also}busybox"));
        remove_all(docker);
    }
    for name in &names {
        docker.run(&format!("run --detach --name {name} busybox"));
    }
    of_each(
        "`network connect --alias` of one that runs",
        &format!("network connect --alias also {network} NAME"),
    );
    remove_all(docker);
}

/// What Compose's services cost it, where the network is the only one of each, and where it is the second: that is added to a
/// container between its creation and its start, or named by its number (`net-plugins/docker/src/watch/stopped.rs`).
fn composed(stage: &Stage, docker: &Dockerd<'_>, network: &str) {
    let version = docker.run("version --format {{.Server.Version}}");
    for (nth, before) in [("only", ""), ("second", "      before: {priority: 100}\n")] {
        let service = |number: u32| {
            format!(
                "  s{number}:\n    image: busybox\n    networks:\n{before}      {network}: {{aliases: [also{number}]}}\n"
            )
        };
        let services: String = (0..SERVICES).map(service).collect();
        let text = format!(
            "version: '3.7'\nservices:\n{services}networks:\n  before: {{}}\n  {network}: {{external: true}}\n"
        );
        let dir = docker.project(&format!("composed-{nth}"), &text);
        let writes = Writes::of(stage, || {
            docker.compose(&dir, "up -d").run();
        });
        let words = format!(
            "writes of etcd for a service that Compose starts, on its {nth} network (Docker {version})"
        );
        row(&words, "", writes.each(SERVICES), None, Wanted::AtMost(1.0));
        remove_all(docker);
        docker.compose(&dir, "down").run();
    }
}

/// Removes all containers, one after the other: of many that go at once, dockerd may forget to count one off, and then refuses
/// to remove their network (moby#42119).
fn remove_all(docker: &Dockerd<'_>) {
    for id in docker.run("ps --all --quiet").lines() {
        docker.run(&format!("rm --force {id}"));
    }
}

/// From `returned` to `named`.
fn millis(returned: Instant, named: Instant) -> f64 {
    let (late, early) =
        (named.saturating_duration_since(returned), returned.saturating_duration_since(named));
    (late.as_secs_f64() - early.as_secs_f64()) * 1000.0
}

fn report(docker: &Dockerd<'_>, what: &str, times: &[f64]) {
    let version = docker.run("version --format {{.Server.Version}}");
    for percent in [50, 99] {
        let words = format!(
            "{what} answered on another node, after `docker run --detach` has returned (Docker {version}), p{percent}"
        );
        row(&words, "ms", bench::of_hundred(times.to_vec(), percent), None, Wanted::AtMost(100.0));
    }
}
