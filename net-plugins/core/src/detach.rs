//! Detach: takes an attachment back, from whatever state it is in. Never fails because something is gone already;
//! gathers errors, goes on, and reports all.
//!
//! Two things wait for the kernel's RCU: deleting the veth pair, and closing an nf_tables socket while something that
//! was deleted is not yet destroyed. The second also holds a lock of the kernel while it waits, and deleting a link
//! takes that lock. So the socket is closed only when the link is gone, for by then there is nothing left to wait for;
//! and concurrent detaches share transactions: whoever holds the rules lock removes the elements of everybody who
//! waits for it (see `docs/adr/0002-group-commit-of-rule-deletions.md`).
//!
//! A process that goes on may do that waiting when its caller has its answer ([`Berth::detach_begin`]).

use std::collections::BTreeSet;

use berth_netlink::{Link, LinkKind, Netlink};
use berth_nft::{Batch, CommitError, Element, NftSocket};
use berth_store::lock::{AttachmentLock, RulesLock};
use berth_store::{AttachmentRow, BootTime};
use berth_types::{AttachmentKey, IfName, host_ifname};

use crate::attachment::attachment_alias;
use crate::berth::{Berth, parsed};
use crate::elements;
use crate::error::{Chain, CoreError};
use crate::flows::flush_removed;
use crate::names::{Changed, tell_if_there};
use crate::plan::ifb_name;
use crate::published::Held;

impl Berth {
    /// Detaches. Succeeds when there is nothing to detach.
    pub fn detach(&mut self, key: &AttachmentKey) -> Result<(), CoreError> {
        let attachment = self.attachment_lock(key)?;
        let published = self.detach_locked(key)?;
        drop(attachment);
        if published { self.promote_standbys(&key.container) } else { Ok(()) }
    }

    /// Detaches as far as anybody can tell by names, ports and rules, and leaves to [`Self::detach_end`] what waits for the
    /// kernel. Until then nobody else has the attachment's lock, and its record says that it is being deleted, so that after a
    /// crash it is taken back as any other half-removed attachment is.
    ///
    /// # Errors
    ///
    /// The record stays, as with [`Self::detach`].
    pub fn detach_begin(&mut self, key: &AttachmentKey) -> Result<Parting, CoreError> {
        let lock = self.attachment_lock(key)?;
        let Leaving { links, ruled, named } = self.leaving(key)?;
        let spent = if ruled { self.remove_rules(key)? } else { None };
        if named {
            tell_if_there(self.dirs(), &Changed::attachment(key));
        }
        Ok(Parting { key: key.clone(), links, spent, lock })
    }

    /// Ends what [`Self::detach_begin`] began: the links go, then the record with its leases and ports.
    ///
    /// # Errors
    ///
    /// The record stays, as with [`Self::detach`].
    pub fn detach_end(&mut self, parting: Parting) -> Result<(), CoreError> {
        let Parting { key, links, spent, lock } = parting;
        let deleted = links.delete();
        self.close(spent);
        deleted?;
        let published = self.forget(&key)?;
        drop(lock);
        if published { self.promote_standbys(&key.container) } else { Ok(()) }
    }

    /// Notes that an attachment is being deleted, and what there is to delete.
    fn leaving(&mut self, key: &AttachmentKey) -> Result<Leaving, CoreError> {
        let row = self.store_mut().write(|tx| {
            tx.attachment_deleting(key)?;
            Ok::<_, CoreError>(tx.attachment(key)?)
        })?;
        let held = row.as_ref().and_then(|row| parsed::<Held>(&row.key, &row.payload).ok());
        let named = held.as_ref().is_some_and(|held| held.names().is_some());
        Ok(Leaving { links: HostLinks::of(key, row.as_ref(), held), ruled: row.is_some(), named })
    }

    /// Whether something was published for it.
    pub(crate) fn detach_locked(&mut self, key: &AttachmentKey) -> Result<bool, CoreError> {
        let Leaving { links, ruled, named } = self.leaving(key)?;
        let mut errors = Vec::new();
        let mut spent = None;
        std::thread::scope(|scope| {
            let deleting = std::thread::Builder::new().spawn_scoped(scope, || links.delete());
            if ruled {
                match self.remove_rules(key) {
                    Ok(socket) => spent = socket,
                    Err(err) => errors.push(Chain(&err).to_string()),
                }
            }
            // While the kernel takes its time with the link.
            if named {
                tell_if_there(self.dirs(), &Changed::attachment(key));
            }
            let deleted = match deleting {
                Ok(thread) => thread.join(),
                // No room for a thread: one after the other, then.
                Err(_) => Ok(links.delete()),
            };
            match deleted {
                Ok(Ok(())) => (),
                Ok(Err(err)) => errors.push(Chain(&err).to_string()),
                Err(_) => errors.push("the thread that deletes links panicked".to_owned()),
            }
        });
        self.close(spent);
        if !errors.is_empty() {
            // The record stays, in state deleting: the next DEL or `gc` finds it and goes on.
            return Err(CoreError::Several(errors));
        }
        self.forget(key)
    }

    /// Removes the record, the leases and the ports of `key`: last, so that nobody is given them too early.
    /// Whether it had published any.
    pub(crate) fn forget(&mut self, key: &AttachmentKey) -> Result<bool, CoreError> {
        self.store_mut().write(|tx| {
            berth_ipam::release(tx, key, BootTime::now())?;
            let ports = tx.ports_release(key)?;
            tx.attachment_remove(key)?;
            Ok(!ports.is_empty())
        })
    }

    /// Closes a socket that deleted something. Under the rules lock: of those who close and commit at once, one waits for
    /// the kernel and the others find that done.
    fn close(&self, spent: Option<NftSocket>) {
        if let Some(socket) = spent {
            let lock = RulesLock::exclusive(self.dirs());
            drop(socket);
            drop(lock);
        }
    }

    /// Removes what the ruleset holds of `key`, together with whoever else waits. The socket it was done by, for
    /// [`Self::close`]; none where another detach did it.
    fn remove_rules(&mut self, key: &AttachmentKey) -> Result<Option<NftSocket>, CoreError> {
        let _lock = RulesLock::exclusive(self.dirs())?;
        let waiting = self.store_mut().read(|tx| tx.attachments_to_unrule().map_err(CoreError::from))?;
        if !waiting.iter().any(|row| row.key == *key) {
            return Ok(None);
        }
        let mut ports = Vec::new();
        let mut gone = BTreeSet::new();
        let mut done = Vec::new();
        for row in waiting {
            match parsed::<Held>(&row.key, &row.payload) {
                Ok(held) => {
                    gone.extend(elements::of_held(&held));
                    ports.extend(held.published().ports.iter().copied());
                    done.push(row.key);
                }
                // Its elements cannot be told; as strays they are `gc`'s.
                Err(err) => {
                    tracing::error!(attachment = %row.key, error = %Chain(&err), "record cannot be read");
                    done.push(row.key);
                }
            }
        }
        let mut socket = NftSocket::open()?;
        let laid = remove_elements_by(&mut socket, gone)?;
        flush_removed(&mut socket, &ports)?;
        self.store_mut().write(|tx| tx.attachments_unruled(&done).map_err(CoreError::from))?;
        if !laid && !self.networks()?.is_empty() {
            // Somebody flushed it, and the others are without.
            self.lay_and_fill_locked(&mut socket)?;
        }
        Ok(Some(socket))
    }
}

/// A detach that has only the kernel to wait for.
#[derive(Debug)]
#[must_use = "the links and the record are still there"]
pub struct Parting {
    key: AttachmentKey,
    links: HostLinks,
    spent: Option<NftSocket>,
    lock: AttachmentLock,
}

/// What there is to delete of an attachment.
struct Leaving {
    links: HostLinks,
    /// Whether it is recorded, and so may have rules.
    ruled: bool,
    named: bool,
}

/// The host links an attachment may have.
#[derive(Debug)]
struct HostLinks {
    /// The recorded one, or those its key gives.
    names: Vec<IfName>,
    /// What its links say.
    alias: String,
    /// The bridge of an attachment that may have been killed before its link could say so.
    unfinished_on: Option<IfName>,
}

impl HostLinks {
    fn of(key: &AttachmentKey, row: Option<&AttachmentRow>, held: Option<Held>) -> Self {
        let names = match row.and_then(|row| row.host_ifname.clone()) {
            Some(name) => vec![name],
            None => (0..2).map(|attempt| host_ifname(key, attempt)).collect(),
        };
        let unfinished_on = match held {
            Some(Held::Bridge(record)) => Some(record.bridge),
            _ => None,
        };
        Self { names, alias: attachment_alias(key), unfinished_on }
    }

    /// Deletes them; a link of the same name that is somebody else's stays.
    fn delete(&self) -> Result<(), CoreError> {
        let netlink = Netlink::open()?;
        for name in &self.names {
            let Some(link) = netlink.link_by_name(name)? else { continue };
            if !self.is_ours(&netlink, &link)? {
                continue;
            }
            netlink.link_del(link.index)?;
            let ifb = netlink.link_by_name(&ifb_name(name))?;
            if let Some(ifb) = ifb.filter(|ifb| ifb.alias.as_ref() == Some(&self.alias)) {
                netlink.link_del(ifb.index)?;
            }
        }
        Ok(())
    }

    fn is_ours(&self, netlink: &Netlink, link: &Link) -> Result<bool, CoreError> {
        match (&link.alias, link.master, &self.unfinished_on) {
            (Some(alias), _, _) => Ok(*alias == self.alias),
            // A veth of the recorded name on the recorded bridge.
            (None, Some(master), Some(bridge)) if link.kind == LinkKind::Veth => {
                Ok(netlink.link_by_name(bridge)?.is_some_and(|bridge| bridge.index == master))
            }
            _ => Ok(false),
        }
    }
}

/// As [`remove_elements_by`], with a socket of its own.
pub(crate) fn remove_elements(elements: BTreeSet<Element>) -> Result<bool, CoreError> {
    if elements.is_empty() { Ok(true) } else { remove_elements_by(&mut NftSocket::open()?, elements) }
}

/// Removes elements, absent ones included. An element that somebody else owns by now stays theirs. Whether there is a
/// ruleset at all, as far as there was something to remove.
pub(crate) fn remove_elements_by(
    socket: &mut NftSocket,
    mut elements: BTreeSet<Element>,
) -> Result<bool, CoreError> {
    while !elements.is_empty() {
        let mut batch = Batch::default();
        elements.iter().cloned().for_each(|element| batch.remove(element));
        match socket.commit(&batch) {
            Ok(()) => return Ok(true),
            Err(CommitError::NoRuleset) => return Ok(false),
            Err(CommitError::OtherOwner { element } | CommitError::Exists { element }) => {
                tracing::warn!(%element, "belongs to somebody else by now and stays");
                elements.remove(&*element);
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok(true)
}
