//! Other programs' rules that stand in the way. Read only, for `doctor`: nothing of others is ever changed, and what
//! cannot be understood is not guessed at.
//!
//! An `accept` of ours is not the last word: every base chain at a hook is asked, and one `drop` is enough. What helps
//! is one constant rule in the other program's own chain for administrators, see [`docker_user_accept`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::nft::{self, NftError};
use crate::ruleset::{MARK_MASK, MARK_VALUE};
use crate::schema::TABLE;

/// Hooks where a drop hurts containers.
const HOOKS: [&str; 3] = ["forward", "input", "prerouting"];
/// The chain Docker keeps for the administrator's rules.
const DOCKER_USER: &str = "DOCKER-USER";
/// Tables of the old iptables, which nft does not show.
const LEGACY_TABLES: [&str; 2] =
    ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// What of others there is at the hooks that containers depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Foreign {
    /// Chains that may drop, in the order of the listing.
    pub blockers: Vec<Blocker>,
    /// Families whose `filter` table has Docker's chain `DOCKER-USER`: `ip`, `ip6`.
    pub docker_user: Vec<String>,
    /// Tables of the old iptables in use; their rules are not known here.
    pub legacy_tables: Vec<String>,
}

/// A base chain that drops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// The table's family.
    pub family: String,
    /// The table.
    pub table: String,
    /// The base chain.
    pub chain: String,
    /// Where it is asked: `forward`, `input` or `prerouting`.
    pub hook: String,
    /// How it drops.
    pub kind: BlockerKind,
    /// A rule of it accepts berth's mark. At `prerouting` there is no mark yet.
    pub accepts_mark: bool,
}

/// How a chain drops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockerKind {
    /// By its policy: what no rule accepts.
    Policy,
    /// By a rule without conditions: what no rule before it accepts.
    Always {
        /// The chain the rule is in; the base chain leads there.
        chain: String,
        /// The rule's handle.
        handle: u64,
    },
    /// By rules with conditions, which may concern containers or not.
    Sometimes {
        /// How many there are, in the base chain and the chains it leads to.
        rules: usize,
    },
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, hook, kind, accepts_mark } = self;
        write!(f, "chain {chain} of table {family} {table} at {hook} ")?;
        match kind {
            BlockerKind::Policy => write!(f, "drops by its policy")?,
            BlockerKind::Always { chain, handle } => write!(f, "drops by rule {handle} of {chain}")?,
            BlockerKind::Sometimes { rules } => write!(f, "drops by rules with conditions ({rules})")?,
        }
        if *accepts_mark { write!(f, ", but accepts berth's mark") } else { Ok(()) }
    }
}

/// The one constant rule that lets berth's traffic through another program's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AcceptRule {
    /// The chain it belongs in.
    pub chain: &'static str,
    /// As arguments of `iptables` and `ip6tables`, for chains those made.
    pub iptables: String,
    /// As a rule of `nft`.
    pub nft: String,
}

/// The rule for Docker's `DOCKER-USER`, which Docker leaves to the administrator. It is the same on every host.
pub fn docker_user_accept() -> AcceptRule {
    AcceptRule {
        chain: DOCKER_USER,
        iptables: format!(
            "-I {DOCKER_USER} -m mark --mark {MARK_VALUE:#010x}/{MARK_MASK:#010x} -m comment --comment berth -j ACCEPT"
        ),
        nft: format!("meta mark & {MARK_MASK:#010x} == {MARK_VALUE:#010x} counter accept comment \"berth\""),
    }
}

/// Lists what of other programs may drop containers' traffic in this network namespace. It runs `nft`.
pub fn foreign_blockers() -> Result<Foreign, NftError> {
    let listing = nft::run(&["-j", "-t", "list", "ruleset"], "")?;
    let listing = serde_json::from_str(&listing).map_err(|source| NftError::Output { source })?;
    let names = LEGACY_TABLES.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let legacy_tables = names.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    Ok(Foreign { legacy_tables, ..read(&listing) })
}

/// A table, by family and name.
type TableId<'a> = (&'a str, &'a str);

/// What is of interest in a listing.
#[derive(Default)]
struct Listing<'a> {
    base: Vec<Base<'a>>,
    rules: BTreeMap<(TableId<'a>, &'a str), Vec<&'a Value>>,
    docker_user: Vec<String>,
}

struct Base<'a> {
    table: TableId<'a>,
    chain: &'a str,
    hook: &'a str,
    drops: bool,
}

fn read(listing: &Value) -> Foreign {
    let mut found = Listing::default();
    for object in listing.get("nftables").and_then(Value::as_array).into_iter().flatten() {
        if let Some(chain) = object.get("chain") {
            found.chain(chain);
        } else if let Some(rule) = object.get("rule") {
            found.rule(rule);
        }
    }
    let blockers = found.base.iter().flat_map(|base| found.blockers(base)).collect();
    Foreign { blockers, docker_user: found.docker_user, legacy_tables: Vec::new() }
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

impl<'a> Listing<'a> {
    fn chain(&mut self, chain: &'a Value) {
        let (Some(family), Some(table), Some(name)) =
            (text(chain, "family"), text(chain, "table"), text(chain, "name"))
        else {
            return;
        };
        if table == TABLE && matches!(family, "inet" | "bridge") {
            return;
        }
        if name == DOCKER_USER && table == "filter" {
            self.docker_user.push(family.to_owned());
        }
        if let Some(hook) = text(chain, "hook").filter(|hook| HOOKS.contains(hook)) {
            let drops = text(chain, "policy") == Some("drop");
            self.base.push(Base { table: (family, table), chain: name, hook, drops });
        }
    }

    fn rule(&mut self, rule: &'a Value) {
        if let (Some(family), Some(table), Some(chain)) =
            (text(rule, "family"), text(rule, "table"), text(rule, "chain"))
        {
            self.rules.entry(((family, table), chain)).or_default().push(rule);
        }
    }

    fn blockers(&self, base: &Base<'a>) -> Vec<Blocker> {
        let mut walk = Walk::new(self, base.table);
        walk.chain(base.chain, true);
        let policy = base.drops.then_some(BlockerKind::Policy);
        let always = walk.always.take();
        let sometimes = (walk.sometimes > 0).then_some(BlockerKind::Sometimes { rules: walk.sometimes });
        let (family, table) = base.table;
        let blocker = |kind| Blocker {
            family: family.to_owned(),
            table: table.to_owned(),
            chain: base.chain.to_owned(),
            hook: base.hook.to_owned(),
            kind,
            accepts_mark: walk.accepts_mark,
        };
        [policy, always, sometimes].into_iter().flatten().map(blocker).collect()
    }
}

/// Follows a base chain into the chains it leads to.
struct Walk<'a, 'b> {
    listing: &'b Listing<'a>,
    table: TableId<'a>,
    seen: BTreeSet<&'a str>,
    always: Option<BlockerKind>,
    sometimes: usize,
    accepts_mark: bool,
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(listing: &'b Listing<'a>, table: TableId<'a>) -> Self {
        Self { listing, table, seen: BTreeSet::new(), always: None, sometimes: 0, accepts_mark: false }
    }

    /// `surely`: every packet of the hook comes here.
    fn chain(&mut self, name: &'a str, surely: bool) {
        if !self.seen.insert(name) {
            return;
        }
        for rule in self.listing.rules.get(&(self.table, name)).into_iter().flatten() {
            let statements: Vec<&Value> =
                rule.get("expr").and_then(Value::as_array).into_iter().flatten().collect();
            let always = surely && statements.iter().all(|statement| is_unconditional(statement));
            let has = |verb: &str| statements.iter().any(|statement| statement.get(verb).is_some());
            if has("accept") && statements.iter().any(|statement| matches_mark(statement)) {
                self.accepts_mark = true;
            }
            if has("drop") || has("reject") {
                let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or_default();
                match (always, &self.always) {
                    (true, None) => {
                        self.always = Some(BlockerKind::Always { chain: name.to_owned(), handle })
                    }
                    (true, Some(_)) => (),
                    (false, _) => self.sometimes += 1,
                }
            }
            for target in statements.iter().flat_map(|statement| targets(statement)) {
                self.chain(target, always);
            }
        }
    }
}

/// Statements that do not restrict what the rule applies to. Anything unknown is taken for a condition.
fn is_unconditional(statement: &Value) -> bool {
    ["counter", "log", "drop", "reject", "jump", "goto", "accept", "return", "mangle"]
        .iter()
        .any(|verb| statement.get(verb).is_some())
}

/// The chains a statement leads to: `jump`, `goto`, and those inside a verdict map.
fn targets(statement: &Value) -> Vec<&str> {
    let direct = ["jump", "goto"].into_iter().filter_map(|verb| text(statement.get(verb)?, "target"));
    let elements = statement.pointer("/vmap/data/set").and_then(Value::as_array).into_iter().flatten();
    let mapped = elements.filter_map(|element| element.get(1)).flat_map(targets);
    direct.chain(mapped.collect::<Vec<_>>()).collect()
}

/// `meta mark & MASK == VALUE`, as nft lists it.
fn matches_mark(statement: &Value) -> bool {
    let Some(matched) = statement.get("match") else { return false };
    let operands = matched.pointer("/left/&").and_then(Value::as_array).map(Vec::as_slice);
    let Some([left, mask]) = operands else { return false };
    left.pointer("/meta/key").and_then(Value::as_str) == Some("mark")
        && mask.as_u64() == Some(MARK_MASK.into())
        && matched.get("right").and_then(Value::as_u64) == Some(MARK_VALUE.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_makes_no_sense_blocks_nothing() {
        for odd in ["null", "{}", "{\"nftables\":[1,{\"chain\":{}},{\"rule\":{\"expr\":7}}]}"] {
            assert_eq!(read(&serde_json::from_str(odd).unwrap()), Foreign::default());
        }
    }

    #[test]
    fn the_rule_for_docker_is_constant() {
        let rule = docker_user_accept();
        assert_eq!(rule.nft, "meta mark & 0x00f00000 == 0x00b00000 counter accept comment \"berth\"");
        assert_eq!(
            rule.iptables,
            "-I DOCKER-USER -m mark --mark 0x00b00000/0x00f00000 -m comment --comment berth -j ACCEPT"
        );
    }
}
