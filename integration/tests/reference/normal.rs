//! What is left out when two outcomes are compared: names and addresses made up for the occasion.

use berth_integration::{Container, Host};
use serde_json::{Map, Value, json};

/// The lines in which two documents differ.
pub(crate) fn difference(ours: &Value, theirs: &Value) -> String {
    let lines = |value: &Value| -> Vec<String> { leaves("", value) };
    let (ours, theirs) = (lines(ours), lines(theirs));
    let gone = theirs.iter().filter(|line| !ours.contains(line)).map(|line| format!("- {line}\n"));
    let new = ours.iter().filter(|line| !theirs.contains(line)).map(|line| format!("+ {line}\n"));
    gone.chain(new).collect()
}

/// Each value in a document, with the way to it.
fn leaves(path: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().flat_map(|(key, value)| leaves(&format!("{path}.{key}"), value)).collect()
        }
        Value::Array(list) if !list.is_empty() => list
            .iter()
            .enumerate()
            .flat_map(|(index, value)| leaves(&format!("{path}[{index}]"), value))
            .collect(),
        _ => vec![format!("{path} = {value}")],
    }
}

/// A result without made-up names: host interfaces that are not bridges, and hardware addresses but for asked ones, which
/// begin with `02:42`.
pub(crate) fn result(mut result: Value) -> Value {
    for interface in result["interfaces"].as_array_mut().into_iter().flatten() {
        let name = interface["name"].as_str().unwrap_or_default();
        // The reference's are `veth…`, berth's `b…` and a hash.
        let made_up =
            interface["sandbox"].as_str().unwrap_or_default().is_empty() && !name.starts_with("cni");
        if made_up {
            interface["name"] = json!("HOST");
        }
        let mac = interface["mac"].as_str().unwrap_or_default();
        if !mac.is_empty() && !mac.starts_with("02:42") {
            interface["mac"] = json!("MAC");
        }
    }
    // The reference's `loopback` leaves out the family, which versions before 1.0.0 ask for.
    if result["cniVersion"].as_str().unwrap_or_default().starts_with("0.") {
        for ip in result["ips"].as_array_mut().into_iter().flatten() {
            let v6 = ip["address"].as_str().unwrap_or_default().contains(':');
            ip.as_object_mut().unwrap().entry("version").or_insert_with(|| json!(if v6 { "6" } else { "4" }));
        }
    }
    // Old versions have it empty where there is nothing to say, or not at all.
    if result["dns"] == json!({}) {
        result.as_object_mut().unwrap().remove("dns");
    }
    result
}

/// Links, addresses and routes of a container.
pub(crate) fn inside(container: &Container<'_>) -> Value {
    let links: Vec<Value> = items(container.json("ip -d -j address")).map(|link| link_of(&link)).collect();
    let routes = |family: &str| -> Vec<Value> {
        let routes = items(container.json(&format!("ip {family} -j route show table main")));
        routes
            .filter(|route| !route["dst"].as_str().unwrap_or_default().starts_with("fe80"))
            .map(route_of)
            .collect()
    };
    json!({"links": links, "routes": routes("-4"), "routes6": routes("-6")})
}

fn items(list: Value) -> impl Iterator<Item = Value> {
    let Value::Array(items) = list else { panic!("`ip` printed no list: {list}") };
    items.into_iter()
}

fn link_of(link: &Value) -> Value {
    let mac = link["address"].as_str().unwrap_or_default();
    let addresses: Vec<Value> = link["addr_info"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|address| address["scope"] != "link")
        .map(|address| pick(address, &["family", "local", "prefixlen", "scope"]))
        .collect();
    let mut picked = pick(link, &["ifname", "mtu"]);
    // Not `operstate`, which follows in its own time.
    picked["up"] = json!(link["flags"].as_array().into_iter().flatten().any(|flag| flag == "UP"));
    picked["kind"] = link["linkinfo"]["info_kind"].clone();
    picked["mac"] = if mac.starts_with("02:42") { json!(mac) } else { Value::Null };
    picked["addresses"] = json!(addresses);
    picked
}

/// Without who made the route: berth marks its own.
fn route_of(route: Value) -> Value {
    pick(&route, &["dst", "gateway", "dev", "prefsrc", "scope", "metric", "type"])
}

fn pick(from: &Value, keys: &[&str]) -> Value {
    let picked: Map<String, Value> =
        keys.iter().filter_map(|key| Some(((*key).to_owned(), from.get(*key)?.clone()))).collect();
    Value::Object(picked)
}

/// `loopback` takes `lo` down on DEL, `rnone` need not; the frame wants containers as they were made.
pub(crate) fn bring_down_loopback(containers: &[Container<'_>]) {
    for container in containers {
        container.run("ip link set lo down");
    }
}

/// Takes away what the reference plugins of a chain keep on a host: firewall chains and state directories.
pub(crate) fn forget_reference(host: &Host) {
    for family in ["ip", "ip6"] {
        // Where the chain had no such plugin there is no such table.
        host.line(&format!("nft delete table {family} filter")).output();
        host.line(&format!("nft delete table {family} nat")).output();
    }
    host.run("rm -rf /run/cni /run/xtables.lock");
}
