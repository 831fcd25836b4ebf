//! `berth-demo`: two containers on an `rbridge` network with a published port, shown and taken away again. Everything
//! happens in a private host, so nothing of the machine is touched.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a demonstration: its output is its purpose")]

use berth_integration::{Cni, Container, Host, Probe};
use serde_json::{Value, json};

fn main() {
    println!("A private host (its own network and mount namespace) with two containers.\n");
    let host = Host::new();
    let cni = host.cni();
    let (web, client) = (host.container("web"), host.container("client"));
    step("attach `web`, with port 80 published as 8080, then `client`");
    let web_address = attach(&cni, &web, &[(8080, 80)]);
    let client_address = attach(&cni, &client, &[]);
    println!("\n{}", picture(&web_address, &client_address));

    step("who reaches what");
    let page = web.serve_http(80, "hello from web");
    let gateway = "10.80.0.1";
    show(
        "client -> web by address",
        client.probe(&Probe::http(format!("{web_address}:80"))).succeeded() == 1,
    );
    show("client -> web by ping", client.ping(&web_address, 1) == 1);
    show("host   -> 127.0.0.1:8080", host.probe(&Probe::http("127.0.0.1:8080")).succeeded() == 1);
    show("host   -> 192.0.2.2:8080", host.probe(&Probe::http("192.0.2.2:8080")).succeeded() == 1);
    show("client -> the host's 8080", client.probe(&Probe::http(format!("{gateway}:8080"))).succeeded() == 1);
    drop(page);

    for (title, words) in [
        ("berth ps", vec!["ps"]),
        ("berth ports", vec!["ports"]),
        ("berth network ls", vec!["network", "ls"]),
        ("berth doctor", vec!["doctor"]),
    ] {
        step(title);
        println!("{}", host.berth(words).run());
    }

    step("detach both, `berth gc`");
    for container in [&web, &client] {
        call(&cni, container, &[]).del().ok();
    }
    println!("{}", host.berth(["gc"]).run());
    println!("links left on the host: {}", names(&host.json("ip -j link")));
}

fn step(title: &str) {
    println!("\n== {title}");
}

fn show(what: &str, reached: bool) {
    println!("   {what:<28} {}", if reached { "reached" } else { "NOT REACHED" });
}

fn call<'h>(cni: &Cni<'h>, container: &Container<'_>, ports: &[(u16, u16)]) -> berth_integration::Call<'h> {
    let mapping =
        |(host, inside): &(u16, u16)| json!({"hostPort": host, "containerPort": inside, "protocol": "tcp"});
    let mappings: Vec<Value> = ports.iter().map(mapping).collect();
    cni.conf(json!({
        "type": "rbridge", "name": "demo", "bridge": "demo0", "isDefaultGateway": true, "ipMasq": true,
        "ipam": {"type": "ripam", "ranges": [[{"subnet": "10.80.0.0/24"}]]},
        "runtimeConfig": {"portMappings": mappings},
    }))
    .container(container)
    .id(container.name())
}

fn attach(cni: &Cni<'_>, container: &Container<'_>, ports: &[(u16, u16)]) -> String {
    let ran = call(cni, container, ports).add();
    let took = ran.elapsed();
    let address = ran.addresses().first().cloned().unwrap_or_default();
    ran.ok();
    println!("   {:<8} {address:<16} in {:.1} ms", container.name(), took.as_secs_f64() * 1000.0);
    address.split('/').next().unwrap_or_default().to_owned()
}

/// What was built, as people would draw it.
fn picture(web: &str, client: &str) -> String {
    const WIDTH: usize = 52;
    let row = |text: String| format!("   │{text:^WIDTH$}│");
    let above = WIDTH + 2;
    let rule = format!("nftables   8080/tcp → {web}:80");
    [
        format!("   {:^above$}", "192.0.2.2:8080   127.0.0.1:8080"),
        format!("   {:^above$}", "│"),
        format!("   ┌─ host {:─^45}┐", "┴───────"),
        row(rule),
        row("│".to_owned()),
        row("demo0   10.80.0.1/24   (bridge)".to_owned()),
        format!("   │{:13}│{:23}│{:14}│", "", "", ""),
        format!("   └{:─<13}┼{:─<23}┼{:─<14}┘", "", "", ""),
        "        ┌────────┴───────┐      ┌────────┴───────┐".to_owned(),
        format!("        │ {:<14} │      │ {:<14} │", "web", "client"),
        format!("        │ {web:<14} │      │ {client:<14} │"),
        "        └────────────────┘      └────────────────┘".to_owned(),
    ]
    .join("\n")
}

fn names(links: &Value) -> String {
    let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
    names.collect::<Vec<_>>().join(" ")
}
