//! Hostile names: each is refused before it gets anywhere near a path, a rule or a kernel switch.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use berth_integration::{Host, Snapshot};
use serde_json::json;

use crate::common::{Net, berth_test};
use crate::refusal::{refused, refused_quietly};

/// Names that no container, network or interface has.
const HOSTILE: [&str; 22] = [
    "../x",
    "..",
    ".",
    "/",
    "/etc/passwd",
    "a/b",
    "a/../../b",
    "-rf",
    ".hidden",
    "_x",
    " a",
    "a b",
    "a\tb",
    "a\nb",
    "a;b",
    "a\"b",
    "a'b",
    "$(id)",
    "`id`",
    "{a}",
    "ä",
    "a\u{202e}b",
];

#[test]
fn container_ids_that_are_none_are_refused() {
    berth_test(|host| {
        let container = host.container("a");
        let before = Snapshot::of(host);
        for id in HOSTILE {
            for command in ["ADD", "DEL", "CHECK"] {
                let error =
                    refused_quietly(&Net::new(host, 1).call_for(&container).id(id), command, &[4], id);
                assert!(error.msg.contains("containerID"), "{id}: {error}");
            }
        }
        before.assert_same(&Snapshot::of(host));
    });
}

/// No rule limits their length, so a long one must work; the kernel's names are made of a hash.
#[test]
fn a_container_id_of_any_length_works() {
    berth_test(|host| {
        for length in [64, 200, 1000, 4000] {
            let container = host.container("a");
            let id = "x".repeat(length);
            let call = Net::new(host, 1).call_for(&container).id(&id);
            call.add().ok();
            call.clone().id(&format!("{}y", &id[..length - 1])).del().ok();
            assert!(container.run("ip -o link").contains("eth0"), "another container's DEL took it away");
            call.del().ok();
        }
    });
}

#[test]
fn network_names_that_are_none_are_refused() {
    berth_test(|host| {
        let container = host.container("a");
        let before = Snapshot::of(host);
        for name in HOSTILE {
            for command in ["ADD", "DEL", "STATUS", "GC"] {
                let call = Net::new(host, 1).with("name", json!(name)).call_for(&container);
                refused_quietly(&call, command, &[7], name);
            }
        }
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn a_network_name_of_any_length_works() {
    berth_test(|host| {
        for length in [64, 255, 1000] {
            let container = host.container("a");
            let call = Net::new(host, 1).with("name", json!("n".repeat(length))).call_for(&container);
            call.add().ok();
            call.del().ok();
        }
    });
}

#[test]
fn interface_names_that_are_none_are_refused() {
    berth_test(|host| {
        let container = host.container("a");
        let before = Snapshot::of(host);
        for name in [
            "..",
            ".",
            "a/b",
            "../x",
            "a b",
            "a:b",
            "eth%d",
            "a\nb",
            "a\tb",
            "sixteen-bytes-xx",
            "a\u{a0}b",
            "a\u{7}b",
        ] {
            for command in ["ADD", "DEL", "CHECK"] {
                refused_quietly(&Net::new(host, 1).call_for(&container).ifname(name), command, &[4], name);
            }
        }
        before.assert_same(&Snapshot::of(host));
    });
}

/// Catalogue row 44: in `/proc/sys/net/*/conf` these are no interfaces but all of them.
#[test]
fn an_interface_called_all_or_default_changes_no_switch_of_all() {
    berth_test(|host| {
        for name in ["all", "default"] {
            let container = host.container("a");
            let switches = || {
                let read =
                    |link: &str, switch: &str| container.sysctl(&format!("net.ipv6.conf.{link}.{switch}"));
                ["all", "default"]
                    .map(|link| ["accept_ra", "autoconf", "disable_ipv6"].map(|switch| read(link, switch)))
            };
            container.set_sysctl("net.ipv6.conf.all.accept_ra", "1");
            let before = switches();
            let ran = Net::new(host, 1).call_for(&container).ifname(name).add();
            if ran.succeeded() {
                Net::new(host, 1).call_for(&container).ifname(name).del().ok();
            } else {
                let error = ran.err();
                assert!([4, 7, 107].contains(&error.code), "{error}");
            }
            assert_eq!(switches(), before, "{name}");
        }
    });
}

#[test]
fn bridge_names_that_are_none_are_refused() {
    berth_test(|host| {
        let container = host.container("a");
        let before = Snapshot::of(host);
        for name in [
            "..",
            ".",
            "a/b",
            "../x",
            "a b",
            "a:b",
            "br%d",
            "a\nb",
            "sixteen-bytes-xx",
            "../../../../proc/sys/net",
        ] {
            let call = Net::new(host, 1).with("bridge", json!(name)).call_for(&container);
            let error = refused_quietly(&call, "ADD", &[7], name);
            assert!(error.msg.contains("bridge"), "{name}: {error}");
        }
        before.assert_same(&Snapshot::of(host));
    });
}

/// Catalogue row 44, and worse than in a container: these are the host's switches.
#[test]
fn a_bridge_called_all_or_default_changes_no_switch_of_all() {
    berth_test(|host| {
        for name in ["all", "default"] {
            let container = host.container("a");
            let call = Net::new(host, 1)
                .with("bridge", json!(name))
                .call_for(&container)
                .key("runtimeConfig", json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]}));
            // The snapshot has every switch of `all` and `default`.
            let before = Snapshot::of(host);
            let ran = call.add();
            let changed = before.difference(&Snapshot::of(host));
            let switches: Vec<_> =
                changed.lines().filter(|line| line.contains(&format!(" {name} "))).collect();
            assert!(switches.is_empty(), "{switches:?}");
            if ran.succeeded() {
                call.del().ok();
            } else {
                let error = ran.err();
                assert!([7, 107].contains(&error.code), "{error}");
            }
            crate::common::collect(host);
        }
    });
}

#[test]
fn a_bridge_name_that_belongs_to_something_else_is_refused_and_that_is_left_alone() {
    berth_test(|host| {
        let container = host.container("a");
        for name in ["lo", "up0", "up1"] {
            let error = refused(
                host,
                &Net::new(host, 1).with("bridge", json!(name)).call_for(&container),
                "ADD",
                104,
                name,
            );
            assert!(error.msg.contains(name), "{error}");
        }
    });
}

/// A program that leaves a trace when it is run.
fn canary(host: &Host, path: &std::path::Path) -> std::path::PathBuf {
    let trace = host.dir().join("ran");
    fs::write(path, format!("#!/bin/sh\necho $0 >> {}\n", trace.display())).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    trace
}

/// S31 (CVE-2021-20206): a configuration does not run programs outside the plugin directories.
#[test]
fn an_ipam_type_with_a_path_in_it_runs_nothing() {
    berth_test(|host| {
        let container = host.container("a");
        let folder = host.dir().join("cni-bin");
        fs::create_dir_all(folder.join("sub")).unwrap();
        let trace = canary(host, &host.dir().join("canary"));
        canary(host, &folder.join("sub/canary"));
        let absolute = host.dir().join("canary");
        for kind in [
            "../canary",
            "sub/canary",
            "./../canary",
            "sub/../../canary",
            absolute.to_str().unwrap(),
            "..",
            ".",
            "/",
            "a\0b",
            "a\nb",
            "\\..\\canary",
        ] {
            for command in ["ADD", "STATUS", "DEL", "CHECK"] {
                let call = Net::new(host, 1)
                    .call_for(&container)
                    .key("ipam", json!({"type": kind}))
                    .key("prevResult", json!({"cniVersion": "1.1.0"}));
                let before = Snapshot::of(host);
                let ran = call.run(command);
                match command {
                    "DEL" => drop(ran.ok()),
                    "STATUS" => assert!([7, 50].contains(&ran.err().code), "{kind}"),
                    _ => assert_eq!(ran.err().code, 7, "{kind}"),
                }
                before.assert_same(&Snapshot::of(host));
            }
        }
        assert!(!trace.exists(), "{}", fs::read_to_string(&trace).unwrap());
        fs::remove_dir_all(folder.join("sub")).unwrap();
    });
}

/// S31.
#[test]
fn a_type_with_a_path_in_it_does_not_matter_to_a_plugin_that_is_called() {
    berth_test(|host| {
        let container = host.container("a");
        let trace = canary(host, &host.dir().join("canary"));
        for kind in ["../canary", "/bin/sh", ""] {
            let mut conf = Net::new(host, 1).conf();
            conf["type"] = json!(kind);
            let call = host.cni().exact("rbridge", conf).container(&container).id("a");
            let ran = call.add();
            if ran.succeeded() {
                call.del().ok();
            } else {
                assert!([4, 7].contains(&ran.err().code));
            }
        }
        assert!(!trace.exists());
    });
}

#[test]
fn a_program_called_by_a_name_that_is_no_plugin_says_so() {
    berth_test(|host| {
        let _ = host.cni();
        let odd = host.dir().join("cni-bin/rnonsense");
        std::os::unix::fs::symlink(berth_integration::berth_binary(), &odd).unwrap();
        let call = host.cni().exact("rnonsense", json!({"cniVersion": "1.0.0", "name": "n1"}));
        let ran = call.cmd("ADD").output();
        assert!(!ran.status.success(), "{ran}");
        fs::remove_file(odd).unwrap();
    });
}
