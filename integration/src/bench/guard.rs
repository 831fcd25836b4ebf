//! A bench that leaves nothing, however it ends: it runs in a process of its own, and the one that started it takes away what is
//! left of it. A panic of an optimised program takes nothing away by itself.

#![expect(clippy::print_stderr, reason = "what was left, and what could not be taken away, must be seen")]

use std::fs;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{
    Pid, WaitOptions, getpid, kill_process, set_child_subreaper, set_parent_process_death_signal, waitpid,
};
use tempfile::TempDir;

use crate::Machine;
use crate::engine::Cgroup;

/// Says to this program that it is the process that measures.
const INSIDE: &str = "BERTH_BENCH_INSIDE";

/// How long what was killed may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// Runs `measure` in a process of its own, and takes away what is left of it: processes, control groups, directories. That it
/// failed, or that something stayed, is said and is the program's failure.
pub fn guarded(measure: impl FnOnce()) -> ExitCode {
    if std::env::var_os(INSIDE).is_some() {
        // What the other process waits for is blocked there, and what it starts inherits that.
        SigSet::all().thread_unblock().unwrap();
        // Who would take away what is left is gone then.
        set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
        measure();
        return ExitCode::SUCCESS;
    }
    let machine = Machine::observe();
    // Daemons whose parent is gone become children of this process, and so can be found.
    set_child_subreaper(Some(getpid())).unwrap();
    let signals: SigSet =
        [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().unwrap();
    let dir = TempDir::with_prefix("berth-bench-").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .env("TMPDIR", dir.path())
        .spawn()
        .unwrap();
    let status = wait(&mut child, &signals);
    let mut stayed = take_away(child.id());
    if let Err(err) = dir.close() {
        stayed.push(format!("the bench's directory: {err}"));
    }
    stayed.extend(difference(&machine));
    for what in &stayed {
        eprintln!("left behind and not taken away: {what}");
    }
    if status.success() && stayed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Waits for the child's end; whoever wants this process to end wants that.
fn wait(child: &mut Child, signals: &SigSet) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if signals.wait().unwrap() != Signal::SIGCHLD {
            child.kill().unwrap();
        }
    }
}

/// Ends what the process `bench` left running and removes its control groups. Returns what cannot be taken away.
fn take_away(bench: u32) -> Vec<String> {
    let started = Instant::now();
    let mut ended = std::collections::BTreeMap::new();
    let mut stayed = Vec::new();
    loop {
        let children = children();
        if children.is_empty() {
            break;
        }
        if started.elapsed() > GONE {
            stayed.extend(children.iter().map(|pid| format!("process {}", pid.as_raw_nonzero())));
            break;
        }
        for pid in children {
            // What has ended has no command line any more.
            let line =
                fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            if !line.is_empty() {
                ended.insert(pid.as_raw_nonzero(), line.replace('\0', " "));
            }
            // A child's number is nobody else's until it was waited for.
            let _ = kill_process(pid, rustix::process::Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for line in ended.values() {
        eprintln!("the bench left a process, which was ended: {line}");
    }
    let groups = Cgroup::remove_all_of(bench);
    stayed.extend(groups.iter().map(|path| format!("control group {}", path.display())));
    stayed
}

/// The processes that are children of this one.
fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().to_string();
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which may have spaces and brackets: the state and the parent, proc(5).
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        parent == Some(&own)
    };
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}

/// How the machine differs from before, once the kernel has had the time to remove what nobody uses.
fn difference(before: &Machine) -> Option<String> {
    let started = Instant::now();
    loop {
        let difference = before.difference(&Machine::observe());
        if difference.is_empty() {
            return None;
        }
        if started.elapsed() > GONE {
            return Some(format!("on the machine (- gone, + left)\n{difference}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
