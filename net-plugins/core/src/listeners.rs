//! Processes of the host that listen on a port which is to be published.

use std::collections::BTreeMap;

use berth_netlink::port_list::ports_in_use;
use berth_netlink::port_probe::{Probe, ProcessHolder, holder_of, try_bind};
use berth_types::{AttachmentKey, PublishedPort};

use crate::error::CoreError;
use crate::names::DNS_PORT;

/// As many ports are tried one by one; of more, only those that some socket has.
const FEW_PORTS: usize = 8;

/// A port a process of the host listens on would be cut off without a word (S12). A process that keeps the port for
/// this very container is the engine's own: podman's conmon holds a socket on every published port.
pub(crate) fn refuse_listeners(key: &AttachmentKey, ports: &[PublishedPort]) -> Result<(), CoreError> {
    let many = ports.iter().map(|port| usize::from(port.count)).sum::<usize>() > FEW_PORTS;
    let mut in_use = BTreeMap::new();
    for port in ports {
        let known = match many {
            true => in_use.entry(port.proto).or_insert_with(|| ports_in_use(port.proto)).as_ref(),
            false => None,
        };
        for offset in 0..port.count {
            let number = port.host_port.saturating_add(offset);
            if known.is_some_and(|known| !known.contains(&number)) {
                continue;
            }
            // An address that is not the host's now may become so; nobody can listen on it meanwhile.
            if matches!(try_bind(port.proto, port.host_addr, number), Ok(Probe::Taken)) {
                let holder = holder_of(port.proto, port.host_addr, number);
                if holder
                    .as_ref()
                    .is_some_and(|holder| works_for(holder.pid, key) || serves_names(holder, number))
                {
                    continue;
                }
                let holder = holder.map_or_else(
                    || "a process of the host".to_owned(),
                    |holder| format!("{} (process {})", holder.command, holder.pid),
                );
                let port = PublishedPort { host_port: number, count: 1, ..*port };
                return Err(CoreError::PortInUse { port, holder });
            }
        }
    }
    Ok(())
}

/// Whether it is berth's own DNS server, at the gateways: what is sent there is led to it, whatever is published on every
/// address.
fn serves_names(holder: &ProcessHolder, port: u16) -> bool {
    port == DNS_PORT && holder.command == "berthd"
}

/// Whether the command line of a process names the container. Only a long identifier is unlikely to be there by chance.
fn works_for(pid: u32, key: &AttachmentKey) -> bool {
    let id = key.container.as_str();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    id.len() >= 12 && line.split(|byte| *byte == 0).any(|word| word == id.as_bytes())
}
