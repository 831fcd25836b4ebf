//! Starts the DNS server where none runs: `berthd --roles dns --on-demand`, in a session of its own.
//!
//! One start at a time, by a lock that everybody takes who finds no server; who waited for it finds the server. The
//! server takes the same lock before it ends for want of names, so that nobody talks to one that is about to end without
//! noticing.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_store::Dirs;
use berth_store::lock::{LockError, NamesLock};

use super::call::{LOG, SOCKET};

/// Names the daemon's program, where it does not lie beside this one or on the path.
const PROGRAM_ENV: &str = "BERTH_DAEMON";
const PROGRAM: &str = "berthd";

/// How long it may take until the server listens. It opens its socket before it does anything else.
const LISTENS: Duration = Duration::from_secs(10);

/// Between two looks whether it does.
const PAUSE: Duration = Duration::from_millis(2);

/// What an engine's call of a plugin, or a service manager, gave this process and is not the server's.
const NOT_ITS: &[&str] = &[
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "JOURNAL_STREAM",
    "BERTH_PLUGIN_DIR",
];

/// The server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its program is not there.
    #[error(
        "no DNS server runs, and `berthd` is not beside `{beside}` nor on the path\n\
         install berthd, or name it in BERTH_DAEMON"
    )]
    NoProgram {
        /// This program.
        beside: PathBuf,
    },
    /// Its program could not be run.
    #[error("failed to start `{program}`")]
    Run {
        /// The program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended at once.
    #[error("`{program}` ended before it listened: {last}")]
    Ended {
        /// The program.
        program: PathBuf,
        /// The last line it said.
        last: String,
    },
    /// It runs and does not listen.
    #[error("`{program}` does not listen after {} s", LISTENS.as_secs())]
    Silent {
        /// The program.
        program: PathBuf,
    },
    /// Somebody else starts or ends one and is not done.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Makes sure that a server listens.
pub(crate) fn ensure(dirs: &Dirs) -> Result<(), StartError> {
    let _lock = NamesLock::exclusive(dirs)?;
    if listens(&dirs.run) {
        return Ok(());
    }
    let program = program()?;
    let mut last = None;
    for command in commands(&program, Path::new("/run/systemd/system").is_dir()) {
        match launch(command, &program, dirs) {
            // The one around it is not to be had: without it, then.
            Err(err @ (StartError::Run { .. } | StartError::Ended { .. })) => last = Some(err),
            other => return other,
        }
        // What it said is in the error.
        let _ = std::fs::remove_file(dirs.run.join(LOG));
    }
    Err(last.unwrap_or(StartError::Silent { program }))
}

fn listens(run_dir: &Path) -> bool {
    UnixStream::connect(run_dir.join(SOCKET)).is_ok()
}

/// The daemon beside this program, whatever link this was called by, or on the path.
fn program() -> Result<PathBuf, StartError> {
    if let Some(named) = std::env::var_os(PROGRAM_ENV).filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let own = std::env::current_exe().and_then(std::fs::canonicalize).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/bin", "/usr/bin", "/usr/sbin"].map(PathBuf::from);
    let dirs = own.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&path)).chain(usual);
    let mut found = dirs.map(|dir| dir.join(PROGRAM)).filter(|path| path.is_file());
    found.next().ok_or(StartError::NoProgram { beside: own })
}

/// The ways to run it, best first. Under systemd it would be in the control group of whoever calls, and end with it: it
/// gets a scope of its own, unless the service manager cannot be reached.
fn commands(program: &Path, systemd: bool) -> Vec<Command> {
    let scoped = systemd.then(|| {
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--scope", "--collect", "--"]).arg(program);
        command
    });
    scoped.into_iter().chain([Command::new(program)]).collect()
}

/// Runs it and waits until it listens.
fn launch(mut command: Command, program: &Path, dirs: &Dirs) -> Result<(), StartError> {
    let run = |source| StartError::Run { program: program.to_owned(), source };
    let log = dirs.run.join(LOG);
    let mut said = OpenOptions::new();
    // Begun anew by each start, so that it does not grow without end.
    let said = said.write(true).create(true).truncate(true).mode(0o600).open(&log).map_err(run)?;
    command
        .args(["--roles", "dns", "--on-demand", "--state-dir"])
        .arg(&dirs.state)
        .arg("--run-dir")
        .arg(&dirs.run)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said);
    for name in NOT_ITS {
        command.env_remove(name);
    }
    if std::env::var_os("BERTH_LOG").is_none() {
        command.env("BERTH_LOG", "warn");
    }
    let mut child = command.spawn().map_err(run)?;
    await_listening(&mut child, program, dirs)
}

fn await_listening(child: &mut Child, program: &Path, dirs: &Dirs) -> Result<(), StartError> {
    let until = Instant::now() + LISTENS;
    while Instant::now() < until {
        if listens(&dirs.run) {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            // Its last words: another that serves already is no failure.
            if listens(&dirs.run) {
                return Ok(());
            }
            let said = std::fs::read_to_string(dirs.run.join(LOG)).unwrap_or_default();
            let last = said.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned);
            let last = last.unwrap_or_else(|| status.to_string());
            return Err(StartError::Ended { program: program.to_owned(), last });
        }
        std::thread::sleep(PAUSE);
    }
    // It would come up later, when nobody waits for it any more.
    let _ = child.kill();
    let _ = child.wait();
    Err(StartError::Silent { program: program.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(command: &Command) -> String {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn under_systemd_it_has_a_scope_of_its_own_and_can_do_without() {
        let program = Path::new("/usr/bin/berthd");
        let plain: Vec<_> = commands(program, false).iter().map(line).collect();
        assert_eq!(plain, ["/usr/bin/berthd"]);
        let both: Vec<_> = commands(program, true).iter().map(line).collect();
        assert_eq!(both, ["systemd-run --quiet --scope --collect -- /usr/bin/berthd", "/usr/bin/berthd"]);
    }

    #[test]
    fn one_that_ends_at_once_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs { state: dir.path().to_owned(), run: dir.path().to_owned() };
        let script = dir.path().join("berthd");
        std::fs::write(&script, "#!/bin/sh\necho first >&2\necho 'no such luck' >&2\nexit 3\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let err = launch(Command::new(&script), &script, &dirs).unwrap_err();
        assert!(err.to_string().ends_with("ended before it listened: no such luck"), "{err}");
    }
}
