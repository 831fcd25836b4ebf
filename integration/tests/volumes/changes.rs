//! Renaming, resizing, cloning.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::{dir, exists, inspect, refused, run, volume_test, volumes_dir};

#[test]
fn a_volume_keeps_its_data_under_a_new_name() {
    volume_test(|host| {
        let target = dir(host, "target");
        for (name, options) in [("d", ""), ("s", "-o size=16M")] {
            run(host, &format!("create {name} {options}"));
            run(host, &format!("mount {name} {}", target.display()));
            host.run(&format!("echo {name} > {}/file", target.display()));
            assert!(refused(host, &format!("rename {name} new")).contains("in use"));
            run(host, &format!("unmount {name}"));
            run(host, &format!("rename {name} new"));
            assert!(!exists(host, name));
            run(host, &format!("mount new {}", target.display()));
            assert_eq!(host.run(&format!("cat {}/file", target.display())), name);
            run(host, "unmount new");
            run(host, "create taken");
            assert!(refused(host, "rename new taken").contains("`taken` exists"));
            run(host, "rm --yes new taken");
        }
        assert!(refused(host, "rename none other").contains("there is no volume"));
        run(host, "create same");
        assert!(refused(host, "rename same same").contains("exists"));
    });
}

#[test]
fn a_sized_volume_grows_while_it_is_used_and_never_shrinks() {
    for (first, second, third) in [("32M", "64M", "96M"), ("300M -o fs=xfs", "400M", "500M")] {
        volume_test(|host| {
            let target = dir(host, "target");
            run(host, &format!("create s -o size={first}"));
            run(host, &format!("mount s {}", target.display()));
            host.run(&format!("echo kept > {}/file", target.display()));
            let before = inspect(host, "s")["size"].as_u64().unwrap();
            // ext4 asks for CAP_SYS_RESOURCE while it is mounted, which not every root has: then it says so, and grows at rest.
            let ran = crate::volume(host, &format!("resize s {second}")).output();
            assert!(ran.status.success() || ran.stderr.contains("Permission denied"), "{ran}");
            assert_eq!(host.run(&format!("cat {}/file", target.display())), "kept");
            if !ran.status.success() {
                run(host, "unmount s");
                run(host, &format!("resize s {second}"));
                run(host, &format!("mount s {}", target.display()));
            }
            let after = inspect(host, "s")["size"].as_u64().unwrap();
            assert!(after > before * 5 / 4, "{before} then {after}");
            run(host, "unmount s");
            run(host, &format!("resize s {third}"));
            assert!(
                !host.run("cat /proc/self/mountinfo").contains("/s/fs "),
                "not mounted before, not mounted after"
            );
            let text = refused(host, &format!("resize s {second}"));
            assert!(text.contains("only made larger"), "{text}");
            assert!(refused(host, "resize s 900T").contains("are needed on"));
            run(host, &format!("mount s {}", target.display()));
            assert_eq!(host.run(&format!("cat {}/file", target.display())), "kept");
            assert!(inspect(host, "s")["size"].as_u64().unwrap() > after);
            assert_eq!(inspect(host, "s")["options"]["size"], third);
            run(host, "unmount s");
            let image = fs::metadata(volumes_dir(host).join("s/image")).unwrap();
            assert!(image.blocks() * 512 >= image.len(), "what it grew by is reserved too");
        });
    }
}

#[test]
fn a_tmpfs_takes_another_size_at_once_and_others_have_none() {
    volume_test(|host| {
        let target = dir(host, "target");
        run(host, "create t -o type=tmpfs -o o=size=1M,mode=1777");
        run(host, &format!("mount t {}", target.display()));
        host.run(&format!("echo kept > {}/file", target.display()));
        run(host, "resize t 4M");
        host.run(&format!("head -c 3M /dev/zero > {0}/big && cat {0}/file", target.display()));
        assert_eq!(inspect(host, "t")["size"], 4 << 20);
        run(host, "unmount t");
        run(host, &format!("mount t {}", target.display()));
        assert_eq!(inspect(host, "t")["size"], 4 << 20);
        run(host, "unmount t");
        run(host, "create d");
        let text = refused(host, "resize d 1G");
        assert!(text.contains("has no size of its own") && text.contains("clone"), "{text}");
        for size in ["0", "-1", "x", ""] {
            assert!(!host.berth(["volume", "resize", "t", "--", size]).output().status.success(), "{size:?}");
        }
    });
}

/// Something of every kind that a volume may hold.
pub(crate) const EVERYTHING: &str = "
    mkdir -p dir/deep/empty && chmod 2750 dir && chown 1000:1001 dir
    echo contents > dir/file && chmod 4711 dir/file && chown 7:8 dir/file && touch -d '2001-02-03 04:05:06.789012345' dir/file
    ln dir/file dir/deep/another-name && ln -s ../nowhere dir/link && ln -s /etc/passwd dir/absolute
    mkfifo dir/fifo && mknod dir/null c 1 3 && mknod dir/block b 7 200
    truncate -s 5M dir/hole && echo data | dd of=dir/hole bs=1 seek=3000000 conv=notrunc status=none
    truncate -s 300k dir/only-hole && : > dir/empty-file
    setfattr -n user.colour -v blue dir/file && setfattr -n trusted.secret -v 0x00ff01 dir/deep
    setfacl -m u:1234:rw dir/file && setfacl -d -m g:77:rx dir
    long=$(printf 'long%.0s' $(seq 60)) && mkdir -p $long/$long && echo long > $long/$long/$long && ln -s $long/$long/$long dir/long-link
    printf 'odd' > 'dir/ name with
a line, ünïcode and \"quotes\"' && touch -d '1969-01-02' dir/old && chown 4000000000:4000000001 dir/old
    touch -d '2002-03-04 05:06:07.5' dir/deep/empty dir/deep && touch -d '2003-01-01' dir .
";

/// All that is to be the same about a tree, in lines.
pub(crate) fn everything_about(host: &berth_integration::Host, path: &std::path::Path) -> String {
    let path = path.display();
    // A directory's own size and the order of names are the file system's affair.
    host.run(&format!(
        "cd {path} && find . ! -type d -printf '%p|%y|%m|%U|%G|%s|%T@|%n|%l\\n' | sort && find . -type d -printf '%p|%m|%U|%G|%T@\\n' | sort \
         && find . -type f -exec sha256sum {{}} + | sort && find . \\( -type c -o -type b \\) -exec stat -c '%n %t:%T' {{}} + | sort \
         && find . ! -type l -print0 | sort -z | xargs -0 getfacl -n && find . ! -type l -print0 | sort -z | xargs -0 getfattr -h -d -m -"
    ))
}

#[test]
fn a_clone_has_everything_and_is_another_volume() {
    volume_test(|host| {
        let (one, two) = (dir(host, "one"), dir(host, "two"));
        for (options, target) in
            [("", ""), ("-o size=64M", ""), ("-o size=64M", "-o uid=0"), ("", "-o size=64M")]
        {
            run(host, &format!("create v {options}"));
            run(host, &format!("mount v {}", one.display()));
            host.line(&format!("cd {} && {{ {EVERYTHING} }}", one.display())).run();
            let before = everything_about(host, &one);
            run(host, &format!("clone v w {target}"));
            run(host, &format!("mount w {}", two.display()));
            assert_eq!(everything_about(host, &two), before, "{options} to {target}");
            let blocks = host.run(&format!("stat -c %b {}/dir/hole", two.display()));
            assert!(blocks.parse::<u64>().unwrap() < 100, "the hole was filled: {blocks} blocks");
            host.run(&format!("rm -r {}/dir", two.display()));
            assert_eq!(everything_about(host, &one), before);
            run(host, "unmount v");
            run(host, "unmount w");
            run(host, "rm --yes v w");
        }
    });
}

#[test]
fn contents_are_shared_where_the_file_system_can() {
    volume_test(|host| {
        // The state directory on a btrfs of its own.
        let (image, state) = (host.dir().join("state.img"), host.state_dir());
        host.run(&format!(
            "truncate -s 300M {0} && mkfs.btrfs -q {0} && mount -o loop {0} {1}",
            image.display(),
            state.display()
        ));
        run(host, "create v");
        host.run(&format!(
            "head -c 60M /dev/urandom > {0}/file && sync -f {0}",
            volumes_dir(host).join("v/_data").display()
        ));
        let before = crate::free(&state);
        // Six copies would not fit.
        for number in 0..6 {
            run(host, &format!("clone v w{number}"));
        }
        // btrfs may have given back meanwhile what it had set aside for itself.
        assert!(before.saturating_sub(crate::free(&state)) < 30 << 20);
        host.run(&format!("cmp {0}/v/_data/file {0}/w5/_data/file", volumes_dir(host).display()));
        run(host, "rm --yes v w0 w1 w2 w3 w4 w5");
        host.run(&format!("umount {}", state.display()));
        fs::remove_file(image).unwrap();
    });
}

#[test]
fn a_clone_that_cannot_be_leaves_nothing() {
    volume_test(|host| {
        run(host, "create v");
        run(host, "create w");
        assert!(refused(host, "clone v w").contains("`w` exists"));
        assert!(refused(host, "clone v v").contains("exists"));
        assert!(refused(host, "clone none x").contains("there is no volume"));
        let text = refused(host, "clone v x -o type=tmpfs");
        assert!(text.contains("filling a new volume is not possible for a tmpfs volume"), "{text}");
        assert!(refused(host, "clone v x -o size=1").contains("too small"));
        host.run(&format!("head -c 20M /dev/zero > {}/big", volumes_dir(host).join("v/_data").display()));
        let text = refused(host, "clone v x -o size=8M");
        assert!(text.contains("No space left"), "{text}");
        assert!(!exists(host, "x") && !volumes_dir(host).join("x").exists());
    });
}
