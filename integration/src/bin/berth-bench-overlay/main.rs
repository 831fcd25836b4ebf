//! `berth-bench-overlay`: one network on several hosts, beside a VXLAN that is laid by hand and beside Docker's swarm overlay.
//!
//! The hosts are private ones on a routed underlay, with a real etcd. What is compared takes turns in one run. The program prints
//! one JSON object a line; `cargo xtask bench overlay` makes a table of them in `docs/`.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark: whatever goes wrong ends it")]

mod away;
mod entries;
mod etcd;
mod many;
mod stage;
mod started;
mod swarm;
mod traffic;
mod visible;
mod writes;

use std::process::ExitCode;

use berth_integration::bench;

use stage::Stage;

fn main() -> ExitCode {
    bench::guarded(measure)
}

type Part = (&'static str, fn(&mut Stage));

/// What is measured, in this order: all of it, or what the words name.
const PARTS: [Part; 7] = [
    ("traffic", |stage| traffic::measure(stage)),
    ("writes", |stage| writes::measure(stage)),
    ("visible", |stage| visible::measure(stage)),
    ("started", |stage| started::measure(stage)),
    ("programmed", |_| many::programmed()),
    ("memory", |stage| many::memory(stage)),
    // Takes etcd away.
    ("away", away::measure),
];

fn measure() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let known = |word: &String| PARTS.iter().any(|(name, _)| name == word);
    assert!(words.iter().all(known), "known parts: {:?}", PARTS.map(|(name, _)| name));
    let mut stage = Stage::new();
    for (name, part) in PARTS {
        if words.is_empty() || words.iter().any(|word| word == name) {
            part(&mut stage);
        }
    }
    stage.end();
}
