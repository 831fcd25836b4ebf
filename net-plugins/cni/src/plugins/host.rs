//! `rhost`: the host's own network. Verifies that it was given just that, and changes nothing.

use berth_core::loopback;
use berth_netlink::Sandbox;

use super::bridge::sandbox;
use super::error::of_core;
use crate::protocol::{
    Attachment, CniError, CniResult, Code, Detachment, Interface, IpConfig, Network, Plugin, Request,
};

/// The host plugin.
#[derive(Debug, Clone, Copy)]
pub struct Host;

impl Plugin for Host {
    fn name(&self) -> &'static str {
        "rhost"
    }

    fn allows_own_netns(&self) -> bool {
        true
    }

    fn add(&self, request: &Request<Attachment>) -> Result<CniResult, CniError> {
        let sandbox = hosts_own(&request.target.netns)?;
        let links = loopback::host_addresses(&sandbox).map_err(|err| of_core(&err))?;
        let mut result = CniResult { dns: request.conf.dns.clone(), ..CniResult::default() };
        for (index, (name, mac, addresses)) in links.into_iter().enumerate() {
            let mac = mac.map(|mac| mac.to_string()).unwrap_or_default();
            let sandbox = Some(request.target.netns.clone());
            result.interfaces.push(Interface {
                name: name.to_string(),
                mac,
                sandbox,
                ..Interface::default()
            });
            let ip = |address| IpConfig { interface: Some(index), address, gateway: None };
            result.ips.extend(addresses.into_iter().map(ip));
        }
        Ok(result)
    }

    fn check(&self, request: &Request<Attachment>) -> Result<(), CniError> {
        hosts_own(&request.target.netns).map(|_| ())
    }

    fn del(&self, _: &Request<Detachment>) -> Result<(), CniError> {
        Ok(())
    }

    fn gc(&self, _: &Request<Network>) -> Result<(), CniError> {
        Ok(())
    }

    fn status(&self, _: &Request<Network>) -> Result<(), CniError> {
        Ok(())
    }
}

fn hosts_own(path: &str) -> Result<Sandbox, CniError> {
    let sandbox = sandbox(path)?;
    if sandbox.is_current().map_err(|err| CniError::from_chain(Code::InvalidNetns, &err))? {
        return Ok(sandbox);
    }
    let details =
        "rhost gives a container the host's own network: run the container in the host's network namespace";
    Err(CniError::new(Code::InvalidNetns, format!("{path} is not the host's network namespace"))
        .with_details(details))
}
