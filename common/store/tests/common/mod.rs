//! What the tests share: private directories and names.
#![allow(dead_code, clippy::unwrap_used, reason = "helpers of tests; each test file uses its own part")]

use berth_store::{Dirs, Store};
use berth_types::{AttachmentKey, BootId, ContainerId, IfName, NetworkName, Proto, PublishedPort};

pub(crate) struct Host {
    pub(crate) root: tempfile::TempDir,
    pub(crate) dirs: Dirs,
}

impl Host {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::under(root.path());
        Self { root, dirs }
    }

    pub(crate) fn open(&self) -> Store {
        self.open_in("boot-1")
    }

    pub(crate) fn open_in(&self, boot: &str) -> Store {
        Store::open(&self.dirs, BootId::new(boot)).unwrap()
    }
}

pub(crate) fn key(container: &str) -> AttachmentKey {
    key_on("n0", container)
}

pub(crate) fn key_on(network: &str, container: &str) -> AttachmentKey {
    AttachmentKey {
        network: NetworkName::new(network).unwrap(),
        container: ContainerId::new(container).unwrap(),
        ifname: IfName::new("eth0").unwrap(),
    }
}

pub(crate) fn port(host_addr: &str, host_port: u16, count: u16) -> PublishedPort {
    let host_addr: std::net::IpAddr = host_addr.parse().unwrap();
    let target = if host_addr.is_ipv4() { "10.80.0.2" } else { "fd80::2" };
    PublishedPort {
        proto: Proto::Tcp,
        host_addr,
        host_port,
        target: target.parse().unwrap(),
        target_port: 80,
        count,
    }
}
