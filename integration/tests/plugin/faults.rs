//! Disks that are full.

use serde_json::json;

use crate::caller::{about, endpoint, network, plugin_test};

/// Fills the file system of `dir` to the last byte; gives it back with `rm`.
fn fill(docker: &crate::caller::Caller<'_>, dir: &str) {
    docker.host.line(&format!("dd if=/dev/zero of={dir}/.ballast bs=64k status=none")).output();
    docker.host.line(&format!("dd if=/dev/zero of={dir}/.ballast2 bs=1 status=none")).output();
}

fn free(docker: &crate::caller::Caller<'_>, dir: &str) {
    docker.host.run(&format!("rm -f {dir}/.ballast {dir}/.ballast2"));
}

#[test]
fn with_a_full_state_disk_no_half_network_is_made() {
    plugin_test(|docker| {
        fill(docker, "/var/lib/berth");
        let refused = docker.net_refuses("CreateNetwork", &network(1, json!({})));
        assert!(refused.contains("/var/lib/berth"), "{refused}");
        assert_eq!(docker.berth(&["network", "ls"]), json!([]));
        free(docker, "/var/lib/berth");
        docker.create(1);
        docker.well();
        // What is there works on: the state disk is not on the way of a container.
        fill(docker, "/var/lib/berth");
        let one = docker.connect(1, 1, 2);
        assert_eq!(one.container.ping("10.80.1.1", 1), 1);
        docker.disconnect(one);
        free(docker, "/var/lib/berth");
        docker.delete(1);
    });
}

#[test]
fn with_a_full_run_directory_no_half_endpoint_is_made() {
    plugin_test(|docker| {
        docker.create(1);
        fill(docker, "/run");
        // The records keep room of their own for a while; then an endpoint is refused.
        let mut made = Vec::new();
        let refused = (0..200).find_map(|n| {
            let body = endpoint(1, n, n + 2).to_string();
            let answer = crate::caller::answer(docker.host, "rbridge", "NetworkDriver.CreateEndpoint", &body);
            if answer.status == 200 {
                made.push(n);
                None
            } else {
                Some(answer.refused())
            }
        });
        let refused = refused.expect("a full disk is noticed");
        assert!(refused.contains("/run/berth"), "{refused}");
        free(docker, "/run");
        docker.well();
        assert_eq!(docker.berth(&["ps"]).as_array().unwrap().len(), made.len());
        for n in made {
            docker.net("DeleteEndpoint", &about(1, n));
        }
        docker.delete(1);
    });
}
