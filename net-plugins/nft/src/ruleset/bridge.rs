//! `bridge berth`: what a port may send. A frame is dropped unless a rule knows it.

use nftables::expr::MetaKey;
use nftables::types::{NfChainType, NfHook};

use super::expr::*;
use super::inet::marked;
use super::{ADVERTISED, ChainDef, MARK_MASK, MARK_VALUE};
use crate::schema::*;

/// ICMPv6 types of RFC 4443, 4861, 2710 and 3810.
mod icmpv6 {
    pub(super) const MLD_REPORT: u32 = 131;
    pub(super) const MLD_DONE: u32 = 132;
    pub(super) const ROUTER_SOLICIT: u32 = 133;
    pub(super) const ROUTER_ADVERT: u32 = 134;
    pub(super) const NEIGHBOUR_SOLICIT: u32 = 135;
    pub(super) const NEIGHBOUR_ADVERT: u32 = 136;
    pub(super) const REDIRECT: u32 = 137;
    pub(super) const MLD2_REPORT: u32 = 143;
}

pub(super) fn chains() -> Vec<ChainDef> {
    let mut pre = ChainDef::base("pre", NfChainType::Filter, NfHook::Prerouting, -300);
    pre.rule([within(iif(), &GUARDED), goto("guard")]);
    pre.rule([within(iif(), &GUARDED_MAC_ONLY), goto("guard_mac")]);
    let advertised = ChainDef::regular(ADVERTISED);
    let guards = [advertised, guard4(), guard_arp(), known6(), guard6(), guard(), guard_mac()];
    guards.into_iter().chain([pre, forward_across(), forward()]).collect()
}

/// Where containers are kept apart, what comes from other hosts is theirs to let go, and what goes to another host itself
/// passes, as what goes to this one does: it may be an answer. Marked before br_netfilter shows it to the forwarding of `inet
/// berth` (priority -1), which cannot tell ports.
fn forward_across() -> ChainDef {
    let mut chain = ChainDef::base("forward_across", NfChainType::Filter, NfHook::Forward, -10);
    chain.rule([within(iif(), &APART_ACROSS), marked()]);
    let to_a_host = within(ether("daddr"), &HOSTS_ACROSS);
    chain.rule([within(iif(), &APART), within(oif(), &APART_ACROSS), to_a_host, marked()]);
    chain
}

/// Frames from port to port. With br_netfilter, one that was sent to a published port of the host is translated on the
/// bridge and goes on here; the forwarding of `inet berth` has judged it before (priority 0) and marked it. Everything
/// else between containers that are kept apart ends here, ARP included.
fn forward() -> ChainDef {
    let mut chain = ChainDef::base("forward", NfChainType::Filter, NfHook::Forward, 100);
    let unmarked = ne(and(meta(MetaKey::Mark), number(MARK_MASK)), number(MARK_VALUE));
    // By port and not by bridge: `meta ibrname` is an option of the kernel's that not all have.
    let both = [within(iif(), &APART), within(oif(), &APART)];
    chain.noted("between containers", both.into_iter().chain([unmarked.clone(), count(), drop()]));
    // The other host has no way to know that this container is kept apart.
    let across = [within(iif(), &APART), within(oif(), &APART_ACROSS)];
    chain.noted("between containers", across.into_iter().chain([unmarked, count(), drop()]));
    // The mark has told whom it had to. A VXLAN device looks up the route anew for each packet that has one
    // (`ip_tunnel_dst_cache_usable`, include/net/ip_tunnels.h).
    let ours = eq(and(meta(MetaKey::Mark), number(MARK_MASK)), number(MARK_VALUE));
    chain.rule([ours, set_mark(and(meta(MetaKey::Mark), number(!MARK_MASK)))]);
    chain
}

fn ether(field: &'static str) -> Expr {
    payload("ether", field)
}

fn own_mac() -> Expr {
    concat([iif(), ether("saddr")])
}

fn icmpv6(types: impl IntoIterator<Item = u32>) -> Stmt {
    eq(payload("icmpv6", "type"), any_of(types.into_iter().map(number)))
}

fn udp(source: u32, destination: u32) -> [Stmt; 2] {
    [eq(payload("udp", "sport"), number(source)), eq(payload("udp", "dport"), number(destination))]
}

/// Splits by protocol. Everything that is not IPv4, ARP or IPv6 ends here: BPDUs, LLC, foreign tags, LLDP.
///
/// Who sends by an own address also has the MAC address that goes with it, so one lookup tells both: of packets nothing else is
/// asked first.
fn guard() -> ChainDef {
    let mut chain = ChainDef::regular("guard");
    chain.rule([eq(ether("type"), text("ip")), goto("guard4")]);
    chain.rule([eq(ether("type"), text("ip6")), goto("guard6")]);
    foreign_mac(&mut chain);
    chain.rule([eq(ether("type"), text("arp")), goto("guard_arp")]);
    chain.rule([eq(ether("type"), text("8021q")), within(iif(), &TRUNK), accept()]);
    chain.noted("foreign protocol", [count(), drop()]);
    chain
}

/// Ends what is not sent by a port's own MAC address.
fn foreign_mac(chain: &mut ChainDef) {
    chain.noted("foreign MAC address", [outside(own_mac(), &ALLOWED_MAC), count(), drop()]);
}

fn guard4() -> ChainDef {
    let mut chain = ChainDef::regular("guard4");
    chain.noted("DHCP server", udp(67, 68).into_iter().chain([count(), drop()]));
    let own = concat([iif(), ether("saddr"), payload("ip", "saddr")]);
    chain.rule([within(own, &ALLOWED4), accept()]);
    foreign_mac(&mut chain);
    // A DHCP client that has no address yet.
    let unspecified = eq(payload("ip", "saddr"), text("0.0.0.0"));
    chain.rule([unspecified].into_iter().chain(udp(68, 67)).chain([accept()]));
    chain.noted("foreign IPv4 address", [count(), drop()]);
    chain
}

fn guard_arp() -> ChainDef {
    let mut chain = ChainDef::regular("guard_arp");
    let (mac, addr) = (|| payload("arp", "saddr ether"), || payload("arp", "saddr ip"));
    chain.rule([within(concat([iif(), mac(), addr()]), &ALLOWED4), accept()]);
    // A probe of RFC 5227: it enters no table.
    chain.rule([
        eq(payload("arp", "operation"), text("request")),
        eq(addr(), text("0.0.0.0")),
        within(concat([iif(), mac()]), &ALLOWED_MAC),
        accept(),
    ]);
    chain.noted("foreign address in ARP", [count(), drop()]);
    chain
}

fn guard6() -> ChainDef {
    let mut chain = ChainDef::regular("guard6");
    let own = concat([iif(), ether("saddr"), payload("ip6", "saddr")]);
    chain.rule([within(own, &ALLOWED6), goto("known6")]);
    foreign_mac(&mut chain);
    // Before an address is there: duplicate address detection, and the reports that join its groups.
    let early = [
        icmpv6::MLD_REPORT,
        icmpv6::MLD_DONE,
        icmpv6::ROUTER_SOLICIT,
        icmpv6::NEIGHBOUR_SOLICIT,
        icmpv6::MLD2_REPORT,
    ];
    chain.rule([eq(payload("ip6", "saddr"), text("::")), icmpv6(early), accept()]);
    chain.noted("foreign IPv6 address", [count(), drop()]);
    chain
}

/// What is sent by an own IPv6 address.
fn known6() -> ChainDef {
    let mut chain = ChainDef::regular("known6");
    chain.noted(
        "router advertisement or redirect",
        [icmpv6([icmpv6::ROUTER_ADVERT, icmpv6::REDIRECT]), count(), drop()],
    );
    chain.noted("DHCPv6 server", udp(547, 546).into_iter().chain([count(), drop()]));
    chain.rule([icmpv6([icmpv6::NEIGHBOUR_ADVERT]), jump(ADVERTISED)]);
    chain.noted("advertised foreign address", [icmpv6([icmpv6::NEIGHBOUR_ADVERT]), count(), drop()]);
    // Always true where the headers could be followed to a protocol; where they could not, the rules above that look
    // for one saw nothing (RFC 7113 tells how that hides an advertisement).
    chain.rule([ne(l4proto(), number(255)), accept()]);
    chain.noted("unreadable IPv6 headers", [count(), drop()]);
    chain
}

/// Ports of networks that hand out no addresses: the sender is checked, what it says is the network's own affair.
fn guard_mac() -> ChainDef {
    let mut chain = ChainDef::regular("guard_mac");
    foreign_mac(&mut chain);
    // IEEE 802.1D reserved group addresses: spanning tree, link aggregation, LLDP.
    let group = and(ether("daddr"), text("ff:ff:ff:ff:ff:f0"));
    chain.noted("bridge protocol", [eq(group, text("01:80:c2:00:00:00")), count(), drop()]);
    let tagged = any_of([text("8021q"), text("8021ad")]);
    chain.noted("VLAN tag", [eq(ether("type"), tagged), outside(iif(), &TRUNK), count(), drop()]);
    chain
}
