//! `rbridge`: a container on a bridge of the host.

use std::path::Path;

use berth_core::request::{Addressing, AttachRequest, Attachment as Attached};
use berth_netlink::Sandbox;
use berth_types::MacAddr;

use super::bridge_config::{self, BridgeConfig, KEYS};
use super::error::{of_cleanup, of_core};
use super::ipam_call::{IpamKind, addressing, delegated_add, delegated_del};
use super::names::{self, POD_NAME};
use super::{all_in_place, collect, key, open};
use crate::delegate;
use crate::protocol::error::shortened;
use crate::protocol::{
    Attachment, CniArgs, CniError, CniResult, CniVersion, Code, Detachment, Interface, IpConfig, NetConf,
    Network, Plugin, Request, Shape,
};

/// The bridge plugin.
#[derive(Debug, Clone, Copy)]
pub struct Bridge;

impl Plugin for Bridge {
    fn name(&self) -> &'static str {
        "rbridge"
    }

    fn keys(&self) -> &'static Shape {
        &KEYS
    }

    fn add(&self, request: &Request<Attachment>) -> Result<CniResult, CniError> {
        let args = args(request)?;
        let config = bridge_config::parse(&request.conf, &args)?;
        // Results before 0.3.0 are addresses and nothing else; found out only at the end, there would be much to undo.
        if request.conf.version < CniVersion::V0_3_0 && request.conf.ipam_type().is_none() {
            return Err(CniError::new(Code::InvalidConfig, "cannot convert: no valid IP addresses"));
        }
        let domain = config.network.names.as_ref().map(|names| names.domain.clone());
        let sandbox = sandbox(&request.target.netns)?;
        let kind = IpamKind::of(&request.conf, &request.path)?;
        let addressing = match &kind {
            IpamKind::Elsewhere(_) => Addressing::Given(delegated_add(&kind, request)?),
            _ => addressing(&kind, request, &args, &sandbox)?,
        };
        let attached = open(&request.conf.raw)
            .and_then(|mut berth| {
                berth
                    .attach(attach_request(config, request, sandbox, addressing))
                    .map_err(|err| of_core(&err))
            })
            .inspect_err(|_| delegated_del(&kind, &request.undo()))?;
        Ok(answer(request, attached, domain))
    }

    fn check(&self, request: &Request<Attachment>) -> Result<(), CniError> {
        request.conf.require_prev_result()?;
        let kind = IpamKind::of(&request.conf, &request.path)?;
        if let IpamKind::Elsewhere(plugin) = &kind {
            delegate::check(plugin, request)?;
        }
        let sandbox = sandbox(&request.target.netns)?;
        let mut berth = open(&request.conf.raw)?;
        let wrong = berth
            .check(&key(&request.conf, &request.target.container, &request.target.ifname), &sandbox)
            .map_err(|err| of_core(&err))?;
        all_in_place(&wrong)
    }

    fn del(&self, request: &Request<Detachment>) -> Result<(), CniError> {
        let Request { target, conf, .. } = request;
        let key = key(conf, &target.container, &target.ifname);
        open(&conf.raw)?.detach(&key).map_err(|err| of_cleanup(&err))?;
        match IpamKind::of(conf, &request.path) {
            Ok(IpamKind::Elsewhere(plugin)) => delegate::del(&plugin, request),
            // A pool nobody can find any more holds nothing that berth could release.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn gc(&self, request: &Request<Network>) -> Result<(), CniError> {
        let conf = &request.conf;
        let ours = collect(conf);
        match IpamKind::of(conf, &request.path) {
            Ok(IpamKind::Elsewhere(plugin)) => delegate::gc(&plugin, request).and(ours),
            _ => ours,
        }
    }

    fn status(&self, request: &Request<Network>) -> Result<(), CniError> {
        bridge_config::parse(&request.conf, &CniArgs::parse("", &[])?)?;
        let unavailable = |err: CniError| CniError { code: Code::NotAvailable, ..err };
        let kind = IpamKind::of(&request.conf, &request.path).map_err(unavailable)?;
        match &kind {
            IpamKind::Elsewhere(plugin) => delegate::status(plugin, request),
            _ => super::ipam::pool_status(&request.conf).map_err(unavailable),
        }
    }
}

/// What an ADD that attaches a container takes in `CNI_ARGS`.
pub(super) fn args(request: &Request<Attachment>) -> Result<CniArgs, CniError> {
    CniArgs::parse(&request.target.args, &["MAC", "IP", POD_NAME])
}

/// The result of an ADD, with who answers for names where the network has a `domain`.
pub(super) fn answer(request: &Request<Attachment>, attached: Attached, domain: Option<String>) -> CniResult {
    let mut result = result_of(attached, &request.conf, &request.target.netns);
    if let Some(domain) = domain {
        let gateways: Vec<_> = result.ips.iter().filter_map(|ip| ip.gateway).collect();
        result.dns = names::resolver(&request.conf, &domain, &gateways);
    }
    result
}

/// Opens the sandbox, or says what is wrong with its path.
pub(super) fn sandbox(path: &str) -> Result<Sandbox, CniError> {
    Sandbox::open(Path::new(path)).map_err(|err| {
        CniError::new(Code::InvalidNetns, format!("failed to open netns {:?}", shortened(path, 300)))
            .with_details(shortened(&err.to_string(), 500))
    })
}

fn attach_request(
    config: BridgeConfig,
    request: &Request<Attachment>,
    sandbox: Sandbox,
    addressing: Addressing,
) -> AttachRequest {
    let BridgeConfig {
        network,
        default_route,
        hairpin,
        port_isolation,
        anti_spoofing,
        container_link,
        duplicate_detection,
        mac,
        ports,
        bandwidth,
        names,
    } = config;
    AttachRequest {
        network,
        key: key(&request.conf, &request.target.container, &request.target.ifname),
        sandbox,
        addressing,
        mac,
        default_route,
        hairpin,
        port_isolation,
        anti_spoofing,
        container_link,
        duplicate_detection,
        ports,
        bandwidth,
        names,
    }
}

/// The result in the reference's order: bridge, host end, container end.
pub(super) fn result_of(attached: Attached, conf: &NetConf, netns: &str) -> CniResult {
    let interface = |name: &str, mac: MacAddr, sandbox: Option<String>| Interface {
        name: name.to_owned(),
        mac: mac.to_string(),
        sandbox,
        ..Interface::default()
    };
    let Attached { key, bridge, bridge_mac, host_ifname, host_mac, mac, addresses, .. } = attached;
    let ip = |lease: berth_types::AddressLease| IpConfig {
        interface: Some(2),
        address: lease.address,
        gateway: lease.gateway,
    };
    CniResult {
        interfaces: vec![
            interface(bridge.as_str(), bridge_mac, None),
            interface(host_ifname.as_str(), host_mac, None),
            interface(key.ifname.as_str(), mac, Some(netns.to_owned())),
        ],
        ips: addresses.leases.into_iter().map(ip).collect(),
        routes: addresses.routes,
        dns: if conf.dns.is_empty() { addresses.dns } else { conf.dns.clone() },
    }
}
