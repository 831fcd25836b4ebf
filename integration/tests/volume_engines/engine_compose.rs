//! Scenario 17: Compose files.

use berth_integration::Debian;

use crate::common::{docker_volumes, on_both_debians, volume};

on_both_debians!(compose_shares_volumes_and_notices_changed_options);

/// A volume shared by two services, in both syntaxes, one with options, and one that is there already.
const SHARED: &str = "
version: '3.7'
services:
  backend:
    image: busybox
    volumes:
      - shared:/data
      - type: volume
        source: limited
        target: /limited
  backup:
    image: busybox
    volumes:
      - type: volume
        source: shared
        target: /backup/data
        read_only: true
      - there:/there
volumes:
  shared:
    driver: rvolume
  limited:
    driver: rvolume
    driver_opts:
      size: LIMIT
  there:
    external: true
";

fn compose_shares_volumes_and_notices_changed_options(debian: Debian) {
    docker_volumes(debian, &[], |stage| {
        let project = |limit: &str| stage.docker.project("shop", &SHARED.replace("LIMIT", limit));
        let dir = project("16M");
        let missing = stage.docker.compose(&dir, "up -d").output();
        assert!(!missing.status.success() && missing.stderr.contains("there"), "{missing}");
        stage.types("docker volume create -d rvolume there");
        stage.docker.compose(&dir, "up -d").run();
        stage.docker.compose(&dir, "exec -T backend sh -c 'echo shared > /data/file'").run();
        let seen = stage.docker.compose(&dir, "exec -T backup cat /backup/data/file").run();
        assert_eq!(seen.trim(), "shared");
        let refused = stage.docker.compose(&dir, "exec -T backup touch /backup/data/x").output();
        assert!(!refused.status.success(), "{refused}");
        assert_eq!(volume(stage, "shop_limited")["Status"]["options"]["size"], "16M");
        // Other options for a volume that is there are noticed and said, and the volume stays as it is. Compose 2.26 compares
        // nothing and asks no plugin for a volume that is there, so there nobody can.
        let changed = project("32M");
        let ran = stage.docker.compose(&changed, "up -d --no-recreate").output();
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("limited") || debian == Debian::V13, "{ran}");
        assert_eq!(volume(stage, "shop_limited")["Status"]["options"]["size"], "16M");
        let dir = project("16M");
        stage.docker.compose(&dir, "down -v").run();
        assert_eq!(stage.docker.run("volume ls --quiet"), "there", "what was there before stays");
    });
}
