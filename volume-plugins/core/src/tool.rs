//! Programs that make and change file systems: by absolute path, with a clean environment and a time limit.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{ffi::OsStr, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Where the tools are looked for. Never by `PATH`, and never in a container's files.
const DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// How long one may take unless `BERTH_TOOL_TIMEOUT` (seconds) says otherwise: below the two minutes that Docker waits.
const LIMIT: Duration = Duration::from_secs(60);

/// How much of what a tool says is shown.
const SAID_MAX: u64 = 4096;

/// Why a tool did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("`{tool}` is not installed\nDebian's package of it is {package}")]
    Missing {
        /// The program.
        tool: &'static str,
        /// Where it comes from.
        package: &'static str,
    },
    /// It could not be started or watched.
    #[error("cannot run `{}`", path.display())]
    Run {
        /// The program.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("`{tool}` failed ({status}): {said}")]
    Failed {
        /// The program.
        tool: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it said, on one line.
        said: String,
    },
    /// It did not end in time and was killed.
    #[error("`{tool}` was killed after {} s: {said}\nBERTH_TOOL_TIMEOUT changes the limit", limit.as_secs())]
    TimedOut {
        /// The program.
        tool: &'static str,
        /// How long it had.
        limit: Duration,
        /// What it said so far, on one line.
        said: String,
    },
}

/// Runs `tool` to its end.
pub(crate) fn run_tool(tool: &'static str, package: &'static str, args: &[&OsStr]) -> Result<(), ToolError> {
    run_tool_that(tool, package, args, |status| status.success())
}

/// Runs `tool` to its end; `is_fine` says whether how it ended is what was wanted.
pub(crate) fn run_tool_that(
    tool: &'static str,
    package: &'static str,
    args: &[&OsStr],
    is_fine: impl FnOnce(ExitStatus) -> bool,
) -> Result<(), ToolError> {
    let path = DIRS.iter().map(|dir| Path::new(dir).join(tool)).find(|path| path.is_file());
    let path = path.ok_or(ToolError::Missing { tool, package })?;
    let failed = |source| ToolError::Run { path: path.clone(), source };
    // A file in memory: a tool that says much never waits for somebody to read, and what it leaves running holds nothing.
    let mut said =
        File::from(memfd_create("berth-tool", MemfdFlags::CLOEXEC).map_err(|err| failed(err.into()))?);
    let streams = said.try_clone().and_then(|out| Ok((out, said.try_clone()?))).map_err(failed)?;
    let mut child = Command::new(&path)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(streams.0)
        .stderr(streams.1)
        // A group of its own, so that what it started ends with it.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let limit = limit();
    let in_time = ends_within(&child, limit).map_err(failed);
    if !matches!(in_time, Ok(true)) {
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    let status = child.wait().map_err(failed)?;
    if !in_time? {
        return Err(ToolError::TimedOut { tool, limit, said: text_of(&mut said) });
    }
    if is_fine(status) { Ok(()) } else { Err(ToolError::Failed { tool, status, said: text_of(&mut said) }) }
}

fn limit() -> Duration {
    let given = std::env::var("BERTH_TOOL_TIMEOUT").ok().and_then(|text| text.parse().ok());
    given.map_or(LIMIT, Duration::from_secs)
}

fn ends_within(child: &Child, limit: Duration) -> io::Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => (),
            other => return Ok(other? > 0),
        }
    }
}

fn text_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is not told; how the tool ended is.
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.by_ref().take(SAID_MAX).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it said nothing".to_owned() } else { lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let err = run_tool("mkfs.nothing", "nothing-progs", &[]).unwrap_err();
        assert!(err.to_string().contains("nothing-progs"), "{err}");
    }

    #[test]
    fn what_a_tool_says_is_shown() {
        let err =
            run_tool("sh", "dash", &["-c", "echo to stdout; echo to stderr >&2; exit 3"].map(OsStr::new));
        let text = err.unwrap_err().to_string();
        assert!(text.contains("exit status: 3") && text.contains("to stdout; to stderr"), "{text}");
    }

    #[test]
    fn a_tool_sees_nothing_of_this_process() {
        let script = "test -z \"$CARGO\" && test \"$PWD\" = / && ! test -e /proc/self/fd/3";
        run_tool("sh", "dash", &["-c", script].map(OsStr::new)).unwrap();
    }
}
