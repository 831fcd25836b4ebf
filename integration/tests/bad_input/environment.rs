//! Environments that no runtime would make.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use berth_integration::Snapshot;
use serde_json::json;

use crate::common::{Net, berth_test};
use crate::refusal::{refused, refused_quietly};

#[test]
fn what_is_missing_is_named() {
    berth_test(|host| {
        let container = host.container("a");
        let call = || Net::new(host, 1).call_for(&container);
        for (command, variable) in [
            ("ADD", "CNI_CONTAINERID"),
            ("ADD", "CNI_NETNS"),
            ("ADD", "CNI_IFNAME"),
            ("DEL", "CNI_CONTAINERID"),
            ("DEL", "CNI_IFNAME"),
            ("CHECK", "CNI_CONTAINERID"),
            ("CHECK", "CNI_NETNS"),
            ("CHECK", "CNI_IFNAME"),
        ] {
            for call in [call().env_remove(variable), call().env(variable, "")] {
                let error = refused(host, &call, command, 4, variable);
                assert!(error.msg.contains(variable), "{command} without {variable}: {error}");
            }
        }
        let bare = call().env_remove("CNI_CONTAINERID").env_remove("CNI_NETNS").env_remove("CNI_IFNAME");
        let error = refused(host, &bare, "ADD", 4, "all");
        assert!(error.msg.contains("CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME"), "{error}");
    });
}

#[test]
fn a_command_that_is_none_is_refused() {
    berth_test(|host| {
        let container = host.container("a");
        for command in ["FROB", "add", "ADD ", " ADD", "ADD\n", "DEL;ADD", "../ADD", "ＡＤＤ"] {
            refused(host, &Net::new(host, 1).call_for(&container), command, 4, command);
        }
        refused(host, &Net::new(host, 1).call_for(&container), &"A".repeat(100_000), 4, "long");
    });
}

#[test]
fn values_that_are_not_utf8_are_refused() {
    berth_test(|host| {
        let container = host.container("a");
        let before = Snapshot::of(host);
        for variable in ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS", "CNI_PATH"] {
            let cmd = Net::new(host, 1).call_for(&container).cmd("ADD");
            let ran = cmd.env(variable, OsStr::from_bytes(b"a\xff\xfeb")).output();
            assert_eq!(ran.code(), Some(1), "{variable}: {ran}");
            assert!(ran.stdout.contains("\"code\":4") && ran.stdout.contains(variable), "{variable}: {ran}");
        }
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn arguments_that_are_none_are_refused() {
    berth_test(|host| {
        let container = host.container("a");
        for args in [
            "IP",
            "IP=",
            "=x",
            ";;=",
            "IP=10.80.1.300",
            "IP=x",
            "MAC=x",
            "MAC=ff:ff:ff:ff:ff:ff",
            "FOO=bar",
            "IP=10.80.1.5;FOO",
        ] {
            let before = Snapshot::of(host);
            let call = Net::new(host, 1).call_for(&container).args(args);
            let ran = call.add();
            // An empty value is as good as none.
            if args == "IP=" && ran.succeeded() {
                call.del().ok();
                crate::common::collect(host);
                continue;
            }
            let error = refused_quietly(&call, "ADD", &[4, 7], args);
            assert!(!error.msg.is_empty());
            before.assert_same(&Snapshot::of(host));
        }
        // What runtimes always say is no mistake.
        let call = Net::new(host, 1).call_for(&container).args(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=d",
        );
        call.add().ok();
        call.del().ok();
    });
}

#[test]
fn sandbox_paths_that_lead_to_no_namespace_are_refused() {
    berth_test(|host| {
        let file = host.dir().join("file");
        std::fs::write(&file, "x").unwrap();
        let paths = [
            "/run/netns/none",
            "/",
            "/run",
            ".",
            "relative/path",
            "/dev/null",
            "/dev/zero",
            "/proc/self/ns/mnt",
            "/proc/self/ns/user",
            "/proc/1/ns/pid",
            "/proc/self/mem",
            "/proc/99999999/ns/net",
            file.to_str().unwrap(),
            "/run/netns/../../etc/passwd",
            "$(touch /run/owned)",
        ];
        for path in paths {
            let call = Net::new(host, 1).call().id("a").env("CNI_NETNS", path);
            let error = refused(host, &call, "ADD", 8, path);
            assert!(error.to_string().contains(path), "{path}: {error}");
        }
        let long = format!("/run/{}", "x".repeat(5000));
        refused(host, &Net::new(host, 1).call().id("a").env("CNI_NETNS", &long), "ADD", 8, "long path");
        // A pipe that nobody writes to must not hang the call.
        host.run("mkfifo /run/pipe");
        refused(host, &Net::new(host, 1).call().id("a").env("CNI_NETNS", "/run/pipe"), "ADD", 8, "pipe");
        host.run("rm /run/pipe");
    });
}

#[test]
fn a_state_directory_that_is_none_is_refused() {
    berth_test(|host| {
        let container = host.container("a");
        let file = host.dir().join("file");
        std::fs::write(&file, "x").unwrap();
        for dir in ["/dev/null", "/dev/null/x", file.to_str().unwrap(), "/proc/nope", "relative"] {
            for variable in ["BERTH_STATE_DIR", "BERTH_RUN_DIR"] {
                let before = Snapshot::of(host);
                let call = Net::new(host, 1).call_for(&container).env(variable, dir);
                let ran = call.add();
                // The durable records are not needed for an attachment.
                if variable == "BERTH_STATE_DIR" && ran.succeeded() {
                    call.del().ok();
                    crate::common::collect(host);
                    continue;
                }
                let error = ran.err();
                assert!([4, 7, 108].contains(&error.code), "{variable}={dir}: {error}");
                assert!(error.to_string().contains(dir), "{variable}={dir}: {error}");
                before.assert_same(&Snapshot::of(host));
            }
        }
    });
}

/// Standard streams may be closed; a socket must not land on descriptor 1 and be written to.
#[test]
fn closed_standard_streams_do_no_harm() {
    berth_test(|host| {
        let container = host.container("a");
        let conf = host.dir().join("conf");
        std::fs::write(&conf, Net::new(host, 1).conf().to_string()).unwrap();
        let plugin = host.cni().plugins().join("rbridge");
        let run = |command: &str, streams: &str| {
            let line = format!("exec {} {streams}", plugin.display());
            let cmd = host.cmd("sh").args(["-c", &line]).env("CNI_COMMAND", command);
            cmd.env("CNI_CONTAINERID", "a")
                .env("CNI_NETNS", container.netns())
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", host.cni().plugins())
                .output()
        };
        let before = Snapshot::of(host);
        let conf = conf.display();
        // Nobody hears the result: the ADD is undone.
        let ran = run("ADD", &format!("<{conf} >&-"));
        if ran.status.success() {
            run("DEL", &format!("<{conf}"));
        }
        let ran = run("ADD", &format!("<{conf} >/dev/full"));
        assert!(!ran.status.success(), "{ran}");
        crate::common::assert_as_before(host, &before);
        let ran = run("ADD", &format!("<{conf} 2>&-"));
        assert!(ran.status.success(), "{ran}");
        assert!(run("DEL", &format!("<{conf} 2>&-")).status.success());
        let ran = run("ADD", "<&-");
        assert!(!ran.status.success(), "{ran}");
    });
}

#[test]
fn a_long_list_in_the_plugin_path_is_no_problem() {
    berth_test(|host| {
        let container = host.container("a");
        let path = format!("{}:::relative:/none{}", "/x:".repeat(2000), host.cni().plugins().display());
        let call = Net::new(host, 1).call_for(&container).env("CNI_PATH", &path);
        call.add().ok();
        call.del().ok();
        let call = call.key("ipam", json!({"type": "no-such"}));
        refused(host, &call, "ADD", 110, "long path");
    });
}
