//! `-p`: Docker's bindings as the core's requests.

use std::net::IpAddr;

use berth_core::attachment::AttachmentRecord;
use berth_core::request::{PortChoice, PortRequest, PublishRequest};
use berth_plugin_http::Refusal;
use berth_types::Proto;
use ipnetwork::IpNetwork;

use crate::option::shortened;
use crate::wire::{Binding, Options};

const PORTMAP: &str = "com.docker.network.portmap";

/// Where the kernel takes ports for outgoing connections from, and Docker for `-p 80`.
const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The bindings among a call's options.
pub(crate) fn bindings(options: &Options) -> Result<Vec<Binding>, Refusal> {
    let Some(value) = options.get(PORTMAP).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    serde_json::from_value(value.clone())
        .map_err(|err| Refusal::new(format!("`{PORTMAP}` cannot be read: {err}")))
}

/// What is to be published for `record`. `default_addr` is where bindings go that name no address of the host.
pub(crate) fn request(
    record: &AttachmentRecord,
    bindings: &[Binding],
    default_addr: Option<IpAddr>,
) -> Result<PublishRequest, Refusal> {
    let targets: Vec<IpNetwork> = record.leases.iter().map(|lease| lease.address).collect();
    let (mut ports, mut choices) = (Vec::new(), Vec::new());
    for binding in bindings {
        match parse(binding, default_addr)? {
            Wanted::Port(port) => ports.push(port),
            Wanted::Choice(choice) => choices.push(choice),
        }
    }
    let ports = joined(ports);
    let addrs: Vec<IpAddr> = targets.iter().map(IpNetwork::ip).collect();
    let all = ports.iter().copied().chain(choices.iter().map(|choice| choice.at(choice.first)));
    for port in all {
        if port.resolve(&addrs).is_empty() {
            let place = port.host_addr.map_or_else(|| "the host".to_owned(), |addr| addr.to_string());
            return Err(Refusal::new(format!(
                "port {}/{} cannot be published on {place}: the container has no address of that family on this network",
                port.container_port, port.proto
            )));
        }
    }
    Ok(PublishRequest {
        key: record.key.clone(),
        ports,
        choices,
        targets,
        masquerade_hairpin: true,
        hairpin_port: true,
        masquerade_all: false,
        link: Some(record.bridge.clone()),
        sandbox: None,
    })
}

/// Ports in a row as one range: Docker lists each by itself.
fn joined(mut ports: Vec<PortRequest>) -> Vec<PortRequest> {
    ports.sort_by_key(|port| (port.proto, port.host_addr, port.host_port));
    let mut joined: Vec<PortRequest> = Vec::new();
    for port in ports {
        match joined.last_mut() {
            Some(last)
                if (last.proto, last.host_addr) == (port.proto, port.host_addr)
                    && last.host_port.checked_add(last.count) == Some(port.host_port)
                    && last.container_port.checked_add(last.count) == Some(port.container_port) =>
            {
                last.count += 1;
            }
            _ => joined.push(port),
        }
    }
    joined
}

enum Wanted {
    Port(PortRequest),
    Choice(PortChoice),
}

fn parse(binding: &Binding, default_addr: Option<IpAddr>) -> Result<Wanted, Refusal> {
    let Binding { proto, port, host_addr, host_port, host_port_end } = binding;
    let proto = Proto::from_number(*proto)
        .ok_or_else(|| Refusal::new(format!("protocol {proto} has no ports: tcp, udp and sctp have")))?;
    if *port == 0 {
        return Err(Refusal::new("port 0 of a container cannot be published"));
    }
    let host_addr = match host_addr.as_str() {
        "" => default_addr,
        text => {
            let addr = text.parse::<IpAddr>();
            Some(addr.map_err(|_| Refusal::new(format!("`{}` is no address of a host", shortened(text))))?)
        }
    };
    let (container_port, first) = (*port, *host_port);
    let last = if *host_port_end == 0 { first } else { *host_port_end };
    if last < first {
        return Err(Refusal::new(format!("port range {first}-{last} ends before it begins")));
    }
    if first == last && first != 0 {
        return Ok(Wanted::Port(PortRequest {
            proto,
            host_addr,
            host_port: first,
            container_port,
            count: 1,
        }));
    }
    let (first, last, start) = if first == 0 { ephemeral() } else { (first, last, first) };
    Ok(Wanted::Choice(PortChoice { proto, host_addr, container_port, first, last, start }))
}

/// Where a free port of the host is looked for, and from where on: each time another place, so that a port that was just
/// given up is not the next container's.
fn ephemeral() -> (u16, u16, u16) {
    let text = std::fs::read_to_string(LOCAL_RANGE).unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().map(|word| word.parse::<u16>().ok());
    let (first, last) = match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(first), Some(last)) if first > 0 && first <= last => (first, last),
        _ => (49_153, 65_535),
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let count = u32::from(last - first) + 1;
    let offset = u16::try_from(now.subsec_micros() % count).unwrap_or(0);
    (first, last, first.saturating_add(offset))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(binding: serde_json::Value) -> Result<Wanted, String> {
        let options = Options::from([(PORTMAP.to_owned(), json!([binding]))]);
        let bindings = bindings(&options).map_err(|refusal| refusal.to_string())?;
        parse(&bindings[0], None).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn every_form_of_a_binding_is_understood() {
        let port = |binding| match wanted(binding) {
            Ok(Wanted::Port(port)) => {
                (port.host_port, port.container_port, port.host_addr.map(|addr| addr.to_string()))
            }
            _ => panic!("one port was expected"),
        };
        assert_eq!(port(json!({"Proto": 6, "Port": 80, "HostPort": 8080})), (8080, 80, None));
        assert_eq!(
            port(json!({"Proto": 17, "Port": 53, "HostIP": "127.0.0.1", "HostPort": 53, "HostPortEnd": 53})),
            (53, 53, Some("127.0.0.1".to_owned()))
        );
        let choice = |binding| match wanted(binding) {
            Ok(Wanted::Choice(choice)) => choice,
            _ => panic!("a choice was expected"),
        };
        let range = choice(json!({"Proto": 6, "Port": 80, "HostPort": 8000, "HostPortEnd": 8010}));
        assert_eq!((range.first, range.last, range.start), (8000, 8010, 8000));
        let any = choice(json!({"Proto": 6, "Port": 80, "HostIP": "", "HostPort": 0, "HostPortEnd": 0}));
        assert!(any.first > 0 && (any.first..=any.last).contains(&any.start));
    }

    #[test]
    fn ports_in_a_row_are_one_range() {
        let port = |host_port, container_port| PortRequest {
            proto: Proto::Tcp,
            host_addr: None,
            host_port,
            container_port,
            count: 1,
        };
        let udp = PortRequest { proto: Proto::Udp, ..port(8003, 83) };
        let given = vec![port(8002, 82), port(8000, 80), udp, port(8001, 81), port(8004, 84), port(8005, 90)];
        let shown: Vec<(u16, u16, u16)> =
            joined(given).iter().map(|port| (port.host_port, port.container_port, port.count)).collect();
        assert_eq!(shown, [(8000, 80, 3), (8004, 84, 1), (8005, 90, 1), (8003, 83, 1)]);
        let last = vec![port(65_534, 1), port(65_535, 2)];
        assert_eq!(joined(last).len(), 1);
    }

    #[test]
    fn what_cannot_be_published_is_refused() {
        for (binding, words) in [
            (json!({"Proto": 1, "Port": 80, "HostPort": 80}), "protocol 1 has no ports"),
            (json!({"Proto": 6, "Port": 0, "HostPort": 80}), "port 0 of a container"),
            (json!({"Proto": 6, "Port": 80, "HostPort": 90, "HostPortEnd": 80}), "ends before it begins"),
            (json!({"Proto": 6, "Port": 80, "HostIP": "here", "HostPort": 80}), "`here` is no address"),
            (json!({"Proto": 6, "Port": 70000}), "cannot be read"),
            (json!({"Proto": "tcp", "Port": 80}), "cannot be read"),
            (json!("80"), "cannot be read"),
        ] {
            let err = wanted(binding.clone()).map(drop).unwrap_err();
            assert!(err.contains(words), "{binding}: {err}");
        }
    }
}
