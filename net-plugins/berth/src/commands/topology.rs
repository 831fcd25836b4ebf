//! `topology`: networks, the containers on them, and the nodes they are on, drawn.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use berth_core::{Berth, Held};
use berth_overlay::membership::Membership;
use berth_overlay::model::Occupant;
use berth_overlay::node::last_seen;
use serde::Serialize;

use crate::cli::TopologyFormat;
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::Out;

/// Everything, by network and by node.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Topology {
    networks: BTreeMap<String, Network>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Network {
    /// What it is: subnets, and the VNI of an overlay.
    about: Vec<String>,
    /// Its containers, by node; the node's own attachment is its presence.
    nodes: BTreeMap<String, Vec<Member>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Member {
    name: String,
    addresses: Vec<String>,
}

/// `topology`
pub(super) fn topology(
    berth: &mut Berth,
    format: TopologyFormat,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let topology = read(berth)?;
    if out.is_json() {
        out.json(&topology)?;
        return Ok(Exit::Fine);
    }
    let text = match format {
        TopologyFormat::Tree => topology.tree(),
        TopologyFormat::Dot => topology.dot(),
        TopologyFormat::Mermaid => topology.mermaid(),
    };
    out.bytes(text.as_bytes())?;
    Ok(Exit::Fine)
}

fn read(berth: &mut Berth) -> Result<Topology, Failure> {
    const DOING: &str = "read networks and nodes";
    let mut topology = Topology::default();
    let own = Membership::read(berth).doing(DOING)?;
    let here = own.map_or_else(|| "this host".to_owned(), |own| own.name.to_string());
    let names = berth.names().doing(DOING)?;
    for record in berth.networks().doing(DOING)? {
        let network = topology.networks.entry(record.name.to_string()).or_default();
        network.about = record.subnets.iter().map(ToString::to_string).collect();
        network.about.extend(record.overlay.as_ref().map(|overlay| format!("VNI {}", overlay.vni)));
        network.nodes.entry(here.clone()).or_default();
    }
    for (row, held) in berth.held().doing(DOING)? {
        let Held::Bridge(record) = held else { continue };
        let said = names.attachment(&row.key).map(|shown| shown.name.clone());
        let said = said.or_else(|| record.names.as_ref()?.names.first().cloned());
        let name = said.unwrap_or_else(|| row.key.container.short().to_owned());
        let addresses = record.leases.iter().map(|lease| lease.address.ip().to_string()).collect();
        let network = topology.networks.entry(row.key.network.to_string()).or_default();
        network.nodes.entry(here.clone()).or_default().push(Member { name, addresses });
    }
    let view = last_seen(berth).doing(DOING)?;
    for (name, seen) in view.networks() {
        let network = topology.networks.entry(name.to_string()).or_default();
        if let (true, Some(record)) = (network.about.is_empty(), seen.record()) {
            network.about = record.subnets.iter().map(|subnet| subnet.subnet.to_string()).collect();
            network.about.push(format!("VNI {}", record.vni));
        }
        for attachment in seen.attachments().filter(|attachment| attachment.node.as_str() != here) {
            let members = network.nodes.entry(attachment.node.to_string()).or_default();
            if let Occupant::Container { id, .. } = &attachment.of {
                let name = attachment.names.first().cloned().unwrap_or_else(|| id.short().to_owned());
                let addresses = attachment.addresses.iter().map(ToString::to_string).collect();
                members.push(Member { name, addresses });
            }
        }
    }
    topology.networks.values_mut().flat_map(|network| network.nodes.values_mut()).for_each(|all| all.sort());
    Ok(topology)
}

impl Topology {
    fn tree(&self) -> String {
        let mut text = String::new();
        for (name, network) in &self.networks {
            let _ = writeln!(text, "{name}  {}", network.about.join("  "));
            let last_node = network.nodes.len().saturating_sub(1);
            for (place, (node, members)) in network.nodes.iter().enumerate() {
                let (branch, below) = if place == last_node { ("└─", "  ") } else { ("├─", "│ ") };
                let _ = writeln!(text, "{branch} {node}");
                let last = members.len().saturating_sub(1);
                for (place, Member { name, addresses }) in members.iter().enumerate() {
                    let leaf = if place == last { "└─" } else { "├─" };
                    let _ = writeln!(text, "{below} {leaf} {name}  {}", addresses.join("  "));
                }
            }
        }
        text
    }

    fn dot(&self) -> String {
        let mut text = "graph berth {\n  node [shape=box];\n".to_owned();
        for (name, network) in &self.networks {
            let label = std::iter::once(name.clone()).chain(network.about.iter().cloned());
            let label = quoted(&label.collect::<Vec<_>>().join("\n"));
            let _ =
                writeln!(text, "  {} [shape=ellipse, label={label}];", quoted(&format!("network {name}")));
        }
        for (number, (node, rows)) in self.by_node().into_iter().enumerate() {
            let _ = writeln!(text, "  subgraph cluster_{number} {{\n    label={};", quoted(&node));
            for (network, Member { name, addresses }) in &rows {
                let label = std::iter::once(name).chain(addresses).cloned().collect::<Vec<_>>().join("\n");
                let id = quoted(&format!("{node} {network} {name}"));
                let _ = writeln!(text, "    {id} [label={}];", quoted(&label));
            }
            text.push_str("  }\n");
            for (network, Member { name, .. }) in &rows {
                let (from, to) = (format!("network {network}"), format!("{node} {network} {name}"));
                let _ = writeln!(text, "  {} -- {};", quoted(&from), quoted(&to));
            }
        }
        text.push_str("}\n");
        text
    }

    fn mermaid(&self) -> String {
        let mut text = "graph LR\n".to_owned();
        let number = |name: &str| self.networks.keys().position(|other| other == name).unwrap_or(0);
        for (name, network) in &self.networks {
            let label = std::iter::once(name.clone()).chain(network.about.iter().cloned());
            let label = escaped(&label.collect::<Vec<_>>().join("<br/>"));
            let _ = writeln!(text, "  net{}((\"{label}\"))", number(name));
        }
        let mut count = 0;
        for (place, (node, rows)) in self.by_node().into_iter().enumerate() {
            let _ = writeln!(text, "  subgraph node{place}[\"{}\"]", escaped(&node));
            let first = count;
            for (_, Member { name, addresses }) in &rows {
                let label = std::iter::once(name).chain(addresses).cloned().collect::<Vec<_>>().join("<br/>");
                let _ = writeln!(text, "    c{count}[\"{}\"]", escaped(&label));
                count += 1;
            }
            text.push_str("  end\n");
            for (offset, (network, _)) in rows.iter().enumerate() {
                let _ = writeln!(text, "  net{} --- c{}", number(network), first + offset);
            }
        }
        text
    }

    /// Who is on each node, with their networks.
    fn by_node(&self) -> BTreeMap<String, Vec<(String, Member)>> {
        let mut nodes: BTreeMap<String, Vec<(String, Member)>> = BTreeMap::new();
        for (network, Network { nodes: of_network, .. }) in &self.networks {
            for (node, members) in of_network {
                let rows = members.iter().map(|member| (network.clone(), member.clone()));
                nodes.entry(node.clone()).or_default().extend(rows);
            }
        }
        nodes
    }
}

/// As Graphviz reads it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// As Mermaid reads it; line breaks are tags there.
fn escaped(text: &str) -> String {
    text.replace('"', "#quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Topology {
        let member =
            |name: &str, address: &str| Member { name: name.into(), addresses: vec![address.into()] };
        let nodes = [
            ("n1".to_owned(), vec![member("db", "10.5.0.2"), member("web", "10.5.0.3")]),
            ("n2".to_owned(), vec![member("say \"hi\"", "10.5.0.18")]),
        ];
        let about = vec!["10.5.0.0/24".to_owned(), "VNI 77".to_owned()];
        Topology { networks: [("blue".to_owned(), Network { about, nodes: nodes.into() })].into() }
    }

    #[test]
    fn a_tree_is_for_people() {
        insta::assert_snapshot!(sample().tree(), @r#"
        blue  10.5.0.0/24  VNI 77
        ├─ n1
        │  ├─ db  10.5.0.2
        │  └─ web  10.5.0.3
        └─ n2
           └─ say "hi"  10.5.0.18
        "#);
    }

    #[test]
    fn graphs_quote_what_their_readers_would_take_for_something_else() {
        let (dot, mermaid) = (sample().dot(), sample().mermaid());
        assert!(dot.contains(r#""n2 blue say \"hi\"" [label="say \"hi\"\n10.5.0.18"];"#), "{dot}");
        assert!(dot.contains(r#""network blue" -- "n1 blue db";"#), "{dot}");
        assert!(mermaid.contains(r#"c2["say #quot;hi#quot;<br/>10.5.0.18"]"#), "{mermaid}");
        assert!(mermaid.contains("net0 --- c2"), "{mermaid}");
    }
}
