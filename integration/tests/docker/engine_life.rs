//! Daemons that are killed, stopped and started in any order, reboots, and what Docker forgot: afterwards Docker, the records
//! and the kernel agree, and no connection was broken that need not be.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use berth_integration::engine::{Stage, berth, no_answer, reboot, reboots_are_over, stage_test};
use berth_integration::{Debian, Place, eventually};

use crate::common::{agree, on_both_dockers};

on_both_dockers!(
    no_death_of_a_daemon_breaks_a_connection,
    containers_come_back_after_a_crash_and_after_a_reboot,
    what_was_removed_while_berthd_was_down_is_gone,
);

/// How long a stuck connection may take to show.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something that happens to the daemons.
type Step = fn(&mut Stage<'_>);

/// A connection that is kept open.
struct Talk(BufReader<TcpStream>);

impl Talk {
    fn begin(from: &Place, addr: &str, label: &str) -> Self {
        let stream = from.inside(|| TcpStream::connect(addr)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut talk = Self(BufReader::new(stream));
        let mut greeting = String::new();
        talk.0.read_line(&mut greeting).unwrap();
        assert!(greeting.starts_with(label), "{greeting}");
        talk
    }

    #[track_caller]
    fn goes_on(&mut self, after: &str) {
        let mut echo = [0; 5];
        let said = self.0.get_mut().write_all(b"still").and_then(|()| self.0.read_exact(&mut echo));
        assert!(said.is_ok() && &echo == b"still", "after {after}: {said:?}");
    }
}

fn no_death_of_a_daemon_breaks_a_connection(debian: Debian) {
    stage_test(debian, &["--live-restore"], |stage| {
        if !stage.is_berth() {
            return;
        }
        stage.types(
            "docker network create -d DRIVER n1
             docker run -d --name web --network n1 -p 8080:80 -p 9090:90 nginx
             docker run -d --name mysql --network n1 mysql",
        );
        let host = stage.host;
        {
            let _server = stage.docker.place("web").serve_tcp(90, "web");
            let mut talks = [
                Talk::begin(host, "192.0.2.2:9090", "web"),
                Talk::begin(&stage.docker.place("mysql"), "192.0.2.2:9090", "web"),
            ];
            let steps: [(&str, Step); 6] = [
                ("berthd was killed", |stage| berthd(stage).crash()),
                ("berthd was started again", |stage| berthd(stage).start()),
                ("dockerd was killed and started", |stage| {
                    stage.docker.crash();
                    stage.docker.start();
                }),
                ("dockerd was stopped and started", |stage| {
                    stage.docker.stop();
                    stage.docker.start();
                }),
                ("both were killed, and berthd came first", |stage| {
                    stage.docker.crash();
                    berthd(stage).crash();
                    berthd(stage).start();
                    stage.docker.start();
                }),
                ("both were killed, and dockerd came first", |stage| {
                    stage.docker.crash();
                    berthd(stage).crash();
                    stage.docker.start_unready();
                    berthd(stage).start();
                    stage.docker.wait_ready();
                }),
            ];
            for (what, step) in steps {
                step(stage);
                talks.iter_mut().for_each(|talk| talk.goes_on(what));
                stage.docker.answers(host, "127.0.0.1:8080", "web");
                if berthd(stage).runs() {
                    agree(stage);
                }
            }
        }
        // All is as it was: names, new containers, new networks.
        stage.docker.fetches("web", "mysql:3306", "mysql");
        stage.types("docker run -d --name late --network n1 -p 8081:80 nginx");
        stage.docker.fetches("late", "web:80", "web");
        stage.docker.answers(host, "127.0.0.1:8081", "late");
        agree(stage);
        stage.types(
            "docker rm -f web mysql late
             docker network rm n1",
        );
        no_answer(host, "127.0.0.1:8080");
        agree(stage);
    });
}

fn containers_come_back_after_a_crash_and_after_a_reboot(debian: Debian) {
    stage_test(debian, &[], |stage| {
        if !stage.is_berth() {
            return;
        }
        stage.types(
            "docker network create -d DRIVER --subnet 10.5.0.0/24 n1
             docker network create -d DRIVER --ipam-driver ripam n2
             docker run -d --restart always --name web --network n1 --ip 10.5.0.9 -p 8080:80 nginx
             docker run -d --restart always --name mysql --network n2 -p 3306:3306 mysql
             docker run -d --name once --network n2 busybox",
        );
        let host = stage.host;
        // Without live-restore a dockerd that starts ends what runs, and starts what is to be restarted. Its sandboxes and
        // endpoints of before are the leftovers that it forgets.
        stage.docker.crash();
        stage.docker.start();
        come_back(stage);

        // A power failure and two boots, in either order.
        for docker_first in [false, true] {
            stage.docker.power_off();
            berthd(stage).crash();
            reboot(stage.host);
            if docker_first {
                stage.docker.start_unready();
                berthd(stage).start();
                stage.docker.wait_ready();
            } else {
                berthd(stage).start();
                stage.docker.start();
            }
            come_back(stage);
        }
        // What was not to be restarted can be, and everything can be removed.
        stage.types("docker start once");
        agree(stage);
        stage.types(
            "docker rm -f web mysql once
             docker network rm n1 n2",
        );
        agree(stage);
        assert_eq!(berth(host, ["network", "ls", "--json"]).run().trim(), "[]");
        reboots_are_over(host);
    });
}

/// Waits until the containers with a restart policy are as they were.
#[track_caller]
fn come_back(stage: &Stage<'_>) {
    for name in ["web", "mysql"] {
        eventually(Duration::from_secs(30), || {
            let state = stage.docker.run(&format!("inspect --format {{{{.State.Running}}}} {name}"));
            if state == "true" { Ok(()) } else { Err(stage.docker.run("ps --all")) }
        });
    }
    stage.docker.answers(stage.host, "127.0.0.1:8080", "web");
    stage.docker.answers(stage.host, "127.0.0.1:3306", "mysql");
    assert_eq!(stage.docker.address("web", "n1").octets(), [10, 5, 0, 9]);
    agree(stage);
}

fn what_was_removed_while_berthd_was_down_is_gone(debian: Debian) {
    stage_test(debian, &[], |stage| {
        if !stage.is_berth() {
            return;
        }
        stage.types(
            "docker network create -d DRIVER stays
             docker network create -d DRIVER goes
             docker run -d --name web --network stays -p 8080:80 nginx
             docker run -d --name gone --network stays -p 8081:80 nginx",
        );
        berthd(stage).stop();
        // Docker waits 15 seconds for each answer, says so or not, and forgets.
        let forgetting = [["rm", "-f", "gone"].as_slice(), &["network", "rm", "goes"]]
            .map(|words| stage.docker.cmd(words.iter().copied()).spawn());
        for call in forgetting {
            call.wait(Duration::from_secs(100));
        }
        stage.docker.answers(stage.host, "127.0.0.1:8080", "web");
        berthd(stage).start();
        eventually(Duration::from_secs(20), || {
            let left = berth(stage.host, ["ps", "--json"]).run();
            let left: serde_json::Value = serde_json::from_str(&left).unwrap();
            if left.as_array().map(Vec::len) == Some(1) { Ok(()) } else { Err(left.to_string()) }
        });
        no_answer(stage.host, "127.0.0.1:8081");
        // Its address and its port are free, and the network is gone at the latest when dockerd was started again.
        stage.types("docker run -d --name next --network stays -p 8081:80 nginx");
        stage.docker.answers(stage.host, "127.0.0.1:8081", "next");
        stage.docker.stop();
        stage.docker.start();
        agree(stage);
        stage.types(
            "docker rm -f web next
             docker network rm stays",
        );
        agree(stage);
    });
}

#[track_caller]
fn berthd<'s, 'h>(stage: &'s mut Stage<'h>) -> &'s mut berth_integration::engine::Berthd<'h> {
    stage.berthd.as_mut().expect("berth is the driver")
}
