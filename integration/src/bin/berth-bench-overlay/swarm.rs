//! Docker's own overlay: a swarm of two of the hosts, and a network that single containers are connected to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_integration::bench::Socket;
use berth_integration::engine::Dockerd;
use berth_integration::{Debian, Host, Place, eventually};
use serde_json::json;

use crate::entries::{Entries, Kind};
use crate::stage::{SOON, Stage};
use crate::visible::{complete, first_answer};

const NETWORK: &str = "z-swarm";

/// The resolver in each container.
const RESOLVER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11)), 53);

/// What Docker writes for a container elsewhere.
const KINDS: [Kind; 2] = [Kind::Neighbour, Kind::Tunnel];

pub(crate) struct Swarm {
    host: &'static Host,
    dockers: [Dockerd<'static>; 2],
    eye: Place,
    kernel: Entries,
}

impl Swarm {
    /// Starts it on the first two hosts of the stage.
    pub(crate) fn new(stage: &Stage) -> Self {
        let [one, two, ..] = &stage.nodes[..] else { unreachable!("three nodes") };
        // Questions that the swarm cannot answer go to where they are refused at once.
        let options = ["--dns", "198.18.1.1"];
        let dockers = [one, two].map(|node| Dockerd::new(node.host, Debian::V12, &options));
        for node in [one, two] {
            // As berthd does where it serves Docker, and as `berth doctor` says: Docker drops what it does not know.
            node.host.run("iptables -I DOCKER-USER -m mark --mark 0x00b00000/0x00f00000 -j ACCEPT");
        }
        let addr = one.seat.v4;
        // Its tunnels have a port beside berth's.
        dockers[0].run(&format!("swarm init --advertise-addr {addr} --data-path-port 4791"));
        let token = dockers[0].run("swarm join-token --quiet worker");
        dockers[1].run(&format!("swarm join --advertise-addr {} --token {token} {addr}:2377", two.seat.v4));
        dockers[0]
            .run(&format!("network create --driver overlay --attachable --subnet 10.9.0.0/16 {NETWORK}"));
        dockers[0].run("network create --driver bridge a-first");
        dockers[0].run("run --detach --name moved --network a-first busybox");
        dockers[1].run(&format!("run --detach --name eye --network {NETWORK} busybox"));
        let eye = dockers[1].place("eye");
        let id = dockers[1].run(&format!("network inspect --format {{{{.Id}}}} {NETWORK}"));
        let kernel = Entries::at(two.host, &sandbox(two.host, &id));
        Self { host: one.host, dockers, eye, kernel }
    }

    /// Connects a running container on the first host: when that began, when it returned, and when the other host had its
    /// entries and answered for its name.
    pub(crate) fn once(&self, number: usize) -> (Instant, Instant, Instant) {
        let api = Socket::docker(self.host);
        let name = format!("moved{number}");
        let began = Instant::now();
        let (returned, named) = std::thread::scope(|scope| {
            let named = scope.spawn(|| first_answer(&self.eye, RESOLVER, &name));
            let ask = json!({"Container": "moved", "EndpointConfig": {"Aliases": [name]}});
            api.post(&format!("/networks/{NETWORK}/connect"), &ask);
            (Instant::now(), named.join().unwrap())
        });
        let mac = self.dockers[0].endpoint("moved", NETWORK)["MacAddress"].as_str().unwrap().to_owned();
        let written = complete(&self.kernel, &mac, &KINDS, began);
        api.post(&format!("/networks/{NETWORK}/disconnect"), &json!({"Container": "moved", "Force": false}));
        (began, returned, named.max(written))
    }

    pub(crate) fn end(self) {
        let Self { host: _, dockers, eye, kernel } = self;
        drop((eye, kernel));
        for (docker, name) in dockers.iter().zip(["moved", "eye"]) {
            docker.run(&format!("rm --force {name}"));
        }
        dockers[0].run("network rm a-first");
        dockers[0].run(&format!("network rm {NETWORK}"));
        for docker in dockers.iter().rev() {
            docker.run("swarm leave --force");
        }
        for docker in dockers {
            eventually(SOON, || {
                let networks = docker.run("network ls --filter driver=overlay --format {{.Name}}");
                if networks.is_empty() { Ok(()) } else { Err(networks) }
            });
            docker.end();
        }
    }
}

/// Where Docker has the links of network `id`: a namespace that is called after a counter and the network.
fn sandbox(host: &Host, id: &str) -> PathBuf {
    let short = id[..10].to_owned();
    eventually(Duration::from_secs(10), || {
        let listed = host.run("ls /run/docker/netns");
        let found = listed.lines().find(|name| name.ends_with(&short) && !name.starts_with("lb_"));
        found.map(|name| PathBuf::from("/run/docker/netns").join(name)).ok_or(listed.clone())
    })
}
