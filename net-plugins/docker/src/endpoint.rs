//! Endpoints, whatever kind of network they are on: what one is to have, and what dockerd says of it from its creation on.

use std::net::IpAddr;
use std::path::Path;

use berth_core::attachment::{AttachmentRecord, ContainerLink, DuplicateDetection};
use berth_core::declare::Declaration;
use berth_core::request::{Addresses, Addressing, AttachRequest};
use berth_core::{Berth, CoreError, Held};
use berth_netlink::Sandbox;
use berth_plugin_http::{Empty, Refusal};
use berth_store::AttachmentState;
use berth_types::{AddressLease, AttachmentKey, ContainerId, IfName, MacAddr, NetworkName, fnv64};
use ipnetwork::IpNetwork;

use crate::option::shortened;
use crate::ports;
use crate::refusal::Failure;
use crate::wire::{CreateEndpoint, Created, Interface, InterfaceName, Join, Joined, Options};

const ENDPOINT_LINK_NAME: &str = "com.docker.network.endpoint.ifname";

/// What an endpoint is to have.
pub(crate) struct Wanted {
    pub(crate) leases: Vec<AddressLease>,
    mac: Option<MacAddr>,
    /// Whether its frames may come back to it, for ports that are published.
    hairpin: bool,
}

impl Wanted {
    pub(crate) fn parse(args: &CreateEndpoint, declaration: &Declaration) -> Result<Self, Refusal> {
        let interface = &args.interface;
        let mut leases = Vec::new();
        for text in [&interface.v4, &interface.v6].into_iter().filter(|text| !text.is_empty()) {
            let wrong = |_| Refusal::new(format!("`{}` is no address with a prefix", shortened(text)));
            let address: IpNetwork = text.parse().map_err(wrong)?;
            leases.push(AddressLease { address, gateway: declaration.gateway_for(address.ip()) });
        }
        let mac = match interface.mac.as_str() {
            "" => None,
            text => {
                let mac: MacAddr = text.parse().map_err(|err| Refusal::from_error(&err))?;
                if !mac.is_assignable() {
                    return Err(Refusal::new(format!("MAC address {mac} cannot be an interface's")));
                }
                Some(mac)
            }
        };
        Ok(Self { leases, mac, hairpin: !ports::bindings(&args.options)?.is_empty() })
    }

    /// Whether it is there already.
    pub(crate) fn is(&self, record: &AttachmentRecord) -> bool {
        let addresses =
            |leases: &[AddressLease]| leases.iter().map(|lease| lease.address).collect::<Vec<_>>();
        addresses(&self.leases) == addresses(&record.leases) && self.mac.is_none_or(|mac| mac == record.mac)
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses { leases: self.leases.clone(), ..Addresses::default() }
    }

    pub(crate) fn request(
        &self,
        key: &AttachmentKey,
        declaration: &Declaration,
        addressing: Addressing,
        anti_spoofing: bool,
    ) -> Result<AttachRequest, CoreError> {
        Ok(AttachRequest {
            network: declaration.spec(),
            key: key.clone(),
            sandbox: Sandbox::current()?,
            addressing,
            mac: self.mac,
            default_route: false,
            hairpin: self.hairpin,
            port_isolation: false,
            anti_spoofing,
            container_link: ContainerLink::Handed(peer_name(key)?),
            duplicate_detection: DuplicateDetection::Off,
            ports: Vec::new(),
            bandwidth: None,
            names: None,
        })
    }
}

/// The container's end until dockerd takes it, and after it gave it back.
fn peer_name(key: &AttachmentKey) -> Result<IfName, CoreError> {
    let hash = fnv64([key.network.as_str(), key.container.as_str(), "peer"]) >> 12;
    IfName::new(format!("bp{hash:013x}")).map_err(|err| CoreError::Missing { what: err.to_string() })
}

/// The reply to `CreateEndpoint`. A field that was given must come back empty.
pub(crate) fn created(args: &CreateEndpoint, mac: MacAddr) -> Created {
    let mac = if args.interface.mac.is_empty() { mac.to_string() } else { String::new() };
    Created { interface: Interface { mac, ..Interface::default() } }
}

/// `Join`: the sandbox is noted, and dockerd is told which link goes there.
pub(crate) fn join(
    berth: &mut Berth,
    (key, declaration): (&AttachmentKey, &Declaration),
    link_prefix: String,
    args: &Join,
) -> Result<Joined, Failure> {
    let record = berth.note_sandbox(key, Path::new(&args.sandbox))?.ok_or_else(|| unknown(key))?;
    let link_name = args.options.get(ENDPOINT_LINK_NAME).and_then(serde_json::Value::as_str);
    let gateway = |v4: bool| {
        // dockerd would install a default route that leads nowhere.
        let of_family = record.leases.iter().find(|lease| lease.address.is_ipv4() == v4);
        let gateway = of_family.filter(|_| !declaration.reach.internal).and_then(|lease| lease.gateway);
        gateway.map(|gateway| gateway.to_string()).unwrap_or_default()
    };
    let (v4, v6) = (gateway(true), gateway(false));
    Ok(Joined {
        interface: InterfaceName {
            src_name: record.peer.as_ref().map(ToString::to_string).unwrap_or_default(),
            dst_prefix: link_prefix,
            dst_name: link_name.unwrap_or_default().to_owned(),
        },
        // With no gateway at all, dockerd would join the container to its docker_gwbridge; before Docker 28, with none of
        // IPv4. A network that Docker knows as internal gets none in any case, and may be beside one that needs it.
        disable_gateway_service: v4.is_empty() && !declaration.reach.internal,
        gateway: v4,
        gateway_v6: v6,
    })
}

/// `ProgramExternalConnectivity`: the endpoint's ports are published. `host_binding` is where those go that name no address.
pub(crate) fn program(
    berth: &mut Berth,
    (key, declaration): (&AttachmentKey, &Declaration),
    host_binding: Option<IpAddr>,
    options: &Options,
) -> Result<Empty, Failure> {
    let bindings = ports::bindings(options)?;
    let record = attached(berth, key)?.ok_or_else(|| unknown(key))?;
    if bindings.is_empty() || declaration.reach.internal {
        berth.unpublish(key)?;
        return Ok(Empty {});
    }
    let request = ports::request(&record, &bindings, host_binding)?;
    match berth.publish(&request) {
        // Another endpoint of the same sandbox was the gateway, and dockerd forgot to say that it no longer is: it keeps
        // that only in memory.
        Err(CoreError::PortTaken(taken)) if is_same_sandbox(berth, &taken.holder, &record)? => {
            berth.unpublish(&taken.holder)?;
            berth.publish(&request)?;
        }
        other => other?,
    }
    Ok(Empty {})
}

/// `Leave`.
pub(crate) fn leave(berth: &mut Berth, key: &AttachmentKey) -> Result<Empty, Failure> {
    berth.unpublish(key)?;
    berth.note_sandbox(key, Path::new(""))?;
    Ok(Empty {})
}

/// What an endpoint of `network` is known by. It has no name inside the container yet that a driver is told.
pub(crate) fn key(network: NetworkName, endpoint: &str) -> Result<AttachmentKey, Refusal> {
    let wrong = |_| Refusal::new(format!("`{}` is no endpoint's number", shortened(endpoint)));
    let container: ContainerId = endpoint.parse().map_err(wrong)?;
    let ifname = IfName::new("eth").map_err(|err| Refusal::from_error(&err))?;
    Ok(AttachmentKey { network, container, ifname })
}

pub(crate) fn unknown(key: &AttachmentKey) -> Refusal {
    Refusal::new(format!(
        "berth does not know endpoint {}; connect the container again",
        key.container.short()
    ))
}

/// The endpoint's record, if it stands.
pub(crate) fn attached(
    berth: &mut Berth,
    key: &AttachmentKey,
) -> Result<Option<AttachmentRecord>, CoreError> {
    let boot = berth.boot().clone();
    Ok(match berth.held_of(key)? {
        Some((row, Held::Bridge(record))) if row.state == AttachmentState::Ready && row.boot_id == boot => {
            Some(*record)
        }
        _ => None,
    })
}

fn is_same_sandbox(
    berth: &mut Berth,
    holder: &AttachmentKey,
    record: &AttachmentRecord,
) -> Result<bool, CoreError> {
    let path = &record.sandbox_path;
    let holder = attached(berth, holder)?;
    Ok(!path.as_os_str().is_empty() && holder.is_some_and(|holder| holder.sandbox_path == *path))
}
