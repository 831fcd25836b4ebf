//! The real kernel as what a plan is applied to.

mod apply;
mod error;
mod vxlan;

pub use error::KernelError;

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::time::Duration;

use berth_netlink::sysctl::{self, SysctlError, SysctlKey};
use berth_netlink::{AddrFlags, Link, LinkKind, Netlink, NetlinkError, RouteSpec, Sandbox, VethSpec};
use berth_nft::{Batch, CommitError, Element, NftSocket};
use berth_store::lock::RulesLock;
use berth_store::{AttachmentRow, AttachmentState, Dirs};
use berth_types::{IfName, Route};

use crate::attachment::Bandwidth;
use crate::berth::Berth;
use crate::elements;
use crate::error::CoreError;
use crate::execute::Undo;

/// Sockets into the host's network and, for an attachment, the sandbox's.
pub struct Kernel<'a> {
    host: Netlink,
    sandbox: Option<(&'a Sandbox, Netlink)>,
    nft: NftSocket,
    dirs: Dirs,
    indexes: HashMap<IfName, u32>,
    inside_indexes: HashMap<IfName, u32>,
}

impl<'a> Kernel<'a> {
    /// Opens the sockets a plan needs.
    pub fn open(berth: &Berth, sandbox: Option<&'a Sandbox>) -> Result<Self, CoreError> {
        let inside = sandbox.map(|sandbox| Ok::<_, NetlinkError>((sandbox, Netlink::open_in(sandbox)?)));
        Ok(Self {
            host: Netlink::open()?,
            sandbox: inside.transpose()?,
            nft: NftSocket::open()?,
            dirs: berth.dirs().clone(),
            indexes: HashMap::new(),
            inside_indexes: HashMap::new(),
        })
    }

    /// The socket into the host's network.
    pub fn host(&self) -> &Netlink {
        &self.host
    }

    /// A host link that must be there.
    pub fn link(&self, name: &IfName) -> Result<Link, KernelError> {
        self.host.link_by_name(name)?.ok_or_else(|| KernelError::LinkGone(name.clone()))
    }

    fn index(&mut self, name: &IfName) -> Result<u32, KernelError> {
        if let Some(index) = self.indexes.get(name) {
            return Ok(*index);
        }
        let index = self.link(name)?.index;
        self.indexes.insert(name.clone(), index);
        Ok(index)
    }

    fn inside(&self) -> Result<(&'a Sandbox, &Netlink), KernelError> {
        self.sandbox.as_ref().map(|(sandbox, netlink)| (*sandbox, netlink)).ok_or(KernelError::NoSandbox)
    }

    fn inside_index(&self, name: &IfName) -> Result<u32, KernelError> {
        if let Some(index) = self.inside_indexes.get(name) {
            return Ok(*index);
        }
        let (_, netlink) = self.inside()?;
        let link = netlink.link_by_name(name)?.ok_or_else(|| KernelError::LinkGone(name.clone()))?;
        Ok(link.index)
    }

    /// Adds elements. Where the ruleset is missing or of another version, lays it and fills it from the records.
    fn elements_add(&mut self, elements: &BTreeSet<Element>) -> Result<Undo, KernelError> {
        let mut batch = Batch::default();
        elements.iter().cloned().for_each(|element| batch.add(element));
        match self.nft.commit(&batch) {
            Err(CommitError::NoRuleset) => {
                lay_and_fill(&self.dirs, &mut self.nft)?;
                self.nft.commit(&batch)?;
            }
            other => other?,
        }
        Ok(Undo::ElementsRemove(elements.clone()))
    }

    fn veth_add(&mut self, spec: &VethSpec) -> Result<Undo, KernelError> {
        let (sandbox, _) = self.inside()?;
        let pair = match self.host.veth_add(spec, sandbox) {
            Ok(pair) => pair,
            Err(err) => {
                let ours = |link: &Link| {
                    let named = link.alias.is_some() && link.alias == spec.host_alias;
                    let unnamed = link.alias.is_none() && link.master.is_some() && link.master == spec.master;
                    link.kind == LinkKind::Veth && (named || unnamed)
                };
                return Err(self.after_half(&spec.host_name, ours, err));
            }
        };
        self.indexes.insert(spec.host_name.clone(), pair.host_index);
        self.inside_indexes.extend(pair.peer_index.map(|index| (spec.peer_name.clone(), index)));
        Ok(Undo::LinkDel(spec.host_name.clone()))
    }

    /// After a link could not be made: takes away what the kernel may have made of it, when only its answer was lost or
    /// the socket broke between two messages. Gives `cause` back.
    fn after_half(
        &mut self,
        name: &IfName,
        is_ours: impl Fn(&Link) -> bool,
        cause: NetlinkError,
    ) -> KernelError {
        if !matches!(cause, NetlinkError::NameTaken { .. }) {
            let tidied = Netlink::open().and_then(|fresh| {
                self.host = fresh;
                match self.host.link_by_name(name)?.filter(is_ours) {
                    Some(link) => self.host.link_del(link.index).map(drop),
                    None => Ok(()),
                }
            });
            if let Err(err) = tidied {
                tracing::error!(link = %name, error = %err, "may be left behind; `berth gc` removes it");
            }
        }
        cause.into()
    }

    fn shape(&mut self, link: &IfName, ifb: &IfName, limits: Bandwidth) -> Result<(), KernelError> {
        let index = self.index(link)?;
        if let Some((rate, burst)) = limits.ingress {
            self.host.tbf_set(index, rate, burst)?;
        }
        if let Some((rate, burst)) = limits.egress {
            let host = self.link(link)?;
            let ifb = self.host.ifb_add(ifb, host.alias.as_deref(), Some(host.mtu))?;
            self.host.link_set_up(ifb.index)?;
            self.host.tbf_set(ifb.index, rate, burst)?;
            self.host.ingress_redirect(index, ifb.index)?;
        }
        Ok(())
    }

    fn sandbox_route_add(&self, link: &IfName, route: &Route) -> Result<(), KernelError> {
        let (_, netlink) = self.inside()?;
        let oif = self.inside_index(link)?;
        // A container on two networks has two default routes: when one network goes, the other must still have its own.
        netlink.route_add_beside(&route_spec(route, oif))?;
        Ok(())
    }
}

/// Addresses of a gateway and of a container are nobody else's: the records see to it.
const NO_DAD: AddrFlags = AddrFlags { nodad: true, noprefixroute: false, deprecated: false };

/// How long a link or an address may take to come into effect; it is a matter of microseconds, or of milliseconds on a
/// machine that is busy.
const EFFECT_WAIT: Duration = Duration::from_millis(100);

/// Waits until the link with `index` passes packets and those for `addresses`, of its namespace, are taken in.
fn await_packets(netlink: &Netlink, index: u32, addresses: &[Ipv6Addr]) -> Result<(), NetlinkError> {
    netlink.link_await_up(index, EFFECT_WAIT)?;
    addresses.iter().try_for_each(|addr| netlink.address_await_local((*addr).into(), EFFECT_WAIT).map(drop))
}

/// A container's route as the kernel takes it, with berth's own protocol number.
pub(crate) fn route_spec(route: &Route, oif: u32) -> RouteSpec {
    let Route { dst, gw, mtu, advmss, priority, table, scope } = route.clone();
    let said = |value: u32| (value != 0).then_some(value);
    RouteSpec {
        gateway: gw,
        oif: Some(oif),
        table,
        scope,
        priority: said(priority),
        mtu: said(mtu),
        advmss: said(advmss),
        ..RouteSpec::new(dst)
    }
}

/// Lays the constant ruleset and adds every element the records know of.
pub(crate) fn lay_and_fill(dirs: &Dirs, nft: &mut NftSocket) -> Result<(), KernelError> {
    let refill = |err: CoreError| KernelError::Refill(Box::new(err));
    let _lock = RulesLock::exclusive(dirs).map_err(|err| refill(err.into()))?;
    Berth::open_plain(dirs).map_err(refill)?.lay_and_fill_locked(nft)
}

impl Berth {
    /// As [`lay_and_fill`], for who holds the rules lock.
    pub(crate) fn lay_and_fill_locked(&mut self, nft: &mut NftSocket) -> Result<(), KernelError> {
        let mut batch = Batch::default();
        let wanted = self.wanted_elements().map_err(|err| KernelError::Refill(Box::new(err)))?;
        wanted.into_iter().for_each(|element| batch.add(element));
        berth_nft::lay(nft)?;
        nft.commit(&batch)?;
        Ok(())
    }

    /// Every element the records ask for.
    pub fn wanted_elements(&mut self) -> Result<BTreeSet<Element>, CoreError> {
        let mut wanted = BTreeSet::new();
        for network in self.networks()? {
            wanted.extend(elements::of_network(&network));
        }
        let boot = self.boot().clone();
        let in_kernel = |row: &AttachmentRow| row.state == AttachmentState::Ready && row.boot_id == boot;
        let ready = self.held()?.into_iter().filter(|(row, _)| in_kernel(row));
        wanted.extend(ready.flat_map(|(_, held)| elements::of_held(&held)));
        wanted.extend(self.closed_uplinks()?);
        Ok(wanted)
    }
}

/// Writes a switch of the host. Started with `ipv6.disable=1`, a kernel has no switches for IPv6 on its links, and nothing
/// that they would have to keep off.
fn switch_write(key: &SysctlKey, value: &str, host_wide: bool) -> Result<Undo, SysctlError> {
    match sysctl::write(key, value) {
        Ok(before) if before == value => Ok(Undo::Nothing),
        Ok(before) => Ok(Undo::SysctlRestore { key: key.clone(), value: before }),
        Err(err) if err.is_unsupported() && key.is_of_ipv6() && !host_wide => Ok(Undo::Nothing),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use berth_types::Family;

    use super::*;
    use crate::switch;

    #[test]
    fn a_kernel_without_ipv6_needs_no_switches_for_it() {
        let nowhere = IfName::new("nosuch0").unwrap();
        let write = |family, host_wide| {
            switch_write(&switch::of_link(family, &nowhere, "forwarding"), "0", host_wide)
        };
        assert_eq!(write(Family::V6, false).unwrap(), Undo::Nothing);
        assert!(write(Family::V6, true).unwrap_err().is_unsupported());
        assert!(write(Family::V4, false).unwrap_err().is_unsupported());
    }
}
