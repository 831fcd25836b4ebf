//! Against `hickory-proto`, a second opinion on every message that is read or written here.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as TheirQuery, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::message::{Section, name_at, records};
use super::{Query, Reply, Unusable, kind, rcode};

fn name() -> impl Strategy<Value = Name> {
    let label = proptest::collection::vec(any::<u8>(), 1..20);
    proptest::collection::vec(label, 0..6).prop_map(|labels| Name::from_labels(labels).unwrap())
}

fn question() -> impl Strategy<Value = Message> {
    let edns =
        proptest::option::of((any::<u16>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..20)));
    (any::<u16>(), name(), any::<u16>(), any::<bool>(), any::<bool>(), edns).prop_map(
        |(id, name, kind, desired, disabled, edns)| {
            let mut message = Message::new(id, MessageType::Query, OpCode::Query);
            message.metadata.recursion_desired = desired;
            message.metadata.checking_disabled = disabled;
            let mut query = TheirQuery::query(name, RecordType::from(kind));
            query.set_query_class(DNSClass::IN);
            message.add_query(query);
            if let Some((size, dnssec, option)) = edns {
                let mut edns = Edns::new();
                edns.set_max_payload(size).set_dnssec_ok(dnssec);
                edns.options_mut().insert(EdnsOption::Unknown(65001, option));
                message.set_edns(edns);
            }
            message
        },
    )
}

fn lower_labels(name: &Name) -> Vec<u8> {
    let labels = name.iter().flat_map(|label| {
        let len = u8::try_from(label.len()).unwrap();
        std::iter::once(len).chain(label.to_ascii_lowercase())
    });
    labels.collect()
}

proptest! {
    /// What they write we read, and read the same in it.
    #[test]
    fn questions_are_read_as_hickory_wrote_them(message in question()) {
        let bytes = message.to_vec().unwrap();
        let mut query = Query::default();
        prop_assert_eq!(query.read(&bytes), Ok(()));
        let theirs = &message.queries[0];
        prop_assert_eq!(query.name(), lower_labels(theirs.name()));
        prop_assert_eq!(query.kind, u16::from(theirs.query_type()));
        prop_assert_eq!(query.class, 1);
        prop_assert_eq!(query.recursion_desired(), message.metadata.recursion_desired);
        prop_assert!(!query.extra);
        let edns = message.edns.as_ref();
        prop_assert_eq!(query.edns.map(|edns| edns.dnssec), edns.map(|edns| edns.flags().dnssec_ok));
        // Sizes below 512 mean 512 to them, and to us when an answer is written.
        prop_assert_eq!(
            query.edns.map(|edns| edns.udp_size.max(512)),
            edns.map(|edns| edns.max_payload().max(512))
        );
        prop_assert_eq!(query.edns.is_some_and(|edns| edns.personal), edns.is_some());
    }

    /// Whatever bytes come: no panic, and what we take for a question they take for the same.
    #[test]
    fn bytes_that_are_read_as_a_question_are_one_to_hickory(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut query = Query::default();
        if query.read(&bytes) == Ok(()) {
            let message = Message::from_vec(&bytes);
            // They refuse some record data that we have no use for.
            if let Ok(message) = message {
                prop_assert_eq!(lower_labels(message.queries[0].name()), query.name());
            }
        }
    }

    /// The same for a question with a bit or a byte changed, or its end missing: it is read alike or not at all.
    #[test]
    fn damaged_questions_are_read_alike(message in question(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = message.to_vec().unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = to }
        let mut query = Query::default();
        let read = query.read(&bytes);
        match (read, Message::from_vec(&bytes)) {
            (Ok(()), Ok(theirs)) => {
                prop_assert_eq!(theirs.queries.len(), 1);
                prop_assert_eq!(lower_labels(theirs.queries[0].name()), query.name());
                prop_assert_eq!(u16::from(theirs.queries[0].query_type()), query.kind);
            }
            (Ok(()), Err(_)) => prop_assert!(query.edns.is_some() || query.extra),
            // Not a plain question: another operation, an answer, several questions, something behind the end.
            (Err(Unusable::Silent | Unusable::Code(_)), _) => (),
        }
    }

    /// What we write they read, whole and truncated.
    #[test]
    fn answers_are_read_by_hickory(message in question(), addrs in proptest::collection::vec(any::<[u8; 4]>(), 0..120), limit in 512..1232_usize, ttl in 0..100_000_u32) {
        let mut buffer = message.to_vec().unwrap();
        let mut query = Query::default();
        query.read(&buffer).unwrap();
        buffer.resize(4096, 0xaa);
        let mut reply = Reply::new(&mut buffer, &query, limit);
        for addr in &addrs {
            reply.record(kind::A, ttl, addr);
        }
        let cut = reply.is_full();
        let len = reply.finish(&query, rcode::NOERROR, None);
        prop_assert!(len <= limit);
        let theirs = Message::from_vec(&buffer[..len]).unwrap();
        prop_assert_eq!(theirs.metadata.id, message.metadata.id);
        prop_assert_eq!(theirs.metadata.message_type, MessageType::Response);
        prop_assert_eq!(theirs.metadata.truncation, cut);
        prop_assert!(theirs.metadata.recursion_available);
        prop_assert_eq!(theirs.metadata.recursion_desired, message.metadata.recursion_desired);
        prop_assert_eq!(theirs.metadata.checking_disabled, message.metadata.checking_disabled);
        // The case of the name is the client's.
        prop_assert!(theirs.queries[0].name().eq_case(message.queries[0].name()));
        prop_assert_eq!(theirs.edns.is_some(), message.edns.is_some());
        let got: Vec<[u8; 4]> = theirs.answers.iter().map(|record| match &record.data {
            RData::A(A(addr)) => addr.octets(),
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(&got[..], &addrs[..got.len()]);
        prop_assert_eq!(got.len() == addrs.len(), !cut);
        for record in &theirs.answers {
            prop_assert!(record.name.eq_case(message.queries[0].name()));
            prop_assert_eq!(record.ttl, ttl);
        }
    }

    /// Codes and reasons.
    #[test]
    fn refusals_are_read_by_hickory(message in question(), code in 0..=16_u8, reason in proptest::option::of(any::<u16>())) {
        let mut buffer = message.to_vec().unwrap();
        let mut query = Query::default();
        query.read(&buffer).unwrap();
        prop_assume!(code < 16 || query.edns.is_some());
        buffer.resize(4096, 0xaa);
        let len = Reply::new(&mut buffer, &query, 512).finish(&query, code, reason);
        let theirs = Message::from_vec(&buffer[..len]).unwrap();
        prop_assert_eq!(theirs.metadata.response_code, ResponseCode::from(code >> 4, code & 0xf));
        let options = theirs.edns.as_ref().map_or(0, |edns| edns.options().as_ref().len());
        prop_assert_eq!(options, usize::from(reason.is_some() && query.edns.is_some()));
    }

    /// Answers of others are walked through as they read them, compressed names and all.
    #[test]
    fn answers_are_walked_as_hickory_wrote_them(asked in name(), other in name(), ttls in proptest::collection::vec(any::<u32>(), 3)) {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.add_query(TheirQuery::query(asked.clone(), RecordType::A));
        message.add_answer(Record::from_rdata(asked.clone(), ttls[0], RData::CNAME(CNAME(other.clone()))));
        message.add_answer(Record::from_rdata(other.clone(), ttls[1], RData::A(A::new(192, 0, 2, 1))));
        let soa = SOA::new(other.clone(), asked.clone(), 1, 2, 3, 4, 77);
        message.add_authority(Record::from_rdata(other.clone(), ttls[2], RData::SOA(soa)));
        let bytes = message.to_vec().unwrap();
        let mut query = Query::default();
        let mut question = bytes.clone();
        question[2] &= 0x7f;
        // The records that follow make it no question, but the end of the first part is what is wanted.
        let _ = query.read(&question);
        let found: Vec<_> = records(&bytes, query.end).map(Option::unwrap).collect();
        prop_assert_eq!(found.len(), 3);
        let sections: Vec<Section> = found.iter().map(|(section, _)| *section).collect();
        prop_assert_eq!(sections, [Section::Answer, Section::Answer, Section::Authority]);
        for ((_, record), ttl) in found.iter().zip(&ttls) {
            prop_assert_eq!(record.ttl, *ttl);
        }
        prop_assert_eq!(name_at(&bytes, found[0].1.start).unwrap(), lower_labels(&asked));
        prop_assert_eq!(name_at(&bytes, found[0].1.data).unwrap(), lower_labels(&other));
        prop_assert_eq!(name_at(&bytes, found[2].1.start).unwrap(), lower_labels(&other));
        prop_assert_eq!(found[2].1.end, bytes.len());
    }
}
