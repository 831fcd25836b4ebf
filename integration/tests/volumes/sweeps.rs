//! A call is killed at each of its system calls in turn, or each of them fails: afterwards every call still works, data that was
//! there is there, and nothing is left over.

use std::fs;
use std::path::Path;

use berth_integration::{Fault, Host, sweep};
use berth_volume_core::{attached_loops, mount_table};

use crate::{Canary, dir, exists, run, volume, volume_test, volumes_dir};

/// Sets of calls by which a call changes something, swept apart so that tests run side by side.
const NAMES: &[&str] =
    &["mkdir", "mkdirat", "rename", "renameat2", "unlink", "unlinkat", "linkat", "symlinkat", "mknodat"];
const FILES: &[&str] =
    &["openat2", "fallocate", "ftruncate", "fchmod", "fchown", "flock", "ioctl", "copy_file_range"];
const MOUNTS: &[&str] = &["mount", "umount2", "statfs", "fstatfs", "pidfd_open"];
const SYNCS: &[&str] = &["fsync", "fdatasync", "syncfs", "pwrite64"];

/// Runs one line of `berth volume` under every fault of a set.
struct Swept<'l> {
    /// What there is before, from nothing but `v`'s absence.
    before: &'l [&'l str],
    /// The call under fault.
    call: &'l str,
    /// The same again, and then until nothing of this test's is left.
    after: &'l [&'l str],
}

fn words(host: &Host, line: &str) -> String {
    line.replace("TARGET", &dir(host, "target").display().to_string())
        .replace("ARCHIVE", &host.dir().join("archive.tar").display().to_string())
        .replace("OUT", &host.dir().join("out.tar").display().to_string())
}

fn swept(fault: Fault, syscalls: &[&str], Swept { before, call, after }: Swept<'_>) {
    volume_test(|host| {
        let canary = Canary::new(host);
        let intact = canary.text(host);
        run(host, "create seed");
        fs::write(volumes_dir(host).join("seed/_data/file"), "seed").unwrap();
        run(host, &words(host, "export seed --file ARCHIVE"));
        dir(host, "target");
        let clean = traces(host);
        let faults = sweep(host, fault, syscalls, |injection| {
            let what = || format!("{call}, fault {} at `{}`", injection.when(), injection.hit());
            for line in before {
                must(host, line, &what);
            }
            volume(host, &words(host, call)).inject(injection).output();
            // Half of the time somebody tries again, half of the time nobody does and berth collects.
            if injection.when() % 2 == 0 {
                volume(host, &words(host, call)).output();
            } else {
                host.gc();
            }
            assert!(exists(host, "seed"), "{}", what());
            for line in after {
                let ran = volume(host, &words(host, line)).output();
                // What may be gone already is said to be, and nothing else goes wrong.
                let gone = ran.stderr.contains("there is no volume") || ran.stderr.contains("exists");
                assert!(ran.status.success() || gone, "{}: then `{line}`: {ran}", what());
            }
            host.gc();
            let _ = fs::remove_file(host.dir().join("out.tar"));
            assert_eq!(traces(host), clean, "{}", what());
        });
        assert!(faults > 0, "no call of {syscalls:?} was hit");
        assert_eq!(fs::read_to_string(volumes_dir(host).join("seed/_data/file")).unwrap(), "seed");
        assert_eq!(canary.text(host), intact);
        fs::remove_file(host.dir().join("archive.tar")).unwrap();
    });
}

/// What a call about volumes can leave: files, mounts, loop devices. The whole host is compared once, at the end.
fn traces(host: &Host) -> Vec<String> {
    let mut lines = host.inside(|| {
        let mut lines: Vec<String> =
            mount_table().unwrap().iter().map(|m| format!("{} on {:?}", m.fstype, m.target)).collect();
        list(&volumes_dir(host), &mut lines);
        list(&host.dir().join("target"), &mut lines);
        lines
    });
    let own = attached_loops().unwrap().into_iter().filter(|info| info.backing_file.starts_with(host.dir()));
    lines.extend(own.map(|info| format!("loop {:?}", info.backing_file)));
    lines.sort();
    lines
}

fn list(dir: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        let meta = entry.metadata().unwrap();
        lines.push(format!("{:?} {}", entry.path(), if meta.is_dir() { 0 } else { meta.len() }));
        if meta.is_dir() {
            list(&entry.path(), lines);
        }
    }
}

#[track_caller]
fn must(host: &Host, line: &str, what: &dyn Fn() -> String) {
    let ran = volume(host, &words(host, line)).output();
    assert!(ran.status.success(), "{}: before it `{line}`: {ran}", what());
}

const CREATE: Swept<'_> = Swept {
    before: &[],
    call: "create v -o uid=3",
    after: &["create v -o uid=3", "mount v TARGET", "unmount v", "rm --yes v"],
};
const CREATE_SIZED: Swept<'_> = Swept {
    before: &[],
    call: "create v -o size=8M",
    after: &["create v -o size=8M", "mount v TARGET", "unmount v", "rm --yes v"],
};
const MOUNT: Swept<'_> =
    Swept { before: &["create v -o size=8M"], call: "mount v TARGET", after: &["unmount v", "rm --yes v"] };
const UNMOUNT: Swept<'_> = Swept {
    before: &["create v -o size=8M", "mount v TARGET"],
    call: "unmount v",
    after: &["unmount v", "rm --yes v"],
};
const REMOVE: Swept<'_> = Swept {
    before: &["import v ARCHIVE"],
    call: "rm --yes v",
    after: &["rm --yes v", "create v", "rm --yes v"],
};
const CLONE: Swept<'_> = Swept {
    before: &[],
    call: "clone seed v",
    after: &["clone seed v", "export v --file OUT", "rm --yes v"],
};
const IMPORT: Swept<'_> = Swept {
    before: &[],
    call: "import v ARCHIVE",
    after: &["import v ARCHIVE", "export v --file OUT", "rm --yes v"],
};
const EXPORT: Swept<'_> = Swept { before: &[], call: "export seed --file OUT", after: &[] };
const RENAME: Swept<'_> = Swept {
    before: &["clone seed v"],
    call: "rename v w",
    after: &["rename v w", "mount w TARGET", "unmount w", "export w --file OUT", "rm --yes w", "rm --yes v"],
};

macro_rules! sweeps {
    ($($name:ident: $call:expr, $fault:expr, $set:expr;)*) => {
        $(
            #[test]
            fn $name() {
                swept($fault, $set, $call);
            }
        )*
    };
}

sweeps! {
    a_create_killed_at_any_name: CREATE, Fault::Kill, NAMES;
    a_create_killed_at_any_file: CREATE, Fault::Kill, FILES;
    a_create_killed_at_any_write: CREATE, Fault::Kill, SYNCS;
    a_create_whose_disk_is_full_at_any_write: CREATE, Fault::Error("ENOSPC"), SYNCS;
    a_create_whose_disk_is_full_at_any_name: CREATE, Fault::Error("ENOSPC"), NAMES;
    a_create_whose_files_do_not_open: CREATE, Fault::Error("EIO"), FILES;
    a_sized_create_killed_at_any_name: CREATE_SIZED, Fault::Kill, NAMES;
    a_sized_create_killed_at_any_file: CREATE_SIZED, Fault::Kill, FILES;
    a_sized_create_killed_at_any_sync: CREATE_SIZED, Fault::Kill, &["fsync", "fdatasync", "execve", "clone3", "pidfd_open", "poll", "wait4", "waitid"];
    a_sized_create_whose_disk_is_full_at_any_file: CREATE_SIZED, Fault::Error("ENOSPC"), &["fallocate", "fsync", "fdatasync", "mkdirat", "renameat2"];
    a_sized_create_whose_tool_does_not_start: CREATE_SIZED, Fault::Error("ENOMEM"), &["clone3", "memfd_create", "pidfd_open", "execve"];
    a_mount_killed_at_any_name: MOUNT, Fault::Kill, NAMES;
    a_mount_killed_at_any_file: MOUNT, Fault::Kill, FILES;
    a_mount_killed_at_any_mount: MOUNT, Fault::Kill, MOUNTS;
    a_mount_killed_at_any_write: MOUNT, Fault::Kill, SYNCS;
    a_mount_whose_mounts_fail: MOUNT, Fault::Error("EPERM"), MOUNTS;
    a_mount_whose_devices_fail: MOUNT, Fault::Error("EIO"), &["ioctl", "openat", "openat2"];
    an_unmount_killed_at_any_file: UNMOUNT, Fault::Kill, FILES;
    an_unmount_killed_at_any_mount: UNMOUNT, Fault::Kill, MOUNTS;
    an_unmount_killed_at_any_write: UNMOUNT, Fault::Kill, SYNCS;
    an_unmount_that_fails: UNMOUNT, Fault::Error("EIO"), &["umount2", "ioctl", "openat"];
    a_removal_killed_at_any_name: REMOVE, Fault::Kill, NAMES;
    a_removal_killed_at_any_file: REMOVE, Fault::Kill, FILES;
    a_removal_killed_at_any_write: REMOVE, Fault::Kill, SYNCS;
    a_removal_that_fails_at_any_name: REMOVE, Fault::Error("EIO"), NAMES;
    a_removal_whose_disk_is_full: REMOVE, Fault::Error("ENOSPC"), SYNCS;
    a_clone_killed_at_any_name: CLONE, Fault::Kill, NAMES;
    a_clone_killed_at_any_file: CLONE, Fault::Kill, FILES;
    a_clone_killed_at_any_write: CLONE, Fault::Kill, SYNCS;
    a_clone_whose_disk_is_full: CLONE, Fault::Error("ENOSPC"), &["ftruncate", "copy_file_range", "mkdirat", "fsync", "fdatasync", "syncfs", "pwrite64"];
    an_import_killed_at_any_name: IMPORT, Fault::Kill, NAMES;
    an_import_killed_at_any_file: IMPORT, Fault::Kill, FILES;
    an_import_killed_at_any_write: IMPORT, Fault::Kill, SYNCS;
    an_import_whose_disk_is_full: IMPORT, Fault::Error("ENOSPC"), SYNCS;
    an_export_killed_at_any_file: EXPORT, Fault::Kill, FILES;
    an_export_killed_at_any_write: EXPORT, Fault::Kill, SYNCS;
    an_export_whose_disk_is_full: EXPORT, Fault::Error("ENOSPC"), SYNCS;
    a_rename_killed_at_any_name: RENAME, Fault::Kill, NAMES;
    a_rename_killed_at_any_write: RENAME, Fault::Kill, SYNCS;
    a_rename_that_fails_at_any_name: RENAME, Fault::Error("EIO"), NAMES;
}
