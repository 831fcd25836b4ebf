//! Telling the server, and the names of containers that other plugins attached.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_netlink::{LinkKind, Netlink};
use berth_nft::{Element, NftSocket};
use berth_store::lock::{HostLock, NamesLock, NetworkLock};
use berth_store::{AttachmentRow, AttachmentState, Dirs, NewAttachment};
use berth_types::{AttachmentKey, IfName, MacAddr, NetworkName, Proto, PublishedPort, SandboxId};
use ipnetwork::IpNetwork;

use super::call::{CallError, call};
use super::record::{DNS_PORT, MemberNames, NamesSource, NetworkNames};
use super::seen::NamesState;
use super::served::{Served, served, stands};
use super::start;
use super::wire::{Applied, Changed};
use crate::attach::payload;
use crate::berth::Berth;
use crate::detach::remove_elements;
use crate::elements;
use crate::error::{Chain, CoreError};
use crate::execute::execute;
use crate::flows::flush_removed;
use crate::kernel::Kernel;
use crate::network::{NetworkRecord, Reach};
use crate::published::{Held, PortsRecord, Published};
use crate::step::Plan;

/// How long the server may take for a change: it is a matter of a millisecond, and of a start.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is done where no server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// One is started.
    Start,
    /// Nothing: one that starts reads the records.
    Leave,
}

/// Names for a container that another plugin attached, or berth did in an earlier step of the chain.
pub struct NamesRequest {
    /// Whose they are.
    pub key: AttachmentKey,
    /// What its network says of names.
    pub network: NetworkNames,
    /// What it is called. Its addresses are [`Self::addresses`].
    pub member: MemberNames,
    /// Its addresses with their gateways, which must be the host's own.
    pub addresses: Vec<(IpNetwork, Option<IpAddr>)>,
    /// The container's sandbox, where the caller knows it.
    pub sandbox: Option<(PathBuf, SandboxId)>,
}

impl Changed {
    /// Of one attachment and its network.
    pub(crate) fn attachment(key: &AttachmentKey) -> Self {
        Self { networks: vec![key.network.clone()], attachments: vec![key.clone()], all: false }
    }

    /// Of one network.
    pub(crate) fn network(name: &NetworkName) -> Self {
        Self { networks: vec![name.clone()], ..Self::default() }
    }
}

/// Tells the server what changed, and returns when it answers accordingly.
pub(crate) fn tell(dirs: &Dirs, changed: &Changed, absent: Absent) -> Result<(), CallError> {
    // One that ends is replaced; twice in a row is somebody killing it.
    for _ in 0..3 {
        match call::<_, Applied>(&dirs.run, "/v1/changed", changed, DEADLINE) {
            Err(err) if err.is_absent() && absent == Absent::Start => start::ensure(dirs)?,
            Err(err) if err.is_absent() => return Ok(()),
            Err(err) => return Err(err),
            Ok(Applied { leaving: true, .. }) => {
                // It holds the lock until it is gone.
                if let Ok(lock) = NamesLock::exclusive(dirs) {
                    let _ = lock.remove();
                }
                return Ok(());
            }
            Ok(_) => return Ok(()),
        }
    }
    call::<_, Applied>(&dirs.run, "/v1/changed", changed, DEADLINE).map(drop)
}

/// As [`tell`], for those who must not fail because of it.
pub(crate) fn tell_if_there(dirs: &Dirs, changed: &Changed) {
    if let Err(err) = tell(dirs, changed, Absent::Leave) {
        tracing::warn!(error = %Chain(&err), "the DNS server was not told; it compares by itself within a minute");
    }
}

impl Berth {
    /// What the DNS server is to answer, by all records. One consistent view: what is written later is told.
    pub fn served(&mut self) -> Result<Served, CoreError> {
        let shown = self.names()?;
        let (networks, held, boot) = (self.networks()?, self.held()?, self.boot().clone());
        let mut all = served(&networks, &held, &shown, &boot);
        let is_served = |key: &AttachmentKey| all.networks.iter().any(|network| network.name == key.network);
        let mut elsewhere = Vec::new();
        self.elsewhere_each(|key, one| elsewhere.extend(is_served(&key).then(|| one.served(key))))?;
        all.members.extend(elsewhere);
        Ok(all)
    }

    /// The part of [`Berth::served`] that `changed` is about.
    pub fn served_of(&mut self, changed: &Changed) -> Result<Served, CoreError> {
        use super::served::{ServedMember, ServedNetwork};
        let mut part = Served::default();
        for name in &changed.networks {
            let Some(network) = self.network(name)? else { continue };
            let shown = self.name_of(&crate::shown::key_of_network(name))?;
            part.networks.extend(ServedNetwork::of(&network, shown.as_ref()));
        }
        for key in &changed.attachments {
            let boot = self.boot().clone();
            let Some(network) = self.network(&key.network)? else { continue };
            let Some((_, held)) = self.held_of(key)?.filter(|(row, _)| stands(row, &boot)) else {
                let elsewhere = self.elsewhere_of(key)?.filter(|_| network.names.is_some());
                part.members.extend(elsewhere.map(|elsewhere| elsewhere.served(key.clone())));
                continue;
            };
            let shown = self.name_of(key)?;
            part.members.extend(ServedMember::of(&network, &held, shown.as_ref()));
        }
        Ok(part)
    }

    /// Records the ports that the server listens on instead of 53 at a network's gateways, and leads queries to them.
    /// Called by the server, never by whoever waits for it while holding the network's lock.
    pub fn names_listened(
        &mut self,
        name: &NetworkName,
        alternates: &std::collections::BTreeMap<IpAddr, u16>,
    ) -> Result<(), CoreError> {
        self.change_names(name, &|names| names.alternates.clone_from(alternates))
    }

    /// Answers at the network's gateway what its containers ask `servers`, too. For engines that write a container's
    /// `resolv.conf` themselves and cannot be told of the gateway. Of a family in which the network has no gateway, nothing
    /// changes.
    pub fn names_answer_for(
        &mut self,
        name: &NetworkName,
        servers: &BTreeSet<IpAddr>,
    ) -> Result<(), CoreError> {
        self.change_names(name, &|names| names.answers_for.extend(servers))
    }

    /// Changes what a network's record says of names, where there is any, and the ruleset with it.
    fn change_names(
        &mut self,
        name: &NetworkName,
        change: &dyn Fn(&mut NetworkNames),
    ) -> Result<(), CoreError> {
        let changed = |record: &NetworkRecord| {
            let mut names = record.names.clone()?;
            change(&mut names);
            let after = NetworkRecord { names: Some(names), ..record.clone() };
            (after != *record).then_some(after)
        };
        if self.network(name)?.and_then(|record| changed(&record)).is_none() {
            return Ok(());
        }
        let _lock = NetworkLock::exclusive(self.dirs(), name)?;
        let Some(before) = self.network(name)? else { return Ok(()) };
        let Some(after) = changed(&before) else { return Ok(()) };
        let (old, new) = (elements::of_network(&before), elements::of_network(&after));
        // A map takes no second value for a key: the old way goes before the new one comes.
        remove_elements(old.difference(&new).cloned().collect())?;
        let mut plan = Plan::default();
        plan.push_elements(new.difference(&old).cloned().collect());
        let mut kernel = Kernel::open(self, None)?;
        execute(&mut kernel, &plan)?.keep();
        drop(kernel);
        forget_flows(&before)?;
        self.put_network(&after)
    }

    /// Gives names to a container that another plugin attached. Asked again, it replaces what was said before. Returns
    /// when they are answered: the addresses to ask.
    pub fn names_add(&mut self, request: &NamesRequest) -> Result<Vec<IpAddr>, CoreError> {
        let _attachment = self.attachment_lock(&request.key)?;
        let host = HostLock::shared(self.dirs())?;
        let listeners = self.names_network(request)?;
        let added = self
            .names_record(request)
            .and_then(|()| Ok(tell(self.dirs(), &Changed::attachment(&request.key), Absent::Start)?));
        if let Err(cause) = added {
            if let Err(left) = self.names_forget(&request.key) {
                tracing::error!(error = %Chain(&left), "names left behind; `berth gc` removes them");
            }
            drop(host);
            return Err(cause);
        }
        Ok(listeners)
    }

    /// Takes the names back; none is success. The last container's takes the network's along, where the network is in the
    /// records for them alone.
    pub fn names_del(&mut self, key: &AttachmentKey) -> Result<(), CoreError> {
        let attachment = self.attachment_lock(key)?;
        self.names_forget(key)?;
        drop(attachment);
        self.leave_if_unused();
        Ok(())
    }

    /// What of the names of `key` is not in place, in sentences; nothing where all is well.
    pub fn check_names(&mut self, key: &AttachmentKey) -> Result<Vec<String>, CoreError> {
        if self.held_of(key)?.is_none_or(|(_, held)| held.names().is_none()) {
            return Ok(vec![format!("no names are recorded for {key}")]);
        }
        let state = NamesState::read(self.dirs())?;
        let mut wrong: Vec<String> = state.server.as_ref().err().cloned().into_iter().collect();
        let (missing, _) = state.differing();
        if missing.contains(key) {
            wrong.push(format!("the DNS server does not know {key}"));
        }
        let deaf = state.deaf().into_iter().filter(|(network, _)| *network == key.network);
        wrong.extend(deaf.map(|(_, addr)| format!("the DNS server does not listen at {addr}")));
        Ok(wrong)
    }

    /// Starts the server again where it is gone and somebody is to have names, and has it compare everything.
    pub(crate) fn mend_names(&mut self) -> Result<(), CoreError> {
        let declared = self.declared_names()?;
        let Served { networks, members } = self.served()?;
        if networks.is_empty() {
            return Ok(());
        }
        let names: Vec<NetworkName> = networks.into_iter().map(|network| network.name).collect();
        // The daemon for networks that an engine declared is whoever runs the engine's to start.
        let wanted = members.iter().any(|member| !declared.contains(&member.key.network));
        let absent = if wanted { Absent::Start } else { Absent::Leave };
        let changed = Changed { networks: names, attachments: Vec::new(), all: true };
        Ok(tell(self.dirs(), &changed, absent)?)
    }

    /// Networks that are recorded for names alone and have lost the last one go, after a collection.
    pub(crate) fn collect_names(&mut self, only: Option<&NetworkName>) -> Result<(), CoreError> {
        let alone = self.networks()?.into_iter().filter(NetworkRecord::is_for_names_alone);
        for network in alone.filter(|network| only.is_none_or(|only| *only == network.name)) {
            self.names_leave(&network.name)?;
        }
        Ok(())
    }

    fn names_forget(&mut self, key: &AttachmentKey) -> Result<(), CoreError> {
        match self.held_of(key)? {
            Some((row, held)) if held.names().is_some() => {
                self.names_take(&row, held)?;
                tell_if_there(self.dirs(), &Changed::attachment(key));
            }
            _ => (),
        }
        self.names_leave(&key.network)
    }

    /// Removes the names from a record, and a record that has nothing else.
    fn names_take(&mut self, row: &AttachmentRow, held: Held) -> Result<(), CoreError> {
        let only_names = matches!(&held, Held::Ports(record) if record.published == Published::default());
        if only_names || row.state != AttachmentState::Ready {
            return self.detach_locked(&row.key).map(drop);
        }
        let text = payload(&held.with_names(None))?;
        self.store_mut().write(|tx| tx.attachment_ready(&row.key, &text).map(drop).map_err(CoreError::from))
    }

    /// Removes a network that is recorded for its names alone, once nobody has any.
    fn names_leave(&mut self, name: &NetworkName) -> Result<(), CoreError> {
        if !self.network(name)?.is_some_and(|network| network.is_for_names_alone()) {
            return Ok(());
        }
        let lock = NetworkLock::exclusive(self.dirs(), name)?;
        let rows = self.held()?;
        let named = |(row, held): &(AttachmentRow, Held)| row.key.network == *name && held.names().is_some();
        let Some(record) = self.network(name)?.filter(|_| !rows.iter().any(named)) else { return Ok(()) };
        remove_elements(elements::of_network(&record))?;
        forget_flows(&record)?;
        self.store_mut().write(|tx| tx.live_network_remove(name).map(drop).map_err(CoreError::from))?;
        lock.remove()?;
        tell_if_there(self.dirs(), &Changed::network(name));
        Ok(())
    }

    /// The network's record with the names in it, and its elements in the ruleset.
    fn names_network(&mut self, request: &NamesRequest) -> Result<Vec<IpAddr>, CoreError> {
        let name = &request.key.network;
        let _lock = NetworkLock::exclusive(self.dirs(), name)?;
        let before = self.network(name)?.filter(|network| !network.pending);
        let wanted = match &before {
            Some(network) if !network.is_for_names_alone() => {
                let names = NetworkNames { source: NamesSource::Chained, ..request.network.clone() };
                network.clone().with_names(Some(names))
            }
            _ => alone(request, before.as_ref())?,
        };
        let listeners: Vec<IpAddr> = wanted.gateways.iter().map(IpNetwork::ip).collect();
        if listeners.is_empty() {
            let what =
                format!("network `{name}` has no gateway address that its containers could ask for names");
            return Err(CoreError::Missing { what });
        }
        if before.as_ref() == Some(&wanted) {
            return Ok(listeners);
        }
        let old = before.as_ref().map(elements::of_network).unwrap_or_default();
        let mut plan = Plan::default();
        plan.push_elements(elements::of_network(&wanted).difference(&old).cloned().collect());
        // Recorded as unfinished first: whoever is killed here leaves nothing that `gc` does not know of.
        self.put_network(&NetworkRecord { pending: true, ..wanted.clone() })?;
        let mut kernel = Kernel::open(self, None)?;
        execute(&mut kernel, &plan)?.keep();
        drop(kernel);
        self.put_network(&wanted)?;
        Ok(listeners)
    }

    fn put_network(&mut self, record: &NetworkRecord) -> Result<(), CoreError> {
        let text = payload(record)?;
        self.store_mut().write(|tx| {
            tx.live_network_put(&record.name, Some(&record.bridge), &text).map_err(CoreError::from)
        })
    }

    /// The names in the attachment's record, or in a new one.
    fn names_record(&mut self, request: &NamesRequest) -> Result<(), CoreError> {
        let NamesRequest { key, member, addresses, sandbox, .. } = request;
        let addrs = addresses.iter().map(|(address, _)| address.ip()).collect();
        let member = MemberNames { addrs, ..member.clone() };
        let had = match self.held_of(key)? {
            Some((row, held)) if row.state == AttachmentState::Ready => Some(held),
            Some(_) => {
                self.detach_locked(key)?;
                None
            }
            None => None,
        };
        let is_new = had.is_none();
        let held = had.unwrap_or_else(|| Held::Ports(PortsRecord::new(key.clone()))).with_names(Some(member));
        let text = payload(&held)?;
        let new = NewAttachment {
            key: key.clone(),
            sandbox: sandbox.clone(),
            host_ifname: None,
            payload: text.clone(),
        };
        self.store_mut().write(|tx| {
            if is_new {
                tx.attachment_begin(&new)?;
            }
            tx.attachment_ready(key, &text)?;
            Ok::<_, CoreError>(())
        })
    }
}

/// Forgets tracked questions that were led to another port than 53, or away from whom they were sent to: a client that keeps its
/// port would keep that way.
pub(crate) fn forget_flows(network: &NetworkRecord) -> Result<(), CoreError> {
    let led = |element: &Element| match element {
        Element::Port { port, .. } if port.host_port != port.target_port => Some(*port),
        Element::Led { asked, to, .. } => Some(PublishedPort {
            proto: Proto::Udp,
            host_addr: *asked,
            host_port: DNS_PORT,
            target: to.ip(),
            target_port: to.port(),
            count: 1,
        }),
        _ => None,
    };
    let led: Vec<PublishedPort> = elements::of_names(network).iter().filter_map(led).collect();
    if led.is_empty() {
        return Ok(());
    }
    Ok(flush_removed(&mut NftSocket::open()?, &led)?)
}

/// The record of a network that another plugin made: its gateways are addresses of this host.
fn alone(request: &NamesRequest, before: Option<&NetworkRecord>) -> Result<NetworkRecord, CoreError> {
    let name = &request.key.network;
    let mut gateways = before.map(|before| before.gateways.clone()).unwrap_or_default();
    let mut bridge = before.map(|before| (before.bridge.clone(), before.mac));
    for (address, gateway) in &request.addresses {
        let Some(gateway) = gateway else { continue };
        bridge = Some(device_of(*gateway)?);
        gateways.extend(IpNetwork::new(*gateway, address.prefix()));
    }
    let Some((bridge, mac)) = bridge else {
        let what = format!(
            "network `{name}` has no gateway that its containers could ask for names\n\
             set `isGateway` of the main plugin"
        );
        return Err(CoreError::Missing { what });
    };
    let names = NetworkNames { source: NamesSource::Alone, ..request.network.clone() };
    let record = NetworkRecord {
        version: NetworkRecord::VERSION,
        name: name.clone(),
        bridge,
        bridge_is_ours: false,
        reach: Reach::default(),
        gateway: false,
        gateways,
        subnets: BTreeSet::new(),
        mac,
        mtu: None,
        promisc: false,
        vlan: None,
        announces: false,
        names: before.and_then(|before| before.names.clone()),
        overlay: None,
        peers: crate::overlay::Peers::default(),
        pending: false,
    };
    Ok(record.with_names(Some(names)))
}

/// The bridge of this host that has the address.
fn device_of(gateway: IpAddr) -> Result<(IfName, MacAddr), CoreError> {
    let netlink = Netlink::open()?;
    let holder = netlink.addrs_all()?.into_iter().find(|addr| addr.address.ip() == gateway);
    let links = netlink.links()?;
    let link = holder.and_then(|addr| links.into_iter().find(|link| link.index == addr.index));
    match link {
        Some(link) if link.kind == LinkKind::Bridge => {
            Ok((link.name, link.mac.unwrap_or(MacAddr([2, 0, 0, 0, 0, 0]))))
        }
        Some(link) => Err(CoreError::Missing {
            what: format!(
                "gateway {gateway} is on `{}`, which is no bridge: names are served to containers on bridges",
                link.name
            ),
        }),
        None => Err(CoreError::Missing {
            what: format!(
                "gateway {gateway} is no address of this host: names are served at a gateway on a bridge of the host"
            ),
        }),
    }
}
