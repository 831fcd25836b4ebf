//! `rnone`: loopback and nothing else; drop-in for `loopback`.

use std::net::{IpAddr, Ipv4Addr};

use berth_core::loopback;

use super::bridge::sandbox;
use super::error::of_core;
use crate::protocol::{
    Attachment, CniError, CniResult, Code, Detachment, Interface, IpConfig, Network, Plugin, Request,
};

/// The loopback plugin. It ignores the interface's name, as the reference does: there is one `lo`.
#[derive(Debug, Clone, Copy)]
pub struct Loopback;

impl Plugin for Loopback {
    fn name(&self) -> &'static str {
        "rnone"
    }

    fn add(&self, request: &Request<Attachment>) -> Result<CniResult, CniError> {
        let sandbox = sandbox(&request.target.netns)?;
        loopback::up(&sandbox).map_err(|err| of_core(&err))?;
        if let Some(before) = &request.conf.prev_result {
            return Ok(before.clone());
        }
        let addresses = loopback::addresses(&sandbox).map_err(|err| of_core(&err))?;
        Ok(CniResult {
            interfaces: vec![Interface {
                name: "lo".to_owned(),
                mac: "00:00:00:00:00:00".to_owned(),
                sandbox: Some(request.target.netns.clone()),
                ..Interface::default()
            }],
            ips: addresses
                .into_iter()
                .map(|address| IpConfig { interface: Some(0), address, gateway: None })
                .collect(),
            ..CniResult::default()
        })
    }

    fn check(&self, request: &Request<Attachment>) -> Result<(), CniError> {
        let sandbox = sandbox(&request.target.netns)?;
        let state = loopback::is_up(&sandbox).map_err(|err| of_core(&err))?;
        let present = loopback::addresses(&sandbox).map_err(|err| of_core(&err))?;
        let has_v4 = present.iter().any(|address| address.ip() == IpAddr::from(Ipv4Addr::LOCALHOST));
        match (state, has_v4) {
            (true, true) => Ok(()),
            (false, _) => Err(CniError::new(Code::CheckFailed, "lo is down")),
            (true, false) => Err(CniError::new(Code::CheckFailed, "lo lacks 127.0.0.1")),
        }
    }

    fn del(&self, request: &Request<Detachment>) -> Result<(), CniError> {
        // A sandbox that is gone took its loopback along.
        let Some(sandbox) = request.target.netns.as_deref().and_then(|path| sandbox(path).ok()) else {
            return Ok(());
        };
        loopback::down(&sandbox).map_err(|err| of_core(&err))
    }

    fn gc(&self, _: &Request<Network>) -> Result<(), CniError> {
        Ok(())
    }

    fn status(&self, _: &Request<Network>) -> Result<(), CniError> {
        Ok(())
    }
}
