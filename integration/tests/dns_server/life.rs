//! Changes under load, ports that are taken, and one process after another.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use berth_dns::{Change, NetworkSpec, ServerConfig};
use berth_integration::eventually;

use crate::client::{self, ask, code, count, question};
use crate::stage::{dns_test, gateway, ip, member, net, network};
use crate::upstream::{Scripted, addressed};

#[test]
fn a_name_is_there_when_the_call_returns_and_gone_when_the_other_does() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let server = stage.serve([Change::NetworkPut(network(1)), Change::MemberPut(member(1, "a", 10))]);
        let socket = client::socket(&a.container, "10.80.1.1:53");
        for number in 0..2000_u16 {
            let name = format!("c{number}");
            let last = u8::try_from(20 + number % 200).unwrap();
            server.apply(vec![Change::MemberPut(member(1, &name, last))]).unwrap();
            let answer = ask(&socket, &question(number, &name, 1)).unwrap();
            assert_eq!((count(&answer), answer[answer.len() - 1]), (1, last), "{name} is not there");
            server.apply(vec![Change::MemberGone(member(1, &name, last).key)]).unwrap();
            let answer = ask(&socket, &question(number, &name, 1)).unwrap();
            assert_eq!(code(&answer), 3, "{name} is still there");
        }
    });
}

#[test]
fn changes_under_load_lose_no_question() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let server = stage.serve([
            Change::NetworkPut(network(1)),
            Change::MemberPut(member(1, "a", 10)),
            Change::MemberPut(member(1, "b", 11)),
        ]);
        let stop = AtomicBool::new(false);
        let asked = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let socket = client::socket(&a.container, "10.80.1.1:53");
                    while !stop.load(Ordering::Relaxed) {
                        let number = asked.fetch_add(1, Ordering::Relaxed);
                        let number = u16::try_from(number & 0xffff).unwrap();
                        let answer = ask(&socket, &question(number, "b", 1)).expect("an answer");
                        assert_eq!((&answer[..2], count(&answer)), (&number.to_be_bytes()[..], 1));
                    }
                });
            }
            for round in 0..500_u16 {
                let last = u8::try_from(20 + round % 200).unwrap();
                server.apply(vec![Change::MemberPut(member(1, "c", last))]).unwrap();
                // Another network comes and goes, with its sockets.
                let other = if round % 20 < 10 {
                    Change::NetworkPut(network(2))
                } else {
                    Change::NetworkGone(net(2))
                };
                server
                    .apply(vec![
                        Change::NetworkPut(NetworkSpec { ttl: u32::from(round), ..network(1) }),
                        other,
                    ])
                    .unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(asked.load(Ordering::Relaxed) > 500);
    });
}

#[test]
fn a_port_that_is_taken_is_left_to_its_owner() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        // By a server on all addresses of the host, as resolvers like to be, that would even share it.
        let owner = stage.host.inside(|| {
            let socket =
                rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
                    .unwrap();
            rustix::net::sockopt::set_socket_reuseport(&socket, true).unwrap();
            rustix::net::bind(&socket, &std::net::SocketAddr::from(([0, 0, 0, 0], 53))).unwrap();
            UdpSocket::from(socket)
        });
        let server = stage.serve([Change::NetworkPut(network(1)), Change::MemberPut(member(1, "a", 10))]);
        let listening = server.listening();
        let of =
            |addr: std::net::IpAddr| listening.iter().find(|one| one.addr.ip() == addr).unwrap().addr.port();
        assert_eq!((of(gateway(1)), of(ip("fd00:80:1::1"))), (10_053, 53));
        assert!(listening.iter().all(|one| one.wanted == 53 && one.network == net(1)));
        assert_eq!(a.short(1, "-p 10053 a."), ["10.80.1.10"]);
        assert_eq!(a.short(1, "-p 10053 +tcp a."), ["10.80.1.10"]);
        // The same port at the next start, and the right one once it is free and the network put again.
        drop(server);
        let server = stage.serve([Change::NetworkPut(network(1)), Change::MemberPut(member(1, "a", 10))]);
        assert_eq!(a.short(1, "-p 10053 a."), ["10.80.1.10"]);
        drop((server, owner));
        let _server = stage.serve([Change::NetworkPut(network(1)), Change::MemberPut(member(1, "a", 10))]);
        assert_eq!(a.short(1, "a."), ["10.80.1.10"]);
    });
}

#[test]
fn it_listens_before_the_bridge_is_there() {
    dns_test(|stage| {
        stage.host.batch("link del br1");
        let server = stage.serve([Change::NetworkPut(network(1)), Change::MemberPut(member(1, "a", 10))]);
        assert_eq!(server.listening().len(), 2);
        stage.host.batch(
            "link add br1 type bridge forward_delay 0 mcast_snooping 0
             link set br1 up
             address add 10.80.1.1/24 dev br1",
        );
        let a = stage.join("a", 10, &[1]);
        eventually(Duration::from_secs(3), || {
            let found = a.short(1, "a.");
            if found == ["10.80.1.10"] { Ok(()) } else { Err(format!("{found:?}")) }
        });
        drop(server);
    });
}

#[test]
fn a_network_that_is_gone_is_silent_and_its_sockets_are_closed() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let server = stage.serve([Change::NetworkPut(network(1)), Change::MemberPut(member(1, "a", 10))]);
        assert_eq!(a.short(1, "a."), ["10.80.1.10"]);
        assert_eq!(server.apply(vec![Change::NetworkGone(net(1))]).unwrap(), []);
        eventually(Duration::from_secs(2), || {
            let sockets = stage.host.run("ss -Hlutn");
            if sockets.contains(":53 ") { Err(sockets) } else { Ok(()) }
        });
    });
}

/// The old process goes on while the new one starts, and ends when that one listens.
#[test]
fn no_question_is_lost_between_two_processes() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let upstream = Scripted::new(stage.host, "127.0.0.61:53", |asked, _| {
            vec![addressed(&asked.message, [192, 0, 2, 1], 0)]
        });
        let changes = || {
            [
                Change::NetworkPut(NetworkSpec { upstreams: vec![upstream.addr], ..network(1) }),
                Change::MemberPut(member(1, "a", 10)),
            ]
        };
        let config = |workers| ServerConfig { workers, ..stage.config() };
        let mut server = stage.serve_with(config(2), changes(), Vec::new());
        let stop = AtomicBool::new(false);
        let asked = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for client in 0..4_u8 {
                let (a, stop, asked) = (&a, &stop, &asked);
                scope.spawn(move || {
                    let socket = client::socket(&a.container, "10.80.1.1:53");
                    while !stop.load(Ordering::Relaxed) {
                        let number = asked.fetch_add(1, Ordering::Relaxed);
                        let id = u16::try_from(number & 0xffff).unwrap();
                        let name =
                            if client % 2 == 0 { "a".to_owned() } else { format!("x{number}.example.org") };
                        // One try, no second: what is not answered is lost.
                        let answer = ask(&socket, &question(id, &name, 1))
                            .unwrap_or_else(|| panic!("{name} was lost"));
                        assert_eq!((&answer[..2], count(&answer)), (&id.to_be_bytes()[..], 1));
                    }
                });
            }
            for round in 0..10 {
                std::thread::sleep(Duration::from_millis(100));
                let handed = server.hand_over();
                assert!(
                    handed.iter().all(|socket| socket.name.starts_with("dns-") && !socket.name.contains(':'))
                );
                // With fewer workers and with more.
                let next = stage.serve_with(config(1 + round % 3), changes(), handed);
                std::mem::replace(&mut server, next).stop();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(asked.load(Ordering::Relaxed) > 100);
    });
}
