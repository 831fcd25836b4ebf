//! What the tests share: a private store and short ways to ask it.
#![allow(dead_code, clippy::unwrap_used, reason = "helpers of tests; each test file uses its own part")]

use berth_ipam::{AllocateError, Allocation, PoolConfig, Request, allocate, release};
use berth_store::{BootTime, Dirs, LeaseRow, Store, StoreError};
use berth_types::{AttachmentKey, BootId, ContainerId, IfName, NetworkName};
use serde_json::{Value, json};

pub(crate) struct Host {
    pub(crate) root: tempfile::TempDir,
    pub(crate) store: Store,
    /// Seconds since boot.
    pub(crate) now: i64,
}

impl Host {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = open(root.path(), "boot-0");
        Self { root, store, now: 1000 }
    }

    pub(crate) fn reboot(&mut self, boot: &str) {
        self.store = open(self.root.path(), boot);
        self.now = 10;
    }

    pub(crate) fn ask(&mut self, pools: &PoolConfig, request: &Request) -> Result<Allocation, AllocateError> {
        self.ask_with(pools, request, |_| false)
    }

    pub(crate) fn ask_with(
        &mut self,
        pools: &PoolConfig,
        request: &Request,
        mut is_dead: impl FnMut(&LeaseRow) -> bool,
    ) -> Result<Allocation, AllocateError> {
        let now = self.time();
        self.store.write(|tx| allocate(tx, pools, request, now, &mut is_dead))
    }

    /// The addresses given to container `name`, as text.
    pub(crate) fn give(&mut self, pools: &PoolConfig, name: &str) -> Result<String, String> {
        texts(self.ask(pools, &request(name)))
    }

    pub(crate) fn take_back(&mut self, name: &str) -> usize {
        let now = self.time();
        let released: Result<_, StoreError> = self.store.write(|tx| release(tx, &key(name), now));
        released.unwrap().len()
    }

    pub(crate) fn time(&self) -> BootTime {
        BootTime { millis: self.now * 1000 }
    }
}

pub(crate) fn open(root: &std::path::Path, boot: &str) -> Store {
    Store::open(&Dirs::under(root), BootId::new(boot)).unwrap()
}

pub(crate) fn texts(allocation: Result<Allocation, AllocateError>) -> Result<String, String> {
    let addresses = allocation.map_err(|err| err.to_string())?.addresses;
    let texts: Vec<String> = addresses.iter().map(|lease| lease.address.to_string()).collect();
    Ok(texts.join(" "))
}

pub(crate) fn key(container: &str) -> AttachmentKey {
    AttachmentKey {
        network: NetworkName::new("n0").unwrap(),
        container: ContainerId::new(container).unwrap(),
        ifname: IfName::new("eth0").unwrap(),
    }
}

pub(crate) fn request(container: &str) -> Request {
    Request { owner: key(container), sandbox: None, requested: Vec::new(), sticky: None }
}

pub(crate) fn requesting(container: &str, addresses: &[&str]) -> Request {
    let requested = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Request { requested, ..request(container) }
}

pub(crate) fn pools(ipam: &Value) -> PoolConfig {
    PoolConfig::parse(ipam, None).unwrap()
}

/// One range of 10.80.0.0/24, with further keys of the range or of the configuration.
pub(crate) fn pool_of(start: &str, end: &str) -> PoolConfig {
    pools(&json!({"ranges": [[{"subnet": "10.80.0.0/24", "rangeStart": start, "rangeEnd": end}]]}))
}
