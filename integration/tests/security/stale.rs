//! What the kernel and neighbours remember of a container that is gone does not outlive it.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use berth_integration::{Host, Lan, Probe, eventually};
use serde_json::json;

use crate::common::{Net, berth_lan_test, berth_test, udp};

/// A client on the LAN that asks on and on from one port.
struct Client(UdpSocket);

impl Client {
    fn new(lan: &Lan, to: SocketAddr) -> Self {
        let any = if to.is_ipv4() { "0.0.0.0:7000" } else { "[::]:7000" };
        let socket = lan.inside(|| UdpSocket::bind(any)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self(socket)
    }

    /// Asks ten times a second until `label` answers; how long that took.
    fn until(&self, label: &str) -> Duration {
        let started = Instant::now();
        eventually(Duration::from_secs(5), || {
            // A refusal that came back for an earlier datagram is told here.
            let sent = self.0.send(b"ping");
            let mut buffer = [0; 256];
            match sent.and_then(|_| self.0.recv(&mut buffer)) {
                Ok(len) if buffer[..len].starts_with(label.as_bytes()) => Ok(()),
                other => Err(format!("no answer from {label}: {other:?}")),
            }
        });
        started.elapsed()
    }
}

/// S13 (moby#44742, #53384): with a host port that is not the container's.
#[test]
fn a_running_udp_flow_follows_a_port_to_its_new_container() {
    berth_lan_test(|host, lan, seat| {
        for ip in [SocketAddr::new(seat.v4.into(), 5353), SocketAddr::new(seat.v6.into(), 5353)] {
            let net = Net::new(host, 1);
            let serve = |member: &crate::common::Member<'_>, label: &str| {
                let inside = if ip.is_ipv4() { member.v4().into() } else { member.v6().into() };
                member.serve_udp_on(SocketAddr::new(inside, 53), label)
            };
            let client = Client::new(lan, ip);
            let old = net.publish("old", udp(5353, 53));
            let server = serve(&old, "first");
            client.until("first");
            drop(server);
            old.leave();
            let new = net.publish("new", udp(5353, 53));
            let _server = serve(&new, "second");
            let took = client.until("second");
            assert!(took < Duration::from_secs(1), "{ip}: {took:?}");
        }
    });
}

/// S13: the flow began when nobody was there, and the kernel remembers it as one to the host itself.
#[test]
fn a_running_udp_flow_finds_a_port_that_is_published_later() {
    berth_lan_test(|host, lan, seat| {
        let client = Client::new(lan, SocketAddr::new(seat.v4.into(), 5353));
        // Something that keeps the flow alive on the host, as a service that is then moved into a container.
        let before = host.serve_udp(5353, "host");
        client.until("host");
        drop(before);
        let a = Net::new(host, 1).publish("a", udp(5353, 53));
        let _a = a.serve_udp(53, "inside");
        let took = client.until("inside");
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

/// S13 (moby#46276): other mappings' flows are not cut.
#[test]
fn flows_of_other_ports_and_addresses_are_left_alone() {
    berth_lan_test(|host, lan, seat| {
        let net = Net::new(host, 1);
        let on =
            |ip: String| json!([{"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": ip}]);
        let (a, b) = (net.publish("a", on(seat.v4.to_string())), net.publish("b", on("192.0.2.2".into())));
        let c = net.publish("c", udp(5354, 53));
        let _servers = [a.serve_udp(53, "a"), b.serve_udp(53, "b"), c.serve_udp(53, "c")];
        lan.run(&format!("ip route add 192.0.2.2 via {}", seat.v4));
        lan.probe(&Probe::udp(SocketAddr::new(seat.v4.into(), 5353)).from("198.51.100.1:7001")).all_from("a");
        lan.probe(&Probe::udp("192.0.2.2:5353").from("198.51.100.1:7002")).all_from("b");
        lan.probe(&Probe::udp(SocketAddr::new(seat.v4.into(), 5354)).from("198.51.100.1:7003")).all_from("c");
        let flows = |port: u16| flow_ids(host, port);
        let (own, others) = (flows(7001), (flows(7002), flows(7003)));
        assert_eq!((own.len(), others.0.len(), others.1.len()), (1, 1, 1));
        a.leave();
        assert_eq!(flows(7001), Vec::<String>::new());
        assert_eq!((flows(7002), flows(7003)), others);
    });
}

/// The kernel's numbers of the UDP flows from `port`.
fn flow_ids(host: &Host, port: u16) -> Vec<String> {
    let ran = host.line(&format!("conntrack -L -p udp --orig-port-src {port} -o id")).output();
    ran.stdout.lines().filter_map(|line| Some(line.split_once(" id=")?.1.trim().to_owned())).collect()
}

/// S19 (moby#47146, #36069): the neighbours' tables still have the old MAC address.
#[test]
fn an_address_that_moved_to_a_new_container_is_reached_at_once() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let peer = net.join("peer");
        let asked = "IP=10.80.1.50,fd00:80:1::50";
        for round in 0..3 {
            let container = host.container("a");
            let call = net.call_for(&container).args(asked);
            call.add().ok();
            let server = container.serve_tcp(80, "a");
            let started = Instant::now();
            for probe in [Probe::tcp("10.80.1.50:80"), Probe::tcp("[fd00:80:1::50]:80")] {
                peer.probe(&probe).all_from("a");
                host.probe(&probe).all_from("a");
            }
            assert!(started.elapsed() < Duration::from_secs(1), "round {round}: {:?}", started.elapsed());
            drop(server);
            call.del().ok();
        }
    });
}

/// S35 (CVE-2025-52881): the container's own view of /proc is not where switches are written.
#[test]
fn switches_are_not_written_through_a_proc_that_the_container_arranged() {
    berth_test(|host| {
        let canary =
            ["net.ipv6.conf.up0.autoconf", "net.ipv6.conf.all.accept_ra", "net.ipv6.conf.default.autoconf"];
        let before = canary.map(|name| host.sysctl(name));
        let container = host.container("a");
        // A process of the container that sees a /proc of its own making.
        let decoy = host.dir().join("decoy");
        fs::create_dir_all(decoy.join("net/ipv6/conf/eth0")).unwrap();
        fs::write(decoy.join("net/ipv6/conf/eth0/accept_ra"), "7").unwrap();
        let script = format!("mount --bind {} /proc/sys && echo ready && exec sleep 1000", decoy.display());
        let mut process = container.cmd("unshare").args(["-m", "sh", "-c", &script]).spawn();
        assert_eq!(process.wait_line(), "ready");
        // What `mount` writes down for itself.
        host.line("rm -rf /run/mount").output();
        let netns = format!("/proc/{}/ns/net", process.id());
        let call = Net::new(host, 1).call_for(&container).env("CNI_NETNS", &netns);
        call.add().ok();
        assert_eq!(container.sysctl("net.ipv6.conf.eth0.accept_ra"), "0");
        assert_eq!(fs::read_to_string(decoy.join("net/ipv6/conf/eth0/accept_ra")).unwrap(), "7");
        assert_eq!(canary.map(|name| host.sysctl(name)), before);
        call.del().ok();
    });
}
