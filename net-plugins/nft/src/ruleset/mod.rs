//! The constant ruleset: a pure function from nothing to one nft transaction.
//!
//! It is the same on every host, whatever runs there; networks and attachments are elements of its sets and maps
//! (see [`crate::Element`]). Laying it again adds what is missing and refills every chain in one transaction, keeping
//! the elements, so no packet is ever judged by half of it.
//!
//! Three rules are not in here. nft 1.0.6 has no words for a neighbour advertisement's target inside a concatenation, and
//! not every kernel can tell a decrypted packet. The chains [`ADVERTISED`], [`CLEAR_IN`] and [`CLEAR_OUT`] are made here
//! and filled by [`crate::lay`] with messages of its own, before the marker lets any element in; while the first is empty,
//! neighbour advertisements of guarded ports are dropped, not trusted.

mod bridge;
mod expr;
mod inet;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::OnceLock;

use nftables::batch::Batch;
use nftables::schema::{
    self, Chain, FlushObject, NfCmd, NfListObject, Nftables, Rule, SetFlag, SetType, SetTypeValue,
};
use nftables::stmt::Statement;
use nftables::types::{NfChainPolicy, NfChainType, NfHook};

use crate::schema::{Field, SETS, SetDef, TABLE, Table};

/// The bits of the packet mark that belong to berth.
pub const MARK_MASK: u32 = 0x00f0_0000;
/// What those bits are on a packet that berth accepts.
pub const MARK_VALUE: u32 = 0x00b0_0000;

/// The chains that [`crate::lay`] fills by itself. See the module's page.
pub(crate) const ADVERTISED: &str = "advertised";
pub(crate) const CLEAR_IN: &str = "clear_in";
pub(crate) const CLEAR_OUT: &str = "clear_out";
const FILLED_APART: [&str; 3] = [ADVERTISED, CLEAR_IN, CLEAR_OUT];

/// A chain and its rules.
struct ChainDef {
    name: &'static str,
    /// Where packets enter it; a chain without a hook is only jumped to.
    hook: Option<Hook>,
    rules: Vec<RuleDef>,
}

struct Hook {
    kind: NfChainType,
    point: NfHook,
    priority: i32,
}

struct RuleDef {
    statements: Vec<Statement<'static>>,
    comment: Option<&'static str>,
}

impl ChainDef {
    fn base(name: &'static str, kind: NfChainType, point: NfHook, priority: i32) -> Self {
        Self { name, hook: Some(Hook { kind, point, priority }), rules: Vec::new() }
    }

    fn regular(name: &'static str) -> Self {
        Self { name, hook: None, rules: Vec::new() }
    }

    fn rule(&mut self, statements: impl IntoIterator<Item = Statement<'static>>) {
        self.rules.push(RuleDef { statements: statements.into_iter().collect(), comment: None });
    }

    /// A rule people should recognise in a listing.
    fn noted(&mut self, comment: &'static str, statements: impl IntoIterator<Item = Statement<'static>>) {
        self.rules.push(RuleDef { statements: statements.into_iter().collect(), comment: Some(comment) });
    }
}

fn chains(table: Table) -> Vec<ChainDef> {
    match table {
        Table::Inet => inet::chains(),
        Table::Bridge => bridge::chains(),
    }
}

/// The whole ruleset as one transaction: add tables, sets and chains, flush every chain, add every rule.
fn render() -> Nftables<'static> {
    let mut batch = Batch::new();
    for table in Table::ALL {
        batch.add(NfListObject::Table(schema::Table {
            family: table.family(),
            name: TABLE.into(),
            handle: None,
        }));
    }
    for def in SETS {
        batch.add(set_object(def));
    }
    for table in Table::ALL {
        let chains = chains(table);
        for chain in &chains {
            batch.add(NfListObject::Chain(chain_object(table, chain)));
        }
        for chain in chains.iter().filter(|chain| !FILLED_APART.contains(&chain.name)) {
            batch.add_cmd(NfCmd::Flush(FlushObject::Chain(Chain {
                hook: None,
                ..plain_chain(table, chain.name)
            })));
        }
        for chain in chains {
            for rule in chain.rules {
                batch.add(NfListObject::Rule(rule_object(table, chain.name, rule)));
            }
        }
    }
    batch.to_nftables()
}

/// The same as nft reads it.
pub fn script() -> Result<String, serde_json::Error> {
    // The crate writes this statement as a word, nft wants an object.
    Ok(serde_json::to_string(&render())?.replace(r#""notrack""#, r#"{"notrack":null}"#))
}

/// What the names of all marker sets begin with, this version's and others'.
pub(crate) const MARKER_PREFIX: &str = "ruleset_";

/// The set that says which ruleset is laid: its name ends in a hash of [`script`].
pub(crate) fn marker_set() -> &'static SetDef {
    static NAME: OnceLock<String> = OnceLock::new();
    static MARKER: OnceLock<SetDef> = OnceLock::new();
    let name = NAME.get_or_init(|| {
        let script = script().unwrap_or_default();
        let hash = berth_types::fnv64([script.as_str(), crate::own_rules::OWN_RULES_VERSION]);
        format!("{MARKER_PREFIX}{hash:016x}")
    });
    MARKER.get_or_init(|| SetDef {
        table: Table::Inet,
        name,
        key: &[Field::Mark],
        interval: false,
        data: None,
    })
}

fn plain_chain(table: Table, name: &'static str) -> Chain<'static> {
    Chain { family: table.family(), table: TABLE.into(), name: name.into(), ..Chain::default() }
}

fn chain_object(table: Table, chain: &ChainDef) -> Chain<'static> {
    let plain = plain_chain(table, chain.name);
    let Some(Hook { kind, point, priority }) = chain.hook else { return plain };
    Chain {
        _type: Some(kind),
        hook: Some(point),
        prio: Some(priority),
        policy: Some(NfChainPolicy::Accept),
        ..plain
    }
}

fn rule_object(table: Table, chain: &'static str, rule: RuleDef) -> Rule<'static> {
    Rule {
        family: table.family(),
        table: TABLE.into(),
        chain: chain.into(),
        expr: rule.statements.into(),
        comment: rule.comment.map(Cow::from),
        ..Rule::default()
    }
}

fn set_object(def: &SetDef) -> NfListObject<'static> {
    let flags = def.interval.then(|| HashSet::from([SetFlag::Interval]));
    let (family, table, name, set_type) = (def.table.family(), TABLE.into(), def.name.into(), key_type(def));
    match def.data {
        None => NfListObject::Set(Box::new(schema::Set {
            family,
            table,
            name,
            set_type,
            flags,
            ..Default::default()
        })),
        Some(data) => {
            let map = SetTypeValue::Single(field_type(data));
            NfListObject::Map(Box::new(schema::Map {
                family,
                table,
                name,
                set_type,
                map,
                flags,
                ..Default::default()
            }))
        }
    }
}

fn key_type(def: &SetDef) -> SetTypeValue<'static> {
    match def.key {
        [single] => SetTypeValue::Single(field_type(*single)),
        several => SetTypeValue::Concatenated(several.iter().map(|field| field_type(*field)).collect()),
    }
}

fn field_type(field: Field) -> SetType {
    match field {
        Field::IfName => SetType::Ifname,
        Field::Mac => SetType::EtherAddr,
        Field::V4 => SetType::Ipv4Addr,
        Field::V6 => SetType::Ipv6Addr,
        Field::Proto => SetType::InetProto,
        Field::Port => SetType::InetService,
        Field::Mark => SetType::Mark,
    }
}
