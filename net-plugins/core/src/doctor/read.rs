//! What the comparisons are made of, read from the kernel and the records. Whatever cannot be read is a finding, and
//! the rest goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use berth_netlink::sysctl::{self, SysctlKey};
use berth_netlink::{Addr, Link, Netlink, RouteFilter};
use berth_nft::{Element, Foreign, NftError, NftSocket, ReadError, RulesetState, SocketError};
use berth_store::{Dirs, ReadTx, StoreError};
use berth_types::Family;
use ipnetwork::IpNetwork;
use serde::Serialize;

use super::records::{Recorded, Row};
use super::{Finding, Lease, Words};
use crate::berth::{Berth, is_dead, parsed, sandbox_is_gone};
use crate::error::{Chain, CoreError};
use crate::keeper::{self, KeeperView};
use crate::names::{ListeningView, NamesState};
use crate::network::NetworkRecord;
use crate::published::Held;

/// `RT_TABLE_MAIN` of linux/rtnetlink.h.
const MAIN_TABLE: u32 = 254;

/// The first bytes of every SQLite file (sqlite.org/fileformat2.html, section 1.3).
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// What the kernel says. What could not be read is absent.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) links: Option<Vec<Link>>,
    pub(super) addrs: Vec<Addr>,
    /// Destinations of the main table's unicast routes, and the link each leaves by.
    pub(super) routes: Vec<(IpNetwork, u32)>,
    /// Values of switches, by path under `/proc/sys`.
    pub(super) switches: BTreeMap<String, String>,
    pub(super) ruleset: Option<Ruleset>,
    /// Other programs' chains that may drop what berth accepts.
    pub(super) foreign: Foreign,
}

/// The two tables.
#[derive(Debug)]
pub(super) struct Ruleset {
    pub(super) state: RulesetState,
    pub(super) elements: BTreeSet<Element>,
    pub(super) strays: Vec<String>,
}

/// Reads the kernel.
pub(super) fn kernel(findings: &mut Vec<Finding>) -> Seen {
    let mut seen = Seen::default();
    match links(&mut seen) {
        Ok(()) => (),
        Err(err) => findings.push(unreadable("links, addresses and routes", &err)),
    }
    match ruleset() {
        Ok(ruleset) => seen.ruleset = Some(ruleset),
        Err(err) => findings.push(unreadable("the ruleset", &err)),
    }
    match berth_nft::foreign_blockers() {
        Ok(foreign) => seen.foreign = foreign,
        Err(err @ NftError::Missing) => findings.push(no_nft(&err)),
        Err(err) => findings.push(unreadable("other programs' firewalls", &err)),
    }
    seen.switches = switches(seen.links.as_deref().unwrap_or_default());
    seen
}

fn unreadable(what: &str, err: &(dyn std::error::Error + 'static)) -> Finding {
    Words {
        object: &what,
        what: format!("cannot be read: {}", Chain(err)),
        cause: "berth needs root, or CAP_NET_ADMIN in the network namespace it works in",
        fix: "run berth as root".to_owned(),
    }
    .person("kernel-unreadable")
}

fn no_nft(err: &NftError) -> Finding {
    let text = err.to_string();
    let (what, fix) = text.split_once('\n').unwrap_or((&text, "install nftables"));
    let cause = "berth lays its ruleset with nft";
    Words { object: &"nft", what: format!("is missing: {what}"), cause, fix: fix.to_owned() }
        .person("nft-missing")
}

fn links(seen: &mut Seen) -> Result<(), CoreError> {
    let netlink = Netlink::open()?;
    seen.links = Some(netlink.links()?);
    seen.addrs = netlink.addrs_all()?;
    for family in [Family::V4, Family::V6] {
        let routes = netlink.routes(RouteFilter { family, table: Some(MAIN_TABLE) })?;
        let unicast = routes.into_iter().filter(|route| route.is_unicast);
        seen.routes.extend(unicast.filter_map(|route| Some((route.dst, route.oif?))));
    }
    Ok(())
}

fn ruleset() -> Result<Ruleset, ReadError> {
    let mut socket = NftSocket::open()?;
    let state = berth_nft::ruleset_state(&mut socket)?;
    let nothing = Ruleset { state, elements: BTreeSet::new(), strays: Vec::new() };
    if state == RulesetState::Absent {
        return Ok(nothing);
    }
    match socket.dump_elements() {
        Ok(dump) => {
            Ok(Ruleset { elements: dump.elements.into_iter().collect(), strays: dump.strays, ..nothing })
        }
        // A set is missing, and the state says so.
        Err(ReadError::NoRuleset) => Ok(nothing),
        Err(err) => Err(err),
    }
}

/// The switches that matter; one that this kernel or this link does not have is absent.
fn switches(links: &[Link]) -> BTreeMap<String, String> {
    let mut keys: Vec<[&str; 5]> = Vec::new();
    for link in links.iter().map(|link| link.name.as_str()).chain(["all"]) {
        keys.push(["net", "ipv4", "conf", link, "route_localnet"]);
        keys.push(["net", "ipv4", "conf", link, "rp_filter"]);
        keys.push(["net", "ipv6", "conf", link, "accept_ra"]);
    }
    keys.push(["net", "ipv6", "conf", "all", "forwarding"]);
    let whole = keys.iter().map(|parts| SysctlKey::new(parts.iter().copied()));
    let forward = SysctlKey::new(["net", "ipv4", "ip_forward"]);
    let known = whole.chain([forward]).flatten();
    known.filter_map(|key| sysctl::read(&key).ok().map(|value| (key.as_str().to_owned(), value))).collect()
}

/// Reads the records; `None` where there are none, or none that can be used.
pub(super) fn records(dirs: &Dirs, seen: &Seen, findings: &mut Vec<Finding>) -> Option<Recorded> {
    findings.extend([&dirs.run, &dirs.state].into_iter().flat_map(|dir| set_aside(dir)));
    let state = look_at(&dirs.state.join("state.db"));
    if let File::Damaged = state {
        findings
            .push(damaged(&dirs.state.join("state.db"), "networks and static addresses kept in it are lost"));
    }
    let path = dirs.run.join("run.db");
    match look_at(&path) {
        File::Absent => {
            let tagged = tags(seen);
            if tagged == 0 {
                return Some(Recorded::default());
            }
            findings.push(
                Words {
                    object: &format_args!("records {}", path.display()),
                    what: format!("are gone, and {tagged} links carry berth's tag"),
                    cause: "the run directory was wiped",
                    fix: "berth gc, which builds the records again from the tags".to_owned(),
                }
                .repairable("records-missing"),
            );
            None
        }
        File::Damaged => {
            findings
                .push(damaged(&path, "the next call builds the records again from the tags in the kernel"));
            None
        }
        File::There => match recorded(dirs) {
            Ok(recorded) => Some(recorded),
            Err(err) => {
                findings.push(unusable(&path, &err));
                None
            }
        },
    }
}

/// How many links carry berth's tag.
fn tags(seen: &Seen) -> usize {
    let tagged = |link: &&Link| link.alias.as_deref().is_some_and(|alias| alias.starts_with("berth "));
    seen.links.iter().flatten().filter(tagged).count()
}

/// A file of records, looked at without opening it as one: that would repair it.
enum File {
    /// Not there, or empty.
    Absent,
    Damaged,
    /// There, or not to be read by this user, which opening says better.
    There,
}

fn look_at(path: &Path) -> File {
    let mut head = [0; SQLITE_MAGIC.len()];
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return File::Absent;
        }
        Err(_) => return File::There,
    };
    if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        return File::Absent;
    }
    match file.read_exact(&mut head) {
        Ok(()) if head == *SQLITE_MAGIC => File::There,
        _ => File::Damaged,
    }
}

fn damaged(path: &Path, fix: &str) -> Finding {
    Words {
        object: &format_args!("records {}", path.display()),
        what: "are damaged".to_owned(),
        cause: "the disk was full or failed, or the file was changed by hand",
        fix: format!("berth gc, which sets the file aside: {fix}"),
    }
    .repairable("records-damaged")
}

fn unusable(path: &Path, err: &CoreError) -> Finding {
    let text = Chain(err).to_string();
    let (what, fix) = text.split_once('\n').unwrap_or((
        &text,
        "put the cause right, or move the file away: it is built again from the kernel's tags",
    ));
    let (code, cause) = match err {
        CoreError::Store(StoreError::Newer { .. }) => ("records-newer", "an older berth is run than before"),
        CoreError::Store(StoreError::Permission { .. }) => ("records-unusable", "they are another user's"),
        CoreError::Store(StoreError::Full { .. }) => ("records-unusable", "the file system is full"),
        CoreError::Store(StoreError::ReadOnly { .. }) => ("records-unusable", "the file system is read-only"),
        CoreError::Store(StoreError::Busy { .. }) => ("records-unusable", "another process holds them"),
        _ => ("records-unusable", "the files or their file system were changed from outside"),
    };
    let object = format!("records {}", path.display());
    let what = format!("cannot be used: {what}");
    Words { object: &object, what, cause, fix: fix.to_owned() }.person(code)
}

/// Damaged files that earlier calls set aside.
fn set_aside(dir: &Path) -> Vec<Finding> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let aside = names.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains(".db.corrupt-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    });
    let finding = |path: PathBuf| {
        Words {
            object: &format_args!("file {}", path.display()),
            what: "holds damaged records that were set aside".to_owned(),
            cause: "the disk was full or failed, or the file was changed by hand",
            fix: format!("look at it, then: rm {0} {0}-*", path.display()),
        }
        .note("records-set-aside")
    };
    aside.map(finding).collect()
}

fn recorded(dirs: &Dirs) -> Result<Recorded, CoreError> {
    let Some(mut berth) = Berth::look(dirs)? else { return Ok(Recorded::default()) };
    let boot = berth.boot().clone();
    let closed = berth.closed_uplinks()?;
    let mut recorded = berth.store_mut().read(|tx| snapshot(tx, &boot))?;
    recorded.closed = closed;
    Ok(recorded)
}

fn snapshot(tx: &ReadTx<'_>, boot: &berth_types::BootId) -> Result<Recorded, CoreError> {
    let mut recorded = Recorded::default();
    for row in tx.live_networks()? {
        if row.boot_id == *boot {
            let network: NetworkRecord = parsed(&row.name, &row.payload)?;
            if network.pending { &mut recorded.pending_networks } else { &mut recorded.networks }
                .push(network);
        } else {
            recorded.old_networks.push(row.name);
        }
    }
    for row in tx.attachments()? {
        recorded.rows.push(Row {
            this_boot: row.boot_id == *boot,
            owner_lives: row.owner.is_alive(),
            sandbox_gone: sandbox_is_gone(row.sandbox.as_ref()),
            held: parsed::<Held>(&row.key, &row.payload).map_err(|err| Chain(&err).to_string()),
            key: row.key,
            state: row.state,
        });
    }
    let leases = tx.leases()?.into_iter();
    recorded.leases =
        leases.map(|row| Lease { is_dead: is_dead(&row), owner: row.owner, address: row.address }).collect();
    Ok(recorded)
}

/// What lies in nftables, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RulesetView {
    /// Nothing; it is laid with the first network.
    Absent,
    /// Another version's.
    Outdated,
    /// This version's, changed by somebody.
    Altered,
    /// As berth laid it.
    Current,
    /// It could not be read.
    Unknown,
}

/// Numbers of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Where durable records are.
    pub state_dir: PathBuf,
    /// Where records of this boot are.
    pub run_dir: PathBuf,
    /// What lies in nftables.
    pub ruleset: RulesetView,
    /// Networks of this boot.
    pub networks: usize,
    /// Attachments that are ready.
    pub attachments: usize,
    /// Attachments that are being made or removed, or were left half way.
    pub unfinished: usize,
    /// Published ports and ranges.
    pub ports: usize,
    /// Leased addresses.
    pub leases: usize,
    /// Whether the host forwards IPv4; absent where that cannot be read.
    pub forwards_ipv4: Option<bool>,
    /// Whether the host forwards IPv6.
    pub forwards_ipv6: Option<bool>,
    /// Names; absent where no network has any and no server runs.
    pub names: Option<NamesOverview>,
    /// What the keeper does; absent where none runs.
    pub keeper: Option<KeeperView>,
}

/// Names, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamesOverview {
    /// Networks that have names.
    pub networks: usize,
    /// Containers that have names.
    pub members: usize,
    /// Whether a DNS server answers them.
    pub served: bool,
    /// Where it listens.
    pub listening: Vec<ListeningView>,
}

/// Counts, and changes nothing.
///
/// # Errors
///
/// The records are there and cannot be used. A ruleset that cannot be read is [`RulesetView::Unknown`].
pub fn overview(dirs: &Dirs) -> Result<Overview, CoreError> {
    let recorded = match look_at(&dirs.run.join("run.db")) {
        File::There => recorded(dirs)?,
        File::Absent | File::Damaged => Recorded::default(),
    };
    let standing =
        || recorded.rows.iter().filter(|row| row.stands()).filter_map(|row| row.held.as_ref().ok());
    let switch = |parts: &[&str]| {
        let key = SysctlKey::new(parts.iter().copied()).ok()?;
        sysctl::read(&key).ok().map(|value| value != "0")
    };
    Ok(Overview {
        state_dir: dirs.state.clone(),
        run_dir: dirs.run.clone(),
        ruleset: view(),
        networks: recorded.networks.len(),
        attachments: standing().filter(|held| matches!(held, Held::Bridge(_))).count(),
        unfinished: recorded.rows.iter().filter(|row| !row.stands()).count(),
        ports: standing().map(|held| held.published().ports.len()).sum(),
        leases: recorded.leases.len(),
        forwards_ipv4: switch(&["net", "ipv4", "ip_forward"]),
        forwards_ipv6: switch(&["net", "ipv6", "conf", "all", "forwarding"]),
        names: NamesState::read(dirs).ok().and_then(names_overview),
        keeper: keeper::view(dirs),
    })
}

fn names_overview(state: NamesState) -> Option<NamesOverview> {
    let NamesState { wanted, server, is_there, .. } = state;
    let (networks, members) = (wanted.networks.len(), wanted.members.len());
    let served = server.is_ok();
    let listening = server.map(|server| server.listening).unwrap_or_default();
    (networks > 0 || is_there).then_some(NamesOverview { networks, members, served, listening })
}

fn view() -> RulesetView {
    let state = || -> Result<RulesetState, SocketError> { berth_nft::ruleset_state(&mut NftSocket::open()?) };
    match state() {
        Ok(RulesetState::Absent) => RulesetView::Absent,
        Ok(RulesetState::Outdated) => RulesetView::Outdated,
        Ok(RulesetState::Altered) => RulesetView::Altered,
        Ok(RulesetState::Current) => RulesetView::Current,
        Err(_) => RulesetView::Unknown,
    }
}
