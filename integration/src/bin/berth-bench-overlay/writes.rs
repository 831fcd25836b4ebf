//! What an attach costs the cluster: writes of etcd's log, by its own count.

use berth_integration::bench::{Wanted, row};

use crate::stage::{Member, NETWORK, Stage};

const ATTACHES: u32 = 100;

pub(crate) fn measure(stage: &Stage) {
    let node = &stage.nodes[0];
    // The network is joined, and blocks are claimed as they are at rest.
    let first = node.attach(NETWORK, "first").0;
    std::thread::sleep(std::time::Duration::from_secs(1));
    let count = || (stage.etcd.revision(), stage.etcd.versions("/berth/v1/blk/"));
    let before = count();
    let attached: Vec<_> =
        (0..ATTACHES).map(|number| node.attach(NETWORK, &format!("w{number}")).0).collect();
    // Blocks that are fetched early are looked after a moment later.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let after = count();
    let blocks = after.1 - before.1;
    let each = |count: u64| f64::from(u32::try_from(count).unwrap()) / f64::from(ATTACHES);
    let writes = each(after.0 - before.0 - blocks);
    row("writes of etcd for an attach, of 100", "", writes, None, Wanted::AtMost(1.0));
    row("writes for blocks fetched early meanwhile, for an attach", "", each(blocks), None, Wanted::Nothing);
    attached.into_iter().chain([first]).for_each(Member::del);
}
