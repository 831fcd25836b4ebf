//! What is kept, for how long, and in how much memory.

use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as TheirQuery, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::keep::Kept;
use super::{Cache, key_of};
use crate::wire::Query;
use crate::zone::Servers;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(text: &str, edns: bool) -> (Query, Vec<u8>) {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(TheirQuery::query(name(text), RecordType::A));
    if edns {
        message.set_edns(Edns::new());
    }
    let bytes = message.to_vec().unwrap();
    let mut query = Query::default();
    query.read(&bytes).unwrap();
    (query, bytes)
}

fn answer(text: &str) -> Message {
    let mut message = Message::new(9, MessageType::Response, OpCode::Query);
    message.metadata.recursion_available = true;
    message.add_query(TheirQuery::query(name(text), RecordType::A));
    message
}

fn a(owner: &str, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, 1)))
}

fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

fn soa(owner: &str, ttl: u32, minimum: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::SOA(SOA::new(name(owner), name(owner), 1, 2, 3, 4, minimum)))
}

fn lifetime(message: &Message) -> Option<u64> {
    let (query, _) = question("www.example.org.", false);
    Kept::of(&query, &message.to_vec().unwrap()).map(|kept| kept.lifetime.as_secs())
}

fn with(records: impl IntoIterator<Item = Record>) -> Message {
    let mut message = answer("www.example.org.");
    message.add_answers(records);
    message
}

#[test]
fn the_shortest_lifetime_counts() {
    assert_eq!(lifetime(&with([a("www.example.org.", 300)])), Some(300));
    assert_eq!(lifetime(&with([a("www.example.org.", 300), a("WWW.example.org.", 20)])), Some(20));
    assert_eq!(
        lifetime(&with([alias("www.example.org.", "x.example.net."), a("x.example.net.", 300)])),
        Some(60)
    );
    // Nothing, and a day at most.
    assert_eq!(lifetime(&with([a("www.example.org.", 0)])), None);
    assert_eq!(lifetime(&with([a("www.example.org.", u32::MAX)])), None);
    assert_eq!(lifetime(&with([a("www.example.org.", 1_000_000)])), Some(86_400));
}

#[test]
fn that_there_is_none_is_kept_as_long_as_its_zone_says() {
    let mut none = answer("www.example.org.");
    none.add_authority(soa("example.org.", 3600, 120));
    assert_eq!(lifetime(&none), Some(120));
    none.metadata.response_code = ResponseCode::NXDomain;
    assert_eq!(lifetime(&none), Some(120));
    let mut long = answer("www.example.org.");
    long.add_authority(soa("example.org.", 3600, 3600));
    assert_eq!(lifetime(&long), Some(300));
    // Without the zone's word for it, and with another zone's, not at all.
    assert_eq!(lifetime(&answer("www.example.org.")), None);
    let mut other = answer("www.example.org.");
    other.add_authority(soa("example.net.", 3600, 120));
    assert_eq!(lifetime(&other), None);
}

#[test]
fn what_was_not_asked_for_is_never_kept() {
    assert_eq!(lifetime(&with([a("www.example.org.", 300), a("bank.example.", 300)])), None);
    assert_eq!(lifetime(&with([a("bank.example.", 300)])), None);
    let mut message = with([a("www.example.org.", 300)]);
    message.add_authority(Record::from_rdata(name("example."), 300, RData::NS(NS(name("ns.evil.example.")))));
    assert_eq!(lifetime(&message), None);
    // What helps is left out.
    let mut message = with([a("www.example.org.", 300)]);
    message.add_additional(a("bank.example.", 300));
    let (query, mut buffer) = question("www.example.org.", false);
    buffer.resize(4096, 0);
    let kept = Kept::of(&query, &message.to_vec().unwrap()).unwrap();
    let len = kept.write(&query, &mut buffer, 512, 0);
    let read = Message::from_vec(&buffer[..len]).unwrap();
    assert_eq!((read.answers.len(), read.additionals.len()), (1, 0));
}

#[test]
fn failures_and_parts_are_not_kept() {
    let mut failed = with([a("www.example.org.", 300)]);
    failed.metadata.response_code = ResponseCode::ServFail;
    assert_eq!(lifetime(&failed), None);
    let mut part = with([a("www.example.org.", 300)]);
    part.metadata.truncation = true;
    assert_eq!(lifetime(&part), None);
    let (query, _) = question("www.example.org.", false);
    let whole = with([a("www.example.org.", 300)]).to_vec().unwrap();
    for len in 0..whole.len() {
        assert!(Kept::of(&query, &whole[..len]).is_none(), "{len}");
    }
}

#[test]
fn a_kept_answer_is_the_askers_own() {
    let servers = Servers::new(&["192.0.2.1:53".parse().unwrap()]).unwrap();
    let cache = Cache::new(1 << 20);
    let (query, _) = question("www.example.org.", true);
    let mut message = with([a("www.example.org.", 300)]);
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Unknown(10, b"somebody's cookie".to_vec()));
    message.set_edns(edns);
    let mut key = Vec::new();
    key_of(&query, &servers, &mut key);
    cache.insert(&key, &query, &message.to_vec().unwrap());
    let (other, mut buffer) = question("WWW.Example.org.", true);
    let mut again = Vec::new();
    key_of(&other, &servers, &mut again);
    assert_eq!(key, again);
    buffer.resize(4096, 0);
    let len = cache.get(&again, &other, &mut buffer, 1232).unwrap();
    let read = Message::from_vec(&buffer[..len]).unwrap();
    assert_eq!(read.metadata.id, 7);
    assert!(read.queries[0].name().eq_case(&name("WWW.Example.org.")));
    assert_eq!(read.answers, [a("WWW.Example.org.", 300)]);
    assert!(read.edns.unwrap().options().as_ref().is_empty());
    // Another list of servers, or another flag, is another question.
    let elsewhere = Servers::new(&["192.0.2.2:53".parse().unwrap()]).unwrap();
    key_of(&query, &elsewhere, &mut again);
    assert_ne!(key, again);
    let (plain, _) = question("www.example.org.", false);
    key_of(&plain, &servers, &mut again);
    assert_ne!(key, again);
}

#[test]
fn lifetimes_run_down_and_long_answers_are_truncated() {
    let (query, mut buffer) = question("www.example.org.", false);
    buffer.resize(65535, 0);
    let kept = Kept::of(&query, &with([a("www.example.org.", 300)]).to_vec().unwrap()).unwrap();
    let len = kept.write(&query, &mut buffer, 512, 100);
    assert_eq!(Message::from_vec(&buffer[..len]).unwrap().answers, [a("www.example.org.", 200)]);
    let many = with((0..100).map(|_| a("www.example.org.", 300)));
    let kept = Kept::of(&query, &many.to_vec().unwrap()).unwrap();
    let len = kept.write(&query, &mut buffer, 512, 0);
    let read = Message::from_vec(&buffer[..len]).unwrap();
    assert!(read.metadata.truncation && read.answers.is_empty() && len <= 512);
    let len = kept.write(&query, &mut buffer, 65535, 0);
    assert_eq!(Message::from_vec(&buffer[..len]).unwrap().answers.len(), 100);
}

#[test]
fn a_flood_of_names_displaces_itself() {
    let servers = Servers::new(&["192.0.2.1:53".parse().unwrap()]).unwrap();
    let cache = Cache::new(64 << 10);
    let mut key = Vec::new();
    let mut insert = |text: &str| {
        let (query, _) = question(text, false);
        let mut message = answer(text);
        message.add_answer(a(text, 300));
        key_of(&query, &servers, &mut key);
        cache.insert(&key, &query, &message.to_vec().unwrap());
    };
    insert("used.example.org.");
    let (query, bytes) = question("used.example.org.", false);
    let mut used = Vec::new();
    key_of(&query, &servers, &mut used);
    for number in 0..10_000 {
        insert(&format!("x{number}.example.org."));
        // Somebody goes on asking for the one that matters.
        if number % 10 == 0 {
            let mut buffer = [&bytes[..], &[0; 512][..]].concat();
            assert!(cache.get(&used, &query, &mut buffer, 512).is_some(), "lost after {number}");
        }
    }
    let (entries, bytes) = cache.sizes();
    assert!(bytes <= 64 << 10 && entries > 50, "{entries} entries, {bytes} bytes");
}

#[test]
fn what_is_out_of_date_is_not_used() {
    let servers = Servers::new(&["192.0.2.1:53".parse().unwrap()]).unwrap();
    let cache = Cache::new(64 << 10);
    let (query, mut buffer) = question("www.example.org.", false);
    buffer.resize(512, 0);
    let mut key = Vec::new();
    key_of(&query, &servers, &mut key);
    cache.insert(&key, &query, &with([a("www.example.org.", 1)]).to_vec().unwrap());
    assert!(cache.get(&key, &query, &mut buffer.clone(), 512).is_some());
    std::thread::sleep(Duration::from_millis(1100));
    assert!(cache.get(&key, &query, &mut buffer, 512).is_none());
    assert_eq!(cache.sizes(), (0, 0));
}
