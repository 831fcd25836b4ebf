//! Full disks, tools that fail, and sizes that do not fit.

use std::fs;
use std::time::{Duration, Instant};

use berth_integration::{Host, Snapshot};

use crate::{converged, dir, exists, refused, run, volume, volume_test, volumes_dir};

/// Puts a script in place of a program, on this host only.
fn replaced<T>(host: &Host, program: &str, script: &str, then: impl FnOnce() -> T) -> T {
    let file = host.dir().join("replacement");
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    host.run(&format!("chmod 755 {0} && mount --bind {0} {program}", file.display()));
    let value = then();
    host.run(&format!("umount {program}"));
    fs::remove_file(file).unwrap();
    value
}

#[test]
fn an_mkfs_that_fails_is_shown_and_leaves_nothing() {
    volume_test(|host| {
        let before = Snapshot::of(host);
        replaced(host, "/usr/sbin/mkfs.ext4", "echo 'no such luck' >&2; exit 3", || {
            let text = refused(host, "create s -o size=16M");
            assert!(text.contains("`mkfs.ext4` failed") && text.contains("no such luck"), "{text}");
        });
        replaced(host, "/usr/sbin/mkfs.ext4", "exit 0", || {
            let text = refused(host, "create s -o size=16M");
            assert!(text.contains("left no file system"), "{text}");
        });
        converged(host, &before, "after a failed mkfs");
        run(host, "create s -o size=16M");
    });
}

#[test]
fn an_mkfs_that_hangs_is_ended_with_all_that_it_started() {
    volume_test(|host| {
        let before = Snapshot::of(host);
        replaced(host, "/usr/sbin/mkfs.ext4", "echo still at it; sleep 1000 & sleep 1000", || {
            let started = Instant::now();
            let ran = volume(host, "create s -o size=16M").env("BERTH_TOOL_TIMEOUT", "1").output();
            assert!(ran.stderr.contains("was killed after 1 s: still at it"), "{ran}");
            assert!(started.elapsed() < Duration::from_secs(30));
        });
        assert!(host.processes().is_empty(), "{:?}", host.processes());
        converged(host, &before, "after a hanging mkfs");
    });
}

#[test]
fn a_tool_is_found_by_no_search_path_and_sees_no_environment() {
    volume_test(|host| {
        let trojan = dir(host, "trojan");
        let script = "#!/bin/sh\ntouch /run/trojan-ran\n";
        for tool in ["mkfs.ext4", "mount", "losetup", "umount"] {
            fs::write(trojan.join(tool), script).unwrap();
        }
        host.run(&format!("chmod 755 {}/*", trojan.display()));
        volume(host, "create s -o size=16M")
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", trojan.display()))
            .env("LD_PRELOAD", "/nonexistent.so")
            .env("MKE2FS_CONFIG", trojan.join("mkfs.ext4"))
            .run();
        host.run("test ! -e /run/trojan-ran");
    });
}

#[test]
fn a_size_larger_than_the_disk_is_refused_before_anything_is_taken() {
    volume_test(|host| {
        let before = Snapshot::of(host);
        for options in ["-o size=900T", "-o size=7P"] {
            let text = refused(host, &format!("create s {options}"));
            assert!(text.contains("are needed on") && text.contains("are available"), "{text}");
        }
        converged(host, &before, "after a size that does not fit");
    });
}

/// The host's state directory on a file system of its own, of 40 MiB.
fn small_disk(host: &Host) {
    let state = host.state_dir();
    host.run(&format!("mount -t tmpfs -o size=40M,nr_inodes=2000 state {}", state.display()));
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_half_made() {
    volume_test(|host| {
        small_disk(host);
        run(host, "create v");
        let data = volumes_dir(host).join("v/_data");
        host.run(&format!("head -c 9M /dev/urandom > {}/file", data.display()));
        let text = refused(host, "create s -o size=64M");
        assert!(text.contains("are needed on"), "{text}");
        run(host, "create s -o size=8M");
        // The clone does not fit, and neither does the import.
        host.run(&format!("head -c 20M /dev/zero > {}/fill", host.state_dir().display()));
        let archive = host.dir().join("v.tar");
        run(host, &format!("export v --file {}", archive.display()));
        for line in ["clone v w".to_owned(), format!("import w {}", archive.display())] {
            let text = refused(host, &line);
            assert!(text.contains("No space left") || text.contains("no space left"), "{line}: {text}");
            assert!(!exists(host, "w") && !volumes_dir(host).join("w").exists(), "{line}");
            assert!(!volumes_dir(host).join(".trash").exists());
        }
        // Full to the last byte: what is there is listed, used and removed.
        let fill = format!("cat /dev/zero > {}/fill2 2>/dev/null || true", host.state_dir().display());
        host.run(&fill);
        let text = refused(host, "create another");
        assert!(text.contains("space left"), "{text}");
        assert!(exists(host, "v") && !exists(host, "another"));
        host.run(&format!("rm {0}/fill {0}/fill2", host.state_dir().display()));
        run(host, "create another");
        for name in ["v", "s", "another"] {
            run(host, &format!("rm --yes {name}"));
        }
        fs::remove_file(archive).unwrap();
        host.run(&format!("umount {}", host.state_dir().display()));
    });
}
