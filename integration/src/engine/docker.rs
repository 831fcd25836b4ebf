//! dockerd with data, sockets and control group of its own, its client `docker`, and Compose.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_volume_core::mount_table;
use nix::mount::{MntFlags, umount2};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::{Cgroup, engine_test_on, image};
use crate::{Cmd, Debian, Host, Place, Probe, Proc, Ran, eventually};

/// What a machine needs for the tests of both releases.
pub const PROGRAMS: [&str; 6] = ["dockerd", "docker", "docker-compose", "debootstrap", "iptables", "busybox"];

/// Where dockerd is asked, the client's default.
const SOCKET: &str = "/run/docker.sock";

/// Where dockerd keeps what belongs to this boot, its default: sockets of plugins and the containers' namespaces too.
const EXEC_ROOT: &str = "/run/docker";

/// Where programs are found: the host's own Debian's, and no others that the machine may have.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// How long dockerd may take to start or to end.
const READY: Duration = Duration::from_secs(40);

/// How long one call of a client may take.
const CALL: Duration = Duration::from_secs(60);

/// Names under which the image is known, after the images that people type. Each runs a web server that says which container
/// it is, on port 80, and `mysql` and `mariadb` on port 3306 after they wrote the file `/var/lib/mysql/data`.
const WEB_IMAGES: [&str; 3] = ["busybox", "nginx", "wordpress"];
const DATABASE_IMAGES: [&str; 2] = ["mysql", "mariadb"];

/// The program of a database.
const DATABASE: [&str; 3] = ["sh", "-c", "hostname > /var/lib/mysql/data; exec httpd -f -p 3306 -h /www"];

/// A dockerd of its own on a host.
///
/// Its socket, plugin directory, namespaces and process id are where they are by default, in the host's own `/run`, so commands
/// work as people type them; its data is on the machine's disk, in the host's folder. Containers are in a control group of
/// the test's, and what is still in it when this is dropped is killed.
#[derive(Debug)]
pub struct Dockerd<'h> {
    host: &'h Host,
    debian: Debian,
    dir: PathBuf,
    options: Vec<String>,
    cgroup: Cgroup,
    daemon: Option<Proc>,
}

/// Runs `test` with a dockerd of `debian` on a host of its own, which must afterwards be as before.
pub fn docker_test(debian: Debian, test: impl FnOnce(&Host, &mut Dockerd<'_>)) {
    docker_test_with(debian, &[], test);
}

/// Like [`docker_test`], for a dockerd that is given more `options`.
pub fn docker_test_with(debian: Debian, options: &[&str], test: impl FnOnce(&Host, &mut Dockerd<'_>)) {
    engine_test_on(debian, &PROGRAMS, |host| {
        let mut docker = Dockerd::new(host, debian, options);
        test(host, &mut docker);
        docker.end();
    });
}

impl<'h> Dockerd<'h> {
    /// Starts a dockerd with more `options`, for instance `--live-restore`, on a host of `debian`, and loads the images.
    pub fn new(host: &'h Host, debian: Debian, options: &[&str]) -> Self {
        let dir = host.dir().join("docker");
        fs::create_dir_all(dir.join("client")).unwrap();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut docker = Self { host, debian, dir, options, cgroup: Cgroup::new(), daemon: None };
        docker.start();
        docker.load_images();
        docker
    }

    fn load_images(&self) {
        let images: [(&[&str], &[&str]); 2] = [(&WEB_IMAGES, &image::PROGRAM), (&DATABASE_IMAGES, &DATABASE)];
        let archive = image::docker_archive(self.host, &self.dir, &images);
        self.cmd(["load", "--quiet", "--input"]).arg(archive).run();
    }

    /// Starts the daemon and waits until it serves.
    pub fn start(&mut self) {
        self.start_unready();
        self.wait_ready();
    }

    /// Starts the daemon and does not wait: for what has to happen while it starts.
    pub fn start_unready(&mut self) {
        assert!(self.daemon.is_none(), "dockerd runs already");
        let group = format!("/{}", self.cgroup.name());
        let cmd = super::default_records(self.host.cmd("dockerd")).env("PATH", PATH);
        let cmd = cmd.arg("--data-root").arg(self.dir.join("data"));
        let cmd = cmd.args(["--exec-root", EXEC_ROOT, "--pidfile", "/run/docker.pid"]);
        let cmd = cmd.arg("--host").arg(format!("unix://{SOCKET}")).args(["--cgroup-parent", &group]);
        let cmd = cmd.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]).args(&self.options);
        self.daemon = Some(cmd.spawn());
    }

    /// Waits until the daemon serves.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        eventually(READY, || {
            let ran = self.cmd(["version", "--format", "{{.Server.Version}}"]).output();
            if ran.status.success() { Ok(()) } else { Err(ran.to_string()) }
        });
    }

    /// Ends the daemon as a service manager does. Without `--live-restore` its containers end too.
    #[track_caller]
    pub fn stop(&mut self) {
        let daemon = self.daemon.take().expect("dockerd runs");
        daemon.signal(Signal::TERM);
        let ran = daemon.wait(READY);
        assert!(ran.status.success(), "dockerd ended badly: {ran}");
    }

    /// Kills the daemon, as a crash would. Its containerd dies with it; the shims and the containers go on.
    pub fn crash(&mut self) {
        self.daemon.take().expect("dockerd runs").kill();
        self.host.inside(forget_dead_containerd);
    }

    /// What a power failure leaves of Docker: data on the disk, and no process, no mount and no file of this boot. Links and
    /// rules are the host's, and the caller's to take away.
    pub fn power_off(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
        self.cgroup.kill_all();
        self.host.kill_all();
        self.forget_boot();
    }

    /// Takes away everything below `/run` that is dockerd's, but for the sockets of plugins.
    fn forget_boot(&self) {
        self.host.inside(|| {
            unmount_below(Path::new(EXEC_ROOT));
            unmount_below(&self.dir);
            for entry in fs::read_dir(EXEC_ROOT).into_iter().flatten().filter_map(Result::ok) {
                if entry.file_name() != "plugins" {
                    let path = entry.path();
                    fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).unwrap();
                }
            }
            for file in ["/run/docker.sock", "/run/docker.pid"] {
                // One that was never made is as good as gone.
                let _ = fs::remove_file(file);
            }
        });
    }

    /// Ends the daemon, which must have no container left, and takes away what it keeps on purpose on the host.
    #[track_caller]
    pub fn end(mut self) {
        let left = self.run("ps --all --format {{.Names}}");
        assert!(left.is_empty(), "containers are left: {left}");
        let networks = self.run("network ls --filter type=custom --format {{.Name}}");
        assert!(networks.lines().all(|name| name == "docker_gwbridge"), "networks are left: {networks}");
        self.stop();
        self.forget_boot();
        self.forget_host();
    }

    /// dockerd's own bridges, and its chains in tables of iptables' making. A rule about an address in them is a leak, and
    /// stays to be seen, but for those of its own bridges.
    fn forget_host(&self) {
        for bridge in ["docker0", "docker_gwbridge"] {
            self.host.line(&format!("ip link delete {bridge}")).output();
        }
        for family in ["ip", "ip6"] {
            for table in ["filter", "nat", "raw", "mangle"] {
                let listed = self.host.line(&format!("nft -n list table {family} {table}")).output().stdout;
                if !listed.contains("dnat to") && !listed.contains("ip daddr 172.17.0.") {
                    self.host.line(&format!("nft delete table {family} {table}")).output();
                }
            }
        }
    }

    /// What the daemon said so far.
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Proc::complaints).unwrap_or_default()
    }

    /// The daemon's process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Proc::id)
    }

    /// The control group that containers are in.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// A call of the client.
    pub fn cmd<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Cmd {
        self.client(self.host.cmd("docker").args(args))
    }

    /// A line for a shell, exactly as somebody types it: `docker`, `docker-compose`, `berth` and `curl`-like things by name.
    pub fn shell(&self, line: &str) -> Cmd {
        self.client(self.host.cmd("sh").args(["-ec", line]))
    }

    fn client(&self, cmd: Cmd) -> Cmd {
        let cmd = super::default_records(cmd).env("PATH", PATH).deadline(CALL);
        cmd.env("DOCKER_CONFIG", self.dir.join("client")).env("HOME", &self.dir)
    }

    /// Calls the client with the words of `line`; it must succeed. Returns what it printed.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        self.output(line).success()
    }

    /// Calls the client with the words of `line`; it must fail. Returns what it complained about.
    #[track_caller]
    pub fn fails(&self, line: &str) -> String {
        let ran = self.output(line);
        assert!(!ran.status.success(), "`{}` should have failed: {ran}", ran.line);
        ran.stderr
    }

    /// Calls the client with the words of `line`, however that ends.
    pub fn output(&self, line: &str) -> Ran {
        self.cmd(line.split_whitespace()).output()
    }

    /// Calls the client with the words of `line`, which prints JSON.
    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        let text = self.run(line);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("`docker {line}`: {error} in {text}"))
    }

    /// Calls Compose in the folder `dir` with the words of `line`.
    pub fn compose(&self, dir: &Path, line: &str) -> Cmd {
        let dir = dir.to_str().expect("a plain path");
        let program = match self.debian {
            Debian::V12 => "docker-compose",
            Debian::V13 => "docker compose",
        };
        self.shell(&format!("cd {dir}; exec {program} --ansi never {line}"))
    }

    /// A folder for Compose with `text` as its `docker-compose.yml`. The folder's name is the project's.
    pub fn project(&self, name: &str, text: &str) -> PathBuf {
        let dir = self.dir.join("projects").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("docker-compose.yml"), text).unwrap();
        dir
    }

    /// A folder on the host for a test's own files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs a command line in container `name`; it must succeed. Returns what it printed.
    #[track_caller]
    pub fn exec(&self, name: &str, line: &str) -> String {
        self.run(&format!("exec {name} {line}"))
    }

    /// What a container says of itself on its port: the first digits of its id.
    #[track_caller]
    pub fn label(&self, container: &str) -> String {
        self.run(&format!("inspect --format {{{{.Config.Hostname}}}} {container}"))
    }

    /// Requires that `container` answers on `addr` when asked from `place`.
    #[track_caller]
    pub fn answers(&self, place: &Place, addr: impl ToString, container: &str) {
        let addr = addr.to_string();
        assert_eq!(place.reach(&Probe::http(&addr)).label, self.label(container), "on {addr}");
    }

    /// Requires that `container` answers on `url`, for instance `mysql:3306`, when asked from container `from`.
    #[track_caller]
    pub fn fetches(&self, from: &str, url: impl ToString, container: &str) {
        let (url, label) = (url.to_string(), self.label(container));
        eventually(Duration::from_secs(10), || {
            let ran = self.fetch(from, &url);
            if ran.stdout == label { Ok(()) } else { Err(format!("{from} asked {url} for {label}: {ran}")) }
        });
    }

    /// Asks `url` once from container `from`.
    pub fn fetch(&self, from: &str, url: &str) -> Ran {
        self.output(&format!("exec {from} timeout 3 wget -q -O - http://{url}/"))
    }

    /// Whether an echo request from container `from` to `to`, a name or an address, is answered.
    pub fn pings(&self, from: &str, to: impl ToString) -> bool {
        self.output(&format!("exec {from} ping -c 1 -W 1 {}", to.to_string())).status.success()
    }

    /// What Docker says of container `name` on `network`: `IPAddress`, `MacAddress`, `Gateway` and more.
    #[track_caller]
    pub fn endpoint(&self, name: &str, network: &str) -> Value {
        let inspected = self.json(&format!("inspect {name}"));
        let found = inspected[0]["NetworkSettings"]["Networks"][network].clone();
        assert!(found.is_object(), "{name} is not on {network}: {}", inspected[0]["NetworkSettings"]);
        found
    }

    /// The IPv4 address of container `name` on `network`.
    #[track_caller]
    pub fn address(&self, name: &str, network: &str) -> std::net::Ipv4Addr {
        let endpoint = self.endpoint(name, network);
        let text = endpoint["IPAddress"].as_str().unwrap_or_default();
        text.parse().unwrap_or_else(|_| panic!("{name} has no address on {network}: {endpoint}"))
    }

    /// The network namespace of container `name`, with the host's files.
    #[track_caller]
    pub fn place(&self, name: &str) -> Place {
        let pid = self.run(&format!("inspect --format {{{{.State.Pid}}}} {name}"));
        let netns = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        self.host.inside(|| {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            Place::here(self.host.env().to_vec())
        })
    }
}

impl Drop for Dockerd<'_> {
    fn drop(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        if std::thread::panicking() {
            show("dockerd", &daemon.complaints());
        }
        daemon.signal(Signal::KILL);
    }
}

/// dockerd 20.10 takes a containerd that died and that nobody has waited for yet for one that runs, and waits for it in vain. An
/// `init` waits at once; the one of a test machine may take its time, so the note of it is taken away.
fn forget_dead_containerd() {
    let note = Path::new(EXEC_ROOT).join("containerd/containerd.pid");
    let Ok(pid) = fs::read_to_string(&note) else { return };
    eventually(Duration::from_secs(10), || {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
        let gone =
            status.lines().find(|line| line.starts_with("State:")).is_none_or(|line| line.contains('Z'));
        if gone { Ok(()) } else { Err(format!("containerd outlives dockerd: {status}")) }
    });
    fs::remove_file(&note).unwrap();
}

/// Shows the end of a daemon's log beside a failed test.
#[expect(clippy::print_stderr, reason = "why a test failed must be seen")]
pub(super) fn show(name: &str, log: &str) {
    let lines: Vec<_> = log.lines().collect();
    let last = lines.len().saturating_sub(60);
    eprintln!("--- {name}'s last words\n{}\n---", lines[last..].join("\n"));
}

/// Takes away all mounts below `dir`, the latest first; lazily, for they may be in use by what is about to end.
fn unmount_below(dir: &Path) {
    for entry in mount_table().unwrap().iter().rev().filter(|entry| entry.target.starts_with(dir)) {
        // One that was below another is gone with it.
        let _ = umount2(&entry.target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }
}
