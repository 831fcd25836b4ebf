//! From a verb to a plugin's function and back: the order of checks, the answer, the exit status.
//!
//! | step | on failure |
//! |---|---|
//! | environment: first bad value, then all missing names | 4 |
//! | standard input: JSON, then name, then version, then whether the version has the verb | 6, 7, 1, 1 |
//! | the configuration's typed parts | 7 |
//! | ADD, DEL: the sandbox is not the plugin's own namespace | 8, see below |
//! | the plugin | its own |
//!
//! The reference compares the namespaces only after the plugin ran; here it is done before, so that nothing is ever
//! made in, or removed from, the host's namespace by mistake. An ADD is refused. A DEL runs as if the sandbox were
//! gone: its path leads to the host once the process number in it is reused, and what the attachment holds on the
//! host must still be released.
//!
//! A failed ADD leaves nothing behind: where the result cannot be told in the requested version, or not be written,
//! the plugin's DEL runs before the failure is reported.

use std::io::{self, Write};

use tracing::{error_span, warn};

use super::config::{Header, NetConf, Reading};
use super::env::{self, Attachment, Command, Detachment, Env, Network, SearchPath};
use super::error::{CniError, Code};
use super::io::{Io, Outcome};
use super::json;
use super::keys::{NETWORK, Shape, normalise};
use super::result::CniResult;
use super::version::CniVersion;

/// A CNI plugin. Functions see only requests that are complete and valid.
pub trait Plugin {
    /// The name it is called under, and its `type` in configurations.
    fn name(&self) -> &'static str;

    /// One line for people who call it by hand.
    fn about(&self) -> String {
        format!("CNI plugin {} v{}", self.name(), env!("CARGO_PKG_VERSION"))
    }

    /// The versions it speaks, oldest first.
    fn versions(&self) -> &'static [CniVersion] {
        CniVersion::ALL
    }

    /// Its own keys, at the top and inside known objects; they are matched in any case of letters and near misses are
    /// warned of.
    fn keys(&self) -> &'static Shape {
        Shape::EMPTY
    }

    /// Whether the sandbox may be the plugin's own namespace.
    fn allows_own_netns(&self) -> bool {
        false
    }

    /// Makes the attachment. On failure nothing of it is left.
    ///
    /// # Errors
    /// Any; the runtime calls DEL after one.
    fn add(&self, request: &Request<Attachment>) -> Result<CniResult, CniError>;

    /// Verifies that everything the attachment owns is there.
    ///
    /// # Errors
    /// What is missing or changed.
    fn check(&self, request: &Request<Attachment>) -> Result<(), CniError>;

    /// Removes the attachment; whatever is gone already is no failure.
    ///
    /// # Errors
    /// What could not be removed.
    fn del(&self, request: &Request<Detachment>) -> Result<(), CniError>;

    /// Removes the network's attachments that are not listed as valid.
    ///
    /// # Errors
    /// What could not be removed, all together.
    fn gc(&self, request: &Request<Network>) -> Result<(), CniError>;

    /// Tells whether ADD can succeed; changes nothing.
    ///
    /// # Errors
    /// [`Code::NotAvailable`] and [`Code::LimitedConnectivity`].
    fn status(&self, request: &Request<Network>) -> Result<(), CniError>;
}

/// One call: what it is about and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Request<T> {
    /// What it is about.
    pub target: T,
    /// The configuration.
    pub conf: NetConf,
    /// Where delegated plugins are.
    pub path: SearchPath,
    /// The configuration as it came, for delegated plugins.
    pub stdin: Vec<u8>,
}

impl Request<Attachment> {
    /// The DEL that undoes this ADD.
    pub fn undo(&self) -> Request<Detachment> {
        self.clone().into_undo()
    }

    fn into_undo(self) -> Request<Detachment> {
        let Self { target, conf, path, stdin } = self;
        Request { target: target.into(), conf, path, stdin }
    }
}

/// The span of a call. Its level is the highest, so that a warning inside names the attachment under any filter.
macro_rules! call_span {
    ($name:literal, $conf:expr) => {
        error_span!($name, network = %$conf.name).entered()
    };
    ($name:literal, $conf:expr, $target:expr, $netns:expr) => {
        error_span!(
            $name,
            network = %$conf.name,
            container_id = %$target.container,
            ifname = %$target.ifname,
            netns = $netns,
        )
        .entered()
    };
}

/// Runs one call of `plugin`.
///
/// Standard output gets one JSON document or nothing. Without a `CNI_COMMAND`, a few words for people go to standard
/// error.
pub fn run(plugin: &dyn Plugin, io: &mut Io<'_>) -> Outcome {
    let answer = match answer(plugin, io) {
        Ok(answer) => answer,
        Err(failure) => return fail(&failure, io),
    };
    let Err(error) = write_all(io.stdout, &answer.stdout) else { return Outcome::Success };
    if let Some(undo) = &answer.undo {
        undo_add(plugin, undo);
    }
    // Nobody reads standard output any more; standard error is a last chance, so its own failure is of no interest.
    let _ = writeln!(io.stderr, "error writing result to stdout: {error}");
    Outcome::Failure
}

/// An answer to print, and the DEL to run where it cannot be.
#[derive(Default)]
struct Answer {
    stdout: Vec<u8>,
    undo: Option<Request<Detachment>>,
}

/// An error and the version to tell it in.
struct Failure {
    version: CniVersion,
    error: CniError,
}

fn fail(failure: &Failure, io: &mut Io<'_>) -> Outcome {
    let Failure { version, error } = failure;
    if let Err(unwritten) = write_all(io.stdout, &error.to_json(*version)) {
        let _ = writeln!(io.stderr, "{error}\nerror writing it to stdout: {unwritten}");
    }
    Outcome::Failure
}

fn write_all(stdout: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    stdout.write_all(bytes)?;
    stdout.flush()
}

fn answer(plugin: &dyn Plugin, io: &mut Io<'_>) -> Result<Answer, Failure> {
    let newest = |error| Failure { version: CniVersion::LATEST, error };
    let Some(Env { command, path, netns_override }) = env::read(io.getenv).map_err(newest)? else {
        let versions = texts(plugin.versions()).join(", ");
        // Words for people: where nobody reads them, nothing is lost.
        let _ = writeln!(io.stderr, "{}\nCNI protocol versions supported: {versions}", plugin.about());
        return Ok(Answer::default());
    };
    let own_netns_allowed = netns_override || plugin.allows_own_netns();
    let mut read = |verb: &Verb| read_config(plugin, verb, io);
    match command {
        Command::Version => Ok(Answer { stdout: versions(plugin), undo: None }),
        Command::Add(target) => {
            let (conf, stdin) = read(&ADD)?;
            conf.warn_near_misses(&plugin.keys().names().collect::<Vec<_>>());
            add(plugin, Request { target, conf, path, stdin }, own_netns_allowed)
        }
        Command::Del(target) => {
            let (conf, stdin) = read(&DEL)?;
            del(plugin, Request { target, conf, path, stdin }, own_netns_allowed)
        }
        Command::Check(target) => {
            let (conf, stdin) = read(&CHECK)?;
            let _span = call_span!("cni_check", conf, target, target.netns);
            let version = conf.version;
            done(version, plugin.check(&Request { target, conf, path, stdin }))
        }
        Command::Gc => {
            let (conf, stdin) = read(&GC)?;
            let _span = call_span!("cni_gc", conf);
            let version = conf.version;
            done(version, plugin.gc(&Request { target: Network, conf, path, stdin }))
        }
        Command::Status => {
            let (conf, stdin) = read(&STATUS)?;
            let _span = call_span!("cni_status", conf);
            let version = conf.version;
            done(version, plugin.status(&Request { target: Network, conf, path, stdin }))
        }
    }
}

fn done(version: CniVersion, outcome: Result<(), CniError>) -> Result<Answer, Failure> {
    outcome.map(|()| Answer::default()).map_err(|error| Failure { version, error })
}

fn add(
    plugin: &dyn Plugin,
    request: Request<Attachment>,
    own_netns_allowed: bool,
) -> Result<Answer, Failure> {
    let version = request.conf.version;
    let fail = |error| Failure { version, error };
    let _span = call_span!("cni_add", request.conf, request.target, request.target.netns);
    if !own_netns_allowed && is_own_netns(&request.target.netns) {
        let msg = "plugin's netns and netns from CNI_NETNS should not be the same";
        return Err(fail(CniError::new(Code::InvalidNetns, msg).with_details(request.target.netns)));
    }
    let result = plugin.add(&request).map_err(fail)?;
    match result.to_json(version) {
        Ok(stdout) => Ok(Answer { stdout, undo: Some(request.into_undo()) }),
        Err(error) => {
            undo_add(plugin, &request.into_undo());
            Err(fail(error.into()))
        }
    }
}

fn del(
    plugin: &dyn Plugin,
    mut request: Request<Detachment>,
    own_netns_allowed: bool,
) -> Result<Answer, Failure> {
    let version = request.conf.version;
    let netns = request.target.netns.as_deref();
    let _span = call_span!("cni_del", request.conf, request.target, netns);
    if !own_netns_allowed && netns.is_some_and(is_own_netns) {
        warn!("CNI_NETNS is the plugin's own namespace; the sandbox counts as gone");
        request.target.netns = None;
    }
    done(version, plugin.del(&request).map_err(CniError::reworded_for_del))
}

fn undo_add(plugin: &dyn Plugin, undo: &Request<Detachment>) {
    if let Err(error) = plugin.del(undo) {
        warn!(%error, "failed to undo an ADD whose result could not be told");
    }
}

/// What a verb asks of its configuration.
struct Verb {
    name: &'static str,
    since: CniVersion,
    reading: Reading,
}

const ADD: Verb = Verb { name: "ADD", since: CniVersion::V0_1_0, reading: Reading::Strict };
const DEL: Verb = Verb { name: "DEL", since: CniVersion::V0_1_0, reading: Reading::Tolerant };
const CHECK: Verb = Verb { name: "CHECK", since: CniVersion::V0_4_0, reading: Reading::Strict };
const GC: Verb = Verb { name: "GC", since: CniVersion::V1_1_0, reading: Reading::Tolerant };
const STATUS: Verb = Verb { name: "STATUS", since: CniVersion::V1_1_0, reading: Reading::Strict };

fn read_config(plugin: &dyn Plugin, verb: &Verb, io: &mut Io<'_>) -> Result<(NetConf, Vec<u8>), Failure> {
    let newest = |error| Failure { version: CniVersion::LATEST, error };
    let stdin = json::read_config(io.stdin).map_err(newest)?;
    let object = json::parse_object(&stdin, "network configuration").map_err(newest)?;
    let raw = normalise(object, &[&NETWORK, plugin.keys()]);
    let header =
        Header::read(&raw, plugin.versions()).map_err(|(version, error)| Failure { version, error })?;
    let version = header.version;
    let fail = |error| Failure { version, error };
    if version < verb.since {
        let msg = format!("config version does not allow {}", verb.name);
        let details = format!("config is {version}, {} came with {}", verb.name, verb.since);
        return Err(fail(CniError::new(Code::IncompatibleVersion, msg).with_details(details)));
    }
    NetConf::read(header, raw, verb.reading).map(|conf| (conf, stdin)).map_err(fail)
}

fn versions(plugin: &dyn Plugin) -> Vec<u8> {
    let reply = serde_json::json!({
        "cniVersion": CniVersion::LATEST.as_str(),
        "supportedVersions": texts(plugin.versions()),
    });
    format!("{reply}\n").into_bytes()
}

fn texts(versions: &[CniVersion]) -> Vec<&'static str> {
    versions.iter().map(|version| version.as_str()).collect()
}

/// Whether `path` is the namespace this thread is in. A path that leads nowhere is for the plugin to judge.
fn is_own_netns(path: &str) -> bool {
    let id = |path: &str| rustix::fs::stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino));
    id(path).is_some_and(|sandbox| id("/proc/thread-self/ns/net") == Some(sandbox))
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
