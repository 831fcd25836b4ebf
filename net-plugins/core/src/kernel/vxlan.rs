//! Steps about the VXLAN device of an overlay.

use berth_netlink::{Link, LinkChange, VxlanSpec};
use berth_types::IfName;

use super::{Kernel, KernelError};
use crate::execute::Undo;
use crate::overlay::{OverlayPort, is_configured, port_settings};

impl Kernel<'_> {
    pub(super) fn vxlan_add(
        &mut self,
        overlay: &OverlayPort,
        alias: &str,
        bridge: &IfName,
    ) -> Result<Undo, KernelError> {
        let name = overlay.device();
        let master = self.index(bridge)?;
        let spec = VxlanSpec {
            name: name.clone(),
            vni: overlay.vni,
            port: overlay.port,
            local: overlay.local,
            mac: overlay.mac,
            mtu: overlay.mtu,
            ttl: None,
            alias: Some(alias.to_owned()),
            master: Some(master),
            port_settings: port_settings(overlay.flood),
        };
        let made = match self.host.vxlan_add(&spec) {
            Ok(link) => link,
            Err(err) => {
                let ours = |link: &Link| {
                    let named = link.alias.as_ref().is_none_or(|had| had == alias);
                    named && is_configured(link, overlay) && link.master == Some(master)
                };
                return Err(self.after_half(&name, ours, err));
            }
        };
        self.indexes.insert(name.clone(), made.index);
        Ok(Undo::LinkDel(name))
    }

    pub(super) fn vxlan_set(
        &mut self,
        overlay: &OverlayPort,
        alias: &str,
        bridge: &IfName,
    ) -> Result<(), KernelError> {
        let (index, master) = (self.index(&overlay.device())?, self.index(bridge)?);
        if self.host.link_by_index(index)?.is_none_or(|link| link.master != Some(master)) {
            self.host.link_set_master(index, Some(master))?;
        }
        let change = LinkChange {
            mtu: Some(overlay.mtu),
            alias: Some(alias.to_owned()),
            link_local: Some(false),
            port: port_settings(overlay.flood),
            ..LinkChange::default()
        };
        self.host.link_change(index, &change)?;
        Ok(())
    }
}
