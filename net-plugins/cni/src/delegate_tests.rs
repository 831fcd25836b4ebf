use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::*;
use crate::protocol::{CniVersion, NetConf, Reading, Shape};

/// A directory of scripts that goes with its test.
struct Plugins(PathBuf);

impl Plugins {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("berth-delegate-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    /// With a shell script as plugin `x`.
    fn with(script: &str) -> (Self, PathBuf) {
        let plugins = Self::new();
        let path = plugins.write("x", &format!("#!/bin/sh\n{script}\n"));
        (plugins, path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn search(&self) -> SearchPath {
        SearchPath::new(&format!("/nowhere:{}", self.0.display()))
    }

    fn request<T>(&self, target: T) -> Request<T> {
        let stdin =
            json!({"name": "n0", "cniVersion": "0.4.0", "type": "rbridge", "ipam": {"type": "x"}, "own": 1})
                .to_string();
        let conf = NetConf::from_json(stdin.as_bytes(), Shape::EMPTY, Reading::Strict).unwrap();
        Request { target, conf, path: self.search(), stdin: stdin.into_bytes() }
    }

    fn add(&self) -> Request<Attachment> {
        self.request(Attachment {
            container: "c1".parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
            netns: "/run/netns/c0".to_owned(),
            args: "IP=10.0.0.9".to_owned(),
        })
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn names_that_are_no_file_names_are_refused() {
    let plugins = Plugins::new();
    for kind in ["../../sbin/reboot", "/bin/sh", "..", ".", "a/b", "a\0b", "a\nb", "a\\b"] {
        let error = resolve(kind, &plugins.search()).unwrap_err();
        assert_eq!((error.code, error.msg), (Code::InvalidConfig, format!("invalid plugin name: {kind:?}")));
    }
    assert_eq!(resolve("", &plugins.search()).unwrap_err().msg, "no plugin name provided");
}

#[test]
fn a_missing_plugin_is_told_with_the_directories() {
    let error = resolve("nosuch", &SearchPath::new("/a:/b")).unwrap_err();
    assert_eq!(
        (error.code, error.msg.as_str()),
        (Code::PluginMissing, "failed to find plugin \"nosuch\" in path [/a /b]")
    );
    let error = resolve("x", &SearchPath::new("")).unwrap_err();
    assert_eq!(
        (error.code, error.msg.as_str()),
        (Code::InvalidEnvironment, "required env variables [CNI_PATH] missing")
    );
}

#[test]
fn the_first_regular_file_is_found() {
    let (first, second) = (Plugins::new(), Plugins::new());
    fs::create_dir(first.0.join("x")).unwrap();
    let expected = second.write("x", "");
    let search = SearchPath::new(&format!("{}:{}", first.0.display(), second.0.display()));
    assert_eq!(resolve("x", &search), Ok(expected.clone()));
    assert!(!is_self(&expected));
    let link = first.0.join("self");
    std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &link).unwrap();
    assert!(is_self(&link), "a link to the running program is the program");
    assert!(!is_self(Path::new("/nowhere/x")));
}

#[test]
fn the_plugin_gets_the_environment_and_the_whole_configuration() {
    let (plugins, path) = Plugins::with(
        r#"set -e
        cat > "${0%/*}/stdin"
        echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $CNI_PATH" > "${0%/*}/env"
        echo '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.9/24"}],"dns":{}}'"#,
    );
    let request = plugins.add();
    let result = add(&path, &request).unwrap();
    assert_eq!(result.ips.first().map(|ip| ip.address.to_string()).as_deref(), Some("10.0.0.9/24"));
    assert_eq!(fs::read(plugins.0.join("stdin")).unwrap(), request.stdin);
    let env = |text: &str| format!("{text} /nowhere:{}\n", plugins.0.display());
    assert_eq!(
        fs::read_to_string(plugins.0.join("env")).unwrap(),
        env("ADD c1 /run/netns/c0 eth0 IP=10.0.0.9")
    );

    let mut undo = request.undo();
    undo.target.netns = None;
    for (call, expected) in [
        (
            &(|| check(&path, &request)) as &dyn Fn() -> Result<(), CniError>,
            "CHECK c1 /run/netns/c0 eth0 IP=10.0.0.9",
        ),
        (&|| del(&path, &undo), "DEL c1  eth0 IP=10.0.0.9"),
        (&|| gc(&path, &plugins.request(Network)), "GC    "),
        (&|| status(&path, &plugins.request(Network)), "STATUS    "),
    ] {
        call().unwrap();
        assert_eq!(fs::read_to_string(plugins.0.join("env")).unwrap(), env(expected));
    }
}

#[test]
fn the_plugins_error_is_passed_on_as_it_is() {
    let (plugins, path) = Plugins::with(
        r#"echo noise >&2; echo '{"cniVersion":"0.4.0","CODE":11,"msg":"not found, try later","details":"d"}'; exit 1"#,
    );
    let error = add(&path, &plugins.add()).unwrap_err();
    assert_eq!(error, CniError::new(Code::Foreign(11), "not found, try later").with_details("d"));
    assert_eq!(error.code.number(), 11);
    assert_eq!(del(&path, &plugins.add().undo()).unwrap_err(), error);
}

#[test]
fn a_plugin_that_breaks_the_protocol_is_named() {
    for (script, msg, detail) in [
        ("echo oops >&2; exit 3", "plugin \"x\" failed without an error message: exit status: 3", "\"oops\""),
        ("echo oops; exit 1", "plugin \"x\" failed without an error message: exit status: 1", "\"oops\""),
        ("echo '{}'; exit 1", "plugin \"x\" failed without an error message: exit status: 1", "\"{}\""),
        ("kill -9 $$", "plugin \"x\" failed without an error message: signal: 9 (SIGKILL)", ""),
        (
            "echo '[]'",
            "plugin \"x\" gave an unusable result",
            "result is not a JSON object: invalid type: sequence, expected a map at line 1 column 0: \"[]\"",
        ),
        ("true", "plugin \"x\" gave an unusable result", "result is empty"),
        (
            "echo '{\"ips\":[{\"address\":\"x\"}]}'",
            "plugin \"x\" gave an unusable result",
            "invalid `ips[0]`: invalid CIDR address: x: ",
        ),
    ] {
        let (plugins, path) = Plugins::with(script);
        let error = add(&path, &plugins.add()).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (Code::PluginBroken, msg), "{script}");
        assert!(error.details.contains(detail), "{script}: {}", error.details);
    }
}

#[test]
fn a_plugin_that_never_ends_is_killed_at_the_deadline() {
    // One that is silent, one that writes to standard error without end, one that fills standard output.
    for (script, what) in [
        ("exec sleep 600", "did not end in time"),
        ("while :; do echo x >&2; done", "did not end in time"),
        ("exec cat /dev/zero", "answered more than 1 MiB"),
    ] {
        let (plugins, _) = Plugins::with(script);
        let mut command = Command::new(plugins.0.join("x"));
        let millis = if script.contains("zero") { 20_000 } else { 100 };
        let deadline = Instant::now() + Duration::from_millis(millis);
        let started = Instant::now();
        let error = child::run(&mut command, b"", &mut io::sink(), deadline).unwrap_err();
        assert!(error.to_string().starts_with(what), "{script}: {error}");
        assert!(started.elapsed() < Duration::from_secs(10), "{script}");
    }
}

#[test]
fn a_grandchild_that_keeps_the_streams_open_does_not_hold_the_call() {
    let (plugins, path) = Plugins::with("sleep 30 & echo $! > \"${0%/*}/pid\"; echo '{}'");
    let started = Instant::now();
    assert_eq!(add(&path, &plugins.add()), Ok(CniResult::default()));
    assert!(started.elapsed() < Duration::from_secs(10));
    let pid = fs::read_to_string(plugins.0.join("pid")).unwrap().trim().parse().ok();
    let pid = pid.and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn standard_error_is_passed_on_and_its_end_kept() {
    let (plugins, _) =
        Plugins::with("cat >/dev/null; head -c 100000 /dev/zero | tr '\\0' a >&2; echo end >&2; echo out");
    let mut command = Command::new(plugins.0.join("x"));
    let mut passed = Vec::new();
    // More than a pipe holds, so writing and reading must take turns.
    let stdin = vec![b'i'; 300_000];
    let output =
        child::run(&mut command, &stdin, &mut passed, Instant::now() + Duration::from_secs(20)).unwrap();
    assert_eq!((output.stdout.as_slice(), passed.len()), (&b"out\n"[..], 100_004));
    assert_eq!(output.stderr_tail.len(), 4096);
    assert!(output.stderr_tail.ends_with(b"aend\n"));
}

#[test]
fn a_plugin_need_not_read_its_configuration() {
    let (plugins, _) = Plugins::with("exec 0<&-; echo '{}'");
    let mut command = Command::new(plugins.0.join("x"));
    let stdin = vec![b'i'; 300_000];
    let output =
        child::run(&mut command, &stdin, &mut io::sink(), Instant::now() + Duration::from_secs(20)).unwrap();
    assert_eq!(output.stdout, b"{}\n");
}

#[test]
fn a_plugin_that_is_being_installed_is_waited_for() {
    let (plugins, path) = Plugins::with("echo '{}'");
    let being_written = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let error =
        Delegate { path: &path, deadline: Duration::from_millis(30) }.add(&plugins.add()).unwrap_err();
    assert_eq!(error.code, Code::PluginBroken);
    assert!(error.msg.contains("cannot be started: Text file busy"), "{error}");

    let request = plugins.add();
    let waiting = std::thread::spawn(move || add(&path, &request));
    drop(being_written);
    assert_eq!(waiting.join().unwrap(), Ok(CniResult::default()));
}

#[test]
fn a_plugin_does_not_delegate_to_itself() {
    let (plugins, path) = Plugins::with("echo '{}'");
    let mut request = plugins.add();
    request.conf.plugin_type = "x".to_owned();
    let error = add(&path, &request).unwrap_err();
    assert_eq!(
        (error.code, error.msg.as_str()),
        (Code::InvalidConfig, "plugin \"x\" cannot delegate to itself")
    );
}

#[test]
fn a_result_without_a_version_is_of_the_requests() {
    let (plugins, path) = Plugins::with(r#"echo '{"ip4":{"ip":"10.0.0.9/24"}}'"#);
    let mut request = plugins.add();
    assert_eq!(add(&path, &request).map(|result| result.ips.len()), Ok(0), "0.4.0 has no ip4");
    request.conf.version = CniVersion::V0_2_0;
    assert_eq!(add(&path, &request).map(|result| result.ips.len()), Ok(1));
}
