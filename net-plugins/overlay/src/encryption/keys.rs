//! Keys of pairs of nodes and the numbers of their states. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use berth_netlink::xfrm::EspKey;
use berth_types::NodeName;
use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

use super::EncryptionError;
use crate::model::Node;

/// Numbers below are reserved (RFC 4303, section 2.1).
const FIRST_SPI: u32 = 256;

/// Separates these keys from all others that are ever made of the same secrets.
const DOMAIN: &[u8] = b"berth overlay esp 1";

/// A node's X25519 secret, of one boot or less. It never leaves the node.
#[derive(Clone)]
pub struct Secret(StaticSecret);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Of 32 random bytes.
    pub fn new(random: [u8; 32]) -> Self {
        Self(StaticSecret::from(random))
    }

    /// What the node's record says: the public half as hexadecimal digits.
    pub fn public_text(&self) -> String {
        digits(PublicKey::from(&self.0).as_bytes())
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// All of it as hexadecimal digits, for the file that an agent started anew reads it from.
    pub(super) fn kept_text(&self) -> String {
        digits(self.0.as_bytes())
    }

    /// What [`Secret::kept_text`] wrote.
    pub(super) fn of_kept(text: &str) -> Option<Self> {
        key_of(text).map(Self::new)
    }
}

fn digits(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A node as far as keys are made of it. Its epoch is not: what begins anew with a boot is its key, and a node that joins anew
/// without one goes on with the states that its peers have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Its public key, another in each of its lives.
    pub public: [u8; 32],
}

impl Member {
    /// From the node's record.
    ///
    /// # Errors
    ///
    /// [`EncryptionError::NoKey`] and [`EncryptionError::BadKey`].
    pub fn of(node: &Node) -> Result<Self, EncryptionError> {
        let text = node.public_key.as_ref().ok_or_else(|| EncryptionError::NoKey(node.name.clone()))?;
        let public = key_of(text).ok_or_else(|| EncryptionError::BadKey(node.name.clone()))?;
        Ok(Self { name: node.name.clone(), public })
    }
}

/// 64 hexadecimal digits.
fn key_of(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..32).map_while(byte).collect();
    bytes.try_into().ok()
}

/// The keys from `here` to `there` and from `there` to `here`, of one generation. `secret` is `here`'s. Nothing where `there`'s
/// public key is one of the few that give every secret the same result (RFC 7748, section 6.1).
pub fn pair_keys(
    secret: &Secret,
    here: &Member,
    there: &Member,
    generation: u32,
) -> Option<(EspKey, EspKey)> {
    let shared = secret.0.diffie_hellman(&PublicKey::from(there.public));
    if !shared.was_contributory() {
        return None;
    }
    let kdf = Hkdf::<Sha256>::new(Some(DOMAIN), shared.as_bytes());
    Some((direction(&kdf, here, there, generation)?, direction(&kdf, there, here, generation)?))
}

fn direction(kdf: &Hkdf<Sha256>, from: &Member, to: &Member, generation: u32) -> Option<EspKey> {
    let mut key = [0; 20];
    kdf.expand(&context("key", from, to, generation, 0), &mut key).ok()?;
    Some(EspKey(key))
}

/// What a result is for. Lengths come first, so that no two purposes have one text.
fn context(what: &str, from: &Member, to: &Member, generation: u32, attempt: u32) -> Vec<u8> {
    let mut context = what.as_bytes().to_vec();
    for member in [from, to] {
        let name = member.name.as_str().as_bytes();
        context.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
        context.extend_from_slice(name);
        context.extend_from_slice(&member.public);
    }
    context.extend_from_slice(&generation.to_be_bytes());
    context.extend_from_slice(&attempt.to_be_bytes());
    context
}

/// The numbers by which a node tells what comes in, by sender.
pub type Spis = BTreeMap<NodeName, u32>;

/// The numbers of the states of one generation that come in at `to`: each sender's another, and none as of the three
/// generations before or after. Every node that knows the same `members` works out the same, so the numbers need not be told; they are no
/// secret.
pub fn spis(to: &Member, members: &[Member], generation: u32) -> Spis {
    let mut numbers = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let senders: BTreeMap<&NodeName, &Member> =
        members.iter().filter(|member| member.name != to.name).map(|member| (&member.name, member)).collect();
    for (name, from) in senders {
        // There are millions of times as many numbers as nodes.
        let mut attempts = (0..=u32::MAX).map(|attempt| spi(from, to, generation, attempt));
        let free = attempts.find(|number| taken.insert(*number));
        numbers.extend(free.map(|number| (name.clone(), number)));
    }
    numbers
}

fn spi(from: &Member, to: &Member, generation: u32, attempt: u32) -> u32 {
    /// Three generations are in use at once, and a fourth while one is exchanged; the two top bits tell them apart.
    const QUARTER: u32 = 1 << 30;
    let mut bytes = [0; 4];
    let kdf = Hkdf::<Sha256>::new(Some(DOMAIN), b"spi");
    // Four bytes are not too many to ask for.
    let _ = kdf.expand(&context("spi", from, to, generation, attempt), &mut bytes);
    (generation & 3) * QUARTER + FIRST_SPI + u32::from_be_bytes(bytes) % (QUARTER - FIRST_SPI)
}
