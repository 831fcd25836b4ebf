//! The names of other nodes' containers, for this node's DNS server. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use berth_core::names::{Elsewhere, ServiceName};
use berth_types::{AttachmentKey, ContainerId, NetworkName, NodeName};

use super::silence::Silence;
use crate::model::{Occupant, OverlayAttachment, Service};
use crate::view::View;

/// Everybody who is answered here and lives elsewhere, of the networks `joined` by this node.
pub fn everybody<'a>(
    view: &View,
    silence: &Silence,
    me: &NodeName,
    joined: impl IntoIterator<Item = &'a NetworkName>,
    now: Instant,
) -> BTreeMap<AttachmentKey, Elsewhere> {
    let mut all = BTreeMap::new();
    for network in joined.into_iter().filter_map(|name| view.network(name)) {
        for node in network.nodes().filter(|node| *node != me && !silence.is_over(node, now)) {
            all.extend(network.attachments_of(node).filter_map(|attachment| of(attachment)));
        }
    }
    all
}

/// What `attachment` is answered as, if it has a name.
pub fn of(attachment: &OverlayAttachment) -> Option<(AttachmentKey, Elsewhere)> {
    let OverlayAttachment { addresses, names, services, .. } = attachment;
    let key = key(attachment)?;
    let service = |Service { name, proto, port }: &Service| {
        Some(ServiceName { name: name.clone()?, proto: *proto, port: *port })
    };
    let elsewhere = Elsewhere {
        names: names.clone(),
        addrs: addresses.iter().copied().collect(),
        services: services.iter().filter_map(service).collect(),
    };
    (!elsewhere.names.is_empty()).then_some((key, elsewhere))
}

/// Under which key a container of another node is kept here. Two nodes may have containers of one number.
pub fn key(attachment: &OverlayAttachment) -> Option<AttachmentKey> {
    let Occupant::Container { id, ifname } = &attachment.of else { return None };
    let container = ContainerId::new(format!("{}..{id}", attachment.node)).ok()?;
    Some(AttachmentKey { network: attachment.network.clone(), container, ifname: ifname.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::samples::{attachment, named, network, node};
    use crate::agent::silence::GRACE;
    use crate::cluster::{Change, Entry, Revision};

    #[test]
    fn names_are_of_containers_elsewhere_on_nodes_that_are_heard_of() {
        let mut view = View::default();
        let entries = [
            Entry::Network(network("blue")),
            Entry::Node(node("n1", 1)),
            Entry::Node(node("n2", 2)),
            Entry::Known(node("n3", 3)),
            Entry::Attachment(named(attachment("n1", "c1", "10.0.0.2", 1), "here")),
            Entry::Attachment(named(attachment("n2", "c1", "10.0.0.3", 1), "web")),
            Entry::Attachment(attachment("n2", "c2", "10.0.0.4", 1)),
            Entry::Attachment(named(attachment("n3", "c1", "10.0.0.5", 1), "lost")),
        ];
        view.apply(Revision(1), entries.into_iter().map(Change::Put).collect());
        let (blue, me, now) = ("blue".parse().unwrap(), "n1".parse().unwrap(), Instant::now());
        let mut silence = Silence::default();
        silence.follow(&view, now);
        let names = |now| {
            let all = everybody(&view, &silence, &me, [&blue], now);
            all.into_iter()
                .map(|(key, one)| format!("{} {}", key.container, one.names[0]))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(now), ["n2..c1 web", "n3..c1 lost"]);
        assert_eq!(names(now + GRACE), ["n2..c1 web"]);
        assert_eq!(everybody(&view, &silence, &me, [], now).len(), 0, "of networks this node is on");
    }
}
