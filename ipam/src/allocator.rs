//! Giving addresses. Every step is a look-up in an index, so it costs the same in an empty pool and in a full one.
//!
//! Where an address comes from, first that has one:
//!
//! 1. never used: each range has a cursor that only moves forward;
//! 2. used before: the one that is free for the longest time, and has rested for the quarantine;
//! 3. used before and not rested;
//! 4. held by an owner that is dead, by the caller's word;
//! 5. kept for a name that does not use it now, longest unused first: a name's claim is a wish, and no reason to refuse.
//!
//! Once [`FRESH_LIMIT`] addresses of a set were used, 2 comes before 1, so that the history of a /64 stays bounded.
//!
//! **Invariant**: an address behind a range's cursor that the range may give is held, freed, or kept for a name. A
//! changed configuration is another range with another cursor; it adopts what it passes over, and in a shortage (from 3
//! on) all freed addresses that are its own by now.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;

use berth_store::{BootTime, Cursor, LeaseRow, LeaseScope, StoreError, Tx, unix_ms};
use berth_types::{AddressLease, AttachmentKey, SandboxId};
use ipnetwork::IpNetwork;

use crate::error::{AllocateError, Exhausted, Refusal};
use crate::{PoolConfig, Range, RangeSet, Span};

/// How many addresses of a set are used once before the first is used again: all of an IPv4 /16.
pub const FRESH_LIMIT: u128 = 65_536;

/// How many dead owners lose their addresses in one call: it is the caller's work to clean up after each.
pub const RECLAIM_AT_ONCE: usize = 64;

/// How old the note of a name's last use may get before it is renewed, milliseconds: an hour. Each is a durable write.
const STICKY_RENEWAL_MS: i64 = 3_600_000;

/// Who asks, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The attachment that is to hold the addresses.
    pub owner: AttachmentKey,
    /// Its sandbox, by which a dead owner is recognised: the path given and the namespace it leads to.
    pub sandbox: Option<(PathBuf, SandboxId)>,
    /// Addresses asked for, one per range set at most. An address that cannot be given is an error.
    pub requested: Vec<IpAddr>,
    /// A name that is to have the same addresses each time, across reboots.
    pub sticky: Option<String>,
}

/// What was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// One address per range set, in their order.
    pub addresses: Vec<AddressLease>,
    /// Leases that dead owners lost. What the kernel still has of those owners must go before an address is used.
    pub reclaimed: Vec<LeaseRow>,
}

/// Gives `request.owner` one address of each range set and records it in `tx`. An owner that holds addresses already
/// gets the same ones. On an error the transaction has to be rolled back.
///
/// `is_dead` is asked only where an address cannot be given otherwise.
pub fn allocate(
    tx: &Tx<'_>,
    pools: &PoolConfig,
    request: &Request,
    now: BootTime,
    is_dead: &mut dyn FnMut(&LeaseRow) -> bool,
) -> Result<Allocation, AllocateError> {
    let scope = LeaseScope::new(&request.owner.network, pools.data_dir.as_deref());
    let held = tx.leases_of(&request.owner)?.into_iter().filter(|lease| lease.scope == scope).collect();
    let mut call = Call { tx, pools, request, scope, now, held, is_dead, reclaimed: Vec::new() };
    let mut wanted: Vec<IpAddr> = Vec::new();
    for address in &request.requested {
        if !wanted.contains(address) {
            wanted.push(*address);
        }
    }
    let mut addresses = Vec::new();
    for (index, set) in pools.sets.iter().enumerate() {
        let place = wanted.iter().position(|address| set.range_of(*address).is_some());
        let requested = place.map(|place| wanted.remove(place));
        match call.serve(set, requested)? {
            Ok(lease) => addresses.push(lease),
            Err(reason) => return Err(AllocateError::Range { index, reason: Box::new(reason) }),
        }
    }
    if !wanted.is_empty() {
        return Err(AllocateError::Unused { addresses: wanted, sets: pools.sets.clone() });
    }
    Ok(Allocation { addresses, reclaimed: call.reclaimed })
}

/// One call of [`allocate`].
struct Call<'c, 's> {
    tx: &'c Tx<'s>,
    pools: &'c PoolConfig,
    request: &'c Request,
    scope: LeaseScope,
    now: BootTime,
    held: Vec<LeaseRow>,
    is_dead: &'c mut dyn FnMut(&LeaseRow) -> bool,
    reclaimed: Vec<LeaseRow>,
}

/// A range with its cursor.
struct Source<'c> {
    range: &'c Range,
    blocks: Vec<Span>,
    cursor: Cursor,
}

impl Source<'_> {
    /// The parts of `span` that may be given unasked.
    fn open(&self, span: Span) -> Vec<Span> {
        span.without(&self.blocks)
    }
}

/// The outcome of a look for an address: the records may fail, and there may be none.
type Found = Result<Option<IpAddr>, StoreError>;

impl Call<'_, '_> {
    fn serve(
        &mut self,
        set: &RangeSet,
        requested: Option<IpAddr>,
    ) -> Result<Result<AddressLease, Refusal>, StoreError> {
        let address = match (self.held_of(set), requested) {
            (Some(held), Some(address)) if held != address => {
                let owner = self.request.owner.clone();
                return Ok(Err(Refusal::HoldsAnother { address, held, owner }));
            }
            (Some(held), _) => {
                self.tx.lease_move(&self.scope, held, self.request.sandbox.as_ref())?;
                held
            }
            (None, Some(address)) => match self.take_requested(set, address)? {
                Ok(()) => address,
                Err(refusal) => return Ok(Err(refusal)),
            },
            (None, None) => match self.take_any(set)? {
                Some(address) => address,
                None => return self.exhausted(set).map(|exhausted| Err(Refusal::Exhausted(exhausted))),
            },
        };
        self.keep_for_name(set, address)?;
        let range = set.range_of(address).expect("each branch takes an address of the set");
        let prefix = range.subnet().prefix();
        let network =
            IpNetwork::new(address, prefix).expect("the prefix length is that of the address's family");
        Ok(Ok(AddressLease { address: network, gateway: Some(range.gateway()) }))
    }

    fn held_of(&self, set: &RangeSet) -> Option<IpAddr> {
        self.held.iter().map(|lease| lease.address).find(|address| set.range_of(*address).is_some())
    }

    fn take(&self, address: IpAddr, cursor: i64) -> Result<bool, StoreError> {
        let Request { owner, sandbox, .. } = self.request;
        self.tx.lease_add(&self.scope, address, (owner, sandbox.as_ref()), cursor)
    }

    fn take_requested(&mut self, set: &RangeSet, address: IpAddr) -> Result<Result<(), Refusal>, StoreError> {
        let range = set.range_of(address).expect("`allocate` asks the set that has the address");
        if address == range.gateway() {
            return Ok(Err(Refusal::IsGateway { address }));
        }
        let excluded = self.pools.is_excluded(address).then_some("excluded by the configuration");
        if let Some(what) = range.special(address).or(excluded) {
            return Ok(Err(Refusal::KeptBack { address, set: set.clone(), what }));
        }
        // A reserved address goes back to nobody's range when it is freed.
        let cursor = if self.pools.is_reserved(address) { 0 } else { self.source(range)?.cursor.id };
        if self.take(address, cursor)? {
            return Ok(Ok(()));
        }
        let holder = self.tx.lease(&self.scope, address)?.expect("the schema refused a second holder");
        if !(self.is_dead)(&holder) {
            return Ok(Err(Refusal::Taken { address, set: set.clone(), holder: Box::new(holder) }));
        }
        self.tx.lease_remove(&self.scope, address, self.now)?;
        self.reclaimed.push(holder);
        self.take(address, cursor).map(|taken| {
            debug_assert!(taken, "the holder was removed in this transaction");
            Ok(())
        })
    }

    fn take_any(&mut self, set: &RangeSet) -> Found {
        let mut sources =
            set.ranges().iter().map(|range| self.source(range)).collect::<Result<Vec<_>, _>>()?;
        if let Some(address) = self.take_kept(set)? {
            return Ok(Some(address));
        }
        let used: u128 = sources.iter().map(used_of).fold(0, u128::saturating_add);
        let rested = self.now.minus(self.pools.quarantine);
        let early = if used < FRESH_LIMIT { None } else { self.take_freed(&sources, rested)? };
        if early.is_some() {
            return Ok(early);
        }
        if let Some(address) = self.take_fresh(&mut sources)? {
            return Ok(Some(address));
        }
        if let Some(address) = self.take_freed(&sources, rested)? {
            return Ok(Some(address));
        }
        self.take_in_shortage(&sources)
    }

    fn take_in_shortage(&mut self, sources: &[Source<'_>]) -> Found {
        self.adopt(sources)?;
        if let Some(address) = self.take_freed(sources, self.now)? {
            return Ok(Some(address));
        }
        if self.reclaim(sources)? {
            self.adopt(sources)?;
            if let Some(address) = self.take_freed(sources, self.now)? {
                return Ok(Some(address));
            }
        }
        for source in sources {
            for span in source.open(source.range.span()) {
                let Some(kept) = self.tx.kept_idle(&self.scope, span.ends())? else { continue };
                self.tx.static_lease_remove(&self.scope, kept.address, self.now)?;
                if self.take(kept.address, source.cursor.id)? {
                    return Ok(Some(kept.address));
                }
            }
        }
        Ok(None)
    }

    /// The range's cursor; a new one begins at the range's start, and brings what was kept for names before this boot.
    fn source<'r>(&self, range: &'r Range) -> Result<Source<'r>, StoreError> {
        let blocks = range.blocks(self.pools);
        let spec = range.spec(&blocks);
        if let Some(cursor) = self.tx.cursor(&self.scope, &spec)? {
            return Ok(Source { range, blocks, cursor });
        }
        let next = range.span().first();
        let id = self.tx.cursor_add(&self.scope, &spec, next)?;
        self.tx.kept_mirror(&self.scope)?;
        Ok(Source { range, blocks, cursor: Cursor { id, next: Some(next) } })
    }

    /// An address that the request's name had before, if it can be had.
    fn take_kept(&self, set: &RangeSet) -> Found {
        let Some(name) = &self.request.sticky else { return Ok(None) };
        for kept in self.tx.kept_for(&self.scope, name)? {
            let Some(range) = set.range_of(kept.address) else { continue };
            if range.special(kept.address).is_some() || self.pools.is_excluded(kept.address) {
                continue;
            }
            if self.take(kept.address, 0)? {
                return Ok(Some(kept.address));
            }
        }
        Ok(None)
    }

    /// Keeps the address for the request's name, unless one of the set is kept for it already: then that one may be
    /// held by a container of the same name for the moment, and stays the name's.
    fn keep_for_name(&self, set: &RangeSet, address: IpAddr) -> Result<(), StoreError> {
        let Some(name) = &self.request.sticky else { return Ok(()) };
        let kept = self.tx.kept_for(&self.scope, name)?;
        let of_set = kept.iter().filter(|kept| set.range_of(kept.address).is_some());
        let settled = of_set.into_iter().any(|kept| {
            kept.address != address || unix_ms().saturating_sub(kept.used_ms) < STICKY_RENEWAL_MS
        });
        if settled { Ok(()) } else { self.tx.static_lease_put(&self.scope, address, name) }
    }

    fn take_fresh(&self, sources: &mut [Source<'_>]) -> Found {
        for source in sources {
            while let Some(from) = source.cursor.next {
                let rest = source.range.span().since(from);
                let Some(rest) = rest else { break };
                let (found, passed) = self.first_unknown(&source.open(rest))?;
                if passed {
                    let span = found.map_or(Some(rest), |found| rest.before(found));
                    self.adopt_in(source, span)?;
                }
                let next = found.and_then(|found| rest.after(found)).map(|rest| rest.first());
                self.tx.cursor_move(source.cursor.id, next)?;
                source.cursor.next = next;
                let Some(found) = found else { break };
                if self.take(found, source.cursor.id)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// The first address of `spans` that nobody holds, held, or is kept for; and whether any such one came before it.
    fn first_unknown(&self, spans: &[Span]) -> Result<(Option<IpAddr>, bool), StoreError> {
        let mut passed = false;
        for span in spans {
            let mut rest = Some(*span);
            self.tx.known_between(&self.scope, span.ends(), |known| {
                match rest {
                    Some(open) if open.first() < known => return ControlFlow::Break(()),
                    Some(open) if open.first() == known => {
                        passed = true;
                        rest = open.after(known);
                    }
                    // An address that is known twice, for instance kept for a name and held.
                    _ => {}
                }
                ControlFlow::Continue(())
            })?;
            if let Some(open) = rest {
                return Ok((Some(open.first()), passed));
            }
        }
        Ok((None, passed))
    }

    /// The address of all sources that is free for the longest time, if that is since `latest` or before.
    fn take_freed(&self, sources: &[Source<'_>], latest: BootTime) -> Found {
        loop {
            let mut oldest = None;
            for source in sources {
                let Some(freed) = self.tx.freed_oldest(source.cursor.id)? else { continue };
                if oldest.is_none_or(|(since, _, _)| freed.since < since) {
                    oldest = Some((freed.since, freed.address, source.cursor.id));
                }
            }
            match oldest {
                Some((since, address, cursor)) if since <= latest => {
                    if self.take(address, cursor)? {
                        return Ok(Some(address));
                    }
                    // Held and freed at once cannot be; forgetting the second is the safe side.
                    self.tx.freed_remove(&self.scope, address)?;
                }
                _ => return Ok(None),
            }
        }
    }

    fn adopt(&self, sources: &[Source<'_>]) -> Result<(), StoreError> {
        sources.iter().try_for_each(|source| self.adopt_in(source, Some(source.range.span())))
    }

    fn adopt_in(&self, source: &Source<'_>, span: Option<Span>) -> Result<(), StoreError> {
        for open in span.map(|span| source.open(span)).unwrap_or_default() {
            self.tx.freed_adopt(&self.scope, open.ends(), source.cursor.id)?;
        }
        Ok(())
    }

    /// Frees the addresses of dead owners; whether there were any.
    fn reclaim(&mut self, sources: &[Source<'_>]) -> Result<bool, StoreError> {
        let mut dead = Vec::new();
        for source in sources {
            for span in source.open(source.range.span()) {
                self.tx.leases_between(&self.scope, span.ends(), |lease| {
                    if dead.len() >= RECLAIM_AT_ONCE {
                        return ControlFlow::Break(());
                    }
                    if (self.is_dead)(&lease) {
                        dead.push(lease);
                    }
                    ControlFlow::Continue(())
                })?;
            }
        }
        for lease in &dead {
            self.tx.lease_remove(&self.scope, lease.address, self.now)?;
        }
        let any = !dead.is_empty();
        self.reclaimed.append(&mut dead);
        Ok(any)
    }

    fn exhausted(&self, set: &RangeSet) -> Result<Exhausted, StoreError> {
        let mut exhausted = Exhausted { set: set.clone(), usable: 0, held: 0, holders: Vec::new() };
        for range in set.ranges() {
            for span in range.span().without(&range.blocks(self.pools)) {
                exhausted.usable = exhausted.usable.saturating_add(span.count());
                exhausted.held += self.tx.lease_count(&self.scope, span.ends())?;
                self.tx.leases_between(&self.scope, span.ends(), |lease| {
                    if exhausted.holders.len() == 5 {
                        return ControlFlow::Break(());
                    }
                    exhausted.holders.push(lease);
                    ControlFlow::Continue(())
                })?;
            }
        }
        Ok(exhausted)
    }
}

/// How many addresses of the source were used at least once.
fn used_of(source: &Source<'_>) -> u128 {
    let span = source.range.span();
    source.cursor.next.map_or(span.count(), |next| span.offset(next))
}
