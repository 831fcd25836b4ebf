//! A host with two networks, an internal one, and a neighbour on its LAN; each in a network namespace of its own.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use berth_nft::{Batch, Element, NftSocket};
use berth_types::{Proto, PublishedPort};

use crate::common::{ifname, mac, run, unshare_net};

/// How long an answer that should come may take: two retransmissions, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long is waited for what should not come.
const SILENCE: Duration = Duration::from_millis(400);

type Task = Box<dyn FnOnce() + Send>;

/// A network namespace, held by a thread that runs what it is sent.
pub(crate) struct Ns {
    tasks: mpsc::Sender<Task>,
    /// The thread's number, by which `ip link` finds the namespace.
    pub(crate) thread: i32,
}

impl Ns {
    pub(crate) fn new() -> Self {
        let (tasks, inbox) = mpsc::channel::<Task>();
        let (ready, started) = mpsc::channel();
        std::thread::spawn(move || {
            unshare_net();
            ready.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            inbox.into_iter().for_each(|task| task());
        });
        let ns = Self { tasks, thread: started.recv().unwrap() };
        // Addresses work at once.
        ns.call(|| std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap());
        ns.run("ip link set lo up");
        ns
    }

    /// Runs `task` in the namespace and waits for its result.
    pub(crate) fn call<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let (result, done) = mpsc::channel();
        self.tasks.send(Box::new(move || result.send(task()).unwrap_or(()))).unwrap();
        done.recv().unwrap()
    }

    pub(crate) fn run(&self, command: &str) -> String {
        let command = command.to_owned();
        self.call(move || run(&command))
    }

    /// Answers every connection to `addr` with the address it comes from, for as long as the process lives.
    pub(crate) fn serve(&self, addr: &str) {
        let addr: SocketAddr = addr.parse().unwrap();
        let listener = self.call(move || TcpListener::bind(addr).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let peer = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
                let _ = std::io::Write::write_all(&mut &stream, peer.as_bytes());
            }
        });
    }

    /// Who the server at `to` says is calling, or nothing when there is no answer.
    pub(crate) fn reaches(&self, to: &str) -> Option<IpAddr> {
        self.connects(to, PATIENCE)
    }

    /// Whether nothing answers at `to`.
    pub(crate) fn misses(&self, to: &str) -> bool {
        self.connects(to, SILENCE).is_none()
    }

    fn connects(&self, to: &str, patience: Duration) -> Option<IpAddr> {
        let to: SocketAddr = to.parse().unwrap();
        self.call(move || {
            let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            text.parse().ok()
        })
    }
}

/// MAC addresses are `02:00:00:00:00:` and the last byte of the container's address.
pub(crate) struct Lab {
    /// 10.80.0.1 and fd80::1 on `br0`, 10.81.0.1 on `br1`, 10.82.0.1 on `br2` (internal), 192.0.2.1 towards the LAN.
    pub(crate) host: Ns,
    /// 10.80.0.2, fd80::2
    pub(crate) a: Ns,
    /// 10.80.0.3, fd80::3
    pub(crate) b: Ns,
    /// 10.81.0.4, fd81::4
    pub(crate) c: Ns,
    /// 10.82.0.5, fd82::5
    pub(crate) inner: Ns,
    /// 192.0.2.2, 2001:db8::2; routes everything to the host.
    pub(crate) lan: Ns,
}

impl Lab {
    /// Builds it with the ruleset laid and the elements of the three networks in it.
    pub(crate) fn new() -> Self {
        let [host, a, b, c, inner, lan] = [(); 6].map(|()| Ns::new());
        host.call(|| {
            let mut socket = NftSocket::open().unwrap();
            berth_nft::lay(&mut socket).unwrap();
        });
        for sysctl in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            host.call(move || std::fs::write(format!("/proc/sys/net/{sysctl}"), "1").unwrap());
        }
        for net in 0..3 {
            host.run(&format!("ip link add br{net} type bridge mcast_snooping 0"));
            host.run(&format!("ip addr add 10.8{net}.0.1/24 dev br{net}"));
            host.run(&format!("ip -6 addr add fd8{net}::1/64 dev br{net} nodad"));
            host.run(&format!("ip link set br{net} up"));
        }
        let lab = Self { host, a, b, c, inner, lan };
        lab.wire(&lab.a, "pa", 0, 2);
        lab.wire(&lab.b, "pb", 0, 3);
        lab.wire(&lab.c, "pc", 1, 4);
        lab.wire(&lab.inner, "pi", 2, 5);
        lab.host.run(&format!("ip link add lan0 type veth peer name eth0 netns {}", lab.lan.thread));
        lab.host.run("ip addr add 192.0.2.1/24 dev lan0");
        lab.host.run("ip -6 addr add 2001:db8::1/64 dev lan0 nodad");
        lab.host.run("ip link set lan0 up");
        lab.lan.run("ip addr add 192.0.2.2/24 dev eth0");
        lab.lan.run("ip -6 addr add 2001:db8::2/64 dev eth0 nodad");
        lab.lan.run("ip link set eth0 up");
        lab.lan.run("ip route add default via 192.0.2.1");
        lab.lan.run("ip -6 route add default via 2001:db8::1");
        lab.commit(Self::networks());
        lab
    }

    fn wire(&self, container: &Ns, port: &str, net: u8, last: u8) {
        self.host.run(&format!("ip link add {port} type veth peer name eth0 netns {}", container.thread));
        self.host.run(&format!("ip link set {port} master br{net}"));
        self.host.run(&format!("bridge link set dev {port} hairpin on"));
        self.host.run(&format!("ip link set {port} up"));
        container.run(&format!("ip link set eth0 address 02:00:00:00:00:0{last}"));
        container.run(&format!("ip addr add 10.8{net}.0.{last}/24 dev eth0"));
        container.run(&format!("ip -6 addr add fd8{net}::{last}/64 dev eth0 nodad"));
        container.run("ip link set eth0 up");
        container.run(&format!("ip route add default via 10.8{net}.0.1"));
        container.run(&format!("ip -6 route add default via fd8{net}::1"));
        let ours = mac(&format!("02:00:00:00:00:0{last}"));
        let addrs =
            [format!("10.8{net}.0.{last}"), format!("fd8{net}::{last}"), format!("fe80::ff:fe00:{last}")];
        let mut elements = vec![Element::AllowedMac { port: ifname(port), mac: ours }];
        elements.extend(addrs.iter().map(|addr| Element::AllowedAddr {
            port: ifname(port),
            mac: ours,
            addr: addr.parse().unwrap(),
        }));
        elements.push(Element::Guarded(ifname(port)));
        self.commit(elements);
    }

    fn networks() -> Vec<Element> {
        let mut elements = vec![Element::Internal(ifname("br2"))];
        for net in 0..3 {
            let bridge = ifname(&format!("br{net}"));
            elements.extend([Element::Bridge(bridge.clone()), Element::Within(bridge.clone(), bridge)]);
            for subnet in [format!("10.8{net}.0.0/24"), format!("fd8{net}::/64")] {
                let subnet = subnet.parse().unwrap();
                elements.extend([Element::Subnet(subnet), Element::Own(subnet)]);
                if net != 2 {
                    elements.push(Element::Masquerade(subnet));
                }
            }
        }
        elements
    }

    pub(crate) fn commit(&self, elements: Vec<Element>) {
        self.change(elements, Vec::new());
    }

    pub(crate) fn change(&self, add: Vec<Element>, remove: Vec<Element>) {
        let mut batch = Batch::new();
        add.into_iter().for_each(|element| batch.add(element));
        remove.into_iter().for_each(|element| batch.remove(element));
        self.host.call(move || NftSocket::open().unwrap().commit(&batch).unwrap());
    }

    /// Publishes ports of a container.
    pub(crate) fn publish(&self, host: (&str, u16), target: (&str, u16), count: u16) {
        let port = PublishedPort {
            proto: Proto::Tcp,
            host_addr: host.0.parse().unwrap(),
            host_port: host.1,
            target: target.0.parse().unwrap(),
            target_port: target.1,
            count,
        };
        self.commit(vec![Element::Port { port, owner: 1 }]);
    }

    /// Packets counted by the rules with this comment.
    pub(crate) fn counted(&self, comment: &str) -> u64 {
        let listing = self.host.run("nft -j list ruleset");
        let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
        let rules = listing["nftables"].as_array().unwrap().iter().filter_map(|object| object.get("rule"));
        let counters =
            rules.filter(|rule| rule["comment"] == comment).flat_map(|rule| rule["expr"].as_array().unwrap());
        counters.filter_map(|statement| statement.pointer("/counter/packets")?.as_u64()).sum()
    }

    /// Whether these rules count a packet soon: what is dropped answers nobody, so there is nothing else to wait for.
    pub(crate) fn counts(&self, comment: &str) -> bool {
        self.counts_to(comment, 1)
    }

    /// Whether these rules have counted at least `packets` soon.
    pub(crate) fn counts_to(&self, comment: &str, packets: u64) -> bool {
        let end = std::time::Instant::now() + PATIENCE;
        while self.counted(comment) < packets {
            if std::time::Instant::now() > end {
                return false;
            }
        }
        true
    }
}
