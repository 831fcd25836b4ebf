//! `gc`: takes back what nobody owns any more, and, with nothing left, makes the host as it was before berth.
//!
//! Never removes what might be alive: an attachment goes when the runtime's list leaves it out, or when its owner is
//! provably gone (other boot, host link gone, dead process). Networks go when nobody is attached and berth made them.

use berth_netlink::{Addr, Link, LinkKind, Netlink};
use berth_nft::{Element, NftSocket, RulesetState};
use berth_store::lock::{HostLock, NetworkLock, RulesLock};
use berth_store::{AttachmentRow, AttachmentState, BootTime};
use berth_types::{AttachmentKey, ContainerId, IfName, NetworkName};
use ipnetwork::IpNetwork;
use serde::Serialize;
use std::collections::BTreeSet;

use crate::attachment::key_of_alias;
use crate::berth::{Berth, is_dead, parsed};
use crate::detach::remove_elements;
use crate::elements;
use crate::error::{Chain, CoreError};
use crate::hold::is_hold;
use crate::kernel::{Kernel, lay_and_fill};
use crate::names::{Changed, forget_flows, tell_if_there};
use crate::network::NetworkRecord;
use crate::overlay::{faults, is_device, key_of_host, network_of_vxlan};
use crate::plan::{Joining, is_ours};
use crate::published::Held;
use crate::rules;

/// What a collection is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcRequest {
    /// Only this network; absent is all of them.
    pub network: Option<NetworkName>,
    /// What the runtime says is still valid on the network; absent is "not said", which removes only what is
    /// provably gone.
    pub valid: Option<BTreeSet<(ContainerId, IfName)>>,
    /// Whether networks without attachments go too.
    pub idle_networks: bool,
    /// Whether what is broken stays as it is, and only what nobody owns any more goes.
    pub collect_only: bool,
    /// Whether to say what would be done and do nothing.
    pub dry_run: bool,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Attachments removed.
    pub attachments: Vec<AttachmentKey>,
    /// Links removed that no record knew.
    pub links: Vec<String>,
    /// Elements removed that no record asks for.
    pub elements: Vec<String>,
    /// Leases released that no attachment holds.
    pub leases: usize,
    /// Networks removed.
    pub networks: Vec<NetworkName>,
    /// Networks whose bridge was made again, or whose ports were put back on it.
    pub mended: Vec<NetworkName>,
    /// Whether the ruleset was laid again and filled.
    pub ruleset_restored: bool,
    /// Whether nothing is left and the ruleset and switches were taken back.
    pub host_restored: bool,
}

impl Berth {
    /// Collects.
    pub fn gc(&mut self, request: &GcRequest) -> Result<GcReport, CoreError> {
        let mut report = GcReport::default();
        let mut errors = Vec::new();
        for row in self.gone_attachments(request)? {
            report.attachments.push(row.key.clone());
            if !request.dry_run {
                errors.extend(self.collect(&row).err().map(|err| format!("{}: {}", row.key, Chain(&err))));
            }
        }
        if !request.dry_run {
            let collected = self.collect_names(request.network.as_ref());
            errors.extend(collected.err().map(|err| Chain(&err).to_string()));
        }
        self.gc_links(request, &mut report, &mut errors)?;
        self.gc_leases(request, &mut report)?;
        if request.idle_networks {
            for name in self.idle_networks(request, &report)? {
                report.networks.push(name.clone());
                if !request.dry_run {
                    let removed = self.remove_network_unless_used(&name);
                    errors.extend(removed.err().map(|err| format!("{name}: {}", Chain(&err))));
                }
            }
        }
        self.forget_old_networks(request)?;
        if !request.collect_only {
            self.mend_networks(request, &mut report, &mut errors)?;
        }
        self.restore(request, &mut report, &mut errors)?;
        if !request.collect_only && !request.dry_run {
            errors.extend(self.mend_names().err().map(|err| Chain(&err).to_string()));
        }
        if errors.is_empty() { Ok(report) } else { Err(CoreError::Several(errors)) }
    }

    /// Detaches what `row` stood for when it was found to be gone. Since then somebody may have detached it and attached
    /// the container anew: that is another row, and lives.
    fn collect(&mut self, row: &AttachmentRow) -> Result<(), CoreError> {
        let _attachment = self.attachment_lock(&row.key)?;
        let now = self.store_mut().read(|tx| tx.attachment(&row.key).map_err(CoreError::from))?;
        if now.as_ref() == Some(row) { self.detach_locked(&row.key).map(drop) } else { Ok(()) }
    }

    fn gone_attachments(&mut self, request: &GcRequest) -> Result<Vec<AttachmentRow>, CoreError> {
        let rows = self.store_mut().read(|tx| tx.attachments().map_err(CoreError::from))?;
        let mut gone = Vec::new();
        for row in rows {
            if request.network.as_ref().is_some_and(|network| *network != row.key.network) {
                continue;
            }
            let listed = (row.key.container.clone(), row.key.ifname.clone());
            let valid =
                request.valid.as_ref().filter(|_| !self.is_handed(&row)).map(|valid| valid.contains(&listed));
            let busy = row.state == AttachmentState::Pending && row.is_owner_alive(self.boot());
            let goes = match valid {
                _ if busy => false,
                Some(valid) => !valid,
                None => !self.is_live(&row)?,
            };
            if goes {
                gone.push(row);
            }
        }
        Ok(gone)
    }

    /// Whether the attachment is of an engine that takes its link itself, and no runtime that lists its own has to do with it.
    fn is_handed(&self, row: &AttachmentRow) -> bool {
        // What cannot be read goes by the list.
        matches!(parsed(&row.key, &row.payload), Ok(Held::Bridge(record)) if record.peer.is_some())
    }

    /// Links that carry berth's tag and no record knows: what a crash between the kernel and the records leaves.
    fn gc_links(
        &mut self,
        request: &GcRequest,
        report: &mut GcReport,
        errors: &mut Vec<String>,
    ) -> Result<(), CoreError> {
        let netlink = Netlink::open()?;
        let mut strays = Vec::new();
        for link in netlink.links()? {
            if let Some(name) = link.alias.as_deref().and_then(network_of_vxlan) {
                let other = request.network.as_ref().is_some_and(|network| *network != name);
                if link.kind == LinkKind::Vxlan && !other && self.network(&name)?.is_none() {
                    strays.push(link);
                }
                continue;
            }
            if !matches!(link.kind, LinkKind::Veth | LinkKind::Ifb) {
                continue;
            }
            let Some(key) = link.alias.as_deref().and_then(key_of_alias) else { continue };
            let other = request.network.as_ref().is_some_and(|network| *network != key.network);
            if other || self.held_of(&key)?.is_some() {
                continue;
            }
            strays.push(link);
        }
        for link in strays {
            report.links.push(link.name.to_string());
            if !request.dry_run {
                errors.extend(netlink.link_del(link.index).err().map(|err| Chain(&err).to_string()));
            }
        }
        Ok(())
    }

    fn gc_leases(&mut self, request: &GcRequest, report: &mut GcReport) -> Result<(), CoreError> {
        let leases = self.all_leases(request.network.as_ref())?;
        let mut owners = BTreeSet::new();
        for lease in leases {
            let owner = &lease.owner;
            if request.network.as_ref().is_some_and(|network| *network != owner.network) {
                continue;
            }
            // A host's own address in an overlay, and what another engine holds there, is no container's, and in no list.
            if *owner == key_of_host(&owner.network) || is_hold(owner) || self.held_of(owner)?.is_some() {
                continue;
            }
            let listed = (owner.container.clone(), owner.ifname.clone());
            let goes =
                request.valid.as_ref().map_or_else(|| is_dead(&lease), |valid| !valid.contains(&listed));
            if goes {
                report.leases += 1;
                owners.insert(owner.clone());
            }
        }
        if request.dry_run || owners.is_empty() {
            return Ok(());
        }
        self.store_mut().write(|tx| {
            for owner in &owners {
                berth_ipam::release(tx, owner, BootTime::now())?;
            }
            Ok(())
        })
    }

    fn idle_networks(
        &mut self,
        request: &GcRequest,
        report: &GcReport,
    ) -> Result<Vec<NetworkName>, CoreError> {
        let mut idle = Vec::new();
        let declared = self.declared_names()?;
        for network in self.networks()? {
            if declared.contains(&network.name) {
                continue;
            }
            if request.network.as_ref().is_some_and(|name| *name != network.name) {
                continue;
            }
            let rows = self.attached_to(&network.name)?;
            if rows.iter().all(|row| report.attachments.contains(&row.key)) {
                idle.push(network.name);
            }
        }
        Ok(idle)
    }

    /// Removes a network from the kernel and the records; refused while somebody is attached. Elements and the
    /// bridge that another network needs too stay.
    pub fn remove_network(&mut self, name: &NetworkName) -> Result<(), CoreError> {
        let attached = self.remove_network_unless_used(name)?;
        let Some(first) = attached.first() else { return Ok(()) };
        let what = format!("network `{name}` is in use by {} and {} more", first.key, attached.len() - 1);
        Err(CoreError::Missing { what })
    }

    /// Removes a network; gives back who is attached, if somebody is, and then changes nothing.
    pub(crate) fn remove_network_unless_used(
        &mut self,
        name: &NetworkName,
    ) -> Result<Vec<AttachmentRow>, CoreError> {
        let named = self.network(name)?.is_some_and(|network| network.names.is_some());
        let attached = self.remove_network_locked(name)?;
        // With the lock released, which the server may want.
        if named && attached.is_empty() {
            tell_if_there(self.dirs(), &Changed::network(name));
        }
        Ok(attached)
    }

    fn remove_network_locked(&mut self, name: &NetworkName) -> Result<Vec<AttachmentRow>, CoreError> {
        let _lock = NetworkLock::exclusive(self.dirs(), name)?;
        let attached = self.attached_to(name)?;
        if !attached.is_empty() {
            return Ok(attached);
        }
        let Some(record) = self.network(name)? else { return Ok(attached) };
        let others = self.networks_but(name)?;
        // What keeps an encrypted network from being sent or taken in clear goes after its device.
        let keeps = |element: &Element| matches!(element, Element::EncryptedPort(_));
        remove_elements(own_elements(&record, &others).into_iter().filter(|one| !keeps(one)).collect())?;
        forget_flows(&record)?;
        let shared = others.iter().any(|other| other.bridge == record.bridge);
        if record.bridge_is_ours && !shared {
            let netlink = Netlink::open()?;
            if let Some(overlay) = &record.overlay {
                let device = netlink.link_by_name(&overlay.device())?;
                let made = device.filter(|link| is_device(link, name, overlay, record.pending));
                made.map(|link| netlink.link_del(link.index)).transpose()?;
            }
            let made = |link: &Link| link.kind == LinkKind::Bridge && is_ours(link, Some(&record));
            if let Some(link) = netlink.link_by_name(&record.bridge)?.filter(made) {
                netlink.link_del(link.index)?;
            }
        }
        // Who filled the ruleset meanwhile did so from the records, this one among them: what is there now goes with it.
        let _rules = RulesLock::exclusive(self.dirs())?;
        remove_elements(own_elements(&record, &self.networks_but(name)?))?;
        self.store_mut().write(|tx| tx.live_network_remove(name).map(drop).map_err(CoreError::from))?;
        Ok(attached)
    }

    fn networks_but(&mut self, name: &NetworkName) -> Result<Vec<NetworkRecord>, CoreError> {
        Ok(self.networks()?.into_iter().filter(|other| other.name != *name).collect())
    }

    /// Networks of an earlier boot are in no kernel.
    fn forget_old_networks(&mut self, request: &GcRequest) -> Result<(), CoreError> {
        if request.dry_run || !request.idle_networks {
            return Ok(());
        }
        let boot = self.boot().clone();
        self.store_mut().write(|tx| {
            for row in tx.live_networks()?.into_iter().filter(|row| row.boot_id != boot) {
                tx.live_network_remove(&row.name)?;
            }
            Ok(())
        })
    }

    /// Makes bridges of berth's that somebody deleted again, puts ports back on them, and brings them and their addresses back.
    fn mend_networks(
        &mut self,
        request: &GcRequest,
        report: &mut GcReport,
        errors: &mut Vec<String>,
    ) -> Result<(), CoreError> {
        let netlink = Netlink::open()?;
        let (links, addrs) = (netlink.links()?, netlink.addrs_all()?);
        let link_of = |name: &IfName| links.iter().find(|link| link.name == *name);
        let attachments = self.attachments()?;
        let declared = self.declared_names()?;
        for network in self.networks()? {
            let attached = attachments.iter().filter(|record| record.key.network == network.name);
            let mut ports = attached.filter_map(|record| link_of(&record.host_ifname));
            let on_none = ports.any(|port| port.master.is_none());
            let broken = match link_of(&network.bridge) {
                None => on_none || declared.contains(&network.name),
                Some(bridge) => on_none || has_lost(&network, bridge, &addrs, &links),
            };
            let other = request.network.as_ref().is_some_and(|name| *name != network.name);
            if !broken || other || report.networks.contains(&network.name) {
                continue;
            }
            report.mended.push(network.name.clone());
            if !request.dry_run {
                let mended = self.mend_network(&network);
                errors.extend(mended.err().map(|err| format!("{}: {}", network.name, Chain(&err))));
            }
        }
        Ok(())
    }

    pub(crate) fn mend_network(&mut self, network: &NetworkRecord) -> Result<(), CoreError> {
        let _host = HostLock::shared(self.dirs())?;
        let mut kernel = Kernel::open(self, None)?;
        self.make_network(&mut kernel, &network.spec(), Joining::default())?;
        drop(kernel);
        if network.names.is_some() {
            tell_if_there(self.dirs(), &Changed::network(&network.name));
        }
        // It may have been removed meanwhile.
        self.unmake_if_unwanted(&network.name)
    }

    fn attached_to(&mut self, name: &NetworkName) -> Result<Vec<AttachmentRow>, CoreError> {
        self.store_mut().read(|tx| tx.attachments_of(name).map_err(CoreError::from))
    }

    /// Removes a network that an attach made and nobody is attached to. Best effort: `gc` does it again.
    pub(crate) fn remove_if_idle(&mut self, name: &NetworkName) {
        match self.attached_to(name) {
            Ok(rows) if !rows.is_empty() => return,
            _ => (),
        }
        // Its engine created it and removes it.
        if self.declared(name).is_ok_and(|declared| declared.is_some()) {
            return;
        }
        if let Err(err) = self.remove_network(name) {
            tracing::warn!(network = %name, error = %Chain(&err), "network left behind; `berth gc` removes it");
        }
    }

    /// With networks left, makes the ruleset what the records ask for; with none, takes berth's traces off the host.
    fn restore(
        &mut self,
        request: &GcRequest,
        report: &mut GcReport,
        errors: &mut Vec<String>,
    ) -> Result<(), CoreError> {
        // Read before the records: an attach records itself before it touches the ruleset, so what is there now and is
        // in no record then is nobody's.
        let there = rules::dump()?;
        let mut socket = NftSocket::open()?;
        let left =
            self.networks()?.into_iter().filter(|network| !report.networks.contains(&network.name)).count();
        let held = self.held()?.into_iter().filter(|(row, _)| !report.attachments.contains(&row.key)).count();
        if left + held > 0 {
            let late = self.late_uplinks()?;
            if !request.dry_run && !late.is_empty() {
                self.store_mut().write(|tx| {
                    for (family, link) in &late {
                        tx.uplink_close(*family, link)?;
                    }
                    Ok::<_, CoreError>(())
                })?;
            }
            report.ruleset_restored =
                !request.collect_only && (!late.is_empty() || self.ruleset_lacks(&mut socket)?);
            let strays = self.strays(&there)?;
            report.elements = strays.iter().map(ToString::to_string).collect();
            if request.dry_run {
                return Ok(());
            }
            if report.ruleset_restored {
                lay_and_fill(self.dirs(), &mut socket)?;
            }
            return remove_elements(strays).map(drop);
        }
        report.host_restored = request.idle_networks;
        if request.idle_networks && !request.dry_run {
            report.host_restored = self.leave_host(&mut socket, errors)?;
        }
        Ok(())
    }

    /// Whether the ruleset is not as it was laid, or lacks what the records ask for. What somebody is just laying, making or
    /// taking away is waited for.
    fn ruleset_lacks(&mut self, socket: &mut NftSocket) -> Result<bool, CoreError> {
        if !self.lacks_now(socket)? {
            return Ok(false);
        }
        for network in self.networks()? {
            drop(NetworkLock::shared(self.dirs(), &network.name)?);
        }
        let _lock = RulesLock::exclusive(self.dirs())?;
        self.lacks_now(socket)
    }

    fn lacks_now(&mut self, socket: &mut NftSocket) -> Result<bool, CoreError> {
        // Wanted before and after the look: what an attach or a detach changed meanwhile is not missing.
        let before = self.wanted_elements()?;
        let current = berth_nft::ruleset_state(socket)? == RulesetState::Current;
        let there = rules::dump()?;
        let after = self.wanted_elements()?;
        Ok(!current || before.intersection(&after).any(|element| !there.contains(element)))
    }

    /// Takes berth off a host that nobody uses any more, after an attach that failed. Best effort: `gc` does it again.
    pub(crate) fn leave_if_unused(&mut self) {
        let mut errors = Vec::new();
        let left = NftSocket::open().map_err(CoreError::from);
        if let Err(err) = left.and_then(|mut socket| self.leave_host(&mut socket, &mut errors)) {
            errors.push(Chain(&err).to_string());
        }
        for error in errors {
            tracing::warn!(error, "left behind; `berth gc` removes it");
        }
    }

    /// Takes berth's tables and switches off the host, unless somebody is attaching or attached by now.
    fn leave_host(&mut self, socket: &mut NftSocket, errors: &mut Vec<String>) -> Result<bool, CoreError> {
        let Some(host) = HostLock::try_exclusive(self.dirs())? else { return Ok(false) };
        if !self.networks()?.is_empty() || !self.held()?.is_empty() {
            return Ok(false);
        }
        let rules = RulesLock::exclusive(self.dirs())?;
        berth_nft::remove_tables(socket)?;
        drop(rules);
        // What others were told about berth's traffic goes with it.
        errors.extend(berth_nft::docker_user::withdraw().err().map(|err| Chain(&err).to_string()));
        errors.extend(self.restore_switches()?);
        host.remove()?;
        crate::keeper::sweep(self.dirs());
        errors.extend(berth_store::lock::sweep(self.dirs()).err().map(|err| Chain(&err).to_string()));
        Ok(true)
    }

    /// Elements of ports that are in no record, whatever its state. Elements of networks are left alone: a network is
    /// recorded after its elements are there.
    fn strays(&mut self, there: &BTreeSet<Element>) -> Result<BTreeSet<Element>, CoreError> {
        let mut known: BTreeSet<Element> =
            self.held()?.iter().flat_map(|(_, held)| elements::of_held(held)).collect();
        // The way to their names is led like a published port.
        known.extend(self.networks()?.iter().flat_map(elements::of_network));
        let of_a_port = |element: &&Element| {
            matches!(
                element,
                Element::Guarded(_)
                    | Element::GuardedMacOnly(_)
                    | Element::Trunk(_)
                    | Element::Apart(_)
                    | Element::AllowedMac { .. }
                    | Element::AllowedAddr { .. }
                    | Element::Port { .. }
                    | Element::Hairpin { .. }
                    | Element::MasqueradeAll(_)
            )
        };
        Ok(there.difference(&known).filter(of_a_port).cloned().collect())
    }
}

/// What of `network` in the ruleset none of `others` needs too.
fn own_elements(network: &NetworkRecord, others: &[NetworkRecord]) -> BTreeSet<Element> {
    let needed: BTreeSet<Element> = others.iter().flat_map(elements::of_network).collect();
    elements::of_network(network).difference(&needed).cloned().collect()
}

/// Whether somebody took down a bridge that berth made, or an address of it away, or changed an overlay's device.
pub(crate) fn has_lost(network: &NetworkRecord, bridge: &Link, addrs: &[Addr], links: &[Link]) -> bool {
    let has =
        |wanted: &IpNetwork| addrs.iter().any(|addr| addr.index == bridge.index && addr.address == *wanted);
    // One that is being made has not everything yet; one that others made is theirs to take down.
    let ours = network.bridge_is_ours && !network.pending && is_ours(bridge, Some(network));
    ours && !(bridge.up && network.bridge_addresses().iter().all(has) && faults(network, links).is_empty())
}
