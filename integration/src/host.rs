//! A private host: its own links, mounts, files and state.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use berth_volume_core::{Access, bind, bind_tree, make_private, overlay, sysfs, tmpfs};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use crate::{Cni, Container, Debian, Lan, Place};

/// Directories that are private to a host and look as on the machine until something is written.
pub(crate) const OVERLAID: [&str; 2] = ["/etc", "/var/lib"];

/// Where, inside a host, the files are that were written to the [`OVERLAID`] directories.
pub(crate) const WRITTEN: &str = "/run/.written";

/// A host of its own: a network namespace with an uplink, a mount namespace, state directories.
///
/// Its uplink is `up0` with 192.0.2.2/24 and a default route by 192.0.2.1, where nobody answers; the other end of that wire
/// is `up1` in the same namespace. Forwarding is off. `/run` is empty, `/etc` and `/var/lib` can be written without
/// effect on the machine, `/sys` shows the host's own links, and programs get `BERTH_STATE_DIR` and `BERTH_RUN_DIR`.
///
/// When dropped, processes still in it are killed and the kernel takes the rest away.
#[derive(Debug)]
pub struct Host {
    place: Place,
    dir: TempDir,
    leaks: Mutex<Vec<String>>,
    uplinks: AtomicU32,
}

impl Deref for Host {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// Makes a host.
    pub fn new() -> Self {
        Self::on(Debian::V12)
    }

    /// Makes a host that has the programs of `debian`.
    pub fn on(debian: Debian) -> Self {
        let host = Self::with_files(debian);
        host.batch(
            "link set lo up
             link add up0 type veth peer name up1
             link set up0 up
             link set up1 up
             address add 192.0.2.2/24 dev up0
             route add default via 192.0.2.1 dev up0",
        );
        host
    }

    /// Makes a host with no link but `lo`, which is up.
    pub fn bare() -> Self {
        let host = Self::with_files(Debian::V12);
        host.batch("link set lo up");
        host
    }

    fn with_files(debian: Debian) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "private hosts need CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root"
        );
        let dir = TempDir::with_prefix("berth-host-").unwrap();
        let folders = ["state", "run", "cni-bin"].map(|name| dir.path().join(name));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
        }
        let env = |key: &str, path: &Path| (key.to_owned(), path.to_str().expect("a plain path").to_owned());
        let env = vec![env("BERTH_STATE_DIR", &folders[0]), env("BERTH_RUN_DIR", &folders[1])];
        let usr = debian.usr();
        let place = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
            private_files(usr.as_deref());
            // A fresh network namespace inherits the machine's IPv4 switches; hosts start alike wherever they run.
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            Place::here(env)
        });
        let place = place.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Self { place, dir, leaks: Mutex::default(), uplinks: AtomicU32::new(1) }
    }

    /// Puts both hosts on a new LAN.
    pub fn join(a: &Self, b: &Self) -> Lan {
        let lan = Lan::new();
        lan.join(a);
        lan.join(b);
        lan
    }

    /// Makes a container: a network namespace with nothing but a `lo` that is down, pinned at `/run/netns/NAME` in the host.
    pub fn container(&self, name: &str) -> Container<'_> {
        Container::new(self, name)
    }

    /// Calls CNI plugins on this host.
    pub fn cni(&self) -> Cni<'_> {
        Cni::new(self)
    }

    /// berth's command line, on this host.
    pub fn berth<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> crate::Cmd {
        self.cmd(crate::berth_binary()).args(args)
    }

    /// `berth gc`: takes away what has no user any more, such as the bridge of a network whose last container is gone.
    pub fn gc(&self) {
        self.berth(["gc"]).run();
    }

    /// The folder on the machine that is this host's own; the same path inside and outside.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// berth's durable records.
    pub fn state_dir(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// berth's records of this boot.
    pub fn run_dir(&self) -> PathBuf {
        self.dir().join("run")
    }

    /// Runs `ip` commands, one a line, in one process; each must succeed.
    pub fn batch(&self, commands: &str) {
        self.cmd("ip").args(["-batch", "-"]).stdin(commands).run();
    }

    /// Notes something left behind that is gone by the time the host is compared, so that [`crate::host_test`] fails.
    pub(crate) fn leaked(&self, what: String) {
        self.leaks.lock().expect("no panic while noting").push(what);
    }

    /// What was noted as left in containers that are gone.
    pub fn leaks(&self) -> Vec<String> {
        self.leaks.lock().expect("no panic while noting").clone()
    }

    /// The next number of a link to a LAN.
    pub(crate) fn next_uplink(&self) -> u32 {
        self.uplinks.fetch_add(1, Ordering::Relaxed)
    }

    /// The processes that are in this host.
    pub fn processes(&self) -> BTreeSet<i32> {
        let inode = self.place.mount_inode();
        let ids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        ids.filter(|pid: &i32| mount_ns_of(*pid) == Some(inode)).collect()
    }

    /// Kills the processes that are in this host.
    pub(crate) fn kill_all(&self) {
        for pid in self.processes() {
            // The handle is taken first and what it is checked again, so that no other process is hit that got the number
            // meanwhile. One that is gone needs no signal.
            let Some(handle) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            else {
                continue;
            };
            if mount_ns_of(pid) == Some(self.place.mount_inode()) {
                let _ = pidfd_send_signal(&handle, Signal::KILL);
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill_all();
    }
}

fn mount_ns_of(pid: i32) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|ns| ns.ino())
}

/// Makes the calling thread's mounts those of a host, with the programs in `usr` if given. They end with the namespace.
fn private_files(usr: Option<&Path>) {
    make_private(Path::new("/")).unwrap();
    if let Some(usr) = usr {
        bind(usr, Path::new("/usr"), Access::ReadOnly).unwrap().keep();
    }
    tmpfs(Path::new("/run"), 64 << 20, 0o755).unwrap().keep();
    for (index, dir) in OVERLAID.iter().enumerate() {
        let upper = Path::new(WRITTEN).join(index.to_string());
        let work = Path::new(WRITTEN).join(format!("work{index}"));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        overlay(Path::new(dir), &upper, &work, Path::new(dir)).unwrap().keep();
    }
    // The machine's control groups are reached by the handle once the new sysfs hides their path.
    let cgroup = fs::File::open("/sys/fs/cgroup").unwrap();
    sysfs(Path::new("/sys")).unwrap().keep();
    let hidden = PathBuf::from(format!("/proc/thread-self/fd/{}", cgroup.as_raw_fd()));
    bind_tree(&hidden, Path::new("/sys/fs/cgroup")).unwrap().keep();
    fs::create_dir_all("/run/netns").unwrap();
}
