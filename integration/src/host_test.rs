//! The frame around a test: the host and the machine are afterwards as they were.

use std::time::Duration;

use crate::{Debian, Host, Lan, Machine, Seat, Snapshot, eventually};

/// How long the kernel may take to finish what was begun: namespaces and their links are removed in the background.
const SETTLE: Duration = Duration::from_secs(5);

/// Runs `test` on a host of its own, then requires that the host is as before the test, that no process and no
/// container with something in it was left, and that the machine's own links, namespaces and loop devices are the same.
///
/// ```no_run
/// use berth_integration::host_test;
/// use serde_json::json;
///
/// host_test(|host| {
///     let container = host.container("c0");
///     let call = host.cni().conf(json!({"type": "rnone"})).container(&container).ifname("lo");
///     call.add().ok();
///     call.del().ok();
/// });
/// ```
pub fn host_test(test: impl FnOnce(&Host)) {
    host_test_on(Debian::V12, test);
}

/// Like [`host_test`], with the programs of `debian`.
pub fn host_test_on(debian: Debian, test: impl FnOnce(&Host)) {
    framed(|| Host::on(debian), |host| host, |host| test(host));
}

/// Like [`host_test`], with the host plugged into a LAN before the test begins.
pub fn lan_test(test: impl FnOnce(&Host, &Lan, &Seat)) {
    let make = || {
        let (host, lan) = (Host::new(), Lan::new());
        let seat = lan.join(&host);
        (host, lan, seat)
    };
    framed(make, |(host, _, _)| host, |(host, lan, seat)| test(host, lan, seat));
}

fn framed<S>(make: impl FnOnce() -> S, host_of: impl Fn(&S) -> &Host, test: impl FnOnce(&S)) {
    framed_all(make, |stage| vec![host_of(stage)], test);
}

/// As [`framed`], of several hosts.
pub(crate) fn framed_all<S>(
    make: impl FnOnce() -> S,
    hosts_of: impl Fn(&S) -> Vec<&Host>,
    test: impl FnOnce(&S),
) {
    let machine = Machine::observe();
    let stage = make();
    let hosts = hosts_of(&stage);
    let before: Vec<Snapshot> = hosts.iter().map(|host| Snapshot::of(host)).collect();
    test(&stage);
    for (host, before) in hosts.iter().zip(&before) {
        let leaks = host.leaks();
        assert!(leaks.is_empty(), "left in containers:\n{}", leaks.join("\n"));
        eventually(SETTLE, || same("a host", &before.difference(&Snapshot::of(host))));
        let processes = host.processes();
        assert!(processes.is_empty(), "processes still in a host: {processes:?}");
    }
    drop(stage);
    eventually(SETTLE, || same("the machine", &machine.difference(&Machine::observe())));
}

fn same(what: &str, difference: &str) -> Result<(), String> {
    if difference.is_empty() {
        Ok(())
    } else {
        Err(format!("{what} is not as before (- gone, + left):\n{difference}"))
    }
}
