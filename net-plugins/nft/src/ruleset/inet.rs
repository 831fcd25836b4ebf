//! `inet berth`: who may reach whom, and where published ports lead.

use nftables::expr::MetaKey;
use nftables::stmt::NATFamily;
use nftables::types::{NfChainType, NfHook};

use super::expr::*;
use super::{CLEAR_IN, CLEAR_OUT, ChainDef, MARK_MASK, MARK_VALUE};
use crate::schema::*;

/// What differs between the rules of the two families.
struct Fam {
    ip: &'static str,
    nfproto: &'static str,
    nat: NATFamily,
    /// Destinations that are never masqueraded.
    multicast: Expr,
    subnets: &'static SetDef,
    masq: &'static SetDef,
    own: &'static SetDef,
    hairpin: &'static SetDef,
    masq_all: &'static SetDef,
    dns: &'static SetDef,
    led_addr: &'static SetDef,
    led_port: &'static SetDef,
    vteps: &'static SetDef,
    port_addr: &'static SetDef,
    port_port: &'static SetDef,
    hostport_addr: &'static SetDef,
    hostport_port: &'static SetDef,
    range_addr: &'static SetDef,
    hostrange_addr: &'static SetDef,
}

impl Fam {
    fn v4() -> Self {
        Self {
            ip: "ip",
            nfproto: "ipv4",
            nat: NATFamily::IP,
            multicast: prefix("224.0.0.0", 4),
            subnets: &SUBNETS4,
            masq: &MASQ4,
            own: &OWN4,
            hairpin: &HAIRPIN4,
            masq_all: &MASQ_ALL4,
            dns: &DNS4,
            led_addr: &LED_ADDR4,
            led_port: &LED_PORT4,
            vteps: &VTEPS4,
            port_addr: &PORT_ADDR4,
            port_port: &PORT_PORT4,
            hostport_addr: &HOSTPORT_ADDR4,
            hostport_port: &HOSTPORT_PORT4,
            range_addr: &RANGE_ADDR4,
            hostrange_addr: &HOSTRANGE_ADDR4,
        }
    }

    fn v6() -> Self {
        Self {
            ip: "ip6",
            nfproto: "ipv6",
            nat: NATFamily::IP6,
            multicast: prefix("ff00::", 8),
            subnets: &SUBNETS6,
            masq: &MASQ6,
            own: &OWN6,
            hairpin: &HAIRPIN6,
            masq_all: &MASQ_ALL6,
            dns: &DNS6,
            led_addr: &LED_ADDR6,
            led_port: &LED_PORT6,
            vteps: &VTEPS6,
            port_addr: &PORT_ADDR6,
            port_port: &PORT_PORT6,
            hostport_addr: &HOSTPORT_ADDR6,
            hostport_port: &HOSTPORT_PORT6,
            range_addr: &RANGE_ADDR6,
            hostrange_addr: &HOSTRANGE_ADDR6,
        }
    }

    /// Asked first, it spares the other family's packets what follows.
    fn only(&self) -> Stmt {
        eq(meta(MetaKey::Nfproto), text(self.nfproto))
    }

    fn saddr(&self) -> Expr {
        payload(self.ip, "saddr")
    }

    fn daddr(&self) -> Expr {
        payload(self.ip, "daddr")
    }

    fn addrs(&self) -> Expr {
        concat([self.saddr(), self.daddr()])
    }
}

pub(super) fn chains() -> Vec<ChainDef> {
    let families = [Fam::v4(), Fam::v6()];
    // A packet passes the first twice, encrypted and decrypted: ESP in transport mode begins anew (`xfrm4_transport_finish`).
    let clear_in = ChainDef::base(CLEAR_IN, NfChainType::Filter, NfHook::Prerouting, -300);
    let clear_out = ChainDef::base(CLEAR_OUT, NfChainType::Filter, NfHook::Output, -300);
    let mut chains = vec![raw_pre(&families), raw_out(&families), clear_in, clear_out, nat_lookup(&families)];
    let mut nat_pre = ChainDef::base("nat_pre", NfChainType::NAT, NfHook::Prerouting, -100);
    let mut nat_out = ChainDef::base("nat_out", NfChainType::NAT, NfHook::Output, -100);
    // A flow from ::1 leaves, but the kernel delivers no answer from a link to ::1: there is no route_localnet for IPv6.
    // Untranslated it is refused at once, and programs go on to 127.0.0.1.
    nat_out.noted("no answers reach ::1", [eq(payload("ip6", "daddr"), text("::1")), back()]);
    lead_questions(&mut nat_pre, &families);
    for chain in [&mut nat_pre, &mut nat_out] {
        // Without this, a port published here would be taken from traffic that only passes through (CVE-2025-67499).
        chain.rule([eq(fib_daddr_type(), text("local")), goto("nat_lookup")]);
    }
    chains.extend([nat_pre, nat_out, nat_post(&families)]);
    // The jumped-to chain first, then the one that jumps.
    chains.extend([forward_ours(), forwarding(&families), input(&families)]);
    chains
}

/// Leads questions for names to this host, where a container's resolver knows only servers of elsewhere.
fn lead_questions(chain: &mut ChainDef, families: &[Fam]) {
    for fam in families {
        for proto in ["tcp", "udp"] {
            let question = [eq(l4proto(), text(proto)), eq(payload("th", "dport"), number(53))];
            let asked = || concat([iif(), fam.daddr()]);
            let to = dnat(fam.nat, lookup(asked(), fam.led_addr), Some(lookup(asked(), fam.led_port)));
            chain.noted("names asked elsewhere", question.into_iter().chain([to]));
        }
    }
}

/// Drops what must not even be looked up. The priority is `raw`: before tracking and translation, so replies to
/// masqueraded traffic and DNATed traffic still carry the host's address here and pass.
fn raw_pre(families: &[Fam]) -> ChainDef {
    let mut chain = ChainDef::base("raw_pre", NfChainType::Filter, NfHook::Prerouting, -300);
    let not_lo = || ne(iif(), text("lo"));
    chain.noted(
        "loopback address from outside",
        [not_lo(), eq(payload("ip", "daddr"), prefix("127.0.0.0", 8)), count(), drop()],
    );
    chain.noted(
        "loopback address from outside",
        [not_lo(), eq(payload("ip6", "daddr"), text("::1")), count(), drop()],
    );
    for fam in families {
        // The host reaches its own gateway addresses over `lo`.
        let of_a_container = within(fam.daddr(), fam.subnets);
        let statements = [fam.only(), not_lo(), outside(iif(), &BRIDGES), of_a_container, count(), drop()];
        chain.noted("container address by a foreign way", statements);
    }
    for fam in families {
        let of_a_peer = within(fam.saddr(), fam.vteps);
        chain.noted(
            "tunnels are not tracked",
            [within(payload("udp", "dport"), &VXLAN_PORTS), of_a_peer, untracked()],
        );
    }
    for fam in families {
        // Wherever it goes: masqueraded, a container's would look like this node's to another.
        let statements =
            [within(payload("udp", "dport"), &VXLAN_PORTS), outside(fam.saddr(), fam.vteps), count(), drop()];
        chain.noted("VXLAN from a stranger", statements);
    }
    chain
}

/// Leaves the packets between tunnel ends untracked, as [`raw_pre`] does: each has a flow's hash as its source port and nobody
/// translates them, so tracking them would cost time and fill the table.
fn raw_out(families: &[Fam]) -> ChainDef {
    let mut chain = ChainDef::base("raw_out", NfChainType::Filter, NfHook::Output, -300);
    for fam in families {
        let to_a_peer = within(fam.daddr(), fam.vteps);
        chain.noted(
            "tunnels are not tracked",
            [within(payload("udp", "dport"), &VXLAN_PORTS), to_a_peer, untracked()],
        );
    }
    chain
}

/// Published ports: the more exact key wins. nft 1.0.6 crashes on JSON maps whose data is a concatenation, hence two
/// maps over one key.
fn nat_lookup(families: &[Fam]) -> ChainDef {
    let mut chain = ChainDef::regular("nat_lookup");
    let port = || [l4proto(), payload("th", "dport")];
    for fam in families {
        let host_port = || concat([fam.daddr()].into_iter().chain(port()));
        let to = |key: Expr, addr, port| dnat(fam.nat, lookup(key.clone(), addr), Some(lookup(key, port)));
        chain.rule([to(host_port(), fam.hostport_addr, fam.hostport_port)]);
        chain.rule([dnat(fam.nat, lookup(host_port(), fam.hostrange_addr), None)]);
        chain.rule([to(concat(port()), fam.port_addr, fam.port_port)]);
        chain.rule([dnat(fam.nat, lookup(concat(port()), fam.range_addr), None)]);
    }
    chain
}

/// Gives packets the source address that makes their answers come back.
fn nat_post(families: &[Fam]) -> ChainDef {
    let mut chain = ChainDef::base("nat_post", NfChainType::NAT, NfHook::Postrouting, 100);
    // Only destinations were translated so far: a source someone else chose is left as it is.
    let dnated = || eq(and(ct("status"), or(text("dnat"), text("snat"))), text("dnat"));
    for fam in families {
        chain.noted("hairpin", [dnated(), within(fam.addrs(), fam.own), masquerade()]);
        chain.noted("hairpin", [dnated(), within(fam.addrs(), fam.hairpin), masquerade()]);
        chain.noted("masquerade all", [dnated(), within(fam.daddr(), fam.masq_all), masquerade()]);
    }
    chain.noted(
        "from localhost",
        [dnated(), eq(payload("ip", "saddr"), prefix("127.0.0.0", 8)), masquerade()],
    );
    for fam in families {
        chain.rule([eq(fam.daddr(), fam.multicast.clone()), back()]);
        chain.rule([within(fam.addrs(), fam.own), back()]);
        chain.noted("leaves its network", [within(fam.saddr(), fam.masq), masquerade()]);
    }
    chain
}

/// Picks what concerns berth. The priority is before every usual filter, so that berth's mark is there to be seen.
fn forwarding(families: &[Fam]) -> ChainDef {
    let mut chain = ChainDef::base("forwarding", NfChainType::Filter, NfHook::Forward, -10);
    chain.rule([within(iif(), &BRIDGES), goto("forward_ours")]);
    chain.rule([within(oif(), &BRIDGES), goto("forward_ours")]);
    // berth turned forwarding on for containers; that must not make a router of the host.
    for (fam, closed) in families.iter().zip([&CLOSED_ROUTER4, &CLOSED_ROUTER6]) {
        let statements = [fam.only(), within(iif(), closed), within(oif(), closed), count(), drop()];
        chain.noted("not a router", statements);
    }
    chain
}

fn forward_ours() -> ChainDef {
    let mut chain = ChainDef::regular("forward_ours");
    // With br_netfilter, frames between ports of one bridge come by here too.
    chain.rule([within(concat([iif(), oif()]), &WITHIN), marked(), accept()]);
    // What the bridge lets pass to and from other hosts, where containers are kept apart (`forward_across`). Nothing else has
    // the mark here.
    let has_mark = eq(and(meta(MetaKey::Mark), number(MARK_MASK)), number(MARK_VALUE));
    chain.noted("across hosts", [has_mark, within(iif(), &BRIDGES), within(oif(), &BRIDGES), accept()]);
    // Before the accepting rules: an internal network has no flows and no ports to the outside.
    chain.noted("out of an internal network", [within(iif(), &INTERNAL), count(), drop()]);
    chain.noted("into an internal network", [within(oif(), &INTERNAL), count(), drop()]);
    // A packet no flow knows is not translated either: it would leave with a container's address.
    chain.noted("no known flow", [has(ct("state"), ["invalid"]), count(), drop()]);
    chain.rule([has(ct("state"), ["established", "related"]), marked(), accept()]);
    chain.noted("published", [has(ct("status"), ["dnat"]), marked(), accept()]);
    chain.rule([within(iif(), &OPEN), within(oif(), &OPEN), marked(), accept()]);
    chain.noted("between networks", [within(iif(), &BRIDGES), within(oif(), &BRIDGES), count(), drop()]);
    chain.noted("routed", [within(oif(), &ROUTED), marked(), accept()]);
    chain.noted("to the outside", [within(iif(), &BRIDGES), marked(), accept()]);
    chain.noted("unpublished", [count(), drop()]);
    chain
}

/// Names, asked for at the gateway. The accept matters to nobody else; the mark is what another firewall is told by.
fn input(families: &[Fam]) -> ChainDef {
    let mut chain = ChainDef::base("input", NfChainType::Filter, NfHook::Input, -10);
    for fam in families {
        for proto in ["tcp", "udp"] {
            // As it was asked: an alternate port is reached by translation.
            let asked = eq(ct_original("proto-dst"), number(53));
            let at_gateway = within(concat([iif(), fam.daddr()]), fam.dns);
            chain.noted("names", [eq(l4proto(), text(proto)), asked, at_gateway, marked(), accept()]);
        }
    }
    chain
}

/// Writes berth's bits of the mark and leaves the others.
pub(super) fn marked() -> Stmt {
    set_mark(or(and(meta(MetaKey::Mark), number(!MARK_MASK)), number(MARK_VALUE)))
}
