//! Programs run inside a place: to the end, with a deadline, or in the background until dropped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::{Injection, Place, patience};

/// No program of a test takes longer, unless it says so.
const DEADLINE: Duration = Duration::from_secs(30);

/// A program about to be run inside a place.
#[derive(Debug)]
#[must_use = "nothing runs before `run`, `output` or `spawn`"]
pub struct Cmd {
    place: Place,
    /// The program and its arguments.
    words: Vec<OsString>,
    /// Changes to the place's environment; `None` removes.
    env: Vec<(OsString, Option<OsString>)>,
    clear: bool,
    stdin: Vec<u8>,
    deadline: Duration,
}

/// How a program ended and what it said.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command line.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// From before the start to after the end.
    pub elapsed: Duration,
}

/// A program in the background; killed when this is dropped.
#[derive(Debug)]
pub struct Proc {
    line: String,
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: File,
}

impl Cmd {
    pub(crate) fn new(place: Place, program: &OsStr) -> Self {
        let words = vec![program.to_owned()];
        Self { place, words, env: Vec::new(), clear: false, stdin: Vec::new(), deadline: DEADLINE }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.words.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.words.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes a variable from the environment.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), None));
        self
    }

    /// Starts from an empty environment instead of the test's and the place's.
    pub fn env_clear(mut self) -> Self {
        self.clear = true;
        self
    }

    /// What the program reads; nothing by default.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// How long the program may run; 30 seconds by default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs the program under `strace`, which does to it what `injection` says.
    pub fn inject(self, injection: &Injection) -> Self {
        self.wrapped(&injection.strace_words())
    }

    /// Runs the program by another one: these words come before its own, for instance `["time", "-v"]`.
    pub fn wrapped(mut self, words: &[impl AsRef<OsStr>]) -> Self {
        let words: Vec<OsString> = words.iter().map(|word| word.as_ref().to_owned()).collect();
        self.words.splice(0..0, words);
        self
    }

    /// Runs the program and requires that it succeeds. Returns what it printed, without the last newline.
    pub fn run(self) -> String {
        self.output().success()
    }

    /// Runs the program to its end, however it ends. A program that outlives its deadline is killed and fails the test.
    pub fn output(mut self) -> Ran {
        let line = self.text();
        let deadline = patience(self.deadline);
        let (mut stdout, mut stderr) = (memory(b""), memory(b""));
        // Written before the clock starts and kept until it has stopped: the program is measured, not how it is fed.
        let stdin = self.input();
        self.stdin = Vec::new();
        let started = Instant::now();
        let mut child = self.start(&stdin, Stdio::from(stdout.try_clone().unwrap()), &stderr);
        let ended = ended_within(&child, deadline);
        if !ended {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        let elapsed = started.elapsed();
        let ran = Ran { line, status, stdout: text_of(&mut stdout), stderr: text_of(&mut stderr), elapsed };
        assert!(ended, "`{}` was still running after {deadline:?}: {ran}", ran.line);
        ran
    }

    /// Starts the program in the background.
    pub fn spawn(self) -> Proc {
        let (line, stderr) = (self.text(), memory(b""));
        let stdin = self.input();
        let mut child = self.start(&stdin, Stdio::piped(), &stderr);
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Proc { line, child, stdout, stderr }
    }

    /// What the program reads. Files in memory instead of pipes, here and for its output: nothing blocks when they fill,
    /// and a daemon that keeps them open does not keep the test waiting.
    fn input(&self) -> Option<File> {
        (!self.stdin.is_empty()).then(|| memory(&self.stdin))
    }

    fn start(self, stdin: &Option<File>, stdout: Stdio, stderr: &File) -> Child {
        let line = self.text();
        let Self { place, words, env, clear, stdin: _, deadline: _ } = self;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if clear {
            command.env_clear();
        } else {
            command.envs(place.env().iter().map(|(key, value)| (key, value)));
        }
        for (key, value) in env {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        let stdin = stdin.as_ref().map_or_else(Stdio::null, |file| Stdio::from(file.try_clone().unwrap()));
        command.stdin(stdin).stdout(stdout).stderr(stderr.try_clone().unwrap());
        // A child is born in the namespaces of the thread that starts it.
        place.inside(|| command.spawn()).unwrap_or_else(|err| panic!("cannot run `{line}`: {err}"))
    }

    fn text(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }
}

impl Ran {
    /// Requires success and returns what was printed, without the last newline.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status.success(), "`{}` failed: {self}", self.line);
        self.stdout.strip_suffix('\n').map(str::to_owned).unwrap_or(self.stdout)
    }

    /// The exit code, if the program was not killed.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that killed the program, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} in {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.status, self.elapsed, self.stdout, self.stderr
        )
    }
}

impl Proc {
    /// The program's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line that the program prints. The end of its output fails the test.
    #[track_caller]
    pub fn wait_line(&mut self) -> String {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line).unwrap();
        assert!(read > 0, "`{}` ended before printing a line: {}", self.line, text_of(&mut self.stderr));
        line.trim_end().to_owned()
    }

    /// What the program wrote to its standard error so far.
    pub fn complaints(&self) -> String {
        // Read where it is written meanwhile: the position is shared with the program, so it is not moved.
        let len = self.stderr.metadata().map_or(0, |meta| meta.len());
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = self.stderr.read_at(&mut bytes, 0).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    /// Sends `signal` to the program.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until the program ends by itself, at most `deadline`.
    #[track_caller]
    pub fn wait(mut self, deadline: Duration) -> Ran {
        let started = Instant::now();
        assert!(ended_within(&self.child, deadline), "`{}` was still running after {deadline:?}", self.line);
        let status = self.child.wait().unwrap();
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let stderr = text_of(&mut self.stderr);
        Ran { line: self.line.clone(), status, stdout, stderr, elapsed: started.elapsed() }
    }

    /// Kills the program and waits for its end.
    pub fn kill(&mut self) {
        // One that has ended already is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ended_within(child: &Child, deadline: Duration) -> bool {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let timeout = Timespec::try_from(deadline).unwrap();
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

/// A file in memory that starts with `content`.
fn memory(content: &[u8]) -> File {
    let mut file = File::from(memfd_create("berth-test", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(content).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

/// All that was written to `file`; the position is shared with whoever wrote.
fn text_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
