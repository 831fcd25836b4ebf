//! Running `nft`: by absolute path, with an empty environment, within a deadline.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Where `nft` may be. Never `PATH`: whoever calls a plugin chooses that.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/bin"];
/// nft takes milliseconds; hosts with very large rulesets of others have been seen to take seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// Lines of nft's errors that are kept.
const ERROR_LINES: usize = 6;

/// Why `nft` did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no `nft`.
    #[error("cannot find nft in {}\ninstall the Debian package `nftables`", DIRECTORIES.join(", "))]
    Missing,
    /// It could not be started or talked to.
    #[error("cannot run {}", path.display())]
    Run {
        /// The binary.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It reported an error.
    #[error("nft failed: {message}")]
    Failed {
        /// Its first lines on stderr.
        message: String,
    },
    /// It did not end in time and was killed.
    #[error("nft did not end within {} seconds", DEADLINE.as_secs())]
    Timeout,
    /// What it printed is not JSON.
    #[error("cannot read what nft printed")]
    Output {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Runs `nft` with `args` and `input`, and returns what it printed.
pub(crate) fn run(args: &[&str], input: &str) -> Result<String, NftError> {
    let path = DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join("nft"))
        .find(|path| path.is_file())
        .ok_or(NftError::Missing)?;
    let result = run_path(&path, args, input.to_owned());
    if let Err(NftError::Failed { message }) = &result {
        log_script(input, message);
    }
    result
}

fn run_path(path: &Path, args: &[&str], input: String) -> Result<String, NftError> {
    let failed = |source| NftError::Run { path: path.to_owned(), source };
    let mut child = Command::new(path)
        .args(args)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let pipes = Pipes::of(&mut child, input);
    let ended = match &pipes {
        Ok(_) => wait(&mut child).map_err(failed),
        Err(_) => Ok(false),
    };
    if !matches!(ended, Ok(true)) {
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    let (stdout, stderr) = pipes.map_err(failed)?.join();
    match ended? {
        false => Err(NftError::Timeout),
        true if status.success() => Ok(stdout),
        true => {
            let lines: Vec<_> =
                stderr.lines().map(str::trim).filter(|line| !line.is_empty()).take(ERROR_LINES).collect();
            let message = if lines.is_empty() { status.to_string() } else { lines.join("; ") };
            Err(NftError::Failed { message })
        }
    }
}

/// A thread per pipe: whatever order nft reads and writes in, none of them fills up.
struct Pipes {
    writing: Option<JoinHandle<()>>,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Pipes {
    fn of(child: &mut Child, input: String) -> io::Result<Self> {
        let write = |mut pipe: ChildStdin| {
            Builder::new().spawn(move || {
                // A nft that has stopped reading says why on stderr.
                let _ = pipe.write_all(input.as_bytes());
            })
        };
        Ok(Self {
            writing: child.stdin.take().map(write).transpose()?,
            stdout: child.stdout.take().map(reader).transpose()?,
            stderr: child.stderr.take().map(reader).transpose()?,
        })
    }

    /// What came out, once nft has ended.
    fn join(self) -> (String, String) {
        if let Some(thread) = self.writing {
            let _ = thread.join();
        }
        (collect(self.stdout), collect(self.stderr))
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> io::Result<JoinHandle<Vec<u8>>> {
    Builder::new().spawn(move || {
        let mut text = Vec::new();
        let _ = pipe.read_to_end(&mut text);
        text
    })
}

fn collect(thread: Option<JoinHandle<Vec<u8>>>) -> String {
    let bytes = thread.and_then(|thread| thread.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end of `child`; `false` when the deadline came first.
fn wait(child: &mut Child) -> io::Result<bool> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let end = Instant::now() + DEADLINE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => (),
            Err(err) => return Err(err.into()),
        }
    }
}

/// The script that failed, with line numbers, for whoever turns debugging on.
fn log_script(script: &str, message: &str) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    tracing::debug!(message, "nft refused the script");
    let pretty = serde_json::from_str::<serde_json::Value>(script)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| script.to_owned());
    for (index, line) in pretty.lines().enumerate() {
        tracing::debug!("{:4} {line}", index + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_script_is_an_error_with_its_first_lines() {
        let err = run(&["-j", "-f", "-"], "{\"nftables\":[{\"bogus\":1}]}").unwrap_err();
        let NftError::Failed { message } = &err else { panic!("{err}") };
        assert!(message.contains("bogus") || message.contains("Error"), "{message}");
    }

    #[test]
    fn a_missing_binary_names_the_package() {
        assert!(NftError::Missing.to_string().contains("package `nftables`"));
    }
}
