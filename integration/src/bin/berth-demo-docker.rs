//! `berth-demo-docker`: what container courses type, on a real dockerd with berth as its network driver. Everything happens in
//! a private host: neither the machine's network nor its Docker is touched.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a demonstration: its output is its purpose")]

use std::time::Duration;

use berth_integration::engine::{Berthd, Dockerd, berth, engine_test};
use berth_integration::{Debian, eventually};

/// What is typed, in this order.
const LINES: [&str; 8] = [
    "docker network create -d rbridge app-network",
    "docker run -d --name mysql --network app-network mysql",
    "docker run -d --name wordpress --network app-network -p 8080:80 wordpress",
    "docker exec wordpress ping -c 1 mysql",
    "docker run -d --name other --network app-network -p 8080:80 wordpress",
    "berth ps",
    "berth ports",
    "berth doctor",
];

const AFTERWARDS: [&str; 2] = ["docker rm -f mysql wordpress other", "docker network rm app-network"];

fn main() {
    println!("\nThe same with Docker: a private host with a dockerd of its own.");
    engine_test(&["dockerd", "docker", "iptables", "busybox"], |host| {
        let mut berthd = Berthd::new(host, &[]);
        let docker = Dockerd::new(host, Debian::V12, &[]);
        let typed = |line: &str| {
            println!("\n# {line}");
            let ran = match line.strip_prefix("berth ") {
                Some(words) => berth(host, words.split(' ')).output(),
                None => docker.shell(line).output(),
            };
            print!("{}{}", ran.stdout, ran.stderr);
        };
        for line in LINES {
            if line == "berth ps" {
                // Names are learned in the background.
                eventually(Duration::from_secs(10), || {
                    let shown = berth(host, ["ps"]).run();
                    if shown.contains("wordpress") { Ok(()) } else { Err(shown) }
                });
            }
            typed(line);
        }
        AFTERWARDS.into_iter().for_each(typed);
        println!("\nlinks left on the host: {}", host.run("ip -br link | cut -d ' ' -f 1 | tr '\\n' ' '"));
        docker.end();
        berthd.stop();
    });
}
