//! Calling CNI plugins as a runtime does: environment, configuration on stdin, result on stdout.

use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Cmd, ConfList, Container, Host, Injection, Ran, berth_binary};

/// The names that berth answers to.
const NAMES: [&str; 7] = ["rbridge", "roverlay", "rhost", "rnone", "ripam", "rportmap", "rdns"];

/// A directory of plugins, on a host.
#[derive(Debug, Clone)]
pub struct Cni<'h> {
    host: &'h Host,
    plugins: PathBuf,
}

/// A call of a plugin, ready to be made as often as wanted. Unless told otherwise: container `c1`, interface `eth0`, network
/// `n0`, version 1.0.0, and no namespace.
#[derive(Debug, Clone)]
#[must_use = "nothing is called before `add`, `del`, `check` or `run`"]
pub struct Call<'h> {
    cni: Cni<'h>,
    plugin: String,
    conf: Value,
    stdin: Option<Vec<u8>>,
    env: Vec<(String, Option<String>)>,
    injection: Option<Injection>,
}

/// What a plugin answered.
#[derive(Debug, Clone)]
pub struct CniRan {
    /// The process.
    pub ran: Ran,
    /// What it printed, if that is JSON; `Null` if it printed nothing.
    pub json: Value,
}

/// The error that a plugin printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// The code of the CNI specification.
    pub code: u64,
    /// What went wrong.
    pub msg: String,
    /// More about it; may be empty.
    pub details: String,
}

impl<'h> Cni<'h> {
    /// berth under all its plugin names.
    pub(crate) fn new(host: &'h Host) -> Self {
        let plugins = host.dir().join("cni-bin");
        let berth = berth_binary();
        for name in NAMES {
            match symlink(&berth, plugins.join(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => (),
                other => other.unwrap(),
            }
        }
        Self { host, plugins }
    }

    /// The plugins of another directory, for instance the reference plugins.
    pub fn of(host: &'h Host, plugins: impl Into<PathBuf>) -> Self {
        Self { host, plugins: plugins.into() }
    }

    /// The directory of the plugins: `CNI_PATH`.
    pub fn plugins(&self) -> &Path {
        &self.plugins
    }

    /// A call with the configuration `conf`, of the plugin that its `type` names. A missing `name` or `cniVersion` is added.
    pub fn conf(&self, mut conf: Value) -> Call<'h> {
        let plugin = conf["type"].as_str().unwrap_or("rbridge").to_owned();
        if let Some(object) = conf.as_object_mut() {
            object.entry("cniVersion").or_insert_with(|| json!("1.0.0"));
            object.entry("name").or_insert_with(|| json!("n0"));
        }
        self.exact(&plugin, conf)
    }

    /// A call of `plugin` with exactly this configuration.
    pub fn exact(&self, plugin: &str, conf: Value) -> Call<'h> {
        let call = Call {
            cni: self.clone(),
            plugin: plugin.to_owned(),
            conf,
            stdin: None,
            env: Vec::new(),
            injection: None,
        };
        call.env("CNI_PATH", self.plugins.to_str().expect("a plain path"))
            .id("c1")
            .ifname("eth0")
            .env("CNI_NETNS", "")
    }

    /// A configuration list, called as libcni does.
    pub fn list(&self, list: Value) -> ConfList<'h> {
        ConfList::new(self.clone(), list)
    }

    /// Where the results of configuration lists are cached.
    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.host.dir().join("cni-cache")
    }
}

impl Call<'_> {
    /// The container's namespace.
    pub fn container(self, container: &Container<'_>) -> Self {
        let path = container.netns().to_str().expect("a plain path").to_owned();
        self.env("CNI_NETNS", &path)
    }

    /// `CNI_CONTAINERID`.
    pub fn id(self, id: &str) -> Self {
        self.env("CNI_CONTAINERID", id)
    }

    /// `CNI_IFNAME`.
    pub fn ifname(self, ifname: &str) -> Self {
        self.env("CNI_IFNAME", ifname)
    }

    /// `CNI_ARGS`, for instance `IP=10.80.0.7`.
    pub fn args(self, args: &str) -> Self {
        self.env("CNI_ARGS", args)
    }

    /// Sets any variable.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), Some(value.to_owned())));
        self
    }

    /// Leaves a variable out.
    pub fn env_remove(mut self, key: &str) -> Self {
        self.env.push((key.to_owned(), None));
        self
    }

    /// Sets one top-level key of the configuration, for instance `prevResult`.
    pub fn key(mut self, key: &str, value: Value) -> Self {
        self.conf[key] = value;
        self
    }

    /// Sends these bytes instead of the configuration.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Makes the calls under a fault, see [`crate::sweep`].
    pub fn inject(mut self, injection: &Injection) -> Self {
        self.injection = Some(injection.clone());
        self
    }

    /// Calls ADD.
    pub fn add(&self) -> CniRan {
        self.run("ADD")
    }

    /// Calls DEL.
    pub fn del(&self) -> CniRan {
        self.run("DEL")
    }

    /// Calls CHECK.
    pub fn check(&self) -> CniRan {
        self.run("CHECK")
    }

    /// Calls `command`.
    pub fn run(&self, command: &str) -> CniRan {
        let ran = self.cmd(command).output();
        let json = if ran.stdout.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&ran.stdout)
                .unwrap_or_else(|err| panic!("`{}` printed no JSON ({err}): {ran}", ran.line))
        };
        CniRan { ran, json }
    }

    /// The process of a call of `command`, for tests that start many or kill one.
    pub fn cmd(&self, command: &str) -> Cmd {
        let stdin = self.stdin.clone().unwrap_or_else(|| self.conf.to_string().into_bytes());
        let cmd =
            self.cni.host.cmd(self.cni.plugins.join(&self.plugin)).stdin(stdin).env("CNI_COMMAND", command);
        let cmd = self.env.iter().fold(cmd, |cmd, (key, value)| match value {
            Some(value) => cmd.env(key, value),
            None => cmd.env_remove(key),
        });
        match &self.injection {
            Some(injection) => cmd.inject(injection),
            None => cmd,
        }
    }
}

impl CniRan {
    /// Requires success and returns the result (`Null` for commands without one).
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.ran.status.success(), "`{}` failed: {}", self.ran.line, self.ran);
        self.json
    }

    /// Requires failure with an error of the specification's form, and returns that.
    #[track_caller]
    pub fn err(self) -> CniError {
        let Self { ran, json } = self;
        assert_eq!(ran.code(), Some(1), "`{}` should have failed: {ran}", ran.line);
        let text = |key: &str| json[key].as_str().unwrap_or("").to_owned();
        let error =
            CniError { code: json["code"].as_u64().unwrap_or(0), msg: text("msg"), details: text("details") };
        assert!(error.code != 0 && !error.msg.is_empty(), "`{}` printed no CNI error: {ran}", ran.line);
        error
    }

    /// Whether the call succeeded.
    pub fn succeeded(&self) -> bool {
        self.ran.status.success()
    }

    /// How long the call took, as a process.
    pub fn elapsed(&self) -> Duration {
        self.ran.elapsed
    }

    /// The addresses of the result, with prefix length.
    pub fn addresses(&self) -> Vec<String> {
        addresses(&self.json)
    }
}

/// The addresses of a CNI result of version 0.3.0 or later.
pub(crate) fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["address"].as_str().map(str::to_owned)).collect()
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}: {}: {}", self.code, self.msg, self.details)
    }
}

/// Writes `value` to `path`, whose folder is made.
pub(crate) fn save(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().expect("a file in a folder")).unwrap();
    fs::write(path, value.to_string()).unwrap();
}
