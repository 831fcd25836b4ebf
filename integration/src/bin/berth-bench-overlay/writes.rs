//! What an attach costs the cluster: writes of etcd's log, by its own count.

use std::time::Duration;

use berth_integration::bench::{Wanted, row};

use crate::stage::{Member, NETWORK, Stage};

const ATTACHES: u32 = 100;

/// How long after an attach nothing more is written: blocks are looked after and names compared within a second or two.
const SETTLED: Duration = Duration::from_secs(3);

/// Writes of etcd's log.
pub(crate) struct Writes {
    all: u64,
    /// Of these, those of blocks: fetched early, and given back after others were removed.
    blocks: u64,
}

impl Writes {
    /// Those that follow from `attaching`.
    pub(crate) fn of(stage: &Stage, attaching: impl FnOnce()) -> Self {
        let settled = || {
            std::thread::sleep(SETTLED);
            stage.etcd.revision()
        };
        let before = settled();
        attaching();
        let all = settled() - before;
        Self { all, blocks: stage.etcd.writes_below("/berth/v1/blk/", before) }
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
    let mut attached = Vec::new();
    let writes = Writes::of(stage, || {
        attached.extend((0..ATTACHES).map(|number| node.attach(NETWORK, &format!("w{number}")).0));
    });
    row("writes of etcd for an attach, of 100", "", writes.each(ATTACHES), None, Wanted::AtMost(1.0));
    let blocks = writes.blocks_each(ATTACHES);
    row("writes for blocks fetched early meanwhile, for an attach", "", blocks, None, Wanted::Nothing);
    attached.into_iter().chain([first]).for_each(Member::del);
}
