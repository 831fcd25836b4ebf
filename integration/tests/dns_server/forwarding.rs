//! What others answer: real servers, and servers that are slow, dead, lame, truncating and lying.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_dns::{Change, MemberSpec, NetworkSpec, Server};
use berth_integration::eventually;

use crate::client::{self, ask, code, count, question};
use crate::stage::{Stage, dns_test, member, metric, network, timed};
use crate::upstream::{Scripted, addressed, coded, dnsmasq, knot};

fn at(number: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, number], 53))
}

/// The server with one member, `a`, and these upstreams.
fn serve(stage: &Stage<'_>, upstreams: &[SocketAddr]) -> Server {
    stage.serve([
        Change::NetworkPut(NetworkSpec { upstreams: upstreams.to_vec(), ..network(1) }),
        Change::MemberPut(member(1, "a", 10)),
    ])
}

#[test]
fn dnsmasq_and_knot_are_asked_and_their_answers_kept() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let _masq = dnsmasq(
            stage.host,
            "127.0.0.61",
            &["--address=/www.masq.example/192.0.2.80", "--local=/masq.example/", "--local-ttl=60"],
        );
        let zone = "$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.81\n\
                    alias CNAME www\ntext TXT \"hello\"\n";
        let mut zone = zone.to_owned();
        for number in 0..300 {
            zone += &format!("many AAAA 2001:db8::{number:x}\n");
        }
        let _knot = knot(stage.host, "127.0.0.62", &zone);
        let server = stage.serve([
            Change::NetworkPut(NetworkSpec {
                upstreams: vec![at(61)],
                split: vec![("knot.example".to_owned(), vec![at(62)])],
                ..network(1)
            }),
            Change::MemberPut(member(1, "a", 10)),
        ]);
        assert_eq!(a.short(1, "www.masq.example"), ["192.0.2.80"]);
        assert_eq!(a.short(1, "www.knot.example"), ["192.0.2.81"]);
        assert_eq!(a.short(1, "alias.knot.example"), ["192.0.2.81", "www.knot.example."]);
        assert_eq!(a.short(1, "text.knot.example TXT"), ["\"hello\""]);
        // Too long for a datagram, from them and from us: TCP on both sides.
        assert_eq!(a.short(1, "many.knot.example AAAA").len(), 300);
        assert_eq!(a.short(1, "+tcp many.knot.example AAAA").len(), 300);
        let absent = a.dig(1, "nothing.knot.example");
        assert!(absent.contains("status: NXDOMAIN") && absent.contains("SOA"), "{absent}");
        let sent = metric(&server, "berth_dns_upstream_messages_total{kind=\"sent\"}");
        for _ in 0..5 {
            assert_eq!(a.short(1, "WWW.knot.example"), ["192.0.2.81"]);
            assert!(a.dig(1, "nothing.knot.example").contains("status: NXDOMAIN"));
        }
        assert_eq!(metric(&server, "berth_dns_upstream_messages_total{kind=\"sent\"}"), sent, "not kept");
        // What the server says of itself.
        let explained = server.explain("10.80.1.10".parse().unwrap(), "alias.knot.example", "A");
        assert_eq!(explained.outcome, "forwarded", "{explained:?}");
        assert_eq!(explained.answers, ["CNAME www.knot.example", "A 192.0.2.81"]);
        assert_eq!(explained.upstreams, [at(62)]);
    });
}

#[test]
fn one_dead_server_of_two_costs_a_moment_and_later_nothing() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let dead = Scripted::new(stage.host, "127.0.0.61:53", |_, _| Vec::new());
        let good = Scripted::new(stage.host, "127.0.0.62:53", |asked, _| {
            vec![addressed(&asked.message, [192, 0, 2, 1], 0)]
        });
        let _server = serve(stage, &[dead.addr, good.addr]);
        let socket = client::socket(&a.container, "10.80.1.1:53");
        for number in 0..10 {
            let message = question(number, &format!("x{number}.example.org"), 1);
            let (answer, took) = timed(|| ask(&socket, &message).unwrap());
            assert_eq!((code(&answer), count(&answer)), (0, 1));
            assert!(took < Duration::from_secs(5), "{number}: {took:?}");
        }
        // The later ones did not ask it, and so did not wait for it.
        assert!(dead.asked().len() < 6, "{}", dead.asked().len());
    });
}

#[test]
fn where_all_fail_the_answer_is_a_failure_with_its_reason_and_never_silence() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let dead = Scripted::new(stage.host, "127.0.0.61:53", |_, _| Vec::new());
        let server = serve(stage, &[dead.addr]);
        let (answer, took) = timed(|| a.dig(1, "www.example.org"));
        assert!(answer.contains("status: SERVFAIL") && answer.contains("EDE: 22"), "{answer}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        // Names of members do not wait for anybody.
        let socket = client::socket(&a.container, "10.80.1.1:53");
        socket.send(&question(1, "y.example.org", 1)).unwrap();
        let (local, took) = timed(|| ask(&socket, &question(2, "a", 1)).unwrap());
        assert_eq!((local[1], count(&local)), (2, 1));
        assert!(took < Duration::from_secs(1), "{took:?}");
        // Nobody there at all: that is known at once.
        drop(server);
        let server = serve(stage, &[at(63), at(64)]);
        let (answer, took) = timed(|| a.dig(1, "www.example.org"));
        assert!(answer.contains("status: SERVFAIL") && answer.contains("EDE: 23"), "{answer}");
        assert!(took < Duration::from_secs(1), "{took:?}");
        drop(server);
    });
}

#[test]
fn servers_that_fail_refuse_or_refer_are_passed_over() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let failing = Scripted::new(stage.host, "127.0.0.61:53", |asked, _| vec![coded(&asked.message, 2)]);
        let refusing = Scripted::new(stage.host, "127.0.0.62:53", |asked, _| vec![coded(&asked.message, 5)]);
        let lame = Scripted::new(stage.host, "127.0.0.63:53", |asked, _| {
            let mut answer = coded(&asked.message, 0);
            // No recursion here, and no authority either.
            answer[3] = 0;
            vec![answer]
        });
        let good = Scripted::new(stage.host, "127.0.0.64:53", |asked, _| {
            vec![addressed(&asked.message, [192, 0, 2, 1], 60)]
        });
        let server = serve(stage, &[failing.addr, refusing.addr, lame.addr, good.addr]);
        let (found, took) = timed(|| a.short(1, "www.example.org"));
        assert_eq!(found, ["192.0.2.1"]);
        assert!(took < Duration::from_secs(1), "{took:?}");
        drop(server);
        let _server = serve(stage, &[failing.addr, refusing.addr]);
        let answer = a.dig(1, "www.example.org");
        assert!(answer.contains("status: SERVFAIL"), "{answer}");
    });
}

#[test]
fn a_slow_server_is_overtaken() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let slow = Scripted::new(stage.host, "127.0.0.61:53", |asked, _| {
            std::thread::sleep(Duration::from_millis(1500));
            vec![addressed(&asked.message, [192, 0, 2, 1], 60)]
        });
        let quick = Scripted::new(stage.host, "127.0.0.62:53", |asked, _| {
            vec![addressed(&asked.message, [192, 0, 2, 2], 60)]
        });
        let _server = serve(stage, &[slow.addr, quick.addr]);
        let (found, took) = timed(|| a.short(1, "www.example.org"));
        assert_eq!(found, ["192.0.2.2"]);
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn false_answers_are_ignored() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let host = stage.host;
        // Another server's address, from which somebody sends whatever he likes.
        let liar = host.inside(|| std::net::UdpSocket::bind("127.0.0.66:53").unwrap());
        let other_port = host.inside(|| std::net::UdpSocket::bind("127.0.0.61:0").unwrap());
        let upstream = Scripted::new(host, "127.0.0.61:53", move |asked, _| {
            let lie = |message: &[u8]| addressed(message, [6, 6, 6, 6], 3600);
            let _ = liar.send_to(&lie(&asked.message), asked.peer);
            let _ = other_port.send_to(&lie(&asked.message), asked.peer);
            let mut id = lie(&asked.message);
            id[1] ^= 1;
            let mut name = lie(&asked.message);
            name[13] = b'z';
            let mut kind = lie(&asked.message);
            let end = coded(&asked.message, 0).len();
            kind[end - 3] = 28;
            let mut query = lie(&asked.message);
            query[2] &= 0x7f;
            // Every number but the right one, for a while.
            let mut all = vec![id, name, kind, query, vec![], b"x".to_vec(), asked.message[..12].to_vec()];
            for number in 0..200_u16 {
                let mut guess = lie(&asked.message);
                let right = u16::from_be_bytes([guess[0], guess[1]]);
                guess[..2].copy_from_slice(&right.wrapping_add(number + 1).to_be_bytes());
                all.push(guess);
            }
            all.push(addressed(&asked.message, [192, 0, 2, 1], 0));
            all
        });
        let server = serve(stage, &[upstream.addr]);
        let socket = client::socket(&a.container, "10.80.1.1:53");
        for number in 0..20 {
            let answer = ask(&socket, &question(number, &format!("q{number}.example.org"), 1)).unwrap();
            assert_eq!(answer[answer.len() - 4..], [192, 0, 2, 1], "{number}");
        }
        assert!(metric(&server, "berth_dns_upstream_messages_total{kind=\"ignored\"}") >= 20 * 100);
    });
}

#[test]
fn ports_and_numbers_cannot_be_guessed() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let upstream = Scripted::new(stage.host, "127.0.0.61:53", |asked, _| {
            vec![addressed(&asked.message, [192, 0, 2, 1], 0)]
        });
        let _server = serve(stage, &[upstream.addr]);
        let socket = client::socket(&a.container, "10.80.1.1:53");
        for number in 0..1000 {
            ask(&socket, &question(number, &format!("q{number}.example.org"), 1)).unwrap();
        }
        let asked = upstream.asked();
        assert!(asked.len() >= 1000);
        let ids: std::collections::BTreeSet<u16> =
            asked.iter().map(|asked| u16::from_be_bytes([asked.message[0], asked.message[1]])).collect();
        let ports: std::collections::BTreeSet<u16> = asked.iter().map(|asked| asked.peer.port()).collect();
        assert!(ids.len() > 950, "{}", ids.len());
        assert!(ports.len() >= 30, "{}", ports.len());
        // Spread over the whole range, and no two in a row related.
        let near = ids.iter().zip(ids.iter().skip(1)).map(|(a, b)| b - a).max().unwrap();
        assert!(near < 1000, "{near}");
        let steps: std::collections::BTreeSet<u16> =
            asked.windows(2).map(|pair| pair[1].message[1].wrapping_sub(pair[0].message[1]).into()).collect();
        assert!(steps.len() > 200, "{}", steps.len());
    });
}

#[test]
fn equal_questions_are_asked_once() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&seen);
        let upstream = Scripted::new(stage.host, "127.0.0.61:53", move |asked, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(150));
            vec![addressed(&asked.message, [192, 0, 2, 1], 0)]
        });
        let _server = serve(stage, &[upstream.addr]);
        let sockets: Vec<_> = (0..50).map(|_| client::socket(&a.container, "10.80.1.1:53")).collect();
        for (number, socket) in (0..).zip(&sockets) {
            let name = if number % 2 == 0 { "www.example.org" } else { "WWW.example.org" };
            socket.send(&question(number, name, 1)).unwrap();
        }
        for (number, socket) in (0_u16..).zip(&sockets) {
            let answer = client::receive(socket).unwrap();
            assert_eq!(answer[..2], number.to_be_bytes());
            let spelling = if number % 2 == 0 { b"www" } else { b"WWW" };
            assert_eq!(&answer[13..16], spelling);
        }
        assert!(seen.load(Ordering::Relaxed) <= 2, "{seen:?}");
    });
}

#[test]
fn the_clients_bytes_arrive() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let upstream = Scripted::new(stage.host, "127.0.0.61:53", |asked, _| {
            // Its own message, as an answer: every byte comes back.
            let mut answer = asked.message.clone();
            answer[2] |= 0x80;
            answer[3] |= 0x80;
            vec![answer]
        });
        let _server = serve(stage, &[upstream.addr]);
        let socket = client::socket(&a.container, "10.80.1.1:53");
        let mut message = question(0x1234, "wWw.example.org", 65_280);
        message[3] |= 0x30;
        message[11] = 1;
        // EDNS with DO and a client subnet and something unheard of.
        message.extend([0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 17, 0, 8, 0, 4, 0, 1, 24, 0, 0xfd, 0xe9, 0, 5]);
        message.extend(b"hello");
        let answer = ask(&socket, &message).unwrap();
        assert_eq!(upstream.asked()[0].message[2..], message[2..]);
        assert_eq!(answer[..2], [0x12, 0x34]);
        assert_eq!(answer[4..], message[4..]);
        // What is for one client only is asked again.
        ask(&socket, &message).unwrap();
        assert_eq!(upstream.asked().len(), 2);
    });
}

#[test]
fn a_servers_own_address_upstream_is_not_asked() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let good = Scripted::new(stage.host, "127.0.0.61:53", |asked, _| {
            vec![addressed(&asked.message, [192, 0, 2, 1], 0)]
        });
        let own: SocketAddr = "10.80.1.1:53".parse().unwrap();
        let server = serve(stage, &[own, good.addr]);
        let (found, took) = timed(|| a.short(1, "www.example.org"));
        assert_eq!(found, ["192.0.2.1"]);
        assert!(took < Duration::from_millis(500), "{took:?}");
        assert_eq!(metric(&server, "berth_dns_upstream_messages_total{kind=\"sent\"}"), 1);
        drop(server);
        let server = serve(stage, &[own]);
        assert!(a.dig(1, "www.example.org").contains("status: SERVFAIL"));
        assert_eq!(metric(&server, "berth_dns_upstream_messages_total{kind=\"sent\"}"), 0);
    });
}

#[test]
fn a_loop_by_way_of_another_server_ends() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let _masq = dnsmasq(stage.host, "127.0.0.61", &["--server=10.80.1.1", "--cache-size=0"]);
        let server = serve(stage, &[at(61)]);
        let answer = a.dig(1, "www.example.org");
        assert!(answer.contains("status: SERVFAIL"), "{answer}");
        let sent = metric(&server, "berth_dns_upstream_messages_total{kind=\"sent\"}");
        assert!(sent < 20, "{sent}");
    });
}

#[test]
fn the_hosts_list_is_followed_by_rename_by_write_and_by_link() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let upstreams: Vec<Scripted> = (1..=5)
            .map(|number| {
                let addr = format!("127.0.0.6{number}:53");
                Scripted::new(stage.host, &addr, move |asked, _| {
                    vec![addressed(&asked.message, [192, 0, 2, number], 0)]
                })
            })
            .collect();
        let dir = stage.host.dir().to_owned();
        let file = dir.join("resolv.conf");
        let line = |number: u8| format!("nameserver 127.0.0.6{number}\n");
        stage.resolv_conf(&[upstreams[0].addr]);
        let _server = stage.serve([Change::NetworkPut(network(1)), Change::MemberPut(member(1, "a", 10))]);
        let answers = |number: u8| {
            eventually(Duration::from_secs(10), || {
                let found = a.short(1, &format!("x{}.example.org", rand()));
                if found == [format!("192.0.2.{number}")] {
                    Ok(())
                } else {
                    Err(format!("{found:?}, not {number}"))
                }
            });
        };
        answers(1);
        std::fs::write(&file, line(2)).unwrap();
        answers(2);
        std::fs::write(dir.join("new"), line(3)).unwrap();
        std::fs::rename(dir.join("new"), &file).unwrap();
        answers(3);
        // A link into another folder, whose target is replaced.
        std::fs::create_dir(dir.join("real")).unwrap();
        std::fs::write(dir.join("real/stub"), line(4)).unwrap();
        std::os::unix::fs::symlink("real/stub", dir.join("link")).unwrap();
        std::fs::rename(dir.join("link"), &file).unwrap();
        answers(4);
        std::fs::write(dir.join("real/new"), line(5)).unwrap();
        std::fs::rename(dir.join("real/new"), dir.join("real/stub")).unwrap();
        answers(5);
        std::fs::remove_file(&file).unwrap();
        eventually(Duration::from_secs(10), || {
            let answer = a.dig(1, &format!("x{}.example.org", rand()));
            if answer.contains("status: SERVFAIL") { Ok(()) } else { Err(answer) }
        });
    });
}

/// Another number each time.
fn rand() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn an_internal_network_never_causes_a_packet() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let upstream = Scripted::new(stage.host, "127.0.0.61:53", |asked, _| {
            vec![addressed(&asked.message, [192, 0, 2, 1], 0)]
        });
        stage.resolv_conf(&[upstream.addr]);
        let server = stage.serve([
            Change::NetworkPut(NetworkSpec {
                internal: true,
                upstreams: vec![upstream.addr],
                split: vec![("example.org".to_owned(), vec![upstream.addr])],
                ..network(1)
            }),
            Change::MemberPut(MemberSpec { upstreams: vec![upstream.addr], ..member(1, "a", 10) }),
        ]);
        for name in ["www.example.org", "example.com", "-x 192.0.2.1", "gone", "gone.net1", ". NS", "org DS"]
        {
            a.dig(1, name);
            a.dig(1, &format!("+tcp {name}"));
        }
        assert_eq!(upstream.asked().len(), 0);
        assert_eq!(metric(&server, "berth_dns_upstream_messages_total{kind=\"sent\"}"), 0);
    });
}

#[test]
fn names_of_members_cannot_be_taken_by_others() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let upstream = Scripted::new(stage.host, "127.0.0.61:53", |asked, _| {
            vec![addressed(&asked.message, [6, 6, 6, 6], 3600)]
        });
        let server = serve(stage, &[upstream.addr]);
        assert_eq!(a.short(1, "web.net1"), Vec::<String>::new());
        server.apply(vec![Change::MemberPut(member(1, "web", 20))]).unwrap();
        assert_eq!(a.short(1, "web.net1"), ["10.80.1.20"]);
        server.apply(vec![Change::MemberGone(member(1, "web", 20).key)]).unwrap();
        for name in ["web", "web.net1", "web.berth.internal", "-x 10.80.1.20"] {
            assert!(a.dig(1, name).contains("status: NXDOMAIN"), "{name}");
        }
        assert_eq!(upstream.asked().len(), 0);
    });
}
