//! Faults at every system call of a program that knows nothing of it, by `strace`.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use crate::Host;

/// No program of berth makes more calls than this; a sweep that gets here would never end.
const LIMIT: u32 = 5_000;

/// What happens at the chosen system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The program is killed before the call is made.
    Kill,
    /// The call is not made and fails with this error, for instance `"ENOSPC"`.
    Error(&'static str),
}

/// One fault of a sweep: at the `when`th call of the set, counted by thread.
#[derive(Debug, Clone)]
pub struct Injection {
    fault: Fault,
    syscalls: String,
    when: u32,
    log: PathBuf,
}

impl Injection {
    /// Which call this is about, from 1.
    pub fn when(&self) -> u32 {
        self.when
    }

    /// Whether the fault came about: a program that makes fewer calls ends untouched.
    pub fn happened(&self) -> bool {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        match self.fault {
            Fault::Kill => log.contains("killed by SIGKILL"),
            Fault::Error(_) => log.contains("(INJECTED)"),
        }
    }

    /// The system call that was hit, with its arguments.
    pub fn hit(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rfind(|line| !line.contains("+++")).unwrap_or("").to_owned();
        log.lines().find(|line| line.contains("(INJECTED)")).map(str::to_owned).unwrap_or(last)
    }

    /// The words before the program's own.
    pub(crate) fn strace_words(&self) -> Vec<OsString> {
        let Self { fault, syscalls, when, log } = self;
        let action = match fault {
            Fault::Kill => "signal=KILL".to_owned(),
            Fault::Error(errno) => format!("error={errno}"),
        };
        let trace = format!("trace={syscalls}");
        let inject = format!("inject={syscalls}:{action}:when={when}");
        let words = [
            "strace",
            "-f",
            "-qq",
            "-o",
            log.to_str().expect("a plain path"),
            "-e",
            &trace,
            "-e",
            &inject,
            "--",
        ];
        words.iter().map(OsString::from).collect()
    }
}

/// Runs `round` with a fault at the first call of `syscalls`, at the second, and so on, until the fault does not come about any
/// more. `round` runs the program with [`crate::Cmd::inject`] or [`crate::Call::inject`], exactly once, and asserts that
/// whatever became of it, the host converges. Returns how many faults there were.
pub fn sweep(host: &Host, fault: Fault, syscalls: &[&str], mut round: impl FnMut(&Injection)) -> u32 {
    let log = host.dir().join(format!("strace-{}", std::process::id()));
    for when in 1..LIMIT {
        // A log of the round before would be taken for this one's.
        let _ = fs::remove_file(&log);
        let injection = Injection { fault, syscalls: syscalls.join(","), when, log: log.clone() };
        round(&injection);
        assert!(log.exists(), "round {when} ran nothing under its injection");
        if !injection.happened() {
            return when - 1;
        }
    }
    panic!("the program still made calls of {syscalls:?} after {LIMIT} faults");
}
