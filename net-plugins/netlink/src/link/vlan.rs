//! VLANs of a bridge and its ports.

use std::ops::RangeInclusive;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{BridgeVlanInfoFlags, LinkMessage};
use rtnetlink::LinkBridgeVlan;
use rustix::io::Errno;

use super::create::VLAN_FILTERING_MISSING;
use super::{BridgeSpec, present};
use crate::error::NetlinkError;
use crate::{Netlink, Sandbox};

/// How a VLAN passes a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VlanFlags {
    /// Untagged frames that arrive belong to it.
    pub pvid: bool,
    /// Its frames leave untagged.
    pub untagged: bool,
}

impl VlanFlags {
    fn bits(self) -> BridgeVlanInfoFlags {
        let mut bits = BridgeVlanInfoFlags::empty();
        bits.set(BridgeVlanInfoFlags::Pvid, self.pvid);
        bits.set(BridgeVlanInfoFlags::Untagged, self.untagged);
        bits
    }
}

/// Whose VLANs are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VlanTarget {
    /// The port with this index.
    Port(u32),
    /// The bridge with this index, as an interface of the host (`self`).
    Bridge(u32),
}

impl VlanTarget {
    fn index(self) -> u32 {
        match self {
            Self::Port(index) | Self::Bridge(index) => index,
        }
    }
}

impl Netlink {
    /// Lets the VLANs `vids` (1 to 4094) pass. Adding one again changes its flags.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Unsupported`] if the kernel lacks VLAN filtering; [`NetlinkError::Invalid`] if the range is
    /// empty, out of bounds, or several are to be the one for untagged frames; [`NetlinkError::Kernel`].
    pub fn bridge_vlan_add(
        &self,
        target: VlanTarget,
        vids: RangeInclusive<u16>,
        flags: VlanFlags,
    ) -> Result<(), NetlinkError> {
        const OPERATION: &str = "add VLANs of link";
        let object = format_args!("number {}", target.index());
        let message = vlan_message(target, &vids, flags).map_err(|why| NetlinkError::Invalid {
            operation: OPERATION,
            object: object.to_string(),
            why,
        })?;
        self.request(RouteNetlinkMessage::SetLink(message), 0).map(drop).map_err(|failure| {
            if failure.errno() == Some(Errno::OPNOTSUPP) {
                VLAN_FILTERING_MISSING
            } else {
                failure.on(OPERATION, object)
            }
        })
    }

    /// Lets the VLANs `vids` no longer pass. False if the link is gone, or none of them passed.
    ///
    /// # Errors
    ///
    /// As [`Netlink::bridge_vlan_add`].
    pub fn bridge_vlan_del(
        &self,
        target: VlanTarget,
        vids: RangeInclusive<u16>,
    ) -> Result<bool, NetlinkError> {
        const OPERATION: &str = "delete VLANs of link";
        let object = format_args!("number {}", target.index());
        let message = vlan_message(target, &vids, VlanFlags::default())
            .map_err(|why| NetlinkError::Invalid { operation: OPERATION, object: object.to_string(), why })?;
        let outcome = self.request(RouteNetlinkMessage::DelLink(message), 0);
        present(outcome, &[Errno::NODEV, Errno::NOENT]).map_err(|failure| {
            if failure.errno() == Some(Errno::OPNOTSUPP) {
                VLAN_FILTERING_MISSING
            } else {
                failure.on(OPERATION, object)
            }
        })
    }
}

fn vlan_message(
    target: VlanTarget,
    vids: &RangeInclusive<u16>,
    flags: VlanFlags,
) -> Result<LinkMessage, &'static str> {
    let (first, last) = (*vids.start(), *vids.end());
    if first > last {
        return Err("the range of VLANs is empty");
    }
    if first == 0 || last > 4094 {
        return Err("VLANs are 1 to 4094");
    }
    if flags.pvid && first != last {
        return Err("only one VLAN can take untagged frames");
    }
    let mut builder = LinkBridgeVlan::new(target.index());
    if matches!(target, VlanTarget::Bridge(_)) {
        builder = builder.bridge_self();
    }
    builder = if first == last {
        builder.vlan(first, flags.bits())
    } else {
        builder.vlan_range_start(first, flags.bits()).vlan_range_end(last, flags.bits())
    };
    Ok(builder.build())
}

/// Whether this kernel can keep VLANs apart on a bridge. It is tried, in a namespace of its own that goes with it.
///
/// # Errors
///
/// What keeps it from being tried.
pub fn vlan_filtering_supported() -> Result<bool, NetlinkError> {
    let scratch = Sandbox::anonymous()?;
    let name = berth_types::IfName::new("probe").expect("five letters are an interface name");
    let spec = BridgeSpec { name, mtu: None, mac: None, alias: None, vlan_filtering: true, promisc: false };
    match Netlink::open_in(&scratch)?.bridge_add(&spec) {
        Ok(_) => Ok(true),
        Err(NetlinkError::Unsupported { .. }) => Ok(false),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_mean_nothing_are_refused() {
        let port = VlanTarget::Port(3);
        let pvid = VlanFlags { pvid: true, untagged: true };
        #[expect(clippy::reversed_empty_ranges, reason = "an empty range is what is refused")]
        let empty = 5..=4;
        for (vids, flags) in [
            (empty, VlanFlags::default()),
            (0..=3, VlanFlags::default()),
            (1..=4095, VlanFlags::default()),
            (1..=2, pvid),
        ] {
            assert!(vlan_message(port, &vids, flags).is_err(), "{vids:?}");
        }
        assert!(vlan_message(port, &(7..=7), pvid).is_ok());
        assert!(vlan_message(port, &(1..=4094), VlanFlags::default()).is_ok());
    }
}
