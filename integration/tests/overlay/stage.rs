//! Hosts on one LAN with an etcd on it, each a node of the cluster with its agent.

use std::time::Duration;

use berth_integration::engine::Berthd;
use berth_integration::{Call, CniRan, Container, Host, Lan, Seat, eventually, lan_test};
use serde_json::{Value, json};

use crate::control::etcd::Etcd;

/// How long a change may take to be everywhere, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Everything.
pub(crate) struct Stage<'s> {
    pub(crate) etcd: Etcd<'s>,
    pub(crate) nodes: Vec<Node<'s>>,
}

/// A host that is a node.
pub(crate) struct Node<'s> {
    pub(crate) host: &'s Host,
    pub(crate) name: String,
    pub(crate) seat: Seat,
    pub(crate) daemon: Berthd<'s>,
}

/// A container on a network.
pub(crate) struct Member<'s> {
    pub(crate) container: Container<'s>,
    pub(crate) address: String,
    call: Call<'s>,
}

/// Runs `test` with `count` nodes, joined. Afterwards they leave, and the first host has to be as it was before.
pub(crate) fn stage_test(count: usize, test: impl FnOnce(&mut Stage<'_>)) {
    lan_test(|first, lan, seat| {
        let others: Vec<(Host, Seat)> = (1..count).map(|_| joined(lan)).collect();
        let etcd = Etcd::at(lan, &Lan::V4.to_string());
        let all = [(first, seat)].into_iter().chain(others.iter().map(|(host, seat)| (host, seat)));
        let nodes = all.enumerate().map(|(place, (host, seat))| Node::new(host, seat, place + 1)).collect();
        let mut stage = Stage { etcd, nodes };
        for node in &stage.nodes {
            node.join(&stage.etcd.endpoint);
        }
        stage.nodes.iter().for_each(Node::is_connected);
        test(&mut stage);
        for node in &mut stage.nodes {
            if !node.daemon.runs() {
                node.daemon.start();
            }
            node.is_connected();
        }
        for node in &mut stage.nodes {
            node.berth("node leave");
            node.daemon.stop();
            node.host.gc();
        }
    });
}

fn joined(lan: &Lan) -> (Host, Seat) {
    let host = Host::new();
    let seat = lan.join(&host);
    (host, seat)
}

impl<'s> Node<'s> {
    pub(crate) fn new(host: &'s Host, seat: &Seat, number: usize) -> Self {
        let daemon = Berthd::beside_cni(host, &["--roles", "overlay,dns"]);
        Self { host, name: format!("n{number}"), seat: seat.clone(), daemon }
    }

    pub(crate) fn join(&self, endpoint: &str) {
        self.berth(&format!("node join --etcd http://{endpoint} --name {}", self.name));
    }

    /// Runs a command of berth's, which has to succeed.
    #[track_caller]
    pub(crate) fn berth(&self, line: &str) -> String {
        self.host.berth(line.split(' ')).run()
    }

    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        // Its exit status is a part of the answer.
        let ran = self.host.berth(line.split(' ').chain(["--json"])).output();
        serde_json::from_str(&ran.stdout).unwrap_or_else(|err| panic!("`{line}`: {err}: {ran}"))
    }

    pub(crate) fn status(&self) -> Value {
        self.json("overlay status")
    }

    /// Waits until the agent follows the cluster.
    #[track_caller]
    pub(crate) fn is_connected(&self) {
        eventually(SOON, || match self.status() {
            status if status["connected"] == true => Ok(()),
            status => Err(format!("{} is not connected: {status}", self.name)),
        });
    }

    /// A call of `roverlay` for the network `blue`.
    pub(crate) fn call(&self) -> Call<'s> {
        self.host.cni().conf(json!({"type": "roverlay", "name": "blue"}))
    }

    /// Attaches a new container `id` that is called `name`.
    #[track_caller]
    pub(crate) fn add(&self, id: &str, name: &str) -> Member<'s> {
        let (member, ran) = self.try_add(id, name);
        ran.ok();
        member
    }

    pub(crate) fn try_add(&self, id: &str, name: &str) -> (Member<'s>, CniRan) {
        let container = self.host.container(id);
        let call = self.call().id(id).container(&container);
        let call = call.args(&format!("IgnoreUnknown=1;K8S_POD_NAME={name}"));
        let ran = call.add();
        let address = ran.json["ips"][0]["address"].as_str().unwrap_or_default();
        let address = address.split('/').next().unwrap_or_default().to_owned();
        (Member { container, address, call }, ran)
    }

    /// What its DNS server answers a member for `name`.
    pub(crate) fn dig(&self, member: &Member<'_>, name: &str) -> String {
        let line = format!("dig +short +tries=1 +time=2 @10.5.0.1 {name}");
        member.container.line(&line).output().stdout.trim().to_owned()
    }
}

impl Member<'_> {
    /// Takes it off the network.
    #[track_caller]
    pub(crate) fn del(self) {
        self.call.del().ok();
    }

    /// Waits until it reaches `other`.
    #[track_caller]
    pub(crate) fn reaches(&self, other: &Member<'_>) {
        eventually(SOON, || match self.container.ping(&other.address, 1) {
            1 => Ok(()),
            _ => Err(format!("{} does not reach {}", self.address, other.address)),
        });
    }
}
