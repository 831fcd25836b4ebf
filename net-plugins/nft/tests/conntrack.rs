//! A flush deletes exactly the flows it describes.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[cfg(test)]
mod common;

use std::net::IpAddr;

use berth_nft::{FlowMatch, NftSocket, flush_flows};
use berth_types::Family;
use common::{in_netns, run};

/// Enters a tracked flow: who sent it where, and who answers.
fn track(proto: &str, from: &str, to: (&str, u16), answers: (&str, u16)) {
    let state = if proto == "tcp" { "--state ESTABLISHED" } else { "" };
    run(&format!(
        "conntrack -I -p {proto} -t 600 {state} -s {from} -d {} --sport 4000 --dport {} -r {} -q {from} \
         --reply-port-src {} --reply-port-dst 4000",
        to.0, to.1, answers.0, answers.1
    ));
}

fn tracked() -> usize {
    run("conntrack -L -f ipv4").lines().count() + run("conntrack -L -f ipv6").lines().count()
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn with_flows(test: impl FnOnce(&mut NftSocket) + Send + 'static) {
    in_netns(|| {
        track("udp", "192.0.2.7", ("192.0.2.1", 53), ("10.80.0.2", 5353));
        track("udp", "192.0.2.8", ("192.0.2.1", 53), ("10.80.0.3", 5353));
        track("udp", "192.0.2.6", ("192.0.2.9", 53), ("10.80.0.2", 5353));
        track("udp", "192.0.2.7", ("192.0.2.1", 54), ("192.0.2.1", 54));
        track("tcp", "192.0.2.7", ("192.0.2.1", 53), ("10.80.0.2", 5353));
        track("udp", "2001:db8::7", ("2001:db8::1", 53), ("fd80::2", 5353));
        assert_eq!(tracked(), 6);
        test(&mut NftSocket::open().unwrap());
    });
}

#[test]
fn a_port_is_flushed_in_its_family_and_protocol_only() {
    with_flows(|socket| {
        assert_eq!(flush_flows(socket, &[FlowMatch::udp(Family::V4, (53, 53))]).unwrap(), 3);
        let left = run("conntrack -L");
        assert!(left.contains("tcp") && left.contains("dport=54"), "{left}");
        assert_eq!(tracked(), 3);
        assert_eq!(flush_flows(socket, &[FlowMatch::udp(Family::V4, (53, 53))]).unwrap(), 0);
    });
}

#[test]
fn every_condition_narrows_the_flush() {
    with_flows(|socket| {
        let all = FlowMatch::udp(Family::V4, (53, 53));
        let elsewhere = FlowMatch { dst: ip("192.0.2.2"), ..all.clone() };
        assert_eq!(flush_flows(socket, &[elsewhere]).unwrap(), 0);
        let by_port = FlowMatch { reply_src_port: Some(53), ..all.clone() };
        assert_eq!(flush_flows(socket, &[by_port]).unwrap(), 0);
        let kept = FlowMatch { dst: ip("192.0.2.1"), keep_reply_src: ip("10.80.0.3"), ..all.clone() };
        assert_eq!(flush_flows(socket, &[kept]).unwrap(), 1);
        let by_container = FlowMatch { reply_src: ip("10.80.0.3"), ..all };
        assert_eq!(flush_flows(socket, &[by_container]).unwrap(), 1);
        assert_eq!(tracked(), 4);
    });
}

#[test]
fn both_families_and_protocols_in_one_call() {
    with_flows(|socket| {
        let tcp = FlowMatch { proto: 6, ..FlowMatch::udp(Family::V4, (1, 65535)) };
        let matches = [tcp, FlowMatch::udp(Family::V4, (54, 60)), FlowMatch::udp(Family::V6, (53, 53))];
        assert_eq!(flush_flows(socket, &matches).unwrap(), 3);
        assert_eq!(flush_flows(socket, &[]).unwrap(), 0);
        assert_eq!(tracked(), 3);
    });
}

#[test]
fn thousands_of_flows_are_flushed_in_one_call() {
    in_netns(|| {
        run("ip link set lo up");
        // Tracking begins with the first rule that asks for it.
        run("nft add table ip t");
        run("nft add chain ip t c { type filter hook output priority 0 ; }");
        run("nft add rule ip t c ct state new accept");
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        for _ in 0..3000 {
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", to).unwrap();
        }
        let before = run("conntrack -L").lines().count();
        let flushed = flush_flows(
            &mut NftSocket::open().unwrap(),
            &[FlowMatch::udp(Family::V4, (to.port(), to.port()))],
        )
        .unwrap();
        assert!(flushed > 2000, "{flushed} of {before}");
        assert_eq!(run("conntrack -L").lines().count(), before - flushed);
    });
}
