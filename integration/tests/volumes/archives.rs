//! Exports and imports: everything is kept, what is damaged is refused, and an interrupted one leaves nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use berth_integration::Host;
use rustix::process::Signal;

use crate::changes::{EVERYTHING, everything_about};
use crate::{Canary, dir, exists, inspect, json, refused, run, volume, volume_test, volumes_dir};

/// A volume with something of everything in it, mounted on `one`.
fn full(host: &Host) -> std::path::PathBuf {
    let one = dir(host, "one");
    run(host, "create v -o uid=5");
    run(host, &format!("mount v {}", one.display()));
    host.line(&format!("cd {} && {{ {EVERYTHING} }}", one.display())).run();
    one
}

#[test]
fn a_volume_comes_back_from_an_archive_as_it_was() {
    volume_test(|host| {
        let (one, two) = (full(host), dir(host, "two"));
        let before = everything_about(host, &one);
        for (options, suffix) in [("", "tar"), ("--zstd", "tar.zst")] {
            let archive = host.dir().join(format!("v.{suffix}"));
            run(host, &format!("export v {options} --file {}", archive.display()));
            assert!(fs::metadata(&archive).unwrap().len() < 200_000, "the hole was written out");
            let said = run(host, &format!("import w {}", archive.display()));
            assert!(said.contains("its checksum is right"), "{said}");
            assert_eq!(inspect(host, "w")["options"]["uid"], "5", "made as the one it is of");
            run(host, &format!("mount w {}", two.display()));
            assert_eq!(everything_about(host, &two), before);
            assert!(fs::metadata(volumes_dir(host).join("w/_data/dir/hole")).unwrap().blocks() < 100);
            run(host, "unmount w");
            run(host, "rm --yes w");
            // Into a file system of its own, and through pipes.
            let cat = format!("cat {} | \"$0\" volume import w -o size=64M", archive.display());
            host.line(&cat).arg(berth_integration::berth_binary()).run();
            run(host, &format!("mount w {}", two.display()));
            assert_eq!(everything_about(host, &two), before);
            run(host, "unmount w");
            run(host, "rm --yes w");
        }
        run(host, "unmount v");
        host.line(&format!(
            "\"$0\" volume export v | \"$0\" volume import w && \"$0\" volume export v | cmp - {}",
            host.dir().join("v.tar").display()
        ))
        .arg(berth_integration::berth_binary())
        .run();
        host.run(&format!("rm {0}/v.tar {0}/v.tar.zst", host.dir().display()));
    });
}

#[test]
fn every_tar_reads_an_export_and_berth_reads_every_tar() {
    volume_test(|host| {
        let (one, two) = (full(host), dir(host, "two"));
        let before = everything_about(host, &one);
        let archive = host.dir().join("v.tar");
        run(host, &format!("export v --file {}", archive.display()));
        let gnu = host
            .line(&format!(
                "tar --xattrs --xattrs-include='*' --numeric-owner -xpf {} -C {}",
                archive.display(),
                two.display()
            ))
            .output();
        assert!(gnu.status.success(), "{gnu}");
        // GNU tar has no time before 1970 in the header itself; from the extended header it takes all.
        assert_eq!(everything_about(host, &two), before);
        fs::remove_file(&archive).unwrap();
        for format in ["--format=gnu", "--format=pax --xattrs --xattrs-include='*'"] {
            host.run(&format!(
                "tar --numeric-owner --sparse {format} -C {} -cf {} .",
                one.display(),
                archive.display()
            ));
            let said = run(host, &format!("import w {}", archive.display()));
            assert!(said.contains("was not checked"), "{said}");
            for file in ["dir/file", "dir/hole", "dir/deep/another-name", "dir/null", "dir/link", "dir/old"] {
                let about = |top: &Path| {
                    host.run(&format!(
                        "cd {} && stat -c '%n %F %a %u %g %s %h' {file} && readlink {file} || true",
                        top.display()
                    ))
                };
                let data = volumes_dir(host).join("w/_data");
                assert_eq!(about(&data), about(&one), "{format}");
            }
            run(host, "rm --yes w");
            fs::remove_file(&archive).unwrap();
        }
        // What docker's own volumes are saved with.
        host.run(&format!("busybox tar -C {} -cf {} dir/file dir/link", one.display(), archive.display()));
        run(host, &format!("import w {}", archive.display()));
        assert_eq!(fs::read_to_string(volumes_dir(host).join("w/_data/dir/file")).unwrap(), "contents\n");
        fs::remove_file(&archive).unwrap();
        run(host, "unmount v");
        host.run(&format!("rm -r {}", two.display()));
    });
}

#[test]
fn an_archive_that_was_cut_off_or_changed_makes_no_volume() {
    volume_test(|host| {
        let archive = host.dir().join("v.tar");
        run(host, "create v");
        host.run(&format!(
            "cd {} && seq 20000 > a && seq 30000 > b && mkdir c && seq 99 > c/d",
            volumes_dir(host).join("v/_data").display()
        ));
        run(host, &format!("export v --file {}", archive.display()));
        let whole = fs::read(&archive).unwrap();
        let damaged = host.dir().join("damaged.tar");
        let check = |bytes: &[u8], what: &str| {
            fs::write(&damaged, bytes).unwrap();
            let text = refused(host, &format!("import w {}", damaged.display()));
            assert!(text.contains("the archive cannot be imported"), "{what}: {text}");
            assert!(!exists(host, "w") && !volumes_dir(host).join("w").exists(), "{what}");
        };
        for length in [
            0,
            1,
            511,
            512,
            700,
            1024,
            5000,
            whole.len() / 2,
            whole.len() - 2048,
            whole.len() - 1536,
            whole.len() - 1500,
        ] {
            check(&whole[..length], &format!("the first {length} bytes"));
        }
        for place in (600..whole.len() - 2100).step_by(whole.len() / 40) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x20;
            check(&bytes, &format!("byte {place} changed"));
        }
        check(b"not an archive, but long enough to be looked at as one\n".repeat(40).as_slice(), "a text");
        host.run(&format!("zstd -q {0} -o {1}", archive.display(), host.dir().join("v.zst").display()));
        let zst = fs::read(host.dir().join("v.zst")).unwrap();
        check(&zst[..zst.len() - 20], "a cut compressed one");
        host.run(&format!("cd {} && rm v.tar damaged.tar v.zst", host.dir().display()));
    });
}

#[test]
fn an_archive_leads_nowhere_but_into_the_volume() {
    volume_test(|host| {
        let canary = Canary::new(host);
        let before = canary.text(host);
        let archive = host.dir().join("evil.tar");
        let outside = canary.path().display().to_string();
        // Each is a program for python's tarfile: `add(name, type, linkname, data)`.
        let cases = [
            ("add('../canary/file', REGTYPE, '', b'changed')", "leads out of the volume"),
            ("add('/etc/berth-evil', REGTYPE, '', b'changed')", "leads out of the volume"),
            ("add('a/../../canary/file', REGTYPE, '', b'changed')", "leads out of the volume"),
            (
                "add('link', SYMTYPE, OUT, b''); add('link/file', REGTYPE, '', b'changed')",
                "cannot make the directory",
            ),
            ("add('x', LNKTYPE, '../canary/file', b'')", "leads out of the volume"),
            (
                "add('link', SYMTYPE, OUT, b''); add('x', LNKTYPE, 'link/file', b'')",
                "cannot make the directory",
            ),
            (
                "add('d', DIRTYPE, '', b''); add('d', SYMTYPE, OUT, b''); add('d/file', REGTYPE, '', b'changed')",
                "as a directory and not as one",
            ),
            ("add('x', b'Z', '', b'')", "is not known"),
        ];
        for (script, words) in cases {
            let program = format!(
                "import tarfile, io\nfrom tarfile import TarInfo, REGTYPE, SYMTYPE, LNKTYPE, DIRTYPE\nOUT='{outside}'\nt = tarfile.open('{}', 'w')\n\
                 def add(name, kind, link, data):\n i = TarInfo(name); i.type = kind; i.linkname = link; i.size = len(data); t.addfile(i, io.BytesIO(data))\n{script}\nt.close()\n",
                archive.display()
            );
            host.cmd("python3").args(["-c", &program]).run();
            let text = refused(host, &format!("import w {}", archive.display()));
            assert!(text.contains(words), "{script}: {text}");
            assert!(!exists(host, "w"));
            assert_eq!(canary.text(host), before, "{script}");
        }
        // A link to the outside is kept as a link, and what it leads to is left alone.
        let program = format!(
            "import tarfile, io\nfrom tarfile import TarInfo, REGTYPE, SYMTYPE, LNKTYPE, DIRTYPE\nt = tarfile.open('{}', 'w')\ni = TarInfo('link'); i.type = SYMTYPE; i.linkname = '{outside}/file'; t.addfile(i)\n\
             i = TarInfo('link'); i.size = 3; t.addfile(i, io.BytesIO(b'new'))\nt.close()\n",
            archive.display()
        );
        host.cmd("python3").args(["-c", &program]).run();
        run(host, &format!("import w {}", archive.display()));
        assert_eq!(fs::read_to_string(volumes_dir(host).join("w/_data/link")).unwrap(), "new");
        assert_eq!(canary.text(host), before);
        fs::remove_file(archive).unwrap();
    });
}

#[test]
fn an_interrupted_export_or_import_leaves_nothing_half_made() {
    volume_test(|host| {
        run(host, "create v");
        let data = volumes_dir(host).join("v/_data");
        host.run(&format!("head -c 40M /dev/urandom > {}/a", data.display()));
        // A reader that stops: the pipe fills, and the export waits in the middle.
        let (archive, pipe) = (host.dir().join("v.tar"), host.dir().join("pipe"));
        host.run(&format!("mkfifo {}", pipe.display()));
        run(host, &format!("export v --file {}", archive.display()));
        let part = host.dir().join("part");
        host.run(&format!("head -c 20M {} > {}", archive.display(), part.display()));
        for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
            // One process that ends when it is killed: what it has written is all there is, and more never comes.
            let feed = format!("exec tail -c +1 -f {} > {}", part.display(), pipe.display());
            let feeder = host.cmd("sh").args(["-c", &feed]).spawn();
            let importing = volume(host, &format!("import w {}", pipe.display())).spawn();
            let begun = std::time::Instant::now();
            // It has begun when there is something of it.
            berth_integration::eventually(Duration::from_secs(10), || {
                let size =
                    fs::metadata(volumes_dir(host).join("w/_data/a")).map(|meta| meta.len()).unwrap_or(0);
                if size > 18 << 20 {
                    Ok(())
                } else {
                    Err(format!("{size} bytes after {:?}: {}", begun.elapsed(), importing.complaints()))
                }
            });
            assert!(!exists(host, "w"), "not seen before it is whole");
            let text = refused(host, "create w");
            assert!(text.contains("is just being made by process"), "{text}");
            importing.signal(signal);
            if signal != Signal::KILL {
                // It ends between two parts: the next one comes when the feeder goes.
                drop(feeder);
            }
            let ran = importing.wait(Duration::from_secs(20));
            assert!(!ran.status.success(), "{ran}");
            // Killed, it is taken back by whoever comes next.
            host.gc();
            assert!(!exists(host, "w") && !volumes_dir(host).join("w").exists(), "{signal:?}: {ran}");
        }
        fs::remove_file(&archive).unwrap();
        // An export that is killed leaves no file, for it has no name before it is whole.
        let mut exporting = volume(host, &format!("export v --file {}", archive.display())).spawn();
        exporting.kill();
        drop(exporting);
        let _ = fs::remove_file(&archive);
        let names: Vec<_> =
            fs::read_dir(host.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().contains("v.tar")), "{names:?}");
        run(host, &format!("export v --file {}", archive.display()));
        assert!(
            refused(host, &format!("export v --file {}", archive.display())).contains("never written over")
        );
        assert_eq!(inspect(host, "v")["users"].as_array().unwrap().len(), 0);
        host.run(&format!("cd {} && rm v.tar pipe part", host.dir().display()));
    });
}

#[test]
fn what_is_told_to_programs_is_json() {
    volume_test(|host| {
        run(host, "create v");
        let archive = host.dir().join("v.tar");
        let told = json(host, &format!("export v --json --file {}", archive.display()));
        assert_eq!(told["changed_files"], 0);
        let told = json(host, &format!("import w {} --json", archive.display()));
        assert_eq!((told["checked"].as_bool(), told["volume"].as_str()), (Some(true), Some("w")));
        assert_eq!(json(host, "clone w x --json")["new"], "x");
        assert_eq!(json(host, "df --json").as_array().unwrap().len(), 3);
        assert_eq!(run(host, "ls --quiet"), "v\nw\nx");
        fs::remove_file(archive).unwrap();
    });
}
