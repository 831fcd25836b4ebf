//! Many at once, and many in all.

use std::collections::BTreeSet;

use crate::{dir, exists, inspect, json, run, volume, volume_test, volumes_dir};

#[test]
fn of_many_that_make_one_volume_one_does_and_all_succeed() {
    for options in ["", "-o size=16M"] {
        volume_test(|host| {
            let calls: Vec<_> =
                (0..12).map(|_| volume(host, &format!("create v {options}")).spawn()).collect();
            for call in calls {
                let ran = call.wait(std::time::Duration::from_secs(60));
                assert!(ran.status.success(), "{ran}");
            }
            assert_eq!(json(host, "ls --json").as_array().unwrap().len(), 1);
            assert!(inspect(host, "v")["differs"].is_null());
        });
    }
}

#[test]
fn of_many_that_want_other_options_one_gets_them() {
    volume_test(|host| {
        let calls: Vec<_> =
            (0..8).map(|uid| volume(host, &format!("create v -o uid={uid}")).spawn()).collect();
        let ended: Vec<_> =
            calls.into_iter().map(|call| call.wait(std::time::Duration::from_secs(60))).collect();
        assert_eq!(ended.iter().filter(|ran| ran.status.success()).count(), 1);
        assert!(
            ended
                .iter()
                .filter(|ran| !ran.status.success())
                .all(|ran| ran.stderr.contains("with other options"))
        );
    });
}

#[test]
fn mounts_and_unmounts_side_by_side_end_with_nothing_mounted() {
    volume_test(|host| {
        run(host, "create v -o size=16M");
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    let target = dir(host, &format!("target{number}"));
                    for _ in 0..4 {
                        run(host, &format!("mount v {}", target.display()));
                        host.run(&format!("echo {number} > {}/file{number}", target.display()));
                        run(host, &format!("unmount v {}", target.display()));
                    }
                });
            }
        });
        let target = dir(host, "target");
        run(host, &format!("mount v {}", target.display()));
        assert_eq!(host.run(&format!("cat {}/file*", target.display())), "0\n1\n2\n3\n4\n5\n6\n7");
        run(host, "unmount v");
        assert!(!host.run("cat /proc/self/mountinfo").contains("/v/fs "));
    });
}

#[test]
fn a_thousand_volumes_are_listed_and_pruned() {
    volume_test(|host| {
        host.line("for i in $(seq 1000); do \"$0\" volume create v$i >/dev/null || exit 1; done")
            .arg(berth_integration::berth_binary())
            .deadline(std::time::Duration::from_secs(120))
            .run();
        let list = json(host, "ls --json");
        let names: BTreeSet<&str> =
            list.as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), 1000);
        assert_eq!(inspect(host, "v777")["name"], "v777");
        run(host, "rm --yes v777");
        assert!(!exists(host, "v777"));
        let pruned =
            volume(host, "prune --all --yes --json").deadline(std::time::Duration::from_secs(120)).run();
        let pruned: serde_json::Value = serde_json::from_str(&pruned).unwrap();
        assert_eq!(pruned["removed"].as_array().unwrap().len(), 999);
        assert_eq!(std::fs::read_dir(volumes_dir(host)).unwrap().count(), 0);
    });
}
