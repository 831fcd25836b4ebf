//! Data that is not berth's is never touched, and data that is is never taken for something else.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Canary, dir, exists, refused, run, volume, volume_test, volumes_dir};

#[test]
fn names_that_lead_somewhere_are_refused_and_nothing_is_made() {
    volume_test(|host| {
        let canary = Canary::new(host);
        let before = canary.text(host);
        run(host, "create v");
        let long = "x".repeat(300);
        for name in [
            "..",
            ".",
            "/",
            "../canary",
            "a/b",
            "a/../../canary",
            ".trash",
            "-x",
            "a b",
            "ü",
            "a\n",
            "v/_data",
            &long,
        ] {
            for words in [
                &["create"][..],
                &["rm", "--yes"],
                &["inspect"],
                &["rename", "v"],
                &["clone", "v"],
                &["import"],
            ] {
                let ran = host
                    .berth(std::iter::once("volume").chain(words.iter().copied()))
                    .arg("--")
                    .arg(name)
                    .output();
                assert_eq!(ran.code(), Some(2), "{words:?} {name:?}: {ran}");
            }
        }
        let ran = host.berth(["volume", "create", ""]).output();
        assert_eq!(ran.code(), Some(2), "{ran}");
        assert_eq!(canary.text(host), before);
        assert_eq!(fs::read_dir(volumes_dir(host)).unwrap().count(), 1);
    });
}

#[test]
fn removal_follows_no_link_and_enters_no_mount() {
    volume_test(|host| {
        let canary = Canary::new(host);
        let before = canary.text(host);
        run(host, "create v");
        let data = volumes_dir(host).join("v/_data");
        symlink(canary.path(), data.join("link")).unwrap();
        symlink("/", data.join("root")).unwrap();
        fs::create_dir_all(data.join("a/b/c")).unwrap();
        symlink("../../../../../../canary", data.join("a/b/c/up")).unwrap();
        // A mount of the host's data in the volume: nothing is deleted before it is gone.
        host.run(&format!("mkdir {0}/m && mount --bind {1} {0}/m", data.display(), canary.path().display()));
        let text = refused(host, "rm --yes v");
        assert!(text.contains("is mounted there"), "{text}");
        assert!(data.join("a/b/c").exists() && exists(host, "v"));
        host.run(&format!("umount {}/m", data.display()));
        run(host, "rm --yes v");
        assert_eq!(canary.text(host), before);
    });
}

#[test]
fn a_mount_that_somebody_put_over_berths_own_is_seen_and_left_alone() {
    volume_test(|host| {
        let canary = Canary::new(host);
        let before = canary.text(host);
        let target = dir(host, "target");
        for (name, options, point) in [
            ("d", String::new(), "_data"),
            ("s", "-o size=16M".to_owned(), "fs"),
            ("t", "-o type=tmpfs -o size=1M".to_owned(), "_data"),
            ("b", format!("-o type=none -o o=bind -o device={}", dir(host, "srv").display()), "_data"),
        ] {
            run(host, &format!("create {name} {options}"));
            let point = volumes_dir(host).join(name).join(point);
            host.run(&format!("mount --bind {} {}", canary.path().display(), point.display()));
            for line in [
                format!("mount {name} {}", target.display()),
                format!("rm --yes {name}"),
                format!("export {name} --file {}/x.tar", host.dir().display()),
            ] {
                let text = refused(host, &line);
                assert!(text.contains("mounted"), "{line}: {text}");
            }
            host.run(&format!("umount {}", point.display()));
            run(host, &format!("mount {name} {}", target.display()));
            if name != "d" {
                // Over a mount of berth's.
                host.run(&format!("mount --bind {} {}", canary.path().display(), point.display()));
                assert!(refused(host, &format!("unmount {name}")).contains("mounted over it"));
                host.run(&format!("umount {}", point.display()));
            }
            run(host, &format!("unmount {name}"));
            run(host, &format!("rm --yes {name}"));
        }
        assert_eq!(canary.text(host), before);
    });
}

#[test]
fn a_volumes_directory_that_was_replaced_by_a_link_is_not_followed() {
    volume_test(|host| {
        let canary = Canary::new(host);
        let before = canary.text(host);
        run(host, "create v");
        let (own, aside) = (volumes_dir(host).join("v"), host.dir().join("aside"));
        for (from, to) in [(own.clone(), aside.clone()), (own.join("_data"), aside.join("data"))] {
            if to == aside.join("data") {
                fs::create_dir(&aside).unwrap();
            }
            fs::rename(&from, &to).unwrap();
            symlink(canary.path(), &from).unwrap();
            for line in ["mount v /mnt", "export v --file /run/x.tar", "clone v w"] {
                let text = refused(host, line);
                assert!(text.contains("not a directory") || text.contains("cannot open"), "{line}: {text}");
            }
            fs::remove_file(&from).unwrap();
            fs::rename(&to, &from).unwrap();
        }
        fs::remove_dir(aside).unwrap();
        assert_eq!(canary.text(host), before);
        assert!(!exists(host, "w"));
    });
}

#[test]
fn a_path_that_a_container_turns_into_a_link_leads_nowhere() {
    volume_test(|host| {
        let canary = Canary::new(host);
        let before = canary.text(host);
        let shared = dir(host, "shared");
        let (path, real, target) = (shared.join("data"), shared.join("real"), dir(host, "target"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("own"), "").unwrap();
        run(host, &format!("create b -o type=none -o o=bind -o device={}", path.display()));
        fs::rename(&path, &real).unwrap();
        symlink(canary.path(), &path).unwrap();
        let text = refused(host, &format!("mount b {}", target.display()));
        assert!(text.contains("has become a symbolic link"), "{text}");
        // The two change places as fast as they can: whatever is mounted is the directory.
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(rustix::fs::CWD, &path, rustix::fs::CWD, &real, flags).unwrap();
                }
            });
            let mut mounted = 0;
            for _ in 0..60 {
                if volume(host, &format!("mount b {}", target.display())).output().status.success() {
                    assert_eq!(host.run(&format!("ls {}", target.display())), "own");
                    mounted += 1;
                    host.run(&format!(
                        "umount {0}; umount {1} || true",
                        target.display(),
                        volumes_dir(host).join("b/_data").display()
                    ));
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(mounted > 0, "the race was never won");
        });
        // Whichever is which now.
        if path.is_symlink() {
            fs::remove_file(&path).unwrap();
            fs::rename(&real, &path).unwrap();
        } else {
            fs::remove_file(&real).unwrap();
        }
        assert_eq!(canary.text(host), before);
    });
}

#[test]
fn an_image_that_is_not_as_berth_left_it_is_refused_with_what_was_expected_and_found() {
    volume_test(|host| {
        let target = dir(host, "target");
        run(host, "create s -o size=16M");
        run(host, "create other -o size=16M");
        let image = volumes_dir(host).join("s/image");
        let kept = host.dir().join("kept");
        let cases: [(&str, &str, &str); 6] = [
            ("truncate -s 8M IMAGE", "16777216 bytes", "8388608 bytes"),
            ("truncate -s 20M IMAGE", "16777216 bytes", "20971520 bytes"),
            ("rm IMAGE && cp OTHER IMAGE", "file system", "ext4"),
            ("rm IMAGE && truncate -s 16M IMAGE", "file system", "no file system"),
            ("rm IMAGE", "an image", "nothing"),
            ("rm IMAGE && ln -s OTHER IMAGE", "an image", "a symbolic link"),
        ];
        for (damage, expected, found) in cases {
            fs::copy(&image, &kept).unwrap();
            let other = volumes_dir(host).join("other/image");
            host.run(
                &damage
                    .replace("IMAGE", &image.display().to_string())
                    .replace("OTHER", &other.display().to_string()),
            );
            let text = refused(host, &format!("mount s {}", target.display()));
            assert!(text.contains("is not as berth left it"), "{damage}: {text}");
            assert!(
                text.contains(&format!("expected {expected}")) && text.contains(&format!("found {found}")),
                "{damage}: {text}"
            );
            assert!(!host.run("losetup -a").contains(image.to_str().unwrap()));
            let _ = fs::remove_file(&image);
            fs::rename(&kept, &image).unwrap();
        }
        run(host, &format!("mount s {}", target.display()));
        run(host, "unmount s");
        // Damaged inside, where it was right outside: the kernel refuses, and nothing is formatted.
        host.run(&format!(
            "dd if=/dev/urandom of={} bs=1k seek=2 count=2000 conv=notrunc status=none",
            image.display()
        ));
        let ran = volume(host, &format!("mount s {}", target.display())).output();
        assert!(!ran.status.success() && ran.stderr.contains("cannot mount ext4"), "{ran}");
    });
}

#[test]
fn data_that_no_record_knows_is_never_touched() {
    volume_test(|host| {
        let lost = volumes_dir(host).join("lost/_data");
        fs::create_dir_all(&lost).unwrap();
        fs::write(lost.join("file"), "somebody's").unwrap();
        let text = refused(host, "create lost");
        assert!(text.contains("it has data that no record knows"), "{text}");
        assert!(refused(host, "rm --yes lost").contains("there is no volume"));
        run(host, "create v");
        assert!(refused(host, "rename v lost").contains("data that no record knows"));
        host.gc();
        assert_eq!(fs::read_to_string(lost.join("file")).unwrap(), "somebody's");
        fs::remove_dir_all(lost.parent().unwrap()).unwrap();
    });
}

#[test]
fn missing_data_is_told_and_not_made_anew() {
    volume_test(|host| {
        run(host, "create v");
        let data = volumes_dir(host).join("v/_data");
        fs::remove_dir(&data).unwrap();
        let text = refused(host, "mount v /mnt");
        assert!(text.contains("is missing") && !data.exists(), "{text}");
        fs::remove_dir(data.parent().unwrap()).unwrap();
        assert!(refused(host, "mount v /mnt").contains("is missing"));
        run(host, "rm --yes v");
    });
}

#[test]
fn a_files_written_where_a_mount_belongs_are_kept() {
    volume_test(|host| {
        let srv = dir(host, "srv");
        run(host, &format!("create b -o type=none -o o=bind -o device={}", srv.display()));
        let stray = volumes_dir(host).join("b/_data/stray");
        fs::write(&stray, "while nothing was mounted").unwrap();
        let text = refused(host, "rm --yes b");
        assert!(text.contains("`stray` was written there while nothing was mounted"), "{text}");
        assert!(stray.exists());
        fs::remove_file(&stray).unwrap();
        run(host, "rm --yes b");
    });
}
