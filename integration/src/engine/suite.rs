//! Which plugins the engines are given.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Host;

/// Where Debian keeps the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// A suite of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// berth, which is what is tested.
    Berth,
    /// The reference plugins, by which the tests themselves are proved.
    Reference,
}

impl Suite {
    /// berth, unless `BERTH_TEST_PLUGINS=reference`.
    pub fn chosen() -> Self {
        match std::env::var("BERTH_TEST_PLUGINS").as_deref() {
            Ok("reference") => Self::Reference,
            _ => Self::Berth,
        }
    }

    /// Directories of plugins for an engine: berth's under its own and under the reference names, then the reference
    /// plugins for what berth has no equal of, such as `firewall` and `tuning`.
    pub fn plugin_dirs(self, host: &Host) -> Vec<PathBuf> {
        match self {
            Self::Reference => vec![REFERENCE.into()],
            Self::Berth => {
                let own = host.dir().join("plugins");
                fs::create_dir_all(&own).unwrap();
                let dir = own.to_str().expect("a plain path").to_owned();
                super::berth(host, ["install", "--reference-names", &dir]).run();
                vec![own, REFERENCE.into()]
            }
        }
    }

    /// One directory with all plugins, for an engine that looks nowhere else. berth's come first.
    pub fn fill(self, host: &Host, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        for source in self.plugin_dirs(host) {
            for entry in fs::read_dir(source).unwrap().filter_map(Result::ok) {
                // A name that is there already is one of berth's.
                let _ = symlink(entry.path(), dir.join(entry.file_name()));
            }
        }
    }

    /// A configuration list for this suite: berth's own types stay or become those of the reference plugins.
    pub fn list(self, mut list: Value) -> Value {
        if self == Self::Reference {
            for plugin in list["plugins"].as_array_mut().expect("a list has plugins") {
                plugin["type"] = reference_type(&plugin["type"]);
                if plugin["ipam"].is_object() {
                    plugin["ipam"]["type"] = reference_type(&plugin["ipam"]["type"]);
                }
            }
        }
        list
    }
}

fn reference_type(own: &Value) -> Value {
    match own.as_str().unwrap_or_default() {
        "rbridge" => json!("bridge"),
        "ripam" => json!("host-local"),
        "rportmap" => json!("portmap"),
        "rnone" => json!("loopback"),
        _ => own.clone(),
    }
}

/// Takes away what the reference `firewall` keeps for ever: its chains, in tables of iptables' making. Rules of containers in
/// them would be a leak, and stay to be seen.
pub(super) fn forget_firewall(host: &Host) {
    for family in ["ip", "ip6"] {
        let listed = host.line(&format!("nft list table {family} filter")).output().stdout;
        let own = listed.contains("CNI-FORWARD") && !listed.contains("daddr");
        if own {
            host.run(&format!("nft delete table {family} filter"));
        }
    }
}

/// Takes away what the reference plugins keep: bridges, and chains of port mappings.
pub(super) fn forget_reference(host: &Host) {
    host.run("nft flush ruleset");
    let bridges = host.json("ip -j link show type bridge");
    let names = bridges.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
    for name in names {
        host.run(&format!("ip link delete {name}"));
    }
    host.line("conntrack -D -p udp").output();
}
