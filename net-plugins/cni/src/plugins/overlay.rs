//! `roverlay`: a container on a network that reaches over hosts.
//!
//! A network that this host is on needs neither the daemon nor the cluster for another container, as long as there is room in
//! this host's part of it.

use berth_core::GcRequest;
use berth_core::attachment::{ContainerLink, DuplicateDetection};
use berth_core::exchange::ExchangeError;
use berth_core::request::AttachRequest;
use berth_overlay::attach::{self, AttachError, Names};
use berth_overlay::call::CallError;
use berth_overlay::joined::Joined;
use berth_overlay::wire::RefusalCode;
use berth_types::{AttachmentKey, ContainerId, IfName, NetworkName};

use super::bridge::{answer, args, sandbox};
use super::error::{of_cleanup, of_core};
use super::ipam_call::address_request;
use super::overlay_config::{self, KEYS, OverlayConfig};
use super::{all_in_place, open};
use crate::protocol::{
    Attachment, CniArgs, CniError, CniResult, Code, Detachment, NetConf, Network, Plugin, Request, Shape,
};

/// The overlay plugin.
#[derive(Debug, Clone, Copy)]
pub struct Overlay;

impl Plugin for Overlay {
    fn name(&self) -> &'static str {
        "roverlay"
    }

    fn keys(&self) -> &'static Shape {
        &KEYS
    }

    fn add(&self, request: &Request<Attachment>) -> Result<CniResult, CniError> {
        let args = args(request)?;
        let config = overlay_config::parse(&request.conf, &args, &request.path)?;
        let inside = sandbox(&request.target.netns)?;
        let key = key(&config.ask.name, &request.target.container, &request.target.ifname);
        let asked = address_request(request, &args, Some(&inside))?;
        let asked = berth_ipam::Request { owner: key.clone(), ..asked };
        drop(inside);
        let mut berth = open(&request.conf.raw)?;
        let joined = attach::joined(&mut berth, &config.ask).map_err(|err| of_attach(&err))?;
        attach::ask_for(&mut berth, &joined, &asked.requested).map_err(|err| of_attach(&err))?;
        let path = std::path::Path::new(&request.target.netns);
        let mut make = || {
            let sandbox = berth_netlink::Sandbox::open(path)?;
            Ok(attach_request(&config, &joined, key.clone(), sandbox, asked.clone()))
        };
        let attached = attach::attach(&mut berth, &joined, Names::AsTheyAre, &mut make)
            .map_err(|err| of_attach(&err))?;
        let domain = joined.declaration.names.as_ref().map(|names| names.domain.clone());
        Ok(answer(request, attached, domain))
    }

    fn check(&self, request: &Request<Attachment>) -> Result<(), CniError> {
        request.conf.require_prev_result()?;
        let inside = sandbox(&request.target.netns)?;
        let network = overlay_config::network(&request.conf)?;
        let key = key(&network, &request.target.container, &request.target.ifname);
        let wrong = open(&request.conf.raw)?.check(&key, &inside).map_err(|err| of_core(&err))?;
        all_in_place(&wrong)
    }

    fn del(&self, request: &Request<Detachment>) -> Result<(), CniError> {
        let Request { target, conf, .. } = request;
        let key = key(&overlay_config::network(conf)?, &target.container, &target.ifname);
        let mut berth = open(&conf.raw)?;
        berth.detach(&key).map_err(|err| of_cleanup(&err))?;
        // What the cluster does not hear now, it hears from the records.
        let _ = attach::publish(&berth, &key);
        Ok(())
    }

    fn gc(&self, request: &Request<Network>) -> Result<(), CniError> {
        let conf = &request.conf;
        let network = overlay_config::network(conf)?;
        // The runtime's list is of this configuration; another one may be about the same network.
        let valid = conf.valid_attachments.as_ref().filter(|_| network == conf.name);
        let valid =
            valid.map(|all| all.iter().map(|one| (one.container.clone(), one.ifname.clone())).collect());
        let gc = GcRequest { network: Some(network), valid, ..GcRequest::default() };
        let mut berth = open(&conf.raw)?;
        let report = berth.gc(&gc).map_err(|err| of_cleanup(&err))?;
        attach::collected(&mut berth, &report.attachments);
        Ok(())
    }

    fn status(&self, request: &Request<Network>) -> Result<(), CniError> {
        let unavailable = |err: CniError| CniError { code: Code::NotAvailable, ..err };
        let conf: &NetConf = &request.conf;
        let config = overlay_config::parse(conf, &CniArgs::parse("", &[])?, &request.path)?;
        let mut berth = open(&conf.raw)?;
        match Joined::find(&mut berth, &config.ask.name).map_err(|err| of_core(&err))? {
            // Room is got when it is needed.
            Some(_) => Ok(()),
            None => berth_overlay::call::ping(&berth.dirs().run).map_err(|err| unavailable(of_call(&err))),
        }
    }
}

fn key(network: &NetworkName, container: &ContainerId, ifname: &IfName) -> AttachmentKey {
    AttachmentKey { network: network.clone(), container: container.clone(), ifname: ifname.clone() }
}

fn attach_request(
    config: &OverlayConfig,
    joined: &Joined,
    key: AttachmentKey,
    sandbox: berth_netlink::Sandbox,
    asked: berth_ipam::Request,
) -> AttachRequest {
    let OverlayConfig { ask: _, default_route, hairpin, anti_spoofing, mac, ports, bandwidth, names } =
        config.clone();
    AttachRequest {
        network: joined.declaration.spec(),
        key,
        sandbox,
        addressing: attach::addressing(joined, asked),
        mac,
        default_route: default_route && !joined.record.internal,
        hairpin,
        port_isolation: false,
        anti_spoofing,
        container_link: ContainerLink::Up,
        duplicate_detection: DuplicateDetection::Off,
        ports,
        bandwidth,
        names: Some(names),
    }
}

fn of_attach(err: &AttachError) -> CniError {
    match err {
        AttachError::Core(err) => of_core(err),
        AttachError::Call(err) => of_call(err),
        AttachError::Elsewhere(_) => CniError::from_chain(Code::State, err),
        AttachError::NoRoom { call, .. } => {
            let code = if call.is_absent() { Code::PoolExhausted } else { of_call(call).code };
            CniError::from_chain(code, err)
        }
    }
}

/// The code of what the agent did not do.
fn of_call(err: &CallError) -> CniError {
    let code = match err {
        CallError::Refused(refusal) => match refusal.code {
            RefusalCode::NotJoined | RefusalCode::Away => Code::TryAgainLater,
            RefusalCode::Denied => Code::Permission,
            RefusalCode::NoNetwork | RefusalCode::Invalid => Code::InvalidConfig,
            RefusalCode::Taken | RefusalCode::InUse => Code::SubnetConflict,
            RefusalCode::Exhausted => Code::PoolExhausted,
            RefusalCode::Unsupported => Code::UnsupportedField,
            RefusalCode::Failed => Code::Kernel,
        },
        CallError::Answer(_) | CallError::Exchange(ExchangeError::Io { .. }) => Code::Io,
        CallError::Exchange(_) => Code::TryAgainLater,
    };
    CniError::from_chain(code, err)
}
