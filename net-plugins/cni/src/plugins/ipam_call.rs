//! Who leases addresses for a main plugin: berth's own pools in the same process, or another plugin by exec.

use std::path::PathBuf;

use berth_core::request::{Addresses, Addressing};
use berth_ipam::PoolConfig;
use berth_netlink::Sandbox;
use berth_types::{AddressLease, AttachmentKey, Dns};
use serde_json::Value;

use crate::delegate;
use crate::protocol::{Attachment, CniArgs, CniError, Code, Detachment, NetConf, Request, SearchPath};

/// Who leases addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IpamKind {
    /// Nobody: the network is layer 2 only.
    Nobody,
    /// berth's pools, in this process.
    Ours,
    /// The plugin at this path.
    Elsewhere(PathBuf),
}

impl IpamKind {
    /// Looks at `ipam.type`: `ripam` is berth's own wherever it lies; another name is berth's own where the plugin
    /// directory leads it to this very program.
    pub(super) fn of(conf: &NetConf, path: &SearchPath) -> Result<Self, CniError> {
        match conf.ipam_type() {
            None => Ok(Self::Nobody),
            Some("ripam") => Ok(Self::Ours),
            Some(other) => {
                let found = delegate::resolve(other, path)?;
                Ok(if delegate::is_self(&found) { Self::Ours } else { Self::Elsewhere(found) })
            }
        }
    }
}

/// The addressing of an attachment, for [`IpamKind::Nobody`] and [`IpamKind::Ours`].
pub(super) fn addressing(
    kind: &IpamKind,
    request: &Request<Attachment>,
    args: &CniArgs,
    sandbox: &Sandbox,
) -> Result<Addressing, CniError> {
    if *kind != IpamKind::Ours {
        return Ok(Addressing::Given(Addresses::default()));
    }
    let config = pool_config(&request.conf)?;
    let resolv_conf = resolver_settings(&config)?;
    let request = address_request(request, args, Some(sandbox))?;
    Ok(Addressing::Pool { config: Box::new(config), resolv_conf, request })
}

/// The pools of a configuration.
pub(super) fn pool_config(conf: &NetConf) -> Result<PoolConfig, CniError> {
    let ipam = Value::Object(conf.ipam.clone());
    PoolConfig::parse(&ipam, conf.runtime.ip_ranges.as_ref())
        .map_err(|err| CniError::new(Code::InvalidConfig, err.to_string()).with_details(err.details()))
}

/// What the configuration's `resolvConf` says.
pub(super) fn resolver_settings(config: &PoolConfig) -> Result<Dns, CniError> {
    let Some(path) = &config.resolv_conf else { return Ok(Dns::default()) };
    berth_ipam::read_resolv_conf(path).map_err(|err| CniError::from_chain(Code::InvalidConfig, &err))
}

/// What is asked of the pools: the union of all ways to ask for addresses, as the reference takes it.
pub(super) fn address_request(
    request: &Request<Attachment>,
    args: &CniArgs,
    sandbox: Option<&Sandbox>,
) -> Result<berth_ipam::Request, CniError> {
    let Request { target, conf, .. } = request;
    let mut requested = Vec::new();
    for text in args.get("IP").unwrap_or_default().split(',').filter(|text| !text.is_empty()) {
        let ip: crate::protocol::RequestedIp = text
            .parse()
            .map_err(|err| CniError::new(Code::InvalidEnvironment, format!("CNI_ARGS: {err}")))?;
        requested.push(ip.addr);
    }
    requested.extend(conf.args.ips.iter().chain(&conf.runtime.ips).map(|ip| ip.addr));
    // By name only where the pool says so: every pod of a runtime has one.
    let wants = conf.ipam.get("sticky").and_then(Value::as_bool).unwrap_or(false);
    let sticky = args.get("K8S_POD_NAME").filter(|name| wants && !name.is_empty());
    Ok(berth_ipam::Request {
        owner: AttachmentKey {
            network: conf.name.clone(),
            container: target.container.clone(),
            ifname: target.ifname.clone(),
        },
        sandbox: sandbox.map(|sandbox| (sandbox.path().to_owned(), sandbox.id())),
        requested,
        sticky: sticky.map(str::to_owned),
    })
}

/// Leases by the plugin at `kind`'s path, with the rollback the specification asks for when it fails.
pub(super) fn delegated_add(kind: &IpamKind, request: &Request<Attachment>) -> Result<Addresses, CniError> {
    let IpamKind::Elsewhere(plugin) = kind else { return Ok(Addresses::default()) };
    let result = delegate::add(plugin, request).inspect_err(|_| delegated_del(kind, &request.undo()))?;
    if result.ips.is_empty() {
        delegated_del(kind, &request.undo());
        return Err(CniError::new(Code::PluginBroken, "IPAM plugin returned missing IP config"));
    }
    let lease = |ip: &crate::protocol::IpConfig| AddressLease { address: ip.address, gateway: ip.gateway };
    Ok(Addresses { leases: result.ips.iter().map(lease).collect(), routes: result.routes, dns: result.dns })
}

/// Takes back what [`delegated_add`] leased. A failure is logged: the cause that led here is reported instead.
pub(super) fn delegated_del(kind: &IpamKind, undo: &Request<Detachment>) {
    let IpamKind::Elsewhere(plugin) = kind else { return };
    if let Err(err) = delegate::del(plugin, undo) {
        tracing::error!(plugin = %plugin.display(), %err, "the delegated addresses could not be released");
    }
}
