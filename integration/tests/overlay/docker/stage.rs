//! Hosts on a routed underlay, each with a dockerd, berth's daemon and a place in the cluster, whose records are in etcd.

use std::time::Duration;

use berth_integration::engine::{Berthd, DOCKER, Dockerd, across_test, berth, reboot};
use berth_integration::{Debian, Host, Ran, Seat, Servers, eventually};
use serde_json::{Value, json};

use crate::control::etcd::Etcd;
use crate::stage::SOON;

/// Where the cluster's records are: an address of the router that each host reaches.
const ETCD: &str = "198.18.1.1";

/// A DNS server of elsewhere, which nobody is: whom containers ask without being told of another.
const SERVER: &str = "nameserver 198.18.1.1\n";

/// Everything.
pub(crate) struct Stage<'s> {
    pub(crate) etcd: Etcd<'s>,
    pub(crate) nodes: Vec<Node<'s>>,
    /// Hosts without an engine.
    pub(crate) others: &'s [(Host, Seat)],
}

/// A host with Docker.
pub(crate) struct Node<'s> {
    pub(crate) host: &'s Host,
    pub(crate) seat: &'s Seat,
    pub(crate) name: String,
    pub(crate) docker: Dockerd<'s>,
    pub(crate) berthd: Berthd<'s>,
}

/// Runs `test` with two hosts with a dockerd of `debian`, joined, and `others` hosts without. Afterwards there must be nothing of
/// the test in Docker, and the hosts have to be as before.
pub(crate) fn docker_stage_test(debian: Debian, others: usize, test: impl FnOnce(&mut Stage<'_>)) {
    across_test(debian, 2 + others, &DOCKER, |underlay, hosts| {
        let etcd = Etcd::at(underlay, ETCD);
        let _servers: Vec<Servers<'_>> = hosts.iter().map(|(host, _)| Servers::new(host, SERVER)).collect();
        let (with, others) = hosts.split_at(2);
        let nodes = with.iter().zip(["a", "b"]);
        let nodes = nodes.map(|((host, seat), name)| Node::new(debian, host, seat, name)).collect();
        let mut stage = Stage { etcd, nodes, others };
        stage.nodes.iter().for_each(|node| node.join(&stage.etcd.endpoint));
        stage.nodes.iter().for_each(Node::is_connected);
        test(&mut stage);
        for mut node in stage.nodes.drain(..) {
            if !node.berthd.runs() {
                node.berthd.start();
            }
            node.is_connected();
            let Node { host, docker, mut berthd, .. } = node;
            docker.end();
            berth(host, ["node", "leave"]).run();
            berthd.stop();
        }
    });
}

impl<'s> Node<'s> {
    fn new(debian: Debian, host: &'s Host, seat: &'s Seat, name: &str) -> Self {
        let berthd = Berthd::new(host, &[]);
        let docker = Dockerd::new(host, debian, &[]);
        Self { host, seat, name: name.to_owned(), docker, berthd }
    }

    pub(crate) fn join(&self, endpoint: &str) {
        self.berth(&format!("node join --etcd http://{endpoint} --name {}", self.name));
    }

    /// Runs a command of berth's, which has to succeed.
    #[track_caller]
    pub(crate) fn berth(&self, line: &str) -> String {
        berth(self.host, line.split(' ')).run()
    }

    /// Runs a command of berth's, however that ends.
    pub(crate) fn try_berth(&self, line: &str) -> Ran {
        berth(self.host, line.split(' ')).output()
    }

    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        // Its exit status is a part of the answer.
        let ran = berth(self.host, line.split(' ').chain(["--json"])).output();
        serde_json::from_str(&ran.stdout).unwrap_or_else(|err| panic!("`{line}`: {err}: {ran}"))
    }

    /// Waits until the agent follows the cluster.
    #[track_caller]
    pub(crate) fn is_connected(&self) {
        eventually(SOON, || match self.json("overlay status") {
            status if status["connected"] == true => Ok(()),
            status => Err(format!("{} is not connected: {status}", self.name)),
        });
    }

    /// Runs lines as people type them; each must succeed. Returns what the last one printed.
    #[track_caller]
    pub(crate) fn types(&self, lines: &str) -> String {
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.fold(String::new(), |_, line| self.docker.shell(line).run())
    }

    /// Runs a line as people type it, which must be refused. Returns what was complained about.
    #[track_caller]
    pub(crate) fn refuses(&self, line: &str) -> String {
        let ran = self.docker.shell(line).output();
        assert!(!ran.status.success(), "`{line}` should have failed: {ran}");
        ran.stderr
    }

    /// Starts a container on `network`; `more` is what else is typed before the image. Its program is the usual one.
    #[track_caller]
    pub(crate) fn starts(&self, name: &str, network: &str, more: &str) {
        self.types(&format!("{} busybox", run(name, network, more)));
    }

    /// Starts a container as [`Node::starts`], which must be refused. Returns what was complained about.
    #[track_caller]
    pub(crate) fn does_not_start(&self, name: &str, network: &str, more: &str) -> String {
        let said = self.refuses(&format!("{} busybox", run(name, network, more)));
        self.types(&format!("docker rm -f {name}"));
        said
    }

    /// Starts a web server on `port`.
    #[track_caller]
    pub(crate) fn serves(&self, name: &str, network: &str, port: u16) {
        let run = run(name, network, "");
        self.types(&format!("{run} busybox httpd -f -p {port} -h /www"));
    }

    /// The address of a container.
    #[track_caller]
    pub(crate) fn address(&self, name: &str, network: &str) -> String {
        self.docker.address(name, network).to_string()
    }

    /// The network of the cluster that `network` is in both, created in Docker as a person types it.
    #[track_caller]
    pub(crate) fn creates(&self, network: &str, more: &str) {
        self.types(&format!(
            "docker network create -d roverlay --ipam-driver roverlay --ipam-opt network={network} \
             -o network={network} {more} {network}"
        ));
    }

    /// Cuts the host off, and boots it anew with what is on its disk.
    pub(crate) fn reboots(&mut self) {
        self.docker.power_off();
        self.berthd.crash();
        reboot(self.host);
        self.berthd.start();
        self.docker.start();
    }

    /// Waits until Docker has a network of this name, or has it no more.
    #[track_caller]
    pub(crate) fn has_network(&self, name: &str, has: bool) {
        eventually(SOON, || {
            let listed = self.types("docker network ls --format '{{.Name}} {{.Driver}}'");
            let found = listed.lines().any(|line| line == format!("{name} roverlay"));
            if found == has { Ok(()) } else { Err(format!("networks on {}: {listed}", self.name)) }
        });
    }

    /// What the cluster's network is here: number, subnets and gateways.
    #[track_caller]
    pub(crate) fn identity(&self, network: &str) -> Value {
        let shown = self.json(&format!("network inspect {network}"));
        let shown = if shown["network"].is_object() { shown["network"].clone() } else { shown };
        json!([shown["overlay"]["vni"], shown["subnets"], shown["gateways"], shown["mtu"]])
    }

    /// Requires that container `from` here fetches from `url` what says `label`.
    #[track_caller]
    pub(crate) fn fetches(&self, from: &str, url: &str, label: &str) {
        eventually(Duration::from_secs(20), || {
            let ran = self.docker.fetch(from, url);
            if ran.stdout == label { Ok(()) } else { Err(format!("{from} asked {url} for {label}: {ran}")) }
        });
    }

    /// Waits until Docker's view of the network, the records and the kernel agree here.
    #[track_caller]
    pub(crate) fn agrees(&self) {
        eventually(SOON, || {
            let all = ["doctor", "check"].map(|command| self.try_berth(command));
            let wrong: Vec<String> =
                all.iter().filter(|ran| ran.code() != Some(0)).map(ToString::to_string).collect();
            if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
        });
    }
}

fn run(name: &str, network: &str, more: &str) -> String {
    format!("docker run -d --name {name} --network {network} {more}")
}
