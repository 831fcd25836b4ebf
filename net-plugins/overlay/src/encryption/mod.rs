//! Encryption between nodes: which keys, which states, and in which order. It is done only where the kernel can ([`probe`]);
//! elsewhere a network that asks for it is refused, and never made without.
//!
//! - Each pair of nodes has two keys, one for each direction, made of what their X25519 keys share (RFC 7748) by HKDF-SHA-256
//!   (RFC 5869) over both names, both public keys and the generation (`keys`). No key serves two pairs, two directions or two
//!   lives of a node.
//! - The cipher is AES-128-GCM with 128 bits of integrity check (RFC 4106), extended sequence numbers and a replay window.
//! - What must not come in or leave in clear is kept from it before the first state is made, and until after the last is gone
//!   ([`steps`]); by policies, and by the ruleset beside them ([`berth_core::overlay::OverlayPort::encrypted`]).
//! - New states come in everywhere before anybody sends by them: generations are periods of the clock, and the one before and the
//!   one after are taken, too ([`Generation`]).
//! - A counter never begins anew under an old key (`ring`).

mod esp;
mod keys;
mod plan;
mod ring;

use berth_netlink::{NetlinkError, xfrm};
use berth_types::NetworkName;

pub use esp::{Circle, Esp, EspError, Kept};
pub use keys::{Member, Secret, Spis, pair_keys, spis};
pub use plan::{Generation, Held, Peer, Step, desired, steps};
pub use ring::Ring;

/// Why a network is not encrypted; and so why it is not here.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// The kernel cannot.
    #[error(
        "network `{0}` is encrypted, and this node's kernel has no ESP with AES-GCM\n\
         use a kernel with CONFIG_INET_ESP, CONFIG_INET6_ESP and CONFIG_CRYPTO_GCM, or create the network without \
         encryption"
    )]
    Unsupported(NetworkName),
    /// It could not be found out whether the kernel can.
    #[error("network `{0}` is encrypted, and whether this node's kernel can is not known")]
    Unknown(NetworkName, #[source] NetlinkError),
    /// A node has no key.
    #[error("node `{0}` has no key to encrypt with\nupdate berth on it, and let it join again")]
    NoKey(berth_types::NodeName),
    /// A node's key is none.
    #[error("the key of node `{0}` is none: it is 64 hexadecimal digits")]
    BadKey(berth_types::NodeName),
}

/// Whether this node may take part in an encrypted network.
///
/// # Errors
///
/// [`EncryptionError::Unsupported`] where the kernel cannot encrypt, and [`EncryptionError::Unknown`] where that is not known:
/// either way the network is not made.
pub fn probe(network: &NetworkName) -> Result<(), EncryptionError> {
    admit(network, xfrm::esp_gcm_supported())
}

fn admit(network: &NetworkName, supported: Result<bool, NetlinkError>) -> Result<(), EncryptionError> {
    match supported {
        Ok(true) => Ok(()),
        Ok(false) => Err(EncryptionError::Unsupported(network.clone())),
        Err(err) => Err(EncryptionError::Unknown(network.clone(), err)),
    }
}

#[cfg(test)]
mod tests;
