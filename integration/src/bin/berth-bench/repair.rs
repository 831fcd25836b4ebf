//! How long the keeper takes until what another program destroyed works again.

use std::time::{Duration, Instant};

use berth_integration::bench::{Wanted, median, row};
use berth_integration::engine::Berthd;
use berth_integration::{Host, Probe};

use crate::{conf, succeeded};

/// Rounds of each damage. The keeper takes many in a short time for a fight with another program, hence few, and the pause.
const ROUNDS: usize = 5;
/// The pause between two.
const PAUSE: Duration = Duration::from_secs(8);
/// When a repair counts as failed.
const LATEST: Duration = Duration::from_secs(30);

/// From the damage until the published port answers, or the address is free.
pub(crate) fn measure() {
    let host = &Host::new();
    let mut berthd = Berthd::beside_cni(host, &["--roles", "keeper"]);
    for damage in ["nft flush ruleset", "ip link del br0"] {
        let times = (0..ROUNDS).map(|_| port_after(host, damage)).collect();
        row(&format!("right again after `{damage}`"), "ms", median(times), None, Wanted::AtMost(1000.0));
    }
    let times = (0..ROUNDS).map(|round| address_after_vanishing(host, round)).collect();
    row("address free after its sandbox vanished", "ms", median(times), None, Wanted::AtMost(1000.0));
    berthd.stop();
}

fn port_after(host: &Host, damage: &str) -> Duration {
    let container = host.container("served");
    let cni = host.cni();
    let mut conf = conf(1);
    // By which the container answers an address of the host that is not its gateway's.
    conf.as_object_mut().unwrap().insert("isDefaultGateway".to_owned(), true.into());
    let call = cni.conf(conf).container(&container).id("served");
    succeeded(call.add());
    let server = container.serve_tcp(80, "served");
    let probe = Probe::tcp("192.0.2.2:20000");
    host.probe(&probe).all_from("served");
    let probe = probe.timeout(Duration::from_millis(20));
    host.run(damage);
    let started = Instant::now();
    let took = until(started, || host.probe(&probe).succeeded() == 1);
    drop(server);
    succeeded(call.del());
    std::thread::sleep(PAUSE);
    took
}

fn address_after_vanishing(host: &Host, round: usize) -> Duration {
    let container = host.container(&format!("gone{round}"));
    let id = format!("gone{round}");
    let cni = host.cni();
    succeeded(cni.conf(conf(1)).container(&container).id(&id).add());
    container.remove();
    let started = Instant::now();
    let took = until(started, || !host.berth(["ps"]).run().contains(&id));
    std::thread::sleep(PAUSE);
    took
}

fn until(started: Instant, holds: impl Fn() -> bool) -> Duration {
    while !holds() {
        assert!(started.elapsed() < LATEST, "not right again within {LATEST:?}");
    }
    started.elapsed()
}
