//! A host with bridges, containers on them, and the server inside.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use berth_dns::{Change, HandedSocket, Limits, MemberSpec, NetworkSpec, Server, ServerConfig};
use berth_integration::{Container, Host, host_test};
use berth_types::{AttachmentKey, ContainerId, IfName, NetworkName};

/// A container on one or more of the networks.
pub(crate) struct Joined<'h> {
    pub(crate) container: Container<'h>,
    host: &'h Host,
    links: Vec<String>,
}

/// Networks 1 and 2 on a host.
pub(crate) struct Stage<'h> {
    pub(crate) host: &'h Host,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(number: u8) -> NetworkName {
    NetworkName::new(format!("net{number}")).unwrap()
}

pub(crate) fn gateway(number: u8) -> IpAddr {
    ip(&format!("10.80.{number}.1"))
}

pub(crate) fn network(number: u8) -> NetworkSpec {
    NetworkSpec {
        name: net(number),
        called: vec![format!("net{number}")],
        listeners: vec![gateway(number), ip(&format!("fd00:80:{number}::1"))],
        bridge: Some(IfName::new(format!("br{number}")).unwrap()),
        subnets: [format!("10.80.{number}.0/24"), format!("fd00:80:{number}::/64")]
            .map(|subnet| subnet.parse().unwrap())
            .into(),
        internal: false,
        domain: "berth.internal".to_owned(),
        ttl: 3,
        upstreams: Vec::new(),
        split: Vec::new(),
    }
}

pub(crate) fn member(number: u8, name: &str, last: u8) -> MemberSpec {
    MemberSpec {
        key: AttachmentKey {
            network: net(number),
            container: ContainerId::new(name).unwrap(),
            ifname: IfName::new(format!("eth{number}")).unwrap(),
        },
        names: vec![name.to_owned()],
        addrs: vec![ip(&format!("10.80.{number}.{last}")), ip(&format!("fd00:80:{number}::{last:x}"))],
        upstreams: Vec::new(),
        services: Vec::new(),
        listed_only: false,
    }
}

/// Runs `test` on a host with two networks.
pub(crate) fn dns_test(test: impl FnOnce(&Stage<'_>)) {
    host_test(|host| {
        for number in [1, 2] {
            host.batch(&format!(
                "link add br{number} type bridge forward_delay 0 mcast_snooping 0
                 link set br{number} up
                 address add 10.80.{number}.1/24 dev br{number}
                 address add fd00:80:{number}::1/64 dev br{number} nodad"
            ));
        }
        test(&Stage { host });
        host.batch("link del br1\nlink del br2");
    });
}

impl<'h> Stage<'h> {
    /// A container with the last byte `last` of its addresses, on each of `networks`.
    pub(crate) fn join(&self, name: &str, last: u8, networks: &[u8]) -> Joined<'h> {
        let container = self.host.container(name);
        let mut links = Vec::new();
        for number in networks {
            let link = format!("v{last}n{number}");
            self.host.batch(&format!(
                "link add {link} type veth peer name eth{number} netns {name}
                 link set {link} master br{number} up"
            ));
            links.push(link);
            for command in [
                format!("ip address add 10.80.{number}.{last}/24 dev eth{number}"),
                format!("ip address add fd00:80:{number}::{last:x}/64 dev eth{number} nodad"),
                format!("ip link set eth{number} up"),
            ] {
                container.run(&command);
            }
        }
        Joined { container, host: self.host, links }
    }

    /// The server, with what is usual and `changes`, on this host.
    pub(crate) fn serve(&self, changes: impl IntoIterator<Item = Change>) -> Server {
        self.serve_with(self.config(), changes, Vec::new())
    }

    pub(crate) fn serve_with(
        &self,
        config: ServerConfig,
        changes: impl IntoIterator<Item = Change>,
        handed: Vec<HandedSocket>,
    ) -> Server {
        let changes = changes.into_iter().collect();
        self.host.inside(|| Server::start(config, changes, handed).unwrap())
    }

    pub(crate) fn config(&self) -> ServerConfig {
        let limits = Limits { deadline: Duration::from_secs(2), ..Limits::default() };
        ServerConfig { resolv_conf: self.host.dir().join("resolv.conf"), limits, ..ServerConfig::default() }
    }

    /// Writes the host's list of servers, before the server is started.
    pub(crate) fn resolv_conf(&self, servers: &[SocketAddr]) {
        let lines: Vec<String> =
            servers.iter().map(|server| format!("nameserver {}\n", server.ip())).collect();
        std::fs::write(self.host.dir().join("resolv.conf"), lines.concat()).unwrap();
    }
}

impl Joined<'_> {
    /// Runs `dig` against the gateway of network `number`, and returns what it printed.
    pub(crate) fn dig(&self, number: u8, args: &str) -> String {
        self.container.run(&format!("dig +time=3 +tries=1 @10.80.{number}.1 {args}"))
    }

    /// The same in short: only the data, sorted.
    pub(crate) fn short(&self, number: u8, args: &str) -> Vec<String> {
        let text = self.dig(number, &format!("+short {args}"));
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for link in &self.links {
                self.host.run(&format!("ip link del {link}"));
            }
        }
    }
}

/// The value of a line of the server's metrics.
pub(crate) fn metric(server: &Server, line: &str) -> u64 {
    let text = server.metrics();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
}

/// How long `work` takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    (work(), started.elapsed())
}
