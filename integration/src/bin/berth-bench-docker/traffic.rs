//! Throughput through a published port: TCP from a client to a container that reads and throws away.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_integration::Host;
use berth_integration::bench::{self, Processors, Socket, Wanted};
use berth_integration::engine::Dockerd;
use serde_json::json;

use crate::{BESIDE, DRIVERS, driver_network, network, run};

/// How long bytes are sent in one turn: as much as two turns that follow each other have of the machine in common.
const SENDING: Duration = Duration::from_millis(25);
const TURNS: usize = 1200;

/// Where it is sent to, what that is called, and how many times Docker's throughput is wanted.
const TARGETS: [(&str, &str, f64); 2] = [
    ("192.0.2.2", "throughput through a published port, the host's address", 1.0),
    ("127.0.0.1", "throughput through a published port, localhost", 1.3),
];

/// On the host's own address, and on localhost, where Docker's driver has a process that copies.
pub(crate) fn measure(host: &Host, docker: &Dockerd<'_>) {
    let api = Socket::docker(host);
    let mut ends = Vec::new();
    for (driver, port) in DRIVERS.into_iter().zip(5001_u16..) {
        network(&api, driver, driver_network(driver));
        let bindings = json!({format!("{port}/tcp"): [{"HostPort": port.to_string()}]});
        let sink = format!("sink-{driver}");
        run(&api, &sink, driver_network(driver), &bindings);
        ends.push((driver, port, docker.place(&sink)));
    }
    let mut rates: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for order in bench::orders(ends.len(), TURNS) {
        for place in order {
            let (driver, port, sink) = &ends[place];
            for (addr, ..) in TARGETS {
                let to = format!("{addr}:{port}").parse().unwrap();
                let rate = bench::rate(host, sink, to, SENDING, Processors::Any);
                rates.entry((driver, addr)).or_default().push(rate);
            }
        }
    }
    for (driver, _, sink) in ends {
        drop(sink);
        api.delete(&format!("/containers/sink-{driver}?force=1"));
        api.delete(&format!("/networks/{}", driver_network(driver)));
    }
    for (addr, words, times) in TARGETS {
        let [ours, theirs] = ["rbridge", "bridge"].map(|driver| &rates[&(driver, addr)][..]);
        bench::row_of_turns(words, "Gbit/s", ours, (BESIDE, theirs), Wanted::TimesAtLeast(times));
    }
}
