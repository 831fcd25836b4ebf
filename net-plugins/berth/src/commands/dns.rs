//! `dns ls` and `dns query`: what the DNS server answers, and why.

use std::net::IpAddr;
use std::time::Duration;

use berth_core::Berth;
use berth_core::names::{CallError, EntryView, ExplainedView, Question, ask, call};
use berth_core::shown::Names;
use berth_store::Dirs;
use berth_types::NetworkName;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::{Doing as _, Failure};
use crate::output::{Colour, Out};

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// `dns ls`
pub(super) fn list(dirs: &Dirs, network: Option<&NetworkName>, out: &mut Out<'_>) -> Result<Exit, Failure> {
    const DOING: &str = "list names";
    let mut berth = super::open(dirs)?;
    let names = berth.names().doing(DOING)?;
    let network = network.map(|name| names.find_network(name));
    let mut entries = match ask(&dirs.run, "/v1/entries", PATIENCE) {
        Ok(text) => serde_json::from_slice::<Vec<EntryView>>(&text).doing(DOING)?,
        // Without names nobody has to serve them.
        Err(err) if err.is_nobody() && berth.served().doing(DOING)?.networks.is_empty() => Vec::new(),
        Err(err) => return Err(unserved(DOING, &err)),
    };
    entries.retain(|entry| network.as_ref().is_none_or(|name| entry.network == *name));
    show_list(&entries, &names, out)
}

fn unserved(doing: &str, err: &CallError) -> Failure {
    let failure = Failure::new(doing, err);
    match err.is_nobody() {
        true => failure.with_hint("start berthd with the role dns, or run `berth gc`, which starts it"),
        false => failure,
    }
}

fn show_list(entries: &[EntryView], names: &Names, out: &mut Out<'_>) -> Result<Exit, Failure> {
    const HEAD: &[&str] = &["NAME", "TYPE", "VALUE", "TTL", "NETWORK", "CONTAINER", "WHY"];
    if out.is_json() {
        out.json(&entries)?;
        return Ok(Exit::Fine);
    }
    let row = |entry: &EntryView| {
        let EntryView { network, name, kind, value, ttl, container, why } = entry;
        let shown = names.network(network).map(|shown| shown.name.clone());
        vec![
            name.clone(),
            kind.clone(),
            value.clone(),
            ttl.to_string(),
            shown.unwrap_or_else(|| network.to_string()),
            container.as_ref().map_or_else(|| "-".to_owned(), |id| id.short().to_owned()),
            why.clone(),
        ]
    };
    out.table(HEAD, entries.iter().map(row).collect(), "no names: no network has any")?;
    Ok(Exit::Fine)
}

/// What `dns query` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct QueryArgs {
    /// The name
    #[arg(value_name = "NAME")]
    name: String,
    /// Who asks: a container's name, the start of its id, or an address
    #[arg(long, value_name = "CONTAINER")]
    from: String,
    /// On which of its networks, where it is on several
    #[arg(long, value_name = "NAME")]
    network: Option<NetworkName>,
    /// The type of record
    #[arg(long = "type", value_name = "TYPE", default_value = "A")]
    kind: String,
}

#[derive(Serialize)]
struct Report<'a> {
    question: &'a Question,
    #[serde(flatten)]
    explained: &'a ExplainedView,
}

/// `dns query`
pub(super) fn query(dirs: &Dirs, args: &QueryArgs, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let doing = format!("find out how {} is answered", args.name);
    let from = asker(&mut super::open(dirs)?, args, &doing)?;
    let question = Question { from, name: args.name.clone(), kind: args.kind.to_ascii_uppercase() };
    let explained = call(&dirs.run, "/v1/explain", &question, PATIENCE);
    let explained: ExplainedView = explained.map_err(|err| unserved(&doing, &err))?;
    show_way(&question, &explained, out)
}

/// The address that the asker has on a network with names.
fn asker(berth: &mut Berth, args: &QueryArgs, doing: &str) -> Result<IpAddr, Failure> {
    if let Ok(addr) = args.from.parse() {
        return Ok(addr);
    }
    let names = berth.names().doing(doing)?;
    let network = args.network.as_ref().map(|name| names.find_network(name));
    let asked = args.from.to_ascii_lowercase();
    let members = berth.served().doing(doing)?.members;
    let here =
        members.iter().filter(|member| network.as_ref().is_none_or(|name| member.key.network == *name));
    let here: Vec<_> = here.collect();
    let by_name = here.iter().find(|member| member.names.contains(&asked));
    let by_number = || {
        here.iter().find(|member| !asked.is_empty() && member.key.container.as_str().starts_with(&args.from))
    };
    match by_name.or_else(by_number).and_then(|member| member.addrs.first()) {
        Some(addr) => Ok(*addr),
        None => {
            Err(Failure::plain(doing, format!("no container `{}` is on a network with names", args.from))
                .with_hint("`berth ps` lists containers, `berth dns ls` names"))
        }
    }
}

fn show_way(question: &Question, explained: &ExplainedView, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let ExplainedView { steps, outcome, answers, upstreams } = explained;
    let exit = match outcome.as_str() {
        "answered" | "no data" | "forwarded" => Exit::Fine,
        _ => Exit::Differs,
    };
    if out.is_json() {
        out.json(&Report { question, explained })?;
        return Ok(exit);
    }
    let Question { from, name, kind } = question;
    let head = out.coloured(Colour::Heading, &format!("{kind} {name}, asked by {from}"));
    out.line(head)?;
    for (number, step) in (1..).zip(steps) {
        out.line(format!("  {number}. {step}"))?;
    }
    let colour = if exit == Exit::Fine { Colour::Good } else { Colour::Warn };
    let outcome = out.coloured(colour, outcome);
    out.line(outcome)?;
    for answer in answers {
        out.line(format!("  {answer}"))?;
    }
    for upstream in upstreams {
        out.line(format!("  by {upstream}"))?;
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Reader;

    fn printed(reader: Reader, print: impl FnOnce(&mut Out<'_>) -> Result<Exit, Failure>) -> (String, Exit) {
        let mut bytes = Vec::new();
        let exit = print(&mut Out::new(&mut bytes, reader)).unwrap();
        (String::from_utf8(bytes).unwrap(), exit)
    }

    fn entry() -> EntryView {
        EntryView {
            network: "front".parse().unwrap(),
            name: "web".to_owned(),
            kind: "A".to_owned(),
            value: "10.80.0.2".to_owned(),
            ttl: 0,
            container: Some("0123456789abcdef".parse().unwrap()),
            why: "name of the container".to_owned(),
        }
    }

    fn explained(outcome: &str) -> ExplainedView {
        ExplainedView {
            steps: vec!["10.80.0.2 is web on front".to_owned(), "web is a name of front".to_owned()],
            outcome: outcome.to_owned(),
            answers: vec!["web. 0 IN A 10.80.0.2".to_owned()],
            upstreams: Vec::new(),
        }
    }

    fn question() -> Question {
        Question { from: "10.80.0.2".parse().unwrap(), name: "web".to_owned(), kind: "A".to_owned() }
    }

    #[test]
    fn names_are_listed_with_what_they_lead_to_and_why() {
        let names = Names::default();
        let (text, _) = printed(Reader::Plain, |out| show_list(&[entry()], &names, out));
        insta::assert_snapshot!(text, @r"
        NAME  TYPE  VALUE      TTL  NETWORK  CONTAINER     WHY
        web   A     10.80.0.2  0    front    0123456789ab  name of the container
        ");
        let (text, _) = printed(Reader::Json, |out| show_list(&[entry()], &names, out));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&json[0]["name"], &json[0]["container"]), (&"web".into(), &"0123456789abcdef".into()));
    }

    #[test]
    fn the_way_of_an_answer_is_told_in_order() {
        let (text, exit) = printed(Reader::Plain, |out| show_way(&question(), &explained("answered"), out));
        assert_eq!(exit, Exit::Fine);
        insta::assert_snapshot!(text, @r"
        A web, asked by 10.80.0.2
          1. 10.80.0.2 is web on front
          2. web is a name of front
        answered
          web. 0 IN A 10.80.0.2
        ");
        let (text, exit) = printed(Reader::Json, |out| show_way(&question(), &explained("refused"), out));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((exit, &json["question"]["kind"]), (Exit::Differs, &"A".into()));
    }
}
