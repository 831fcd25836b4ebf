//! The directories of the records: full, read-only, missing, replaced.

use std::fs;
use std::path::Path;

use berth_integration::{Host, Snapshot};

use crate::common::{Net, assert_as_before, berth_test, tcp};

/// Puts a small file system over `dir` for the time of `then`.
fn on_small_disk(host: &Host, dir: &Path, then: impl FnOnce()) {
    let dir = dir.display();
    host.run(&format!("mount -n -t tmpfs -o size=1m,mode=700 small {dir}"));
    then();
    host.run(&format!("umount -n {dir}"));
}

/// Leaves no byte free in `dir`.
fn fill(host: &Host, dir: &Path) {
    host.line(&format!("dd if=/dev/zero of={}/filler bs=4k 2>/dev/null", dir.display())).output();
}

fn free(host: &Host, dir: &Path) {
    host.run(&format!("rm {}/filler", dir.display()));
}

#[test]
fn a_full_disk_refuses_an_add_with_nothing_half_made() {
    berth_test(|host| {
        let run = host.run_dir();
        on_small_disk(host, &run, || {
            let net = Net::new(host, 1);
            let container = host.container("a");
            fill(host, &run);
            let before = Snapshot::of(host);
            let error = net.publishing(&container, tcp(8080, 80)).add().err();
            assert_eq!(error.code, 108, "{error}");
            assert!(error.to_string().contains("no space left"), "{error}");
            assert!(error.to_string().contains(run.to_str().unwrap()), "{error}");
            // The database of no bytes that opening made is no record.
            let same = before.difference(&Snapshot::of(host));
            assert!(same.lines().all(|line| line.contains("RUN/")), "{same}");
            free(host, &run);
            let call = net.publishing(&container, tcp(8080, 80));
            call.add().ok();
            call.del().ok();
            crate::common::collect(host);
        });
    });
}

/// Catalogue row 31: a disk that is full is when people delete containers.
#[test]
fn a_del_succeeds_or_says_why_on_a_full_disk_and_loses_nothing() {
    berth_test(|host| {
        let run = host.run_dir();
        on_small_disk(host, &run, || {
            let net = Net::new(host, 1);
            let (a, b) = (net.publish("a", tcp(8080, 80)), net.join("b"));
            fill(host, &run);
            let ran = a.call().del();
            if !ran.succeeded() {
                let error = ran.err();
                assert_eq!(error.code, 108, "{error}");
                assert!(error.to_string().contains("no space left"), "{error}");
            }
            assert_eq!(host.ping(b.v4(), 1), 1);
            // Reading needs room for the index of SQLite's log; without, it says so too.
            let ran = b.checked().check();
            if !ran.succeeded() {
                assert_eq!(ran.err().code, 108);
            }
            free(host, &run);
            b.checked().check().ok();
            a.leave();
            b.leave();
            crate::common::collect(host);
        });
    });
}

#[test]
fn many_adds_until_the_disk_is_full_and_back_leave_nothing() {
    berth_test(|host| {
        let run = host.run_dir();
        let before = Snapshot::of(host);
        on_small_disk(host, &run, || {
            let net = Net::new(host, 1);
            let mut added = Vec::new();
            // Some room, so that it ends in the middle of something.
            fill(host, &run);
            host.run(&format!("truncate -s -340K {}/filler", run.display()));
            for n in 0..120 {
                let container = host.container(&format!("c{n}"));
                let call = net.call_for(&container);
                let ran = call.add();
                if !ran.succeeded() {
                    assert_eq!(ran.err().code, 108);
                    assert!(!container.run("ip -o link").contains("eth0"));
                    break;
                }
                added.push((container, call));
            }
            assert!(!added.is_empty() && added.len() < 120, "{}", added.len());
            free(host, &run);
            for (container, call) in &added {
                assert!(container.run("ip -o link").contains("eth0"));
                call.del().ok();
            }
            crate::common::collect(host);
        });
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn a_read_only_directory_refuses_changes_and_is_named() {
    berth_test(|host| {
        let run = host.run_dir();
        on_small_disk(host, &run, || {
            let net = Net::new(host, 1);
            let a = net.publish("a", tcp(8080, 80));
            host.run(&format!("mount -n -o remount,ro {}", run.display()));
            let container = host.container("b");
            let before = Snapshot::of(host);
            for ran in [net.call_for(&container).add(), a.call().del()] {
                let error = ran.err();
                assert_eq!(error.code, 108, "{error}");
                assert!(error.to_string().contains(run.to_str().unwrap()), "{error}");
            }
            before.assert_same(&Snapshot::of(host));
            // Traffic does not pass through records.
            assert_eq!(host.ping(a.v4(), 1), 1);
            host.run(&format!("mount -n -o remount,rw {}", run.display()));
            a.leave();
            drop(container);
            crate::common::collect(host);
        });
    });
}

#[test]
fn directories_that_are_missing_are_made() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        fs::remove_dir_all(host.run_dir()).unwrap();
        fs::remove_dir_all(host.state_dir()).unwrap();
        let net = Net::new(host, 1);
        // Reading makes none.
        net.call().run("STATUS").ok();
        let a = net.publish("a", tcp(8080, 80));
        assert_eq!(host.ping(a.v4(), 1), 1);
        a.leave();
        fs::create_dir_all(host.state_dir()).unwrap();
        assert_as_before(host, &before);
    });
}

#[test]
fn a_directory_that_is_a_file_is_named() {
    berth_test(|host| {
        let run = host.run_dir();
        fs::remove_dir_all(&run).unwrap();
        fs::write(&run, "").unwrap();
        let container = host.container("a");
        let error = Net::new(host, 1).call_for(&container).add().err();
        assert_eq!(error.code, 108, "{error}");
        assert!(error.to_string().contains(run.to_str().unwrap()), "{error}");
        fs::remove_file(&run).unwrap();
        fs::create_dir(&run).unwrap();
    });
}

/// Catalogue row 49.
#[test]
fn a_call_without_enough_descriptors_fails_clean() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let container = host.container("a");
        let conf = host.dir().join("conf");
        fs::write(&conf, net.conf().to_string()).unwrap();
        let plugin = host.cni().plugins().join("rbridge");
        for limit in 3..24 {
            let before = Snapshot::of(host);
            let line = format!("ulimit -n {limit}; exec {} <{}", plugin.display(), conf.display());
            let ran = host
                .cmd("sh")
                .args(["-c", &line])
                .env("CNI_COMMAND", "ADD")
                .env("CNI_CONTAINERID", "a")
                .env("CNI_NETNS", container.netns())
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", host.cni().plugins())
                .output();
            if ran.status.success() {
                net.call_for(&container).del().ok();
                crate::common::collect(host);
            }
            let left = before.difference(&Snapshot::of(host));
            let left: Vec<_> = left.lines().filter(|line| !line.contains("RUN/")).collect();
            assert!(left.is_empty(), "with {limit} descriptors: {left:?}\n{ran}");
        }
    });
}
