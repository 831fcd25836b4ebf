//! `ripam`: berth's pools for any main plugin; drop-in for `host-local`.

use super::bridge::sandbox;
use super::error::{of_cleanup, of_core};
use super::ipam_call::{address_request, pool_config, resolver_settings};
use super::{collect, key, open};
use crate::protocol::{
    Attachment, CniArgs, CniError, CniResult, Code, Detachment, IpConfig, NetConf, Network, Plugin, Request,
};

/// The IPAM plugin.
#[derive(Debug, Clone, Copy)]
pub struct Ipam;

impl Plugin for Ipam {
    fn name(&self) -> &'static str {
        "ripam"
    }

    fn add(&self, request: &Request<Attachment>) -> Result<CniResult, CniError> {
        let args = CniArgs::parse(&request.target.args, &["IP", "MAC"])?;
        let config = pool_config(&request.conf)?;
        // A main plugin may lease before it looks at the sandbox; without one, only a reboot ends the lease.
        let inside = sandbox(&request.target.netns).ok();
        let asked = address_request(request, &args, inside.as_ref())?;
        let dns = resolver_settings(&config)?;
        let mut berth = open(&request.conf.raw)?;
        let leases = berth.lease(&config, &asked).map_err(|err| of_core(&err))?;
        let ip = |lease: berth_types::AddressLease| IpConfig {
            interface: None,
            address: lease.address,
            gateway: lease.gateway,
        };
        Ok(CniResult {
            interfaces: Vec::new(),
            ips: leases.into_iter().map(ip).collect(),
            routes: config.routes,
            dns,
        })
    }

    fn check(&self, request: &Request<Attachment>) -> Result<(), CniError> {
        pool_config(&request.conf)?;
        let key = key(&request.conf, &request.target.container, &request.target.ifname);
        let held = open(&request.conf.raw)?.leases_of(&key).map_err(|err| of_core(&err))?;
        if held.is_empty() {
            return Err(CniError::new(Code::CheckFailed, format!("no address is leased to {key}")));
        }
        Ok(())
    }

    fn del(&self, request: &Request<Detachment>) -> Result<(), CniError> {
        let key = key(&request.conf, &request.target.container, &request.target.ifname);
        open(&request.conf.raw)?.release(&key).map_err(|err| of_cleanup(&err))
    }

    fn gc(&self, request: &Request<Network>) -> Result<(), CniError> {
        collect(&request.conf)
    }

    fn status(&self, request: &Request<Network>) -> Result<(), CniError> {
        pool_status(&request.conf)
    }
}

/// Whether the configuration's pools can lease.
pub(super) fn pool_status(conf: &NetConf) -> Result<(), CniError> {
    if conf.ipam_type().is_none() {
        return Ok(());
    }
    let config = pool_config(conf)?;
    match open(&conf.raw)?.pool_has_room(&config, &conf.name).map_err(|err| of_core(&err))? {
        true => Ok(()),
        false => Err(CniError::new(
            Code::NotAvailable,
            format!("no IP addresses available in network {}", conf.name),
        )
        .with_details("every address is leased; remove containers, or give the network a larger range")),
    }
}
