//! Records against each other and against the processes and sandboxes they name. Pure.

use std::collections::BTreeMap;

use berth_nft::Element;
use berth_store::AttachmentState;
use berth_types::{AttachmentKey, NetworkName};

use super::{Finding, GC, Lease, Words};
use crate::network::NetworkRecord;
use crate::published::Held;

/// What the records say.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// Networks of this boot.
    pub(super) networks: Vec<NetworkRecord>,
    /// Networks of this boot that somebody began to make or change and has not finished.
    pub(super) pending_networks: Vec<NetworkRecord>,
    /// Names of networks of another boot.
    pub(super) old_networks: Vec<NetworkName>,
    pub(super) rows: Vec<Row>,
    pub(super) leases: Vec<Lease>,
    /// Links between which nothing is to be forwarded.
    pub(super) closed: std::collections::BTreeSet<Element>,
}

/// A record of an attachment or of published ports.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) key: AttachmentKey,
    pub(super) state: AttachmentState,
    pub(super) this_boot: bool,
    /// Whether the process that changed the state last still runs.
    pub(super) owner_lives: bool,
    /// Whether the sandbox is provably gone.
    pub(super) sandbox_gone: bool,
    /// The record; what is wrong with it where it cannot be read.
    pub(super) held: Result<Held, String>,
}

impl Row {
    /// Whether a process is working on it at this moment.
    pub(super) fn is_busy(&self) -> bool {
        self.state != AttachmentState::Ready && self.this_boot && self.owner_lives
    }

    /// Whether it should be in the kernel.
    pub(super) fn stands(&self) -> bool {
        self.state == AttachmentState::Ready && self.this_boot
    }
}

impl Recorded {
    /// Whether anything of berth's should be in the kernel.
    pub(super) fn is_in_use(&self) -> bool {
        !self.networks.is_empty() || self.rows.iter().any(Row::stands)
    }
}

/// Compares.
pub(super) fn compare(recorded: &Recorded) -> Vec<Finding> {
    let mut findings: Vec<Finding> = recorded.rows.iter().filter_map(row).collect();
    findings.extend(recorded.old_networks.iter().map(|name| {
        Words {
            object: &format_args!("network {name}"),
            what: "is recorded as of an earlier boot".to_owned(),
            cause: "the run directory outlived a reboot: it is not on a tmpfs",
            fix: GC.to_owned(),
        }
        .repairable("network-of-earlier-boot")
    }));
    findings.extend(half_built_networks(recorded));
    findings.extend(leases(recorded));
    findings.extend(shared_addresses(recorded));
    findings
}

fn row(row: &Row) -> Option<Finding> {
    let Row { key, state, this_boot, owner_lives: _, sandbox_gone, held } = row;
    let words = |what: String, cause| Words { object: key, what, cause, fix: GC.to_owned() };
    if row.is_busy() {
        return None;
    }
    if !this_boot {
        let what = "is recorded as of an earlier boot".to_owned();
        let cause = "the run directory outlived a reboot: it is not on a tmpfs";
        return Some(words(what, cause).repairable("attachment-of-earlier-boot"));
    }
    let held = match held {
        Ok(held) => held,
        Err(why) => {
            let words = Words {
                object: key,
                what: format!("has a record that cannot be read: {why}"),
                cause: "it was written by another version, or the file was changed by hand",
                fix: "remove the container with its engine, so that DEL is called".to_owned(),
            };
            return Some(words.person("attachment-record-unreadable"));
        }
    };
    match (state, held) {
        (AttachmentState::Pending, _) => {
            let what = "is half built, and the process that built it is gone".to_owned();
            Some(words(what, "ADD was killed").repairable("attachment-half-built"))
        }
        (AttachmentState::Deleting, _) => {
            let what = "is half removed, and the process that removed it is gone".to_owned();
            Some(words(what, "DEL was killed, or failed").repairable("attachment-half-removed"))
        }
        (AttachmentState::Ready, Held::Ports(_)) if *sandbox_gone => {
            let what = "has published ports, and its sandbox is gone".to_owned();
            Some(words(what, "the container ended without a DEL").repairable("ports-without-sandbox"))
        }
        (AttachmentState::Ready, _) => None,
    }
}

fn half_built_networks(recorded: &Recorded) -> impl Iterator<Item = Finding> {
    let at_work =
        |name: &NetworkName| recorded.rows.iter().any(|row| row.key.network == *name && row.is_busy());
    recorded.pending_networks.iter().map(|network| &network.name).filter(move |name| !at_work(name)).map(
        |name| {
            Words {
                object: &format_args!("network {name}"),
                what: "is half built, and the process that built it is gone".to_owned(),
                cause: "ADD was killed",
                fix: GC.to_owned(),
            }
            .repairable("network-half-built")
        },
    )
}

/// A lease may have no attachment of berth's (`ripam` behind another main plugin); then its sandbox tells.
fn leases(recorded: &Recorded) -> impl Iterator<Item = Finding> {
    let owners: std::collections::BTreeSet<&AttachmentKey> =
        recorded.rows.iter().map(|row| &row.key).collect();
    let orphans = recorded.leases.iter().filter(move |lease| lease.is_dead && !owners.contains(&lease.owner));
    orphans.map(|lease| {
        Words {
            object: &format_args!("lease of {}", lease.address),
            what: format!("belongs to {}, whose sandbox is gone", lease.owner),
            cause: "the container ended without a DEL",
            fix: GC.to_owned(),
        }
        .repairable("lease-without-owner")
    })
}

fn shared_addresses(recorded: &Recorded) -> Vec<Finding> {
    let mut holders = BTreeMap::new();
    let mut findings = Vec::new();
    for row in recorded.rows.iter().filter(|row| row.stands()) {
        let Ok(Held::Bridge(record)) = &row.held else { continue };
        for lease in &record.leases {
            let Some(first) = holders.insert((&record.bridge, lease.address.ip()), &row.key) else {
                continue;
            };
            let words = Words {
                object: &row.key,
                what: format!("has address {}, and so has {first}", lease.address.ip()),
                cause: "the addresses come from an IPAM plugin that gave one twice, or two networks share a bridge",
                fix: "remove one of the two containers and look at the network's IPAM configuration"
                    .to_owned(),
            };
            findings.push(words.person("address-given-twice"));
        }
    }
    findings
}
