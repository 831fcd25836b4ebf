//! The network driver.

use std::net::IpAddr;
use std::sync::Arc;

use berth_core::hold::HoldRequest;
use berth_core::request::Addressing;
use berth_core::{Berth, CoreError, Held, names};
use berth_overlay::attach::{self, AttachError, Names, publish, publish_names};
use berth_overlay::joined::Joined;
use berth_overlay::model::OverlayNetwork;
use berth_overlay::wire::AskNetwork;
use berth_plugin_http::{Empty, Plugin, Refusal};
use berth_types::{AttachmentKey, Family, MacAddr, NetworkName};
use ipnetwork::IpNetwork;

use super::known::{self, Known};
use super::options::OverlayOptions;
use super::{ADDRESS_SPACE, DRIVER, network_of_subnet, subnets, typed};
use crate::capabilities::Capabilities;
use crate::cores::Cores;
use crate::driver::{self, NetworkDriver};
use crate::endpoint::{self, Wanted, attached, key};
use crate::forward::Forward;
use crate::option::shortened;
use crate::refusal::Failure;
use crate::resolvers;
use crate::watch::Hearing;
use crate::wire::{
    CreateEndpoint, CreateNetwork, Created, IpamData, Join, Joined as Reply, OfEndpoint, OfNetwork,
};

/// The driver.
#[derive(Clone)]
pub struct Driver {
    cores: Cores,
    forward: Arc<Forward>,
    hearing: Hearing,
}

impl Driver {
    /// Needs nothing of the host yet. `hearing` is whether Docker tells names.
    pub fn new(cores: Cores, forward: Arc<Forward>, hearing: Hearing) -> Self {
        Self { cores, forward, hearing }
    }

    /// Adds the driver's methods to a socket's.
    pub fn methods(&self, plugin: Plugin) -> Plugin {
        driver::methods(self, &self.cores, plugin)
    }
}

impl NetworkDriver for Driver {
    const CAPABILITIES: Capabilities = Capabilities::CLUSTER;

    fn create_network(&self, berth: &mut Berth, args: CreateNetwork) -> Result<Empty, Failure> {
        let options = OverlayOptions::parse(&args.options)?;
        let asked = Subnets::parse(&args, &options)?;
        known::refuse_second(berth, &args.network, &options.network)?;
        asked.are_of(berth, &options.network)?;
        self.forward.ensure();
        let create = options.new_network().map(|new| berth_overlay::wire::NewNetwork {
            subnets: asked.0.iter().map(|(subnet, _)| *subnet).collect(),
            gateways: asked.0.iter().filter_map(|(_, gateway)| *gateway).collect(),
            ..new
        });
        let joined =
            attach::joined(berth, &AskNetwork { create, ..AskNetwork::named(options.network.clone()) })?;
        asked.agree(&joined.record)?;
        agree(&options, &joined.record)?;
        known::add(berth, &args.network, &options.network, &options.choices)?;
        Ok(Empty {})
    }

    fn delete_network(&self, berth: &mut Berth, args: OfNetwork) -> Result<Empty, Failure> {
        if let Some(known) = known::find(berth, &args.network)? {
            known::forget(berth, &known)?;
        }
        Ok(Empty {})
    }

    fn create_endpoint(&self, berth: &mut Berth, args: CreateEndpoint) -> Result<Created, Failure> {
        let Known { network, choices, .. } = known::known(berth, &args.network)?;
        let key = key(network.clone(), &args.endpoint)?;
        let joined = attach::joined(berth, &AskNetwork::named(network))?;
        let wanted = Wanted::parse(&args, &joined.declaration)?;
        if wanted.leases.is_empty() {
            return Err(Refusal::new(format!("the endpoint has no address; {DRIVER} gives it one")).into());
        }
        self.forward.ensure();
        let mac = match attached(berth, &key)? {
            Some(record) if wanted.is(&record) => record.mac,
            _ => self.attach(berth, &joined, &key, &wanted, choices.anti_spoofing)?,
        };
        // Docker's own resolver knows this host's containers. What it asks the host's servers, berth's answers: names on other
        // hosts.
        if names::is_served(&berth.dirs().run) {
            berth.names_answer_for(&key.network, &resolvers::of_containers())?;
        }
        Ok(endpoint::created(&args, mac))
    }

    fn join(&self, berth: &mut Berth, args: Join) -> Result<Reply, Failure> {
        let (key, known, joined) = place(berth, &args.network, &args.endpoint)?;
        let prefix = known.choices.link_prefix;
        let reply = endpoint::join(berth, (&key, &joined.declaration), prefix, &args)?;
        // That it is internal is the cluster's word, which Docker may not know: it would join the container to its own bridge.
        Ok(Reply { disable_gateway_service: reply.gateway.is_empty(), ..reply })
    }

    fn program(&self, berth: &mut Berth, args: Join) -> Result<Empty, Failure> {
        let (key, known, joined) = place(berth, &args.network, &args.endpoint)?;
        endpoint::program(berth, (&key, &joined.declaration), known.choices.host_binding, &args.options)
    }

    fn revoke(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure> {
        if let Some(known) = known::find(berth, &args.network)? {
            berth.unpublish(&key(known.network, &args.endpoint)?)?;
        }
        Ok(Empty {})
    }

    fn leave(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure> {
        match known::find(berth, &args.network)? {
            Some(known) => endpoint::leave(berth, &key(known.network, &args.endpoint)?),
            None => Ok(Empty {}),
        }
    }

    fn delete_endpoint(&self, berth: &mut Berth, args: OfEndpoint) -> Result<Empty, Failure> {
        // Of a network that is not known nothing is left.
        let Some(known) = known::find(berth, &args.network)? else { return Ok(Empty {}) };
        let key = key(known.network, &args.endpoint)?;
        let detached = self.cores.detach(berth, &key);
        // What the cluster does not hear now, it hears from the records.
        let _ = publish(berth, &key);
        detached?;
        berth.names_write(&[], &[key])?;
        Ok(Empty {})
    }
}

impl Driver {
    fn attach(
        &self,
        berth: &mut Berth,
        joined: &Joined,
        key: &AttachmentKey,
        wanted: &Wanted,
        anti_spoofing: bool,
    ) -> Result<MacAddr, Failure> {
        let addresses: Vec<IpAddr> = wanted.leases.iter().map(|lease| lease.address.ip()).collect();
        for address in &addresses {
            keep_held(berth, joined, *address)?;
        }
        clear_leftovers(berth, key, &addresses)?;
        let mut request = || {
            // The lease is Docker's until it says otherwise.
            let addressing = Addressing::Given(wanted.addresses());
            wanted.request(key, &joined.declaration, addressing, anti_spoofing)
        };
        let names = if self.hearing.hears() { Names::Soon } else { Names::AsTheyAre };
        match attach::attach(berth, joined, names, &mut request) {
            Ok(attachment) => Ok(attachment.mac),
            // The same call, made twice at once: the other was faster.
            Err(AttachError::Core(err @ CoreError::Exists { .. })) => {
                let other = attached(berth, key)?.filter(|record| wanted.is(record));
                Ok(other.ok_or(err)?.mac)
            }
            Err(err) => Err(err.into()),
        }
    }
}

/// An endpoint of a network that this host is on.
fn place(berth: &mut Berth, id: &str, endpoint: &str) -> Result<(AttachmentKey, Known, Joined), Failure> {
    let known = known::known(berth, id)?;
    let key = key(known.network.clone(), endpoint)?;
    let joined = attach::joined(berth, &AskNetwork::named(known.network.clone()))?;
    Ok((key, known, joined))
}

/// Sees to it that the address is Docker's, whose record of it may have been lost.
fn keep_held(berth: &mut Berth, joined: &Joined, address: IpAddr) -> Result<(), Failure> {
    let network = &joined.declaration.name;
    if berth.is_held(network, address)? {
        return Ok(());
    }
    let request = HoldRequest {
        driver: DRIVER.to_owned(),
        network: network.clone(),
        family: Family::of(address),
        address: Some(address),
        name: None,
    };
    attach::hold(berth, joined, &request)?;
    Ok(())
}

/// Docker gives each address to one endpoint at a time: whoever is recorded with one of them is a leftover that it has forgotten.
fn clear_leftovers(berth: &mut Berth, key: &AttachmentKey, addresses: &[IpAddr]) -> Result<(), Failure> {
    let has = |held: &Held| match held {
        Held::Bridge(record) => record.leases.iter().any(|lease| addresses.contains(&lease.address.ip())),
        Held::Ports(_) => false,
    };
    let rows = berth.held_on(&key.network)?.into_iter();
    let forgotten = rows.filter(|(row, held)| row.key != *key && has(held));
    let forgotten: Vec<AttachmentKey> = forgotten.map(|(row, _)| row.key).collect();
    for other in &forgotten {
        tracing::info!(endpoint = %other, "forgotten by Docker, which gives its address again");
        berth.detach(other)?;
    }
    publish_names(berth, &forgotten);
    Ok(())
}

/// The subnets of a call with their gateways.
struct Subnets(Vec<(IpNetwork, Option<IpAddr>)>);

impl Subnets {
    fn parse(args: &CreateNetwork, options: &OverlayOptions) -> Result<Self, Refusal> {
        let name = options.network.as_str();
        let mut found = Vec::new();
        for IpamData { pool, gateway, address_space } in args.v4.iter().chain(&args.v6) {
            if address_space != ADDRESS_SPACE {
                return Err(Refusal::new(format!(
                    "network `{name}` has the cluster's addresses, and takes none of another address driver: {}",
                    typed(name)
                )));
            }
            let wrong =
                |what: &str, text: &str| Refusal::new(format!("{what} `{}` is none", shortened(text)));
            let subnet: IpNetwork = pool.parse().map_err(|_| wrong("subnet", pool))?;
            let plain = gateway.split('/').next().unwrap_or_default();
            let gateway = match plain {
                "" => None,
                text => Some(text.parse().map_err(|_| wrong("gateway", text))?),
            };
            found.push((subnet, gateway));
        }
        if found.is_empty() {
            let text = format!("network `{name}` needs the cluster's addresses: {}", typed(name));
            return Err(Refusal::new(text));
        }
        Ok(Self(found))
    }

    /// Refuses subnets of another network of the cluster: two networks are named then.
    fn are_of(&self, berth: &mut Berth, name: &NetworkName) -> Result<(), Failure> {
        for (subnet, _) in &self.0 {
            if let Some(other) = network_of_subnet(berth, *subnet)?.filter(|other| other != name) {
                let text = format!(
                    "`--ipam-opt network={other}` and `-o network={name}` are two networks: name one, in both places"
                );
                return Err(Refusal::new(text).into());
            }
        }
        Ok(())
    }

    /// Refuses what is not the cluster's.
    fn agree(&self, record: &OverlayNetwork) -> Result<(), Refusal> {
        let name = &record.name;
        for (subnet, gateway) in &self.0 {
            let Some(theirs) = record.subnets.iter().find(|theirs| theirs.subnet == *subnet) else {
                return Err(Refusal::new(format!(
                    "subnet {subnet} is not network `{name}`'s, which has {}: leave `--subnet` out, and name the network in \
                     both places: {}",
                    subnets(record),
                    typed(name.as_str())
                )));
            };
            if let Some(gateway) = gateway.filter(|gateway| *gateway != theirs.gateway) {
                return Err(Refusal::new(format!(
                    "gateway {gateway} is not network `{name}`'s, which has {}: leave `--gateway` out",
                    theirs.gateway
                )));
            }
        }
        Ok(())
    }
}

/// Refuses options that say something else than the cluster's record.
fn agree(options: &OverlayOptions, record: &OverlayNetwork) -> Result<(), Refusal> {
    let differs = |what: String, is: &dyn std::fmt::Display| {
        Refusal::new(format!("{what} is not network `{}`'s, which has {is}: leave it out", record.name))
    };
    if let Some(vni) = options.vni.filter(|vni| *vni != record.vni) {
        return Err(differs(format!("VNI {vni}"), &format_args!("VNI {}", record.vni)));
    }
    if let Some(mtu) = options.mtu.filter(|mtu| *mtu != record.mtu) {
        return Err(differs(format!("MTU {mtu}"), &format_args!("MTU {}", record.mtu)));
    }
    if options.internal && !record.internal {
        return Err(differs("`--internal`".to_owned(), &"a way out"));
    }
    let switches = [
        ("encrypted", options.encrypted, record.encrypted),
        ("flood", options.flood, record.flood),
        ("icc", options.between_containers, record.between_containers),
    ];
    for (name, asked, is) in switches {
        if asked.is_some_and(|asked| asked != is) {
            return Err(differs(format!("`{name}={}`", !is), &format_args!("`{is}`")));
        }
    }
    Ok(())
}
