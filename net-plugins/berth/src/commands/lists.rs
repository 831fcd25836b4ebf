//! `network ls`, `network inspect`, `ps`, `ports`: what the records say.

use std::collections::BTreeSet;

use berth_core::Berth;
use berth_types::NetworkName;
use serde::Serialize;

use super::elsewhere::{self, Elsewhere};
use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::{Colour, Out};
use crate::views::{AttachmentView, NetworkView, PortView};

/// `network ls`
pub(super) fn networks(berth: &mut Berth, out: &mut Out<'_>) -> Result<Exit, Failure> {
    const DOING: &str = "list networks";
    let records = berth.networks().doing(DOING)?;
    let held = berth.held().doing(DOING)?;
    let names = berth.names().doing(DOING)?;
    let here = records.iter().map(|record| record.name.clone()).collect();
    let others = elsewhere::all(berth, &here, DOING)?.into_iter().map(Listed::Elsewhere);
    let view = |record| Listed::Here(Box::new(NetworkView::new(record, &held).named(&names)));
    let views: Vec<Listed> = records.into_iter().map(view).chain(others).collect();
    list(out, NetworkView::HEAD, &views, Listed::row, "no networks: the first attach to one makes it")
}

/// A network of this host, or one of its cluster.
#[derive(Serialize)]
#[serde(untagged)]
enum Listed {
    Here(Box<NetworkView>),
    Elsewhere(Elsewhere),
}

impl Listed {
    fn row(&self) -> Vec<String> {
        match self {
            Self::Here(network) => network.row(),
            Self::Elsewhere(network) => network.row(),
        }
    }
}

/// `network inspect`
pub(super) fn inspect(berth: &mut Berth, name: &NetworkName, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let doing = format!("inspect network {name}");
    let names = berth.names().doing(&doing)?;
    let name = &names.find_network(name);
    let Some(record) = berth.network(name).doing(&doing)? else {
        let others = elsewhere::all(berth, &BTreeSet::new(), &doing)?;
        let found = others.into_iter().find(|network| network.name() == name);
        return show_elsewhere(&found.ok_or_else(|| unknown(&doing))?, out);
    };
    let mut held = berth.held().doing(&doing)?;
    held.retain(|(row, _)| row.key.network == *name);
    let network = NetworkView::new(record, &held).named(&names);
    let view = |held| AttachmentView::new(held).named(&names);
    let attached: Vec<AttachmentView> = held.into_iter().map(view).collect();
    show(&network, &attached, out)
}

fn show(network: &NetworkView, attached: &[AttachmentView], out: &mut Out<'_>) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Whole<'a> {
        network: &'a NetworkView,
        attached: &'a [AttachmentView],
    }
    if out.is_json() {
        out.json(&Whole { network, attached })?;
        return Ok(Exit::Fine);
    }
    facts(network.facts(), out)?;
    out.line("")?;
    out.table(
        AttachmentView::HEAD,
        attached.iter().map(AttachmentView::row).collect(),
        "nobody is attached",
    )?;
    Ok(Exit::Fine)
}

fn show_elsewhere(network: &Elsewhere, out: &mut Out<'_>) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Whole<'a> {
        network: &'a Elsewhere,
        attached: [(); 0],
    }
    if out.is_json() {
        out.json(&Whole { network, attached: [] })?;
    } else {
        facts(network.facts(), out)?;
    }
    Ok(Exit::Fine)
}

fn facts(facts: Vec<(&'static str, String)>, out: &mut Out<'_>) -> Result<(), Failure> {
    for (label, value) in facts {
        let label = out.coloured(Colour::Quiet, &format!("{label:<9}"));
        out.line(format!("{label} {}", value.replace('\n', ", ")))?;
    }
    Ok(())
}

/// `ps`
pub(super) fn attachments(
    berth: &mut Berth,
    network: Option<&NetworkName>,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let held = berth.held().doing("list attachments")?;
    let names = berth.names().doing("list attachments")?;
    let network = network.map(|name| names.find_network(name));
    let asked =
        held.into_iter().filter(|(row, _)| network.as_ref().is_none_or(|name| row.key.network == *name));
    let views: Vec<AttachmentView> = asked.map(|held| AttachmentView::new(held).named(&names)).collect();
    list(out, AttachmentView::HEAD, &views, AttachmentView::row, "nothing is attached")
}

/// `ports`
pub(super) fn ports(
    berth: &mut Berth,
    network: Option<&NetworkName>,
    out: &mut Out<'_>,
) -> Result<Exit, Failure> {
    let held = berth.held().doing("list published ports")?;
    let names = berth.names().doing("list published ports")?;
    let network = network.map(|name| names.find_network(name));
    let asked =
        held.into_iter().filter(|(row, _)| network.as_ref().is_none_or(|name| row.key.network == *name));
    let mut views: Vec<PortView> = asked
        .flat_map(|(row, held)| {
            let ports = held.published().ports.clone().into_iter();
            let names = &names;
            ports.map(move |port| PortView::new(row.key.clone(), port).named(names))
        })
        .collect();
    views.sort_by_key(PortView::order);
    list(out, PortView::HEAD, &views, PortView::row, "no ports are published")
}

fn list<T: Serialize>(
    out: &mut Out<'_>,
    head: &[&str],
    views: &[T],
    row: impl Fn(&T) -> Vec<String>,
    nothing: &str,
) -> Result<Exit, Failure> {
    if out.is_json() {
        out.json(&views)?
    } else {
        out.table(head, views.iter().map(row).collect(), nothing)?
    }
    Ok(Exit::Fine)
}

/// No network of that name.
pub(super) fn unknown(doing: &str) -> Failure {
    Failure::plain(doing, "there is no such network").with_hint("`berth network ls` lists them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Reader;
    use crate::views::samples;

    fn printed(reader: Reader, print: impl FnOnce(&mut Out<'_>) -> Result<Exit, Failure>) -> String {
        let mut bytes = Vec::new();
        print(&mut Out::new(&mut bytes, reader)).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn ps_shows_everything_about_an_attachment_in_one_row() {
        let views = [samples::attachment(), samples::foreign()].map(AttachmentView::new);
        let table = |out: &mut Out<'_>| list(out, AttachmentView::HEAD, &views, AttachmentView::row, "");
        insta::assert_snapshot!("ps_terminal", printed(Reader::Terminal { colours: false }, table));
        insta::assert_snapshot!("ps_plain", printed(Reader::Plain, table));
    }

    #[test]
    fn ports_show_who_holds_them() {
        let (row, held) = samples::attachment();
        let mut views: Vec<PortView> =
            held.published().ports.iter().map(|port| PortView::new(row.key.clone(), *port)).collect();
        views.sort_by_key(PortView::order);
        let table = |out: &mut Out<'_>| list(out, PortView::HEAD, &views, PortView::row, "");
        insta::assert_snapshot!("ports_plain", printed(Reader::Plain, table));
        insta::assert_snapshot!("ports_json", printed(Reader::Json, table));
    }

    #[test]
    fn inspect_shows_the_network_and_who_is_on_it() {
        let network = NetworkView::new(samples::network(), &[samples::attachment()]);
        let attached = [AttachmentView::new(samples::attachment())];
        insta::assert_snapshot!(
            "inspect_plain",
            printed(Reader::Plain, |out| show(&network, &attached, out))
        );
    }

    #[test]
    fn an_empty_list_is_an_empty_array_in_json() {
        let none: [NetworkView; 0] = [];
        assert_eq!(
            printed(Reader::Json, |out| list(out, NetworkView::HEAD, &none, NetworkView::row, "")),
            "[]\n"
        );
    }
}
