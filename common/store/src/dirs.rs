//! Where the records are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The two directories of one host's records. Tests run many side by side, each with its own pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// Durable records, `/var/lib/berth` unless told otherwise.
    pub state: PathBuf,
    /// Records of this boot, `/run/berth` unless told otherwise; meant to be on tmpfs.
    pub run: PathBuf,
}

/// A directory was given that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirsError {
    /// Plugins are started with any working directory, so a relative path means another place each time.
    #[error("{variable} is `{path}`, which is not an absolute path")]
    Relative {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
}

impl Default for Dirs {
    fn default() -> Self {
        Self { state: PathBuf::from("/var/lib/berth"), run: PathBuf::from("/run/berth") }
    }
}

impl Dirs {
    /// The defaults, unless `BERTH_STATE_DIR` or `BERTH_RUN_DIR` say otherwise. An empty variable is an absent one.
    pub fn from_env() -> Result<Self, DirsError> {
        Self::from_vars(std::env::var_os)
    }

    /// As [`Dirs::from_env`], with the environment as an argument.
    pub fn from_vars(var: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, DirsError> {
        let dir = |variable, default: PathBuf| match var(variable).filter(|value| !value.is_empty()) {
            None => Ok(default),
            Some(value) => {
                let path = PathBuf::from(value);
                if path.is_absolute() { Ok(path) } else { Err(DirsError::Relative { variable, path }) }
            }
        };
        let Self { state, run } = Self::default();
        Ok(Self { state: dir("BERTH_STATE_DIR", state)?, run: dir("BERTH_RUN_DIR", run)? })
    }

    /// Both directories under one, for tests and private hosts.
    pub fn under(root: &Path) -> Self {
        Self { state: root.join("state"), run: root.join("run") }
    }

    pub(crate) fn run_db(&self) -> PathBuf {
        self.run.join("run.db")
    }

    pub(crate) fn state_db(&self) -> PathBuf {
        self.state.join("state.db")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_moves_the_directories_one_by_one() {
        let dirs = Dirs::from_vars(|name| (name == "BERTH_RUN_DIR").then(|| "/x/run".into())).unwrap();
        assert_eq!(dirs, Dirs { state: "/var/lib/berth".into(), run: "/x/run".into() });
        assert_eq!(Dirs::from_vars(|_| Some("".into())).unwrap(), Dirs::default());
    }

    #[test]
    fn a_relative_directory_is_refused_by_its_variable() {
        let err = Dirs::from_vars(|_| Some("here".into())).unwrap_err();
        assert_eq!(err.to_string(), "BERTH_STATE_DIR is `here`, which is not an absolute path");
    }
}
