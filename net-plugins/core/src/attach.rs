//! Attach: the one way a container gets an interface on a bridge network.
//!
//! Order of events: record (pending) with addresses and ports in one transaction → network → attachment → published
//! ports → record (ready). A crash at any point leaves a pending record whose process is gone; the next call for the
//! same attachment, a DEL or `gc` takes it back by the same code as a DEL.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use berth_ipam::allocate;
use berth_netlink::{Link, link_exists, sysctl};
use berth_store::lock::{HostLock, NetworkLock};
use berth_store::{
    BeginError, BootTime, ClaimError, LeaseRow, LeaseScope, LiveNetworkRow, NewAttachment, Tx,
};
use berth_types::{AttachmentKey, Family, IfName, MacAddr, NetworkName, host_ifname};

use crate::addressing;
use crate::attachment::{
    AttachmentRecord, AttachmentSpec, ContainerLink, PortSpec, attachment_alias, mac_of, mac_of_key,
};
use crate::berth::{Berth, is_dead};
use crate::error::CoreError;
use crate::execute::execute;
use crate::kernel::{Kernel, KernelError};
use crate::listeners::refuse_listeners;
use crate::names::{Absent, Changed, tell, tell_if_there};
use crate::network::{NetworkRecord, NetworkSpec};
use crate::observe;
use crate::plan::{Joining, guard_for, plan_attachment, plan_network, plan_published};
use crate::published::{Held, Published};
use crate::request::{Addresses, Addressing, AttachRequest, Attachment};
use crate::step::Plan;

/// An attachment's record before the kernel is touched.
struct Begun {
    record: AttachmentRecord,
    /// Leases that dead owners lost for it.
    reclaimed: Vec<LeaseRow>,
}

/// What the records held before a network was made or changed.
#[derive(Default)]
struct NetworkBegun {
    had: Option<LiveNetworkRow>,
    /// Switches that were not saved before.
    switches: Vec<String>,
    /// Uplinks that were not closed before.
    uplinks: Vec<(Family, IfName)>,
}

impl Berth {
    /// Attaches a container. On an error nothing is left of the attempt.
    pub fn attach(&mut self, request: AttachRequest) -> Result<Attachment, CoreError> {
        let _attachment = self.attachment_lock(&request.key)?;
        self.make_way(&request.key)?;
        // From here on the tables and switches must stay; a `gc` on an idle host would take them away.
        let host = HostLock::shared(self.dirs())?;
        let begun = self.begin(&request)?;
        self.clear_after(&begun.reclaimed, &request.key);
        let built = self.build(&request, &begun.record);
        // With the network's lock released: the server may have to change the network for it.
        let named = built.and_then(|attachment| self.name(&request, &begun.record).map(|()| attachment));
        match named {
            Ok(attachment) => Ok(attachment),
            Err(cause) => {
                // The steps are undone already, as far as that went; this takes back what is left of them, and the record,
                // the leases and the ports. What fails here too stays recorded as being deleted.
                if let Err(left) = self.detach_locked(&request.key) {
                    tracing::error!(error = %crate::error::Chain(&left), "something left behind; `berth gc` removes it");
                }
                self.remove_if_idle(&request.network.name);
                drop(host);
                self.leave_if_unused();
                Err(cause)
            }
        }
    }

    /// Makes its names known. Where they were asked for, they are answered when this returns; an engine that tells them
    /// later does not wait for a server.
    fn name(&self, request: &AttachRequest, record: &AttachmentRecord) -> Result<(), CoreError> {
        let changed = || Changed::attachment(&record.key);
        match (&record.names, &request.names) {
            (None, _) => (),
            (Some(_), Some(_)) => tell(self.dirs(), &changed(), Absent::Start)?,
            (Some(_), None) => tell_if_there(self.dirs(), &changed()),
        }
        Ok(())
    }

    /// Takes back what an earlier attempt for the same key left, and refuses when it is alive.
    fn make_way(&mut self, key: &AttachmentKey) -> Result<(), CoreError> {
        let Some(row) = self.store_mut().read(|tx| tx.attachment(key))? else { return Ok(()) };
        if self.is_live(&row)? {
            return Err(CoreError::Exists {
                key: key.clone(),
                host_ifname: row.host_ifname.map(|name| name.to_string()).unwrap_or_default(),
            });
        }
        tracing::info!(attachment = %key, "taking back what an earlier attempt left");
        self.detach_locked(key).map(drop)
    }

    /// Writes the pending record with its leases and ports, in one transaction: after it nobody else can have them.
    fn begin(&mut self, request: &AttachRequest) -> Result<Begun, CoreError> {
        let random = random_mac()?;
        self.store_mut().write(|tx| {
            let (addresses, reclaimed) = lease(tx, request)?;
            let addresses = addressing::complete(addresses, request.network.gateway, request.default_route);
            let usual = match &request.network.overlay {
                Some(overlay) => Some(mac_of_key(&request.key, overlay.mac)),
                None => mac_of(&request.key, &addresses.leases),
            };
            let mac = request.mac.or(usual).unwrap_or(random);
            let mut record = begin_row(tx, record_of(request, addresses, mac))?;
            claim(tx, &request.key, &mut record.published)?;
            Ok(Begun { record, reclaimed })
        })
    }

    fn build(&mut self, request: &AttachRequest, record: &AttachmentRecord) -> Result<Attachment, CoreError> {
        refuse_listeners(&record.key, &record.published.ports)?;
        let mut kernel = Kernel::open(self, Some(&request.sandbox))?;
        let (network, bridge, _lock) =
            self.ensure_network(&mut kernel, &request.network, record.joining())?;
        let spec = spec_of(request, record);
        let mut plan = plan_attachment(&spec, record, &network, request.network.vlan.as_ref());
        plan.append(self.published_plan(record, &network));
        let applied = execute(&mut kernel, &plan)?;
        // The record last: what is ready has nothing more that could fail.
        let finished = kernel.link(&record.host_ifname).map_err(CoreError::from);
        match finished.and_then(|host| self.finish(record).map(|()| host)) {
            Ok(host) => {
                applied.keep();
                Ok(attachment_of(record, &network, bridge, &host))
            }
            Err(err) => {
                for left in applied.undo(&mut kernel) {
                    tracing::error!(%left, "not taken back");
                }
                Err(err)
            }
        }
    }

    fn published_plan(&self, record: &AttachmentRecord, network: &NetworkRecord) -> Plan {
        if record.published.ports.is_empty() {
            return Plan::default();
        }
        plan_published(&record.key, &record.published, Some(&network.bridge))
    }

    fn finish(&mut self, record: &AttachmentRecord) -> Result<(), CoreError> {
        let text = payload(&Held::Bridge(Box::new(record.clone())))?;
        self.store_mut()
            .write(|tx| tx.attachment_ready(&record.key, &text).map(drop).map_err(CoreError::from))
    }

    /// The network in the kernel and the records, and the shared lock that keeps it there.
    pub(crate) fn ensure_network(
        &mut self,
        kernel: &mut Kernel,
        spec: &NetworkSpec,
        joining: Joining<'_>,
    ) -> Result<(NetworkRecord, Link, NetworkLock), CoreError> {
        // A removal may come between the exclusive and the shared lock; three times in a row is a fight.
        for _ in 0..3 {
            let lock = NetworkLock::shared(self.dirs(), &spec.name)?;
            let observed = observe::network(self, kernel, spec, joining.leases)?;
            let mac = random_mac()?;
            let (plan, wanted) = plan_network(spec, joining, mac, &observed)?;
            if let (true, Some(had), Some(bridge)) = (plan.is_empty(), &observed.network, &observed.bridge)
                && *had == wanted
            {
                return Ok((wanted, bridge.clone(), lock));
            }
            drop(lock);
            self.make_network(kernel, spec, joining)?;
        }
        Err(CoreError::Missing { what: format!("network `{}` is removed as fast as it is made", spec.name) })
    }

    /// Makes the network what it should be for what is joining it, under its lock.
    pub(crate) fn make_network(
        &mut self,
        kernel: &mut Kernel,
        spec: &NetworkSpec,
        joining: Joining<'_>,
    ) -> Result<(), CoreError> {
        let _lock = NetworkLock::exclusive(self.dirs(), &spec.name)?;
        let mut observed = observe::network(self, kernel, spec, joining.leases)?;
        observed.orphans = self.orphans(kernel, &spec.name)?;
        let (plan, wanted) = plan_network(spec, joining, random_mac()?, &observed)?;
        let begun = self.begin_network(&wanted, &plan)?;
        let applied = match execute(kernel, &plan) {
            Ok(applied) => applied,
            // What could not be taken back is for `gc`, which finds it by the pending record.
            Err(err) if !err.left.is_empty() => return Err(err.into()),
            Err(err) => return Err(self.take_back_network(&spec.name, &begun, err.into())),
        };
        let recorded = payload(&wanted).and_then(|text| {
            self.store_mut().write(|tx| {
                tx.live_network_put(&wanted.name, Some(&wanted.bridge), &text).map_err(CoreError::from)
            })
        });
        match recorded {
            Ok(()) => applied.keep(),
            Err(err) => {
                let left = applied.undo(kernel);
                for left in &left {
                    tracing::error!(%left, "not taken back");
                }
                return Err(if left.is_empty() {
                    self.take_back_network(&spec.name, &begun, err)
                } else {
                    err
                });
            }
        }
        Ok(())
    }

    /// Records what is about to be made, before the kernel is touched: whoever is killed from here on leaves nothing that
    /// `gc` does not know of.
    fn begin_network(&mut self, wanted: &NetworkRecord, plan: &Plan) -> Result<NetworkBegun, CoreError> {
        let text = payload(&NetworkRecord { pending: true, ..wanted.clone() })?;
        let read = |(key, after)| sysctl::read(key).map(|before| (key.to_string(), before, after));
        let switches: Vec<_> =
            plan.host_wide_switches().map(read).collect::<Result<_, _>>().map_err(KernelError::from)?;
        self.store_mut().write(|tx| {
            let mut begun = NetworkBegun { had: tx.live_network(&wanted.name)?, ..NetworkBegun::default() };
            tx.live_network_put(&wanted.name, Some(&wanted.bridge), &text)?;
            for (family, link) in plan.closed_uplinks() {
                if tx.uplink_close(family, link)? {
                    begun.uplinks.push((family, link.clone()));
                }
            }
            for (key, before, after) in &switches {
                if before != after && tx.sysctl_save(key, before, after)? {
                    begun.switches.push(key.clone());
                }
            }
            Ok(begun)
        })
    }

    /// Makes the records what they were before [`Berth::begin_network`]. Gives `cause` back.
    fn take_back_network(&mut self, name: &NetworkName, begun: &NetworkBegun, cause: CoreError) -> CoreError {
        let done = self.store_mut().write(|tx| {
            match &begun.had {
                Some(row) => tx.live_network_put(name, row.bridge.as_ref(), &row.payload)?,
                None => drop(tx.live_network_remove(name)?),
            }
            for key in &begun.switches {
                tx.sysctl_forget(key)?;
            }
            for (family, link) in &begun.uplinks {
                tx.uplink_forget(*family, link)?;
            }
            Ok::<_, CoreError>(())
        });
        if let Err(err) = done {
            tracing::error!(error = %crate::error::Chain(&err), "record left behind; `berth gc` removes it");
        }
        cause
    }

    /// Host links of the network's attachments that are on no bridge.
    fn orphans(
        &mut self,
        kernel: &Kernel,
        network: &NetworkName,
    ) -> Result<Vec<(IfName, PortSpec)>, CoreError> {
        let mut orphans = Vec::new();
        for record in self.attachments()?.into_iter().filter(|record| record.key.network == *network) {
            let link = kernel.host().link_by_name(&record.host_ifname)?;
            let alias = attachment_alias(&record.key);
            if link.is_some_and(|link| link.master.is_none() && link.alias == Some(alias)) {
                orphans.push((record.host_ifname, record.port));
            }
        }
        Ok(orphans)
    }
}

/// Leases from berth's pools, or what the caller brought.
fn lease(tx: &Tx<'_>, request: &AttachRequest) -> Result<(Addresses, Vec<LeaseRow>), CoreError> {
    match &request.addressing {
        Addressing::Given(addresses) => Ok((addresses.clone(), Vec::new())),
        Addressing::Assigned(addresses) => {
            let (scope, mut forgotten) = (LeaseScope::new(&request.key.network, None), Vec::new());
            for address in addresses.leases.iter().map(|lease| lease.address.ip()) {
                if tx.lease_add(&scope, address, (&request.key, None), 0)? {
                    continue;
                }
                forgotten.extend(tx.lease(&scope, address)?.filter(|lease| lease.owner != request.key));
                tx.lease_remove(&scope, address, BootTime::now())?;
                tx.lease_add(&scope, address, (&request.key, None), 0)?;
            }
            Ok((addresses.clone(), forgotten))
        }
        Addressing::Pool { config, request, resolv_conf } => {
            let given = allocate(tx, config, request, BootTime::now(), &mut is_dead)?;
            let (routes, dns) = (config.routes.clone(), resolv_conf.clone());
            Ok((Addresses { leases: given.addresses, routes, dns }, given.reclaimed))
        }
        Addressing::Shared { pools, request } => {
            let given = allocate(tx, &pools(tx)?, request, BootTime::now(), &mut is_dead)?;
            Ok((Addresses { leases: given.addresses, ..Addresses::default() }, given.reclaimed))
        }
    }
}

/// Writes the pending row under the usual host link name, or the next that is free on the host and in the records.
fn begin_row(tx: &Tx<'_>, mut record: AttachmentRecord) -> Result<AttachmentRecord, CoreError> {
    let key = record.key.clone();
    let names = (0..=u8::MAX).map(|attempt| host_ifname(&key, attempt));
    for name in names.filter(|name| !link_exists(name)) {
        record.host_ifname = name.clone();
        let new = NewAttachment {
            key: record.key.clone(),
            sandbox: record.sandbox.map(|id| (record.sandbox_path.clone(), id)),
            host_ifname: Some(name),
            payload: payload(&Held::Bridge(Box::new(record.clone())))?,
        };
        match tx.attachment_begin(&new) {
            Ok(()) => return Ok(record),
            Err(BeginError::HostIfname { .. }) => (),
            Err(err) => return Err(err.into()),
        }
    }
    Err(CoreError::Missing { what: format!("no name is free for the host's end of {}", record.key) })
}

/// Claims the ports. One that another interface of the same container has already (a container on two networks,
/// published once) becomes a standby.
pub(crate) fn claim(tx: &Tx<'_>, key: &AttachmentKey, published: &mut Published) -> Result<(), CoreError> {
    // All at once, as nearly always; one after the other only to find out which of them stand by.
    match tx.ports_claim(key, &published.ports) {
        Err(ClaimError::Taken(taken)) if taken.holder.container == key.container => (),
        Err(ClaimError::Taken(taken)) => return Err(CoreError::PortTaken(taken)),
        Err(ClaimError::Store(err)) => return Err(err.into()),
        Ok(()) => return Ok(()),
    }
    let mut claimed = Vec::new();
    for port in std::mem::take(&mut published.ports) {
        claimed.push(port);
        match tx.ports_claim(key, &claimed) {
            Ok(()) => (),
            Err(ClaimError::Taken(taken))
                if taken.holder.container == key.container && taken.holder != *key =>
            {
                claimed.pop();
                published.standby.push(port);
            }
            Err(ClaimError::Taken(taken)) => return Err(CoreError::PortTaken(taken)),
            Err(ClaimError::Store(err)) => return Err(err.into()),
        }
    }
    published.ports = claimed;
    Ok(())
}

fn record_of(request: &AttachRequest, addresses: Addresses, mac: MacAddr) -> AttachmentRecord {
    let targets: Vec<IpAddr> = addresses.leases.iter().map(|lease| lease.address.ip()).collect();
    let Addresses { leases, routes, dns } = addresses;
    let peer = match &request.container_link {
        ContainerLink::Handed(peer) => Some(peer),
        ContainerLink::Up | ContainerLink::Down => None,
    };
    AttachmentRecord {
        version: AttachmentRecord::VERSION,
        key: request.key.clone(),
        bridge: request.network.bridge.clone(),
        // Chosen when the row is written.
        host_ifname: host_ifname(&request.key, 0),
        mac,
        port: PortSpec {
            // With br_netfilter, what a container sends to its own published port is translated on the bridge and goes
            // back out of the port it came by.
            hairpin: request.hairpin || !request.ports.is_empty(),
            // Not for a network without traffic between containers: the kernel would drop, between isolated ports, what
            // was translated on the bridge to a peer's published port (S15). The ruleset keeps those apart.
            isolated: request.port_isolation,
            apart: !request.network.reach.between_containers,
            trunk: request.network.vlan.as_ref().is_some_and(|vlan| !vlan.trunk.is_empty()),
            guard: guard_for(request.anti_spoofing, !leases.is_empty()),
        },
        published: Published {
            ports: request.ports.iter().flat_map(|port| port.resolve(&targets)).collect(),
            ..Published::default()
        },
        bandwidth: request.bandwidth,
        names: request.network.names.as_ref().map(|_| request.names.clone().unwrap_or_default()),
        peer: peer.cloned(),
        // An engine that takes the link itself has no sandbox yet.
        sandbox_path: if peer.is_none() { request.sandbox.path().to_owned() } else { PathBuf::new() },
        sandbox: peer.is_none().then(|| request.sandbox.id()),
        leases,
        routes,
        dns,
    }
}

fn spec_of(request: &AttachRequest, record: &AttachmentRecord) -> AttachmentSpec {
    AttachmentSpec {
        key: record.key.clone(),
        mac: record.mac,
        leases: record.leases.clone(),
        routes: record.routes.clone(),
        port: record.port,
        container_link: request.container_link.clone(),
        duplicate_detection: request.duplicate_detection,
        ports: record.published.ports.clone(),
        bandwidth: record.bandwidth,
    }
}

fn attachment_of(
    record: &AttachmentRecord,
    network: &NetworkRecord,
    bridge: Link,
    host: &Link,
) -> Attachment {
    let AttachmentRecord { key, host_ifname, mac, leases, routes, dns, published, sandbox_path, .. } =
        record.clone();
    Attachment {
        key,
        bridge: network.bridge.clone(),
        bridge_mac: bridge.mac.unwrap_or(network.mac),
        host_ifname,
        host_mac: host.mac.unwrap_or(network.mac),
        mac,
        mtu: host.mtu,
        addresses: Addresses { leases, routes, dns },
        sandbox_path,
        ports: published.ports,
    }
}

/// A record as the text the store keeps.
pub(crate) fn payload<T: serde::Serialize>(record: &T) -> Result<String, CoreError> {
    serde_json::to_string(record).map_err(|source| CoreError::Record { what: "a change".to_owned(), source })
}

fn random_mac() -> Result<MacAddr, CoreError> {
    let mut bytes = [0_u8; 6];
    random(&mut bytes)?;
    Ok(MacAddr::local(bytes))
}

/// Fills `bytes` from the kernel's random numbers.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), CoreError> {
    std::fs::File::open(Path::new("/dev/urandom"))
        .and_then(|mut file| std::io::Read::read_exact(&mut file, bytes))
        .map_err(|err| CoreError::Missing { what: format!("failed to read /dev/urandom: {err}") })
}
