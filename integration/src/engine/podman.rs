//! Podman on its CNI backend, with storage and configuration of its own.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use super::{Cgroup, Suite, image};
use crate::{Cmd, Host, Place, Ran};

/// A podman of its own on a host. Containers run [`super::APPLETS`]; by default a web server that shows its name.
#[derive(Debug)]
pub struct Podman<'h> {
    host: &'h Host,
    dir: PathBuf,
    cgroup: Cgroup,
}

/// What the image is called in podman's storage.
const IMAGE: &str = "localhost/berth/busybox:1";

impl<'h> Podman<'h> {
    /// Sets podman up with the plugins of `suite`.
    pub fn new(host: &'h Host, suite: Suite) -> Self {
        let podman = Self { host, dir: host.dir().join("podman"), cgroup: Cgroup::new() };
        fs::create_dir_all(podman.dir.join("networks")).unwrap();
        let plugin_dirs: Vec<_> =
            suite.plugin_dirs(host).iter().map(|dir| dir.display().to_string()).collect();
        fs::write(podman.dir.join("containers.conf"), podman.settings(&plugin_dirs)).unwrap();
        let layer = image::layer(host, &podman.dir);
        let program = format!("CMD {}", json!(image::PROGRAM));
        podman.cmd(["import", "--change", &program]).arg(layer).arg(IMAGE).run();
        podman
    }

    /// Limits are given because raising them takes CAP_SYS_RESOURCE; locks in files because those in shared memory are
    /// the machine's.
    fn settings(&self, plugin_dirs: &[String]) -> String {
        let networks = self.dir.join("networks");
        format!(
            r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = {plugin_dirs:?}
network_config_dir = {networks:?}
"#
        )
    }

    /// A call of podman.
    pub fn cmd<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Cmd {
        let path = |name: &str| self.dir.join(name);
        let cmd = self.host.cmd("podman").env("CONTAINERS_CONF", path("containers.conf"));
        let cmd = super::default_records(cmd).args(["--storage-driver", "vfs", "--log-level", "error"]);
        let cmd = cmd.arg("--root").arg(path("root")).arg("--runroot").arg(path("runroot"));
        cmd.arg("--tmpdir").arg(path("tmp")).args(args)
    }

    /// Calls podman with the words of `line`; it must succeed. Returns what it printed.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        self.output(line).success()
    }

    /// Calls podman with the words of `line`; it must fail. Returns what it complained about.
    #[track_caller]
    pub fn fails(&self, line: &str) -> String {
        let ran = self.output(line);
        assert!(!ran.status.success(), "`{}` should have failed: {ran}", ran.line);
        ran.stderr
    }

    fn output(&self, line: &str) -> Ran {
        self.cmd(line.split_whitespace()).deadline(Duration::from_secs(50)).output()
    }

    /// The call that starts container `name` in the background, with more `options`.
    pub fn start_cmd(&self, name: &str, options: &str) -> Cmd {
        let parent = format!("/{}", self.cgroup.name());
        let words = ["run", "-d", "--name", name, "--hostname", name, "--cgroup-parent", &parent];
        self.cmd(words).args(options.split_whitespace()).arg(IMAGE)
    }

    /// Starts container `name` in the background, with more `options`, for instance `--network n1 -p 8080:80`.
    #[track_caller]
    pub fn start(&self, name: &str, options: &str) {
        self.start_cmd(name, options).output().success();
    }

    /// Tries to start container `name`; podman must refuse. Returns what it complained about.
    #[track_caller]
    pub fn refuses(&self, name: &str, options: &str) -> String {
        let ran = self.start_cmd(name, options).output();
        assert!(!ran.status.success(), "`{}` should have failed: {ran}", ran.line);
        ran.stderr
    }

    /// Runs a command line in container `name`; it must succeed. Returns what it printed.
    #[track_caller]
    pub fn exec(&self, name: &str, line: &str) -> String {
        self.run(&format!("exec {name} {line}"))
    }

    /// The name that container `from` gets as answer from `addr`.
    #[track_caller]
    pub fn fetch(&self, from: &str, addr: impl ToString) -> String {
        let line = format!("timeout 3 wget -q -O - http://{}/", addr.to_string());
        crate::eventually(Duration::from_secs(10), || {
            let ran = self.output(&format!("exec {from} {line}"));
            if ran.status.success() { Ok(ran.stdout) } else { Err(ran.to_string()) }
        })
    }

    /// Whether an echo request from container `from` to `addr` is answered.
    pub fn pings(&self, from: &str, addr: impl ToString) -> bool {
        self.output(&format!("exec {from} ping -c 1 -W 1 {}", addr.to_string())).status.success()
    }

    /// What podman says of container `name` on `network`: `IPAddress`, `MacAddress`, `Gateway` and more.
    #[track_caller]
    pub fn attachment(&self, name: &str, network: &str) -> Value {
        let text = self.run(&format!("inspect {name}"));
        let inspected: Value = serde_json::from_str(&text).unwrap();
        let found = inspected[0]["NetworkSettings"]["Networks"][network].clone();
        assert!(found.is_object(), "{name} is not on {network}: {}", inspected[0]["NetworkSettings"]);
        found
    }

    /// The IPv4 address of container `name` on `network`.
    #[track_caller]
    pub fn address(&self, name: &str, network: &str) -> IpAddr {
        let attachment = self.attachment(name, network);
        let text = attachment["IPAddress"].as_str().unwrap_or_default();
        text.parse().unwrap_or_else(|_| panic!("{name} has no address on {network}: {attachment}"))
    }

    /// Writes a network by hand, which podman finds by its `name`.
    pub fn write_network(&self, list: &Value) {
        let name = list["name"].as_str().expect("a list has a name");
        fs::write(self.dir.join("networks").join(format!("{name}.conflist")), list.to_string()).unwrap();
    }

    /// The network that podman wrote.
    pub fn read_network(&self, name: &str) -> Value {
        let path = self.dir.join("networks").join(format!("{name}.conflist"));
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    /// The network namespace of container `name`, with the host's files.
    #[track_caller]
    pub fn place(&self, name: &str) -> Place {
        let pid = self.run(&format!("inspect --format {{{{.State.Pid}}}} {name}"));
        let netns = fs::File::open(format!("/proc/{}/ns/net", pid.trim())).unwrap();
        self.host.inside(|| {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            Place::here(self.host.env().to_vec())
        })
    }

    /// Requires that the last process of a container ends by itself: podman's own cleaning runs after its exit.
    #[track_caller]
    pub fn assert_idle(&self) {
        crate::eventually(Duration::from_secs(10), || {
            let left = self.cgroup.processes();
            if left.is_empty() { Ok(()) } else { Err(format!("processes of containers are left: {left:?}")) }
        });
    }
}
