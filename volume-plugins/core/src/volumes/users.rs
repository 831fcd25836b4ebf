//! Who uses a volume: by the counts, and by the mount tables.
//!
//! A count may outlive its user, for an engine that is killed never gives anything back. So a count is believed while the
//! mount tables show that somebody has the volume, and else only while it is young: an engine takes a volume a moment
//! before its container has it.

use std::fmt;
use std::time::Duration;

use berth_store::{BootTime, Owner, VolumeUse};
use berth_types::VolumeName;

use super::Volumes;
use crate::error::VolumeError;
use crate::kind::{Kind, Site, extent};
use crate::seen::{SeenUse, uses_of};

/// How long a count is believed that no mount table bears out: longer than any engine takes to start a container.
const BELIEVED: Duration = Duration::from_secs(60);

/// The same, once the engine is known to have started anew: whatever it began before is over.
const BELIEVED_AFTER_START: Duration = Duration::from_secs(30);

/// The longest name of a user that is kept.
const USER_MAX: usize = 256;

/// Through which door a user came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Docker, by its plugin socket; the user is a mount id.
    Docker,
    /// Podman, by the same socket; all its containers have one mount id.
    Podman,
    /// Mounted by hand or a hook; the user is the place where.
    Target,
    /// berth itself, while it copies; the user is a process.
    Berth,
}

impl Source {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Target => "target",
            Self::Berth => "berth",
        }
    }

    fn named(word: &str) -> Option<Self> {
        [Self::Docker, Self::Podman, Self::Target, Self::Berth]
            .into_iter()
            .find(|source| source.as_str() == word)
    }
}

/// Who takes a volume or gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Through which door.
    pub source: Source,
    /// Who, in that door's words.
    pub id: String,
}

impl User {
    /// A user of an engine. `None` for an id that no engine has: it is kept and shown, so it has to be of decent length and
    /// without control characters.
    pub fn of_engine(source: Source, id: &str) -> Option<Self> {
        let fits = !id.is_empty() && id.len() <= USER_MAX && !id.chars().any(char::is_control);
        fits.then(|| Self { source, id: id.to_owned() })
    }

    /// This process, while it does `what`.
    pub(super) fn this_process(what: &str) -> Self {
        let Owner { pid, start } = Owner::current();
        Self { source: Source::Berth, id: format!("{what}:{pid}:{start}") }
    }
}

/// A user of a volume, as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUser {
    /// Through which door it came: `docker`, `podman`, `target`, `berth`.
    pub source: String,
    /// Who, in that door's words.
    pub id: String,
    /// How often it took the volume and did not give it back.
    pub count: u32,
    /// How long ago it took it last.
    pub age: Duration,
}

impl VolumeUser {
    pub(super) fn of(row: &VolumeUse, now: BootTime) -> Self {
        let millis = u64::try_from(now.millis.saturating_sub(row.since.millis)).unwrap_or(0);
        Self {
            source: row.source.clone(),
            id: row.user.clone(),
            count: row.count,
            age: Duration::from_millis(millis),
        }
    }
}

impl fmt::Display for VolumeUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.id.get(..12).unwrap_or(&self.id);
        match self.source.as_str() {
            "target" => write!(f, "a mount on `{}`", self.id),
            "berth" => write!(f, "berth itself ({})", self.id),
            engine => write!(f, "{engine}'s mount {short}, taken {} s ago", self.age.as_secs()),
        }
    }
}

/// Who uses a volume now.
pub(super) struct Users {
    /// The counts that are believed.
    pub(super) counted: Vec<VolumeUser>,
    /// The mounts that the mount tables show.
    pub(super) seen: Vec<SeenUse>,
}

impl Users {
    pub(super) fn is_none(&self) -> bool {
        self.counted.is_empty() && self.seen.is_empty()
    }

    /// Everybody, in words. A mount by hand is in both lists, and told once.
    pub(super) fn in_words(&self) -> Vec<String> {
        let by_hand = |seen: &SeenUse| {
            let target = seen.target.to_str();
            self.counted.iter().any(|user| user.source == "target" && Some(user.id.as_str()) == target)
        };
        let seen = self.seen.iter().filter(|seen| !by_hand(seen)).map(SeenUse::to_string);
        self.counted.iter().map(VolumeUser::to_string).chain(seen).collect()
    }
}

/// Whose counts are not believed even while they are young, if no mount table bears them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nobody's.
    None,
    /// This engine's: it says itself that no container of it uses the volume.
    Of(Source),
}

impl Volumes {
    /// Who uses the volume; counts that are not believed are forgotten. The volume's lock is held.
    pub(super) fn users(
        &mut self,
        kind: &dyn Kind,
        site: &Site<'_>,
        doubt: Doubt,
    ) -> Result<Users, VolumeError> {
        let seen = seen(kind, site)?;
        let rows = self.store.read(|tx| tx.volume_uses(site.name).map_err(VolumeError::from))?;
        let now = BootTime::now();
        let (mut counted, mut stale) = (Vec::new(), Vec::new());
        for row in rows {
            let doubted = matches!(doubt, Doubt::Of(source) if source.as_str() == row.source);
            let believed = if doubted { Duration::ZERO } else { BELIEVED };
            if is_stale(&row, &seen, now, believed) {
                stale.push(row.user);
            } else {
                counted.push(VolumeUser::of(&row, now));
            }
        }
        self.forget_uses(site.name, &stale)?;
        // A path or a device of the user's has mounts that have nothing to do with the volume, and the volume going away
        // takes nothing from them.
        let seen = if kind.removes_data() { seen } else { Vec::new() };
        Ok(Users { counted, seen })
    }

    fn forget_uses(&mut self, name: &VolumeName, users: &[String]) -> Result<(), VolumeError> {
        if users.is_empty() {
            return Ok(());
        }
        tracing::info!(volume = %name, users = users.len(), "forgot users that are gone");
        self.store.write(|tx| {
            users
                .iter()
                .try_for_each(|user| tx.volume_use_forget(name, user).map(drop))
                .map_err(VolumeError::from)
        })
    }

    /// An engine has started anew: the counts that it held, and that no mount table bears out, are forgotten, and what
    /// nobody uses any more is unmounted. A count that is only seconds old may be another engine's at the same socket.
    pub fn engine_started(&mut self, source: Source) -> Result<(), VolumeError> {
        let rows = self.store.read(|tx| tx.all_volume_uses().map_err(VolumeError::from))?;
        let mut names: Vec<VolumeName> =
            rows.into_iter().filter(|row| row.source == source.as_str()).map(|row| row.volume).collect();
        names.dedup();
        for name in names {
            if let Err(err) = self.forget_stale(&name, source) {
                tracing::warn!(volume = %name, error = %err, "a volume's users were not checked");
            }
        }
        Ok(())
    }

    fn forget_stale(&mut self, name: &VolumeName, source: Source) -> Result<(), VolumeError> {
        let held = self.hold(name)?;
        let kind = crate::kind::kind_of(&held.spec);
        let seen = seen(&*kind, &held.site())?;
        let rows = self.store.read(|tx| tx.volume_uses(name).map_err(VolumeError::from))?;
        let now = BootTime::now();
        let of_engine = rows.into_iter().filter(|row| row.source == source.as_str());
        let stale =
            of_engine.filter(|row| is_stale(row, &seen, now, BELIEVED_AFTER_START)).map(|row| row.user);
        let stale: Vec<String> = stale.collect();
        self.forget_uses(name, &stale)?;
        self.release(&held)
    }
}

fn seen(kind: &dyn Kind, site: &Site<'_>) -> Result<Vec<SeenUse>, VolumeError> {
    let Some(extent) = extent(kind, site)? else { return Ok(Vec::new()) };
    let own = site.place.join(kind.mount_point().unwrap_or(kind.data()));
    Ok(uses_of(&extent, &own)?)
}

fn is_stale(row: &VolumeUse, seen: &[SeenUse], now: BootTime, believed: Duration) -> bool {
    match Source::named(&row.source) {
        Some(Source::Berth) => !owner_of(&row.user).is_some_and(Owner::is_alive),
        Some(Source::Target) => !seen.iter().any(|seen| seen.target.to_str() == Some(&row.user)),
        Some(Source::Docker | Source::Podman) | None => {
            let container = seen.iter().any(|seen| seen.pid.is_some());
            !container && row.since <= now.minus(believed)
        }
    }
}

/// The process of `what:pid:start`.
fn owner_of(user: &str) -> Option<Owner> {
    let mut parts = user.rsplit(':');
    let start = parts.next()?.parse().ok()?;
    Some(Owner { pid: parts.next()?.parse().ok()?, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(source: &str, user: &str, since: i64) -> VolumeUse {
        let volume = "v".parse().unwrap();
        let (user, source) = (user.to_owned(), source.to_owned());
        VolumeUse { volume, user, source, count: 1, since: BootTime { millis: since } }
    }

    fn at(target: &str) -> SeenUse {
        SeenUse { target: target.into(), pid: None }
    }

    #[test]
    fn a_count_is_believed_while_it_is_young_or_seen() {
        let now = BootTime { millis: 1_000_000 };
        for (row, seen, stale) in [
            (row("docker", "a", 999_000), &[][..], false),
            (row("docker", "a", 900_000), &[], true),
            (row("docker", "a", 900_000), &[SeenUse { pid: Some(1), ..at("/elsewhere") }], false),
            (row("docker", "a", 900_000), &[at("/elsewhere")], true),
            (row("target", "/mnt", 999_999), &[], true),
            (row("target", "/mnt", 1), &[at("/mnt")], false),
            (row("target", "/mnt", 1), &[at("/mnt/x")], true),
            (row("berth", "export:1:0", 999_999), &[], true),
            (row("berth", "nonsense", 999_999), &[], true),
        ] {
            assert_eq!(is_stale(&row, seen, now, BELIEVED), stale, "{row:?} {seen:?}");
        }
        assert!(is_stale(&row("docker", "a", 1_000_000), &[], now, Duration::ZERO));
        let mine = User::this_process("export");
        assert!(!is_stale(&row("berth", &mine.id, 1), &[], now, BELIEVED));
    }

    #[test]
    fn ids_that_no_engine_has_are_refused() {
        for bad in ["", "a\nb", "\x1b[1m", &"x".repeat(257)] {
            assert_eq!(User::of_engine(Source::Docker, bad), None, "{bad:?}");
        }
        assert!(User::of_engine(Source::Docker, &"f".repeat(64)).is_some());
    }
}
