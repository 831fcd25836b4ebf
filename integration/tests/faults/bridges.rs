//! Somebody deletes or replaces the bridge, or a link of it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_integration::{Probe, Snapshot};
use serde_json::json;

use crate::common::{Net, assert_as_before, berth_lan_test, berth_test, tcp};

#[test]
fn a_deleted_bridge_is_made_again_by_the_next_add() {
    berth_lan_test(|host, lan, seat| {
        let net = Net::new(host, 1);
        let old = net.join("old");
        host.run("ip link del br1");
        let new = net.publish("new", tcp(8080, 80));
        let _new = new.serve_tcp(80, "new");
        lan.probe(&Probe::tcp(SocketAddr::new(seat.v4.into(), 8080)).times(2)).all_from("new");
        lan.probe(&Probe::tcp(SocketAddr::new(seat.v6.into(), 8080)).times(2)).all_from("new");
        new.checked().check().ok();
        old.leave();
    });
}

/// Catalogue row 14.
#[test]
fn containers_of_a_deleted_bridge_are_put_back_on_it() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, b) = (net.join("a"), net.join("b"));
        host.run("ip link del br1");
        assert_eq!(a.checked().check().err().code, 109);
        host.berth(["gc"]).run();
        a.checked().check().ok();
        assert_eq!((host.ping(a.v4(), 1), a.ping(b.v4(), 1), a.ping(b.v6(), 1)), (1, 1, 1));
    });
}

#[test]
fn containers_of_a_deleted_bridge_can_be_deleted() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let net = Net::new(host, 1);
        let members = [net.publish("a", tcp(8080, 80)), net.join("b")];
        host.run("ip link del br1");
        members.into_iter().for_each(|member| member.leave());
        assert_as_before(host, &before);
    });
}

#[test]
fn a_bridge_that_was_replaced_by_something_else_is_refused_and_left_alone() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let a = net.publish("a", tcp(8080, 80));
        host.run("ip link del br1");
        host.run("ip link add br1 type veth peer name other");
        let foreign = host.run("ip -o link show br1");
        let container = host.container("b");
        let error = net.call_for(&container).add().err();
        assert_eq!(error.code, 104, "{error}");
        assert_eq!(a.checked().check().err().code, 109);
        a.leave();
        host.berth(["gc"]).run();
        assert_eq!(host.run("ip -o link show br1"), foreign);
        host.run("ip link del br1");
    });
}

/// It has the name and the kind, but it is not the one that was made.
#[test]
fn a_bridge_that_was_replaced_by_another_bridge_is_used_and_made_whole() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let a = net.join("a");
        host.run("ip link del br1");
        host.run("ip link add br1 type bridge");
        let b = net.join("b");
        assert_eq!((host.ping(b.v4(), 1), host.ping(b.v6(), 1)), (1, 1));
        for switch in ["accept_ra", "autoconf"] {
            assert_eq!(host.sysctl(&format!("net.ipv6.conf.br1.{switch}")), "0", "{switch}");
        }
        a.leave();
        b.leave();
        host.berth(["gc"]).run();
        // Whose it is can be argued; that nothing else is left cannot.
        host.line("ip link del br1").output();
    });
}

#[test]
fn a_bridge_that_lost_its_address_gets_it_back_by_the_next_add() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let a = net.join("a");
        host.run("ip address flush dev br1");
        host.run("ip link set br1 down");
        let b = net.join("b");
        assert_eq!((host.ping(a.v4(), 1), host.ping(b.v4(), 1)), (1, 1));
        assert_eq!((host.ping(a.v6(), 1), host.ping(b.v6(), 1)), (1, 1));
        drop(a);
    });
}

/// Catalogue row 16.
#[test]
fn a_veth_that_was_deleted_or_moved_is_told_by_check_and_no_obstacle_to_del() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let net = Net::new(host, 1);
        let (a, b) = (net.publish("a", tcp(8080, 80)), net.join("b"));
        host.run(&format!("ip link del {}", a.host_ifname()));
        host.run("ip link add elsewhere type bridge");
        host.run(&format!("ip link set {} master elsewhere", b.host_ifname()));
        for member in [a, b] {
            assert_eq!(member.checked().check().err().code, 109);
            member.leave();
        }
        host.run("ip link del elsewhere");
        assert_as_before(host, &before);
    });
}

/// A link with the attachment's name that is somebody else's.
#[test]
fn a_link_that_took_the_name_of_a_lost_veth_is_not_deleted() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let a = net.join("a");
        let name = a.host_ifname();
        host.run(&format!("ip link del {name}"));
        host.run(&format!("ip link add {name} type veth peer name other"));
        a.leave();
        assert!(host.run("ip -o link").contains(&name));
        // And an ADD finds another name.
        let again = net.join("a");
        assert_eq!(host.ping(again.v4(), 1), 1);
        again.leave();
        host.run(&format!("ip link del {name}"));
    });
}

/// Catalogue row 17.
#[test]
fn flows_of_other_containers_go_on_while_networks_come_and_go() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let (a, b) = (net.join("a"), net.join("b"));
        let _a = a.serve_udp(53, "a");
        let to = SocketAddr::new(a.v4().into(), 53);
        let socket = b.inside(|| UdpSocket::bind("0.0.0.0:5000")).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flow = scope.spawn(|| {
                let (mut sent, mut lost) = (0_u32, 0_u32);
                while !over.load(Ordering::Relaxed) {
                    socket.send(b"ping").unwrap();
                    lost += u32::from(socket.recv(&mut [0; 64]).is_err());
                    sent += 1;
                }
                (sent, lost)
            });
            for _ in 0..5 {
                net.publish("c", tcp(8080, 80)).leave();
                Net::new(host, 2).with("ipMasq", json!(false)).join("d").leave();
                host.berth(["gc"]).run();
            }
            over.store(true, Ordering::Relaxed);
            let (sent, lost) = flow.join().unwrap();
            assert!(sent > 100 && lost == 0, "of {sent} packets {lost} were lost");
        });
    });
}
