//! Whether what is laid is what was laid: a hash of the kernel's own form of both tables, kept in the marker.
//!
//! The text `nft` prints changes between its versions; the kernel's expressions of a laid rule do not. So what lies
//! there now is compared with what lay there right after [`crate::lay`], not with text.

use std::collections::BTreeSet;

use crate::batch::LAID;
use crate::kernel::{get, msg, nfta};
use crate::read::rows;
use crate::ruleset::{MARKER_PREFIX, marker_set};
use crate::schema::{SETS, TABLE, Table};
use crate::socket::{NftSocket, SocketError};
use crate::wire::{AttrSet, NLM_F_DUMP};

/// What lies in the kernel, compared with the constant ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulesetState {
    /// Nothing of it, or only a part.
    Absent,
    /// Another version's.
    Outdated,
    /// This version's, and then somebody changed a chain, a rule or a set of it.
    Altered,
    /// As it was laid.
    Current,
}

/// Reads both tables and tells how they compare with what [`crate::lay`] lays. For people and for repair; nothing on
/// the path of an attachment asks.
pub fn ruleset_state(socket: &mut NftSocket) -> Result<RulesetState, SocketError> {
    let laid = observe(socket)?;
    let complete = Table::ALL.iter().all(|table| laid.tables.contains(table));
    if !complete || laid.markers.is_empty() {
        return Ok(RulesetState::Absent);
    }
    if !laid.markers.contains(marker_set().name) {
        return Ok(RulesetState::Outdated);
    }
    let marked = match rows(socket, marker_set()) {
        // Somebody has taken the tables away since they were looked at.
        Err(err) if err.errno() == Some(libc::ENOENT) => return Ok(RulesetState::Absent),
        marked => marked?,
    };
    let marked = marked.into_iter().filter_map(|row| {
        row.key.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)).filter(|mark| *mark != LAID)
    });
    let same = laid.missing_sets == 0 && marked.collect::<Vec<_>>() == [laid.fingerprint];
    Ok(if same { RulesetState::Current } else { RulesetState::Altered })
}

/// The tables as they are.
pub(crate) struct Laid {
    /// Never [`LAID`].
    pub(crate) fingerprint: u32,
    /// Names of the marker sets, berth's own version's and others'.
    pub(crate) markers: BTreeSet<String>,
    missing_sets: usize,
    tables: BTreeSet<Table>,
}

pub(crate) fn observe(socket: &mut NftSocket) -> Result<Laid, SocketError> {
    let mut hash = Hash::default();
    let (mut tables, mut sets) = (BTreeSet::new(), BTreeSet::new());
    for table in Table::ALL {
        // Each dump is by family; what is not berth's is not looked at.
        let flags = list(socket, table, msg::GETTABLE, nfta::TABLE_NAME, |attrs| {
            attrs.get(nfta::TABLE_FLAGS).unwrap_or_default().to_vec()
        })?;
        if !flags.is_empty() {
            tables.insert(table);
        }
        hash.items(&flags);
        hash.items(&list(socket, table, msg::GETCHAIN, nfta::CHAIN_TABLE, chain)?);
        hash.items(&list(socket, table, msg::GETRULE, nfta::RULE_TABLE, rule)?);
        let names = list(socket, table, msg::GETSET, nfta::SET_TABLE, |attrs| {
            attrs.text(nfta::SET_NAME).unwrap_or_default().to_owned()
        })?;
        sets.extend(names.into_iter().map(|name| (table, name)));
    }
    let missing_sets = SETS.iter().filter(|def| !sets.contains(&(def.table, def.name.to_owned()))).count();
    let markers =
        sets.into_iter().map(|(_, name)| name).filter(|name| name.starts_with(MARKER_PREFIX)).collect();
    Ok(Laid { fingerprint: hash.folded(), markers, missing_sets, tables })
}

/// Dumps the objects of one kind in one of berth's tables.
fn list<T>(
    socket: &mut NftSocket,
    table: Table,
    kind: u16,
    table_attr: u16,
    read: impl Fn(AttrSet<'_>) -> T,
) -> Result<Vec<T>, SocketError> {
    let result = socket.dump(
        "read berth's tables",
        |writer, seq| {
            get(writer, seq, table, kind, NLM_F_DUMP, |attrs| {
                // The kernel filters rules and sets by it.
                if kind != msg::GETTABLE {
                    attrs.text(table_attr, TABLE);
                }
            })
        },
        |found: &mut Vec<T>, message| {
            let attrs = message.attrs();
            if attrs.text(table_attr) == Some(TABLE) {
                found.push(read(attrs));
            }
        },
    );
    match result {
        // The table is not there.
        Err(err) if err.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        result => result,
    }
}

fn chain(attrs: AttrSet<'_>) -> Vec<u8> {
    let kinds = [nfta::CHAIN_NAME, nfta::CHAIN_HOOK, nfta::CHAIN_POLICY, nfta::CHAIN_TYPE];
    let mut bytes = Vec::new();
    for kind in kinds {
        field(&mut bytes, attrs.get(kind).unwrap_or_default());
    }
    bytes
}

/// A rule without what changes by itself: its counters, its handle and the numbers of its anonymous sets.
fn rule(attrs: AttrSet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    field(&mut bytes, attrs.get(nfta::RULE_CHAIN).unwrap_or_default());
    let expressions = attrs.nested(nfta::RULE_EXPRESSIONS).map(AttrSet::each);
    for (_, expression) in expressions.into_iter().flatten() {
        let expression = AttrSet::of(expression);
        let name = expression.text(nfta::EXPR_NAME).unwrap_or_default();
        field(&mut bytes, name.as_bytes());
        if name == "counter" {
            continue;
        }
        for (kind, value) in expression.nested(nfta::EXPR_DATA).map(AttrSet::each).into_iter().flatten() {
            let anonymous = name == "lookup" && kind == nfta::LOOKUP_SET && value.starts_with(b"__");
            field(&mut bytes, &kind.to_ne_bytes());
            field(&mut bytes, if anonymous { b"__" } else { value });
        }
    }
    bytes
}

fn field(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend(value.len().to_ne_bytes());
    bytes.extend(value);
}

/// FNV-1a, as in [`berth_types::fnv64`], over bytes.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn items(&mut self, items: &[Vec<u8>]) {
        for item in items {
            for byte in item.len().to_ne_bytes().iter().chain(item) {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }

    fn folded(&self) -> u32 {
        let folded = u32::try_from((self.0 >> 32) ^ (self.0 & 0xffff_ffff)).unwrap_or(0);
        if folded == LAID { 1 } else { folded }
    }
}
