//! Calls that overtake each other, and sandboxes that vanish in the middle of a call.

use std::time::Duration;

use berth_integration::{Host, Proc, Snapshot};
use serde_json::Value;

use crate::common::{Net, assert_as_before, berth_test, strace};

/// Starts ADD of container `a`, slow at this system call: half a second each of the first times.
fn slow_add(host: &Host, conf: &Value, syscall: &str) -> Proc {
    let inject = format!("inject={syscall}:delay_enter=400000:when=1..3");
    let trace = format!("trace={syscall}");
    let env =
        [("CNI_CONTAINERID", "a"), ("CNI_NETNS", "/run/netns/a"), ("CNI_IFNAME", "eth0"), ("CNI_ARGS", "")];
    strace(host, &["-e", &trace, "-e", &inject], conf, "ADD", &env).spawn()
}

/// Waits until the ADD holds its attachment; from then on it is under way.
fn begun(host: &Host) {
    berth_integration::eventually(Duration::from_secs(5), || {
        let locks = host.run(&format!("ls -R {}", host.run_dir().display()));
        if locks.contains("att-") { Ok(()) } else { Err(locks) }
    });
}

/// Catalogue row 10 (kubernetes#86944): the container that was deleted does not come back to life.
#[test]
fn a_del_that_overtakes_an_add_is_the_last_word() {
    for syscall in ["setns", "sendto", "sendmsg", "fdatasync,pwrite64"] {
        berth_test(|host| {
            let before = Snapshot::of(host);
            let net = Net::new(host, 1);
            let container = host.container("a");
            let add = slow_add(host, &net.conf(), syscall);
            begun(host);
            let del = net.call_for(&container).del();
            let added = add.wait(Duration::from_secs(20));
            if del.succeeded() {
                assert!(!container.run("ip -o link").contains("eth0"), "{syscall}: back to life\n{added}");
            } else {
                assert_eq!(del.err().code, 11, "{syscall}");
                net.call_for(&container).del().ok();
            }
            drop(container);
            assert_as_before(host, &before);
        });
    }
}

/// Catalogue row 13.
#[test]
fn a_sandbox_that_vanishes_during_an_add_leaves_nothing() {
    for syscall in ["setns", "sendto", "sendmsg"] {
        berth_test(|host| {
            let before = Snapshot::of(host);
            let net = Net::new(host, 1);
            let container = host.container("a");
            let add = slow_add(host, &net.conf(), syscall);
            begun(host);
            container.remove();
            let ran = add.wait(Duration::from_secs(20));
            // Whoever holds the namespace open may well finish; then the DEL that follows takes it away.
            if !ran.status.success() {
                assert!(ran.stdout.contains("\"code\""), "{syscall}: {ran}");
            }
            net.call().id("a").env("CNI_NETNS", "").del().ok();
            assert_as_before(host, &before);
        });
    }
}

#[test]
fn other_containers_do_not_wait_for_a_slow_add() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        // The network stands; making it is what others have to wait for.
        let standing = net.join("standing");
        let container = host.container("a");
        let add = slow_add(host, &net.conf(), "setns");
        begun(host);
        let started = std::time::Instant::now();
        net.join("b").leave();
        assert!(started.elapsed() < Duration::from_millis(350), "{:?}", started.elapsed());
        assert!(add.wait(Duration::from_secs(20)).status.success());
        net.call_for(&container).del().ok();
        drop(standing);
    });
}

/// A caller that gives up kills the plugin: nothing of it may be in the way of the next.
#[test]
fn a_call_after_one_that_was_killed_succeeds() {
    for syscall in ["setns", "sendto", "sendmsg"] {
        berth_test(|host| {
            let before = Snapshot::of(host);
            let net = Net::new(host, 1);
            let container = host.container("a");
            let mut add = slow_add(host, &net.conf(), syscall);
            begun(host);
            // strace is killed, and what it traces goes with it or goes on alone.
            add.kill();
            berth_integration::eventually(Duration::from_secs(10), || {
                let busy: Vec<i32> = host.processes().into_iter().collect();
                if busy.is_empty() { Ok(()) } else { Err(format!("{busy:?}")) }
            });
            let call = net.call_for(&container);
            call.del().ok();
            call.add().ok();
            call.del().ok();
            drop(container);
            assert_as_before(host, &before);
        });
    }
}

#[test]
fn gc_while_an_add_runs_takes_nothing_of_it_away() {
    for syscall in ["setns", "sendto", "sendmsg"] {
        berth_test(|host| {
            let net = Net::new(host, 1);
            let container = host.container("a");
            let add = slow_add(host, &net.conf(), syscall);
            begun(host);
            for _ in 0..5 {
                host.berth(["gc"]).run();
            }
            let ran = add.wait(Duration::from_secs(20));
            assert!(ran.status.success(), "{syscall}: {ran}");
            let result: Value = serde_json::from_str(&ran.stdout).unwrap();
            net.call_for(&container).key("prevResult", result).check().ok();
            net.call_for(&container).del().ok();
        });
    }
}
