//! What the fuzz target and the test that replays its corpus do with a message. Not for use.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use berth_types::{AttachmentKey, ContainerId, IfName, NetworkName, Proto};

use crate::cache::{Cache, Kept, key_of};
use crate::respond::{Action, Origin, Responder, Shared, Transport};
use crate::wire::message::{name_at, records};
use crate::wire::{Query, UDP_MAX};
use crate::zone::spec::{Change, MemberSpec, NetworkSpec, Service};
use crate::zone::{Servers, Zone};

const MEMBER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 80, 1, 10));
const UPSTREAM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 53);

struct Desk {
    shared: Shared,
    network: NetworkName,
    responder: Responder,
}

thread_local! {
    static DESK: RefCell<Option<Desk>> = RefCell::new(Desk::new());
}

/// Gives `data` to the server as a message by both transports, and as an answer to each question that it knows.
///
/// # Panics
///
/// Where an answer is not one to what was asked.
pub fn packet(data: &[u8]) {
    DESK.with_borrow_mut(|desk| {
        if let Some(desk) = desk {
            desk.ask(data, Transport::Udp);
            desk.ask(data, Transport::Tcp);
            desk.told(data);
        }
    });
}

impl Desk {
    fn new() -> Option<Self> {
        let network = NetworkName::new("net1").ok()?;
        let mut zone = Zone::default();
        zone.apply(&Change::NetworkPut(NetworkSpec {
            name: network.clone(),
            called: vec!["net1".to_owned()],
            listeners: vec![IpAddr::V4(Ipv4Addr::new(10, 80, 1, 1))],
            bridge: None,
            subnets: vec!["10.80.1.0/24".parse().ok()?],
            internal: false,
            domain: "berth.internal".to_owned(),
            ttl: 5,
            upstreams: vec![UPSTREAM],
            split: Vec::new(),
        }));
        zone.apply(&Change::MemberPut(MemberSpec {
            key: AttachmentKey {
                network: network.clone(),
                container: ContainerId::new("web").ok()?,
                ifname: IfName::new("eth0").ok()?,
            },
            names: vec!["web".to_owned()],
            // More than one datagram takes.
            addrs: (10..210).map(|last| IpAddr::V4(Ipv4Addr::new(10, 80, 1, last))).collect(),
            upstreams: Vec::new(),
            services: vec![Service { name: "http".to_owned(), proto: Proto::Tcp, port: 80 }],
            listed_only: false,
        }));
        let shared = Shared {
            zone: ArcSwap::from_pointee(zone),
            cache: Cache::new(1 << 20),
            host: ArcSwap::default(),
        };
        Some(Self { shared, network, responder: Responder::new(1) })
    }

    fn ask(&mut self, data: &[u8], transport: Transport) {
        let mut buffer = data.to_vec();
        buffer.resize(data.len().max(65_535), 0xaa);
        let zone = Arc::clone(&self.shared.zone.load());
        let origin = Origin { network: &self.network, source: MEMBER, transport };
        let message = (&mut buffer[..], data.len());
        if let Action::Send(len, _) = self.responder.respond(&self.shared, &zone, origin, message, |_| false)
        {
            let answer = buffer.get(..len).unwrap_or_default();
            assert!(answer.len() >= 12 && answer.get(..2) == data.get(..2), "not an answer to this");
            assert!(answer.get(2).is_some_and(|flags| flags & 0x80 != 0), "not an answer at all");
            assert!(transport == Transport::Tcp || len <= UDP_MAX, "too long");
        }
    }

    fn told(&self, data: &[u8]) {
        // As many questions as the bytes can be an answer to: the one they repeat, if they repeat one.
        let mut question = data.to_vec();
        if let Some(flags) = question.get_mut(2) {
            *flags &= 0x01;
        }
        if let Some(counts) = question.get_mut(6..12) {
            counts.fill(0);
        }
        let mut query = Query::default();
        let end = records_end(&question);
        question.truncate(end);
        if query.read(&question).is_err() {
            return;
        }
        for (_, record) in records(data, query.end).flatten() {
            let _ = (name_at(data, record.start), name_at(data, record.data));
        }
        let Some(kept) = Kept::of(&query, data) else { return };
        let mut buffer = question;
        buffer.resize(65_535, 0);
        let len = kept.write(&query, &mut buffer, 65_535, 1);
        assert!(len <= data.len(), "more is kept than there was");
        let Some(servers) = Servers::new(&[UPSTREAM]) else { return };
        let mut key = Vec::new();
        key_of(&query, &servers, &mut key);
        self.shared.cache.insert(&key, &query, data);
        let _ = self.shared.cache.get(&key, &query, &mut buffer, UDP_MAX);
    }
}

/// Where the first question ends, if there is one.
fn records_end(message: &[u8]) -> usize {
    crate::wire::message::skip_name(message, 12).map_or(message.len(), |end| (end + 4).min(message.len()))
}
