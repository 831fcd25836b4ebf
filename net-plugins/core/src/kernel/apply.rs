//! Each step of a plan, in the kernel.

use berth_netlink::sysctl;
use berth_netlink::{
    AddrFlags, BridgeSpec, Link, LinkChange, LinkKind, Netlink, PortChange, VethSpec, VlanFlags, VlanTarget,
};
use berth_nft::{Batch, CommitError, NftSocket};

use super::{Kernel, KernelError, NO_DAD, await_packets, switch_write};
use crate::attachment::DuplicateDetection;
use crate::execute::{Apply, Undo};
use crate::flows::flush_added;
use crate::step::Step;

impl Apply for Kernel<'_> {
    type Error = KernelError;

    fn apply(&mut self, step: &Step) -> Result<Undo, KernelError> {
        match step {
            Step::BridgeAdd { name, mac, mtu, alias, vlan_filtering } => {
                let spec = BridgeSpec {
                    name: name.clone(),
                    mtu: *mtu,
                    mac: Some(*mac),
                    alias: Some(alias.clone()),
                    vlan_filtering: *vlan_filtering,
                    promisc: false,
                };
                let bridge = match self.host.bridge_add(&spec) {
                    Ok(bridge) => bridge,
                    Err(err) => {
                        let ours = |link: &Link| link.kind == LinkKind::Bridge && link.mac == Some(*mac);
                        return Err(self.after_half(name, ours, err));
                    }
                };
                self.indexes.insert(name.clone(), bridge.index);
                Ok(Undo::LinkDel(name.clone()))
            }
            Step::LinkAlias { link, alias } => {
                let index = self.index(link)?;
                self.host.link_set_alias(index, alias)?;
                Ok(Undo::Nothing)
            }
            Step::Promisc { link } => {
                let index = self.index(link)?;
                self.host.link_set_promisc(index, true)?;
                Ok(Undo::Nothing)
            }
            Step::Sysctl { key, value, host_wide } => Ok(switch_write(key, value, *host_wide)?),
            Step::AddrAdd { link, address, deprecated } => {
                let index = self.index(link)?;
                let flags = AddrFlags { deprecated: *deprecated, ..NO_DAD };
                let added = self.host.addr_add(index, *address, flags)?;
                Ok(if added {
                    Undo::AddrDel { link: link.clone(), address: *address }
                } else {
                    Undo::Nothing
                })
            }
            Step::AddrDel { link, address } => {
                let index = self.index(link)?;
                let deleted = self.host.addr_del(index, *address)?;
                Ok(if deleted {
                    Undo::AddrAdd { link: link.clone(), address: *address }
                } else {
                    Undo::Nothing
                })
            }
            Step::LinkUp { link } => {
                let index = self.index(link)?;
                self.host.link_set_up(index)?;
                Ok(Undo::Nothing)
            }
            Step::ElementsAdd(elements) => self.elements_add(elements),
            Step::VethAdd { host, alias, container, mac, mtu, bridge, hairpin, isolated } => {
                let master = self.index(bridge)?;
                let port = PortChange {
                    hairpin: hairpin.then_some(true),
                    isolated: isolated.then_some(true),
                    ..PortChange::default()
                };
                self.veth_add(&VethSpec {
                    host_name: host.clone(),
                    host_alias: Some(alias.clone()),
                    host_mac: None,
                    peer_name: container.clone(),
                    peer_mac: Some(*mac),
                    mtu: *mtu,
                    master: Some(master),
                    port,
                })
            }
            Step::PortAdd { port, bridge, hairpin, isolated } => {
                let (index, master) = (self.index(port)?, self.index(bridge)?);
                self.host.link_set_master(index, Some(master))?;
                let port = PortChange {
                    hairpin: Some(*hairpin),
                    isolated: Some(*isolated),
                    ..PortChange::default()
                };
                self.host.bridge_port_set(index, port)?;
                Ok(Undo::Nothing)
            }
            Step::VxlanAdd { overlay, alias, bridge } => self.vxlan_add(overlay, alias, bridge),
            Step::VxlanSet { overlay, alias, bridge } => {
                self.vxlan_set(overlay, alias, bridge)?;
                Ok(Undo::Nothing)
            }
            Step::VxlanDel { link } => {
                let index = self.index(link)?;
                self.host.link_del(index)?;
                self.indexes.remove(link);
                Ok(Undo::Nothing)
            }
            Step::BridgeSet { bridge, mac, mtu } => {
                let index = self.index(bridge)?;
                let change = LinkChange { mac: Some(*mac), mtu: Some(*mtu), ..LinkChange::default() };
                self.host.link_change(index, &change)?;
                Ok(Undo::Nothing)
            }
            Step::PortVlan { port, range: (first, last), pvid } => {
                let index = self.index(port)?;
                let flags = VlanFlags { pvid: *pvid, untagged: *pvid };
                self.host.bridge_vlan_add(VlanTarget::Port(index), *first..=*last, flags)?;
                Ok(Undo::Nothing)
            }
            Step::PortVlanDel { port, vid } => {
                let index = self.index(port)?;
                self.host.bridge_vlan_del(VlanTarget::Port(index), *vid..=*vid)?;
                Ok(Undo::Nothing)
            }
            Step::Shape { link, ifb, limits } => {
                self.shape(link, ifb, *limits)?;
                Ok(if limits.egress.is_some() { Undo::LinkDel(ifb.clone()) } else { Undo::Nothing })
            }
            Step::SandboxAddrAdd { link, address, duplicate_detection } => {
                let index = self.inside_index(link)?;
                let flags = AddrFlags { nodad: *duplicate_detection == DuplicateDetection::Off, ..NO_DAD };
                self.inside()?.1.addr_add(index, *address, flags)?;
                Ok(Undo::Nothing)
            }
            Step::SandboxSysctls(switches) => {
                let (sandbox, _) = self.inside()?;
                sandbox.run(|| {
                    switches.iter().try_for_each(|(key, value)| match sysctl::write(key, value) {
                        Err(err) if !err.is_unsupported() => Err(err),
                        _ => Ok(()),
                    })
                })??;
                Ok(Undo::Nothing)
            }
            Step::SandboxLinkUp { link, link_local } => {
                let index = self.inside_index(link)?;
                let (_, netlink) = self.inside()?;
                if !link_local {
                    // Before it is up, or it would have the address already.
                    let without = LinkChange { link_local: Some(false), ..LinkChange::default() };
                    netlink.link_change(index, &without)?;
                }
                let up = LinkChange { up: Some(true), arp_notify: Some(true), ..LinkChange::default() };
                netlink.link_change(index, &up)?;
                Ok(Undo::Nothing)
            }
            Step::SandboxRouteAdd { link, route } => {
                self.sandbox_route_add(link, route)?;
                Ok(Undo::Nothing)
            }
            Step::AwaitForwarding { link, port, bridge, addresses, gateways } => {
                let (port, bridge) = (self.index(port)?, self.index(bridge)?);
                let inside = (self.inside()?.1, self.inside_index(link)?, addresses.as_slice());
                let outside = [(&self.host, port, [].as_slice()), (&self.host, bridge, gateways.as_slice())];
                // What is sent before is lost: the container's first question or answer, or the host's. The next is a second
                // later, which is slow and no reason to fail.
                for (netlink, index, addresses) in outside.into_iter().chain([inside]) {
                    if let Err(err) = await_packets(netlink, index, addresses) {
                        tracing::warn!(%err, "not awaited");
                    }
                }
                Ok(Undo::Nothing)
            }
            Step::Announce { link, mac } => {
                // A neighbour that is not told asks sooner or later: no reason to fail.
                if let Err(err) = self.inside()?.1.link_announce(self.inside_index(link)?, *mac) {
                    tracing::warn!(%err, "not announced");
                }
                Ok(Undo::Nothing)
            }
            Step::ConntrackFlush(port) => {
                flush_added(&mut self.nft, port)?;
                Ok(Undo::Nothing)
            }
        }
    }

    fn undo(&mut self, undo: &Undo) -> Result<(), KernelError> {
        // The old sockets may be what failed; where no others are to be had, they are tried all the same.
        if let Ok(fresh) = Netlink::open() {
            self.host = fresh;
        }
        if let Ok(fresh) = NftSocket::open() {
            self.nft = fresh;
        }
        match undo {
            Undo::Nothing => (),
            Undo::LinkDel(name) => {
                self.indexes.remove(name);
                if let Some(link) = self.host.link_by_name(name)? {
                    self.host.link_del(link.index)?;
                }
            }
            Undo::SysctlRestore { key, value } => {
                // The switch of a link that is gone has gone with it.
                match sysctl::write(key, value) {
                    Err(err) if !err.is_unsupported() => return Err(err.into()),
                    _ => (),
                }
            }
            Undo::AddrDel { link, address } => {
                if let Some(link) = self.host.link_by_name(link)? {
                    self.host.addr_del(link.index, *address)?;
                }
            }
            Undo::AddrAdd { link, address } => {
                if let Some(link) = self.host.link_by_name(link)? {
                    self.host.addr_add(link.index, *address, NO_DAD)?;
                }
            }
            Undo::ElementsRemove(elements) => {
                let mut batch = Batch::default();
                elements.iter().cloned().for_each(|element| batch.remove(element));
                match self.nft.commit(&batch) {
                    Ok(()) | Err(CommitError::NoRuleset) => (),
                    Err(err) => return Err(err.into()),
                }
            }
        }
        Ok(())
    }
}
