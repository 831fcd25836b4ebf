//! `berth-bench-volumes`: berth's volumes against Docker's own `local` driver on one dockerd, and against `tar`, in one run.
//!
//! Medians of rounds in which the two take turns, so that both meet the same machine. The program prints one JSON object a
//! line; `cargo xtask bench volumes` makes a table of them in `docs/`.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark: whatever goes wrong ends it")]

mod files;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use berth_integration::bench::{self, Socket, Wanted, median, row};
use berth_integration::engine::{Berthd, Dockerd, engine_test};
use berth_integration::{Debian, Host};
use serde_json::{Value, json};

/// Rounds of a single-call figure.
const ROUNDS: usize = 21;
/// Rounds of what takes long.
const FEW: usize = 7;
/// How many volumes are many.
const MANY: usize = 1000;

fn main() -> ExitCode {
    bench::guarded(measure)
}

fn measure() {
    engine_test(&["dockerd", "iptables", "busybox"], |host| {
        // On the machine's disk: the host's own directory for this is memory.
        let disk = host.dir().join("berth-disk");
        std::fs::create_dir(&disk).unwrap();
        host.run(&format!("mount --bind {} /var/lib/berth", disk.display()));
        let mut berthd = Berthd::new(host, &["--roles", "volumes"]);
        let docker = Dockerd::new(host, Debian::V12, &[]);
        let plugin = Socket::new(host, "/run/docker/plugins/rvolume.sock", "");
        let api = Socket::docker(host);
        creates(host, &plugin, &api);
        starts(&api);
        lists(&api);
        sized(&plugin);
        files::measure(host, &plugin);
        docker.end();
        berthd.stop();
        host.run("umount /var/lib/berth; rm -rf /run/mount");
    });
}

const DOCKER: &str = "Docker's `local`";

fn create(api: &Socket<'_>, name: &str, driver: &str) -> Duration {
    api.post("/volumes/create", &json!({"Name": name, "Driver": driver})).1
}

/// Makes directory volumes: asked of Docker, and asked of the plugin itself, beside the one sync of the disk without which nothing
/// is durable.
fn creates(host: &Host, plugin: &Socket<'_>, api: &Socket<'_>) {
    let (mut ours, mut theirs, mut bare, mut sync) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let probe = host.dir().join("berth-disk/probe");
    for round in 0..=ROUNDS {
        let (one, two) = (create(api, "ours", "rvolume"), create(api, "theirs", "local"));
        let (_, three) = plugin.post("/VolumeDriver.Create", &json!({"Name": "bare"}));
        let started = Instant::now();
        let file = std::fs::File::create(&probe).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], 0).unwrap();
        file.sync_data().unwrap();
        let four = started.elapsed();
        api.delete("/volumes/ours");
        api.delete("/volumes/theirs");
        plugin.post("/VolumeDriver.Remove", &json!({"Name": "bare"}));
        // The first round loads what is loaded once.
        if round > 0 {
            ours.push(one);
            theirs.push(two);
            bare.push(three);
            sync.push(four);
        }
    }
    std::fs::remove_file(probe).unwrap();
    row(
        "`volume create`, a directory, asked of Docker",
        "ms",
        median(ours),
        Some((DOCKER, median(theirs))),
        Wanted::Nothing,
    );
    let floor = Some(("one sync of this disk", median(sync)));
    row("the same, asked of the plugin; durable", "ms", median(bare), floor, Wanted::AtMost(2.0));
}

/// Starts a container with a volume.
fn starts(api: &Socket<'_>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    create(api, "ours", "rvolume");
    create(api, "theirs", "local");
    for round in 0..=FEW {
        for (volume, times) in [("ours", &mut ours), ("theirs", &mut theirs)] {
            let container = json!({"Image": "nginx", "HostConfig": {"NetworkMode": "none", "Binds": [format!("{volume}:/data")]}});
            let (_, made) = api.post("/containers/create?name=c0", &container);
            let (_, started) = api.post("/containers/c0/start", &Value::Null);
            api.delete("/containers/c0?force=1");
            if round > 0 {
                times.push(made + started);
            }
        }
    }
    api.delete("/volumes/ours");
    api.delete("/volumes/theirs");
    row(
        "`docker run -v`, create and start",
        "ms",
        median(ours),
        Some((DOCKER, median(theirs))),
        Wanted::Times(1.1),
    );
}

/// Lists many volumes of one driver.
fn lists(api: &Socket<'_>) {
    let mut found = Vec::new();
    for driver in ["rvolume", "local"] {
        for number in 0..MANY {
            create(api, &format!("{driver}{number}"), driver);
        }
        let path = "/volumes";
        let times = (0..=ROUNDS).map(|_| api.get(path).1).skip(1).collect();
        found.push(median(times));
        for number in 0..MANY {
            api.delete(&format!("/volumes/{driver}{number}"));
        }
    }
    let work = format!("`volume ls` with {MANY} volumes");
    row(&work, "ms", found[0], Some((DOCKER, found[1])), Wanted::Times(1.5));
}

/// Makes, mounts and unmounts a volume with a size.
fn sized(plugin: &Socket<'_>) {
    let (mut made, mut mounted, mut unmounted) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=FEW {
        let (_, one) = plugin.post("/VolumeDriver.Create", &json!({"Name": "s", "Opts": {"size": "1G"}}));
        // The first mount makes the data directory.
        let used = json!({"Name": "s", "ID": "bench"});
        plugin.post("/VolumeDriver.Mount", &used);
        plugin.post("/VolumeDriver.Unmount", &used);
        let (_, two) = plugin.post("/VolumeDriver.Mount", &used);
        let (_, three) = plugin.post("/VolumeDriver.Unmount", &used);
        plugin.post("/VolumeDriver.Remove", &json!({"Name": "s"}));
        if round > 0 {
            made.push(one);
            mounted.push(two);
            unmounted.push(three);
        }
    }
    row("create of 1 GiB, reserved, ext4", "ms", median(made), None, Wanted::AtMost(100.0));
    row("mount of it", "ms", median(mounted), None, Wanted::AtMost(15.0));
    row("unmount of it", "ms", median(unmounted), None, Wanted::Nothing);
}
