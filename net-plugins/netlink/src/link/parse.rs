//! From the kernel's message to a [`Link`]. Pure.

use berth_types::{IfName, MacAddr};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage, State,
};

use super::{BridgePort, Link, LinkKind, OperState, vxlan};

/// Reads `message`. The error is what is wrong with it.
pub(super) fn link(message: LinkMessage) -> Result<Link, String> {
    let LinkMessage { header, attributes, .. } = message;
    let mut name = None;
    let mut link = Link {
        index: header.index,
        name: placeholder(),
        kind: if header.link_layer_type == LinkLayerType::Loopback {
            LinkKind::Loopback
        } else {
            LinkKind::Device
        },
        mac: None,
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up),
        promisc: header.flags.contains(LinkFlags::Promisc),
        master: None,
        alias: None,
        peer_index: None,
        link_netnsid: None,
        oper_state: OperState::Unknown,
        port: None,
        vlan_filtering: None,
        vxlan: None,
    };
    for attribute in attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(IfName::new(text).map_err(|err| err.to_string())?),
            LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes).ok().map(MacAddr),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Link(index) => link.peer_index = Some(index),
            LinkAttribute::LinkNetNsId(id) => link.link_netnsid = Some(id),
            LinkAttribute::OperState(state) => link.oper_state = oper_state(state),
            LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|info| take_info(&mut link, info)),
            _ => (),
        }
    }
    link.name = name.ok_or("it has no name")?;
    Ok(link)
}

/// Stands in for the name until it is met; [`link`] never returns it.
fn placeholder() -> IfName {
    IfName::new("lo").expect("two letters are an interface name")
}

fn take_info(link: &mut Link, info: LinkInfo) {
    match info {
        LinkInfo::Kind(info_kind) => link.kind = kind(info_kind),
        LinkInfo::Data(InfoData::Bridge(settings)) => {
            link.vlan_filtering = settings.iter().find_map(|setting| match setting {
                InfoBridge::VlanFiltering(on) => Some(*on),
                _ => None,
            });
        }
        LinkInfo::Data(InfoData::Vxlan(settings)) => link.vxlan = Some(vxlan::read(&settings)),
        LinkInfo::PortData(InfoPortData::BridgePort(settings)) => link.port = Some(port(&settings)),
        _ => (),
    }
}

fn kind(kind: InfoKind) -> LinkKind {
    match kind {
        InfoKind::Bridge => LinkKind::Bridge,
        InfoKind::Veth => LinkKind::Veth,
        InfoKind::Vxlan => LinkKind::Vxlan,
        InfoKind::Ifb => LinkKind::Ifb,
        other => LinkKind::Other(other.to_string()),
    }
}

fn port(settings: &[InfoBridgePort]) -> BridgePort {
    let mut port = BridgePort::default();
    for setting in settings {
        match setting {
            InfoBridgePort::HairpinMode(on) => port.hairpin = *on,
            InfoBridgePort::Isolated(on) => port.isolated = *on,
            InfoBridgePort::Learning(on) => port.learning = *on,
            InfoBridgePort::UnicastFlood(on) => port.flood = *on,
            InfoBridgePort::MulticastFlood(on) => port.mcast_flood = *on,
            InfoBridgePort::BroadcastFlood(on) => port.bcast_flood = *on,
            InfoBridgePort::NeighSupress(on) => port.neigh_suppress = *on,
            _ => (),
        }
    }
    port
}

fn oper_state(state: State) -> OperState {
    match state {
        State::Up => OperState::Up,
        State::Dormant | State::Testing => OperState::Dormant,
        State::Down | State::LowerLayerDown | State::NotPresent => OperState::Down,
        _ => OperState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_a_usable_name_is_refused() {
        assert!(link(LinkMessage::default()).unwrap_err().contains("no name"));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName("a/b".to_owned()));
        assert!(link(message).is_err());
    }

    #[test]
    fn an_address_that_is_not_ethernet_is_none() {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName("tun0".to_owned()));
        message.attributes.push(LinkAttribute::Address(vec![10, 0, 0, 1]));
        assert_eq!(link(message).unwrap().mac, None);
    }
}
