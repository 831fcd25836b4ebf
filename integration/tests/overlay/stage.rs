//! Hosts on one LAN with an etcd on it, each a node of the cluster with its agent.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_integration::engine::Berthd;
use berth_integration::{Call, CniError, CniRan, Container, Host, Lan, Seat, eventually, frame, lan_test};
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
#[derive(Debug)]
pub(crate) struct Member<'s> {
    pub(crate) container: Container<'s>,
    /// The first of its addresses.
    pub(crate) address: String,
    pub(crate) addresses: Vec<String>,
    /// The call that added it, with the result it had.
    pub(crate) call: Call<'s>,
}

/// Runs `test` with `count` nodes, joined. Afterwards they leave, and the first host has to be as it was before.
pub(crate) fn stage_test(count: usize, test: impl FnOnce(&mut Stage<'_>)) {
    nodes_test(count, |lan, nodes| {
        let mut stage = Stage { etcd: Etcd::at(lan, &Lan::V4.to_string()), nodes };
        for node in &stage.nodes {
            node.join(&stage.etcd.endpoint);
        }
        stage.nodes.iter().for_each(Node::is_connected);
        test(&mut stage);
        leave(stage.nodes);
    });
}

/// Runs `test` with `count` hosts with agents that have joined nothing. It has them leave what they join.
pub(crate) fn nodes_test(count: usize, test: impl FnOnce(&Lan, Vec<Node<'_>>)) {
    nodes_test_with(count, &[], test);
}

/// As [`nodes_test`], with agents that are started with `more`.
pub(crate) fn nodes_test_with(count: usize, more: &[&str], test: impl FnOnce(&Lan, Vec<Node<'_>>)) {
    lan_test(|first, lan, seat| {
        let others: Vec<(Host, Seat)> = (1..count).map(|_| joined(lan)).collect();
        let all = [(first, seat)].into_iter().chain(others.iter().map(|(host, seat)| (host, seat)));
        let node = |(place, (host, seat))| Node::with(host, seat, place + 1, more);
        test(lan, all.enumerate().map(node).collect());
    });
}

/// Has `nodes` leave their cluster, the agents of those that were killed started for it.
pub(crate) fn leave(mut nodes: Vec<Node<'_>>) {
    for node in &mut nodes {
        if !node.daemon.runs() {
            node.daemon.start();
        }
        node.is_connected();
    }
    for node in &mut nodes {
        node.berth("node leave");
        node.daemon.stop();
        node.host.gc();
    }
}

fn joined(lan: &Lan) -> (Host, Seat) {
    let host = Host::new();
    let seat = lan.join(&host);
    (host, seat)
}

impl<'s> Node<'s> {
    pub(crate) fn new(host: &'s Host, seat: &Seat, number: usize) -> Self {
        Self::with(host, seat, number, &[])
    }

    fn with(host: &'s Host, seat: &Seat, number: usize, more: &[&str]) -> Self {
        let args = [&["--roles", "overlay,dns", "--lost-node-after", "40"], more].concat();
        let daemon = Berthd::beside_cni(host, &args);
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

    /// As [`Node::join`], in a cluster of peers that `text` lists.
    pub(crate) fn join_peers(&self, text: &str) {
        self.write_peers(text);
        self.berth(&format!("node join --peers {} --name {}", self.peers_file().display(), self.name));
    }

    /// Replaces the node's file of peers.
    pub(crate) fn write_peers(&self, text: &str) {
        // Written beside and renamed, as people's tools do.
        let part = self.host.dir().join("peers.part");
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, self.peers_file()).unwrap();
    }

    pub(crate) fn peers_file(&self) -> std::path::PathBuf {
        self.host.dir().join("peers.json")
    }

    /// What the agent says of itself; it may be asked again where everything is slow.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        eventually(SOON, || {
            let ran = self.host.berth(["overlay", "status", "--json"]).output();
            serde_json::from_str(&ran.stdout).map_err(|err| format!("{err}: {ran}"))
        })
    }

    /// Waits until `other` is known here, with `vtep` as its tunnel end for IPv4.
    #[track_caller]
    pub(crate) fn knows(&self, other: &str, vtep: &str) {
        eventually(SOON, || {
            let rows = self.json("node ls");
            let other = rows.as_array().unwrap().iter().find(|row| row["node"] == other);
            let is_there = other.is_some_and(|row| row["alive"] == true && row["vteps"][0] == vtep);
            if is_there { Ok(()) } else { Err(rows.to_string()) }
        });
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
        self.call_of("blue")
    }

    /// A call of `roverlay` for a network.
    pub(crate) fn call_of(&self, network: &str) -> Call<'s> {
        self.host.cni().conf(json!({"type": "roverlay", "name": network}))
    }

    /// Attaches a new container `id` that is called `name`.
    #[track_caller]
    pub(crate) fn add(&self, id: &str, name: &str) -> Member<'s> {
        let (member, ran) = self.try_add(id, name);
        ran.ok();
        member
    }

    pub(crate) fn try_add(&self, id: &str, name: &str) -> (Member<'s>, CniRan) {
        self.try_call(self.call(), id, name)
    }

    /// As [`Node::add`], with a call of one's own.
    #[track_caller]
    pub(crate) fn add_with(&self, call: Call<'s>, id: &str, name: &str) -> Member<'s> {
        let (member, ran) = self.try_call(call, id, name);
        ran.ok();
        member
    }

    fn try_call(&self, call: Call<'s>, id: &str, name: &str) -> (Member<'s>, CniRan) {
        let container = self.host.container(id);
        let call = call.id(id).container(&container);
        let call = call.args(&format!("IgnoreUnknown=1;K8S_POD_NAME={name}"));
        let ran = call.add();
        let addresses =
            ran.addresses().into_iter().map(|address| address.split('/').next().unwrap().to_owned());
        let addresses: Vec<String> = addresses.collect();
        let address = addresses.first().cloned().unwrap_or_default();
        let call = if ran.succeeded() { call.key("prevResult", ran.json.clone()) } else { call };
        (Member { container, address, addresses, call }, ran)
    }

    /// As [`Node::add_with`], which may be refused; the container is gone then.
    pub(crate) fn try_with(&self, call: Call<'s>, id: &str, name: &str) -> Result<Member<'s>, CniError> {
        let (member, ran) = self.try_call(call, id, name);
        if ran.succeeded() { Ok(member) } else { Err(ran.err()) }
    }

    /// As [`Node::add`], to another network.
    #[track_caller]
    pub(crate) fn add_to(&self, network: &str, id: &str, name: &str) -> Member<'s> {
        let (member, ran) = self.try_add_to(network, id, name);
        ran.ok();
        member
    }

    pub(crate) fn try_add_to(&self, network: &str, id: &str, name: &str) -> (Member<'s>, CniRan) {
        self.try_call(self.call_of(network), id, name)
    }

    /// Waits until its DNS server answers `member` exactly `wanted` for `name`.
    #[track_caller]
    pub(crate) fn answers(&self, member: &Member<'_>, name: &str, wanted: &[&str]) {
        let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
        eventually(SOON, || {
            let answer = self.dig(member, name);
            let found: BTreeSet<&str> = answer.lines().collect();
            if found == wanted { Ok(()) } else { Err(format!("{name} is {found:?} on {}", self.name)) }
        });
    }

    /// What its DNS server answers a member, at the gateway of its network, for `name`.
    pub(crate) fn dig(&self, member: &Member<'_>, name: &str) -> String {
        let network = member.address.rsplit_once('.').map_or("10.5.0", |(network, _)| network);
        // A name alone may be a type of records to `dig`, as `key` is.
        let line = format!("dig +short +tries=1 +time=2 @{network}.1 -q {name}");
        member.container.line(&line).output().stdout.trim().to_owned()
    }
}

impl Member<'_> {
    /// Its Ethernet address.
    pub(crate) fn mac(&self) -> frame::Mac {
        frame::mac(self.container.json("ip -j link show eth0")[0]["address"].as_str().unwrap())
    }

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
