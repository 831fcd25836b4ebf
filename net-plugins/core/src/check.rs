//! Check: whether an attachment is still what its record says. Changes nothing.

use berth_netlink::{LinkKind, Netlink, RouteFilter, Sandbox};
use berth_types::{AttachmentKey, Family};

use crate::attachment::AttachmentRecord;
use crate::berth::Berth;
use crate::elements;
use crate::error::CoreError;
use crate::network::NetworkRecord;
use crate::overlay::{self, OverlayFault};
use crate::published::Held;

impl Berth {
    /// Compares the attachment with the kernel; what differs comes back in sentences, nothing where all is well.
    ///
    /// Later plugins of a chain may have added routes and addresses or changed the container's MAC address: only what
    /// berth made is looked for.
    pub fn check(&mut self, key: &AttachmentKey, sandbox: &Sandbox) -> Result<Vec<String>, CoreError> {
        let Some((_, Held::Bridge(record))) = self.held_of(key)? else {
            return Ok(vec![format!("{key} has no record")]);
        };
        let mut wrong = self.check_host(&record)?;
        wrong.extend(self.check_rules(&record)?);
        wrong.extend(check_sandbox(&record, sandbox)?);
        Ok(wrong)
    }

    /// The part of [`Berth::check`] that needs no sandbox.
    pub fn check_host(&mut self, record: &AttachmentRecord) -> Result<Vec<String>, CoreError> {
        let network = self.network(&record.key.network)?;
        let addresses = network.as_ref().map(NetworkRecord::bridge_addresses).unwrap_or_default();
        let netlink = Netlink::open()?;
        let mut wrong = Vec::new();
        let bridge = netlink.link_by_name(&record.bridge)?;
        match &bridge {
            None => wrong.push(format!("bridge {} is gone", record.bridge)),
            Some(link) if link.kind != LinkKind::Bridge => {
                wrong.push(format!("{} is not a bridge", record.bridge))
            }
            Some(link) => {
                if !link.up {
                    wrong.push(format!("bridge {} is down", record.bridge));
                }
                let present = netlink.addrs(link.index)?;
                let lost = addresses.iter().filter(|net| !present.iter().any(|addr| addr.address == **net));
                wrong.extend(lost.map(|net| format!("bridge {} lacks {net}", record.bridge)));
            }
        }
        match netlink.link_by_name(&record.host_ifname)? {
            None => wrong.push(format!("Interface name {} not found on the host", record.host_ifname)),
            Some(link)
                if link.master.is_none() || link.master != bridge.as_ref().map(|bridge| bridge.index) =>
            {
                wrong.push(format!("{} is not a port of {}", record.host_ifname, record.bridge));
            }
            Some(link) if !link.up => wrong.push(format!("{} is down", record.host_ifname)),
            Some(_) => (),
        }
        if let Some(network) = network.filter(|network| network.overlay.is_some()) {
            let faults = overlay::faults(&network, &netlink.links()?).into_iter();
            wrong.extend(faults.map(|OverlayFault { link, what }| format!("{link} {what}")));
        }
        Ok(wrong)
    }

    /// Whether the ruleset holds everything the attachment needs.
    pub fn check_rules(&mut self, record: &AttachmentRecord) -> Result<Vec<String>, CoreError> {
        let mut wanted = elements::of_attachment(record);
        wanted.extend(elements::of_published(&record.key, &record.published));
        if let Some(network) = self.network(&record.key.network)? {
            wanted.extend(elements::of_network(&network));
        }
        let missing = crate::rules::missing(&wanted)?;
        Ok(missing.into_iter().map(|element| format!("the ruleset lacks {element}")).collect())
    }
}

fn check_sandbox(record: &AttachmentRecord, sandbox: &Sandbox) -> Result<Vec<String>, CoreError> {
    let netlink = Netlink::open_in(sandbox)?;
    let ifname = &record.key.ifname;
    let Some(link) = netlink.link_by_name(ifname)? else {
        return Ok(vec![format!("Interface name {ifname} not found")]);
    };
    let mut wrong = Vec::new();
    if link.kind != LinkKind::Veth {
        wrong.push(format!("{ifname} is not a veth"));
    }
    let present = netlink.addrs(link.index)?;
    for lease in
        record.leases.iter().filter(|lease| !present.iter().any(|addr| addr.address == lease.address))
    {
        wrong.push(format!("Failed to match addr {} on interface {ifname}", lease.address));
    }
    let mut routes = Vec::new();
    for family in [Family::V4, Family::V6] {
        routes.extend(netlink.routes(RouteFilter { family, table: None })?);
    }
    for route in &record.routes {
        let table = route.table.unwrap_or(254);
        let found = routes.iter().any(|have| {
            have.dst == route.dst && have.table == table && (route.gw.is_none() || have.gateway == route.gw)
        });
        if !found {
            wrong.push(format!("Expected Route {} not found in routing table", route.dst));
        }
    }
    Ok(wrong)
}
