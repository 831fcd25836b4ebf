//! Scenario 8: Compose files, with `docker-compose` 1.29 on dockerd 20.10 and Compose 2.26 on 26.1.

use berth_integration::Debian;
use berth_integration::engine::{Stage, berth, no_answer, stage_test};

use crate::common::{agree, on_both_dockers};

on_both_dockers!(compose_files_of_all_kinds, compose_up_and_down_twenty_times);

/// No `networks`: one network, called after the project. `x-` keys are the reader's own.
const PLAIN: &str = "
version: '3.7'
services:
  wordpress:
    image: wordpress
    ports: ['8080:80']
    depends_on: [mysql]
  mysql:
    image: mysql
networks:
  default:
    driver: DRIVER
";

/// Two networks with a service on both, addresses of one's own, driver options, aliases, and a network that is there.
const TIERS: &str = "
version: '3.7'
services:
  proxy:
    image: nginx
    ports: ['8081:80']
    networks: [frontend]
  backend:
    image: nginx
    networks:
      frontend:
        aliases: [api, api.internal]
      backend:
        ipv4_address: 10.9.0.10
  database:
    image: mysql
    networks: [backend, shared]
networks:
  frontend:
    driver: DRIVER
    driver_opts:
      com.docker.network.bridge.name: front0
      com.docker.network.driver.mtu: '1400'
  backend:
    driver: DRIVER
    internal: true
    ipam:
      config:
        - subnet: 10.9.0.0/24
  shared:
    external: true
";

fn up(stage: &Stage<'_>, dir: &std::path::Path) {
    stage.docker.compose(dir, "up -d").run();
}

fn down(stage: &Stage<'_>, dir: &std::path::Path) {
    stage.docker.compose(dir, "down").run();
}

/// The name of a container of a project; the separator differs between the two Composes.
fn member(stage: &Stage<'_>, project: &str, service: &str) -> String {
    let filter = format!(
        "ps --quiet --filter label=com.docker.compose.project={project} --filter label=com.docker.compose.service={service}"
    );
    let id = stage.docker.run(&filter);
    assert_eq!(id.lines().count(), 1, "{project} {service}: {id}");
    id
}

fn compose_files_of_all_kinds(debian: Debian) {
    stage_test(debian, &[], |stage| {
        let (host, docker) = (stage.host, &stage.docker);
        let plain = docker.project("plain", &PLAIN.replace("DRIVER", stage.driver));
        up(stage, &plain);
        let networks = stage.types("docker network ls --filter driver=DRIVER --format '{{.Name}}'");
        assert!(networks.lines().any(|name| name == "plain_default"), "{networks}");
        let [wordpress, mysql] = ["wordpress", "mysql"].map(|service| member(stage, "plain", service));
        docker.fetches(&wordpress, "mysql:3306", &mysql);
        docker.answers(host, "127.0.0.1:8080", &wordpress);

        stage.types("docker network create -d DRIVER shared");
        let tiers = docker.project("tiers", &TIERS.replace("DRIVER", stage.driver));
        up(stage, &tiers);
        let [proxy, backend, database] =
            ["proxy", "backend", "database"].map(|service| member(stage, "tiers", service));
        docker.fetches(&proxy, "backend:80", &backend);
        docker.fetches(&proxy, "api:80", &backend);
        docker.fetches(&proxy, "api.internal:80", &backend);
        docker.fetches(&backend, "database:3306", &database);
        assert!(!docker.fetch(&proxy, "database:3306").status.success(), "the proxy is not on that network");
        assert!(!docker.fetch(&proxy, "wordpress:80").status.success(), "another project");
        assert_eq!(docker.address(&backend, "tiers_backend").octets(), [10, 9, 0, 10]);
        assert!(docker.exec(&proxy, "ip link show eth0").contains(" mtu 1400 "));
        assert!(host.run("ip -o link").contains(": front0:"));
        docker.answers(host, "127.0.0.1:8081", &proxy);
        agree(stage);
        // Up again changes nothing.
        up(stage, &tiers);
        assert_eq!(member(stage, "tiers", "proxy"), proxy);
        down(stage, &tiers);
        down(stage, &plain);
        agree(stage);
        no_answer(host, "127.0.0.1:8080");
        stage.types("docker network rm shared");
    });
}

fn compose_up_and_down_twenty_times(debian: Debian) {
    stage_test(debian, &[], |stage| {
        let docker = &stage.docker;
        let dir = docker.project("again", &PLAIN.replace("DRIVER", stage.driver));
        for round in 0..20 {
            up(stage, &dir);
            docker.answers(stage.host, "127.0.0.1:8080", &member(stage, "again", "wordpress"));
            down(stage, &dir);
            if stage.is_berth() {
                let left = berth(stage.host, ["ps", "--json"]).run();
                assert_eq!(left.trim(), "[]", "after round {round}");
            }
        }
    });
}
