//! `berth-bench cni`: berth's CNI plugins against what people would otherwise run, side by side in one run.
//!
//! Every figure is of whole processes started in a private host, medians of the rounds it prints. The program prints a
//! Markdown table; `cargo xtask bench` writes it into `docs/benchmarks.md`.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark: whatever goes wrong ends it, and its output is its purpose"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use berth_integration::{Cni, Container, Host};
use serde_json::{Value, json};

/// Rounds of a single-call figure.
const ROUNDS: usize = 31;

fn main() {
    let what = std::env::args().nth(1).unwrap_or_else(|| "cni".to_owned());
    assert_eq!(what, "cni", "known benchmarks: cni");
    println!("| work | berth | compared with | ratio |\n|---|---|---|---|");
    memory();
    version();
    let reference = Path::new("/usr/lib/cni/bridge").exists().then(one_port_reference);
    let one = one_port(1);
    report("ADD, bridge + IPAM + 1 port", one.0, reference.map(|pair| ("reference chain", pair.0)));
    report("DEL of the same", one.1, reference.map(|pair| ("reference chain", pair.1)));
    report("DEL of the same", one.1, Some(("`ip link del` of such a veth", bare_link_del())));
    let many = one_port(200);
    report("ADD with 200 ports", many.0, Some(("ADD with 1 port", one.0)));
    report("DEL with 200 ports", many.1, Some(("DEL with 1 port", one.1)));
    let crowded = crowded(1000);
    report("ADD beside 1,000 attachments", crowded.0, Some(("ADD alone", one.0)));
    report("DEL beside 1,000 attachments", crowded.1, Some(("DEL alone", one.1)));
    parallel(100, 16);
    full_pool();
}

fn report(work: &str, ours: Duration, other: Option<(&str, Duration)>) {
    let (name, theirs, ratio) = match other {
        Some((name, theirs)) => {
            (name, millis(theirs), format!("{:.2}", ours.as_secs_f64() / theirs.as_secs_f64()))
        }
        None => ("not installed", "-".to_owned(), "-".to_owned()),
    };
    println!("| {work} | {} | {name}: {theirs} | {ratio} |", millis(ours));
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

fn conf(ports: u16) -> Value {
    let mappings: Vec<Value> =
        (0..ports).map(|i| json!({"hostPort": 20_000 + i, "containerPort": 80, "protocol": "tcp"})).collect();
    json!({
        "type": "rbridge", "bridge": "br0", "isGateway": true, "ipMasq": true,
        "ipam": {"type": "ripam", "ranges": [[{"subnet": "10.80.0.0/16"}]]},
        "runtimeConfig": {"portMappings": mappings},
    })
}

/// VERSION against a program that does nothing.
fn version() {
    let host = Host::new();
    let call = host.cni().conf(json!({"type": "rbridge"}));
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS * 3 {
        ours.push(call.run("VERSION").elapsed());
        bare.push(host.cmd("/bin/true").output().elapsed);
    }
    report("VERSION", median(ours), Some(("`/bin/true`", median(bare))));
}

/// ADD and DEL of one container, beside one that keeps the network in place.
fn one_port(ports: u16) -> (Duration, Duration) {
    let host = Host::new();
    let standing = host.container("standing");
    let cni = host.cni();
    cni.conf(conf(0)).container(&standing).id("standing").add().ok();
    rounds(&host, &cni, ports)
}

fn rounds(host: &Host, cni: &Cni<'_>, ports: u16) -> (Duration, Duration) {
    let (mut adds, mut dels) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let container = host.container(&format!("r{round}"));
        let call = cni.conf(conf(ports)).container(&container).id(&format!("r{round}"));
        adds.push(succeeded(call.add()));
        dels.push(succeeded(call.del()));
    }
    (median(adds), median(dels))
}

fn succeeded(ran: berth_integration::CniRan) -> Duration {
    let elapsed = ran.elapsed();
    ran.ok();
    elapsed
}

/// The same by the reference plugins: bridge with host-local, then portmap.
fn one_port_reference() -> (Duration, Duration) {
    let host = Host::new();
    let cni = Cni::of(&host, "/usr/lib/cni");
    let bridge = json!({
        "type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.80.0.0/16"}]]},
    });
    let portmap = json!({
        "type": "portmap", "runtimeConfig": {"portMappings": [{"hostPort": 20_000, "containerPort": 80, "protocol": "tcp"}]},
    });
    let standing = host.container("standing");
    cni.conf(bridge.clone()).container(&standing).id("standing").add().ok();
    let (mut adds, mut dels) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS / 3 {
        let container = host.container(&format!("r{round}"));
        let id = format!("r{round}");
        let first = cni.conf(bridge.clone()).container(&container).id(&id);
        let ran = first.add();
        let mut add = ran.elapsed();
        let second = cni.conf(portmap.clone()).container(&container).id(&id).key("prevResult", ran.ok());
        add += succeeded(second.add());
        adds.push(add);
        dels.push(succeeded(second.del()) + succeeded(first.del()));
    }
    (median(adds), median(dels))
}

/// What the kernel's part of a DEL costs: `ip link del` of a veth whose peer is in a container, on a bridge.
fn bare_link_del() -> Duration {
    let host = Host::new();
    host.batch("link add br0 type bridge\nlink set br0 up");
    let mut dels = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("r{round}");
        let container = host.container(&name);
        host.batch(&format!(
            "link add vh{round} type veth peer name eth0 netns {name}\nlink set vh{round} master br0\nlink set vh{round} up"
        ));
        container.run("ip address add 10.80.0.2/16 dev eth0");
        container.run("ip link set eth0 up");
        dels.push(host.line(&format!("ip link del vh{round}")).output().elapsed);
    }
    median(dels)
}

/// ADD and DEL with `count` attachments standing.
fn crowded(count: usize) -> (Duration, Duration) {
    let host = Host::new();
    let cni = host.cni();
    let containers: Vec<Container<'_>> = (0..count).map(|i| host.container(&format!("s{i}"))).collect();
    for (i, container) in containers.iter().enumerate() {
        cni.conf(conf(0)).container(container).id(&format!("s{i}")).add().ok();
    }
    rounds(&host, &cni, 1)
}

/// `count` ADDs and DELs, `width` at a time.
fn parallel(count: usize, width: usize) {
    let host = Host::new();
    let cni = host.cni();
    let standing = host.container("standing");
    cni.conf(conf(0)).container(&standing).id("standing").add().ok();
    let containers: Vec<Container<'_>> = (0..count).map(|i| host.container(&format!("p{i}"))).collect();
    let addresses = Mutex::new(BTreeSet::new());
    for (verb, wanted) in [("ADD", 300.0), ("DEL", 150.0)] {
        let next = AtomicUsize::new(0);
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..width {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(container) = containers.get(i) else { break };
                        let ran = cni.conf(conf(0)).container(container).id(&format!("p{i}")).run(verb);
                        let found = ran.addresses();
                        ran.ok();
                        addresses.lock().unwrap().extend(found);
                    }
                });
            }
        });
        let rate = count as f64 / started.elapsed().as_secs_f64();
        println!(
            "| {count} {verb}s, {width} at a time | {rate:.0}/s | wanted: {wanted:.0}/s | {:.2} |",
            rate / wanted
        );
    }
    assert_eq!(addresses.into_inner().unwrap().len(), count, "addresses were given twice");
}

/// A lease in a /16 that holds 60,000, as a process.
fn full_pool() {
    let host = Host::new();
    let cni = host.cni();
    let conf = json!({"type": "ripam", "ipam": {"type": "ripam", "ranges": [[{"subnet": "10.80.0.0/16"}]]}});
    let container = host.container("c0");
    let empty: Vec<Duration> = (0..ROUNDS)
        .map(|i| succeeded(cni.conf(conf.clone()).container(&container).id(&format!("e{i}")).add()))
        .collect();
    fill(&host, 60_000);
    let full: Vec<Duration> = (0..ROUNDS)
        .map(|i| succeeded(cni.conf(conf.clone()).container(&container).id(&format!("f{i}")).add()))
        .collect();
    report("lease in a /16 that holds 60,000", median(full), Some(("in an empty one", median(empty))));
}

/// Leases `count` addresses by the library calls the plugin makes, without 60,000 processes.
fn fill(host: &Host, count: usize) {
    let tool = std::env::var("BERTH_FILL_POOL").expect("BERTH_FILL_POOL names ipam's example fill_pool");
    let run = host.run_dir();
    let words = [run.to_str().unwrap(), "n0", &count.to_string()].map(str::to_owned);
    let micros: f64 =
        host.cmd(tool).args(words).deadline(Duration::from_secs(300)).run().trim().parse().unwrap();
    println!(
        "| lease in-process, the /16 holding {count} | {:.3} ms | wanted: 0.2 ms | {:.2} |",
        micros / 1000.0,
        micros / 200.0
    );
}

/// Peak memory of an ADD: the largest of this process's children so far, so it is asked first.
fn memory() {
    let host = Host::new();
    let container = host.container("c0");
    for _ in 0..3 {
        let call = host.cni().conf(conf(1)).container(&container);
        call.add().ok();
        call.del().ok();
    }
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    let kib = usage.max_rss() as f64;
    println!("| peak memory of an ADD | {:.1} MB | wanted: 10 MB | {:.2} |", kib / 1000.0, kib / 10_000.0);
}
