//! `overlay ping`: is each node reached through each network, and with packets as large as the network's?

use std::net::IpAddr;

use berth_core::Berth;
use berth_overlay::joined::Joined;
use berth_overlay::membership::Membership;
use berth_overlay::model::Occupant;
use berth_overlay::node::last_seen;
use berth_overlay::probe::{Echoes, probe};
use berth_overlay::view::NodeStatus;
use berth_types::{NetworkName, NodeName};
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::Out;

const DOING: &str = "reach the other nodes";

/// One way through one network.
#[derive(Debug, Serialize)]
struct Way {
    network: NetworkName,
    node: NodeName,
    /// The node's own address in the network.
    address: IpAddr,
    /// Between which tunnel ends.
    from: IpAddr,
    to: Option<IpAddr>,
    alive: bool,
    mtu: u32,
    sent: u16,
    received: u16,
    /// Microseconds.
    fastest_us: Option<u128>,
    /// Packets of the network's largest size.
    full_sent: u16,
    full_received: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// `overlay ping`
pub(super) fn ping(
    berth: &mut Berth,
    (network, node): (Option<&NetworkName>, Option<&NodeName>),
    count: u16,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let ways = ways(berth, network, node, count)?;
    if ways.is_empty() && (network.is_some() || node.is_some()) {
        return Err(Failure::plain(DOING, "no such node is on such a network that this host is on"));
    }
    let is_lost = ways.iter().any(|way| way.received < way.sent || way.full_received < way.full_sent);
    if out.is_json() {
        out.json(&ways)?;
    } else {
        out.table(
            HEAD,
            ways.iter().map(Way::row).collect(),
            "no other node is on a network that this host is on",
        )?;
    }
    Ok(if is_lost { Exit::Differs } else { Exit::Fine })
}

fn ways(
    berth: &mut Berth,
    network: Option<&NetworkName>,
    node: Option<&NodeName>,
    count: u16,
) -> Result<Vec<Way>, Failure> {
    let Some(membership) = Membership::read(berth).doing(DOING)? else {
        return Err(
            Failure::plain(DOING, "this host has joined no cluster").with_hint("join one: berth node join")
        );
    };
    let (view, joined) = (last_seen(berth).doing(DOING)?, Joined::all(berth).doing(DOING)?);
    let mut ways = Vec::new();
    for (name, joined) in joined.iter().filter(|(name, _)| network.is_none_or(|only| only == *name)) {
        let all = view.everything_of(name).into_iter().flat_map(|network| network.attachments());
        let nodes = all.filter(|one| one.of == Occupant::Node && one.node != membership.name);
        for one in nodes.filter(|one| node.is_none_or(|only| *only == one.node)) {
            let there = view.node(&one.node);
            let to =
                there.and_then(|node| berth_overlay::entries::vtep_of(node.node()?, joined.overlay.local));
            for address in &one.addresses {
                let [small, full] = probe(*address, joined.overlay.mtu, count).doing(DOING)?;
                let Echoes { sent, received, fastest, refused, size: _ } = small;
                ways.push(Way {
                    network: name.clone(),
                    node: one.node.clone(),
                    address: *address,
                    from: joined.overlay.local,
                    to,
                    alive: there.is_some_and(|node| node.status() == NodeStatus::Alive),
                    mtu: full.size,
                    sent,
                    received,
                    fastest_us: fastest.map(|fastest| fastest.as_micros()),
                    full_sent: full.sent,
                    full_received: full.received,
                    refused: refused.or(full.refused),
                });
            }
        }
    }
    Ok(ways)
}

const HEAD: &[&str] = &["NETWORK", "NODE", "ADDRESS", "PATH", "SMALL", "FASTEST", "FULL SIZE", "NOTE"];

impl Way {
    fn row(&self) -> Vec<String> {
        let to = self.to.map_or_else(|| "no tunnel end".to_owned(), |to| to.to_string());
        let fastest = self
            .fastest_us
            .map_or_else(|| "-".to_owned(), |micros| format!("{}.{:03} ms", micros / 1000, micros % 1000));
        let note = match (&self.refused, self.alive) {
            (Some(refused), _) => refused.clone(),
            (None, _) if self.received > 0 && self.full_received == 0 => {
                format!("packets of {} bytes are lost on the way: its link is smaller", self.mtu)
            }
            (None, false) => "the node is silent".to_owned(),
            (None, true) => "-".to_owned(),
        };
        vec![
            self.network.to_string(),
            self.node.to_string(),
            self.address.to_string(),
            format!("{} -> {to}", self.from),
            format!("{} of {}", self.received, self.sent),
            fastest,
            format!("{} of {} at {}", self.full_received, self.full_sent, self.mtu),
            note,
        ]
    }
}
