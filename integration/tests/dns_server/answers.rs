//! What members are told, by `dig` in their containers.

use berth_dns::{Change, MemberSpec, NetworkSpec, Service};
use berth_types::Proto;

use crate::client;
use crate::stage::{dns_test, gateway, member, metric, network};

#[test]
fn members_find_each_other_over_udp_and_tcp_by_both_families() {
    dns_test(|stage| {
        let (a, _b) = (stage.join("a", 10, &[1]), stage.join("b", 11, &[1]));
        let server = stage.serve([
            Change::NetworkPut(network(1)),
            Change::MemberPut(member(1, "a", 10)),
            Change::MemberPut(member(1, "b", 11)),
        ]);
        for transport in ["", "+tcp", "+noedns", "+dnssec"] {
            for name in ["b", "b.net1", "b.berth.internal", "b.net1.berth.internal"] {
                assert_eq!(
                    a.short(1, &format!("{transport} {name} A")),
                    ["10.80.1.11"],
                    "{transport} {name}"
                );
                assert_eq!(a.short(1, &format!("{transport} {name} AAAA")), ["fd00:80:1::b"]);
            }
        }
        let by_v6 = a.container.run("dig +short @fd00:80:1::1 b AAAA");
        assert_eq!(by_v6, "fd00:80:1::b");
        assert_eq!(a.short(1, "-x 10.80.1.11"), ["b.net1.berth.internal."]);
        assert_eq!(a.short(1, "-x fd00:80:1::b"), ["b.net1.berth.internal."]);
        assert_eq!(a.short(1, "host.containers.internal"), ["10.80.1.1"]);
        let whole = a.dig(1, "+nocookie b A");
        assert!(whole.contains("status: NOERROR") && whole.contains("flags: qr aa rd ra;"), "{whole}");
        assert!(whole.contains("b.\t\t\t3\tIN\tA\t10.80.1.11"), "{whole}");
        let absent = a.dig(1, "nobody A");
        assert!(absent.contains("status: NXDOMAIN"), "{absent}");
        let none = a.dig(1, "b MX");
        assert!(none.contains("status: NOERROR") && none.contains("ANSWER: 0"), "{none}");
        assert!(metric(&server, "berth_dns_queries_total{outcome=\"local\"}") >= 30);
        server.stop();
    });
}

#[test]
fn the_case_of_a_name_is_kept_and_ignored() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let _server = stage.serve([Change::NetworkPut(network(1)), Change::MemberPut(member(1, "a", 10))]);
        let answer = a.dig(1, "A.Berth.InTernal A");
        assert!(answer.contains("A.Berth.InTernal.\t3\tIN\tA\t10.80.1.10"), "{answer}");
    });
}

#[test]
fn a_name_of_many_is_answered_whole_by_tcp_and_shuffled() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let named =
            |last: u8| MemberSpec { names: vec!["many".to_owned()], ..member(1, &format!("m{last}"), last) };
        let members = (20..220).map(|last| Change::MemberPut(named(last)));
        let few = [30, 31, 32]
            .map(|last| MemberSpec { names: vec!["few".to_owned()], ..member(1, &format!("f{last}"), last) });
        let _server = stage.serve(
            [Change::NetworkPut(network(1)), Change::MemberPut(member(1, "a", 10))]
                .into_iter()
                .chain(members)
                .chain(few.map(Change::MemberPut)),
        );
        let cut = a.dig(1, "+ignore many A");
        assert!(cut.contains("flags: qr aa tc rd ra"), "{cut}");
        // dig asks again by TCP, as resolvers do.
        assert_eq!(a.short(1, "many A").len(), 200);
        let mut orders: Vec<String> = (0..40).map(|_| a.dig(1, "+short few A")).collect();
        orders.sort();
        orders.dedup();
        assert!(orders.len() >= 4, "{orders:?}");
    });
}

#[test]
fn services_are_found() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let web = MemberSpec {
            services: vec![Service { name: "http".to_owned(), proto: Proto::Tcp, port: 8080 }],
            ..member(1, "web", 11)
        };
        let _server = stage.serve([
            Change::NetworkPut(network(1)),
            Change::MemberPut(member(1, "a", 10)),
            Change::MemberPut(web),
        ]);
        assert_eq!(a.short(1, "_http._tcp.web SRV"), ["0 0 8080 web.net1.berth.internal."]);
        assert_eq!(a.short(1, "web.net1.berth.internal A"), ["10.80.1.11"]);
    });
}

#[test]
fn who_is_no_member_gets_no_answer_at_all() {
    dns_test(|stage| {
        let (a, stranger) = (stage.join("a", 10, &[1]), stage.join("stranger", 66, &[1]));
        let both = stage.join("both", 12, &[1, 2]);
        let other = stage.join("other", 13, &[2]);
        other.container.run("ip route add default via 10.80.2.1");
        stage.host.set_sysctl("net.ipv4.ip_forward", "1");
        let server = stage.serve([
            Change::NetworkPut(network(1)),
            Change::NetworkPut(network(2)),
            Change::MemberPut(member(1, "a", 10)),
            Change::MemberPut(member(1, "both", 12)),
            Change::MemberPut(member(2, "both", 12)),
            Change::MemberPut(member(2, "other", 13)),
        ]);
        let silent = |place: &berth_integration::Place, at: &str| {
            let socket = client::socket(place, at);
            socket.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
            for message in [
                client::question(1, "a", 1),
                client::question(2, "example.org", 1),
                b"junk".to_vec(),
                vec![0; 30],
            ] {
                assert_eq!(client::ask(&socket, &message), None, "{at}");
            }
            let tcp = place.cmd("dig").args([
                "+tcp",
                "+time=1",
                "+tries=1",
                at.split(':').next().map(|ip| format!("@{ip}")).unwrap().as_str(),
                "a",
            ]);
            assert_ne!(tcp.output().code(), Some(0));
        };
        silent(&stranger.container, "10.80.1.1:53");
        // A member of one network, at the gateway of another.
        silent(&other.container, "10.80.1.1:53");
        assert_eq!(a.short(1, "both.net1"), ["10.80.1.12"]);
        let both_names = both.short(1, "other");
        assert_eq!(both_names, ["10.80.2.13"]);
        assert_eq!(a.short(1, "other"), Vec::<String>::new());
        // The host asks from the gateway address itself, and from another of its addresses.
        assert_eq!(stage.host.run("dig +short @10.80.1.1 a."), "10.80.1.10");
        assert_eq!(stage.host.run("dig +short -b 192.0.2.2 @10.80.1.1 a."), "10.80.1.10");
        assert!(metric(&server, "berth_dns_queries_total{outcome=\"stranger\"}") >= 4);
        drop(server);
        stage.host.set_sysctl("net.ipv4.ip_forward", "0");
    });
}

#[test]
fn glibc_and_busybox_resolve_names() {
    dns_test(|stage| {
        let (a, _b) = (stage.join("a", 10, &[1]), stage.join("b", 11, &[1]));
        let _server = stage.serve([
            Change::NetworkPut(network(1)),
            Change::MemberPut(member(1, "a", 10)),
            Change::MemberPut(member(1, "b", 11)),
        ]);
        let conf = stage.host.dir().join("container-resolv.conf");
        std::fs::write(&conf, format!("nameserver {}\nsearch net1.berth.internal\n", gateway(1))).unwrap();
        let run = |command: &str| {
            let mount =
                format!("busybox mount -o bind {} /etc/resolv.conf && exec {command}", conf.display());
            a.container.cmd("unshare").args(["-m", "sh", "-c", &mount]).output()
        };
        let found = run("getent ahostsv4 b").success();
        assert!(found.starts_with("10.80.1.11"), "{found}");
        let found = run("getent ahostsv6 b.berth.internal").success();
        assert!(found.starts_with("fd00:80:1::b"), "{found}");
        assert_eq!(run("getent hosts nobody").code(), Some(2));
        let found = a.container.run("busybox nslookup b.berth.internal 10.80.1.1");
        assert!(found.contains("10.80.1.11") && found.contains("fd00:80:1::b"), "{found}");
    });
}

#[test]
fn an_internal_network_answers_its_names_and_refuses_the_rest() {
    dns_test(|stage| {
        let a = stage.join("a", 10, &[1]);
        let _server = stage.serve([
            Change::NetworkPut(NetworkSpec {
                internal: true,
                upstreams: vec!["192.0.2.1:53".parse().unwrap()],
                ..network(1)
            }),
            Change::MemberPut(member(1, "a", 10)),
        ]);
        assert_eq!(a.short(1, "a."), ["10.80.1.10"]);
        let refused = a.dig(1, "www.example.org");
        assert!(refused.contains("status: REFUSED") && refused.contains("EDE: 18"), "{refused}");
    });
}
