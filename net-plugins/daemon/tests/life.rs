//! The daemon as a process: its sockets, its signals, its service manager.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

struct Place {
    dir: tempfile::TempDir,
    notify: UnixDatagram,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let notify = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        notify.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { dir, notify }
    }

    fn plugins(&self) -> std::path::PathBuf {
        self.dir.path().join("plugins")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berthd"));
        command
            .args(["--roles", "docker"])
            .env("BERTH_STATE_DIR", self.dir.path().join("state"))
            .env("BERTH_RUN_DIR", self.dir.path().join("run"))
            .env("BERTH_PLUGIN_DIR", self.plugins())
            .env("NOTIFY_SOCKET", self.dir.path().join("notify"))
            .stderr(Stdio::piped());
        command
    }

    /// Starts it and waits until it says that it is ready.
    fn start(&self) -> Child {
        let child = self.command().spawn().unwrap();
        self.await_word("READY=1");
        child
    }

    fn await_word(&self, word: &str) {
        let mut text = [0_u8; 64];
        let length = self.notify.recv(&mut text).unwrap();
        assert_eq!(String::from_utf8_lossy(&text[..length]), word);
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn activate(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .write_all(
            b"POST /Plugin.Activate HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_stopped_daemon_leaves_no_socket_and_a_killed_one_is_replaced() {
    let place = Place::new();
    let mut killed = place.start();
    assert!(activate(&place.plugins().join("rnone.sock")).contains("NetworkDriver"));
    signal(&killed, Signal::KILL);
    killed.wait().unwrap();
    assert!(names(&place.plugins()).contains(&"rnone.sock".to_owned()), "SIGKILL leaves the stale socket");

    for end in [Signal::TERM, Signal::INT] {
        let mut child = place.start();
        assert!(activate(&place.plugins().join("rnone.sock")).contains("NetworkDriver"));
        signal(&child, end);
        assert!(child.wait().unwrap().success());
        place.await_word("STOPPING=1");
        assert_eq!(names(&place.plugins()), Vec::<String>::new());
    }
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let mut first = place.start();
    let second = place.command().output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("is served by another process"), "{said}");
    assert!(activate(&place.plugins().join("rnone.sock")).contains("NetworkDriver"));
    signal(&first, Signal::TERM);
    assert!(first.wait().unwrap().success());
}

#[test]
fn systemds_sockets_are_served_and_stay() {
    let place = Place::new();
    std::fs::create_dir(place.plugins()).unwrap();
    let path = place.plugins().join("rnone.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // The shell puts the socket where sd_listen_fds(3) looks, and becomes the daemon.
    let handed = std::os::fd::OwnedFd::from(listener);
    let mut starter = Command::new("sh");
    starter
        .args(["-c", "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --roles docker"])
        .arg(env!("CARGO_BIN_EXE_berthd"))
        .stdin(handed);
    for (key, value) in place.command().get_envs() {
        starter.env(key, value.unwrap());
    }
    let mut child = starter.spawn().unwrap();
    place.await_word("READY=1");
    assert!(activate(&path).contains("NetworkDriver"));
    signal(&child, Signal::TERM);
    assert!(child.wait().unwrap().success());
    assert_eq!(names(&place.plugins()), ["rnone.sock"], "systemd's own socket is not the daemon's to remove");
}
