//! Addresses from other people's IPAM plugins, with the rollback that the specification asks for.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use berth_integration::{Call, Container, Host, Snapshot};
use serde_json::{Value, json};

use crate::common::{Net, berth_test};

/// Where Debian's package puts the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// A network whose addresses come from `ipam`, with the reference plugins in the path.
fn call<'h>(host: &'h Host, container: &Container<'h>, ipam: Value) -> Call<'h> {
    assert!(Path::new(REFERENCE).is_dir(), "install containernetworking-plugins");
    let path = format!("{}:{REFERENCE}", host.cni().plugins().display());
    let net = Net::new(host, 1).with("ipam", ipam).with("cniVersion", json!("1.0.0"));
    net.call_for(container).env("CNI_PATH", &path)
}

/// host-local with its files in the host's own folder.
fn host_local(host: &Host) -> Value {
    json!({"type": "host-local", "dataDir": host.dir().join("leases").to_str().unwrap(),
        "ranges": [[{"subnet": "10.80.1.0/24"}], [{"subnet": "fd00:80:1::/64"}]]})
}

/// The addresses that host-local has given out.
fn leases(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.dir().join("leases/n1")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut leases: Vec<_> = names.filter(|name| name.starts_with(['1', 'f'])).collect();
    leases.sort();
    leases
}

/// An IPAM plugin that notes its calls in `calls` and, for ADD, does `add`.
fn fake_ipam(host: &Host, add: &str) -> (PathBuf, PathBuf) {
    let dir = host.dir().join("fake");
    let calls = host.dir().join("calls");
    fs::create_dir(&dir).unwrap();
    let script = format!(
        "#!/bin/sh\ncat >/dev/null\necho $CNI_COMMAND >> {}\ntest $CNI_COMMAND != ADD || {{ {add}; }}\n",
        calls.display()
    );
    let path = dir.join("fake-ipam");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    (dir, calls)
}

#[test]
fn static_addresses_are_taken_over() {
    berth_test(|host| {
        let container = host.container("a");
        let ipam = json!({"type": "static", "addresses": [
            {"address": "10.80.1.9/24", "gateway": "10.80.1.1"}, {"address": "fd00:80:1::9/64", "gateway": "fd00:80:1::1"}]});
        let call = call(host, &container, ipam);
        let ran = call.add();
        assert_eq!(ran.addresses(), ["10.80.1.9/24", "fd00:80:1::9/64"]);
        let result = ran.ok();
        assert_eq!((host.ping("10.80.1.9", 1), host.ping("fd00:80:1::9", 1)), (1, 1));
        call.clone().key("prevResult", result).check().ok();
        call.del().ok();
    });
}

#[test]
fn host_local_leases_and_releases() {
    berth_test(|host| {
        let container = host.container("a");
        let call = call(host, &container, host_local(host));
        call.add().ok();
        assert_eq!(leases(host), ["10.80.1.2", "fd00:80:1::2"]);
        assert_eq!(host.ping("10.80.1.2", 1), 1);
        call.del().ok();
        assert_eq!(leases(host), Vec::<String>::new());
    });
}

#[test]
fn host_local_releases_when_the_namespace_is_gone() {
    berth_test(|host| {
        let container = host.container("a");
        let call = call(host, &container, host_local(host));
        call.add().ok();
        container.remove();
        call.env("CNI_NETNS", "").del().ok();
        assert_eq!(leases(host), Vec::<String>::new());
    });
}

#[test]
fn an_add_that_fails_gives_the_addresses_back() {
    berth_test(|host| {
        let container = host.container("a");
        let before = Snapshot::of(host);
        let _listener = host.serve_tcp(8080, "host");
        let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]});
        let error = call(host, &container, host_local(host)).key("runtimeConfig", ports).add().err();
        assert_eq!(error.code, 100, "{error}");
        assert_eq!(leases(host), Vec::<String>::new());
        // The bridge is somebody else's interface.
        host.run("ip link add br1 type veth peer name other");
        let error = call(host, &container, host_local(host)).add().err();
        assert_eq!(error.code, 104, "{error}");
        assert_eq!(leases(host), Vec::<String>::new());
        host.run("ip link del br1");
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn what_the_ipam_plugin_says_is_passed_on_and_its_del_is_called() {
    berth_test(|host| {
        let error =
            r#"echo '{"cniVersion":"1.0.0","code":142,"msg":"no more","details":"ask later"}'; exit 1"#;
        let (dir, calls) = fake_ipam(host, error);
        let container = host.container("a");
        let before = Snapshot::of(host);
        let call =
            call(host, &container, json!({"type": "fake-ipam"})).env("CNI_PATH", dir.to_str().unwrap());
        let error = call.add().err();
        assert_eq!((error.code, error.msg.as_str(), error.details.as_str()), (142, "no more", "ask later"));
        assert_eq!(fs::read_to_string(calls).unwrap(), "ADD\nDEL\n");
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn an_ipam_plugin_that_breaks_the_protocol_is_named_and_its_del_is_called() {
    for broken in
        ["echo nonsense", "true", "exit 3", "kill -9 $$", r#"echo '{"cniVersion":"1.0.0","ips":[]}'"#]
    {
        berth_test(|host| {
            let (dir, calls) = fake_ipam(host, broken);
            let container = host.container("a");
            let before = Snapshot::of(host);
            let call =
                call(host, &container, json!({"type": "fake-ipam"})).env("CNI_PATH", dir.to_str().unwrap());
            let error = call.add().err();
            assert_eq!(error.code, 111, "{broken}: {error}");
            assert_eq!(fs::read_to_string(calls).unwrap(), "ADD\nDEL\n", "{broken}");
            before.assert_same(&Snapshot::of(host));
        });
    }
}

#[test]
fn a_missing_ipam_plugin_is_named() {
    berth_test(|host| {
        let container = host.container("a");
        let before = Snapshot::of(host);
        let error = call(host, &container, json!({"type": "no-such-ipam"})).add().err();
        assert_eq!(error.code, 110, "{error}");
        assert!(error.msg.contains("no-such-ipam"), "{error}");
        before.assert_same(&Snapshot::of(host));
    });
}

/// S36: a child sees its standard streams and nothing else of the parent.
#[test]
fn a_delegated_plugin_inherits_no_descriptor() {
    berth_test(|host| {
        let seen = host.dir().join("seen");
        let look = format!(
            r#"ls -l /proc/$$/fd > {0}; pwd >> {0}; echo '{{"cniVersion":"1.0.0","ips":[{{"address":"10.80.1.9/24","gateway":"10.80.1.1"}}]}}'"#,
            seen.display()
        );
        let (dir, _) = fake_ipam(host, &look);
        // What the test's own parents left open reaches every child.
        let open = |text: &str| -> BTreeSet<String> {
            let fds = text.lines().filter_map(|line| line.split_once(" -> "));
            fds.filter_map(|(left, _)| left.rsplit(' ').next().map(str::to_owned)).collect()
        };
        host.cmd(dir.join("fake-ipam")).env("CNI_COMMAND", "ADD").run();
        let before = open(&fs::read_to_string(&seen).unwrap());
        let container = host.container("a");
        let call =
            call(host, &container, json!({"type": "fake-ipam"})).env("CNI_PATH", dir.to_str().unwrap());
        call.add().ok();
        let text = fs::read_to_string(seen).unwrap();
        assert_eq!(open(&text), before);
        assert!(text.ends_with("\n/\n"), "the working directory is not / in\n{text}");
        call.del().ok();
    });
}

#[test]
fn gc_and_status_are_passed_on() {
    berth_test(|host| {
        let (dir, calls) = fake_ipam(host, "exit 1");
        let net = Net::new(host, 1).with("ipam", json!({"type": "fake-ipam"}));
        let call = net.call().env("CNI_PATH", dir.to_str().unwrap());
        call.run("STATUS").ok();
        call.key("cni.dev/valid-attachments", json!([])).run("GC").ok();
        assert_eq!(fs::read_to_string(calls).unwrap(), "STATUS\nGC\n");
    });
}
