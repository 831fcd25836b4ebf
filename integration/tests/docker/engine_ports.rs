//! Scenario 4: all forms of `-p`.

use std::fs;
use std::time::Duration;

use berth_integration::engine::{Stage, berth, no_answer, stage_test};
use berth_integration::{Debian, Lan, Probe, eventually};

use crate::common::{agree, on_both_dockers, published};

on_both_dockers!(ports_are_published_in_all_forms, a_taken_port_is_refused_and_its_holder_named);

fn ports_are_published_in_all_forms(debian: Debian) {
    stage_test(debian, &[], |stage| {
        let lan = Lan::new();
        let seat = lan.join(stage.host);
        let (host, docker) = (stage.host, &stage.docker);
        host.run("ip address add 192.0.2.3/24 dev up0");
        stage.types(
            "docker network create -d DRIVER n1
             docker run -d --name plain --network n1 -p 8080:80 nginx
             docker run -d --name free --network n1 -p 80 nginx
             docker run -d --name local --network n1 -p 127.0.0.1:8081:80 nginx
             docker run -d --name udp --network n1 -p 8080:80/udp busybox
             docker run -d --name range --network n1 -p 8000-8010:80-90 nginx
             docker run -d --name one --network n1 -p 192.0.2.2:9000:80 nginx
             docker run -d --name two --network n1 -p 192.0.2.3:9000:80 nginx",
        );
        let _server = docker.place("udp").serve_udp(80, "udp");
        let outside = |port: u16| format!("{}:{port}", seat.v4);
        docker.answers(&lan, outside(8080), "plain");
        docker.answers(host, "127.0.0.1:8080", "plain");
        // Containers reach published ports at the host's address, their own too.
        for from in ["free", "plain"] {
            docker.fetches(from, "192.0.2.2:8080", "plain");
        }
        let port = published(stage, "free", 80);
        docker.answers(&lan, outside(port), "free");
        docker.answers(host, "127.0.0.1:8081", "local");
        no_answer(host, "192.0.2.2:8081");
        no_answer(&lan, outside(8081));
        assert_eq!(lan.reach(&Probe::udp(outside(8080))).label, "udp");
        assert_eq!(host.reach(&Probe::udp("127.0.0.1:8080")).label, "udp");
        docker.answers(&lan, outside(8000), "range");
        no_answer(&lan, outside(8001));
        docker.answers(host, "192.0.2.2:9000", "one");
        docker.answers(host, "192.0.2.3:9000", "two");
        no_answer(host, "127.0.0.1:9000");
        if stage.is_berth() {
            let shown = berth(host, ["ports"]).run();
            assert!(shown.contains("0.0.0.0:8000-8010") && shown.contains("127.0.0.1:8081"), "{shown}");
            let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let names: Vec<_> = host.processes().iter().map(name).collect();
            assert!(!names.iter().any(|name| name.contains("proxy")), "a process for a port: {names:?}");
        }
        agree(stage);
        stage.types("docker rm -f plain free local udp range one two");
        stage.types("docker network rm n1");
        no_answer(&lan, outside(8080));
        host.run("ip address del 192.0.2.3/24 dev up0");
        host.run(&format!("ip link delete {}", seat.ifname));
    });
}

fn a_taken_port_is_refused_and_its_holder_named(debian: Debian) {
    stage_test(debian, &[], |stage| {
        let (host, docker) = (stage.host, &stage.docker);
        stage.types(
            "docker network create -d DRIVER n1
             docker network create -d DRIVER n2
             docker run -d --name first --network n1 -p 8080:80 nginx",
        );
        if stage.is_berth() {
            is_called(stage, "first");
        }
        let refused = stage.refuses("docker run -d --name second --network n2 -p 8080:80 nginx");
        assert!(!stage.is_berth() || refused.contains("8080") && refused.contains("first"), "{refused}");
        // A part of a range that is taken takes the rest of it not.
        stage.refuses("docker run -d --name third --network n2 -p 8079-8081:80-82 nginx");
        docker.answers(host, "127.0.0.1:8080", "first");
        // A program of the host.
        {
            let _server = host.serve_tcp(8090, "program");
            let refused = stage.refuses("docker run -d --name fourth --network n1 -p 8090:80 nginx");
            assert!(refused.contains("8090"), "{refused}");
            host.probe(&Probe::tcp("127.0.0.1:8090")).all_from("program");
        }
        stage.types("docker rm -f second third fourth");
        agree(stage);
        // Free again with its holder.
        stage.types(
            "docker rm -f first
             docker run -d --name second --network n2 -p 8080:80 nginx",
        );
        docker.answers(host, "127.0.0.1:8080", "second");
        stage.types(
            "docker rm -f second
             docker network rm n1 n2",
        );
    });
}

/// Waits until berth has learned a container's name, which Docker tells no plugin: it is asked for in the background.
#[track_caller]
fn is_called(stage: &Stage<'_>, container: &str) {
    eventually(Duration::from_secs(10), || {
        let shown = berth(stage.host, ["ports"]).run();
        if shown.contains(container) {
            Ok(())
        } else {
            Err(format!("no `{container}` among these ports: {shown}"))
        }
    });
}
