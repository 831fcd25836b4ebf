//! The recording: what the reference plugins were asked, what they answered, and what was there afterwards.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::kernel::Kernel;

/// One recorded case.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Case {
    pub(crate) input: Vec<Step>,
    pub(crate) calls: Vec<Answer>,
    pub(crate) kernel: Kernel,
}

/// One thing that was done. Exactly one of `cmd`, `sh`, `nssh`, `rmns` and `file` is there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// A call of a plugin, and how: see the fields below.
    pub(crate) cmd: Option<String>,
    /// A shell command on the host.
    pub(crate) sh: Option<String>,
    /// A shell command in the first container.
    pub(crate) nssh: Option<String>,
    /// The container that is deleted.
    pub(crate) rmns: Option<usize>,
    /// A file, its name and content; named in the configuration as `@name`.
    pub(crate) file: Option<(String, String)>,

    /// The configuration without `name` and `cniVersion`.
    pub(crate) plugin: Option<Value>,
    #[serde(default = "version")]
    pub(crate) ver: String,
    #[serde(default = "network")]
    pub(crate) net: Option<String>,
    #[serde(default = "container")]
    pub(crate) cid: String,
    #[serde(default = "interface")]
    pub(crate) ifname: String,
    /// Which container.
    #[serde(default)]
    pub(crate) ns: usize,
    /// `CNI_ARGS`.
    pub(crate) args: Option<String>,
    /// Variables set, or with `null` left out.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, Option<String>>,
    /// Sent instead of the configuration.
    pub(crate) raw: Option<String>,
    /// `CNI_NETNS` is empty.
    #[serde(default)]
    pub(crate) nons: bool,
    /// CHECK and DEL without the previous result.
    #[serde(default)]
    pub(crate) noprev: bool,
    /// With the last ADD's result as previous result.
    #[serde(default)]
    pub(crate) chained: bool,
}

/// What a call answered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    pub(crate) call: String,
    pub(crate) exit: i32,
    pub(crate) out: Value,
}

fn version() -> String {
    "1.0.0".to_owned()
}

fn network() -> Option<String> {
    Some("n0".to_owned())
}

fn container() -> String {
    "c1".to_owned()
}

fn interface() -> String {
    "eth0".to_owned()
}

/// All cases by name.
pub(crate) fn all() -> BTreeMap<String, Case> {
    serde_json::from_str(include_str!("../data/cni-reference-1.9.1.json")).unwrap()
}
