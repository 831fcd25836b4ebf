//! Three nodes of a cluster on a routed underlay, and two hosts that berth is not on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use berth_integration::engine::Berthd;
use berth_integration::{Call, Cmd, Container, Debian, Host, Seat, Underlay, eventually};
use serde_json::{Value, json};

use crate::etcd::Etcd;

/// How long a change may take to be everywhere before the bench gives up.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// What the underlay carries, bytes.
const UNDERLAY_MTU: u32 = 1500;

/// The network that most is measured on, and its gateway, which answers questions for names.
pub(crate) const NETWORK: &str = "blue";
pub(crate) const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 5, 0, 1)), 53);
const SUBNET: &str = "10.5.0.0/16";

/// Hosts live as long as the program: who ends it takes away what is in them.
pub(crate) struct Stage {
    pub(crate) underlay: &'static Underlay,
    pub(crate) etcd: Etcd<'static>,
    pub(crate) nodes: Vec<Node>,
    /// Hosts that berth is not on.
    pub(crate) plain: [(&'static Host, Seat); 2],
}

/// A host that is a node.
pub(crate) struct Node {
    pub(crate) host: &'static Host,
    pub(crate) seat: Seat,
    pub(crate) daemon: Berthd<'static>,
}

/// A container on a network of the cluster.
pub(crate) struct Member {
    pub(crate) container: Container<'static>,
    pub(crate) address: IpAddr,
    pub(crate) mac: String,
    call: Call<'static>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let underlay: &'static Underlay = Box::leak(Box::new(Underlay::new(UNDERLAY_MTU)));
        let mut hosts = (0..5).map(|_| host_on(underlay, Debian::V12)).collect::<Vec<_>>().into_iter();
        let seated: Vec<_> = hosts.by_ref().take(3).collect();
        let plain = [hosts.next().unwrap(), hosts.next().unwrap()];
        // The router's address on the first host's side; it is reached from all.
        let etcd = Etcd::new(underlay, "198.18.1.1");
        let nodes: Vec<Node> = (1..)
            .zip(seated)
            .map(|(number, (host, seat))| Node::new(host, seat, number, "overlay,dns", &etcd))
            .collect();
        nodes[0].berth(&format!("network create -d overlay {NETWORK} --subnet {SUBNET}"));
        Self { underlay, etcd, nodes, plain }
    }

    /// A further node, whose daemon has `roles`.
    pub(crate) fn node(&self, number: usize, roles: &str) -> Node {
        self.node_of(Debian::V12, number, roles)
    }

    /// The same on a host of `debian`.
    pub(crate) fn node_of(&self, debian: Debian, number: usize, roles: &str) -> Node {
        let (host, seat) = host_on(self.underlay, debian);
        Node::new(host, seat, number, roles, &self.etcd)
    }

    /// Ends the daemons.
    pub(crate) fn end(self) {
        for mut node in self.nodes {
            node.daemon.stop();
        }
    }
}

fn host_on(underlay: &Underlay, debian: Debian) -> (&'static Host, Seat) {
    let host: &'static Host = Box::leak(Box::new(Host::on(debian)));
    let seat = underlay.join(host);
    (host, seat)
}

impl Node {
    fn new(host: &'static Host, seat: Seat, number: usize, roles: &str, etcd: &Etcd<'_>) -> Self {
        let daemon = Berthd::beside_cni(host, &["--roles", roles]);
        let node = Self { host, seat, daemon };
        node.berth(&format!("node join --etcd {} --name n{number}", etcd.url));
        node.is_connected();
        node
    }

    /// The same with a daemon of other roles; none named are all.
    pub(crate) fn with_roles(self, roles: Option<&str>) -> Self {
        let Self { host, seat, mut daemon } = self;
        daemon.stop();
        drop(daemon);
        let options: Vec<&str> = roles.into_iter().flat_map(|roles| ["--roles", roles]).collect();
        let node = Self { host, seat, daemon: Berthd::beside_cni(host, &options) };
        node.is_connected();
        node
    }

    /// Runs a command of berth's.
    pub(crate) fn berth(&self, line: &str) -> String {
        self.host.berth(line.split(' ')).run()
    }

    /// How the agent is.
    pub(crate) fn status(&self) -> Value {
        let ran = self.host.berth(["overlay", "status", "--json"]).output();
        serde_json::from_str(&ran.stdout).unwrap_or(Value::Null)
    }

    /// Waits until the agent follows the cluster.
    pub(crate) fn is_connected(&self) {
        eventually(SOON, || match self.status() {
            status if status["connected"] == true => Ok(()),
            status => Err(format!("not connected: {status}")),
        });
    }

    /// Puts a new container, which is called as its number is, on a network.
    pub(crate) fn attach(&self, network: &str, name: &str) -> (Member, Duration) {
        self.prepare(network, name).add()
    }

    /// A container that is on no network yet.
    pub(crate) fn prepare(&self, network: &str, name: &str) -> Prepared {
        let container = self.host.container(name);
        let call = self.host.cni().conf(json!({"type": "roverlay", "name": network})).id(name);
        let call = call.container(&container).args(&format!("IgnoreUnknown=1;K8S_POD_NAME={name}"));
        Prepared { container, call }
    }

    /// A tool of the bench, on this host.
    pub(crate) fn figures(&self, words: &[&str]) -> Cmd {
        figures(self.host, words)
    }
}

/// The overlay's example that measures what happens in one process, on `host`.
pub(crate) fn figures(host: &Host, words: &[&str]) -> Cmd {
    let tool = std::env::var("BERTH_OVERLAY_FIGURES");
    let tool = tool.expect("BERTH_OVERLAY_FIGURES names berth-overlay's example overlay_figures");
    host.cmd(tool).args(words).deadline(Duration::from_secs(120))
}

/// A container, and the call that puts it on a network.
pub(crate) struct Prepared {
    container: Container<'static>,
    call: Call<'static>,
}

impl Prepared {
    /// Puts it on the network; and how long that took.
    pub(crate) fn add(self) -> (Member, Duration) {
        let Self { container, call } = self;
        let ran = call.add();
        let elapsed = ran.elapsed();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let address = text(&ran.json["ips"][0]["address"]);
        let interfaces = ran.json["interfaces"].as_array().cloned().unwrap_or_default();
        let inside = interfaces.iter().find(|interface| !text(&interface["sandbox"]).is_empty());
        let mac = inside.map(|inside| text(&inside["mac"])).unwrap_or_default();
        ran.ok();
        let address = address.split('/').next().unwrap().parse().unwrap();
        (Member { container, address, mac, call }, elapsed)
    }
}

impl Member {
    /// Takes it off the network.
    pub(crate) fn del(self) {
        self.call.del().ok();
    }

    /// Waits until it reaches `other`.
    pub(crate) fn reaches(&self, other: &Self) {
        eventually(SOON, || match self.container.ping(other.address, 1) {
            1 => Ok(()),
            _ => Err(format!("{} does not reach {}", self.address, other.address)),
        });
    }
}
