//! Who uses a volume: counted, seen in the mount tables, and told by name when in the way.

use std::time::Duration;

use berth_integration::{Host, Proc, eventually};

use crate::{dir, exists, inspect, json, refused, run, volume, volume_test, volumes_dir};

/// A process with a mount namespace of its own, in which `source` is mounted on a place of its own: what a container is to a
/// volume.
fn container(host: &Host, source: &str) -> Proc {
    let target = dir(host, "in-container");
    let script = format!("mount --bind {source} {} && echo ready && exec sleep 100", target.display());
    let mut proc = host.cmd("unshare").args(["-m", "--propagation", "private", "sh", "-ec", &script]).spawn();
    assert_eq!(proc.wait_line(), "ready");
    proc
}

#[test]
fn a_volume_that_a_container_has_is_neither_removed_nor_unmounted() {
    for options in ["", "-o size=16M", "-o type=tmpfs -o size=1M"] {
        volume_test(|host| {
            run(host, &format!("create v {options}"));
            let target = dir(host, "target");
            run(host, &format!("mount v {}", target.display()));
            let data = inspect(host, "v")["data"].as_str().unwrap().to_owned();
            let mut user = container(host, &data);
            host.run(&format!("echo alive > {data}/file"));
            run(host, "unmount v");
            // Nobody is counted any more, and the container still has it.
            assert_eq!(inspect(host, "v")["users"].as_array().unwrap().len(), 0);
            let text = refused(host, "rm --yes v");
            assert!(text.contains("in use by process") && text.contains("sleep"), "{text}");
            assert!(refused(host, "rename v w").contains("in use by process"));
            run(host, &format!("mount v {}", target.display()));
            assert_eq!(host.run(&format!("cat {}/file", target.display())), "alive", "one and the same");
            run(host, "unmount v");
            user.kill();
            drop(user);
            eventually(Duration::from_secs(5), || {
                let ran = volume(host, "rm --yes v").output();
                if ran.status.success() { Ok(()) } else { Err(ran.to_string()) }
            });
        });
    }
}

#[test]
fn what_holds_a_mount_is_named_and_nothing_is_unmounted_behind_its_back() {
    volume_test(|host| {
        run(host, "create v -o size=16M");
        let target = dir(host, "target");
        run(host, &format!("mount v {}", target.display()));
        let data = inspect(host, "v")["data"].as_str().unwrap().to_owned();
        let script = format!("cd {data} && echo ready && exec sleep 100");
        let mut holder = host.cmd("sh").args(["-ec", &script]).spawn();
        holder.wait_line();
        let text = refused(host, "unmount v");
        assert!(
            text.contains("cannot be unmounted") && text.contains("its working directory is in it"),
            "{text}"
        );
        assert!(text.contains(&format!("process {}", holder.id())), "{text}");
        host.run(&format!("test -d {data}"));
        holder.kill();
        drop(holder);
        run(host, "unmount v");
        host.run(&format!("test ! -d {data}"));
    });
}

#[test]
fn a_mount_by_hand_that_is_gone_does_not_count_any_more() {
    volume_test(|host| {
        run(host, "create v");
        let target = dir(host, "target");
        run(host, &format!("mount v {}", target.display()));
        assert!(refused(host, "rm --yes v").contains("a mount on"));
        host.run(&format!("umount {}", target.display()));
        run(host, "rm --yes v");
    });
}

#[test]
fn mounting_and_unmounting_twice_is_told_and_harmless() {
    volume_test(|host| {
        run(host, "create v");
        let target = dir(host, "target");
        run(host, &format!("mount v {}", target.display()));
        let text = refused(host, &format!("mount v {}", target.display()));
        assert!(text.contains("is mounted there already"), "{text}");
        run(host, &format!("unmount v {}", target.display()));
        assert_eq!(run(host, &format!("unmount v {}", target.display())), "it is not mounted there");
        assert_eq!(json(host, "unmount v --json")["targets"].as_array().unwrap().len(), 0);
        // Somebody else's mount on the same place is not ours to take away.
        run(host, &format!("mount v {}", target.display()));
        host.run(&format!("mount -t tmpfs other {}", target.display()));
        run(host, "unmount v");
        host.run(&format!("findmnt -n -t tmpfs {}", target.display()));
        host.run(&format!("umount {0} && umount {0}", target.display()));
    });
}

#[test]
fn a_user_that_is_gone_can_be_forgotten_by_name() {
    volume_test(|host| {
        run(host, "create v");
        let text = refused(host, "unmount v --user nobody");
        assert!(text.contains("it is no user of it"), "{text}");
        let target = dir(host, "target");
        run(host, &format!("mount v {}", target.display()));
        run(host, &format!("unmount v --user {}", target.display()));
        assert_eq!(inspect(host, "v")["users"].as_array().unwrap().len(), 0);
        host.run(&format!("umount {}", target.display()));
    });
}

#[test]
fn prune_takes_what_nobody_uses_and_asks_first() {
    volume_test(|host| {
        let anonymous = run(host, "create");
        assert_eq!(anonymous.len(), 64);
        run(host, "create named");
        run(host, "create used");
        let target = dir(host, "target");
        run(host, &format!("mount used {}", target.display()));
        let text = refused(host, "prune");
        assert!(text.contains("there is nobody to ask") && text.contains("--yes"), "{text}");
        assert!(refused(host, "rm named").contains("there is nobody to ask"));
        assert_eq!(json(host, "prune --dry-run --json")["removed"].as_array().unwrap().len(), 1);
        assert!(exists(host, &anonymous));
        assert_eq!(run(host, "prune --yes"), format!("removed volume {anonymous}"));
        assert_eq!(run(host, "prune --all --yes"), "removed volume named");
        assert_eq!(run(host, "prune --all --yes"), "nothing to do");
        run(host, "unmount used");
    });
}

#[test]
fn a_restart_of_the_machine_forgets_users_and_keeps_data() {
    volume_test(|host| {
        for (name, options) in [("d", ""), ("s", "-o size=16M")] {
            run(host, &format!("create {name} {options}"));
            let target = dir(host, name);
            run(host, &format!("mount {name} {}", target.display()));
            host.run(&format!(
                "seq 10000 > {0}/file && sync -f {0} && sha256sum < {0}/file > {1}",
                target.display(),
                host.dir().join(format!("{name}.sum")).display()
            ));
        }
        // What a restart leaves: no mount, no loop device, no file of this boot.
        for name in ["d", "s"] {
            host.run(&format!("umount {}", dir(host, name).display()));
        }
        host.run(&format!("umount {}", volumes_dir(host).join("s/fs").display()));
        host.run(&format!("rm -r {}", host.run_dir().display()));
        std::fs::create_dir(host.run_dir()).unwrap();
        for name in ["d", "s"] {
            assert_eq!(inspect(host, name)["users"].as_array().unwrap().len(), 0);
            let target = dir(host, name);
            run(host, &format!("mount {name} {}", target.display()));
            let sum = host.run(&format!("sha256sum < {}/file", target.display()));
            assert_eq!(sum, std::fs::read_to_string(host.dir().join(format!("{name}.sum"))).unwrap().trim());
            run(host, &format!("unmount {name}"));
        }
    });
}
