//! Docker beside other engines, and hosts that come later.

use berth_integration::{Debian, Probe, eventually};

use super::stage::docker_stage_test;
use crate::stage::{self, SOON};

#[test]
fn a_container_of_another_engine_is_on_dockers_network() {
    docker_stage_test(Debian::V12, 1, |stage| {
        let (host, seat) = &stage.others[0];
        let mut third = stage::Node::new(host, seat, 3);
        third.join(&stage.etcd.endpoint);
        third.is_connected();
        let [a, b] = &stage.nodes[..] else { unreachable!() };
        // As a person types it, on one host; what the cluster lacks is created.
        a.creates("blue", "--subnet 10.5.0.0/24 -o vni=7777");
        b.creates("blue", "");
        assert_eq!(a.identity("blue"), b.identity("blue"));
        assert_eq!(a.identity("blue")[0], 7777);
        a.starts("server", "blue", "");
        let member = third.add("c1", "guest");
        let address = a.address("server", "blue");
        eventually(SOON, || match third.dig(&member, "server") {
            found if found == address => Ok(()),
            found => Err(format!("the third host says that server is at `{found}`, not {address}")),
        });
        let label = a.docker.label("server");
        assert_eq!(member.container.reach(&Probe::http(format!("{address}:80"))).label, label);
        b.starts("client", "blue", "");
        b.fetches("client", "server:80", &label);
        assert!(b.docker.pings("client", "guest"), "guest is not reached by its name");

        member.del();
        a.types("docker rm -f server\n docker network rm blue");
        b.types("docker rm -f client\n docker network rm blue");
        third.berth("network rm blue");
        third.berth("node leave");
        third.daemon.stop();
        third.host.gc();
    });
}
