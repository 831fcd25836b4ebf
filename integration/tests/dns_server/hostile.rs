//! Messages and connections that mean harm, or are broken.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use berth_dns::{Change, Limits, ServerConfig};
use berth_integration::{Place, eventually};
use rustix::net::sockopt::set_socket_linger;

use crate::client::{self, ask, code, count, question};
use crate::stage::{dns_test, member, metric, network, timed};

fn changes() -> [Change; 3] {
    [
        Change::NetworkPut(network(1)),
        Change::MemberPut(member(1, "a", 10)),
        Change::MemberPut(member(1, "b", 11)),
    ]
}

fn connect(place: &Place) -> TcpStream {
    let to: SocketAddr = "10.80.1.1:53".parse().unwrap();
    let stream = place.inside(|| TcpStream::connect(to)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    stream
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn read_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

#[test]
fn broken_messages_are_refused_or_ignored_over_both_transports() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let _server = stage.serve(changes());
        let good = question(7, "b", 1);
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            bytes
        };
        let mut class = good.clone();
        let end = class.len();
        class[end - 1] = 3;
        let pointer = [&good[..12], &[0xc0, 0x0c, 0, 1, 0, 1]].concat();
        let long_label = [&good[..12], &[64; 70]].concat();
        let long_name = [&good[..12], &[63; 64].repeat(5), &[0, 0, 1, 0, 1]].concat();
        let refused = [
            (changed(5, 0), 1),
            (changed(5, 2), 1),
            (changed(7, 1), 1),
            (changed(11, 9), 1),
            (changed(2, 0x29), 4),
            (class, 5),
            (pointer, 1),
            (long_label, 1),
            (long_name, 1),
            (good[..end - 1].to_vec(), 1),
            (good[..12].to_vec(), 1),
            ([&good[..], b"more"].concat(), 1),
            // An unknown version of EDNS.
            ([&changed(11, 1)[..], &[0, 0, 41, 4, 0, 0, 9, 0, 0, 0, 0]].concat(), 0),
        ];
        let socket = client::socket(&a.container, "10.80.1.1:53");
        let mut stream = connect(&a.container);
        for (number, (message, wanted)) in refused.iter().enumerate() {
            let answer = ask(&socket, message).unwrap_or_else(|| panic!("no answer to {number}"));
            assert_eq!((&answer[..2], code(&answer)), (&[0, 7][..], *wanted), "{number}");
            assert_eq!(count(&answer), 0);
            stream.write_all(&framed(message)).unwrap();
            let answer = read_framed(&mut stream).unwrap();
            assert_eq!(code(&answer), *wanted, "{number} by TCP");
        }
        // Answers sent to the server, what has no header, what is longer than any question.
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        for message in [changed(2, 0x81), b"x".to_vec(), vec![], good[..11].to_vec()] {
            assert_eq!(ask(&socket, &message), None, "{message:?}");
        }
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let answer = ask(&socket, &[&good[..], &[0; 20_000]].concat()).unwrap();
        assert_eq!(code(&answer), 1);
        // Of TCP too, and the connection ends.
        stream.write_all(&framed(&changed(2, 0x81))).unwrap();
        assert_eq!(read_framed(&mut stream), None);
        let mut stream = connect(&a.container);
        stream.write_all(&framed(&vec![0; 30_000])).unwrap();
        assert_eq!(read_framed(&mut stream), None);
        // All is well afterwards.
        assert_eq!(count(&ask(&socket, &good).unwrap()), 1);
    });
}

#[test]
fn random_bytes_do_no_harm() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let _server = stage.serve(changes());
        let socket = client::socket(&a.container, "10.80.1.1:53");
        socket.set_nonblocking(true).unwrap();
        let good = question(7, "b", 1);
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u8::try_from(state >> 56).unwrap()
        };
        let mut buffer = [0; 4096];
        for number in 0..20_000 {
            let mut message =
                if number % 2 == 0 { good.clone() } else { (0..next()).map(|_| next()).collect() };
            for _ in 0..3 {
                if let Some(len) = message.len().checked_sub(1).filter(|len| *len > 0) {
                    message[usize::from(next()) % len] = next();
                }
            }
            let _ = socket.send(&message);
            while socket.recv(&mut buffer).is_ok() {}
        }
        let socket = client::socket(&a.container, "10.80.1.1:53");
        assert_eq!(count(&ask(&socket, &good).unwrap()), 1);
    });
}

#[test]
fn several_questions_on_a_connection_are_answered_however_they_are_cut() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let _server = stage.serve(changes());
        let mut stream = connect(&a.container);
        let all: Vec<u8> = (0..100).flat_map(|number| framed(&question(number, "b", 1))).collect();
        for part in all.chunks(37) {
            stream.write_all(part).unwrap();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        for number in 0..100_u16 {
            let answer = read_framed(&mut stream).unwrap();
            assert_eq!((&answer[..2], count(&answer)), (&number.to_be_bytes()[..], 1));
        }
        assert_eq!(read_framed(&mut stream), None);
    });
}

/// CVE-2024-8418: one client that said nothing held everybody.
#[test]
fn clients_that_send_a_byte_and_stay_hold_nobody() {
    dns_test(|stage| {
        let (a, b) = (stage.join("a", 10, &[1]), stage.join("b", 11, &[1]));
        let limits = Limits { tcp_idle: Duration::from_secs(2), ..Limits::default() };
        let config = ServerConfig { limits, ..stage.config() };
        let server = stage.serve_with(config, changes(), Vec::new());
        // Ten thousand, at most a few hundred of them open here at a time: the server closes what is too much.
        let mut held = Vec::new();
        for _ in 0..10_000 {
            let mut stream = connect(&a.container);
            let _ = stream.write_all(&[0]);
            held.push(stream);
            if held.len() > 400 {
                held.drain(..200);
            }
        }
        let (found, took) = timed(|| b.short(1, "+tcp a."));
        assert_eq!(found, ["10.80.1.10"]);
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(b.short(1, "a."), ["10.80.1.10"]);
        // Those that stay are closed.
        let mut last = held.pop().unwrap();
        let (ended, took) = timed(|| last.read(&mut [0; 10]));
        assert!(matches!(ended, Ok(0) | Err(_)) && took < Duration::from_secs(5), "{ended:?} {took:?}");
        assert!(metric(&server, "berth_dns_tcp_limited_total") > 100);
        drop(held);
        // A byte now and then changes nothing.
        let mut slow = connect(&a.container);
        let started = Instant::now();
        while slow.write_all(&[0]).is_ok() && started.elapsed() < Duration::from_secs(8) {
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    });
}

fn own_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Processor time of this process, which the server is part of.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// CVE-2026-35406: part of a message and a reset, and the server span for ever.
#[test]
fn clients_that_reset_leave_nothing() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let server = stage.serve(changes());
        let whole = framed(&question(1, "b", 1));
        let before = own_descriptors();
        for number in 0..10_000 {
            let mut stream = connect(&a.container);
            let _ = stream.write_all(&whole[..number % whole.len() + 1]);
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
        eventually(Duration::from_secs(3), || {
            let now = own_descriptors();
            if now <= before + 2 { Ok(()) } else { Err(format!("{now} descriptors, {before} before")) }
        });
        let started = processor_time();
        std::thread::sleep(Duration::from_secs(1));
        let spent = processor_time().saturating_sub(started);
        assert!(spent < Duration::from_millis(200), "busy for {spent:?} of a second");
        assert!(metric(&server, "berth_dns_tcp_connections_total") > 5000);
        assert_eq!(a.short(1, "+tcp b"), ["10.80.1.11"]);
    });
}
