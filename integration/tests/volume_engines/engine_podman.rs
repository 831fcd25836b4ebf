//! Podman by the same socket: its one mount id, its five seconds, its own counting.

use std::path::PathBuf;
use std::time::Duration;

use berth_integration::engine::{Berthd, Cgroup, berth, engine_test_on, layer};
use berth_integration::{Cmd, Debian, Host};
use serde_json::Value;

use crate::common::{Disk, on_both_debians};

on_both_debians!(volumes_on_podman, podmans_volumes_survive_kills);

/// A podman of its own, without networks.
struct Podman<'h> {
    host: &'h Host,
    dir: PathBuf,
    cgroup: Cgroup,
}

impl<'h> Podman<'h> {
    fn new(host: &'h Host) -> Self {
        let podman = Self { host, dir: host.dir().join("podman"), cgroup: Cgroup::new() };
        std::fs::create_dir_all(&podman.dir).unwrap();
        // Where netavark is installed, podman locks its directory of networks even for containers that have none.
        let networks = podman.dir.join("networks");
        let conf = format!(
            "
[containers]
default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]
netns = \"none\"
[network]
network_config_dir = {networks:?}
[engine]
cgroup_manager = \"cgroupfs\"
events_logger = \"none\"
lock_type = \"file\"
runtime = \"runc\"
[engine.volume_plugins]
rvolume = \"/run/docker/plugins/rvolume.sock\"
"
        );
        std::fs::write(podman.dir.join("containers.conf"), conf).unwrap();
        let layer = layer(host, &podman.dir);
        podman.cmd(&format!("import {} localhost/busybox", layer.display())).run();
        podman
    }

    fn cmd(&self, line: &str) -> Cmd {
        let cmd = self.host.cmd("podman").env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        let cmd =
            cmd.env_remove("BERTH_STATE_DIR").env_remove("BERTH_RUN_DIR").deadline(Duration::from_secs(50));
        let cmd = cmd.args(["--storage-driver", "vfs", "--log-level", "error"]);
        let cmd = cmd.arg("--root").arg(self.dir.join("root")).arg("--runroot").arg(self.dir.join("runroot"));
        cmd.arg("--tmpdir").arg(self.dir.join("tmp")).args(words(line))
    }

    #[track_caller]
    fn run(&self, line: &str) -> String {
        self.cmd(line).run()
    }

    #[track_caller]
    fn refuses(&self, line: &str) -> String {
        let ran = self.cmd(line).output();
        assert!(!ran.status.success(), "`{line}` should have failed: {ran}");
        ran.stderr
    }

    /// Starts a container in the background, and returns when it runs.
    fn start(&self, name: &str, options: &str) {
        let group = self.cgroup.name();
        self.run(&format!(
            "run -d --name {name} --cgroup-parent /{group} {options} localhost/busybox sleep 1000"
        ));
    }

    /// Runs a program in a container of its own.
    #[track_caller]
    fn once(&self, options: &str, program: &str) -> String {
        let group = self.cgroup.name();
        self.run(&format!("run --rm --cgroup-parent /{group} {options} localhost/busybox {program}"))
    }
}

/// The words of a line; `'` holds some together.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(index, part)| {
            if index % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        })
        .collect()
}

fn podman_test(debian: Debian, test: impl FnOnce(&Host, &Podman<'_>, &mut Berthd<'_>)) {
    engine_test_on(debian, &["podman", "runc", "busybox"], |host| {
        let disk = Disk::new(host);
        let mut berthd = Berthd::new(host, &["--roles", "volumes"]);
        let podman = Podman::new(host);
        test(host, &podman, &mut berthd);
        podman.run("rm --all --force --time 0");
        podman.run("volume prune --force");
        for name in berth(host, ["volume", "ls", "--quiet"]).run().lines() {
            berth(host, ["volume", "rm", "--yes", name]).run();
        }
        berthd.stop();
        disk.end();
    });
}

fn volumes_on_podman(debian: Debian) {
    podman_test(debian, |host, podman, _| {
        podman.run("volume create --driver rvolume --opt uid=5 data");
        podman.run("volume create --driver rvolume --opt size=24M sized");
        podman.run("volume create --driver rvolume --opt type=tmpfs --opt device=tmpfs --opt o=size=1m fast");
        let listed = podman.run("volume ls --format '{{.Driver}} {{.Name}}'");
        assert!(listed.contains("rvolume data") && listed.contains("rvolume sized"), "{listed}");
        let shown: Value = serde_json::from_str(&podman.run("volume inspect sized")).unwrap();
        assert_eq!(shown[0]["Driver"], "rvolume");
        // Two containers have it at once; podman counts them itself, under one id.
        podman.start("a", "-v data:/data -v sized:/sized -v fast:/fast");
        podman.start("b", "-v data:/data:ro -v sized:/sized");
        podman.run("exec a sh -c 'echo one > /data/file; echo two > /sized/file; echo three > /fast/file'");
        assert_eq!(podman.run("exec b cat /data/file /sized/file"), "one\ntwo");
        assert!(podman.refuses("exec b touch /data/x").contains("Read-only"));
        let text = podman.refuses("exec a dd if=/dev/zero of=/sized/big bs=1024k");
        assert!(text.contains("No space left"), "{text}");
        let ran = berth(host, ["volume", "rm", "--yes", "sized"]).output();
        assert!(!ran.status.success() && ran.stderr.contains("in use by podman"), "{ran}");
        podman.run("rm --force --time 0 a");
        assert_eq!(podman.run("exec b cat /data/file /sized/file"), "one\ntwo");
        podman.run("rm --force --time 0 b");
        assert_eq!(podman.once("-v data:/d -v sized:/s", "cat /d/file /s/file"), "one\ntwo");
        assert_eq!(podman.once("-v fast:/fast", "ls -A /fast"), "", "memory is gone with its last user");
        let mounts = host.run("cat /proc/self/mountinfo");
        assert!(!mounts.contains("/sized/fs") && !mounts.contains("/fast/_data"), "{mounts}");
        // Filled from the image the first time.
        podman.run("volume create --driver rvolume www");
        assert_eq!(podman.once("-v www:/www", "ls /www/cgi-bin"), "index.cgi");
        let text = podman.refuses("volume create --driver rvolume --opt size=0 bad");
        assert!(text.contains("too small"), "{text}");
        let text = podman
            .refuses("volume create --driver rvolume --opt type=nfs --opt device=:/x --opt o=addr=h bad");
        assert!(text.contains("is not supported"), "{text}");
        // Made by berth itself.
        berth(host, ["volume", "create", "outside"]).run();
        podman.run("volume reload");
        assert!(podman.run("volume ls --quiet").lines().any(|name| name == "outside"));
        podman.run("volume rm data sized fast www outside");
        assert_eq!(berth(host, ["volume", "ls", "--quiet"]).run(), "");
    });
}

fn podmans_volumes_survive_kills(debian: Debian) {
    podman_test(debian, |host, podman, berthd| {
        podman.run("volume create --driver rvolume --opt size=24M sized");
        podman.start("a", "-v sized:/data");
        podman.run("exec a sh -c 'dd if=/dev/urandom of=/data/random bs=1024 count=3000 && sync'");
        let sum = || host.run("sha256sum < /var/lib/berth/volumes/sized/fs/_data/random");
        let before = sum();
        berthd.crash();
        podman.run("exec a ls /data/random");
        berthd.start();
        berth(host, ["gc"]).run();
        assert_eq!(sum(), before, "nothing in use is unmounted");
        podman.run("kill a");
        podman.run("start a");
        assert_eq!(sum(), before);
        podman.run("rm --force --time 0 a");
        podman.start("b", "-v sized:/data");
        assert_eq!(sum(), before);
        podman.run("rm --force --time 0 b");
        podman.run("volume rm sized");
    });
}
