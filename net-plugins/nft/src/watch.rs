//! News of changes to berth's tables, and who made them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

use crate::kernel::{msg, nfta};
use crate::schema::TABLE;
use crate::socket::SocketError;
use crate::wire::Message;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const GROUP: u32 = 7;

/// Larger than any notification.
const DATAGRAM: usize = 64 * 1024;

/// Chains of other programs that decide over what berth forwards; each program that uses iptables has these names.
const FOREIGN_CHAINS: [&str; 2] = ["FORWARD", "DOCKER-USER"];

/// A subscription to changes of nf_tables in the network namespace of the thread that opened it.
///
/// The kernel tells of a transaction's changes one by one and of its author last (`NFT_MSG_NEWGEN`), so changes are kept
/// until then.
#[derive(Debug)]
pub struct RulesetEvents {
    socket: Socket,
    buffer: Vec<u8>,
    begun: Touched,
}

/// Who made a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The process's number.
    pub pid: u32,
    /// Its name, as the kernel cuts it: 15 bytes.
    pub name: String,
}

/// What a transaction was about, as far as it matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Touched {
    ours: bool,
    foreign: bool,
}

/// What happened since the last look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulesetNews {
    /// The queue was full, so anything may have happened.
    pub lost: bool,
    /// Who changed berth's tables, in order.
    pub ours: Vec<Author>,
    /// Whether another program's chains about forwarded packets were changed.
    pub foreign: bool,
}

impl RulesetEvents {
    /// Subscribes.
    pub fn open() -> Result<Self, SocketError> {
        let opened = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            socket.add_membership(GROUP)?;
            Ok(socket)
        };
        let socket = opened().map_err(|source| SocketError::Io { doing: "watch", source })?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM), begun: Touched::default() })
    }

    /// Reads what has come, without waiting.
    pub fn read(&mut self) -> Result<RulesetNews, SocketError> {
        let mut news = RulesetNews::default();
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {
                    for message in Message::each(&self.buffer) {
                        take(message, &mut self.begun, &mut news);
                    }
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(news),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => (),
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => news.lost = true,
                Err(source) => return Err(SocketError::Io { doing: "read from", source }),
            }
        }
    }
}

impl AsFd for RulesetEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn take(message: Message<'_>, begun: &mut Touched, news: &mut RulesetNews) {
    let attrs = message.attrs();
    if message.kind == msg::NEWGEN {
        let touched = std::mem::take(begun);
        news.foreign |= touched.foreign;
        if touched.ours {
            let name = attrs.text(nfta::GEN_PROC_NAME).unwrap_or_default().to_owned();
            news.ours.push(Author { pid: attrs.u32(nfta::GEN_PROC_PID).unwrap_or_default(), name });
        }
        return;
    }
    // The table's name is the first attribute of every kind of object.
    begun.ours |= attrs.text(nfta::TABLE_NAME) == Some(TABLE);
    let chain = match message.kind {
        msg::NEWRULE | msg::DELRULE => attrs.text(nfta::RULE_CHAIN),
        msg::NEWCHAIN | msg::DELCHAIN => attrs.text(nfta::CHAIN_NAME),
        _ => None,
    };
    begun.foreign |= chain.is_some_and(|chain| FOREIGN_CHAINS.contains(&chain));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Head, Writer};

    fn notification(kind: u16, fill: impl FnOnce(&mut crate::wire::Attrs<'_>)) -> Writer {
        let mut writer = Writer::default();
        writer.message(Head { kind, flags: 0, seq: 0, family: 1, res_id: 0 }, fill);
        writer
    }

    #[test]
    fn a_change_is_told_with_its_author_and_others_tables_are_not() {
        let mut news = RulesetNews::default();
        let mut begun = Touched::default();
        let generation = |pid: u32, name: &str| {
            notification(msg::NEWGEN, |attrs| {
                attrs.u32(nfta::GEN_ID, 7);
                attrs.u32(nfta::GEN_PROC_PID, pid);
                attrs.text(nfta::GEN_PROC_NAME, name);
            })
        };
        let of_table = |kind, name: &str| notification(kind, |attrs| attrs.text(nfta::TABLE_NAME, name));
        let rule = notification(msg::NEWRULE, |attrs| {
            attrs.text(nfta::RULE_TABLE, "filter");
            attrs.text(nfta::RULE_CHAIN, "DOCKER-USER");
        });
        let all = [
            of_table(msg::DELTABLE, "filter"),
            generation(1, "iptables"),
            of_table(msg::DELTABLE, TABLE),
            of_table(msg::DELSETELEM, "nat"),
            generation(2, "nft"),
            rule,
            generation(3, "dockerd"),
        ];
        for message in all.iter().flat_map(|writer| Message::each(writer.as_bytes())) {
            take(message, &mut begun, &mut news);
        }
        assert_eq!(news.ours, [Author { pid: 2, name: "nft".to_owned() }]);
        assert!(news.foreign);
    }
}
