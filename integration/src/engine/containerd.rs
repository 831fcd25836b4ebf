//! containerd with root, state and socket of its own, and its client `ctr`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_volume_core::{tmpfs, unmount};
use rustix::process::Signal;
use serde_json::Value;

use super::{Cgroup, Suite, image};
use crate::{Cmd, Host, Proc, eventually};

/// Where containerd and `ctr` look for networks and plugins; `ctr` cannot be told otherwise.
const CONF_DIR: &str = "/etc/cni/net.d";
const BIN_DIR: &str = "/opt/cni/bin";

/// The time for which nothing of containerd's own is waited.
const READY: Duration = Duration::from_secs(20);

/// A containerd of its own on a host, with the image in it and one network.
#[derive(Debug)]
pub struct Containerd<'h> {
    host: &'h Host,
    dir: PathBuf,
    cgroup: Cgroup,
    daemon: Option<Proc>,
}

impl<'h> Containerd<'h> {
    /// Starts containerd with the plugins of `suite` and the network `list`.
    pub fn new(host: &'h Host, suite: Suite, list: &Value) -> Self {
        let dir = host.dir().join("containerd");
        fs::create_dir_all(&dir).unwrap();
        let mut containerd = Self { host, dir, cgroup: Cgroup::new(), daemon: None };
        host.inside(|| {
            tmpfs(Path::new("/opt"), 1 << 20, 0o755).unwrap().keep();
            suite.fill(host, Path::new(BIN_DIR));
            fs::create_dir_all(CONF_DIR).unwrap();
        });
        containerd.write_network(list);
        fs::write(containerd.dir.join("config.toml"), containerd.settings()).unwrap();
        containerd.start();
        let archive = image::archive(host, &containerd.dir);
        let import = ["images", "import", "--snapshotter", "native"];
        containerd.ctr(import).arg(&archive).run();
        containerd.ctr_in("k8s.io", import).arg(&archive).run();
        containerd
    }

    /// Overlays may stand on a file system that cannot carry them, hence copies; the score that the kernel's out-of-memory
    /// killer goes by cannot be lowered without CAP_SYS_RESOURCE.
    fn settings(&self) -> String {
        let path = |name: &str| self.dir.join(name);
        format!(
            r#"
version = 2
root = {root:?}
state = {state:?}
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.overlayfs", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = {socket:?}
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = {image:?}
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {BIN_DIR:?}
conf_dir = {CONF_DIR:?}
"#,
            root = path("root"),
            state = path("state"),
            socket = self.socket(),
            image = image::IMAGE,
        )
    }

    /// Starts the daemon and waits until it serves.
    pub fn start(&mut self) {
        let cmd = self.host.cmd("containerd").arg("--config").arg(self.dir.join("config.toml"));
        self.daemon = Some(super::default_records(cmd).spawn());
        eventually(READY, || {
            let ran = self.ctr(["version"]).output();
            if ran.status.success() { Ok(()) } else { Err(ran.to_string()) }
        });
    }

    /// Kills the daemon as a crash would; shims and containers go on.
    pub fn crash(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Replaces the host's only network. The daemon notices by itself; `ctr` reads it at every call.
    pub fn write_network(&self, list: &Value) {
        let text = list.to_string();
        self.host.inside(|| fs::write(Path::new(CONF_DIR).join("10-network.conflist"), text).unwrap());
    }

    /// The daemon's socket, a path that is the same inside and outside of the host.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// The control group that containers belong in: `/NAME`. It is also the name of `ctr`'s namespace.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// A call of `ctr` in the test's own namespace.
    pub fn ctr<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Cmd {
        self.ctr_in(self.cgroup.name(), args)
    }

    fn ctr_in<'a>(&self, namespace: &str, args: impl IntoIterator<Item = &'a str>) -> Cmd {
        let cmd = super::default_records(self.host.cmd("ctr"));
        cmd.arg("--address").arg(self.socket()).args(["--namespace", namespace]).args(args)
    }

    fn run_cmd(&self, option: &str, id: &str) -> Cmd {
        let name = format!("NAME={id}");
        self.ctr(["run", option, "--cni", "--snapshotter", "native", "--env", &name, image::IMAGE, id])
            .args(image::PROGRAM)
    }

    /// Runs container `id` with `ctr run --cni` until it is told to end.
    pub fn run(&self, id: &str) -> Proc {
        let running = self.run_cmd("--rm", id).spawn();
        eventually(READY, || {
            let listed = self.ctr(["task", "list"]).run();
            let up = listed.lines().any(|line| line.starts_with(id) && line.contains("RUNNING"));
            if up { Ok(()) } else { Err(format!("{id} does not run: {listed}")) }
        });
        running
    }

    /// Runs container `id` with `ctr run --cni --detach`. Nobody will call DEL for it.
    pub fn run_detached(&self, id: &str) {
        self.run_cmd("--detach", id).run();
    }

    /// Ends and removes a container of [`Containerd::run_detached`].
    pub fn remove_detached(&self, id: &str) {
        self.ctr(["task", "kill", "--signal", "SIGKILL", id]).run();
        eventually(READY, || {
            // It exits with the code of the container's end.
            self.ctr(["task", "remove", id]).output();
            let listed = self.ctr(["task", "list", "--quiet"]).run();
            if listed.is_empty() { Ok(()) } else { Err(format!("{id} is still there: {listed}")) }
        });
        self.ctr(["container", "remove", id]).run();
    }

    /// Tries to run container `id`, which must fail. Returns what was complained about.
    #[track_caller]
    pub fn refuses(&self, id: &str) -> String {
        let ran = self.run_cmd("--rm", id).output();
        assert!(!ran.status.success(), "`{}` should have failed: {ran}", ran.line);
        // `ctr` leaves the task that it made and did not start.
        self.ctr(["task", "remove", "--force", id]).output();
        self.ctr(["container", "remove", id]).run();
        ran.stderr
    }

    /// Runs a command line in container `id` of `ctr`, and returns what it printed.
    #[track_caller]
    pub fn exec(&self, id: &str, line: &str) -> String {
        self.ctr(["task", "exec", "--exec-id", "x", id]).args(line.split_whitespace()).run()
    }

    /// Ends container `id`, and waits until `running` has cleaned up after it.
    #[track_caller]
    pub fn end(&self, id: &str, running: Proc) {
        self.ctr(["task", "kill", "--signal", "SIGKILL", id]).run();
        let ran = running.wait(READY);
        // The container's own end by a signal is what `ctr` passes on.
        assert_eq!(ran.code(), Some(137), "{ran}");
        let complaint = ran.stderr.lines().find(|line| line.contains("level=error"));
        assert_eq!(complaint, None, "{ran}");
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal(Signal::TERM);
            if std::thread::panicking() {
                daemon.kill();
            } else {
                daemon.wait(READY);
            }
        }
        self.host.inside(|| {
            // What is still in use there stays with the namespace's mounts, and is seen.
            let _ = unmount(Path::new("/opt"));
        });
    }
}
