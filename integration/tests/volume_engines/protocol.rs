//! The protocol itself, spoken to berthd as engines do and as they should not.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use berth_integration::engine::{Berthd, berth};
use berth_integration::{Host, host_test};
use serde_json::{Value, json};

/// One call, as dockerd makes it: no Content-Type. The status and the body.
fn say(host: &Host, method: &str, body: &str) -> (u16, Value) {
    let text = host.inside(|| {
        let mut stream = UnixStream::connect("/run/docker/plugins/rvolume.sock").unwrap();
        let head = format!(
            "POST /{method} HTTP/1.1\r\nHost: plugin.moby.localhost\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\
             Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {text}")))
}

#[track_caller]
fn done(host: &Host, method: &str, body: Value) -> Value {
    let (status, answer) = say(host, &format!("VolumeDriver.{method}"), &body.to_string());
    assert_eq!(status, 200, "{method} {body}: {answer}");
    assert!(answer["Err"].as_str().is_none_or(str::is_empty), "{answer}");
    answer
}

#[track_caller]
fn refused(host: &Host, method: &str, body: Value) -> String {
    let (status, answer) = say(host, &format!("VolumeDriver.{method}"), &body.to_string());
    assert_eq!(status, 500, "{method} {body}: {answer}");
    assert_eq!(answer["Err"], answer["Error"]);
    answer["Err"].as_str().unwrap().to_owned()
}

fn protocol_test(test: impl FnOnce(&Host, &mut Berthd<'_>)) {
    host_test(|host| {
        host.run("mkdir -p /var/lib/berth && mount -t tmpfs -o size=200M own /var/lib/berth");
        let mut berthd = Berthd::new(host, &["--roles", "volumes"]);
        test(host, &mut berthd);
        for name in berth(host, ["volume", "ls", "--quiet"]).run().lines() {
            done(host, "Remove", json!({"Name": name}));
        }
        berthd.stop();
        berth(host, ["gc"]).run();
        let mounts = host.run("cat /proc/self/mountinfo");
        assert!(!mounts.contains("/var/lib/berth/volumes"), "{mounts}");
        host.run(
            "umount /var/lib/berth; rmdir /var/lib/berth 2>/dev/null || true; rm -rf /run/berth /run/docker /run/mount",
        );
    });
}

#[test]
fn every_method_answers_as_engines_expect() {
    protocol_test(|host, _| {
        assert_eq!(say(host, "Plugin.Activate", "").1, json!({"Implements": ["VolumeDriver"]}));
        assert_eq!(done(host, "Capabilities", json!({})), json!({"Capabilities": {"Scope": "local"}}));
        assert_eq!(say(host, "VolumeDriver.List", "").1, json!({"Volumes": [], "Err": ""}));
        done(host, "Create", json!({"Name": "v", "Opts": null}));
        done(host, "Create", json!({"Name": "v"}));
        assert!(
            refused(host, "Create", json!({"Name": "v", "Opts": {"uid": "3"}}))
                .contains("uid is unset, not 3")
        );
        let got = done(host, "Get", json!({"Name": "v"}));
        let data = "/var/lib/berth/volumes/v/_data";
        assert_eq!(
            (got["Volume"]["Name"].as_str(), got["Volume"]["Mountpoint"].as_str()),
            (Some("v"), Some(data))
        );
        let created = got["Volume"]["CreatedAt"].as_str().unwrap();
        assert!(created.len() == 20 && created.ends_with('Z') && &created[10..11] == "T", "{created}");
        assert!(got["Volume"]["Status"]["differs"].as_str().unwrap().contains("uid is unset, not 3"));
        assert_eq!(done(host, "List", json!({}))["Volumes"][0]["Name"], "v");
        assert_eq!(done(host, "Path", json!({"Name": "v"}))["Mountpoint"], data);
        assert_eq!(done(host, "Mount", json!({"Name": "v", "ID": "a"}))["Mountpoint"], data);
        done(host, "Unmount", json!({"Name": "v", "ID": "a"}));
        done(host, "Remove", json!({"Name": "v"}));
        for method in ["Get", "Path", "Remove", "Mount", "Unmount"] {
            assert!(
                refused(host, method, json!({"Name": "v", "ID": "a"})).contains("there is no volume"),
                "{method}"
            );
        }
        assert_eq!(say(host, "VolumeDriver.Fly", "{}").0, 404);
    });
}

#[test]
fn what_no_engine_should_say_is_refused_and_makes_nothing() {
    protocol_test(|host, _| {
        for name in ["", "..", "/", "a/b", "../../etc", ".trash", "a\u{0}b", "é", &"x".repeat(300), "a b"] {
            for method in ["Create", "Get", "Mount", "Unmount", "Path", "Remove"] {
                refused(host, method, json!({"Name": name, "ID": "a", "Opts": {}}));
            }
        }
        done(host, "Create", json!({"Name": "v"}));
        for id in ["", "a\nb", &"f".repeat(300)] {
            assert!(refused(host, "Mount", json!({"Name": "v", "ID": id})).contains("mount id"));
        }
        for body in [
            "",
            "{",
            "[]",
            "null",
            r#"{"Name":5}"#,
            r#"{"Name":"x","Opts":{"size":1}}"#,
            r#"{"Name":"x","Opts":["a"]}"#,
        ] {
            let (status, answer) = say(host, "VolumeDriver.Create", body);
            assert_eq!(status, 500, "{body}: {answer}");
        }
        for options in [
            json!({"type": "none", "o": "bind", "device": "/var/lib/berth/volumes"}),
            json!({"type": "none", "o": "bind", "device": "/"}),
            json!({"type": "none", "o": "bind,suid", "device": "/srv"}),
            json!({"type": "tmpfs", "o": "size=1m,remount"}),
            json!({"type": "ext4", "o": "rw,bind", "device": "/etc"}),
            json!({"o": "bind", "device": "/etc"}),
        ] {
            refused(host, "Create", json!({"Name": "w", "Opts": options}));
        }
        assert_eq!(done(host, "List", json!({}))["Volumes"].as_array().unwrap().len(), 1);
        let names = host.run("ls -A /var/lib/berth/volumes");
        assert_eq!(names, "v");
    });
}

/// What engines do: the same id again for `docker cp`, again without an unmount in between after a crash, and unmounts that
/// nobody waited for.
#[test]
fn mounts_are_counted_by_volume_and_id() {
    protocol_test(|host, berthd| {
        done(host, "Create", json!({"Name": "s", "Opts": {"size": "8M"}}));
        let is_mounted = || host.run("cat /proc/self/mountinfo").contains("/s/fs ");
        let mount = |id: &str| done(host, "Mount", json!({"Name": "s", "ID": id}));
        let unmount = |id: &str| done(host, "Unmount", json!({"Name": "s", "ID": id}));
        assert_eq!(mount("a")["Mountpoint"], "/var/lib/berth/volumes/s/fs/_data");
        mount("a");
        mount("b");
        unmount("a");
        unmount("b");
        assert!(is_mounted());
        unmount("unknown");
        assert!(is_mounted());
        berthd.crash();
        berthd.start();
        assert!(is_mounted());
        let users = &done(host, "Get", json!({"Name": "s"}))["Volume"]["Status"]["users"];
        assert_eq!(users.as_array().unwrap().len(), 1, "{users}");
        unmount("a");
        assert!(!is_mounted());
        unmount("a");
        assert_eq!(done(host, "Path", json!({"Name": "s"}))["Mountpoint"], "");
        // A count that was never given back does not block an engine that says itself that nobody uses the volume.
        mount("lost");
        assert!(is_mounted());
        done(host, "Remove", json!({"Name": "s"}));
        assert!(!is_mounted());
        // Podman's is not Docker's to doubt.
        done(host, "Create", json!({"Name": "p"}));
        let podman = "2f73349cfc4630255319c6c8dfc1b46a8996ace9d14d8e07563b165915918ec2";
        done(host, "Mount", json!({"Name": "p", "ID": podman}));
        assert!(refused(host, "Remove", json!({"Name": "p"})).contains("podman"));
        done(host, "Unmount", json!({"Name": "p", "ID": podman}));
    });
}

#[test]
fn many_calls_at_once_agree() {
    protocol_test(|host, _| {
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    for round in 0..10 {
                        let (own, id) = (format!("own{number}-{round}"), format!("id{number}"));
                        done(host, "Create", json!({"Name": "shared", "Opts": {"size": "8M"}}));
                        done(host, "Create", json!({"Name": own}));
                        let at = done(host, "Mount", json!({"Name": "shared", "ID": id}));
                        let path = at["Mountpoint"].as_str().unwrap().to_owned();
                        host.inside(|| std::fs::write(Path::new(&path).join(&own), &own).unwrap());
                        done(host, "Unmount", json!({"Name": "shared", "ID": id}));
                        done(host, "Remove", json!({"Name": own}));
                    }
                });
            }
        });
        assert_eq!(done(host, "List", json!({}))["Volumes"].as_array().unwrap().len(), 1);
        let at = done(host, "Mount", json!({"Name": "shared", "ID": "look"}));
        let count = host.run(&format!("ls {} | wc -l", at["Mountpoint"].as_str().unwrap()));
        assert_eq!(count, "80");
        done(host, "Unmount", json!({"Name": "shared", "ID": "look"}));
    });
}
