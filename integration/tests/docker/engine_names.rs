//! Scenarios 1, 2, 5 and 6: containers find each other by name, on one network and on several, before and after a restart.

use std::net::Ipv4Addr;

use berth_integration::engine::{no_answer, stage_test};
use berth_integration::{Debian, Lan};

use crate::common::{agree, on_both_dockers};

on_both_dockers!(wordpress_finds_mysql_and_the_host_finds_wordpress, networks_are_reached_as_they_are_joined);

/// Scenarios 1, 2 and 6.
fn wordpress_finds_mysql_and_the_host_finds_wordpress(debian: Debian) {
    stage_test(debian, &[], |stage| {
        let lan = Lan::new();
        let seat = lan.join(stage.host);
        stage.types(
            "docker network create -d DRIVER app-network
             docker run -d --name mysql --network app-network mysql
             docker run -d --name wordpress --network app-network -p 8080:80 wordpress",
        );
        let (host, docker) = (stage.host, &stage.docker);
        docker.fetches("wordpress", "mysql:3306", "mysql");
        docker.fetches("wordpress", "mysql.app-network:3306", "mysql");
        for place in ["127.0.0.1:8080", "192.0.2.2:8080"] {
            docker.answers(host, place, "wordpress");
        }
        docker.answers(&lan, format!("{}:8080", seat.v4), "wordpress");
        assert!(docker.exec("wordpress", "ping -c 1 -W 1 mysql").contains("1 packets received"));
        agree(stage);

        // A database that is published too, and a backend.
        stage.types(
            "docker run -d --name my-mariadb --network app-network -p 13306:3306 mariadb
             docker run -d --name backend --network app-network -p 8088:80 nginx",
        );
        docker.fetches("backend", "my-mariadb:3306", "my-mariadb");
        docker.answers(host, "127.0.0.1:13306", "my-mariadb");
        docker.answers(host, "127.0.0.1:8088", "backend");

        // Stopped and started, others have taken its address; the name finds it.
        stage.types(
            "docker stop mysql
             docker run -d --name squatter --network app-network busybox
             docker start mysql",
        );
        docker.fetches("wordpress", "mysql:3306", "mysql");
        stage.types("docker restart wordpress");
        docker.answers(host, "127.0.0.1:8080", "wordpress");
        docker.fetches("wordpress", "mysql:3306", "mysql");
        agree(stage);

        stage.types(
            "docker rm -f mysql wordpress my-mariadb backend squatter
             docker network rm app-network",
        );
        for port in [8080, 8088, 13306] {
            no_answer(host, format!("127.0.0.1:{port}"));
        }
        host.run(&format!("ip link delete {}", seat.ifname));
    });
}

/// Scenario 1's second half and scenario 5.
fn networks_are_reached_as_they_are_joined(debian: Debian) {
    stage_test(debian, &[], |stage| {
        stage.types(
            "docker network create -d DRIVER app-network
             docker network create -d DRIVER other-network
             docker run -d --name mysql mysql
             docker run -d --name wordpress --network app-network wordpress
             docker run -d --name stranger --network other-network busybox",
        );
        let docker = &stage.docker;
        assert!(!docker.fetch("wordpress", "mysql:3306").status.success(), "not yet on its network");

        // Joined and left while running.
        stage.types("docker network connect --alias db app-network mysql");
        docker.fetches("wordpress", "mysql:3306", "mysql");
        docker.fetches("wordpress", "db:3306", "mysql");
        agree(stage);
        stage.types("docker network disconnect app-network mysql");
        assert!(!docker.fetch("wordpress", "mysql:3306").status.success(), "left its network");

        // Different bridges are apart, by name and by address; who is on both reaches both.
        let address = |name: &str, network: &str| docker.address(name, network);
        let (inner, outer): (Ipv4Addr, Ipv4Addr) =
            (address("wordpress", "app-network"), address("stranger", "other-network"));
        assert!(!docker.pings("stranger", inner));
        assert!(!docker.fetch("stranger", &format!("{inner}:80")).status.success());
        assert!(!docker.fetch("stranger", "wordpress:80").status.success());
        stage.types(
            "docker run -d --name both --network app-network busybox
             docker network connect other-network both",
        );
        for (to, addr) in [("wordpress", inner), ("stranger", outer)] {
            docker.fetches("both", format!("{to}:80"), to);
            assert!(docker.pings("both", addr), "{to} is not reached");
        }
        assert!(!docker.pings("stranger", inner), "a container on both networks joins them");
        agree(stage);
        stage.types(
            "docker rm -f mysql wordpress stranger both
             docker network rm app-network other-network",
        );
    });
}
