//! From a message to what is to be done with it: the one path that UDP and TCP share.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use berth_types::NetworkName;

use crate::cache::{Cache, Key, key_of};
use crate::metrics::Count;
use crate::wire::{Query, Reply, UDP_MAX, UDP_PLAIN, Unusable, ede, kind, rcode, refuse_header};
use crate::zone::{Found, Servers, Upstream, Verdict, Why, Zone};

/// What all threads that answer read. None of them ever waits for who writes it.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What is answered.
    pub(crate) zone: ArcSwap<Zone>,
    /// What others have answered.
    pub(crate) cache: Cache,
    /// The host's servers; none if it has none.
    pub(crate) host: ArcSwap<Option<Arc<Servers>>>,
}

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// As a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// What is to be done with a message.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send the first bytes of the buffer.
    Send(usize, Count),
    /// Nothing.
    Silent(Count),
    /// Ask these servers.
    Forward(Arc<Servers>),
}

/// Where a message came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'o> {
    /// The network it was asked at.
    pub(crate) network: &'o NetworkName,
    /// Who sent it.
    pub(crate) source: IpAddr,
    /// How.
    pub(crate) transport: Transport,
}

/// Works out answers. Each thread has its own, so that nothing is allocated for a question answered here.
#[derive(Debug)]
pub(crate) struct Responder {
    query: Query,
    found: Found,
    key: Key,
    random: u64,
}

impl Responder {
    /// A responder whose shuffling begins at `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self { query: Query::default(), found: Found::default(), key: Key::new(), random: seed | 1 }
    }

    /// The question that was last answered with [`Action::Forward`].
    pub(crate) fn query(&self) -> &Query {
        &self.query
    }

    /// Its key.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Works out what to do with the message in the first `len` bytes of `buffer`; an answer is written over it. `is_local`
    /// says whether an address is the host's own, and is asked only for sources that are nobody's.
    pub(crate) fn respond(
        &mut self,
        shared: &Shared,
        zone: &Zone,
        origin: Origin<'_>,
        (buffer, len): (&mut [u8], usize),
        is_local: impl FnOnce(IpAddr) -> bool,
    ) -> Action {
        let Origin { network, source, transport } = origin;
        let who = zone.who(network, source);
        let who = who.or_else(|| is_local(source).then(crate::zone::Who::host));
        let Some(who) = who else { return Action::Silent(Count::Stranger) };
        match self.query.read(buffer.get(..len).unwrap_or_default()) {
            Err(Unusable::Silent) => return Action::Silent(Count::Malformed),
            Err(Unusable::Code(code)) => return Action::Send(refuse_header(buffer, code), Count::Malformed),
            Ok(()) => (),
        }
        if self.query.edns.is_some_and(|edns| edns.version != 0) {
            return Action::Send(self.code(buffer, rcode::BADVERS, None), Count::Malformed);
        }
        match zone.answer(network, &who, &self.query, &mut self.found) {
            Verdict::Answer => Action::Send(self.records(buffer, transport), Count::Local),
            Verdict::NoName => Action::Send(self.code(buffer, rcode::NXDOMAIN, None), Count::NoName),
            Verdict::Refused => {
                let why = self.found.why == Some(Why::Internal);
                let reason = why.then_some(ede::PROHIBITED);
                Action::Send(self.code(buffer, rcode::REFUSED, reason), Count::Refused)
            }
            Verdict::Forward(upstream) => self.elsewhere(shared, upstream, buffer, transport),
        }
    }

    fn elsewhere(
        &mut self,
        shared: &Shared,
        upstream: Upstream,
        buffer: &mut [u8],
        transport: Transport,
    ) -> Action {
        let servers = match upstream {
            Upstream::Listed(servers) => servers,
            Upstream::Host => match &**shared.host.load() {
                Some(servers) => Arc::clone(servers),
                None => {
                    let reason = Some(ede::NO_REACHABLE_AUTHORITY);
                    return Action::Send(self.code(buffer, rcode::SERVFAIL, reason), Count::Failed);
                }
            },
        };
        key_of(&self.query, &servers, &mut self.key);
        if !is_personal(&self.query)
            && let Some(len) = shared.cache.get(&self.key, &self.query, buffer, limit(&self.query, transport))
        {
            return Action::Send(len, Count::Cached);
        }
        Action::Forward(servers)
    }

    /// Writes what was found.
    fn records(&mut self, buffer: &mut [u8], transport: Transport) -> usize {
        let Self { query, found, key: _, random } = self;
        shuffle(&mut found.v4, random);
        shuffle(&mut found.v6, random);
        shuffle(&mut found.services, random);
        let mut reply = Reply::new(buffer, query, limit(query, transport));
        let mut put = |kind: u16, data: &[u8]| {
            reply.record(kind, found.ttl, data);
            !reply.is_full()
        };
        let _ = found.v4.iter().all(|addr| put(kind::A, &addr.octets()))
            && found.v6.iter().all(|addr| put(kind::AAAA, &addr.octets()))
            && found.names.iter().all(|name| put(kind::PTR, name))
            && found.services.iter().all(|service| put(kind::SRV, service));
        reply.finish(query, rcode::NOERROR, None)
    }

    /// Writes an answer without records over the question last read.
    pub(crate) fn code(&self, buffer: &mut [u8], code: u8, reason: Option<u16>) -> usize {
        Reply::new(buffer, &self.query, UDP_PLAIN).finish(&self.query, code, reason)
    }
}

/// How long an answer may be.
pub(crate) fn limit(query: &Query, transport: Transport) -> usize {
    match (transport, query.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, Some(edns)) => usize::from(edns.udp_size).clamp(UDP_PLAIN, UDP_MAX),
        (Transport::Udp, None) => UDP_PLAIN,
    }
}

/// Whether the answer is for this client only, so that it is not kept and not shared.
pub(crate) fn is_personal(query: &Query) -> bool {
    query.extra || query.edns.is_some_and(|edns| edns.personal)
}

/// Fisher and Yates' shuffle. Addresses are no secret: a small generator will do.
fn shuffle<T>(items: &mut [T], random: &mut u64) {
    for last in (1..items.len()).rev() {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let bound = u64::try_from(last).unwrap_or(0) + 1;
        let chosen = usize::try_from(((*random >> 32) * bound) >> 32).unwrap_or(0);
        items.swap(last, chosen);
    }
}
