//! Links, addresses, routes and forwarding, in the form of the recording.

use std::collections::{BTreeMap, BTreeSet};

use berth_integration::Place;
use serde::Deserialize;
use serde_json::Value;

/// A host and its containers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Kernel {
    pub(crate) host: View,
    #[serde(flatten)]
    pub(crate) containers: BTreeMap<String, View>,
}

/// One network namespace. Lists are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct View {
    pub(crate) links: Vec<Link>,
    /// `LINK ADDRESS/LENGTH`, without those of link scope.
    pub(crate) addrs: Vec<String>,
    /// `dst=… gateway=… dev=… scope=… metric=…`, without the kernel's local, multicast and link-local ones.
    pub(crate) routes: Vec<String>,
    /// IPv4 and IPv6, of the host.
    #[serde(default)]
    pub(crate) forward: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Link {
    pub(crate) name: String,
    pub(crate) kind: Option<String>,
    pub(crate) master: Option<String>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) promisc: bool,
    /// Flags of a bridge port.
    pub(crate) port: BTreeMap<String, bool>,
}

/// The bridge port flags that were recorded.
const PORT_FLAGS: [&str; 4] = ["flood", "hairpin", "isolated", "learning"];

impl View {
    /// Looks at `place`. A veth that is not in `known` is the host side of a container's pair and reads `VETH`.
    pub(crate) fn of(place: &Place, known: &BTreeSet<String>) -> Self {
        let links = place.json("ip -d -j link show");
        let name_of = |link: &Value| {
            let name = text(&link["ifname"]);
            let host_side = text(&link["linkinfo"]["info_kind"]) == "veth" && !known.contains(&name);
            if host_side { "VETH".to_owned() } else { name }
        };
        let mut addrs = Vec::new();
        for link in list(&place.json("ip -j address show")) {
            let shown = list(&link["addr_info"]).filter(|addr| addr["scope"] != "link");
            addrs.extend(
                shown.map(|a| format!("{} {}/{}", text(&link["ifname"]), text(&a["local"]), a["prefixlen"])),
            );
        }
        let mut links: Vec<_> = list(&links).map(|link| Link::of(link, name_of(link))).collect();
        let routes = place.json("ip -j route show table all");
        let mut routes: Vec<_> = list(&routes).filter(|route| !kernels_own(route)).map(route_line).collect();
        links.sort();
        addrs.sort();
        routes.sort();
        Self { links, addrs, routes, forward: Vec::new() }
    }

    /// Looks at the host's own namespace, with forwarding.
    pub(crate) fn of_host(host: &Place, known: &BTreeSet<String>) -> Self {
        let switches = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
        Self { forward: switches.map(|name| host.sysctl(name)).to_vec(), ..Self::of(host, known) }
    }

    /// Without the link `name`, its addresses and its routes.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.links.retain(|link| link.name != name);
        self.addrs.retain(|addr| !addr.starts_with(&format!("{name} ")));
        self.routes.retain(|route| !route.split(' ').any(|word| word == format!("dev={name}")));
        self
    }
}

impl Link {
    fn of(link: &Value, name: String) -> Self {
        let info = &link["linkinfo"];
        let slave = &info["info_slave_data"];
        let port = PORT_FLAGS.iter().filter_map(|flag| Some(((*flag).to_owned(), slave[flag].as_bool()?)));
        Self {
            name,
            kind: info["info_kind"].as_str().map(str::to_owned),
            master: link["master"].as_str().map(str::to_owned),
            mtu: link["mtu"].as_u64().and_then(|mtu| mtu.try_into().ok()).unwrap(),
            up: list(&link["flags"]).any(|flag| flag == "UP"),
            promisc: link["promiscuity"].as_u64().unwrap() > 0,
            port: port.collect(),
        }
    }
}

/// Routes that come with an address or a link.
fn kernels_own(route: &Value) -> bool {
    let kind = text(&route["type"]);
    let dst = text(&route["dst"]);
    ["local", "broadcast", "anycast", "multicast"].contains(&kind.as_str())
        || dst.starts_with("fe80:")
        || dst.starts_with("ff00:")
}

/// The protocol is left out, for berth has one of its own, and the preferred source, which follows from the address.
fn route_line(route: &Value) -> String {
    let shown = ["dst", "gateway", "dev", "scope", "metric"].into_iter().filter(|key| !route[key].is_null());
    let words: Vec<String> = shown
        .map(|key| match &route[key] {
            Value::String(value) => format!("{key}={value}"),
            value => format!("{key}={value}"),
        })
        .collect();
    words.join(" ")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}
