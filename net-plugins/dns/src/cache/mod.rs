//! Answers of other servers, kept for as long as they allow.
//!
//! An answer is kept under the whole question: the list of servers that was asked, name, type, class and the flags that
//! change answers. Nothing is ever taken out of an answer and used for another question, so nothing that a server adds can
//! reach anybody who did not ask that server just that.
//!
//! Memory is bounded. What was asked for only once goes first, so a flood of random names displaces itself.

mod keep;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::wire::{self, Query, put};
use crate::zone::Servers;

pub(crate) use keep::Kept;

/// Parts that are locked on their own.
const SHARDS: usize = 8;
/// What an answer costs besides its bytes: its place, the place of its key, and what the allocator adds.
const OVERHEAD: usize = 200;

/// A question as a key: everything that the answer depends on.
pub(crate) type Key = Vec<u8>;

/// The kept answers.
#[derive(Debug)]
pub(crate) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: foldhash::quality::RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<u64, usize, ByHash>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Where the search for something to drop goes on.
    hand: usize,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Slot {
    hash: u64,
    key: Box<[u8]>,
    kept: Kept,
    born: Instant,
    /// Asked for since the hand last came by.
    used: bool,
}

/// The keys are hashes.
#[derive(Debug, Default, Clone)]
struct ByHash;

#[derive(Debug, Default)]
struct Same(u64);

impl BuildHasher for ByHash {
    type Hasher = Same;

    fn build_hasher(&self) -> Same {
        Same(0)
    }
}

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Writes the key of `query`, asked of `servers`, into `key`.
pub(crate) fn key_of(query: &Query, servers: &Servers, key: &mut Key) {
    key.clear();
    key.extend(servers.id().to_be_bytes());
    key.extend(query.kind.to_be_bytes());
    key.extend(query.class.to_be_bytes());
    // RD, AD and CD; then what the extension asks for.
    let edns = query.edns.map_or(0, |edns| 2 | u16::from(edns.dnssec));
    key.extend(((query.flags & 0x0130) | edns).to_be_bytes());
    key.extend_from_slice(query.name());
}

impl Cache {
    /// Keeps `bytes` at most.
    pub(crate) fn new(bytes: usize) -> Self {
        let shard = || Mutex::new(Shard { limit: bytes / SHARDS, ..Shard::default() });
        Self { shards: std::array::from_fn(|_| shard()), hasher: foldhash::quality::RandomState::default() }
    }

    /// Writes the answer kept under `key` over the question in `buffer`, if there is one, and returns its length. Of the
    /// question stay its number and the spelling of its name.
    pub(crate) fn get(&self, key: &[u8], query: &Query, buffer: &mut [u8], limit: usize) -> Option<usize> {
        let hash = self.hash(key);
        let mut shard = self.shard(hash)?;
        let place = *shard.places.get(&hash)?;
        let slot = shard.slots.get_mut(place)?.as_mut().filter(|slot| *slot.key == *key)?;
        let age = slot.born.elapsed();
        if age >= slot.kept.lifetime {
            shard.remove(place);
            return None;
        }
        slot.used = true;
        // Bounded by the lifetime, which is.
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        Some(slot.kept.write(query, buffer, limit, age))
    }

    /// Keeps `answer` under `key` for as long as it allows, if it does.
    pub(crate) fn insert(&self, key: &[u8], query: &Query, answer: &[u8]) {
        let Some(kept) = Kept::of(query, answer) else { return };
        let hash = self.hash(key);
        let Some(mut shard) = self.shard(hash) else { return };
        shard.insert(Slot { hash, key: key.into(), kept, born: Instant::now(), used: false });
    }

    /// How many answers and bytes are kept.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let of = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (shard.places.len(), shard.bytes)
        };
        self.shards.iter().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.finish()
    }

    fn shard(&self, hash: u64) -> Option<MutexGuard<'_, Shard>> {
        // The low bits choose the place in the shard's table.
        let number = usize::try_from(hash >> 56).unwrap_or(0) % SHARDS;
        self.shards.get(number).map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Slot {
    fn cost(&self) -> usize {
        OVERHEAD + self.key.len() + self.kept.bytes()
    }
}

impl Shard {
    fn insert(&mut self, slot: Slot) {
        if slot.cost() > self.limit / 4 {
            return;
        }
        if let Some(place) = self.places.get(&slot.hash).copied() {
            self.remove(place);
        }
        while self.bytes + slot.cost() > self.limit && !self.places.is_empty() {
            self.drop_one();
        }
        self.bytes += slot.cost();
        let hash = slot.hash;
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(empty) = self.slots.get_mut(place) {
                    *empty = Some(slot);
                }
                place
            }
            None => {
                self.slots.push(Some(slot));
                self.slots.len() - 1
            }
        };
        self.places.insert(hash, place);
    }

    /// Drops what the hand finds first that was not asked for since it came by, or is out of date.
    fn drop_one(&mut self) {
        loop {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let Some(Some(slot)) = self.slots.get_mut(self.hand) else { continue };
            let dead = slot.born.elapsed() >= slot.kept.lifetime;
            if std::mem::take(&mut slot.used) && !dead {
                continue;
            }
            let place = self.hand;
            self.remove(place);
            return;
        }
    }

    fn remove(&mut self, place: usize) {
        let Some(slot) = self.slots.get_mut(place).and_then(Option::take) else { return };
        self.bytes -= slot.cost();
        self.places.remove(&slot.hash);
        self.free.push(place);
    }
}

/// Writes an answer that does not fit: the question alone, with the mark that there is more over TCP.
pub(crate) fn write_truncated(query: &Query, buffer: &mut [u8], flags: u16) -> usize {
    put(buffer, 2, &(flags | 0x0200).to_be_bytes());
    let edns = query.edns.is_some();
    for (at, count) in [(4, 1), (6, 0), (8, 0), (10, u16::from(edns))] {
        put(buffer, at, &u16::to_be_bytes(count));
    }
    if !edns {
        return query.end;
    }
    let [high, low] = wire::UDP_SIZE;
    put(buffer, query.end, &[0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]);
    query.end + 11
}

/// The longest that anything is kept: what was wrong somewhere is right here the next day.
const LONGEST: Duration = Duration::from_secs(86_400);
/// The longest that "there is none" is kept.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests;
