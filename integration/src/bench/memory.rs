//! What processes have in memory, in MB of a million bytes.

use crate::cmd::Cmd;

/// What a process that runs has in memory, MB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Now.
    pub settled: f64,
    /// The most since its start.
    pub peak: f64,
}

impl Memory {
    /// Of process `pid`: its pages as they are counted one by one (`/proc/PID/smaps_rollup`), and `VmHWM`. The kernel keeps `VmRSS` per
    /// processor, and it may be off by a megabyte (proc_pid_status(5)).
    pub fn of(pid: u32) -> Self {
        let megabytes = |file: &str, name: &str| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            of_kib(line.expect("a process that runs has memory").trim().trim_end_matches(" kB"))
        };
        Self { settled: megabytes("smaps_rollup", "Rss:"), peak: megabytes("status", "VmHWM:") }
    }
}

/// The most that a process has in memory from its start to its end, MB. GNU's `time` starts it: whoever starts a process
/// has its own memory counted as the process's, because that is what the process had before it became its program.
pub fn peak(cmd: Cmd) -> f64 {
    let ran = cmd.wrapped(&["/usr/bin/time", "-f", "%M"]).output();
    assert!(ran.status.success(), "`{}` failed: {ran}", ran.line);
    of_kib(ran.stderr.trim().lines().last().expect("`time` prints a line"))
}

/// The kernel's "kB" are 1,024 bytes.
fn of_kib(text: &str) -> f64 {
    text.parse::<f64>().unwrap_or_else(|err| panic!("{text:?} is no number: {err}")) * 1024.0 / 1e6
}
