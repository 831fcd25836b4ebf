//! Each kind of volume does what it is for.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use berth_integration::engine::Berthd;
use berth_integration::{Host, eventually};

use crate::{dir, exists, inspect, refused, run, volume_test, volumes_dir};

fn mounts(host: &Host) -> String {
    host.run("cat /proc/self/mountinfo")
}

#[test]
fn a_directory_has_its_owner_and_bits_and_goes_with_its_volume() {
    volume_test(|host| {
        assert_eq!(run(host, "create app -o uid=1000 -o gid=1001 -o mode=2750"), "app");
        let view = inspect(host, "app");
        let data = view["data"].as_str().unwrap().to_owned();
        assert_eq!((view["kind"].as_str(), view["mounted"].as_bool()), (Some("directory"), None));
        let meta = fs::metadata(&data).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1000, 1001, 0o2750));
        fs::write(format!("{data}/file"), vec![1; 300_000]).unwrap();
        assert!(inspect(host, "app")["used"].as_u64().unwrap() >= 300_000);
        // Idempotent with the same options, and told apart with others.
        run(host, "create app -o uid=1000 -o gid=1001 -o mode=2750");
        let text = refused(host, "create app -o uid=7");
        assert!(text.contains("uid is 1000, not 7"), "{text}");
        assert!(inspect(host, "app")["differs"].as_str().unwrap().contains("uid is 1000, not 7"));
        assert_eq!(fs::metadata(&data).unwrap().uid(), 1000);
        run(host, "rm --yes app");
        assert!(!exists(host, "app") && fs::metadata(&data).is_err());
    });
}

#[test]
fn the_default_is_as_dockers_whatever_the_umask() {
    volume_test(|host| {
        host.line("umask 077; exec \"$0\" volume create v").arg(berth_integration::berth_binary()).run();
        let meta = fs::metadata(volumes_dir(host).join("v/_data")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (0, 0, 0o755));
    });
}

#[test]
fn a_sized_volume_is_full_at_its_size_and_nothing_else_notices() {
    for options in ["-o size=64M", "-o size=300M -o fs=xfs"] {
        volume_test(|host| {
            let target = dir(host, "target");
            run(host, &format!("create db {options} -o uid=33 -o mode=0700"));
            let image = volumes_dir(host).join("db/image");
            let taken = || fs::metadata(&image).unwrap().blocks() * 512;
            let reserved = taken();
            let size = inspect(host, "db")["size"].as_u64().unwrap();
            assert!(reserved >= size, "{reserved} of {size} reserved");
            run(host, &format!("mount db {}", target.display()));
            let meta = host.run(&format!("stat -c '%u %a' {}", target.display()));
            assert_eq!(meta, "33 700");
            // An empty directory, for an engine fills only such a one.
            assert_eq!(host.run(&format!("ls -A {}", target.display())), "");
            let table = mounts(host);
            let own = table.lines().find(|line| line.contains("/db/fs ")).unwrap();
            assert!(own.contains("nosuid") && own.contains("nodev"), "{own}");
            let full = host.line(&format!("dd if=/dev/zero of={}/big bs=1M", target.display())).output();
            assert!(!full.status.success() && full.stderr.contains("No space left"), "{full}");
            let more = taken() - reserved;
            assert!(more < 1 << 20, "writing into the volume took {more} bytes more of the host");
            host.run(&format!("rm {0}/big && echo kept > {0}/file && sync -f {0}", target.display()));
            run(host, &format!("unmount db {}", target.display()));
            assert!(!mounts(host).contains("/db/fs "), "unmounted with its last user");
            run(host, &format!("mount db {} --read-only", target.display()));
            assert_eq!(host.run(&format!("cat {}/file", target.display())), "kept");
            assert!(
                host.line(&format!("touch {}/new", target.display())).output().stderr.contains("Read-only")
            );
            run(host, "unmount db");
        });
    }
}

#[test]
fn space_that_a_trim_gave_back_is_reserved_again() {
    volume_test(|host| {
        let target = dir(host, "target");
        run(host, "create db -o size=64M");
        let image = volumes_dir(host).join("db/image");
        let holes = || fs::metadata(&image).map(|meta| meta.blocks() * 512 < meta.len()).unwrap();
        // In the middle of what the file system does not use, as `fstrim` does it.
        let trim =
            || host.run(&format!("fallocate --punch-hole --offset 50M --length 8M {}", image.display()));
        trim();
        assert!(holes());
        run(host, &format!("mount db {}", target.display()));
        assert!(!holes(), "reserved by the next mount");
        trim();
        assert!(holes());
        let mut daemon = Berthd::beside_cni(host, &["--roles", "volumes"]);
        eventually(Duration::from_secs(10), || {
            if holes() { Err("the daemon has reserved nothing".to_owned()) } else { Ok(()) }
        });
        daemon.stop();
        host.run("rm -r /run/docker");
        run(host, "unmount db");
    });
}

#[test]
fn a_sparse_image_is_made_on_request_only() {
    volume_test(|host| {
        run(host, "create thin -o size=1G -o sparse=true");
        let meta = fs::metadata(volumes_dir(host).join("thin/image")).unwrap();
        assert!(meta.len() == 1 << 30 && meta.blocks() * 512 < 100 << 20, "{} blocks", meta.blocks());
    });
}

#[test]
fn a_bind_volume_is_the_path_itself_and_never_emptied() {
    volume_test(|host| {
        let (path, target) = (dir(host, "srv/data"), dir(host, "target"));
        fs::write(path.join("old"), "old").unwrap();
        run(host, &format!("create b -o type=none -o o=bind -o device={}", path.display()));
        run(host, &format!("mount b {}", target.display()));
        host.run(&format!("cat {0}/old && echo new > {0}/new", target.display()));
        assert_eq!(fs::read_to_string(path.join("new")).unwrap(), "new\n");
        let table = mounts(host);
        assert!(
            table
                .lines()
                .filter(|line| line.contains("nosuid") && line.contains("nodev"))
                .any(|line| line.contains("/b/_data ")),
            "{table}"
        );
        let text = refused(host, "rm --yes b");
        assert!(text.contains("in use by a mount on"), "{text}");
        run(host, "unmount b");
        run(host, "rm --yes b");
        assert_eq!(fs::read_to_string(path.join("old")).unwrap(), "old");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
    });
}

#[test]
fn a_bind_volume_may_be_read_only_and_its_directory_made() {
    volume_test(|host| {
        let (parent, target) = (dir(host, "srv"), dir(host, "target"));
        let path = parent.join("a/b");
        let options = format!("-o type=none -o device={}", path.display());
        assert!(refused(host, &format!("create b -o o=bind {options}")).contains("create=true"));
        run(host, &format!("create b -o o=bind,ro {options} -o create=true -o uid=5 -o mode=0711"));
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7777), (5, 0o711));
        run(host, &format!("mount b {}", target.display()));
        assert!(host.line(&format!("touch {}/x", target.display())).output().stderr.contains("Read-only"));
        fs::write(path.join("x"), "by the host").unwrap();
        run(host, "unmount b");
    });
}

#[test]
fn a_tree_of_mounts_is_bound_with_flags_on_all_of_it() {
    volume_test(|host| {
        let (path, target) = (dir(host, "srv"), dir(host, "target"));
        host.run(&format!(
            "mkdir {0}/inner && mount -t tmpfs inner {0}/inner && echo deep > {0}/inner/file",
            path.display()
        ));
        run(host, &format!("create t -o type=none -o o=rbind,ro,rslave -o device={}", path.display()));
        run(host, &format!("create u -o type=none -o o=bind -o device={}", path.display()));
        run(host, &format!("mount u {}", target.display()));
        assert_eq!(
            host.run(&format!("ls {}/inner", target.display())),
            "",
            "only the tree that was asked for"
        );
        run(host, "unmount u");
        // An engine's mount, for it hands on the volume's own.
        let data = volumes_dir(host).join("t/_data");
        run(host, &format!("mount t {}", target.display()));
        assert_eq!(host.run(&format!("cat {}/inner/file", data.display())), "deep");
        assert!(
            host.line(&format!("touch {}/inner/x", data.display())).output().stderr.contains("Read-only")
        );
        run(host, "unmount t");
        assert!(!mounts(host).contains("/t/_data"), "{}", mounts(host));
        host.run(&format!("umount {0}/inner && rmdir {0}/inner", path.display()));
    });
}

#[test]
fn a_tmpfs_is_capped_and_gone_with_its_last_user() {
    volume_test(|host| {
        let (one, two) = (dir(host, "one"), dir(host, "two"));
        run(host, "create t -o type=tmpfs -o o=size=1M,mode=1777,uid=7,nr_inodes=20,noexec");
        run(host, &format!("mount t {}", one.display()));
        run(host, &format!("mount t {}", two.display()));
        assert_eq!(host.run(&format!("stat -c '%u %a' {}", one.display())), "7 1777");
        host.run(&format!("echo shared > {}/file", one.display()));
        assert_eq!(host.run(&format!("cat {}/file", two.display())), "shared");
        let full = host.line(&format!("dd if=/dev/zero of={}/big bs=64k", one.display())).output();
        assert!(full.stderr.contains("No space left"), "{full}");
        host.run(&format!("rm {}/big", one.display()));
        let many = host.line(&format!("for i in $(seq 40); do : > {}/f$i; done", one.display())).output();
        assert!(!many.status.success() && many.stderr.contains("space"), "{many}");
        assert!(
            host.run("cat /proc/self/mountinfo")
                .lines()
                .any(|line| line.contains("/t/_data ") && line.contains("noexec"))
        );
        run(host, &format!("unmount t {}", one.display()));
        assert_eq!(host.run(&format!("cat {}/file", two.display())), "shared");
        run(host, &format!("unmount t {}", two.display()));
        run(host, &format!("mount t {}", one.display()));
        assert_eq!(host.run(&format!("ls {}", one.display())), "", "memory is gone with the last user");
        run(host, "unmount t");
        let all = refused(host, "create huge -o type=tmpfs -o size=900T");
        assert!(all.contains("900 TiB are needed on `memory`"), "{all}");
    });
}

#[test]
fn a_file_system_of_the_users_is_mounted_from_an_image_and_from_a_device() {
    for fs_name in ["ext4", "xfs", "btrfs"] {
        volume_test(|host| {
            let (target, image) = (dir(host, "target"), host.dir().join("disk.img"));
            let size = if fs_name == "ext4" { "32M" } else { "320M" };
            host.run(&format!("truncate -s {size} {0} && mkfs.{fs_name} -q {0}", image.display()));
            // As an image, and the same as a block device.
            run(host, &format!("create i -o type={fs_name} -o device={}", image.display()));
            run(host, &format!("mount i {}", target.display()));
            host.run(&format!("echo data > {}/file", target.display()));
            assert!(inspect(host, "i")["size"].as_u64().unwrap() > 10 << 20);
            run(host, "unmount i");
            run(host, "rm --yes i");
            let device = host.run(&format!("losetup --find --show {}", image.display()));
            run(host, &format!("create d -o type={fs_name} -o device={device} -o o=noatime"));
            run(host, &format!("create e -o type={fs_name} -o device={device}"));
            run(host, &format!("mount d {}", target.display()));
            assert_eq!(host.run(&format!("cat {}/file", target.display())), "data");
            // Two volumes on one device: removing one touches neither the other nor the data.
            run(host, "rm --yes e");
            assert_eq!(host.run(&format!("cat {}/file", target.display())), "data");
            run(host, "unmount d");
            run(host, "rm --yes d");
            host.run(&format!("losetup --detach {device}"));
            assert!(host.run(&format!("blkid -p {}", image.display())).contains(fs_name), "never emptied");
            fs::remove_file(image).unwrap();
        });
    }
}

#[test]
fn devices_that_cannot_be_are_refused_with_what_they_are() {
    volume_test(|host| {
        let at = |name: &str| host.dir().join(name).display().to_string();
        host.run(&format!("truncate -s 1M {}", at("empty.img")));
        host.run(&format!("truncate -s 16M {0} && mkfs.ext4 -q {0}", at("ext4.img")));
        host.run(&format!("truncate -s 16M {0} && mkswap -q {0}", at("swap.img")));
        host.run(&format!("mkdir {} && mkfifo {}", at("d"), at("fifo")));
        for (device, fs, words) in [
            (at("none.img"), "ext4", "no such file"),
            (at("d"), "ext4", "it is a directory"),
            (at("fifo"), "ext4", "neither a block device nor a file"),
            ("/dev/null".to_owned(), "ext4", "neither a block device nor a file"),
            (at("empty.img"), "ext4", "holds no file system, and berth formats no device"),
            (at("ext4.img"), "xfs", "it holds ext4, not xfs"),
            (at("swap.img"), "ext4", "it holds swap, not ext4"),
        ] {
            let text = refused(host, &format!("create v -o type={fs} -o device={device}"));
            assert!(text.contains(words), "{device}: {text}");
            assert!(!exists(host, "v"));
        }
        // Busy: somebody holds it for themselves alone.
        let device = host.run(&format!("losetup --find --show {}", at("ext4.img")));
        run(host, &format!("create v -o type=ext4 -o device={device}"));
        let target = dir(host, "target");
        host.run(&format!("mount -t ext4 -o ro {device} {}", target.display()));
        let other = dir(host, "other");
        let text = refused(host, &format!("mount v {}", other.display()));
        assert!(text.contains("busy") || text.contains("cannot mount"), "{text}");
        host.run(&format!("umount {}", target.display()));
        run(host, "rm --yes v");
        host.run(&format!("losetup --detach {device}"));
        host.run(&format!("cd {} && rm -r empty.img ext4.img swap.img d fifo", host.dir().display()));
    });
}
