//! Configuration lists written for the reference plugins, with only `type` changed: the results, and what the container then
//! has, are those of the installed reference plugins on the same input.
//!
//! The other comparison, `vectors`, replays recorded answers of a newer release; this one runs the real programs side by side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers: whatever goes wrong fails the test"
)]
#![forbid(unsafe_code)]

mod cases;
mod normal;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use berth_integration::{Cni, ConfList, Container, Host, host_test};
use serde_json::{Value, json};

/// Where Debian keeps the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// Which of berth's plugins stands for which of the reference.
const NAMES: [(&str, &str); 4] =
    [("bridge", "rbridge"), ("host-local", "ripam"), ("portmap", "rportmap"), ("loopback", "rnone")];

/// One input: a list for the reference plugins, and what a runtime adds.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    list: Value,
    capabilities: Vec<(&'static str, Value)>,
    args: Option<&'static str>,
    ifname: &'static str,
    containers: &'static [&'static str],
}

/// What became of the containers on one network.
struct Outcome {
    /// Of each: its result and what it has then; or that it was refused, not how, for the codes of the reference tell nothing.
    added: Vec<Value>,
    /// Whether CHECK of the first succeeded, where the version has it.
    checked: Option<bool>,
    /// Whether every DEL succeeded.
    deleted: bool,
    /// What the containers have after DEL.
    left: Vec<Value>,
}

impl Case {
    pub(crate) fn new(plugins: Value) -> Self {
        let list = json!({"cniVersion": "1.0.0", "name": "n0", "plugins": plugins});
        Self { list, capabilities: Vec::new(), args: None, ifname: "eth0", containers: &["c1", "c2"] }
    }

    pub(crate) fn version(mut self, version: &str) -> Self {
        self.list["cniVersion"] = json!(version);
        self
    }

    pub(crate) fn capability(mut self, name: &'static str, value: Value) -> Self {
        self.capabilities.push((name, value));
        self
    }

    pub(crate) fn args(mut self, args: &'static str) -> Self {
        self.args = Some(args);
        self
    }

    pub(crate) fn ifname(mut self, ifname: &'static str) -> Self {
        self.ifname = ifname;
        self
    }

    /// With one container, where two could not have what is asked for.
    pub(crate) fn only_first(mut self) -> Self {
        self.containers = &["c1"];
        self
    }

    /// The same list with berth's types.
    fn translated(&self) -> Value {
        let mut list = self.list.clone();
        for plugin in list["plugins"].as_array_mut().unwrap() {
            plugin["type"] = own_name(&plugin["type"]);
            if plugin["ipam"]["type"].is_string() {
                plugin["ipam"]["type"] = own_name(&plugin["ipam"]["type"]);
            }
        }
        list
    }

    fn calls<'h>(&self, cni: &Cni<'h>, list: Value) -> ConfList<'h> {
        let calls = self
            .capabilities
            .iter()
            .fold(cni.list(list), |calls, (name, value)| calls.capability(name, value.clone()));
        self.args.into_iter().fold(calls, ConfList::args)
    }

    /// Both suites add the first container, and agree about all.
    #[track_caller]
    pub(crate) fn agrees(&self) {
        self.compared(|first| *first != refused());
    }

    /// Both suites refuse.
    #[track_caller]
    pub(crate) fn is_refused(&self) {
        self.compared(|first| *first == refused());
    }

    /// Runs berth and the reference, each on a host of its own, and requires the same outcome, and `expected` of the first
    /// container.
    #[track_caller]
    fn compared(&self, expected: fn(&Value) -> bool) {
        if !Path::new(REFERENCE).join("bridge").exists() {
            assert!(std::env::var_os("CI").is_none(), "the reference plugins are missing in {REFERENCE}");
            skipped();
            return;
        }
        // What the reference leaves on its host goes with the host.
        let host = Host::new();
        let theirs = self.outcome(&host, &Cni::of(&host, REFERENCE), self.list.clone());
        let first = &theirs.added[0];
        assert!(expected(first), "the reference has {first:#} of {:#}", self.list);
        host_test(|host| {
            let plugins = both(host);
            let ours = self.outcome(host, &Cni::of(host, plugins), self.translated());
            self.compare(&ours, &theirs);
            host.berth(["gc"]).run();
            normal::forget_reference(host);
        });
    }

    /// CHECK and DEL of the reference may fail: it cannot check some of what it made, and deletes nothing with a configuration
    /// that it would not add with. berth must succeed.
    #[track_caller]
    fn compare(&self, ours: &Outcome, theirs: &Outcome) {
        let difference = normal::difference(&json!(ours.added), &json!(theirs.added));
        assert!(difference.is_empty(), "added (- reference, + berth):\n{difference}of {:#}", self.list);
        let difference = normal::difference(&json!(ours.left), &json!(theirs.left));
        assert!(difference.is_empty(), "left (- reference, + berth):\n{difference}of {:#}", self.list);
        assert_ne!(ours.checked, Some(false), "CHECK fails of {:#}", self.list);
        assert!(ours.deleted, "DEL fails of {:#}", self.list);
    }

    fn outcome(&self, host: &Host, cni: &Cni<'_>, list: Value) -> Outcome {
        let has_check = !["0.2.0", "0.3.0", "0.3.1"].contains(&self.list["cniVersion"].as_str().unwrap());
        let calls = self.calls(cni, list);
        let containers: Vec<_> = self.containers.iter().map(|name| host.container(name)).collect();
        let add = |container: &Container<'_>| match calls.add(container, container.name(), self.ifname) {
            Ok(result) => json!({"result": normal::result(result), "inside": normal::inside(container)}),
            Err(_) => refused(),
        };
        let added: Vec<_> = containers.iter().map(add).collect();
        let checkable = has_check && added[0] != refused();
        let checked = checkable.then(|| calls.check(&containers[0], "c1", self.ifname).is_ok());
        // Twice, as a runtime that is not sure.
        let twice = containers.iter().chain(&containers);
        let results: Vec<_> =
            twice.map(|container| calls.del(Some(container), container.name(), self.ifname)).collect();
        let deleted = results.iter().all(Result::is_ok);
        let left = containers.iter().map(normal::inside).collect();
        normal::bring_down_loopback(&containers);
        Outcome { added, checked, deleted, left }
    }
}

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
fn skipped() {
    eprintln!("SKIPPED: the reference plugins are missing in {REFERENCE}");
}

fn refused() -> Value {
    json!("refused")
}

fn own_name(reference: &Value) -> Value {
    let found = NAMES.iter().find(|(name, _)| reference == name);
    found.map_or_else(|| reference.clone(), |(_, own)| json!(own))
}

/// A directory with berth's plugins under their own names, and the reference's for the rest of a chain.
fn both(host: &Host) -> PathBuf {
    let dir = host.dir().join("both");
    fs::create_dir(&dir).unwrap();
    for source in [host.cni().plugins(), Path::new(REFERENCE)] {
        for entry in fs::read_dir(source).unwrap().map(Result::unwrap) {
            symlink(entry.path(), dir.join(entry.file_name())).unwrap();
        }
    }
    dir
}
