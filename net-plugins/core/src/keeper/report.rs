//! What the keeper tells `berth status` and `berth doctor`: one small file in the run directory, replaced whole.
//!
//! It belongs to the keeper that wrote it. One of a process that is gone says nothing; it is taken away by the next
//! keeper, or with berth's last traces.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use berth_store::{Dirs, Owner};
use serde::{Deserialize, Serialize};

use crate::error::CoreError;

const FILE: &str = "keeper.json";

/// The layout of the file.
const VERSION: u32 = 1;

/// What a keeper does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperView {
    /// How often it put something right since it runs.
    pub repairs: u64,
    /// The fight it is in.
    pub fight: Option<FightView>,
}

/// A fight with another program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FightView {
    /// What is destroyed again and again.
    pub what: String,
    /// The program that did it last, where the kernel says so.
    pub by: Option<String>,
    /// Its process.
    pub pid: Option<u32>,
    /// How often it was put right.
    pub repairs: u64,
    /// How long is waited before it is put right again, seconds.
    pub pause_s: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    pid: i32,
    start: u64,
    keeper: KeeperView,
}

/// What the keeper that runs does; `None` where none runs.
pub fn view(dirs: &Dirs) -> Option<KeeperView> {
    let text = fs::read(path(dirs)).ok()?;
    let stored: Stored = serde_json::from_slice(&text).ok()?;
    let alive = Owner { pid: stored.pid, start: stored.start }.is_alive();
    (alive && stored.version == VERSION).then_some(stored.keeper)
}

/// Writes what this process does.
pub(super) fn write(dirs: &Dirs, keeper: &KeeperView) -> Result<(), CoreError> {
    let Owner { pid, start } = Owner::current();
    let stored = Stored { version: VERSION, pid, start, keeper: keeper.clone() };
    let text =
        serde_json::to_vec(&stored).map_err(|source| CoreError::Record { what: FILE.to_owned(), source })?;
    let target = path(dirs);
    replace(&target, &text)
        .map_err(|err| CoreError::Missing { what: format!("failed to write {}: {err}", target.display()) })
}

/// No disk is waited for: the file says nothing after a reboot.
fn replace(target: &Path, text: &[u8]) -> io::Result<()> {
    let part = target.with_extension("json.part");
    fs::File::create(&part)?.write_all(text)?;
    fs::rename(&part, target)
}

/// Takes the file away, whoever wrote it.
pub(crate) fn remove(dirs: &Dirs) {
    // One that was never there is as good as gone; one that stays says nothing without its process.
    let _ = fs::remove_file(path(dirs));
}

/// Takes away the file of a keeper that is gone.
pub(crate) fn sweep(dirs: &Dirs) {
    if view(dirs).is_none() {
        remove(dirs);
    }
}

fn path(dirs: &Dirs) -> PathBuf {
    dirs.run.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(dir: &Path) -> Dirs {
        Dirs { state: dir.to_owned(), run: dir.to_owned() }
    }

    #[test]
    fn what_is_written_is_seen_while_its_process_lives() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = dirs(dir.path());
        assert_eq!(view(&dirs), None);
        let fight = FightView {
            what: "the ruleset".to_owned(),
            by: Some("nft".to_owned()),
            pid: Some(7),
            repairs: 4,
            pause_s: 1,
        };
        let keeper = KeeperView { repairs: 4, fight: Some(fight) };
        write(&dirs, &keeper).unwrap();
        assert_eq!(view(&dirs), Some(keeper));
        sweep(&dirs);
        assert!(path(&dirs).exists(), "its process lives");

        let mut stored: Stored = serde_json::from_slice(&fs::read(path(&dirs)).unwrap()).unwrap();
        stored.start += 1;
        fs::write(path(&dirs), serde_json::to_vec(&stored).unwrap()).unwrap();
        assert_eq!(view(&dirs), None);
        sweep(&dirs);
        assert!(!path(&dirs).exists());
    }
}
