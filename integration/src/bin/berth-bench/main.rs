//! `berth-bench cni`: berth's CNI plugins against what people would otherwise run, side by side in one run.
//!
//! Every figure is of whole processes started in a private host, medians of its rounds. The program prints one JSON object
//! a line; `cargo xtask bench` makes a table and a picture of them in `docs/`.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a benchmark: whatever goes wrong ends it")]

mod repair;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use berth_integration::bench::{self, Wanted, median, peak, row};
use berth_integration::{Cni, Container, Host};
use serde_json::{Value, json};

/// Rounds of a single-call figure.
const ROUNDS: usize = 31;

fn main() -> ExitCode {
    bench::guarded(measure)
}

fn measure() {
    let what = std::env::args().nth(1).unwrap_or_else(|| "cni".to_owned());
    assert_eq!(what, "cni", "known benchmarks: cni");
    memory();
    version();
    bad_input();
    one_container();
    parallel(100, 16);
    full_pool();
    repair::measure();
}

/// One container with one port: beside the peers, with 200 ports, and beside 1,000 others.
fn one_container() {
    beside(1, beside_the_peers);
}

fn beside_the_peers(host: &Host) {
    let (add, del) = rounds(host, 1);
    row("ADD, bridge + IPAM + 1 port", "ms", add, None, Wanted::AtMost(6.0));
    if Path::new("/usr/lib/cni/bridge").exists() {
        let (reference_add, reference_del) = one_port_reference();
        let name = "reference plugins";
        row("ADD, bridge + IPAM + 1 port", "ms", add, Some((name, reference_add)), Wanted::Times(1.0 / 12.0));
        row("DEL of the same", "ms", del, Some((name, reference_del)), Wanted::Nothing);
    }
    if let Some(netavark) = netavark() {
        let (setup, teardown) = one_port_netavark(netavark);
        row(
            "ADD, bridge + IPAM + 1 port",
            "ms",
            add,
            Some(("netavark, without IPAM", setup)),
            Wanted::Nothing,
        );
        row("DEL of the same", "ms", del, Some(("netavark, without IPAM", teardown)), Wanted::Nothing);
    }
    row(
        "DEL of the same",
        "ms",
        del,
        Some(("`ip link del` of such a veth", bare_link_del())),
        Wanted::Times(1.25),
    );
    let (many, alone) = in_turn((host, 200), (host, 1));
    row("ADD with 200 ports", "ms", many.0, Some(("with 1 port, in turn", alone.0)), Wanted::Times(1.5));
    row("DEL with 200 ports", "ms", many.1, Some(("with 1 port, in turn", alone.1)), Wanted::Times(1.5));
    let (crowded, alone) = beside(1000, |crowded| in_turn((crowded, 1), (host, 1)));
    let name = "beside one, in turn";
    row("ADD beside 1,000 attachments", "ms", crowded.0, Some((name, alone.0)), Wanted::Times(1.2));
    row("DEL beside 1,000 attachments", "ms", crowded.1, Some((name, alone.1)), Wanted::Times(1.2));
}

/// Where podman keeps its program, if it is installed.
fn netavark() -> Option<&'static Path> {
    ["/usr/lib/podman/netavark", "/usr/libexec/podman/netavark"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists())
}

/// What is refused, is refused at once.
fn bad_input() {
    let host = Host::new();
    let container = host.container("c0");
    let cut = br#"{"cniVersion": "1.1.0", "name": "n0", "type": "#.to_vec();
    let deep = [b"{\"cniVersion\": ".as_slice(), &vec![b'['; 100_000]].concat();
    let huge = vec![b' '; 100_000_000];
    for (work, input) in
        [("ADD, JSON cut short", cut), ("ADD, JSON 100,000 deep", deep), ("ADD, 100 MB of input", huge)]
    {
        let refuse = |_| {
            let ran = host.cni().conf(conf(0)).container(&container).stdin(input.clone()).add();
            let elapsed = ran.elapsed();
            ran.err();
            elapsed
        };
        row(work, "ms", median((0..ROUNDS).map(refuse).collect()), None, Wanted::AtMost(10.0));
    }
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
    row("VERSION", "ms", median(ours), Some(("`/bin/true`", median(bare))), Wanted::Above(1.5));
}

/// Does `work` on a host on which so many containers are attached already.
fn beside<T>(count: usize, work: impl FnOnce(&Host) -> T) -> T {
    let host = Host::new();
    let cni = host.cni();
    let standing: Vec<_> = (0..count).map(|number| host.container(&format!("s{number}"))).collect();
    for (number, container) in standing.iter().enumerate() {
        cni.conf(conf(0)).container(container).id(&format!("s{number}")).add().ok();
    }
    work(&host)
}

/// Medians of ADD and DEL.
type AddDel = (f64, f64);

/// ADD and DEL of one container with so many ports.
fn rounds(host: &Host, ports: u16) -> AddDel {
    medians((0..ROUNDS).map(|round| once(host, round, ports)).collect())
}

/// The same of two, taking turns: what else the machine does meets both.
fn in_turn(one: (&Host, u16), other: (&Host, u16)) -> (AddDel, AddDel) {
    let round = |round: usize| (once(one.0, round, one.1), once(other.0, round, other.1));
    let (ones, others) = (0..ROUNDS).map(round).unzip();
    (medians(ones), medians(others))
}

fn once(host: &Host, round: usize, ports: u16) -> (Duration, Duration) {
    let id = format!("r{round}");
    let container = host.container(&id);
    let cni = host.cni();
    let call = cni.conf(conf(ports)).container(&container).id(&id);
    (succeeded(call.add()), succeeded(call.del()))
}

fn medians(times: Vec<(Duration, Duration)>) -> AddDel {
    let (adds, dels) = times.into_iter().unzip();
    (median(adds), median(dels))
}

fn succeeded(ran: berth_integration::CniRan) -> Duration {
    let elapsed = ran.elapsed();
    ran.ok();
    elapsed
}

/// The same by the reference plugins: bridge with host-local, then portmap.
fn one_port_reference() -> (f64, f64) {
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

/// The same by netavark, which is given the address: podman's IPAM is in podman.
fn one_port_netavark(program: &Path) -> (f64, f64) {
    let host = Host::new();
    let config = host.dir().join("netavark");
    std::fs::create_dir(&config).unwrap();
    let call = |verb: &str, name: &str, address: &str, port: u16| {
        let network = json!({
            "name": "n0", "id": "a".repeat(64), "driver": "bridge", "network_interface": "nv0",
            "subnets": [{"subnet": "10.81.0.0/16", "gateway": "10.81.0.1"}], "ipv6_enabled": false,
            "internal": false, "dns_enabled": false, "ipam_options": {"driver": "host-local"},
        });
        let options = json!({
            "container_id": name.repeat(16), "container_name": name,
            "port_mappings": [{
                "container_port": 80, "host_ip": "", "host_port": port, "protocol": "tcp", "range": 1,
            }],
            "networks": {"n0": {"interface_name": "eth0", "static_ips": [address]}},
            "network_info": {"n0": network},
        });
        let ran = host
            .cmd(program)
            .arg("--config")
            .arg(&config)
            .args([verb, &format!("/run/netns/{name}")])
            .stdin(options.to_string())
            .output();
        assert!(ran.status.success(), "netavark {verb}: {ran}");
        ran.elapsed
    };
    let _standing = host.container("zzzz");
    call("setup", "zzzz", "10.81.0.2", 19_999);
    let (mut setups, mut teardowns) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS / 3 {
        let name = format!("r{round:03}");
        let _container = host.container(&name);
        let address = format!("10.81.1.{round}");
        setups.push(call("setup", &name, &address, 20_000));
        teardowns.push(call("teardown", &name, &address, 20_000));
    }
    call("teardown", "zzzz", "10.81.0.2", 19_999);
    (median(setups), median(teardowns))
}

/// What the kernel's part of a DEL costs: `ip link del` of a veth whose peer is in a container, on a bridge.
fn bare_link_del() -> f64 {
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
        row(&format!("{count} {verb}s, {width} at a time"), "/s", rate, None, Wanted::AtLeast(wanted));
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
    let empty = Some(("in an empty one", median(empty)));
    row("lease in a /16 that holds 60,000, as a process", "ms", median(full), empty, Wanted::AtMost(3.0));
}

/// Leases `count` addresses by the library calls the plugin makes, without 60,000 processes.
fn fill(host: &Host, count: usize) {
    let tool = std::env::var("BERTH_FILL_POOL").expect("BERTH_FILL_POOL names ipam's example fill_pool");
    let run = host.run_dir();
    let words = [run.to_str().unwrap(), "n0", &count.to_string()].map(str::to_owned);
    let micros: f64 =
        host.cmd(tool).args(words).deadline(Duration::from_secs(300)).run().trim().parse().unwrap();
    row("lease in a /16 that holds 60,000, in-process", "ms", micros / 1000.0, None, Wanted::AtMost(0.2));
}

/// Peak memory of an ADD.
fn memory() {
    let host = Host::new();
    let container = host.container("c0");
    let call = host.cni().conf(conf(1)).container(&container);
    let mut most = 0.0_f64;
    for _ in 0..3 {
        most = most.max(peak(call.cmd("ADD")));
        call.del().ok();
    }
    row("peak memory of an ADD", "MB", most, None, Wanted::AtMost(10.0));
}
