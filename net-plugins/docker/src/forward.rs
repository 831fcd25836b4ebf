//! Docker's own filter in front of berth's traffic.
//!
//! dockerd turns forwarding on and sets the policy of FORWARD to DROP. berth's accept in its own table does not overrule
//! that, so berth's mark is accepted in `DOCKER-USER`, the chain Docker leaves to the administrator: one constant rule,
//! after the administrator's own, so that nothing of Docker's or theirs is weakened.

use std::sync::atomic::{AtomicBool, Ordering};

/// Keeps the rule there.
#[derive(Debug, Default)]
pub struct Forward {
    /// The rule was there when last looked, and dockerd has not started since.
    is_there: AtomicBool,
}

impl Forward {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// dockerd started: it may make its chains anew.
    pub fn doubt(&self) {
        self.is_there.store(false, Ordering::Release);
    }

    /// Puts the rule in unless it is known to be there.
    pub fn ensure(&self) {
        if !self.is_there.load(Ordering::Acquire) {
            self.look();
        }
    }

    /// Looks, and puts the rule in where there is a chain without it. What goes wrong is logged: `berth doctor` names the
    /// chain that drops.
    pub fn look(&self) {
        match berth_nft::docker_user::accept() {
            // Without Docker's chain there is nothing in the way yet; it may come.
            Ok(outcome) => self.is_there.store(outcome.chains > 0, Ordering::Release),
            Err(err) => tracing::warn!(%err, "berth's traffic may be dropped by Docker's FORWARD policy"),
        }
    }
}
