//! berth's CNI plugins. Each translates its configuration into a call of the core and the answer back into a result;
//! none of them decides anything about the kernel.

mod bridge;
mod bridge_config;
mod error;
mod host;
mod ipam;
mod ipam_call;
mod names;
mod none;
mod overlay;
mod overlay_config;
mod portmap;
mod rdns;

use std::path::PathBuf;

use berth_core::{Berth, GcRequest};
use berth_store::Dirs;
use berth_types::{AttachmentKey, ContainerId, IfName};
use serde_json::{Map, Value};

use crate::protocol::{CniError, CniResult, Code, NetConf, Plugin};

pub use bridge::Bridge;
pub use host::Host;
pub use ipam::Ipam;
pub use none::Loopback;
pub use overlay::Overlay;
pub use portmap::PortMap;
pub use rdns::Rdns;

/// A plugin and the names it is called under: berth's own and, for drop-in use, the reference's.
pub struct Named {
    /// berth's name.
    pub name: &'static str,
    /// The name of the reference plugin it stands in for.
    pub reference: Option<&'static str>,
    /// The plugin.
    pub plugin: &'static dyn Plugin,
}

/// Every plugin.
pub const ALL: &[Named] = &[
    Named { name: "rbridge", reference: Some("bridge"), plugin: &Bridge },
    Named { name: "roverlay", reference: None, plugin: &Overlay },
    Named { name: "rhost", reference: None, plugin: &Host },
    Named { name: "rnone", reference: Some("loopback"), plugin: &Loopback },
    Named { name: "ripam", reference: Some("host-local"), plugin: &Ipam },
    Named { name: "rportmap", reference: Some("portmap"), plugin: &PortMap },
    Named { name: "rdns", reference: Some("dnsname"), plugin: &Rdns },
];

/// The plugin called `name`, by either of its names.
pub fn by_name(name: &str) -> Option<&'static dyn Plugin> {
    ALL.iter().find(|named| named.name == name || named.reference == Some(name)).map(|named| named.plugin)
}

/// Opens the core with the directories of the environment, or of the configuration's `stateDir` and `runDir`.
fn open(raw: &Map<String, Value>) -> Result<Berth, CniError> {
    let dir =
        |key: &str| raw.get(key).and_then(Value::as_str).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let dirs = Dirs::from_env().map_err(|err| CniError::new(Code::InvalidEnvironment, err.to_string()))?;
    let dirs = Dirs { state: dir("stateDir").unwrap_or(dirs.state), run: dir("runDir").unwrap_or(dirs.run) };
    Berth::open(&dirs).map_err(|err| error::of_core(&err))
}

/// Whose attachment a request is about.
fn key(conf: &NetConf, container: &ContainerId, ifname: &IfName) -> AttachmentKey {
    AttachmentKey { network: conf.name.clone(), container: container.clone(), ifname: ifname.clone() }
}

/// The result of the plugin before this one.
fn chained(conf: &NetConf) -> Result<&CniResult, CniError> {
    conf.prev_result
        .as_ref()
        .ok_or_else(|| CniError::new(Code::InvalidConfig, "must be called as chained plugin"))
}

/// CHECK's answer, by what is not in place.
fn all_in_place(wrong: &[String]) -> Result<(), CniError> {
    match wrong.split_first() {
        None => Ok(()),
        Some((first, rest)) => {
            Err(CniError::new(Code::CheckFailed, first.clone()).with_details(rest.join("; ")))
        }
    }
}

/// GC of what the runtime's list leaves out.
fn collect(conf: &NetConf) -> Result<(), CniError> {
    let valid = conf.valid_attachments.as_ref();
    let gc = GcRequest {
        network: Some(conf.name.clone()),
        valid: valid.map(|all| all.iter().map(|one| (one.container.clone(), one.ifname.clone())).collect()),
        ..GcRequest::default()
    };
    open(&conf.raw)?.gc(&gc).map(drop).map_err(|err| error::of_cleanup(&err))
}
