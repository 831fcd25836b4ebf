//! Asking, and networks with names.

use std::fs;
use std::net::IpAddr;

use berth_integration::{Call, Host, Place};
use serde_json::{Value, json};

use crate::common::{Member, Net};

/// Network number N as [`Net`] makes it, with names.
pub(crate) fn named(host: &Host, number: u8) -> Net<'_> {
    with_block(host, number, json!(true))
}

/// The same with this `embeddedDNS`.
pub(crate) fn with_block(host: &Host, number: u8, block: Value) -> Net<'_> {
    Net::new(host, number).with("embeddedDNS", block)
}

/// A call that gives the container a name, as podman and Kubernetes do.
pub(crate) fn called<'h>(call: &Call<'h>, name: &str) -> Call<'h> {
    call.clone().args(&format!("IgnoreUnknown=1;K8S_POD_NAME={name}"))
}

/// A new container `id` on the network, called `name`.
#[track_caller]
pub(crate) fn join<'h>(net: &Net<'h>, id: &str, name: &str) -> Member<'h> {
    let container = net.host().container(id);
    let call = called(&net.call_for(&container), name);
    Member::add(call, container)
}

/// What `dig` prints of the answers, one a line; the status where there are none.
pub(crate) fn dig(place: &Place, server: impl Into<IpAddr>, question: &str) -> String {
    let server = server.into();
    let line = format!("dig +tries=1 +time=3 +noall +answer +comments @{server} {question}");
    let text = place.run(&line);
    let status = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("none");
    let lines = text.lines().filter(|line| !line.starts_with(';') && !line.trim().is_empty());
    // name, TTL, class, type, value
    let values = lines.map(|line| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" "));
    let values: Vec<String> = values.collect();
    match (status, values.is_empty()) {
        ("NOERROR", true) => "nothing".to_owned(),
        ("NOERROR", false) => {
            let mut values = values;
            values.sort();
            values.join("\n")
        }
        (status, _) => status.to_owned(),
    }
}

/// Whether anybody answers at all.
pub(crate) fn is_answered(place: &Place, server: impl Into<IpAddr>, question: &str) -> bool {
    let line = format!("dig +tries=1 +time=1 @{} {question}", server.into());
    place.line(&line).output().status.success()
}

/// Writes the resolver's configuration of a container, as a runtime does with the result of ADD.
pub(crate) fn resolv_conf(host: &Host, container: &str, result: &Value) {
    let dns = &result["dns"];
    let texts = |key: &str| -> Vec<String> {
        let all = dns[key].as_array().into_iter().flatten();
        all.map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let mut text = String::new();
    for server in texts("nameservers") {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !texts("search").is_empty() {
        text.push_str(&format!("search {}\n", texts("search").join(" ")));
    }
    if !texts("options").is_empty() {
        text.push_str(&format!("options {}\n", texts("options").join(" ")));
    }
    host.inside(|| {
        let dir = format!("/etc/netns/{container}");
        fs::create_dir_all(&dir).unwrap();
        fs::write(format!("{dir}/resolv.conf"), text).unwrap();
    });
}

/// Takes the configurations away again.
pub(crate) fn no_resolv_conf(host: &Host) {
    host.run("rm -rf /etc/netns");
}
