//! `rbridge`: Docker's network driver on the core's bridge networks.
//!
//! What dockerd does, and this driver therefore: a network is created once and never again, so it is declared durably.
//! An endpoint is created before its sandbox is there, so the link is made in the host's namespace and dockerd moves it.
//! Ports follow the endpoint that is the container's gateway (`ProgramExternalConnectivity`), and go with `Revoke`,
//! `Leave` or `DeleteEndpoint`, whichever comes first: none of them is sure to come. Errors of the last two are only
//! logged by dockerd, which forgets the endpoint anyway; what is left is `reconcile`'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_core::declare::{Declaration, DeclaredSubnet};
use berth_core::names::NetworkNames;
use berth_core::network::Reach;
use berth_core::request::Addressing;
use berth_core::shown::key_of_network;
use berth_core::{Berth, CoreError};
use berth_plugin_http::{Empty, Plugin, Refusal};
use berth_types::{AttachmentKey, IfName, NetworkName};
use ipnetwork::IpNetwork;

use crate::capabilities::Capabilities;
use crate::cores::Cores;
use crate::driver::{self, NetworkDriver};
use crate::endpoint::{self, Wanted, attached};
use crate::forward::Forward;
use crate::option::shortened;
use crate::options::NetworkOptions;
use crate::refusal::Failure;
use crate::wire::{CreateEndpoint, CreateNetwork, Created, IpamData, Join, Joined, OfEndpoint, OfNetwork};

/// The name under which Docker knows the driver.
pub const DRIVER: &str = "rbridge";

/// The engine of declarations made here.
pub(crate) const ENGINE: &str = "docker";

const ANTI_SPOOFING: &str = "anti_spoofing";
const HOST_BINDING: &str = "host_binding";
const LINK_PREFIX: &str = "link_prefix";

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
        driver::methods(self, &self.cores, plugin)
    }
}

impl NetworkDriver for Driver {
    const CAPABILITIES: Capabilities = Capabilities::LOCAL;

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
        let wanted = Wanted::parse(&args, &declaration)?;
        self.forward.ensure();
        let anti_spoofing = declaration.notes.get(ANTI_SPOOFING).is_none_or(|value| value != "false");
        let mac = match attached(berth, &key)? {
            Some(record) if wanted.is(&record) => record.mac,
            _ => {
                let addressing = Addressing::Assigned(wanted.addresses());
                match berth.attach(wanted.request(&key, &declaration, addressing, anti_spoofing)?) {
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
        Ok(endpoint::created(&args, mac))
    }

    fn join(&self, berth: &mut Berth, args: Join) -> Result<Joined, Failure> {
        let key = key(&args.network, &args.endpoint)?;
        let declaration = declared(berth, &key.network)?;
        let prefix = declaration.notes.get(LINK_PREFIX).cloned().unwrap_or_else(|| "eth".to_owned());
        endpoint::join(berth, (&key, &declaration), prefix, &args)
    }

    fn program(&self, berth: &mut Berth, args: Join) -> Result<Empty, Failure> {
        let key = key(&args.network, &args.endpoint)?;
        let declaration = declared(berth, &key.network)?;
        let host_binding = declaration.notes.get(HOST_BINDING).and_then(|addr| addr.parse().ok());
        endpoint::program(berth, (&key, &declaration), host_binding, &args.options)
    }

    fn revoke(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure> {
        berth.unpublish(&key(&args.network, &args.endpoint)?)?;
        Ok(Empty {})
    }

    fn leave(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure> {
        endpoint::leave(berth, &key(&args.network, &args.endpoint)?)
    }

    fn delete_endpoint(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure> {
        let key = key(&args.network, &args.endpoint)?;
        self.cores.detach(berth, &key)?;
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
    endpoint::key(network_name(network)?, endpoint)
}

fn declared(berth: &mut Berth, name: &NetworkName) -> Result<Declaration, Failure> {
    let declaration = berth.declared(name)?;
    let text = || format!("berth does not know network {name}; remove it and create it again");
    Ok(declaration.ok_or_else(|| Refusal::new(text()))?)
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
    let IpamData { pool, gateway, address_space: _ } = data;
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
