//! While etcd is away: an address from the node's own blocks, and a whole ADD beside one on a bridge.

use std::time::Duration;

use berth_integration::bench::{self, Wanted, row};
use berth_integration::eventually;
use serde_json::json;

use crate::stage::{NETWORK, Node, SOON, Stage};

const ROUNDS: usize = 31;

pub(crate) fn measure(stage: &mut Stage) {
    // Blocks for all of it are there before.
    let node = &stage.nodes[2];
    let member = node.attach(NETWORK, "standing").0;
    bridge(node, "standing-bridge", |_| ());
    stage.etcd.end();
    eventually(SOON, || match node.status() {
        status if status["connected"] == false => Ok(()),
        status => Err(format!("etcd is gone and still followed: {status}")),
    });
    let micros: f64 = node.figures(&["lease", NETWORK]).run().trim().parse().unwrap();
    let most = Wanted::AtMost(0.2);
    row("an address while etcd is away, in-process", "ms", micros / 1000.0, None, most);
    let (mut ours, mut bridges) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (member, took) = node.attach(NETWORK, &format!("a{round}"));
        ours.push(took);
        member.del();
        bridge(node, &format!("b{round}"), |took| bridges.push(took));
    }
    let beside = Some(("ADD on a bridge, in turn", bench::median(bridges)));
    let median = bench::median(ours);
    row("ADD on an overlay while etcd is away", "ms", median, beside, Wanted::Nothing);
    member.del();
}

/// A container on a bridge network, and off it.
fn bridge(node: &Node, name: &str, took: impl FnOnce(Duration)) {
    let container = node.host.container(name);
    let conf = json!({
        "type": "rbridge", "bridge": "br0", "isGateway": true, "ipMasq": true,
        "ipam": {"type": "ripam", "ranges": [[{"subnet": "10.80.0.0/16"}]]},
    });
    let cni = node.host.cni();
    let call = cni.conf(conf).id(name).container(&container);
    let ran = call.add();
    took(ran.elapsed());
    ran.ok();
    call.del().ok();
}
