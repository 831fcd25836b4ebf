//! `berth-bench-dns`: berth's DNS server beside others, asked by dnsperf in one run.
//!
//! Every server is a process in one private host and is asked on its own, in turn, so that whatever else the machine does
//! meets all of them. The program prints one JSON object a line; `cargo xtask bench` makes a table of them in `docs/`. With a
//! word it is one of the servers itself: `serve` is berth's, `flip` a responder that only turns the header.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::exit,
    reason = "a benchmark: whatever goes wrong ends it, and its output is its purpose"
)]

mod client;
mod serve;
mod servers;

use std::process::ExitCode;

use berth_integration::Host;
use berth_integration::bench::{self, Wanted, row};

use servers::{Names, Running};

/// Turns that every server gets; the median counts.
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    match (words.next().as_deref(), words.next()) {
        (Some("serve"), Some(names)) => serve::berth(names.parse().unwrap()),
        (Some("flip"), _) => serve::flip(),
        _ => return bench::guarded(measure),
    }
    ExitCode::SUCCESS
}

fn measure() {
    let host = Host::new();
    servers::prepare(&host);
    let few = Names::new(&host, 1000);
    let berth = servers::berth(&host, 1000);
    beside_others(&host, &few, &berth);
    forwarded(&host, &few, &berth);
    storm(&host, berth);
    many(&host);
    memory(&host);
}

/// The median of what each server answers a second.
fn rates(host: &Host, names: &Names, servers: &[&Running]) -> Vec<f64> {
    let mut all = vec![Vec::new(); servers.len()];
    for _ in 0..ROUNDS {
        for (server, rates) in servers.iter().zip(&mut all) {
            rates.push(servers::dnsperf(host, server, &names.questions));
        }
    }
    all.into_iter().map(median).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn beside_others(host: &Host, names: &Names, berth: &Running) {
    let flip = servers::flip(host);
    let knot = servers::knot(host, names);
    let dnsmasq = servers::dnsmasq(host, names);
    let aardvark = servers::aardvark(host, names);
    let others = [
        (&aardvark, "aardvark-dns", Wanted::TimesAtLeast(1.35)),
        (&knot, "Knot", Wanted::TimesAtLeast(0.95)),
        (&dnsmasq, "dnsmasq", Wanted::Nothing),
        (&flip, "a bare responder", Wanted::TimesAtLeast(0.85)),
    ];
    let running: Vec<&Running> =
        [berth].into_iter().chain(others.iter().map(|(server, ..)| *server)).collect();
    let rates = rates(host, names, &running);
    for ((_, name, wanted), rate) in others.iter().zip(&rates[1..]) {
        row("1,000 names", "/s", rates[0], Some((name, *rate)), *wanted);
    }
}

/// The same with 100,000 names, beside the responder that knows none.
fn many(host: &Host) {
    let names = Names::new(host, 100_000);
    let berth = servers::berth(host, 100_000);
    let flip = servers::flip(host);
    let knot = servers::knot(host, &names);
    let rates = rates(host, &names, &[&berth, &knot, &flip]);
    row("100,000 names", "/s", rates[0], Some(("Knot", rates[1])), Wanted::TimesAtLeast(0.95));
    row("100,000 names", "/s", rates[0], Some(("a bare responder", rates[2])), Wanted::TimesAtLeast(0.85));
}

/// Names that Knot has and berth was told by it.
fn forwarded(host: &Host, names: &Names, berth: &Running) {
    let knot = servers::upstream(host);
    let far = Names::far(host, 1000);
    // The first pass asks Knot.
    servers::dnsperf(host, berth, &far.questions);
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        all[0].push(servers::dnsperf(host, berth, &names.questions));
        all[1].push(servers::dnsperf(host, berth, &far.questions));
    }
    let [local, kept] = all.map(median);
    row("answers of others, kept", "/s", kept, Some(("names of its own", local)), Wanted::TimesAtLeast(0.8));
    drop(knot);
}

/// The 99th of a hundred latencies of one client, with and without 500 changes a second.
fn storm(host: &Host, mut berth: Running) {
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        all[0].push(client::p99(host));
        berth.tell("storm");
        all[1].push(client::p99(host));
        berth.tell("calm");
    }
    let [calm, busy] = all.map(median);
    row("p99 during 500 changes a second", "ms", busy, Some(("without", calm)), Wanted::Above(1.0));
}

fn memory(host: &Host) {
    let berth = servers::berth(host, 10_000);
    let names = Names::new(host, 10_000);
    servers::dnsperf(host, &berth, &names.questions);
    row("memory with 10,000 names", "MB", berth.resident(), None, Wanted::AtMost(15.0));
}
