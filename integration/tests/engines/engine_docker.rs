//! The harness itself, proved with Docker's own `bridge` driver: what fails here is not berth's fault.

use berth_integration::engine::{docker_test_with, no_answer};
use berth_integration::{Debian, Lan};

/// Containers reach each other by name, a neighbour reaches a published port, and the daemon comes back after a crash.
fn works(debian: Debian, version: &str) {
    docker_test_with(debian, &["--live-restore"], |host, docker| {
        let lan = Lan::new();
        let seat = lan.join(host);
        assert!(docker.run("version --format {{.Server.Version}}").starts_with(version));
        docker.run("network create own");
        docker.run("run -d --name web --network own -p 8080:80 nginx");
        docker.run("run -d --name db --network own mysql");
        docker.fetches("web", "db:3306", "db");
        assert!(docker.pings("db", docker.address("web", "own")));
        docker.answers(&lan, format!("{}:8080", seat.v4), "web");
        docker.crash();
        docker.start();
        docker.answers(&lan, format!("{}:8080", seat.v4), "web");
        docker.run("rm -f web db");
        no_answer(&lan, format!("{}:8080", seat.v4));
        docker.run("network rm own");
        host.run(&format!("ip link delete {}", seat.ifname));
    });
}

#[test]
fn engine_docker_20_10_works_on_a_private_host() {
    works(Debian::V12, "20.10.");
}

#[test]
fn engine_docker_26_1_works_on_a_private_host() {
    works(Debian::V13, "26.1.");
}
