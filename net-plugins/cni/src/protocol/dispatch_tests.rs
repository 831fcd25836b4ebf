use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::protocol::{IpConfig, Kind};

/// Remembers its calls; ADD gives `result`, everything else `answer`.
struct Fake {
    calls: RefCell<Vec<String>>,
    result: CniResult,
    answer: Result<(), CniError>,
    own_netns: bool,
}

impl Fake {
    fn new() -> Self {
        let ip = IpConfig { interface: None, address: "10.80.0.2/24".parse().unwrap(), gateway: None };
        let result = CniResult { ips: vec![ip], ..CniResult::default() };
        Self { calls: RefCell::default(), result, answer: Ok(()), own_netns: false }
    }

    fn called(&self, call: String) -> Result<(), CniError> {
        self.calls.borrow_mut().push(call);
        self.answer.clone()
    }
}

static KEYS: Shape = Shape(&[("isGateway", Kind::Leaf)]);

impl Plugin for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn keys(&self) -> &'static Shape {
        &KEYS
    }
    fn allows_own_netns(&self) -> bool {
        self.own_netns
    }
    fn add(&self, request: &Request<Attachment>) -> Result<CniResult, CniError> {
        let gateway = request.conf.raw.get("isGateway");
        self.called(format!("add {} {:?}", request.target.container, gateway.and_then(Value::as_bool)))?;
        Ok(self.result.clone())
    }
    fn check(&self, request: &Request<Attachment>) -> Result<(), CniError> {
        self.called(format!("check {}", request.target.netns))
    }
    fn del(&self, request: &Request<Detachment>) -> Result<(), CniError> {
        self.called(format!("del {} {:?}", request.target.ifname, request.target.netns))
    }
    fn gc(&self, request: &Request<Network>) -> Result<(), CniError> {
        self.called(format!("gc {:?}", request.conf.valid_attachments.as_ref().map(Vec::len)))
    }
    fn status(&self, request: &Request<Network>) -> Result<(), CniError> {
        self.called(format!("status {}", request.conf.name))
    }
}

struct Ran {
    outcome: Outcome,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// The code, message and details, and the version they came in.
    fn error(&self) -> (u64, String, String, String) {
        assert_eq!(self.outcome, Outcome::Failure, "{}", self.stdout);
        let error: Value = serde_json::from_str(&self.stdout).unwrap();
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        (error["code"].as_u64().unwrap(), text("msg"), text("details"), text("cniVersion"))
    }
}

/// A complete environment of `command` with `changes` applied; an empty value is absent.
fn environment(command: &str, changes: &[(&str, &str)]) -> BTreeMap<String, OsString> {
    let whole = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/nowhere/c0"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    whole.iter().chain(changes).map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect()
}

fn run_with(plugin: &Fake, vars: &BTreeMap<String, OsString>, mut stdin: &[u8]) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let outcome = run(
        plugin,
        &mut Io {
            getenv: &|name| vars.get(name).cloned(),
            stdin: &mut stdin,
            stdout: &mut stdout,
            stderr: &mut stderr,
        },
    );
    Ran { outcome, stdout: String::from_utf8(stdout).unwrap(), stderr: String::from_utf8(stderr).unwrap() }
}

fn conf(version: &str) -> String {
    json!({"name": "n0", "cniVersion": version, "type": "fake", "isgateway": true}).to_string()
}

#[test]
fn every_verb_reaches_its_function() {
    for (command, call, printed) in [
        ("ADD", "add c1 Some(true)", "{\"cniVersion\":\"1.1.0\",\"ips\":[{\"address\":\"10.80.0.2/24\"}]}\n"),
        ("CHECK", "check /nowhere/c0", ""),
        ("DEL", "del eth0 Some(\"/nowhere/c0\")", ""),
        ("GC", "gc None", ""),
        ("STATUS", "status n0", ""),
    ] {
        let plugin = Fake::new();
        let ran = run_with(&plugin, &environment(command, &[]), conf("1.1.0").as_bytes());
        assert_eq!(
            (ran.outcome, ran.stdout.as_str(), ran.stderr.as_str()),
            (Outcome::Success, printed, ""),
            "{command}"
        );
        assert_eq!(plugin.calls.take(), [call]);
    }
}

#[test]
fn version_is_told_without_reading_anything() {
    struct Unreadable;
    impl io::Read for Unreadable {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("standard input was read");
        }
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let getenv = |name: &str| (name == "CNI_COMMAND").then(|| OsString::from("VERSION"));
    let io = &mut Io { getenv: &getenv, stdin: &mut Unreadable, stdout: &mut stdout, stderr: &mut stderr };
    assert_eq!(run(&Fake::new(), io), Outcome::Success);
    insta::assert_snapshot!(String::from_utf8(stdout).unwrap(), @r#"{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#);
}

#[test]
fn without_a_command_people_are_told_what_it_is() {
    let ran = run_with(&Fake::new(), &BTreeMap::new(), b"");
    assert_eq!((ran.outcome, ran.stdout.as_str()), (Outcome::Success, ""));
    insta::assert_snapshot!(ran.stderr.replacen(env!("CARGO_PKG_VERSION"), "X", 1), @"
    CNI plugin fake vX
    CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0
    ");
}

/// The order of `skel`, and the codes of the reference plugins' recorded answers.
#[test]
fn errors_come_in_the_references_order() {
    let bad_name = r#"{"name": "a b", "cniVersion": "9.9.9"}"#;
    let not_spoken = "config is \"9.9.9\", plugin supports [\"0.1.0\" \"0.2.0\" \"0.3.0\" \"0.3.1\" \"0.4.0\" \"1.0.0\" \"1.1.0\"]";
    for (command, changes, stdin, code, msg, details, version) in [
        ("FROB", &[][..], "{not json", 4, "unknown CNI_COMMAND: FROB", "", "1.1.0"),
        (
            "ADD",
            &[("CNI_IFNAME", "a/b"), ("CNI_CONTAINERID", "")],
            "{not json",
            4,
            "interface name contains / or : or whitespace characters",
            "",
            "1.1.0",
        ),
        (
            "ADD",
            &[("CNI_CONTAINERID", "")],
            "{not json",
            4,
            "required env variables [CNI_CONTAINERID] missing",
            "",
            "1.1.0",
        ),
        ("ADD", &[("CNI_CONTAINERID", "../x")], "", 4, "invalid characters in containerID", "../x", "1.1.0"),
        (
            "ADD",
            &[],
            "{not json",
            6,
            "cannot decode network configuration: key must be a string at line 1 column 2",
            "near `{not json`",
            "1.1.0",
        ),
        ("ADD", &[], "", 6, "network configuration is empty", "", "1.1.0"),
        ("ADD", &[], "{}", 7, "missing network name", "", "0.1.0"),
        ("ADD", &[], bad_name, 7, "invalid characters found in network name", "a b", "1.1.0"),
        (
            "ADD",
            &[],
            r#"{"name": "n0", "cniVersion": "9.9.9", "dns": 5}"#,
            1,
            "incompatible CNI versions",
            not_spoken,
            "1.1.0",
        ),
        (
            "ADD",
            &[],
            r#"{"name": "n0", "cniVersion": "0.4.0", "dns": 5}"#,
            7,
            "invalid `dns`: invalid type: integer `5`, expected struct Dns",
            "",
            "0.4.0",
        ),
        (
            "CHECK",
            &[],
            &conf("0.3.1"),
            1,
            "config version does not allow CHECK",
            "config is 0.3.1, CHECK came with 0.4.0",
            "0.3.1",
        ),
        (
            "GC",
            &[],
            &conf("1.0.0"),
            1,
            "config version does not allow GC",
            "config is 1.0.0, GC came with 1.1.0",
            "1.0.0",
        ),
        (
            "STATUS",
            &[],
            &conf("1.0.0"),
            1,
            "config version does not allow STATUS",
            "config is 1.0.0, STATUS came with 1.1.0",
            "1.0.0",
        ),
    ] {
        let plugin = Fake::new();
        let ran = run_with(&plugin, &environment(command, changes), stdin.as_bytes());
        let expected = (code, msg.to_owned(), details.to_owned(), version.to_owned());
        assert_eq!(ran.error(), expected, "{command} {changes:?} {stdin}");
        assert!(plugin.calls.take().is_empty(), "the plugin ran");
    }
}

#[test]
fn the_plugins_own_error_is_told_in_the_requests_version() {
    for version in CniVersion::ALL {
        let error = CniError::new(Code::PortTaken, "port 80/tcp is taken").with_details("by c9");
        let plugin = Fake { answer: Err(error), ..Fake::new() };
        let ran = run_with(&plugin, &environment("ADD", &[]), conf(version.as_str()).as_bytes());
        assert_eq!(ran.error(), (100, "port 80/tcp is taken".into(), "by c9".into(), version.to_string()));
    }
}

#[test]
fn a_result_that_the_version_cannot_tell_is_undone() {
    let plugin = Fake { result: CniResult::default(), ..Fake::new() };
    let ran = run_with(&plugin, &environment("ADD", &[]), conf("0.2.0").as_bytes());
    assert_eq!(
        ran.error(),
        (999, "cannot convert: no valid IP addresses".into(), String::new(), "0.2.0".into())
    );
    assert_eq!(plugin.calls.take(), ["add c1 Some(true)", "del eth0 Some(\"/nowhere/c0\")"]);
}

#[test]
fn a_result_that_nobody_reads_is_undone() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let plugin = Fake::new();
    let vars = environment("ADD", &[]);
    let (text, mut stderr) = (conf("1.0.0"), Vec::new());
    let mut stdin = text.as_bytes();
    let io = &mut Io {
        getenv: &|name| vars.get(name).cloned(),
        stdin: &mut stdin,
        stdout: &mut Closed,
        stderr: &mut stderr,
    };
    assert_eq!(run(&plugin, io), Outcome::Failure);
    assert_eq!(plugin.calls.take(), ["add c1 Some(true)", "del eth0 Some(\"/nowhere/c0\")"]);
    assert_eq!(String::from_utf8(stderr).unwrap(), "error writing result to stdout: broken pipe\n");
}

#[test]
fn the_plugins_own_namespace_is_no_sandbox() {
    let own = ("CNI_NETNS", "/proc/self/ns/net");
    let plugin = Fake::new();
    let ran = run_with(&plugin, &environment("ADD", &[own]), conf("1.0.0").as_bytes());
    let msg = "plugin's netns and netns from CNI_NETNS should not be the same";
    assert_eq!(ran.error(), (8, msg.into(), "/proc/self/ns/net".into(), "1.0.0".into()));
    assert!(plugin.calls.take().is_empty(), "the plugin ran");

    let ran = run_with(&plugin, &environment("DEL", &[own]), conf("1.0.0").as_bytes());
    assert_eq!(ran.outcome, Outcome::Success);
    assert_eq!(plugin.calls.take(), ["del eth0 None"], "DEL must release what is not in the sandbox");

    for (changes, own_netns) in [(&[own, ("CNI_NETNS_OVERRIDE", "1")][..], false), (&[own], true)] {
        let plugin = Fake { own_netns, ..Fake::new() };
        let ran = run_with(&plugin, &environment("ADD", changes), conf("1.0.0").as_bytes());
        assert_eq!(ran.outcome, Outcome::Success);
        let _ = run_with(&plugin, &environment("DEL", changes), conf("1.0.0").as_bytes());
        assert_eq!(plugin.calls.take(), ["add c1 Some(true)", "del eth0 Some(\"/proc/self/ns/net\")"]);
    }
}

#[test]
fn del_reads_past_what_it_does_not_need() {
    let plugin = Fake::new();
    let stdin = json!({"name": "n0", "cniVersion": "1.0.0", "prevResult": {"ips": 5}, "runtimeConfig": 1, "ipam": []});
    let ran = run_with(&plugin, &environment("DEL", &[("CNI_NETNS", "")]), stdin.to_string().as_bytes());
    assert_eq!((ran.outcome, ran.stdout.as_str()), (Outcome::Success, ""));
    assert_eq!(plugin.calls.take(), ["del eth0 None"]);
    assert_eq!(run_with(&plugin, &environment("ADD", &[]), stdin.to_string().as_bytes()).error().0, 7);
}

#[test]
fn a_failed_del_is_not_mistaken_for_success() {
    let error = CniError::new(Code::State, "lease of c1 not found");
    let plugin = Fake { answer: Err(error), ..Fake::new() };
    let del = run_with(&plugin, &environment("DEL", &[]), conf("1.0.0").as_bytes());
    assert_eq!(del.error().1, "lease of c1 missing");
    let check = run_with(&plugin, &environment("CHECK", &[]), conf("1.0.0").as_bytes());
    assert_eq!(check.error().1, "lease of c1 not found");
}

#[test]
fn a_huge_configuration_is_refused() {
    let stdin = vec![b' '; json::MAX_CONFIG + 1];
    let ran = run_with(&Fake::new(), &environment("ADD", &[]), &stdin);
    assert_eq!(ran.error().0, 6);
}

proptest! {
    #[test]
    fn any_call_is_answered_in_the_protocol(
        command in prop::sample::select(vec!["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "X", ""]),
        stdin in prop_oneof![
            any::<Vec<u8>>(),
            "\\{\"name\":\"n0\",\"cniVersion\":\"(1.1.0|1.0.0|0.2.0|x)\",\"(ipam|dns|args|prevResult)\":(1|null|\\{\\}|\\[\\])\\}".prop_map(String::into_bytes),
        ],
    ) {
        let plugin = Fake::new();
        let ran = run_with(&plugin, &environment(command, &[]), &stdin);
        let printed = serde_json::from_str::<Value>(&ran.stdout);
        match ran.outcome {
            Outcome::Failure => prop_assert!(printed.unwrap()["code"].as_u64().unwrap() > 0),
            Outcome::Success => prop_assert!(ran.stdout.is_empty() || printed.unwrap().is_object()),
        }
    }
}
