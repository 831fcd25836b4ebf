//! Rules that are written by berth itself and not by `nft`: one that nft 1.0.6 has no words for, and two that not every kernel
//! takes, which would refuse the whole ruleset on their account.

use crate::kernel::{nfta, value};
use crate::ruleset::{ADVERTISED, CLEAR_IN, CLEAR_OUT};
use crate::schema::{ALLOWED6, ENCRYPTED_PORTS, Field, TABLE, Table};
use crate::wire::Attrs;

/// Part of the ruleset's version: to be changed with these rules.
pub(crate) const OWN_RULES_VERSION: &str = "2";

/// `NFT_REG_1`: the first of the 128-bit registers.
const REGISTER: u32 = 1;

/// `NF_DROP` and `NF_ACCEPT` of linux/netfilter.h.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// `NFT_PAYLOAD_LL_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`.
const LINK: u32 = 0;
const TRANSPORT: u32 = 2;

/// Whether the kernel can tell a packet that was decrypted, or is about to be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secpath {
    Matched,
    Unknown,
}

/// A rule, alone in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnRule {
    /// `iifname . ether saddr . icmpv6 taddr @allowed6 accept`.
    Advertised,
    /// `udp dport @encrypted_ports meta ipsec missing counter drop`.
    ClearIn(Secpath),
    /// `udp dport @encrypted_ports rt ipsec missing counter drop`.
    ClearOut(Secpath),
}

impl OwnRule {
    pub(crate) fn table(self) -> Table {
        if self == Self::Advertised { Table::Bridge } else { Table::Inet }
    }

    /// Where it is.
    pub(crate) fn place(self, attrs: &mut Attrs<'_>) {
        attrs.text(nfta::RULE_TABLE, TABLE);
        attrs.text(
            nfta::RULE_CHAIN,
            match self {
                Self::Advertised => ADVERTISED,
                Self::ClearIn(_) => CLEAR_IN,
                Self::ClearOut(_) => CLEAR_OUT,
            },
        );
    }

    /// All of it.
    pub(crate) fn write(self, attrs: &mut Attrs<'_>) {
        self.place(attrs);
        attrs.nest(nfta::RULE_EXPRESSIONS, |attrs| match self {
            Self::Advertised => advertised(attrs),
            Self::ClearIn(secpath) => clear(attrs, secpath, decrypted),
            Self::ClearOut(secpath) => clear(attrs, secpath, encrypted),
        });
        // Comments as nft writes them: type 0, length, text with its zero.
        attrs.bytes(
            nfta::RULE_USERDATA,
            match self {
                Self::Advertised => b"\x00\x17own address advertised\x00",
                Self::ClearIn(_) | Self::ClearOut(_) => b"\x00\x18encrypted network clear\x00",
            },
        );
    }
}

/// RFC 4861 section 4.4 puts the target eight bytes after the start of the ICMPv6 header.
fn advertised(attrs: &mut Attrs<'_>) {
    /// `NFT_REG32_00`: the first of the 32-bit registers a concatenation is built in.
    const FIRST_REGISTER: u32 = 8;
    /// `NFT_META_IIFNAME`.
    const IIFNAME: u32 = 6;

    let words = |field: Field| u32::try_from(field.padded() / 4).unwrap_or(0);
    let mac = FIRST_REGISTER + words(Field::IfName);
    let target = mac + words(Field::Mac);
    meta(attrs, FIRST_REGISTER, IIFNAME);
    payload(attrs, mac, LINK, (6, 6));
    payload(attrs, target, TRANSPORT, (8, 16));
    lookup(attrs, FIRST_REGISTER, ALLOWED6.name);
    verdict(attrs, ACCEPT);
}

/// Drops a datagram to the port of an encrypted network that is in clear. Where the kernel cannot tell, each is.
fn clear(attrs: &mut Attrs<'_>, secpath: Secpath, load: fn(&mut Attrs<'_>)) {
    /// `NFT_META_L4PROTO`.
    const L4PROTO: u32 = 16;
    const UDP: u8 = 17;

    meta(attrs, REGISTER, L4PROTO);
    equals(attrs, UDP);
    payload(attrs, REGISTER, TRANSPORT, (2, 2));
    lookup(attrs, REGISTER, ENCRYPTED_PORTS.name);
    if secpath == Secpath::Matched {
        load(attrs);
        equals(attrs, 0);
    }
    expression(attrs, "counter", |_| ());
    verdict(attrs, DROP);
}

/// Whether the packet came in by a state.
fn decrypted(attrs: &mut Attrs<'_>) {
    /// `NFT_META_SECPATH`.
    const SECPATH: u32 = 25;
    meta(attrs, REGISTER, SECPATH);
}

/// Whether the packet's way leads through a state.
fn encrypted(attrs: &mut Attrs<'_>) {
    /// `NFT_RT_XFRM`.
    const XFRM: u32 = 4;
    expression(attrs, "rt", |attrs| {
        attrs.u32(nfta::RT_DREG, REGISTER);
        attrs.u32(nfta::RT_KEY, XFRM);
    });
}

fn meta(attrs: &mut Attrs<'_>, register: u32, key: u32) {
    expression(attrs, "meta", |attrs| {
        attrs.u32(nfta::META_DREG, register);
        attrs.u32(nfta::META_KEY, key);
    });
}

fn payload(attrs: &mut Attrs<'_>, register: u32, base: u32, (offset, length): (u32, u32)) {
    expression(attrs, "payload", |attrs| {
        attrs.u32(nfta::PAYLOAD_DREG, register);
        attrs.u32(nfta::PAYLOAD_BASE, base);
        attrs.u32(nfta::PAYLOAD_OFFSET, offset);
        attrs.u32(nfta::PAYLOAD_LEN, length);
    });
}

fn lookup(attrs: &mut Attrs<'_>, register: u32, set: &str) {
    expression(attrs, "lookup", |attrs| {
        attrs.text(nfta::LOOKUP_SET, set);
        attrs.u32(nfta::LOOKUP_SREG, register);
    });
}

/// Goes on only where the register's first byte is this.
fn equals(attrs: &mut Attrs<'_>, byte: u8) {
    /// `NFT_CMP_EQ`.
    const EQ: u32 = 0;
    expression(attrs, "cmp", |attrs| {
        attrs.u32(nfta::CMP_SREG, REGISTER);
        attrs.u32(nfta::CMP_OP, EQ);
        value(attrs, nfta::CMP_DATA, &[byte]);
    });
}

fn verdict(attrs: &mut Attrs<'_>, code: u32) {
    expression(attrs, "immediate", |attrs| {
        attrs.u32(nfta::IMMEDIATE_DREG, 0);
        attrs.nest(nfta::IMMEDIATE_DATA, |attrs| {
            attrs.nest(nfta::DATA_VERDICT, |attrs| attrs.u32(nfta::VERDICT_CODE, code));
        });
    });
}

fn expression(attrs: &mut Attrs<'_>, name: &str, fill: impl FnOnce(&mut Attrs<'_>)) {
    attrs.nest(nfta::LIST_ELEM, |attrs| {
        attrs.text(nfta::EXPR_NAME, name);
        attrs.nest(nfta::EXPR_DATA, fill);
    });
}
