//! One container that asks for too much, and the others.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_dns::{Change, NetworkSpec};
use berth_integration::Place;

use crate::client::{self, ask, code, count, question};
use crate::stage::{dns_test, member, metric, network};
use crate::upstream::{Scripted, addressed};

/// Sends as fast as it can until told to stop, and reads no answer.
fn flood(place: &Place, stop: &AtomicBool, name: impl FnMut(u64) -> String) -> u64 {
    flood_at(place, "10.80.1.1:53", stop, name)
}

fn flood_at(place: &Place, target: &str, stop: &AtomicBool, mut name: impl FnMut(u64) -> String) -> u64 {
    let socket = client::socket(place, target);
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let message = question(u16::try_from(sent & 0xffff).unwrap(), &name(sent), 1);
        if socket.send(&message).is_ok() {
            sent += 1;
        }
        while socket.recv(&mut buffer).is_ok() {}
    }
    sent
}

/// Asks `times` for `name`, ten milliseconds apart, and returns the 99th of a hundred of the latencies and how many got no answer.
fn latencies(socket: &UdpSocket, name: &str, times: u16) -> (Duration, usize) {
    let mut took = Vec::new();
    let mut lost = 0;
    for number in 0..times {
        let started = Instant::now();
        match ask(socket, &question(number, name, 1)) {
            Some(answer) if count(&answer) == 1 => took.push(started.elapsed()),
            _ => lost += 1,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    took.sort();
    (took[took.len() * 99 / 100 - 1], lost)
}

#[test]
fn a_flood_of_random_names_is_refused_and_the_others_are_answered() {
    dns_test(|stage| {
        let (a, b) = (stage.join("a", 10, &[1]), stage.join("b", 11, &[1]));
        // It answers what `b` asks, and is deaf to the rest.
        let upstream = Scripted::new(stage.host, "127.0.0.61:53", |asked, _| {
            let wanted = asked.message.windows(4).any(|part| part == b"good");
            if wanted { vec![addressed(&asked.message, [192, 0, 2, 1], 0)] } else { Vec::new() }
        });
        let server = stage.serve([
            Change::NetworkPut(NetworkSpec { upstreams: vec![upstream.addr], ..network(1) }),
            Change::MemberPut(member(1, "a", 10)),
            Change::MemberPut(member(1, "b", 11)),
        ]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flooding =
                scope.spawn(|| flood(&a.container, &stop, |number| format!("r{number}.example.org")));
            std::thread::sleep(Duration::from_millis(500));
            let socket = client::socket(&b.container, "10.80.1.1:53");
            for number in 0..100 {
                let local = ask(&socket, &question(number, "a", 1)).expect("a local answer");
                assert_eq!(count(&local), 1);
                let far = ask(&socket, &question(number, &format!("good{number}.example.org"), 1));
                assert_eq!(count(&far.expect("an answer from elsewhere")), 1);
            }
            stop.store(true, Ordering::Relaxed);
            assert!(flooding.join().unwrap() > 5000);
        });
        // It was told, and no more of it waited than it may.
        assert!(metric(&server, "berth_dns_queries_total{outcome=\"shed\"}") > 1000);
        assert!(metric(&server, "berth_dns_waiting") <= 257);
        let socket = client::socket(&a.container, "10.80.1.1:53");
        let mut last = 0;
        for number in 0..300 {
            socket.send(&question(number, &format!("s{number}.example.org"), 1)).unwrap();
        }
        while let Some(answer) = client::receive(&socket) {
            last = code(&answer);
            if last == 5 {
                break;
            }
        }
        assert_eq!(last, 5, "no refusal came");
    });
}

#[test]
fn random_names_that_are_answered_take_no_more_memory_than_they_may() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let upstream = Scripted::new(stage.host, "127.0.0.61:53", |asked, _| {
            vec![addressed(&asked.message, [192, 0, 2, 1], 3600)]
        });
        let server = stage.serve([
            Change::NetworkPut(NetworkSpec { upstreams: vec![upstream.addr], ..network(1) }),
            Change::MemberPut(member(1, "a", 10)),
        ]);
        let limit = u64::try_from(stage.config().limits.cache_bytes).unwrap();
        let socket = client::socket(&a.container, "10.80.1.1:53");
        let padding = "x".repeat(60);
        for number in 0..15_000_u16 {
            ask(&socket, &question(number, &format!("{padding}.{padding}.r{number}.example.org"), 1))
                .unwrap();
        }
        let bytes = metric(&server, "berth_dns_cache_bytes");
        assert!(bytes <= limit && bytes > limit / 2, "{bytes}");
    });
}

/// The flood takes a processor for itself, whoever gets it. So what it costs is measured beside the same flood on a server
/// that is nothing but a socket.
#[test]
fn a_flood_of_local_names_costs_the_others_little() {
    dns_test(|stage| {
        let (a, b) = (stage.join("a", 10, &[1]), stage.join("b", 11, &[1]));
        let _server = stage.serve([
            Change::NetworkPut(network(1)),
            Change::MemberPut(member(1, "a", 10)),
            Change::MemberPut(member(1, "b", 11)),
        ]);
        let _bare = Scripted::new(stage.host, "10.80.1.1:5300", |asked, _| vec![asked.message.clone()]);
        let socket = client::socket(&b.container, "10.80.1.1:53");
        let during = |target: &str| {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let flooding = scope.spawn(|| flood_at(&a.container, target, &stop, |_| "b".to_owned()));
                std::thread::sleep(Duration::from_millis(200));
                let (took, lost) = latencies(&socket, "a", 200);
                stop.store(true, Ordering::Relaxed);
                assert!(flooding.join().unwrap() > 1000);
                assert_eq!(lost, 0);
                took
            })
        };
        let mut rounds: Vec<_> = (0..5).map(|_| (during("10.80.1.1:53"), during("10.80.1.1:5300"))).collect();
        let mut middle = |of: fn(&(Duration, Duration)) -> Duration| {
            rounds.sort_by_key(of);
            of(&rounds[rounds.len() / 2])
        };
        let (dns, bare) = (middle(|round| round.0), middle(|round| round.1));
        assert!(dns < bare * 2 + Duration::from_millis(10), "{dns:?}, beside a bare server {bare:?}");
    });
}
