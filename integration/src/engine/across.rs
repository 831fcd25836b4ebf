//! Engines on several hosts that reach each other.

use super::{OwnDirs, are_installed, tidy};
use crate::underlay::underlay_test_on;
use crate::{Debian, Host, Seat, Underlay};

/// The largest packet of the underlay, bytes.
const MTU: u32 = 1500;

/// Runs `test` with `count` hosts of `debian` on an underlay, if the machine has `programs`; each host must afterwards be as
/// before, once what is the engines' own is gone. A missing program is said aloud, and is a failure where `CI` is set.
pub fn across_test(
    debian: Debian,
    count: usize,
    programs: &[&str],
    test: impl FnOnce(&Underlay, &[(Host, Seat)]),
) {
    if !are_installed(programs) {
        return;
    }
    underlay_test_on(debian, count, MTU, |underlay, hosts| {
        let own: Vec<OwnDirs<'_>> = hosts.iter().map(|(host, _)| OwnDirs::new(host)).collect();
        test(underlay, hosts);
        for (host, _) in hosts {
            tidy(host);
        }
        own.into_iter().for_each(OwnDirs::remove);
    });
}
