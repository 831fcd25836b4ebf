//! What is on a host, as lines that can be compared.
//!
//! Left out is what changes by itself: interface numbers, counters, link-local addresses and their routes, timers. Also
//! left out is what berth keeps on purpose when its last container is gone: its constant ruleset without elements, its
//! record files, and forwarding once turned on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use berth_volume_core::{attached_loops, mount_table};
use serde_json::Value;

use crate::host::{OVERLAID, WRITTEN};
use crate::{Host, Place};

/// Switches of every link and of `all` and `default` that isolation depends on; forwarding is looked at by tests of it.
const SWITCHES: [(&str, &[&str]); 2] = [
    (
        "ipv4",
        &[
            "route_localnet",
            "rp_filter",
            "accept_local",
            "arp_ignore",
            "arp_announce",
            "proxy_arp",
            "arp_filter",
        ],
    ),
    ("ipv6", &["accept_ra", "autoconf", "disable_ipv6", "accept_redirects", "proxy_ndp"]),
];

/// The records and locks of berth, in the directories that a host gives it: they stay.
const RECORDS: [&str; 9] = [
    "STATE/state.db",
    "STATE/state.db-wal",
    "STATE/state.db-shm",
    "STATE/state.db.lock",
    "RUN/run.db",
    "RUN/run.db-wal",
    "RUN/run.db-shm",
    "RUN/run.db.lock",
    "RUN/locks",
];

/// The directory of berth's volumes.
const VOLUMES: &str = "STATE/volumes";

/// Links, addresses, routes, rules and neighbours of one network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetView(Lines);

/// A host: its network, packet filter, switches, mounts and files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(Lines);

/// The machine that the tests run on: what no test may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine(Lines);

type Lines = BTreeMap<&'static str, BTreeSet<String>>;

impl NetView {
    /// Looks at the network of `place`.
    pub fn of(place: &Place) -> Self {
        let mut lines = Lines::new();
        let batch =
            "link show\naddress show\nroute show table all\nrule show\nneighbour show nud permanent\n";
        let text = place.cmd("ip").args(["-d", "-j", "-batch", "-"]).stdin(batch).run();
        let documents: Vec<Value> =
            serde_json::Deserializer::from_str(&text).into_iter().map(Result::unwrap).collect();
        let sections = ["link", "address", "route", "rule", "neighbour"];
        assert_eq!(documents.len(), sections.len(), "`ip -batch` printed {text}");
        for (section, document) in sections.iter().zip(&documents) {
            let describe = match *section {
                "link" => link_line,
                "address" => address_lines,
                "route" => route_line,
                _ => whole_line,
            };
            lines.entry(section).or_default().extend(items(document).flat_map(describe));
        }
        Self(lines)
    }

    /// What is different in `after`, one line each: `-` gone, `+` new. Empty if nothing is.
    pub fn difference(&self, after: &Self) -> String {
        difference(&self.0, &after.0)
    }
}

impl Snapshot {
    /// Looks at a host.
    pub fn of(host: &Host) -> Self {
        let NetView(mut lines) = NetView::of(host);
        // A batch speaks of one family, and of rules without saying which that is IPv4.
        lines.insert("rule6", items(&host.json("ip -6 -j rule show")).map(Value::to_string).collect());
        lines.insert("bridge port", bridge_ports(host));
        lines.insert("nft", ruleset(&host.run("nft -s list ruleset")));
        // Where the kernel has none, there is nothing to list.
        let encryption = host.line("ip xfrm state list nokeys; ip xfrm policy").output().stdout;
        let begins = |line: &&str| line.starts_with("src ");
        lines.insert("encryption", encryption.lines().filter(begins).map(str::to_owned).collect());
        let flows = host.line("conntrack -L -p udp --dst-nat").output();
        lines.insert("translated udp flow", flows.stdout.lines().map(flow_line).collect());
        host.inside(|| {
            lines.insert("switch", switches());
            lines.insert("mount", mounts());
            let mut files = BTreeSet::new();
            for (index, dir) in OVERLAID.iter().enumerate() {
                list_files(&Path::new(WRITTEN).join(index.to_string()), dir, &mut files);
            }
            list_files(Path::new("/run"), "/run", &mut files);
            list_files(&host.state_dir(), "STATE", &mut files);
            list_files(&host.run_dir(), "RUN", &mut files);
            lines.insert("file", files);
        });
        let own =
            attached_loops().unwrap().into_iter().filter(|info| info.backing_file.starts_with(host.dir()));
        lines.insert("loop", own.map(|info| info.backing_file.display().to_string()).collect());
        Self(lines)
    }

    /// What is different in `after`, one line each: `-` gone, `+` new. Empty if nothing is.
    pub fn difference(&self, after: &Self) -> String {
        difference(&self.0, &after.0)
    }

    /// Fails the test with what is different, if anything is.
    #[track_caller]
    pub fn assert_same(&self, after: &Self) {
        let difference = self.difference(after);
        assert!(difference.is_empty(), "the host is not as before (- gone, + left):\n{difference}");
    }
}

impl Machine {
    /// Looks at the machine, as far as private hosts could touch it by mistake.
    pub fn observe() -> Self {
        let names = |dir: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(dir).into_iter().flatten();
            entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
        };
        let mounts = mount_table().unwrap().into_iter().filter(|entry| entry.root != Path::new("/"));
        let own = mounts.filter(|entry| entry.target.to_string_lossy().contains("berth"));
        let mut lines = Lines::new();
        lines.insert("link", names("/sys/class/net"));
        lines.insert("namespace", names("/run/netns"));
        lines.insert("mount", own.map(|entry| entry.target.display().to_string()).collect());
        Self(lines)
    }

    /// What is different in `after`, one line each. Empty if nothing is.
    pub fn difference(&self, after: &Self) -> String {
        difference(&self.0, &after.0)
    }
}

fn difference(before: &Lines, after: &Lines) -> String {
    let none = BTreeSet::new();
    let sections: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let mut text = String::new();
    for section in sections {
        let (old, new) = (before.get(section).unwrap_or(&none), after.get(section).unwrap_or(&none));
        for line in old.difference(new) {
            writeln!(text, "- {section} {line}").unwrap();
        }
        for line in new.difference(old) {
            writeln!(text, "+ {section} {line}").unwrap();
        }
    }
    text
}

fn items(document: &Value) -> impl Iterator<Item = &Value> {
    document.as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

fn link_line(link: &Value) -> Option<String> {
    let name = text(link, "ifname");
    (!name.is_empty()).then(|| {
        let up = items(&link["flags"]).any(|flag| flag == "UP");
        format!(
            "{name} kind={} up={up} mtu={} mac={} master={} alias={} promiscuity={} altnames={}",
            text(&link["linkinfo"], "info_kind"),
            link["mtu"],
            text(link, "address"),
            text(link, "master"),
            text(link, "ifalias"),
            link["promiscuity"],
            link["altnames"],
        )
    })
}

fn address_lines(link: &Value) -> Option<String> {
    // The kernel gives `lo` its own addresses when it is first up, and keeps the IPv4 one when it is down again.
    let loopback = |address: &Value| ["127.0.0.1", "::1"].contains(&text(address, "local"));
    let shown = |address: &&Value| text(address, "scope") != "link" && !loopback(address);
    let addresses = items(&link["addr_info"]).filter(shown);
    let list: Vec<String> =
        addresses.map(|a| format!("{}/{} {}", text(a, "local"), a["prefixlen"], text(a, "scope"))).collect();
    (!list.is_empty()).then(|| format!("{} {}", text(link, "ifname"), list.join(", ")))
}

/// Left out are the routes that the kernel makes with an address: they say nothing that the address does not, and those of IPv6
/// come a moment later.
fn route_line(route: &Value) -> Option<String> {
    let dst = text(route, "dst");
    let derived = ["local", "broadcast", "anycast", "multicast"].contains(&text(route, "type"))
        && text(route, "protocol") == "kernel";
    let automatic = ["fe80:", "ff00:"].iter().any(|prefix| dst.starts_with(prefix));
    (!derived && !automatic).then(|| {
        let mut route = route.clone();
        for volatile in ["flags", "pref"] {
            route.as_object_mut().expect("a route is an object").remove(volatile);
        }
        route.to_string()
    })
}

fn whole_line(item: &Value) -> Option<String> {
    Some(item.to_string())
}

fn bridge_ports(host: &Host) -> BTreeSet<String> {
    let ports = host.json("bridge -j -d link show");
    let keys = [
        "ifname",
        "master",
        "hairpin",
        "guard",
        "learning",
        "flood",
        "mcast_flood",
        "isolated",
        "neigh_suppress",
    ];
    items(&ports).map(|port| keys.map(|key| format!("{key}={}", port[key])).join(" ")).collect()
}

/// One line for each table that is not berth's, and one for each of berth's sets and maps that has elements.
fn ruleset(text: &str) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for table in
        text.split("\ntable ").map(|part| part.trim_start_matches("table ")).filter(|part| !part.is_empty())
    {
        let name = table.lines().next().expect("not empty").trim_end_matches(['{', ' ']);
        if !name.ends_with(" berth") {
            lines.insert(table.split_whitespace().collect::<Vec<_>>().join(" "));
            continue;
        }
        for block in table.split("\n\t}").filter(|block| block.contains("elements = ")) {
            let words = block.split_whitespace().collect::<Vec<_>>().join(" ");
            lines.insert(format!("{name}: {}", words.trim_start_matches(&format!("{name} {{ "))));
        }
    }
    lines
}

/// Without the timer, which is the third word.
fn flow_line(line: &str) -> String {
    let words = line.split_whitespace().enumerate().filter(|(index, _)| *index != 2).map(|(_, word)| word);
    words.collect::<Vec<_>>().join(" ")
}

fn switches() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (family, names) in SWITCHES {
        let conf = Path::new("/proc/sys/net").join(family).join("conf");
        for link in fs::read_dir(&conf).into_iter().flatten().filter_map(Result::ok) {
            for name in names {
                // A link may go while it is looked at.
                if let Ok(value) = fs::read_to_string(link.path().join(name)) {
                    let link = link.file_name();
                    lines.insert(format!("{family} {} {name}={}", link.display(), value.trim()));
                }
            }
        }
    }
    lines
}

fn mounts() -> BTreeSet<String> {
    let table = mount_table().unwrap();
    table
        .into_iter()
        .map(|m| format!("{} on {} ({})", m.fstype, m.target.display(), m.options.join(",")))
        .collect()
}

/// The files below `dir` but for berth's records, with their sizes; shown as below `name`.
fn list_files(dir: &Path, name: &str, files: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let file = entry.file_name().to_string_lossy().into_owned();
        let shown = format!("{name}/{file}");
        if shown == WRITTEN || RECORDS.contains(&shown.as_str()) {
            continue;
        }
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => {
                // Where berth's volumes are stays; what is in it counts.
                if shown != VOLUMES {
                    files.insert(format!("{shown}/"));
                }
                list_files(&entry.path(), &shown, files);
            }
            Ok(meta) => {
                files.insert(format!("{shown} {} bytes", meta.len()));
            }
            Err(_) => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn berths_constant_rules_are_no_difference_and_its_elements_are() {
        let empty = "table inet berth {\n\tset bridges {\n\t\ttype ifname\n\t}\n\n\tchain a {\n\t}\n}\n";
        assert_eq!(ruleset(empty), BTreeSet::new());
        let full =
            "table inet berth {\n\tset bridges {\n\t\ttype ifname\n\t\telements = { \"br0\" }\n\t}\n}\n";
        let line = r#"inet berth: set bridges { type ifname elements = { "br0" }"#;
        assert_eq!(ruleset(full), BTreeSet::from([line.to_owned()]));
    }

    #[test]
    fn another_table_is_compared_whole() {
        let text = "table inet berth {\n}\ntable ip nat {\n\tchain a {\n\t}\n}\n";
        assert_eq!(ruleset(text), BTreeSet::from(["ip nat { chain a { } }".to_owned()]));
    }

    #[test]
    fn a_difference_names_the_section_and_the_direction() {
        let before = Lines::from([("link", BTreeSet::from(["a".to_owned(), "b".to_owned()]))]);
        let after = Lines::from([
            ("link", BTreeSet::from(["b".to_owned()])),
            ("route", BTreeSet::from(["r".into()])),
        ]);
        assert_eq!(difference(&before, &after), "- link a\n+ route r\n");
    }
}
