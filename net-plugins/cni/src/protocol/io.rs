//! What a plugin process has from outside: environment, standard streams, exit status. Tests bring their own.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a runtime may take to write its configuration. libcni writes it at once; whoever types it by hand has
/// time enough.
const STDIN_DEADLINE: Duration = Duration::from_secs(30);

/// The outside of one call.
pub struct Io<'a> {
    /// Reads an environment variable.
    pub getenv: &'a dyn Fn(&str) -> Option<OsString>,
    /// The configuration.
    pub stdin: &'a mut dyn Read,
    /// The answer: one JSON document or nothing.
    pub stdout: &'a mut dyn Write,
    /// Words for people.
    pub stderr: &'a mut dyn Write,
}

/// How the process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Exit status 0.
    Success,
    /// Exit status 1; the error is on standard output.
    Failure,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::SUCCESS,
            Outcome::Failure => Self::FAILURE,
        }
    }
}

/// Calls `body` with the process's own environment and streams; standard input has a deadline.
pub fn with_process_io<T>(body: impl FnOnce(&mut Io<'_>) -> T) -> T {
    let mut stdin = DeadlineReader::new(io::stdin(), STDIN_DEADLINE);
    let (mut stdout, mut stderr) = (io::stdout(), io::stderr());
    body(&mut Io {
        getenv: &|name| std::env::var_os(name),
        stdin: &mut stdin,
        stdout: &mut stdout,
        stderr: &mut stderr,
    })
}

/// A descriptor that is read until a deadline, counted from the first read.
#[derive(Debug)]
pub struct DeadlineReader<F> {
    inner: F,
    limit: Duration,
    deadline: Option<Instant>,
}

impl<F: AsFd> DeadlineReader<F> {
    /// Reads from `inner` for at most `limit`. Only the descriptor is used: nothing buffered in `inner` is seen.
    pub fn new(inner: F, limit: Duration) -> Self {
        Self { inner, limit, deadline: None }
    }
}

impl<F: AsFd> Read for DeadlineReader<F> {
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] once the deadline has passed with nothing to read.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.limit);
        let fd = self.inner.as_fd();
        loop {
            let left = timespec(deadline.saturating_duration_since(Instant::now()));
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(rustix::io::read(fd, buf)?),
                Err(rustix::io::Errno::INTR) => (),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// `duration` as the kernel wants it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_writer_is_given_up_at_the_deadline() {
        let (reader, writer) = io::pipe().unwrap();
        let mut input = DeadlineReader::new(reader, Duration::from_millis(20));
        (&writer).write_all(b"{").unwrap();
        let mut text = Vec::new();
        let error = input.read_to_end(&mut text).unwrap_err();
        assert_eq!((error.kind(), text.as_slice()), (io::ErrorKind::TimedOut, &b"{"[..]));
        drop(writer);
    }

    #[test]
    fn a_closed_writer_ends_the_input() {
        let (reader, writer) = io::pipe().unwrap();
        (&writer).write_all(b"{}").unwrap();
        drop(writer);
        let mut text = String::new();
        DeadlineReader::new(reader, Duration::from_secs(5)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "{}");
    }
}
