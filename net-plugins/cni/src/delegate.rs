//! Calling another plugin: found by its `type` in `CNI_PATH`, given the same environment and the complete
//! configuration, held to a deadline.
//!
//! What a delegated plugin writes to standard error is passed on as it comes. Its errors keep their code and words
//! ([`Code::Foreign`]), so that the runtime sees what the plugin meant.

mod child;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, stat};
use tracing::debug;

use crate::protocol::env::{ARGS, COMMAND, CONTAINERID, IFNAME, NETNS, PATH};
use crate::protocol::error::shortened;
use crate::protocol::json::{FieldError, field, parse_object};
use crate::protocol::keys::{ERROR, normalise};
use crate::protocol::{
    Attachment, CniError, CniResult, Code, Detachment, Network, Request, SearchPath, Target,
};
use child::{ChildError, Output};

/// How long a delegated plugin may take. Runtimes give up on a whole call after two to four minutes.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Finds the plugin `kind` in `search`: the first directory that has a regular file of the name.
///
/// # Errors
/// [`Code::InvalidConfig`] for a name that is no file name: a configuration must not run `../../sbin/reboot`
/// (CVE-2021-20206). [`Code::InvalidEnvironment`] where `CNI_PATH` has no directory, [`Code::PluginMissing`] where none
/// has the plugin.
pub fn resolve(kind: &str, search: &SearchPath) -> Result<PathBuf, CniError> {
    if kind.is_empty() {
        return Err(CniError::new(Code::InvalidConfig, "no plugin name provided"));
    }
    if kind == "." || kind == ".." || kind.contains(['/', '\\']) || kind.chars().any(char::is_control) {
        return Err(CniError::new(
            Code::InvalidConfig,
            format!("invalid plugin name: {:?}", shortened(kind, 60)),
        ));
    }
    if search.is_empty() {
        let msg = format!("required env variables [{PATH}] missing");
        return Err(CniError::new(Code::InvalidEnvironment, msg)
            .with_details(format!("it is to say where plugin {kind:?} is")));
    }
    let is_file =
        |path: &PathBuf| stat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
    search.dirs().map(|dir| dir.join(kind)).find(is_file).ok_or_else(|| {
        let dirs: Vec<String> = search.dirs().map(|dir| dir.display().to_string()).collect();
        let kind = shortened(kind, 60);
        CniError::new(
            Code::PluginMissing,
            format!("failed to find plugin {kind:?} in path [{}]", shortened(&dirs.join(" "), 1000)),
        )
    })
}

/// Whether `path` is the program that is running, by whatever name: then what it would do can be done in-process.
pub fn is_self(path: &Path) -> bool {
    let id = |path: &Path| stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino));
    id(path).is_some_and(|program| id(Path::new("/proc/self/exe")) == Some(program))
}

/// Calls ADD of the plugin at `path`, which [`resolve`] found. After an error, call [`del`]: what the plugin did before
/// it failed is not known.
///
/// # Errors
/// The plugin's own, or [`Code::PluginBroken`].
pub fn add(path: &Path, request: &Request<Attachment>) -> Result<CniResult, CniError> {
    Delegate::new(path).add(request)
}

/// Calls CHECK of the plugin at `path`.
///
/// # Errors
/// As [`add`].
pub fn check(path: &Path, request: &Request<Attachment>) -> Result<(), CniError> {
    Delegate::new(path).call("CHECK", request).map(drop)
}

/// Calls DEL of the plugin at `path`.
///
/// # Errors
/// As [`add`].
pub fn del(path: &Path, request: &Request<Detachment>) -> Result<(), CniError> {
    Delegate::new(path).call("DEL", request).map(drop)
}

/// Calls GC of the plugin at `path`.
///
/// # Errors
/// As [`add`].
pub fn gc(path: &Path, request: &Request<Network>) -> Result<(), CniError> {
    Delegate::new(path).call("GC", request).map(drop)
}

/// Calls STATUS of the plugin at `path`.
///
/// # Errors
/// As [`add`].
pub fn status(path: &Path, request: &Request<Network>) -> Result<(), CniError> {
    Delegate::new(path).call("STATUS", request).map(drop)
}

/// A plugin to call, and how long it may take.
struct Delegate<'a> {
    path: &'a Path,
    deadline: Duration,
}

impl<'a> Delegate<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, deadline: DEADLINE }
    }

    /// The plugin's `type`: the name of its file.
    fn kind(&self) -> Cow<'a, str> {
        self.path.file_name().unwrap_or_default().to_string_lossy()
    }

    fn add(&self, request: &Request<Attachment>) -> Result<CniResult, CniError> {
        let stdout = self.call("ADD", request)?;
        CniResult::from_json(&stdout, request.conf.version).map_err(|error| {
            self.broken("gave an unusable result").with_details(format!("{error}{}", quoted(&stdout)))
        })
    }

    /// Runs the plugin and gives its standard output.
    fn call<T: Target>(&self, verb: &'static str, request: &Request<T>) -> Result<Vec<u8>, CniError> {
        if self.kind() == request.conf.plugin_type {
            let msg = format!("plugin {:?} cannot delegate to itself", self.kind());
            return Err(CniError::new(Code::InvalidConfig, msg));
        }
        let mut command = self.command(verb, request);
        let deadline = Instant::now() + self.deadline;
        let output = child::run(&mut command, &request.stdin, &mut io::stderr(), deadline)
            .map_err(|error| self.failed(&error))?;
        let Output { status, stdout, stderr_tail } = output;
        debug!(plugin = %self.path.display(), verb, %status, "delegated plugin ended");
        if status.success() {
            return Ok(stdout);
        }
        Err(told(&stdout).unwrap_or_else(|| {
            self.broken(format!("failed without an error message: {status}"))
                .with_details(format!("{}{}", quoted(&stdout), quoted(&stderr_tail)).trim_start_matches(": "))
        }))
    }

    fn command<T: Target>(&self, verb: &'static str, request: &Request<T>) -> Command {
        let mut command = Command::new(self.path);
        for name in [CONTAINERID, NETNS, IFNAME, ARGS] {
            command.env_remove(name);
        }
        command.envs(request.target.variables()).env(COMMAND, verb).env(PATH, request.path.to_env());
        command
    }

    fn failed(&self, error: &ChildError) -> CniError {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        self.broken(format!("{error}{source}"))
    }

    fn broken(&self, what: impl fmt::Display) -> CniError {
        CniError::new(Code::PluginBroken, format!("plugin {:?} {what}", self.kind()))
            .with_details(self.path.display().to_string())
    }
}

/// The error a plugin told on its standard output, if it is one.
fn told(stdout: &[u8]) -> Option<CniError> {
    let object = normalise(parse_object(stdout, "error").ok()?, &[&ERROR]);
    let read = || -> Result<(u32, String, String), FieldError> {
        Ok((field(&object, "code", "")?, field(&object, "msg", "")?, field(&object, "details", "")?))
    };
    let (code, msg, details) = read().ok()?;
    if msg.is_empty() && details.is_empty() {
        return None;
    }
    // 0 is no error code; plugins of the first versions gave it all the same.
    let code = if code == 0 { Code::PluginBroken } else { Code::Foreign(code) };
    Some(CniError { code, msg, details })
}

/// `bytes` for an error's details: quoted, shortened, and after a colon; nothing where they are empty.
fn quoted(bytes: &[u8]) -> String {
    match String::from_utf8_lossy(bytes).trim() {
        "" => String::new(),
        text => format!(": {:?}", shortened(text, 1000)),
    }
}

#[cfg(test)]
#[path = "delegate_tests.rs"]
mod tests;
