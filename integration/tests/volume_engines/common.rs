//! Hosts with engines and berth's volumes on them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_integration::engine::{Stage, berth, stage_test};
use berth_integration::{Debian, Host, eventually};
use serde_json::Value;

/// Makes a test of `fn NAME(debian: Debian)` for each release.
macro_rules! on_both_debians {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use berth_integration::Debian;

            #[test]
            fn debian_12() {
                super::$name(Debian::V12);
            }

            #[test]
            fn debian_13() {
                super::$name(Debian::V13);
            }
        }
    )+};
}
pub(crate) use on_both_debians;

/// Where berth keeps its volumes by default.
pub(crate) const VOLUMES: &str = "/var/lib/berth/volumes";

/// Puts berth's records and volumes on the machine's disk, in the host's own folder: volumes with a size do not fit into the memory
/// that hosts have there.
pub(crate) struct Disk<'h>(&'h Host);

impl<'h> Disk<'h> {
    pub(crate) fn new(host: &'h Host) -> Self {
        let dir = host.dir().join("berth-disk");
        std::fs::create_dir_all(&dir).unwrap();
        host.run(&format!("mount --bind {} /var/lib/berth", dir.display()));
        Self(host)
    }

    /// Nothing is left of any volume.
    #[track_caller]
    pub(crate) fn end(self) {
        let left = berth(self.0, ["volume", "ls", "--quiet"]).run();
        assert_eq!(left, "", "volumes are left");
        berth(self.0, ["gc"]).run();
        let mounts = self.0.run("cat /proc/self/mountinfo");
        assert!(!mounts.contains(VOLUMES), "mounts are left: {mounts}");
        let names = self.0.run(&format!("find {VOLUMES} -mindepth 1 2>/dev/null || true"));
        assert_eq!(names, "", "files are left");
        self.0.run("umount /var/lib/berth && rm -rf /run/mount");
    }
}

/// Runs `test` on a host with dockerd and berthd; all volumes are removed by Docker itself afterwards.
pub(crate) fn docker_volumes(debian: Debian, options: &[&str], test: impl FnOnce(&mut Stage<'_>)) {
    stage_test(debian, options, |stage| {
        let host = stage.host;
        if let Some(disk) = restart_berthd_around(stage, || Disk::new(host)) {
            test(stage);
            for name in stage.docker.run("volume ls --quiet --filter driver=rvolume").lines() {
                stage.docker.run(&format!("volume rm {name}"));
            }
            eventually(Duration::from_secs(10), || {
                let trash = Path::new("/var/lib/berth/volumes/.trash");
                if host.inside(|| trash.exists()) { Err("the trash is not empty") } else { Ok(()) }
                    .map_err(str::to_owned)
            });
            restart_berthd_around(stage, || disk.end());
        }
    });
}

/// Runs `then` while berthd does not.
fn restart_berthd_around<T>(stage: &mut Stage<'_>, then: impl FnOnce() -> T) -> Option<T> {
    let berthd = stage.berthd.as_mut()?;
    berthd.stop();
    let value = then();
    berthd.start();
    Some(value)
}

/// What Docker says of a volume.
#[track_caller]
pub(crate) fn volume(stage: &Stage<'_>, name: &str) -> Value {
    stage.docker.json(&format!("volume inspect {name}"))[0].clone()
}

/// Where a volume's data is on the host.
#[track_caller]
pub(crate) fn data(stage: &Stage<'_>, name: &str) -> PathBuf {
    volume(stage, name)["Mountpoint"].as_str().unwrap().into()
}

/// A file of random bytes in a container's volume, and the sum it must have.
#[track_caller]
pub(crate) fn seeded(stage: &Stage<'_>, volume: &str) -> String {
    let host = stage.host;
    let path = format!("/var/lib/berth/volumes/{volume}");
    host.run(&format!(
        "head -c 3000000 /dev/urandom > $(find {path} -name _data -type d | head -1)/random && sync -f {path}"
    ));
    sum(host, volume)
}

/// The sum of that file now.
#[track_caller]
pub(crate) fn sum(host: &Host, volume: &str) -> String {
    host.run(&format!("sha256sum < $(find /var/lib/berth/volumes/{volume} -name random)"))
}
