//! What an attach costs the cluster: writes of etcd's log, by its own count.

use std::time::Duration;

use berth_integration::bench::{Wanted, row};

use crate::stage::{Member, NETWORK, Stage};

const ATTACHES: u32 = 100;

/// After this long nothing more is written: blocks are looked after and names compared within a second or two.
const SETTLED: Duration = Duration::from_secs(3);

/// Writes of etcd's log so far.
pub(crate) struct Writes {
    all: u64,
    /// Of these, those of blocks.
    blocks: u64,
}

impl Writes {
    /// Counts them once what follows from earlier attaches is written.
    pub(crate) fn count(stage: &Stage) -> Self {
        std::thread::sleep(SETTLED);
        Self { all: stage.etcd.revision(), blocks: stage.etcd.versions("/berth/v1/blk/") }
    }

    /// Those since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self { all: self.all - before.all, blocks: self.blocks - before.blocks }
    }

    /// For each of `attaches`, without those of blocks.
    pub(crate) fn each(&self, attaches: u32) -> f64 {
        f64::from(u32::try_from(self.all - self.blocks).unwrap()) / f64::from(attaches)
    }

    /// Those of blocks, for each of `attaches`.
    fn blocks_each(&self, attaches: u32) -> f64 {
        f64::from(u32::try_from(self.blocks).unwrap()) / f64::from(attaches)
    }
}

pub(crate) fn measure(stage: &Stage) {
    let node = &stage.nodes[0];
    // The network is joined, and blocks are claimed as they are at rest.
    let first = node.attach(NETWORK, "first").0;
    let before = Writes::count(stage);
    let attached: Vec<_> =
        (0..ATTACHES).map(|number| node.attach(NETWORK, &format!("w{number}")).0).collect();
    let writes = Writes::count(stage).since(&before);
    row("writes of etcd for an attach, of 100", "", writes.each(ATTACHES), None, Wanted::AtMost(1.0));
    let blocks = writes.blocks_each(ATTACHES);
    row("writes for blocks fetched early meanwhile, for an attach", "", blocks, None, Wanted::Nothing);
    attached.into_iter().chain([first]).for_each(Member::del);
}
