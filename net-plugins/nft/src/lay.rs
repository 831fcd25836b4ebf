//! Laying the ruleset, and taking it away.
//!
//! Laying is four transactions, each complete in itself: the ruleset by `nft`; the rule that it has no words for; those of
//! packets in clear, because not every kernel takes them ([`OwnRule`]); and the marker. Only the marker makes batches succeed,
//! so whoever is interrupted begins again.

use std::io;

use crate::batch::LAID;
use crate::fingerprint::{Laid, observe};
use crate::kernel::{Ack, Script, elements, mark_entry, msg, nfta};
use crate::nft::{self, NftError};
use crate::own_rules::{OwnRule, Secpath};
use crate::ruleset::{marker_set, script};
use crate::schema::{TABLE, Table};
use crate::socket::{NftSocket, SocketError};
use crate::wire::{NLM_F_APPEND, NLM_F_CREATE};
/// Others that lay at the same moment may delete an old marker first.
const TRIES: u32 = 8;

/// Why the ruleset could not be laid or removed.
#[derive(Debug, thiserror::Error)]
pub enum LayError {
    /// `nft` failed.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The ruleset could not be written as JSON.
    #[error("cannot write the ruleset as JSON")]
    Render {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The kernel refused a transaction.
    #[error("the kernel refused to {doing}")]
    Refused {
        /// What was to be done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel could not be talked to.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// Lays the ruleset, or lays it again: tables and sets are added and keep their elements, chains are refilled.
///
/// It may be called at any time, by several at once. Isolation is never weaker meanwhile.
/// The calling thread must be in the socket's network namespace, because `nft` inherits it from there.
pub fn lay(socket: &mut NftSocket) -> Result<(), LayError> {
    let script = script().map_err(|source| LayError::Render { source })?;
    nft::run(&["-j", "-f", "-"], &script)?;
    fill(socket, "lay the rule for neighbour advertisements", &[OwnRule::Advertised])?;
    let clear = |secpath| [OwnRule::ClearIn(secpath), OwnRule::ClearOut(secpath)];
    let doing = "lay the rules for packets in clear";
    match fill(socket, doing, &clear(Secpath::Matched)) {
        // A kernel without CONFIG_XFRM decrypts nothing: whatever comes to such a port is in clear.
        Err(LayError::Refused { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            fill(socket, doing, &clear(Secpath::Unknown))?;
        }
        outcome => outcome?,
    }
    let mut tries = 0;
    loop {
        match mark_laid(socket) {
            Err(LayError::Refused { source, .. })
                if source.raw_os_error() == Some(libc::ENOENT) && tries < TRIES =>
            {
                tries += 1;
            }
            result => return result,
        }
    }
}

/// Deletes both tables, with everything in them, in one transaction. It is no error when they are not there.
pub fn remove_tables(socket: &mut NftSocket) -> Result<(), LayError> {
    socket.transaction("remove the tables", 6, |script| {
        for table in Table::ALL {
            for (kind, flags) in [(msg::NEWTABLE, NLM_F_CREATE), (msg::DELTABLE, 0)] {
                script.push(table, kind, flags, Ack::Success, |attrs| attrs.text(nfta::TABLE_NAME, TABLE));
            }
        }
    })
}

/// Fills the chains of `rules` with them, and with nothing else.
fn fill(socket: &mut NftSocket, doing: &'static str, rules: &[OwnRule]) -> Result<(), LayError> {
    let count = u32::try_from(2 * rules.len() + 2).unwrap_or(u32::MAX);
    socket.transaction(doing, count, |script| {
        for rule in rules {
            script.push(rule.table(), msg::DELRULE, 0, Ack::Errors, |attrs| rule.place(attrs));
        }
        for rule in rules {
            let flags = NLM_F_CREATE | NLM_F_APPEND;
            script.push(rule.table(), msg::NEWRULE, flags, Ack::Success, |attrs| rule.write(attrs));
        }
    })
}

/// Writes the marker and what was laid by it, and deletes the markers of other versions: their ruleset is gone.
fn mark_laid(socket: &mut NftSocket) -> Result<(), LayError> {
    let Laid { fingerprint, markers, .. } = observe(socket)?;
    let marker = marker_set();
    let others: Vec<_> = markers.iter().filter(|name| *name != marker.name).collect();
    let count = u32::try_from(others.len()).unwrap_or(u32::MAX).saturating_add(6);
    socket.transaction("mark the ruleset as laid", count, |script| {
        for name in &others {
            script.push(Table::Inet, msg::DELSET, 0, Ack::Errors, |attrs| {
                attrs.text(nfta::SET_TABLE, TABLE);
                attrs.text(nfta::SET_NAME, name);
            });
        }
        script.push(Table::Inet, msg::NEWSET, NLM_F_CREATE, Ack::Errors, |attrs| {
            attrs.text(nfta::SET_TABLE, TABLE);
            attrs.text(nfta::SET_NAME, marker.name);
            attrs.u32(nfta::SET_KEY_TYPE, MARK_TYPE);
            attrs.u32(nfta::SET_KEY_LEN, 4);
            attrs.u32(nfta::SET_ID, 1);
        });
        script.push(Table::Inet, msg::DELSETELEM, 0, Ack::Errors, |attrs| elements(attrs, marker.name, []));
        script.entries(msg::NEWSETELEM, NLM_F_CREATE, marker, [&mark_entry(marker, LAID)]);
        script.push(Table::Inet, msg::NEWSETELEM, NLM_F_CREATE, Ack::Success, |attrs| {
            elements(attrs, marker.name, [&mark_entry(marker, fingerprint)]);
        });
    })
}

/// nft's number of the type `mark`: what it prints the marker's elements as.
const MARK_TYPE: u32 = 19;

impl NftSocket {
    /// Runs a transaction of at most `count` messages, the frame included; again when the kernel asks for it.
    fn transaction(
        &mut self,
        doing: &'static str,
        count: u32,
        write: impl Fn(&mut Script),
    ) -> Result<(), LayError> {
        let mut last = libc::EBUSY;
        for _ in 0..TRIES {
            let mut script = Script::begin(self.sequence(count), None);
            write(&mut script);
            let script = script.end();
            let answers = self.exchange(&script.writer, script.message_count())?;
            match answers.by_seq.values().copied().find(|errno| *errno != 0) {
                None if answers.by_seq.is_empty() => last = libc::ENOBUFS,
                None => return Ok(()),
                Some(errno) if crate::batch::is_temporary(errno) => last = errno,
                Some(errno) => {
                    return Err(LayError::Refused { doing, source: io::Error::from_raw_os_error(errno) });
                }
            }
        }
        Err(LayError::Refused { doing, source: io::Error::from_raw_os_error(last) })
    }
}
