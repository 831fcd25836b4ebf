//! Where something happens: a network and a mount namespace, entered on a thread of its own.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Cmd;

/// A network namespace, a mount namespace, and the environment that programs get there. Holds the namespaces open: they
/// live as long as a place or a process in them does.
#[derive(Debug, Clone)]
pub struct Place {
    net: Arc<OwnedFd>,
    mounts: Arc<OwnedFd>,
    env: Arc<Vec<(String, String)>>,
}

impl Place {
    /// The namespaces of the calling thread.
    pub(crate) fn here(env: Vec<(String, String)>) -> Self {
        Self { net: open_ns("net"), mounts: open_ns("mnt"), env: Arc::new(env) }
    }

    /// Makes a fresh network namespace, runs `then` in it with the mounts of this place, and returns it as a place.
    pub(crate) fn with_new_net(&self, then: impl FnOnce() + Send) -> Self {
        self.inside(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            then();
            Self { net: open_ns("net"), mounts: Arc::clone(&self.mounts), env: Arc::clone(&self.env) }
        })
    }

    /// Runs `f` on a fresh thread inside, in `/`, and returns its result. A panic in `f` is a panic here.
    ///
    /// Sockets made by `f` belong to this place wherever they are used later.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let run = || {
            self.enter();
            f()
        };
        let result = std::thread::scope(|scope| scope.spawn(run).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A program to run inside.
    pub fn cmd(&self, program: impl AsRef<std::ffi::OsStr>) -> Cmd {
        Cmd::new(self.clone(), program.as_ref())
    }

    /// Runs a command line inside, requires that it succeeds, and returns what it printed, without the last newline. A line
    /// with characters that mean something to a shell is given to one.
    pub fn run(&self, line: &str) -> String {
        self.line(line).run()
    }

    /// Like [`Place::run`], for a program that prints JSON. Nothing printed is `null`.
    pub fn json(&self, line: &str) -> serde_json::Value {
        let text = self.run(line);
        if text.trim().is_empty() {
            return serde_json::Value::Null;
        }
        serde_json::from_str(&text)
            .unwrap_or_else(|err| panic!("`{line}` did not print JSON ({err}): {text}"))
    }

    /// A command line to run inside.
    pub fn line(&self, line: &str) -> Cmd {
        if line.contains([
            '|', '&', ';', '<', '>', '(', ')', '$', '`', '\\', '"', '\'', '*', '?', '[', '#', '~', '\n',
        ]) {
            return self.cmd("sh").args(["-ec", line]);
        }
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command line has a program");
        self.cmd(program).args(words)
    }

    /// Reads a kernel switch, for instance `net.ipv4.ip_forward`. Interface names in it must have no dots.
    pub fn sysctl(&self, name: &str) -> String {
        let path = sysctl_path(name);
        self.inside(|| {
            std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("cannot read {path:?}: {err}"))
        })
        .trim()
        .to_owned()
    }

    /// Sets a kernel switch.
    pub fn set_sysctl(&self, name: &str, value: &str) {
        let path = sysctl_path(name);
        self.inside(|| {
            std::fs::write(&path, value).unwrap_or_else(|err| panic!("cannot write {path:?}: {err}"))
        });
    }

    /// A path under which the network namespace can be opened by other processes while this place lives.
    pub fn net_path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd()).into()
    }

    /// The environment of programs run here.
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// The inode of the network namespace, which is its identity.
    pub fn net_inode(&self) -> u64 {
        rustix::fs::fstat(&self.net).unwrap().st_ino
    }

    /// The inode of the mount namespace.
    pub(crate) fn mount_inode(&self) -> u64 {
        rustix::fs::fstat(&self.mounts).unwrap().st_ino
    }

    /// Moves the calling thread inside. Mount namespaces only admit threads that share no working directory.
    fn enter(&self) {
        unshare(CloneFlags::CLONE_FS).unwrap();
        move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount)).unwrap();
        move_into_link_name_space(self.net.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

fn open_ns(kind: &str) -> Arc<OwnedFd> {
    Arc::new(File::open(format!("/proc/thread-self/ns/{kind}")).unwrap().into())
}

fn sysctl_path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name.replace('.', "/"))
}
