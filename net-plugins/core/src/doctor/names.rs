//! What the DNS server answers against what the records say. Pure.

use super::{Finding, GC, Words};
use crate::names::{ListeningView, NamesState, ServedNetwork};

/// Compares.
pub(super) fn compare(state: &NamesState) -> Vec<Finding> {
    let served = &state.wanted.networks;
    if served.is_empty() && !state.is_there {
        return Vec::new();
    }
    if !state.is_there {
        // One that nobody is on needs no server.
        let used = |network: &&ServedNetwork| {
            state.wanted.members.iter().any(|member| member.key.network == network.name)
        };
        return served.iter().filter(used).map(|network| unserved(network, state)).collect();
    }
    let server = match &state.server {
        Ok(server) => server,
        Err(why) => {
            let words = Words {
                object: &"DNS server",
                what: format!("is there and does not tell what it answers: {why}"),
                cause: "berthd hangs, or is of another version",
                fix: "restart berthd".to_owned(),
            };
            return vec![words.person("names-server-silent")];
        }
    };
    let deaf = state.deaf().into_iter().map(|(network, addr)| {
        Words {
            object: &format_args!("network {network}"),
            what: format!("has names, and nobody listens at its gateway {addr}"),
            cause: "the address was taken off the bridge, or the bridge was deleted",
            fix: GC.to_owned(),
        }
        .repairable("names-deaf")
    });
    let (missing, stale) = state.differing();
    let missing = missing.into_iter().map(|key| {
        Words {
            object: &key,
            what: "has names that are not answered".to_owned(),
            cause: "the server was not told: whoever attached it was killed",
            fix: GC.to_owned(),
        }
        .repairable("names-missing")
    });
    let stale = stale.into_iter().map(|key| {
        Words {
            object: &key,
            what: "is gone, and its names are still answered".to_owned(),
            cause: "the server was not told: whoever detached it was killed",
            fix: GC.to_owned(),
        }
        .repairable("names-stale")
    });
    let elsewhere = server.listening.iter().filter(|one| one.addr.port() != one.wanted);
    deaf.chain(missing).chain(stale).chain(elsewhere.map(alternate)).collect()
}

/// Nobody serves a network. Where an engine declared it, its engine's daemon is to be started, and without it only names
/// of elsewhere are missed.
fn unserved(network: &ServedNetwork, state: &NamesState) -> Finding {
    let declared = state.declared.contains(&network.name);
    let fix = match declared {
        true => "start berthd with the role dns",
        false => "berth gc, which starts it; so does the next attach",
    };
    let words = Words {
        object: &format_args!("network {}", network.name),
        what: "has names, and no DNS server runs".to_owned(),
        cause: "berthd was stopped or killed",
        fix: fix.to_owned(),
    };
    if declared { words.note("names-unserved") } else { words.repairable("names-unserved") }
}

fn alternate(one: &ListeningView) -> Finding {
    let ListeningView { network, addr, wanted } = one;
    Words {
        object: &format_args!("network {network}"),
        what: format!(
            "is answered on port {} of {}, and what is sent to port {wanted} is led there",
            addr.port(),
            addr.ip()
        ),
        cause: "another program of the host listens on that port of this address, or of every address",
        fix: format!("nothing has to be done; the other program is in: ss -lunpt 'sport = :{wanted}'"),
    }
    .note("names-alternate-port")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::names::{Served, ServedMember, ServedView};

    fn network() -> ServedNetwork {
        ServedNetwork {
            name: "n0".parse().unwrap(),
            called: vec!["n0".to_owned()],
            listeners: ["10.80.0.1".parse().unwrap()].into(),
            bridge: "br0".parse().unwrap(),
            subnets: BTreeSet::new(),
            internal: false,
            domain: "berth.internal".to_owned(),
            ttl: 0,
            servers: Vec::new(),
            split: Vec::new(),
        }
    }

    fn member(container: &str) -> ServedMember {
        let key = berth_types::AttachmentKey {
            network: "n0".parse().unwrap(),
            container: container.parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        };
        ServedMember {
            record: key.clone(),
            key,
            names: Vec::new(),
            addrs: Vec::new(),
            servers: Vec::new(),
            services: Vec::new(),
            elsewhere: false,
        }
    }

    fn state(members: &[&str], known: &[&str], ports: &[u16]) -> NamesState {
        let listening = |port: &u16| ListeningView {
            network: "n0".parse().unwrap(),
            addr: (std::net::Ipv4Addr::new(10, 80, 0, 1), *port).into(),
            wanted: 53,
        };
        NamesState {
            wanted: Served {
                networks: vec![network()],
                members: members.iter().map(|id| member(id)).collect(),
            },
            declared: BTreeSet::new(),
            server: Ok(ServedView {
                listening: ports.iter().map(listening).collect(),
                members: known.iter().map(|id| member(id).record).collect(),
            }),
            is_there: true,
        }
    }

    fn codes(state: &NamesState) -> Vec<&'static str> {
        compare(state).iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn a_server_that_agrees_with_the_records_is_fine() {
        assert_eq!(codes(&state(&["c1"], &["c1"], &[53])), Vec::<&str>::new());
        let nothing = NamesState {
            wanted: Served::default(),
            declared: BTreeSet::new(),
            server: Err("nobody".to_owned()),
            is_there: false,
        };
        assert_eq!(codes(&nothing), Vec::<&str>::new());
    }

    #[test]
    fn every_difference_has_a_code() {
        assert_eq!(codes(&state(&["c1"], &[], &[53])), ["names-missing"]);
        assert_eq!(codes(&state(&[], &["c1"], &[53])), ["names-stale"]);
        assert_eq!(codes(&state(&[], &[], &[])), ["names-deaf"]);
        assert_eq!(codes(&state(&[], &[], &[5353])), ["names-alternate-port"]);
        let silent = NamesState { server: Err("hangs".to_owned()), ..state(&["c1"], &[], &[]) };
        assert_eq!(codes(&silent), ["names-server-silent"]);
        let gone = NamesState { is_there: false, ..silent };
        assert_eq!(codes(&gone), ["names-unserved"]);
        assert_eq!(compare(&gone)[0].severity, super::super::Severity::Repairable);
        let unused =
            NamesState { wanted: Served { members: Vec::new(), ..gone.wanted.clone() }, ..gone.clone() };
        assert_eq!(codes(&unused), Vec::<&str>::new());
        let declared = NamesState { declared: ["n0".parse().unwrap()].into(), ..gone };
        assert_eq!(compare(&declared)[0].severity, super::super::Severity::Note);
    }
}
