//! Runs one recorded case on a fresh host and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use berth_integration::{Call, Cni, CniRan, Container, Host, Snapshot, eventually};
use serde_json::{Value, json};

use crate::answer::Meaning;
use crate::kernel::{Kernel, View};
use crate::recorded::{Answer, Case, Step};

/// Whose plugins are run: berth's, or (with `BERTH_VECTOR_PLUGINS` naming their directory) the reference plugins, which shows
/// that the comparison itself is right.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plugins {
    Berth,
    Reference(String),
}

/// The reference plugins' types and berth's.
const TYPES: [(&str, &str); 4] =
    [("bridge", "rbridge"), ("host-local", "ripam"), ("portmap", "rportmap"), ("loopback", "rnone")];

/// The links of a host that nothing was done to.
const OWN_LINKS: [&str; 3] = ["lo", "up0", "up1"];

struct Run<'h> {
    host: &'h Host,
    cni: Cni<'h>,
    plugins: Plugins,
    containers: Vec<Option<Container<'h>>>,
    netns: Vec<String>,
    /// Links that are not a plugin's.
    known: BTreeSet<String>,
    /// The last ADD's result.
    previous: Option<Value>,
    /// What was added and not deleted, for the end.
    added: Vec<Step>,
}

/// How a call ended, and the kernel before and after it.
struct Called {
    ran: CniRan,
    before: Kernel,
    after: Kernel,
}

pub(crate) fn run(case: &Case) {
    let plugins = std::env::var("BERTH_VECTOR_PLUGINS").map_or(Plugins::Berth, Plugins::Reference);
    let host = Host::new();
    let before = Snapshot::of(&host);
    let cni = match &plugins {
        Plugins::Berth => host.cni(),
        Plugins::Reference(dir) => Cni::of(&host, dir),
    };
    let containers: Vec<_> = ["c0", "c1"].iter().map(|name| Some(host.container(name))).collect();
    let netns: Vec<String> =
        containers.iter().flatten().map(|c| c.netns().to_str().unwrap().to_owned()).collect();
    let known = OWN_LINKS.map(str::to_owned).into();
    let mut run =
        Run { host: &host, cni, plugins, containers, netns, known, previous: None, added: Vec::new() };
    run.compare(case);
    if run.plugins == Plugins::Berth {
        run.delete_all();
        run.remove_own_links();
        drop(run);
        host.gc();
        assert_eq!(host.leaks(), Vec::<String>::new());
        eventually(std::time::Duration::from_secs(5), || match before.difference(&Snapshot::of(&host)) {
            same if same.is_empty() => Ok(()),
            left => Err(format!("after the last DEL and gc the host is not as before:\n{left}")),
        });
    } else {
        run.abandon();
    }
}

/// The reference puts the protocol's text into a rule as it came, so that `TCP` is a syntax error there. berth reads it
/// (docs/differences.md).
fn is_reference_syntax_error(answer: &Answer) -> bool {
    let text = answer.out.to_string();
    answer.exit == 1 && text.contains("syntax error, unexpected colon")
}

impl<'h> Run<'h> {
    fn compare(&mut self, case: &Case) {
        let mut meaning = Meaning::new(&self.netns);
        let mut answers = case.calls.iter();
        let mut last = None;
        for step in &case.input {
            let Some(called) = self.step(step) else { continue };
            let answer = answers.next().expect("an answer was recorded for every call");
            assert_eq!(step.cmd.as_ref(), Some(&answer.call), "the recording is in order");
            let ran = &called.ran.ran;
            if is_reference_syntax_error(answer) {
                assert_eq!(ran.code(), Some(0), "a protocol in capital letters is a protocol: {ran}");
                last = Some(called);
                continue;
            }
            if let Err(wrong) = meaning.compare(answer, ran.code(), &called.ran.json) {
                panic!("{}: {wrong}\n{step:?}\n{ran}", answer.call);
            }
            last = Some(called);
        }
        assert!(answers.next().is_none(), "every recorded answer was compared");
        let last = last.expect("a case has calls");
        match self.plugins {
            Plugins::Reference(_) => assert_eq!(last.after, self.with_forwarding(case)),
            Plugins::Berth => self.compare_kernel(case, &last),
        }
    }

    /// The kernel as recorded, but for what berth does better.
    fn compare_kernel(&self, case: &Case, last: &Called) {
        let recorded = self.with_forwarding(case);
        let answer = case.calls.last().expect("a case has calls");
        // A failed ADD leaves nothing behind, where the reference plugins leave links, and bridges they made for it.
        if answer.call == "ADD" && answer.exit != 0 {
            assert_eq!(last.after, last.before, "a failed ADD changed the kernel");
            return;
        }
        if self.added.is_empty() && answer.call == "DEL" {
            // The last DEL takes the container's link away even if its namespace cannot be entered. The bridge that berth
            // made may go with it, or wait for `gc`; forwarding may then be as it was.
            let expected = emptied(recorded, &last.after);
            assert_eq!(last.after, expected);
            return;
        }
        assert_eq!(last.after, recorded);
    }

    /// The machine that recorded had IPv4 forwarding on from the start; hosts here begin without. A gateway turns it on, and
    /// shows as an address of the bridge.
    fn with_forwarding(&self, case: &Case) -> Kernel {
        let mut kernel = case.kernel.clone();
        let gateway = kernel.host.addrs.iter().any(|addr| addr.starts_with("br0 ") && addr.contains('.'));
        if !gateway {
            kernel.host.forward[0] = "0".to_owned();
        }
        kernel
    }

    fn step(&mut self, step: &Step) -> Option<Called> {
        if let Some(line) = &step.sh {
            self.host.run(line);
            self.known.extend(self.names());
        }
        if let Some(line) = &step.nssh {
            self.container(0).run(line);
        }
        if let Some(index) = step.rmns {
            self.containers[index].take().unwrap().remove();
        }
        if let Some((name, content)) = &step.file {
            fs::write(self.host.dir().join(name), content).unwrap();
        }
        step.cmd.as_ref().map(|command| self.call(step, command))
    }

    fn call(&mut self, step: &Step, command: &str) -> Called {
        let before = self.kernel();
        let ran = self.prepared(step, command).run(command);
        let after = self.kernel();
        if ran.succeeded() && command == "ADD" {
            self.previous = Some(ran.json.clone());
            if !step.chained {
                self.added.push(step.clone());
            }
        }
        if ran.succeeded() && command == "DEL" {
            self.added.retain(|added| (&added.cid, &added.ifname) != (&step.cid, &step.ifname));
        }
        Called { ran, before, after }
    }

    fn prepared(&self, step: &Step, command: &str) -> Call<'h> {
        let mut conf = step.plugin.clone().expect("a call has a configuration");
        if self.plugins == Plugins::Berth {
            exchange_types(&mut conf);
        }
        self.fill_in_paths(&mut conf);
        conf["cniVersion"] = json!(step.ver);
        if let Some(net) = &step.net {
            conf["name"] = json!(net);
        }
        // CHECK always has the previous result, DEL since 0.4.0.
        let has_previous = command == "CHECK" || command == "DEL" && step.ver.as_str() >= "0.4.0";
        if let Some(previous) =
            self.previous.as_ref().filter(|_| step.chained || has_previous && !step.noprev)
        {
            conf["prevResult"] = previous.clone();
        }
        let plugin = type_of(&conf);
        let mut call = self.cni.exact(&plugin, conf).id(&step.cid).ifname(&step.ifname);
        if !step.nons {
            call = call.env("CNI_NETNS", &self.netns[step.ns]);
        }
        if let Some(args) = &step.args {
            call = call.args(args);
        }
        if let Some(raw) = &step.raw {
            call = call.stdin(raw.as_bytes());
        }
        step.env.iter().fold(call, |call, (key, value)| match value {
            Some(value) => call.env(key, value),
            None => call.env_remove(key),
        })
    }

    /// `@name` is a file that an earlier step wrote.
    fn fill_in_paths(&self, conf: &mut Value) {
        match conf {
            Value::String(text) => {
                if let Some(name) = text.strip_prefix('@') {
                    *text = self.host.dir().join(name).to_str().unwrap().to_owned();
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.fill_in_paths(item)),
            Value::Object(items) => items.values_mut().for_each(|item| self.fill_in_paths(item)),
            _ => (),
        }
    }

    /// Deletes what is still added, newest first, as a runtime would.
    fn delete_all(&mut self) {
        while let Some(step) = self.added.pop() {
            self.prepared(&Step { chained: false, ..step }, "DEL").del().ok();
        }
    }

    /// Takes away the links that the case itself made.
    fn remove_own_links(&self) {
        for name in self.known.iter().filter(|name| !OWN_LINKS.contains(&name.as_str())) {
            // One may have gone with the other end of its pair.
            self.host.cmd("ip").args(["link", "del", name]).output();
        }
    }

    /// Drops the containers with what is in them.
    fn abandon(self) {
        for container in self.containers.into_iter().flatten() {
            container.remove();
        }
    }

    fn container(&self, index: usize) -> &Container<'h> {
        self.containers[index].as_ref().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let links = self.host.json("ip -j link show");
        links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
    }

    fn kernel(&self) -> Kernel {
        let mut containers = BTreeMap::new();
        // In a container every veth has the name it was asked for.
        for container in self.containers.iter().flatten() {
            let links = container.json("ip -j link show");
            let names =
                links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
            let view = View::of(container, &names.collect());
            containers.insert(container.name().to_owned(), view);
        }
        Kernel { host: View::of_host(self.host, &self.known), containers }
    }
}

/// `recorded` after the last DEL, as far as berth must agree: `after` decides what it may decide.
fn emptied(recorded: Kernel, after: &Kernel) -> Kernel {
    let mut host = recorded.host.without("VETH");
    if !after.host.links.iter().any(|link| link.name == "br0") {
        host = host.without("br0");
        host.forward.clone_from(&after.host.forward);
    }
    let containers = recorded.containers.into_iter().map(|(name, view)| (name, view.without("eth0")));
    Kernel { host, containers: containers.collect() }
}

/// Keys are found in any case, as Go's decoder does.
fn type_of(conf: &Value) -> String {
    let keys = conf.as_object().into_iter().flatten();
    let mut found = keys.filter(|(key, _)| key.eq_ignore_ascii_case("type"));
    found.next().and_then(|(_, value)| value.as_str()).expect("a configuration has a type").to_owned()
}

fn exchange_types(conf: &mut Value) {
    match conf {
        Value::Object(items) => {
            for (key, value) in items {
                let berths =
                    TYPES.iter().find(|(old, _)| key.eq_ignore_ascii_case("type") && *value == json!(old));
                match berths {
                    Some((_, new)) => *value = json!(new),
                    None => exchange_types(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(exchange_types),
        _ => (),
    }
}

#[test]
fn types_are_exchanged_whatever_the_case_of_the_key() {
    let mut conf =
        json!({"Type": "bridge", "ipam": {"type": "host-local", "x": "bridge"}, "bridge": "bridge"});
    exchange_types(&mut conf);
    let expected = json!({"Type": "rbridge", "ipam": {"type": "ripam", "x": "bridge"}, "bridge": "bridge"});
    assert_eq!(conf, expected);
}
