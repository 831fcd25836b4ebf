//! Kills of either daemon, live restore, a reboot: data is there byte for byte, nothing in use is unmounted, and nothing blocks.

use std::time::Duration;

use berth_integration::engine::{Stage, berth};
use berth_integration::{Debian, eventually};

use crate::common::{docker_volumes, on_both_debians, seeded, sum, volume};

on_both_debians!(
    data_survives_a_kill_of_dockerd,
    data_survives_a_kill_of_berthd,
    containers_that_live_on_keep_their_volumes,
    data_survives_a_reboot,
);

const VOLUMES: [(&str, &str); 2] = [("plain", ""), ("sized", "-o size=24M")];

/// Volumes with something in them, each in a container.
fn begin(stage: &Stage<'_>) -> Vec<String> {
    for (name, options) in VOLUMES {
        stage.types(&format!("docker volume create -d rvolume {options} {name}"));
        stage.types(&format!("docker run -d --name c-{name} -v {name}:/data busybox"));
    }
    VOLUMES.iter().map(|(name, _)| seeded(stage, name)).collect()
}

/// The data as containers see it.
fn sums_in_new_containers(stage: &Stage<'_>) -> Vec<String> {
    VOLUMES
        .iter()
        .map(|(name, _)| {
            stage.types(&format!("docker run -d --name look-{name} -v {name}:/data busybox"));
            let found = sum(stage.host, name);
            stage.types(&format!("docker rm -f look-{name}"));
            found
        })
        .collect()
}

/// Nothing blocks the end: every volume is removed at once.
fn end(stage: &Stage<'_>) {
    for (name, _) in VOLUMES {
        stage.types(&format!("docker rm -f c-{name}\ndocker volume rm {name}"));
    }
}

fn data_survives_a_kill_of_dockerd(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        let sums = begin(stage);
        stage.docker.crash();
        stage.docker.start();
        for (name, _) in VOLUMES {
            stage.types(&format!("docker start c-{name}"));
        }
        assert_eq!(VOLUMES.map(|(name, _)| sum(stage.host, name)).to_vec(), sums);
        stage.types("docker rm -f c-plain c-sized");
        assert_eq!(sums_in_new_containers(stage), sums);
        stage.types("docker run -d --name c-plain -v plain:/data busybox");
        stage.docker.crash();
        stage.docker.start();
        // The count of the killed one is still there, and does not block.
        stage.types("docker rm -f c-plain");
        stage.types("docker volume rm plain\ndocker volume rm sized");
        assert_eq!(berth(stage.host, ["volume", "ls", "--quiet"]).run(), "");
    });
}

fn data_survives_a_kill_of_berthd(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        let sums = begin(stage);
        let berthd = stage.berthd.as_mut().unwrap();
        berthd.crash();
        berthd.start();
        assert_eq!(VOLUMES.map(|(name, _)| sum(stage.host, name)).to_vec(), sums);
        assert_eq!(volume(stage, "sized")["Status"]["users"].as_array().unwrap().len(), 1);
        assert_eq!(sums_in_new_containers(stage), sums);
        stage.types("docker exec c-sized sh -c 'echo still > /data/file; cat /data/file'");
        // Gone while a container ends: what it held is given back later, by hand or by itself.
        stage.berthd.as_mut().unwrap().crash();
        stage.docker.run("kill c-plain");
        stage.berthd.as_mut().unwrap().start();
        end(stage);
    });
}

fn containers_that_live_on_keep_their_volumes(debian: Debian) {
    docker_volumes(debian, &["--live-restore"], |stage| {
        let sums = begin(stage);
        stage.docker.crash();
        // While no dockerd runs nobody takes a volume from a container.
        let ran = berth(stage.host, ["volume", "rm", "--yes", "sized"]).output();
        assert!(!ran.status.success() && ran.stderr.contains("in use by"), "{ran}");
        berth(stage.host, ["gc"]).run();
        stage.docker.start();
        stage.docker.exec("c-sized", "sh -c id");
        assert_eq!(VOLUMES.map(|(name, _)| sum(stage.host, name)).to_vec(), sums);
        stage.types("docker run --rm -v sized:/data busybox sh -c 'echo other > /data/other'");
        assert_eq!(stage.docker.exec("c-sized", "cat /data/other"), "other");
        end(stage);
    });
}

fn data_survives_a_reboot(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        let sums = begin(stage);
        stage.berthd.as_mut().unwrap().crash();
        stage.docker.power_off();
        // Mounts and files of the boot that is over go with it.
        let host = stage.host;
        host.run("rm -rf /run/berth; umount /var/lib/berth/volumes/sized/fs || true");
        eventually(Duration::from_secs(10), || {
            let loops = host.run("losetup -a");
            if loops.contains("volumes/sized/image") { Err(loops) } else { Ok(()) }
        });
        stage.berthd.as_mut().unwrap().start();
        stage.docker.start();
        for (name, _) in VOLUMES {
            assert_eq!(volume(stage, name)["Status"]["users"].as_array().unwrap().len(), 0);
            stage.types(&format!("docker start c-{name}"));
        }
        assert_eq!(VOLUMES.map(|(name, _)| sum(stage.host, name)).to_vec(), sums);
        end(stage);
    });
}
