//! How a command ends.

use std::process::ExitCode;

/// Exit status of a command that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done, or all is well.
    Fine,
    /// 1: something differs or was not done, and it says what.
    Differs,
    /// 2: a person has to decide (`doctor`).
    Person,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::Differs => 1,
            Exit::Person => 2,
        })
    }
}
