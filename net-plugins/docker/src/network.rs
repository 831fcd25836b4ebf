//! `rbridge`: Docker's network driver on the core's bridge networks.
//!
//! What dockerd does, and this driver therefore: a network is created once and never again, so it is declared durably.
//! An endpoint is created before its sandbox is there, so the link is made in the host's namespace and dockerd moves it.
//! Ports follow the endpoint that is the container's gateway (`ProgramExternalConnectivity`), and go with `Revoke`,
//! `Leave` or `DeleteEndpoint`, whichever comes first: none of them is sure to come. Errors of the last two are only
//! logged by dockerd, which forgets the endpoint anyway; what is left is `reconcile`'s.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use berth_core::attachment::{AttachmentRecord, ContainerLink, DuplicateDetection};
use berth_core::declare::{Declaration, DeclaredSubnet};
use berth_core::names::NetworkNames;
use berth_core::network::Reach;
use berth_core::request::{Addresses, Addressing, AttachRequest};
use berth_core::shown::key_of_network;
use berth_core::{Berth, CoreError, Held};
use berth_netlink::Sandbox;
use berth_plugin_http::{Empty, Plugin, Refusal};
use berth_store::AttachmentState;
use berth_types::{AddressLease, AttachmentKey, ContainerId, IfName, MacAddr, NetworkName, fnv64};
use ipnetwork::IpNetwork;

use crate::capabilities::Capabilities;
use crate::cores::Cores;
use crate::forward::Forward;
use crate::options::{NetworkOptions, shortened};
use crate::ports;
use crate::refusal::Failure;
use crate::wire::{
    Allocated, CreateEndpoint, CreateNetwork, Created, Info, Interface, InterfaceName, IpamData, Join,
    Joined, OfEndpoint, OfNetwork,
};

/// The name under which Docker knows the driver.
pub const DRIVER: &str = "rbridge";

/// The engine of declarations made here.
pub(crate) const ENGINE: &str = "docker";

const ANTI_SPOOFING: &str = "anti_spoofing";
const HOST_BINDING: &str = "host_binding";
const LINK_PREFIX: &str = "link_prefix";
const ENDPOINT_LINK_NAME: &str = "com.docker.network.endpoint.ifname";

/// The driver.
#[derive(Clone)]
pub struct Driver {
    cores: Cores,
    forward: Arc<Forward>,
}

impl Driver {
    /// Needs nothing of the host yet.
    pub fn new(cores: Cores, forward: Arc<Forward>) -> Self {
        Self { cores, forward }
    }

    /// Adds the driver's methods to a socket's.
    pub fn methods(&self, plugin: Plugin) -> Plugin {
        let plugin = plugin
            .constant("NetworkDriver.GetCapabilities", Capabilities::LOCAL)
            .constant("NetworkDriver.AllocateNetwork", Allocated { options: BTreeMap::new() })
            .constant("NetworkDriver.FreeNetwork", Empty {})
            // Asked for several times for each container; dockerd understands nothing that a plugin could say.
            .constant("NetworkDriver.EndpointOperInfo", Info { value: Empty {} })
            .constant("NetworkDriver.DiscoverNew", Empty {})
            .constant("NetworkDriver.DiscoverDelete", Empty {});
        let plugin = self.call(plugin, "NetworkDriver.CreateNetwork", Self::create_network);
        let plugin = self.call(plugin, "NetworkDriver.DeleteNetwork", Self::delete_network);
        let plugin = self.call(plugin, "NetworkDriver.CreateEndpoint", Self::create_endpoint);
        let plugin = self.call(plugin, "NetworkDriver.Join", Self::join);
        let plugin = self.call(plugin, "NetworkDriver.ProgramExternalConnectivity", Self::program);
        let plugin = self.call(plugin, "NetworkDriver.RevokeExternalConnectivity", Self::revoke);
        let plugin = self.call(plugin, "NetworkDriver.Leave", Self::leave);
        self.call(plugin, "NetworkDriver.DeleteEndpoint", Self::delete_endpoint)
    }

    fn call<A, R>(
        &self,
        plugin: Plugin,
        name: &'static str,
        method: fn(&Self, &mut Berth, A) -> Result<R, Failure>,
    ) -> Plugin
    where
        A: serde::de::DeserializeOwned + 'static,
        R: serde::Serialize + 'static,
    {
        let driver = self.clone();
        self.cores.method(plugin, name, move |berth, args| method(&driver, berth, args))
    }

    fn create_network(&self, berth: &mut Berth, args: CreateNetwork) -> Result<Empty, Failure> {
        let wanted = declaration(&args)?;
        self.forward.ensure();
        berth.create_network(&wanted)?;
        Ok(Empty {})
    }

    fn delete_network(&self, berth: &mut Berth, args: OfNetwork) -> Result<Empty, Failure> {
        let name = network_name(&args.network)?;
        let deleted = berth.delete_network(&name);
        // With the last network, berth leaves the host, and its rule in Docker's chain goes too.
        self.forward.doubt();
        deleted?;
        forget_names(berth, &name)?;
        Ok(Empty {})
    }

    fn create_endpoint(&self, berth: &mut Berth, args: CreateEndpoint) -> Result<Created, Failure> {
        let key = key(&args.network, &args.endpoint)?;
        let declaration = declared(berth, &key.network)?;
        let wanted = Wanted::parse(&args.interface, &declaration)?;
        self.forward.ensure();
        let mac = match attached(berth, &key)? {
            Some(record) if wanted.is(&record) => record.mac,
            _ => {
                let hairpin = !ports::bindings(&args.options)?.is_empty();
                match berth.attach(wanted.request(&key, &declaration, hairpin)?) {
                    Ok(attachment) => attachment.mac,
                    // The same call, made twice at once: the other was faster.
                    Err(err @ CoreError::Exists { .. }) => {
                        let other = attached(berth, &key)?.filter(|record| wanted.is(record));
                        other.ok_or(err)?.mac
                    }
                    Err(err) => return Err(err.into()),
                }
            }
        };
        // A field that was given must come back empty.
        let mac = if args.interface.mac.is_empty() { mac.to_string() } else { String::new() };
        Ok(Created { interface: Interface { mac, ..Interface::default() } })
    }

    fn join(&self, berth: &mut Berth, args: Join) -> Result<Joined, Failure> {
        let key = key(&args.network, &args.endpoint)?;
        let declaration = declared(berth, &key.network)?;
        let record = berth.note_sandbox(&key, Path::new(&args.sandbox))?.ok_or_else(|| unknown(&key))?;
        let link_name = args.options.get(ENDPOINT_LINK_NAME).and_then(serde_json::Value::as_str);
        Ok(joined(&declaration, &record, link_name.unwrap_or_default()))
    }

    fn program(&self, berth: &mut Berth, args: Join) -> Result<Empty, Failure> {
        let key = key(&args.network, &args.endpoint)?;
        let declaration = declared(berth, &key.network)?;
        let bindings = ports::bindings(&args.options)?;
        let record = attached(berth, &key)?.ok_or_else(|| unknown(&key))?;
        if bindings.is_empty() || declaration.reach.internal {
            berth.unpublish(&key)?;
            return Ok(Empty {});
        }
        let host_binding = declaration.notes.get(HOST_BINDING).and_then(|addr| addr.parse().ok());
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

    fn revoke(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure> {
        berth.unpublish(&key(&args.network, &args.endpoint)?)?;
        Ok(Empty {})
    }

    fn leave(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure> {
        let key = key(&args.network, &args.endpoint)?;
        berth.unpublish(&key)?;
        berth.note_sandbox(&key, Path::new(""))?;
        Ok(Empty {})
    }

    fn delete_endpoint(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure> {
        let key = key(&args.network, &args.endpoint)?;
        berth.detach(&key)?;
        berth.names_write(&[], &[key])?;
        Ok(Empty {})
    }
}

/// The network's name in berth: Docker's number of it.
pub(crate) fn network_name(id: &str) -> Result<NetworkName, Refusal> {
    id.parse().map_err(|_| Refusal::new(format!("`{}` is no network's number", shortened(id))))
}

/// What an endpoint is known by. It has no name inside the container yet that a driver is told.
pub(crate) fn key(network: &str, endpoint: &str) -> Result<AttachmentKey, Refusal> {
    let wrong = |_| Refusal::new(format!("`{}` is no endpoint's number", shortened(endpoint)));
    let container: ContainerId = endpoint.parse().map_err(wrong)?;
    let ifname = IfName::new("eth").map_err(|err| Refusal::from_error(&err))?;
    Ok(AttachmentKey { network: network_name(network)?, container, ifname })
}

fn declared(berth: &mut Berth, name: &NetworkName) -> Result<Declaration, Failure> {
    let declaration = berth.declared(name)?;
    let text = || format!("berth does not know network {name}; remove it and create it again");
    Ok(declaration.ok_or_else(|| Refusal::new(text()))?)
}

fn unknown(key: &AttachmentKey) -> Refusal {
    Refusal::new(format!(
        "berth does not know endpoint {}; connect the container again",
        key.container.short()
    ))
}

/// The endpoint's record, if it stands.
fn attached(berth: &mut Berth, key: &AttachmentKey) -> Result<Option<AttachmentRecord>, CoreError> {
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

pub(crate) fn forget_names(berth: &mut Berth, network: &NetworkName) -> Result<(), CoreError> {
    let names = berth.names()?;
    let mut gone: Vec<AttachmentKey> = names.keys().filter(|key| key.network == *network).cloned().collect();
    gone.push(key_of_network(network));
    berth.names_write(&[], &gone)
}

pub(crate) fn declaration(args: &CreateNetwork) -> Result<Declaration, Refusal> {
    let name = network_name(&args.network)?;
    let options = NetworkOptions::parse(&args.options)?;
    let mut subnets = Vec::new();
    for data in args.v4.iter().chain(&args.v6) {
        subnets.extend(subnet(data)?);
    }
    let NetworkOptions { bridge, mtu, between_containers, masquerade, isolated, anti_spoofing, .. } = options;
    let usual = || -> String { format!("br-{name}").chars().take(15).collect() };
    let bridge = match bridge {
        Some(bridge) => bridge,
        None => IfName::new(usual()).map_err(|err| Refusal::from_error(&err))?,
    };
    let mut notes = BTreeMap::from([
        (ANTI_SPOOFING.to_owned(), anti_spoofing.to_string()),
        (LINK_PREFIX.to_owned(), options.link_prefix),
    ]);
    notes.extend(options.host_binding.map(|addr| (HOST_BINDING.to_owned(), addr.to_string())));
    Ok(Declaration {
        version: Declaration::VERSION,
        name,
        engine: ENGINE.to_owned(),
        bridge,
        mtu,
        reach: Reach { masquerade, between_containers, isolated, internal: options.internal },
        subnets,
        names: options.names.then(|| NetworkNames {
            domain: options.domain,
            servers: options.servers,
            ..NetworkNames::usual()
        }),
        overlay: None,
        notes,
    })
}

/// None for a network without addresses (`--ipam-driver null` has 0.0.0.0/0).
fn subnet(data: &IpamData) -> Result<Option<DeclaredSubnet>, Refusal> {
    let IpamData { pool, gateway } = data;
    if pool.is_empty() {
        return Ok(None);
    }
    let wrong = |what: &str, text: &str| Refusal::new(format!("{what} `{}` is none", shortened(text)));
    let subnet: IpNetwork = pool.parse().map_err(|_| wrong("subnet", pool))?;
    if subnet.prefix() == 0 {
        return Ok(None);
    }
    let subnet = IpNetwork::new(subnet.network(), subnet.prefix()).map_err(|_| wrong("subnet", pool))?;
    let gateway = match gateway.as_str() {
        "" => None,
        text => Some(text.parse::<IpNetwork>().map_err(|_| wrong("gateway", text))?.ip()),
    };
    match gateway.filter(|gateway| !subnet.contains(*gateway)) {
        Some(gateway) => Err(Refusal::new(format!("gateway {gateway} is not in subnet {subnet}"))),
        None => Ok(Some(DeclaredSubnet { subnet, gateway })),
    }
}

/// What an endpoint is to have.
struct Wanted {
    leases: Vec<AddressLease>,
    mac: Option<MacAddr>,
}

impl Wanted {
    fn parse(interface: &Interface, declaration: &Declaration) -> Result<Self, Refusal> {
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
        Ok(Self { leases, mac })
    }

    /// Whether it is there already.
    fn is(&self, record: &AttachmentRecord) -> bool {
        let addresses =
            |leases: &[AddressLease]| leases.iter().map(|lease| lease.address).collect::<Vec<_>>();
        addresses(&self.leases) == addresses(&record.leases) && self.mac.is_none_or(|mac| mac == record.mac)
    }

    fn request(
        &self,
        key: &AttachmentKey,
        declaration: &Declaration,
        hairpin: bool,
    ) -> Result<AttachRequest, Failure> {
        let noted = |key: &str| declaration.notes.get(key).is_none_or(|value| value != "false");
        Ok(AttachRequest {
            network: declaration.spec(),
            key: key.clone(),
            sandbox: Sandbox::current().map_err(CoreError::from)?,
            addressing: Addressing::Assigned(Addresses {
                leases: self.leases.clone(),
                ..Addresses::default()
            }),
            mac: self.mac,
            default_route: false,
            hairpin,
            port_isolation: false,
            anti_spoofing: noted(ANTI_SPOOFING),
            container_link: ContainerLink::Handed(peer_name(key)?),
            duplicate_detection: DuplicateDetection::Off,
            ports: Vec::new(),
            bandwidth: None,
            names: None,
        })
    }
}

/// The container's end until dockerd takes it, and after it gave it back.
fn peer_name(key: &AttachmentKey) -> Result<IfName, Refusal> {
    let hash = fnv64([key.network.as_str(), key.container.as_str(), "peer"]) >> 12;
    IfName::new(format!("bp{hash:013x}")).map_err(|err| Refusal::from_error(&err))
}

fn joined(declaration: &Declaration, record: &AttachmentRecord, link_name: &str) -> Joined {
    let gateway = |v4: bool| {
        // dockerd would install a default route that leads nowhere.
        let of_family = record.leases.iter().find(|lease| lease.address.is_ipv4() == v4);
        let gateway = of_family.filter(|_| !declaration.reach.internal).and_then(|lease| lease.gateway);
        gateway.map(|gateway| gateway.to_string()).unwrap_or_default()
    };
    let (v4, v6) = (gateway(true), gateway(false));
    Joined {
        interface: InterfaceName {
            src_name: record.peer.as_ref().map(ToString::to_string).unwrap_or_default(),
            dst_prefix: declaration.notes.get(LINK_PREFIX).cloned().unwrap_or_else(|| "eth".to_owned()),
            dst_name: link_name.to_owned(),
        },
        // With no gateway at all, dockerd would join the container to its docker_gwbridge; before Docker 28, with none of
        // IPv4. An internal network gets none in any case, and may be beside one that needs it.
        disable_gateway_service: v4.is_empty() && !declaration.reach.internal,
        gateway: v4,
        gateway_v6: v6,
    }
}
