//! `node`: this host's place in a cluster, and the other nodes.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use berth_core::Berth;
use berth_overlay::membership::{ClusterPlace, EtcdPlace, Membership};
use berth_overlay::node::{self, JoinRequest};
use berth_overlay::view::{NodeStatus, NodeView, View};
use berth_types::NodeName;
use serde::Serialize;

use crate::cli::JoinArgs;
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::Out;

#[derive(Serialize)]
struct Joined<'a> {
    node: &'a NodeName,
    epoch: u64,
}

/// `node join`
pub(super) fn join(berth: &mut Berth, args: &JoinArgs, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let request = JoinRequest {
        name: args.name.clone(),
        cluster: place(args),
        address: args.address,
        underlay_mtu: args.mtu,
    };
    let Membership { name, epoch, .. } = node::join(berth, &request).doing("join the cluster")?;
    if out.is_json() {
        out.json(&Joined { node: &name, epoch })?;
    } else {
        out.line(format!("joined as node {name}"))?;
    }
    Ok(Exit::Fine)
}

fn place(args: &JoinArgs) -> ClusterPlace {
    // They are read by the daemon too, which is elsewhere.
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    if let Some(file) = &args.peers {
        return ClusterPlace::Peers(absolute(file));
    }
    ClusterPlace::Etcd(EtcdPlace {
        endpoints: args.etcd.clone(),
        ca: args.ca.as_ref().map(absolute),
        own: args.cert.as_ref().zip(args.key.as_ref()).map(|(cert, key)| (absolute(cert), absolute(key))),
        server_name: args.server_name.clone(),
        user: args.user.clone(),
        password_file: args.password_file.as_deref().map(Path::to_owned).as_ref().map(absolute),
    })
}

/// `node leave`
pub(super) fn leave(berth: &mut Berth, force: bool, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let name = node::leave(berth, force).doing("leave the cluster")?;
    out.line(format!("node {name} has left"))?;
    Ok(Exit::Fine)
}

/// `node rm`
pub(super) fn remove(berth: &mut Berth, name: &NodeName, out: &mut Out<'_>) -> Result<Exit, Failure> {
    node::remove(berth, name).doing(&format!("remove node {name}"))?;
    out.line(format!("removed node {name}"))?;
    Ok(Exit::Fine)
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    node: NodeName,
    /// Whether it is this host.
    own: bool,
    alive: bool,
    vteps: Vec<IpAddr>,
    underlay_mtu: u32,
    attachments: usize,
}

/// `node ls`
pub(super) fn list(berth: &mut Berth, out: &mut Out<'_>) -> Result<Exit, Failure> {
    const DOING: &str = "list nodes";
    let own = Membership::read(berth).doing(DOING)?.map(|membership| membership.name);
    let rows = rows(&node::last_seen(berth).doing(DOING)?, own.as_ref());
    if out.is_json() {
        out.json(&rows)?;
        return Ok(Exit::Fine);
    }
    let nothing = "no nodes: this host has joined no cluster, or has not seen it yet";
    out.table(HEAD, rows.iter().map(Row::cells).collect(), nothing)?;
    Ok(Exit::Fine)
}

const HEAD: &[&str] = &["NODE", "STATUS", "VTEP", "LINK MTU", "ATTACHMENTS"];

impl Row {
    fn cells(&self) -> Vec<String> {
        let vteps: Vec<String> = self.vteps.iter().map(IpAddr::to_string).collect();
        vec![
            if self.own { format!("{} (this host)", self.node) } else { self.node.to_string() },
            if self.alive { "alive" } else { "silent" }.to_owned(),
            vteps.join("\n"),
            self.underlay_mtu.to_string(),
            self.attachments.to_string(),
        ]
    }
}

fn rows(view: &View, own: Option<&NodeName>) -> Vec<Row> {
    let row = |(name, node): (&NodeName, &NodeView)| {
        let said = node.node()?;
        let (v4, v6) = (said.vtep4.map(IpAddr::V4), said.vtep6.map(IpAddr::V6));
        Some(Row {
            node: name.clone(),
            own: own == Some(name),
            alive: node.status() == NodeStatus::Alive,
            vteps: v4.into_iter().chain(v6).collect(),
            underlay_mtu: said.underlay_mtu,
            attachments: view.attachments_of(name).count(),
        })
    };
    view.nodes().filter_map(row).collect()
}
