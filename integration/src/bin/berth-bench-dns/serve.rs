//! The servers that this program itself is.

use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_dns::{Change, MemberSpec, NetworkSpec, Server, ServerConfig};
use berth_types::{AttachmentKey, ContainerId, IfName, NetworkName};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recvfrom, sendto, socket};

/// Where all servers are asked.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
/// Who asks: the first member.
pub(crate) const MEMBER: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 2);
/// The port of berth.
pub(crate) const PORT: u16 = 53;
/// The port of the responder.
pub(crate) const FLIP_PORT: u16 = 5300;
/// Where Knot is that berth forwards to.
pub(crate) const UPSTREAM: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 5399);
/// The domain of all names.
pub(crate) const DOMAIN: &str = "berth.internal";
/// How many changes a second a storm has.
const STORM: u32 = 500;

/// The address of the name `c<number>`.
pub(crate) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(MEMBER.to_bits() + number)
}

fn member(name: &str, addr: Ipv4Addr) -> Change {
    Change::MemberPut(MemberSpec {
        key: AttachmentKey {
            network: NetworkName::new("bench").unwrap(),
            container: ContainerId::new(name).unwrap(),
            ifname: IfName::new("eth0").unwrap(),
        },
        names: vec![name.to_owned()],
        addrs: vec![IpAddr::V4(addr)],
        upstreams: Vec::new(),
        services: Vec::new(),
        listed_only: false,
    })
}

/// berth's server with this many names, until its input ends.
pub(crate) fn berth(names: u32) {
    let network = NetworkSpec {
        name: NetworkName::new("bench").unwrap(),
        called: vec!["bench".to_owned()],
        listeners: vec![IpAddr::V4(GATEWAY)],
        bridge: None,
        subnets: vec!["10.80.0.0/14".parse().unwrap()],
        internal: false,
        domain: DOMAIN.to_owned(),
        ttl: 5,
        upstreams: vec![SocketAddr::from(UPSTREAM)],
        split: Vec::new(),
    };
    let members = (0..names).map(|number| member(&format!("c{number}"), address(number)));
    let changes = [Change::NetworkPut(network)].into_iter().chain(members).collect();
    let config = ServerConfig { port: PORT, ..ServerConfig::default() };
    let server = Arc::new(Server::start(config, changes, Vec::new()).unwrap());
    println!("ready");
    let storm = Arc::new(AtomicBool::new(false));
    let (stormed, raging) = (Arc::clone(&server), Arc::clone(&storm));
    std::thread::spawn(move || changes_until_calm(&stormed, &raging));
    for line in std::io::stdin().lock().lines() {
        storm.store(line.unwrap() == "storm", Ordering::Relaxed);
    }
    std::process::exit(0);
}

fn changes_until_calm(server: &Server, raging: &AtomicBool) {
    let mut next = Instant::now();
    for number in 0_u32.. {
        next += Duration::from_secs(1) / STORM;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if raging.load(Ordering::Relaxed) {
            let addr = Ipv4Addr::from_bits(Ipv4Addr::new(10, 83, 0, 0).to_bits() + number % 1000);
            server.apply(vec![member(&format!("s{}", number % 100), addr)]).unwrap();
        } else {
            next = Instant::now();
        }
    }
}

/// A responder without any logic: two threads, a socket each.
pub(crate) fn flip() {
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
            rustix::net::sockopt::set_socket_reuseport(&socket, true).unwrap();
            rustix::net::bind(&socket, &SocketAddr::from((GATEWAY, FLIP_PORT))).unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 1500];
                loop {
                    let (_, len, peer) = recvfrom(&socket, &mut buffer[..], RecvFlags::empty()).unwrap();
                    buffer[2] |= 0x80;
                    let _ = sendto(&socket, &buffer[..len], SendFlags::empty(), &peer.unwrap());
                }
            })
        })
        .collect();
    println!("ready");
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
