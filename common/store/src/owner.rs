//! Which process wrote a row, so that a half-done change of a dead one can be told from one under way.

use std::io;

/// A process, by number and start time: a number that was given to another process since does not match.
///
/// Processes are compared within one PID namespace. A berth in another one that shares the run directory would look
/// dead; engines start plugins in the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot: field 22 of `/proc/<pid>/stat` (proc_pid_stat(5)).
    pub start: u64,
}

impl Owner {
    /// This process.
    pub fn current() -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        // Without /proc the start time is 0, which `is_alive` never finds equal; /proc is missing there as well.
        let start = read_stat(pid).ok().flatten().map_or(0, |(_, start)| start);
        Self { pid, start }
    }

    /// Whether the process still runs. A process that cannot be looked at counts as alive.
    pub fn is_alive(self) -> bool {
        match read_stat(self.pid) {
            Ok(Some((state, start))) => start == self.start && !matches!(state, 'Z' | 'X'),
            Ok(None) => true,
            Err(err) => !matches!(
                err.raw_os_error().map(rustix::io::Errno::from_raw_os_error),
                Some(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH)
            ),
        }
    }
}

/// State and start time of process `pid`; `None` where the text has another form.
fn read_stat(pid: i32) -> io::Result<Option<(char, u64)>> {
    Ok(parse_stat(&String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat"))?)))
}

/// The command name in parentheses may itself hold spaces and parentheses, so fields count from the last one.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_number_with_another_start_is_not() {
        let me = Owner::current();
        assert!(me.is_alive());
        assert!(!Owner { start: me.start + 1, ..me }.is_alive());
    }

    #[test]
    fn an_ended_process_is_dead_before_and_after_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start = read_stat(pid).unwrap().unwrap().1;
        child.wait().unwrap();
        assert!(!Owner { pid, start }.is_alive());
    }

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(parse_stat(text), Some(('S', 4711)));
        assert_eq!(parse_stat(&text.replace(" S ", " Z ")), Some(('Z', 4711)));
        assert_eq!(parse_stat("garbage"), None);
    }
}
