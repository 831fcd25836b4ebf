//! The path an answer takes, for people.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::forward::Sink;
use crate::respond::{Action, Origin, Responder, Transport};
use crate::server::Server;
use crate::shown::Explained;
use crate::wire::message::{Section, name_at, records};
use crate::wire::{Query, kind, rcode, text_of, u16_at, wire_of};
use crate::zone::{Found, Servers, Upstream, Verdict, Who, Why, Zone};

impl Explained {
    fn step(&mut self, text: impl Into<String>) {
        self.steps.push(text.into());
    }

    fn end(mut self, outcome: &str) -> Self {
        self.outcome = outcome.to_owned();
        self
    }
}

impl Server {
    /// What is answered to `name` and `kind` (`A`, `AAAA`, …) if it is asked from `from`, and how that comes about. What others
    /// have to answer they are asked.
    pub fn explain(&self, from: IpAddr, name: &str, kind: &str) -> Explained {
        let mut explained = Explained {
            steps: Vec::new(),
            outcome: String::new(),
            answers: Vec::new(),
            upstreams: Vec::new(),
        };
        let root = (name == ".").then(Vec::new);
        let (Some(wire), Some(kind)) = (root.or_else(|| wire_of(name)), kind::from_text(kind)) else {
            explained.step(format!("`{name}` or `{kind}` is nothing that can be asked for"));
            return explained.end("no answer");
        };
        let zone = self.shared.zone.load();
        let Some((network, host)) = self.seat(&zone, from) else {
            explained.step(format!("{from} is no member of any network here, nor the host"));
            return explained.end("no answer");
        };
        let who = if host { Who::host() } else { zone.who(&network, from).unwrap_or_else(Who::host) };
        let asker = if host { "the host" } else { "a member" };
        explained.step(format!("{from} is {asker}, at network `{network}`"));
        let query = Query::asking(&wire, kind);
        let mut found = Found::default();
        let verdict = zone.answer(&network, &who, &query, &mut found);
        if let Some(why) = found.why {
            explained.step(reason(why));
        }
        let outcome = match verdict {
            Verdict::Answer => {
                explained.answers = shown(&found);
                if explained.answers.is_empty() { "no data" } else { "answered" }
            }
            Verdict::NoName => "no such name",
            Verdict::Refused => "refused",
            Verdict::Forward(upstream) => {
                let origin = Origin { network: &network, source: from, transport: Transport::Tcp };
                return self.elsewhere(explained, upstream, &zone, origin, &query);
            }
        };
        explained.end(outcome)
    }

    /// The network that `from` would ask at, and whether it is the host.
    fn seat(&self, zone: &Zone, from: IpAddr) -> Option<(berth_types::NetworkName, bool)> {
        if let Some(network) = zone.networks_of(from).into_iter().next() {
            return Some((network, false));
        }
        let listening = self.listening();
        let own = listening.iter().find(|listening| listening.addr.ip() == from)?;
        Some((own.network.clone(), true))
    }

    fn elsewhere(
        &self,
        mut explained: Explained,
        upstream: Upstream,
        zone: &Zone,
        origin: Origin<'_>,
        query: &Query,
    ) -> Explained {
        let (servers, whose) = match upstream {
            Upstream::Listed(servers) => (Some(servers), "the servers of the domain, container or network"),
            Upstream::Host => (Option::clone(&self.shared.host.load()), "the host's servers"),
        };
        let Some(servers) = servers else {
            explained.step("the host has no servers");
            return explained.end("failed");
        };
        explained.upstreams = servers.addrs().to_vec();
        let shown: Vec<String> = servers.addrs().iter().map(SocketAddr::to_string).collect();
        explained.step(format!("{whose}: {}", shown.join(", ")));
        let Some((answer, kept)) = self.ask(zone, origin, query, servers) else {
            explained.step("nobody answered in time, or too many questions wait already");
            return explained.end("failed");
        };
        explained.step(if kept { "from the answers kept" } else { "asked now" });
        explained.answers = records_of(&answer, query);
        let code = u16_at(&answer, 2).map_or(0, |flags| flags & 0xf);
        let outcome = match code.to_be_bytes() {
            [_, rcode::NOERROR] if explained.answers.is_empty() => "no data",
            [_, rcode::NOERROR] => "forwarded",
            [_, rcode::NXDOMAIN] => "no such name",
            [_, rcode::REFUSED] => "refused",
            _ => "failed",
        };
        explained.end(outcome)
    }

    /// Asks as a client would. Says whether the answer had been kept.
    fn ask(
        &self,
        zone: &Zone,
        origin: Origin<'_>,
        query: &Query,
        servers: Arc<Servers>,
    ) -> Option<(Vec<u8>, bool)> {
        let mut message = [&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], query.name(), &[0]].concat();
        message.extend(query.kind.to_be_bytes());
        message.extend([0, 1]);
        let len = message.len();
        let mut buffer = message.clone();
        buffer.resize(usize::from(u16::MAX), 0);
        let mut responder = Responder::new(1);
        match responder.respond(&self.shared, zone, origin, (&mut buffer, len), |_| true) {
            Action::Send(len, _) => {
                buffer.truncate(len);
                Some((buffer, true))
            }
            Action::Silent(_) => None,
            Action::Forward(_) => {
                let (caller, answer) = mpsc::sync_channel(1);
                let source = (origin.source, Transport::Tcp);
                if !self.jobs.submit(&responder, servers, &message, source, Sink::Call(caller)) {
                    return None;
                }
                let limit = self.config.limits.deadline + Duration::from_secs(1);
                answer.recv_timeout(limit).ok().map(|answer| (answer, false))
            }
        }
    }
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::Member => "it is a name on a network of the asker",
        Why::HostName => "it is a name of the host: the network's gateway",
        Why::Reverse => "it is the address of a member, or of the gateway",
        Why::Service => "it is a service below the name of a member",
        Why::OwnDomain => "only members could have this name, and none has: it is not asked elsewhere",
        Why::OwnSubnet => "it is an address of this host's networks: it is not asked elsewhere",
        Why::SingleLabel => "it has no dot and no member has it: it is not asked elsewhere",
        Why::Class => "the class is not that of the Internet",
        Why::Internal => {
            "nobody here has it, and the asker is on internal networks only: it is not asked elsewhere"
        }
        Why::Elsewhere => "nobody here has it: others are asked",
        Why::Split => "it is in a domain with servers of its own",
    }
}

fn shown(found: &Found) -> Vec<String> {
    let Found { v4, v6, names, services, ttl: _, why: _ } = found;
    let mut texts: Vec<String> = v4.iter().map(|addr| format!("A {addr}")).collect();
    texts.extend(v6.iter().map(|addr| format!("AAAA {addr}")));
    texts.extend(names.iter().map(|name| format!("PTR {}", text_of(name))));
    texts.extend(services.iter().filter_map(|data| {
        let port = u16_at(data, 4)?;
        Some(format!("SRV 0 0 {port} {}", text_of(data.get(6..)?)))
    }));
    texts
}

/// The records of an answer of others: addresses and names as text, the rest by their size.
fn records_of(answer: &[u8], query: &Query) -> Vec<String> {
    let of_answer = records(answer, query.end).flatten().filter(|(section, _)| *section == Section::Answer);
    let text = |(_, record): (Section, crate::wire::message::Record)| {
        let data = answer.get(record.data..record.end)?;
        let shown = match (record.kind, data) {
            (kind::A, [a, b, c, d]) => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
            (kind::AAAA, data) => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string(),
            (kind::CNAME | kind::PTR | kind::NS | kind::DNAME, _) => text_of(&name_at(answer, record.data)?),
            _ => format!("({} bytes)", data.len()),
        };
        Some(format!("{} {shown}", kind::to_text(record.kind)))
    };
    of_answer.filter_map(text).collect()
}
