//! Throughput through a published port: TCP from a client to a container that reads and throws away.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_integration::Host;
use berth_integration::bench::{self, Processors, Socket, Wanted, row};
use berth_integration::engine::Dockerd;
use serde_json::json;

use crate::{BESIDE, DRIVERS, driver_network, network, run};

/// How long bytes are sent in one round.
const SENDING: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
const PORT: u16 = 5001;

/// On the host's own address, and on localhost, where Docker's driver has a process that copies.
pub(crate) fn measure(host: &Host, docker: &Dockerd<'_>) {
    let api = Socket::docker(host);
    let bindings = json!({format!("{PORT}/tcp"): [{"HostPort": PORT.to_string()}]});
    let mut rates: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for driver in DRIVERS {
        network(&api, driver, driver_network(driver));
    }
    for _ in 0..ROUNDS {
        for driver in DRIVERS {
            run(&api, "sink", driver_network(driver), &bindings);
            let inside = docker.place("sink");
            for addr in ["192.0.2.2", "127.0.0.1"] {
                let to = format!("{addr}:{PORT}").parse().unwrap();
                let rate = bench::rate(host, &inside, to, SENDING, Processors::Any);
                rates.entry((driver, addr)).or_default().push(rate);
            }
            drop(inside);
            api.delete("/containers/sink?force=1");
        }
    }
    for driver in DRIVERS {
        api.delete(&format!("/networks/{}", driver_network(driver)));
    }
    let best = |driver, addr| rates[&(driver, addr)].iter().copied().fold(0.0, f64::max);
    for (addr, words, wanted) in [
        ("192.0.2.2", "throughput through a published port, the host's address", 1.0),
        ("127.0.0.1", "throughput through a published port, localhost", 1.3),
    ] {
        let wanted = Wanted::TimesAtLeast(wanted);
        row(words, "Gbit/s", best("rbridge", addr), Some((BESIDE, best("bridge", addr))), wanted);
    }
}
