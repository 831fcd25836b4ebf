//! berth's daemon on a private host.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::{Host, Proc, berthd_binary, patience};

/// How long it may take to start or to end.
const READY: Duration = Duration::from_secs(20);

/// A daemon with its directories and sockets where they are by default, in the host's own `/run` and `/var/lib`.
#[derive(Debug)]
pub struct Berthd<'h> {
    host: &'h Host,
    args: Vec<String>,
    records: Records,
    notify: (PathBuf, UnixDatagram),
    daemon: Option<Proc>,
}

/// Where the records are.
#[derive(Debug, Clone, Copy)]
enum Records {
    Default,
    OfTheKit,
}

impl<'h> Berthd<'h> {
    /// Starts it, for instance with `["--roles", "docker,keeper"]`, and waits until it says that it is ready.
    pub fn new(host: &'h Host, args: &[&str]) -> Self {
        Self::with(host, args, Records::Default)
    }

    /// Like [`Berthd::new`], with the records where the plugins have them that the kit calls.
    pub fn beside_cni(host: &'h Host, args: &[&str]) -> Self {
        Self::with(host, args, Records::OfTheKit)
    }

    fn with(host: &'h Host, args: &[&str], records: Records) -> Self {
        let path = host.dir().join("berthd-notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(patience(READY))).unwrap();
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut berthd = Self { host, args, records, notify: (path, socket), daemon: None };
        berthd.start();
        berthd
    }

    /// Starts it and waits until it says that it is ready.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "berthd runs already");
        let cmd = self.host.cmd(berthd_binary()).args(&self.args);
        let cmd = match self.records {
            Records::Default => super::default_records(cmd),
            Records::OfTheKit => cmd,
        };
        let cmd =
            cmd.env("NOTIFY_SOCKET", &self.notify.0).env("BERTH_LOG", "info,berth_core=debug,berthd=debug");
        let daemon = self.daemon.insert(cmd.spawn());
        loop {
            let mut word = [0; 64];
            match self.notify.1.recv(&mut word) {
                Ok(len) if word[..len] == *b"READY=1" => break,
                // What the daemon before this one said when it ended.
                Ok(_) => (),
                // Stopped and let go on, with everything else on a busy machine.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
                Err(error) => panic!("berthd is not ready: {error}: {}", daemon.complaints()),
            }
        }
    }

    /// Kills it, as a crash would.
    pub fn crash(&mut self) {
        self.daemon.take().expect("berthd runs").kill();
    }

    /// Ends it as a service manager does.
    #[track_caller]
    pub fn stop(&mut self) {
        let daemon = self.daemon.take().expect("berthd runs");
        daemon.signal(Signal::TERM);
        let ran = daemon.wait(patience(READY));
        assert!(ran.status.success(), "berthd ended badly: {ran}");
    }

    /// Stops it in its tracks, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        self.daemon.as_ref().expect("berthd runs").signal(signal);
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.daemon.is_some()
    }

    /// What it said since it was started last.
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Proc::complaints).unwrap_or_default()
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Proc::id)
    }
}

impl Drop for Berthd<'_> {
    fn drop(&mut self) {
        if let (Some(daemon), true) = (&self.daemon, std::thread::panicking()) {
            super::docker::show("berthd", &daemon.complaints());
        }
        let _ = fs::remove_file(&self.notify.0);
    }
}
