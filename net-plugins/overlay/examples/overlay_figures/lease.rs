//! Addresses of this node's own blocks, given in this process: what an attach does of it.

use std::time::Instant;

use berth_core::{Berth, CoreError};
use berth_ipam::{Request, allocate, release};
use berth_overlay::joined::Joined;
use berth_store::BootTime;
use berth_types::{AttachmentKey, NetworkName};

use super::dirs;

/// Fewer than a block has: an address that came back is given to nobody for a while.
const ROUNDS: usize = 21;

/// The median in microseconds.
pub(crate) fn measure(network: &NetworkName) -> f64 {
    let mut berth = Berth::open(&dirs()).unwrap();
    let joined = Joined::find(&mut berth, network).unwrap().unwrap();
    let mut times = Vec::new();
    for number in 0..ROUNDS {
        let owner = AttachmentKey {
            network: network.clone(),
            container: format!("lease{number}").parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
        };
        let request = Request { owner: owner.clone(), sandbox: None, requested: Vec::new(), sticky: None };
        let started = Instant::now();
        let given = berth.store_mut().write(|tx| {
            let pool = joined.pool(tx)?;
            allocate(tx, &pool, &request, BootTime::now(), &mut |_| false).map_err(CoreError::from)
        });
        times.push(started.elapsed());
        given.unwrap();
        berth.store_mut().write(|tx| release(tx, &owner, BootTime::now())).unwrap();
    }
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}
