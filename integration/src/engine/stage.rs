//! berth and Docker together on a private host.

use super::docker::PROGRAMS;
use super::{Berthd, Dockerd, Suite, engine_test_on};
use crate::{Debian, Host};

/// A host with berth's daemon and a dockerd that uses it.
#[derive(Debug)]
pub struct Stage<'h> {
    /// The host.
    pub host: &'h Host,
    /// dockerd, and everything that can be asked of it.
    pub docker: Dockerd<'h>,
    /// berth's daemon; none where Docker's own drivers take its place.
    pub berthd: Option<Berthd<'h>>,
    /// What is given to `docker network create -d`: `rbridge`, or `bridge` where the tests themselves are proved.
    pub driver: &'static str,
}

/// Runs `test` with berth as Docker's network driver, on a host of its own that must afterwards be as before.
pub fn stage_test(debian: Debian, options: &[&str], test: impl FnOnce(&mut Stage<'_>)) {
    engine_test_on(debian, &PROGRAMS, |host| {
        let berthd = (Suite::chosen() == Suite::Berth).then(|| Berthd::new(host, &[]));
        let driver = if berthd.is_some() { "rbridge" } else { "bridge" };
        let docker = Dockerd::new(host, debian, options);
        let mut stage = Stage { host, docker, berthd, driver };
        test(&mut stage);
        let Stage { docker, berthd, .. } = stage;
        docker.end();
        if let Some(mut berthd) = berthd.filter(Berthd::runs) {
            berthd.stop();
        }
    });
}

impl Stage<'_> {
    /// Runs lines as people type them, each with the driver in the place of `DRIVER`; each must succeed. Returns what the last
    /// one printed.
    #[track_caller]
    pub fn types(&self, lines: &str) -> String {
        let mut printed = String::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            printed = self.docker.shell(&line.replace("DRIVER", self.driver)).run();
        }
        printed
    }

    /// Runs a line as [`Stage::types`], which must fail. Returns what was complained about.
    #[track_caller]
    pub fn refuses(&self, line: &str) -> String {
        let ran = self.docker.shell(&line.replace("DRIVER", self.driver)).output();
        assert!(!ran.status.success(), "`{line}` should have failed: {ran}");
        ran.stderr
    }

    /// Whether berth is the driver.
    pub fn is_berth(&self) -> bool {
        self.berthd.is_some()
    }
}
