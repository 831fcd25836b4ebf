//! `berth-bench-docker`: berth's network driver against Docker's own `bridge`, on one dockerd and in one run.
//!
//! Every figure is of calls of Docker's API, medians of rounds in which the two take turns, so that both meet the same
//! machine. The program prints one JSON object a line; `cargo xtask bench docker` makes a table of them in `docs/`.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark: whatever goes wrong ends it")]

mod connects;
mod memory;
mod traffic;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use berth_integration::bench::{self, Memory, Socket, Wanted};
use berth_integration::engine::{Berthd, Dockerd, engine_test};
use berth_integration::{Debian, Host};
use serde_json::{Value, json};

/// Rounds of a single-call figure.
const ROUNDS: usize = 15;
/// Rounds of a container with many ports, each of which takes Docker's own driver many seconds.
const MANY_PORTS_ROUNDS: usize = 3;
/// How many ports are many.
const MANY_PORTS: u16 = 200;

/// The driver that is measured, and the one beside it.
const DRIVERS: [&str; 2] = ["rbridge", "bridge"];
const BESIDE: &str = "Docker's `bridge`";

fn main() -> ExitCode {
    bench::guarded(measure)
}

fn measure() {
    engine_test(&["dockerd", "iptables", "busybox"], |host| {
        let mut berthd = Berthd::new(host, &["--roles", "docker"]);
        bench::row(
            "memory of `berthd` at rest",
            "MB",
            Memory::of(berthd.pid().unwrap()).settled,
            None,
            Wanted::AtMost(15.0),
        );
        let docker = Dockerd::new(host, Debian::V12, &[]);
        calls(host);
        connects::measure(host);
        many_ports(host);
        traffic::measure(host, &docker);
        memory::measure(host, &berthd);
        docker.end();
        berthd.stop();
    });
}

/// Times of one kind of work, by driver.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<Duration>>);

impl Times {
    fn add(&mut self, driver: &'static str, time: Duration) {
        self.0.entry(driver).or_default().push(time);
    }

    fn median(&self, driver: &str) -> f64 {
        bench::median(self.0[driver].clone())
    }

    fn row(&self, work: &str, wanted: Wanted) {
        bench::row(work, "ms", self.median("rbridge"), Some((BESIDE, self.median("bridge"))), wanted);
    }
}

/// A network of `driver`. Its name sorts behind that of the container's first, so that its gateway stays that one's.
fn network(api: &Socket<'_>, driver: &str, name: &str) -> Duration {
    api.post("/networks/create", &json!({"Name": name, "Driver": driver, "CheckDuplicate": true})).1
}

/// Create and remove a network.
fn calls(host: &Host) {
    let api = Socket::docker(host);
    let (mut create, mut remove) = (Times::default(), Times::default());
    for round in 0..=ROUNDS {
        for driver in DRIVERS {
            let name = format!("z-{driver}");
            let created = network(&api, driver, &name);
            let removed = api.delete(&format!("/networks/{name}"));
            // The first round loads what is loaded once.
            if round > 0 {
                create.add(driver, created);
                remove.add(driver, removed);
            }
        }
    }
    create.row("`network create`", Wanted::Times(0.7));
    remove.row("`network rm`", Wanted::Times(1.0));
}

/// Creates and starts a container; how long the start took.
fn run(api: &Socket<'_>, name: &str, network: &str, bindings: &Value) -> Duration {
    let exposed: BTreeMap<&String, Value> =
        bindings.as_object().into_iter().flatten().map(|(port, _)| (port, json!({}))).collect();
    let container = json!({
        "Image": "nginx", "ExposedPorts": exposed,
        "HostConfig": {"NetworkMode": network, "PortBindings": bindings},
    });
    api.post(&format!("/containers/create?name={name}"), &container);
    api.post(&format!("/containers/{name}/start"), &Value::Null).1
}

/// A container with many published ports: its start, its removal, and the processes it takes.
fn many_ports(host: &Host) {
    let api = Socket::docker(host);
    let bindings: BTreeMap<String, Value> = (0..MANY_PORTS)
        .map(|n| (format!("{}/tcp", 1000 + n), json!([{"HostPort": (20_000 + n).to_string()}])))
        .collect();
    let (mut start, mut remove) = (Times::default(), Times::default());
    let mut proxies = BTreeMap::new();
    for driver in DRIVERS {
        network(&api, driver, driver_network(driver));
    }
    for _ in 0..MANY_PORTS_ROUNDS {
        for driver in DRIVERS {
            start.add(driver, run(&api, "many", driver_network(driver), &json!(bindings)));
            proxies.insert(driver, count_proxies(host));
            remove.add(driver, api.delete("/containers/many?force=1"));
            // berth deletes a link when Docker has its answer: not in the other's time.
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    for driver in DRIVERS {
        api.delete(&format!("/networks/{}", driver_network(driver)));
    }
    start.row(&format!("start with {MANY_PORTS} published ports"), Wanted::Times(0.1));
    remove.row("removal of the same", Wanted::Times(1.0 / 30.0));
    let beside = Some((BESIDE, proxies["bridge"]));
    bench::row("processes for the same", "", proxies["rbridge"], beside, Wanted::AtMost(0.0));
}

fn driver_network(driver: &str) -> &'static str {
    if driver == "rbridge" { "ours" } else { "theirs" }
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred")]
fn count_proxies(host: &Host) -> f64 {
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    host.processes().iter().filter(|pid| name(pid).starts_with("docker-proxy")).count() as f64
}
