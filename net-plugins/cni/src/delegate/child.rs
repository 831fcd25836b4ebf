//! One child process: fed, listened to, and never waited for longer than its deadline.
//!
//! A single loop polls the child's three streams and its pidfd; no thread is started. The child's end, not the end of
//! its streams, is what is waited for: a grandchild that keeps a stream open cannot hold the call.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::protocol::io::timespec;

/// The most a plugin may answer, bytes.
const MAX_STDOUT: usize = 1 << 20;

/// How much of the end of standard error is kept for an error's details, bytes.
const STDERR_TAIL: usize = 4096;

/// How a child ended.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    /// The end of what was passed on.
    pub(super) stderr_tail: Vec<u8>,
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChildError {
    #[error("cannot be started")]
    Start(#[source] io::Error),
    #[error("did not end in time and was killed")]
    Deadline,
    #[error("answered more than 1 MiB and was killed")]
    TooMuch,
    #[error("cannot be waited for")]
    Io(#[from] io::Error),
}

impl From<Errno> for ChildError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Runs `command` with `stdin`, passing its standard error on to `stderr`.
pub(super) fn run(
    command: &mut Command,
    stdin: &[u8],
    stderr: &mut dyn Write,
    deadline: Instant,
) -> Result<Output, ChildError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(start(command, deadline)?);
    let mut streams = Streams::new(&mut running.0, stdin, stderr)?;
    let pidfd = pidfd_open(Pid::from_child(&running.0), PidfdFlags::empty())?;
    while !streams.step(&pidfd, deadline)? {}
    // The child has ended, so this does not block.
    let status = running.0.wait()?;
    let Streams { answer, tail, .. } = streams;
    Ok(Output { status, stdout: answer, stderr_tail: tail })
}

/// Starts `command`, again and again while the program's file is open for writing: it is being installed.
fn start(command: &mut Command, deadline: Instant) -> Result<Child, ChildError> {
    let mut pause = Duration::from_millis(5);
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() + pause < deadline =>
            {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(500));
            }
            started => return started.map_err(ChildError::Start),
        }
    }
}

/// A child that does not outlive its call.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // After `wait` both do nothing. Nobody is left to tell of a failure.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The parent's ends of the child's streams; a closed one is `None`.
struct Streams<'a> {
    stdin: Option<ChildStdin>,
    unwritten: &'a [u8],
    stdout: Option<ChildStdout>,
    answer: Vec<u8>,
    stderr: Option<ChildStderr>,
    pass_on: &'a mut dyn Write,
    tail: Vec<u8>,
}

impl<'a> Streams<'a> {
    fn new(child: &mut Child, unwritten: &'a [u8], pass_on: &'a mut dyn Write) -> Result<Self, ChildError> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        nonblocking(stdin.as_ref())?;
        nonblocking(stdout.as_ref())?;
        nonblocking(stderr.as_ref())?;
        Ok(Self { stdin, unwritten, stdout, answer: Vec::new(), stderr, pass_on, tail: Vec::new() })
    }

    /// Waits for any of the streams or the end of the child; gives whether it has ended. Streams do not block, so
    /// all are tried whichever is ready.
    fn step(&mut self, pidfd: &OwnedFd, deadline: Instant) -> Result<bool, ChildError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Asked here as well, because a child that never stops writing never lets `poll` time out.
            return Err(ChildError::Deadline);
        }
        let ended = {
            let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
            let streams: [(Option<BorrowedFd<'_>>, PollFlags); 3] = [
                (self.stdin.as_ref().map(AsFd::as_fd), PollFlags::OUT),
                (self.stdout.as_ref().map(AsFd::as_fd), PollFlags::IN),
                (self.stderr.as_ref().map(AsFd::as_fd), PollFlags::IN),
            ];
            fds.extend(
                streams.into_iter().filter_map(|(fd, flags)| Some(PollFd::from_borrowed_fd(fd?, flags))),
            );
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(0) => return Err(ChildError::Deadline),
                Err(Errno::INTR) => return Ok(false),
                Ok(_) => (),
                Err(errno) => return Err(errno.into()),
            }
            fds.first().is_some_and(|pidfd| !pidfd.revents().is_empty())
        };
        self.feed()?;
        self.listen()?;
        self.pass_on_stderr()?;
        Ok(ended)
    }

    /// Writes what the pipe takes. A plugin need not read its configuration, so a broken pipe is its good right.
    fn feed(&mut self) -> Result<(), ChildError> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        while !self.unwritten.is_empty() {
            match stdin.write(self.unwritten) {
                Ok(written) => self.unwritten = self.unwritten.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.stdin = None;
        Ok(())
    }

    fn listen(&mut self) -> Result<(), ChildError> {
        let answer = &mut self.answer;
        let open = drain(self.stdout.as_mut(), |bytes| {
            answer.extend_from_slice(bytes);
            if answer.len() > MAX_STDOUT { Err(ChildError::TooMuch) } else { Ok(()) }
        })?;
        if !open {
            self.stdout = None;
        }
        Ok(())
    }

    fn pass_on_stderr(&mut self) -> Result<(), ChildError> {
        let (pass_on, tail) = (&mut *self.pass_on, &mut self.tail);
        let open = drain(self.stderr.as_mut(), |bytes| {
            // A closed standard error of our own must not fail the call.
            let _ = pass_on.write_all(bytes);
            tail.extend_from_slice(bytes);
            tail.drain(..tail.len().saturating_sub(STDERR_TAIL));
            Ok(())
        })?;
        if !open {
            self.stderr = None;
        }
        Ok(())
    }
}

/// Reads what there is; gives whether the stream is still open. Bounded, so that a child that writes without end
/// leaves the others their turn and the deadline its effect.
fn drain(
    stream: Option<&mut impl Read>,
    mut take: impl FnMut(&[u8]) -> Result<(), ChildError>,
) -> Result<bool, ChildError> {
    let Some(stream) = stream else { return Ok(false) };
    let mut buffer = [0_u8; 16 * 1024];
    for _ in 0..64 {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => take(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn nonblocking(stream: Option<&impl AsFd>) -> Result<(), ChildError> {
    match stream {
        Some(stream) => Ok(rustix::io::ioctl_fionbio(stream, true)?),
        None => Ok(()),
    }
}
