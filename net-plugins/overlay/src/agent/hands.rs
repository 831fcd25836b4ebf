//! What blocks: the records and the kernel. One at a time, on a thread of the runtime's blocking pool.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use berth_core::names::Elsewhere;
use berth_core::overlay::key_of_host;
use berth_core::{Berth, Chain, CoreError};
use berth_netlink::{Netlink, NetlinkError};
use berth_store::{BlockRow, BlockStage, BootTime, Dirs, LeaseScope};
use berth_types::{AttachmentKey, NetworkName, NodeName};

use super::elsewhere::Recorded;
use super::local::{self, Me};
use crate::cluster::{EntryKey, Revision};
use crate::encryption::Esp;
use crate::entries::{Entries, Holder, Touched};
use crate::joined::Joined;
use crate::membership::Membership;
use crate::memory;
use crate::model::OverlayAttachment;
use crate::mtu::{self, Way};
use crate::reconcile::{ReconcileError, Report, change, reconcile};
use crate::view::{Deltas, View};

/// The records, the kernel, and what the kernel is to hold.
pub(super) struct Hands {
    berth: Berth,
    netlink: Netlink,
    networks: BTreeMap<NetworkName, Entries>,
    esp: Esp,
}

/// What the records say at the start.
pub(super) struct Loaded {
    pub(super) membership: Option<Membership>,
    pub(super) seen: View,
    pub(super) joined: BTreeMap<NetworkName, Joined>,
    pub(super) elsewhere: Recorded,
}

/// What has changed of a network, for the kernel.
#[derive(Debug, Default)]
pub(super) struct KernelChange {
    /// Where frames for them go, of this network.
    pub(super) nodes: Vec<(NodeName, Option<IpAddr>)>,
    pub(super) addresses: Vec<(IpAddr, Option<Holder>)>,
    pub(super) floods: Option<bool>,
}

/// What has changed of the cluster, for the kernel, the names and the records, in this order: a name leads to what can be
/// reached, and what is on record was done.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) kernel: BTreeMap<NetworkName, KernelChange>,
    pub(super) known: Vec<(AttachmentKey, Elsewhere)>,
    pub(super) gone: Vec<AttachmentKey>,
    /// What is other than it is on record, at the revision.
    pub(super) note: Option<(Revision, Arc<Deltas>)>,
}

impl Hands {
    pub(super) fn open(dirs: &Dirs) -> Result<Self, CoreError> {
        let berth = Berth::open(dirs)?;
        let esp = Esp::new(dirs.run.clone(), berth.boot().clone());
        Ok(Self { berth, netlink: Netlink::open()?, networks: BTreeMap::new(), esp })
    }

    pub(super) fn berth(&mut self) -> &mut Berth {
        &mut self.berth
    }

    pub(super) fn esp(&mut self) -> &mut Esp {
        &mut self.esp
    }

    /// Reads what was written by an earlier agent, or by whoever joined the cluster.
    pub(super) fn load(&mut self) -> Result<Loaded, CoreError> {
        self.berth.renew()?;
        let seen = self.berth.store_mut().read(|tx| memory::load(tx).map_err(CoreError::from))?;
        let joined = Joined::all(&mut self.berth)?;
        self.networks.retain(|name, _| joined.contains_key(name));
        let mut elsewhere = Recorded::default();
        self.berth.elsewhere_each(|key, one| elsewhere.note(&key, &one))?;
        Ok(Loaded { membership: Membership::read(&mut self.berth)?, seen, joined, elsewhere })
    }

    /// What this node is to publish, by the records as they are now.
    pub(super) fn wanted(
        &mut self,
        me: &Me,
        joined: &BTreeMap<NetworkName, Joined>,
    ) -> Result<BTreeMap<EntryKey, OverlayAttachment>, CoreError> {
        self.berth.renew()?;
        local::wanted(&mut self.berth, me, joined)
    }

    /// The same of some attachments.
    pub(super) fn wanted_of(
        &mut self,
        me: &Me,
        joined: &BTreeMap<NetworkName, Joined>,
        keys: &[AttachmentKey],
    ) -> Result<Vec<(EntryKey, Option<OverlayAttachment>)>, CoreError> {
        self.berth.renew()?;
        let one = |key: &AttachmentKey| {
            let wanted = local::wanted_of(&mut self.berth, me, joined, key)?;
            Ok((me.entry_key(key), wanted))
        };
        keys.iter().map(one).collect()
    }

    /// Makes or changes a network of this node and what the kernel holds for it.
    pub(super) fn lay(&mut self, joined: &Joined, entries: Entries) -> Result<Report, ReconcileError> {
        let name = joined.declaration.name.clone();
        self.keep_own(joined)?;
        self.berth.create_overlay(&joined.declaration, Some(&entries.desired().peers()))?;
        self.networks.insert(name.clone(), entries);
        self.full(&name)
    }

    /// This host's own addresses are given to no container, and the block that they are in is not empty.
    fn keep_own(&mut self, joined: &Joined) -> Result<(), CoreError> {
        let name = &joined.declaration.name;
        let (scope, owner) = (LeaseScope::new(name, None), key_of_host(name));
        self.berth.store_mut().write(|tx| {
            for own in &joined.overlay.addresses {
                tx.lease_add(&scope, own.ip(), (&owner, None), 0)?;
            }
            Ok(())
        })
    }

    /// Takes a network off this node. `false` if somebody is attached to it here.
    pub(super) fn leave(&mut self, name: &NetworkName) -> Result<bool, CoreError> {
        let attached = self.berth.store_mut().read(|tx| tx.attachments_of(name).map_err(CoreError::from))?;
        if !attached.is_empty() {
            return Ok(false);
        }
        self.take_off(name)?;
        Ok(true)
    }

    /// The same of a network that goes on elsewhere: from the moment at which nobody has an address of it here, nobody is given
    /// one, so that its blocks can be others'.
    pub(super) fn let_go(&mut self, name: &NetworkName) -> Result<bool, CoreError> {
        let closed = self.berth.store_mut().write(|tx| {
            let host = key_of_host(name);
            let is_used = berth_ipam::leases(tx, name)?.iter().any(|lease| lease.owner != host);
            if is_used || !tx.attachments_of(name)?.is_empty() {
                return Ok::<_, CoreError>(false);
            }
            for row in tx.cluster_blocks(name)? {
                tx.cluster_block_put(&BlockRow { stage: BlockStage::Draining, ..row })?;
            }
            for row in tx.cluster_lends(name)? {
                tx.cluster_lend_remove(name, row.address)?;
            }
            Ok(true)
        })?;
        if closed {
            self.take_off(name)?;
        }
        Ok(closed)
    }

    fn take_off(&mut self, name: &NetworkName) -> Result<(), CoreError> {
        self.berth.delete_network(name)?;
        self.networks.remove(name);
        self.berth.store_mut().write(|tx| {
            berth_ipam::release(tx, &key_of_host(name), BootTime::now())?;
            for row in tx.cluster_blocks(name)? {
                tx.cluster_block_remove(name, row.cidr)?;
            }
            for row in tx.cluster_lends(name)? {
                tx.cluster_lend_remove(name, row.address)?;
            }
            Ok::<_, CoreError>(())
        })?;
        let gone: Vec<AttachmentKey> =
            self.berth.elsewhere_on(name)?.into_iter().map(|(key, _)| key).collect();
        self.berth.elsewhere_write(&[], &gone)
    }

    /// Does what follows from a change of the cluster. What fails is said, and put right by the next round.
    pub(super) fn work(&mut self, work: Work) -> Vec<(NetworkName, Result<Report, ReconcileError>)> {
        let Work { kernel, known, gone, note } = work;
        let mut reports = Vec::new();
        for (name, change) in kernel {
            if let Some(report) = self.follow(&name, change) {
                reports.push((name, report));
            }
        }
        if let Err(err) = self.berth.elsewhere_write(&known, &gone) {
            tracing::error!(error = %Chain(&err), "names of other nodes were not written down");
        }
        if let Some((revision, deltas)) = note {
            let noted = self.berth.store_mut().write(|tx| memory::note(tx, revision, &deltas));
            if let Err(err) = noted {
                tracing::error!(error = %Chain(&err), "the cluster's records were not written down");
            }
        }
        reports
    }

    fn follow(&mut self, name: &NetworkName, what: KernelChange) -> Option<Result<Report, ReconcileError>> {
        let entries = self.networks.get_mut(name)?;
        let KernelChange { nodes, addresses, floods } = what;
        let mut touched = Touched::default();
        for (node, vtep) in nodes {
            touched.extend(entries.node(&node, vtep));
        }
        for (address, holder) in addresses {
            touched.extend(entries.address(address, holder));
        }
        if let Some(floods) = floods {
            touched.extend(entries.flood(floods));
        }
        if touched.is_empty() {
            return None;
        }
        let desired = entries.desired();
        let changed = change(&mut self.berth, &self.netlink, name, desired, &touched);
        let refused = changed.as_ref().is_ok_and(|report| !report.faults.is_empty());
        Some(match changed {
            Err(ReconcileError::LinkGone { .. }) => self.full(name),
            // Something else changes the device too: look at what is there.
            Ok(_) if refused => self.full(name),
            other => other,
        })
    }

    /// Compares everything of all networks.
    pub(super) fn round(&mut self) -> Vec<(NetworkName, Result<Report, ReconcileError>)> {
        let names: Vec<NetworkName> = self.networks.keys().cloned().collect();
        names.into_iter().map(|name| (name.clone(), self.full(&name))).collect()
    }

    /// Who is on record as being elsewhere and is not among `here`.
    pub(super) fn elsewhere_but(&mut self, here: &Recorded) -> Result<Vec<AttachmentKey>, CoreError> {
        let mut gone = Vec::new();
        self.berth.elsewhere_each(|key, _| gone.extend((!here.contains(&key)).then_some(key)))?;
        Ok(gone)
    }

    /// Gives back the memory that much work left behind.
    pub(super) fn shrink(&mut self) {
        if let Err(err) = self.berth.store_mut().shrink() {
            tracing::debug!(error = %Chain(&err), "the records keep their memory");
        }
        berth_netlink::give_memory_back();
    }

    /// The ways to other nodes' tunnel ends.
    pub(super) fn ways(&self, ends: &BTreeMap<NodeName, IpAddr>) -> Result<Vec<Way>, NetlinkError> {
        mtu::ways(&self.netlink, ends.iter().map(|(node, end)| (node, *end)))
    }

    fn full(&mut self, name: &NetworkName) -> Result<Report, ReconcileError> {
        let entries = self.networks.get(name).ok_or_else(|| ReconcileError::NotHere(name.clone()))?;
        reconcile(&mut self.berth, &self.netlink, name, entries.desired())
    }
}
