//! Lists of servers to forward to.

use std::net::SocketAddr;
use std::sync::Arc;

/// A list of servers, in the order they are to be asked. What one list answered is never used for another: two networks may
/// see different worlds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers {
    /// The same for equal lists, in one process.
    id: u64,
    addrs: Box<[SocketAddr]>,
}

/// Who is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// The host's own servers, whichever they are when it happens.
    Host,
    /// These.
    Listed(Arc<Servers>),
}

impl Servers {
    /// The list `addrs`, or nothing if it is empty. What is there twice is asked once.
    pub fn new(addrs: &[SocketAddr]) -> Option<Arc<Self>> {
        let mut kept: Vec<SocketAddr> = Vec::with_capacity(addrs.len());
        for addr in addrs {
            if !kept.contains(addr) {
                kept.push(*addr);
            }
        }
        let text: Vec<String> = kept.iter().map(SocketAddr::to_string).collect();
        let id = berth_types::fnv64(text.iter().map(String::as_str));
        (!kept.is_empty()).then(|| Arc::new(Self { id, addrs: kept.into() }))
    }

    /// What tells this list from others.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The servers.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }
}
