//! What follows from what is heard: of the cluster, of the records at the start, and of the kernel in each round.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use berth_core::Chain;
use berth_store::unix_ms;
use berth_types::{NetworkName, fnv64};
use tokio::sync::watch;

use super::elsewhere::Recorded;
use super::encrypt::reach;
use super::hands::{Hands, KernelChange, Work};
use super::session::{FromCluster, Session};
use super::state::{Agent, Link};
use super::{AgentError, elsewhere};
use crate::cluster::{ClusterError, EntryKey};
use crate::entries::{Entries, Holder};
use crate::joined::Joined;
use crate::membership::Membership;
use crate::model::{Occupant, OverlayAttachment};
use crate::reconcile::{ReconcileError, Report};
use crate::view::{Deltas, NodeView, Turn, View};

/// So many records that change are worth it to give memory back.
const MUCH: usize = 500;

type Reports = Vec<(NetworkName, Result<Report, ReconcileError>)>;

impl Agent {
    /// Reads the records: at the start, and when somebody says that this host has joined a cluster or left it.
    pub(super) async fn load(&mut self) -> Result<(), AgentError> {
        let loaded = self.with(Hands::load).await??;
        self.joined = loaded.joined;
        self.elsewhere = loaded.elsewhere;
        self.unlinked = None;
        let Some(membership) = loaded.membership else {
            self.link = None;
            self.view = View::default();
            return self.retire(None).await;
        };
        if self.link.as_ref().is_some_and(|link| link.membership == membership) {
            return Ok(());
        }
        self.link = None;
        self.view = loaded.seen;
        self.silence.follow(&self.view, Instant::now());
        self.acknowledged.clear();
        let Some(underlay) = self.underlay(&membership).await? else {
            self.unlinked = Some("no address of this host leads to other hosts".to_owned());
            return Ok(());
        };
        // The kernel first, by what was last seen: it does not wait for a cluster that may be away.
        self.encrypt_as(&membership, underlay.vtep(), false).await?;
        let node = self.node_now(&membership, &underlay);
        self.lay_all(&membership, underlay.vtep()).await?;
        match membership.connect(|| self.view.listing()).await {
            Ok(cluster) => {
                let (node, heard) = watch::channel(node);
                let (session, told) = Session::start(&cluster, heard);
                self.link = Some(Link {
                    membership,
                    cluster,
                    node,
                    told,
                    _session: session,
                    connected: false,
                    present: false,
                    listed: false,
                    trouble: None,
                });
                self.read_wanted().await?;
            }
            Err(err) => {
                tracing::error!(error = %Chain(&err), "the cluster cannot be asked");
                self.unlinked = Some(err.to_string());
            }
        }
        self.names_anew(Instant::now()).await?;
        self.turned = MUCH;
        self.slim().await
    }

    /// Makes all networks of this node, and what the kernel is to hold for them.
    async fn lay_all(&mut self, membership: &Membership, local: Option<IpAddr>) -> Result<(), AgentError> {
        let Some(local) = local else { return Ok(()) };
        for joined in self.joined.clone().into_values() {
            let joined = joined.moved(local);
            let entries = self.entries(membership, &joined, local);
            self.lay(joined, entries).await?;
        }
        Ok(())
    }

    /// Makes one network of this node; what goes wrong is its trouble.
    pub(super) async fn lay(&mut self, joined: Joined, entries: Entries) -> Result<bool, AgentError> {
        let name = joined.declaration.name.clone();
        let laid = joined.clone();
        let outcome = self.with(move |hands| hands.lay(&laid, entries)).await?;
        let is_laid = outcome.is_ok();
        if is_laid {
            self.joined.insert(name.clone(), joined);
        }
        self.reported(vec![(name, outcome)], false);
        Ok(is_laid)
    }

    /// What the kernel is to hold of a network, by the view.
    pub(super) fn entries(&self, membership: &Membership, joined: &Joined, local: IpAddr) -> Entries {
        let mut entries = Entries::new(membership.name.clone(), joined.overlay.flood);
        if self.is_cut_off(joined) {
            return entries;
        }
        for (name, node) in self.view.nodes() {
            entries.node(name, node.node().and_then(|node| reach(node, local, joined.overlay.encrypted)));
        }
        let network = self.view.everything_of(&joined.declaration.name);
        for (address, attachment) in network.into_iter().flat_map(crate::view::NetworkView::believed) {
            entries.address(address, Some(holder(attachment)));
        }
        entries
    }

    /// What the cluster says.
    pub(super) async fn heard(&mut self, news: FromCluster) -> Result<(), AgentError> {
        match news {
            FromCluster::Listed(listing) => {
                self.counters.listings += 1;
                self.connected();
                let deltas = self.view.replace(listing);
                // What was listed is gone again, whether it was news or not.
                self.turned = MUCH;
                self.acknowledged.clear();
                if let Some(link) = &mut self.link {
                    link.listed = true;
                }
                self.follow(deltas).await?;
                self.publish(None);
                self.tend();
                self.slim().await
            }
            FromCluster::Changed(revision, changes) => {
                if self.connected() {
                    self.publish(None);
                }
                if changes.is_empty() {
                    return Ok(());
                }
                let deltas = self.view.apply(revision, changes);
                self.follow(deltas).await
            }
            FromCluster::Away(err) => {
                self.away(&err);
                Ok(())
            }
            FromCluster::Present(epoch) => self.present(epoch).await,
            FromCluster::Absent(err) => {
                tracing::warn!(error = %Chain(&err), "this node is not kept present");
                if let Some(link) = &mut self.link {
                    link.present = false;
                    link.trouble = Some(err.to_string());
                }
                Ok(())
            }
        }
    }

    /// The cluster answers. Whether it did not before.
    fn connected(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        let was = std::mem::replace(&mut link.connected, true);
        if !was {
            tracing::info!(cluster = link.cluster.name(), "the cluster is followed");
            if link.present {
                link.trouble = None;
            }
            self.silence.begin_anew(Instant::now());
        }
        !was
    }

    fn away(&mut self, err: &ClusterError) {
        let Some(link) = &mut self.link else { return };
        if link.connected || link.trouble.is_none() {
            tracing::warn!(error = %Chain(err), "the cluster is away");
        }
        link.connected = false;
        link.trouble = Some(err.to_string());
        self.later(&err.to_string());
    }

    /// The node has its place, in this epoch.
    async fn present(&mut self, epoch: u64) -> Result<(), AgentError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.present = true;
        if link.connected {
            link.trouble = None;
        }
        if link.membership.epoch != epoch {
            tracing::warn!(epoch, "this node has joined anew: what it wrote before is written again");
            link.membership.epoch = epoch;
            link.node.send_modify(|node| node.epoch = epoch);
            let membership = link.membership.clone();
            self.with(move |hands| membership.write(hands.berth())).await??;
            self.read_wanted().await?;
            // Its blocks, too, before somebody else finds them free.
            self.tend_soon();
        }
        self.publish(None);
        Ok(())
    }

    /// What follows from a change of the view.
    pub(super) async fn follow(&mut self, deltas: Deltas) -> Result<(), AgentError> {
        let now = Instant::now();
        if deltas.is_empty() {
            return Ok(());
        }
        self.last_change_ms = unix_ms().unsigned_abs();
        self.turned += deltas.len();
        self.silence.follow(&self.view, now);
        self.acknowledged.follow(&deltas);
        let deltas = Arc::new(deltas);
        let note = Some((self.view.revision(), Arc::clone(&deltas)));
        let mut work = Work { note, kernel: self.kernel_changes(&deltas), ..Work::default() };
        self.name_changes(&deltas, now, &mut work);
        self.recorded(&work);
        if !deltas.nodes.is_empty() {
            // Before anything leads to them.
            self.encrypt(false).await?;
        }
        let reports = self.with(move |hands| hands.work(work)).await?;
        self.reported(reports, false);
        if !deltas.nodes.is_empty() {
            self.names_anew(now).await?;
            self.look_at_ways().await?;
        }
        self.records_changed(&deltas).await?;
        self.questions(&deltas);
        if self.is_about_me(&deltas) {
            self.publish(None);
        }
        self.look_for_awaited().await?;
        drop(deltas);
        self.slim().await
    }

    /// Gives memory back once much has changed: the work on it takes more than what is kept.
    async fn slim(&mut self) -> Result<(), AgentError> {
        if self.turned < MUCH {
            return Ok(());
        }
        self.turned = 0;
        self.with(Hands::shrink).await
    }

    fn kernel_changes(&self, deltas: &Deltas) -> BTreeMap<NetworkName, KernelChange> {
        let Some(local) = self.link.as_ref().and_then(Link::local) else { return BTreeMap::new() };
        let vtep = |turn: &Turn<NodeView>, encrypted| reach(turn.after.as_ref()?.node()?, local, encrypted);
        let mut changes = BTreeMap::new();
        for (name, joined) in self.joined.iter().filter(|(_, joined)| !self.is_cut_off(joined)) {
            let nodes = deltas.nodes.iter();
            let nodes: Vec<_> =
                nodes.map(|(name, turn)| (name.clone(), vtep(turn, joined.overlay.encrypted))).collect();
            let delta = deltas.networks.get(name);
            let addresses = delta.into_iter().flat_map(|delta| &delta.addresses);
            let addresses: Vec<_> =
                addresses.map(|(address, turn)| (*address, turn.after.as_deref().map(holder))).collect();
            let record = delta.and_then(|delta| delta.record.as_ref()?.after.as_ref());
            let floods = record.map(|record| record.flood);
            if !nodes.is_empty() || !addresses.is_empty() || floods.is_some() {
                changes.insert(name.clone(), KernelChange { nodes, addresses, floods });
            }
        }
        changes
    }

    /// What of `deltas` concerns names.
    fn name_changes(&self, deltas: &Deltas, now: Instant, work: &mut Work) {
        let Some(me) = self.link.as_ref().map(Link::me) else { return };
        let joined = deltas.networks.iter().filter(|(name, _)| self.joined.contains_key(*name));
        for turn in joined.flat_map(|(_, delta)| delta.attachments.values()) {
            let is_told =
                |one: &&OverlayAttachment| one.node != me.name && !self.silence.is_over(&one.node, now);
            let after = turn.after.as_deref().filter(is_told).and_then(elsewhere::of);
            let before = turn.before.as_deref().and_then(elsewhere::key);
            match (before, after) {
                (_, Some((key, elsewhere))) => {
                    if !self.elsewhere.says(&key, &elsewhere) {
                        work.known.push((key, elsewhere));
                    }
                }
                (Some(key), None) if self.elsewhere.contains(&key) => work.gone.push(key),
                (_, None) => (),
            }
        }
    }

    /// Compares the names of all other nodes' containers with those on record.
    pub(super) async fn names_anew(&mut self, now: Instant) -> Result<(), AgentError> {
        let Some(me) = self.link.as_ref().map(Link::me) else { return Ok(()) };
        let (mut here, mut known) = (Recorded::default(), Vec::new());
        for (key, one) in elsewhere::everybody(&self.view, &self.silence, &me.name, self.joined.keys(), now) {
            here.note(&key, &one);
            if !self.elsewhere.says(&key, &one) {
                known.push((key, one));
            }
        }
        // Of those that are here, the ones on record are not news, or changed.
        let new = known.iter().filter(|(key, _)| !self.elsewhere.contains(key)).count();
        let gone = if self.elsewhere.count() + new > here.count() {
            self.with(move |hands| hands.elsewhere_but(&here)).await??
        } else {
            Vec::new()
        };
        if !gone.is_empty() || !known.is_empty() {
            let work = Work { known, gone, ..Work::default() };
            self.recorded(&work);
            self.with(move |hands| hands.work(work)).await?;
        }
        Ok(())
    }

    /// Notes which names `work` puts on record.
    fn recorded(&mut self, work: &Work) {
        for (key, elsewhere) in &work.known {
            self.elsewhere.note(key, elsewhere);
        }
        for key in &work.gone {
            self.elsewhere.forget(key);
        }
    }

    /// Whether somebody else changed records of this node.
    fn is_about_me(&self, deltas: &Deltas) -> bool {
        let Some(link) = &self.link else { return false };
        let mut keys = deltas.networks.values().flat_map(|delta| delta.attachments.keys());
        keys.any(|key| matches!(key, EntryKey::Attachment(_, node, _) if *node == link.membership.name))
    }

    /// Looks at everything, whatever the news are.
    pub(super) async fn round(&mut self) -> Result<(), AgentError> {
        if self.link.is_none() && self.unlinked.is_some() {
            self.load().await?;
        }
        self.look_at_underlay().await?;
        let encrypts = self.encrypt(true).await?;
        let reports = self.with(Hands::round).await?;
        let failed = reports.iter().any(|(_, report)| report.is_err()) || !encrypts;
        self.reported(reports, true);
        self.look_at_ways().await?;
        self.leave_cut_off().await?;
        self.read_wanted().await?;
        self.refused.clear();
        self.publish(None);
        self.names_anew(Instant::now()).await?;
        // What was compared is gone again.
        self.with(Hands::shrink).await?;
        let now = self.began.elapsed();
        match failed || self.unlinked.is_some() {
            true => self.rounds.failed(now),
            false => self.rounds.done(now, self.spread()),
        }
        Ok(())
    }

    /// This host may have another address by now.
    async fn look_at_underlay(&mut self) -> Result<(), AgentError> {
        let Some(membership) = self.link.as_ref().map(|link| link.membership.clone()) else { return Ok(()) };
        let Some(underlay) = self.underlay(&membership).await? else { return Ok(()) };
        let node = self.node_now(&membership, &underlay);
        let Some(link) = &mut self.link else { return Ok(()) };
        let changed = link.node.send_if_modified(|now| {
            let changed = *now != node;
            *now = node;
            changed
        });
        if changed {
            tracing::warn!(vtep = ?underlay.vtep(), mtu = underlay.mtu, "this node has another address or link");
            self.encrypt(false).await?;
            self.lay_all(&membership, underlay.vtep()).await?;
        }
        Ok(())
    }

    /// Notes what came of work on the kernel. In a round, what differed was damage.
    pub(super) fn reported(&mut self, reports: Reports, is_round: bool) {
        for (name, report) in reports {
            match report {
                Err(err) => {
                    tracing::error!(network = %name, error = %Chain(&err), "the kernel does not hold the network");
                    self.troubles.insert(name, err.to_string());
                }
                Ok(report) => {
                    let repaired = report.differences.count() + usize::from(report.device_mended);
                    if is_round && repaired > 0 {
                        tracing::warn!(network = %name, repaired, "entries were put right");
                        self.counters.repaired += u64::try_from(repaired).unwrap_or(u64::MAX);
                    }
                    match report.faults.first() {
                        None => drop(self.troubles.remove(&name)),
                        Some(fault) => {
                            drop(self.troubles.insert(name, format!("the kernel refused: {fault:?}")))
                        }
                    }
                }
            }
        }
    }

    /// A number below 1 that is another on each node.
    fn spread(&self) -> f64 {
        let name = self.link.as_ref().map(|link| link.membership.identity.clone()).unwrap_or_default();
        let [.., low] = fnv64([name.as_str()]).to_be_bytes();
        f64::from(low) / 256.0
    }
}

fn holder(attachment: &OverlayAttachment) -> Holder {
    let is_node = attachment.of == Occupant::Node;
    Holder { node: attachment.node.clone(), mac: attachment.mac, is_node }
}
