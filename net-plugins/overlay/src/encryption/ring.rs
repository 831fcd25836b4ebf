//! This node's secret, and what it was used for: a counter never begins anew under an old key.
//!
//! A state counts its packets from one, and no two packets may have one number under one key (RFC 4106, section 3.1); who
//! receives them throws away what it has seen. So a state that this node has laid once and does not find any more, whoever took
//! it away, is never made again: the node gets a new secret, and with it new keys for everything. The secret lives as long as
//! the boot, in a file of the run directory that only root reads; an agent that is started anew goes on with it.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use berth_store::unix_ms;
use berth_types::BootId;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use super::keys::Secret;
use super::plan::{Generation, Held};

/// The file's name.
const FILE: &str = "overlay.key";

/// The file.
#[derive(Serialize, Deserialize)]
struct Kept {
    v: u32,
    boot: BootId,
    secret: String,
    since_ms: u64,
    generation: u32,
    laid: BTreeSet<Laid>,
}

/// A state that was laid under the secret, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Laid {
    to: IpAddr,
    spi: u32,
}

/// The secret and its use.
#[derive(Debug)]
pub struct Ring {
    file: PathBuf,
    boot: BootId,
    secret: Secret,
    since_ms: u64,
    generation: Generation,
    laid: BTreeSet<Laid>,
}

impl Ring {
    /// That of this boot; a new one where there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or there is no chance to be had.
    pub fn open(run_dir: &Path, boot: &BootId) -> io::Result<Self> {
        let file = run_dir.join(FILE);
        let kept = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes).ok().filter(|kept| kept.boot == *boot),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => return Err(err),
        };
        let secret = kept.as_ref().and_then(|kept| Secret::of_kept(&kept.secret));
        match (kept, secret) {
            (Some(Kept { since_ms, generation, laid, .. }), Some(secret)) => {
                let generation = Generation(generation);
                Ok(Self { file, boot: boot.clone(), secret, since_ms, generation, laid })
            }
            _ => Self::fresh(file, boot.clone(), Generation(0)),
        }
    }

    fn fresh(file: PathBuf, boot: BootId, generation: Generation) -> io::Result<Self> {
        let mut random = [0; 32];
        // Waits, early at boot, until there is chance enough. So few bytes are never cut short (getrandom(2)).
        getrandom(&mut random, GetRandomFlags::empty())?;
        let since_ms = u64::try_from(unix_ms()).unwrap_or(0);
        Ok(Self { file, boot, secret: Secret::new(random), since_ms, generation, laid: BTreeSet::new() })
    }

    /// Takes another secret, under which nothing was laid, to begin with `generation`.
    ///
    /// # Errors
    ///
    /// There is no chance to be had.
    pub fn renew(&mut self, generation: Generation) -> io::Result<()> {
        *self = Self::fresh(self.file.clone(), self.boot.clone(), generation)?;
        Ok(())
    }

    /// The secret.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// When it was made, milliseconds since 1970.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// The generation to send by at a moment of generation `now`: never an earlier one than before, though the clock be put back.
    pub fn generation(&self, now: Generation) -> Generation {
        now.max(self.generation)
    }

    /// Whether the clock was put back by so much that the others do not take what this node would send.
    pub fn is_ahead(&self, now: Generation) -> bool {
        self.generation.0 > now.0.saturating_add(1)
    }

    /// Whether `want` has a state that was laid before, and `have` has it not.
    pub fn is_spent(&self, have: &Held, want: &Held) -> bool {
        let mut missing = want.states.difference(&have.states);
        missing.any(|state| self.laid.contains(&Laid { to: state.to, spi: state.spi }))
    }

    /// Notes that `want` is about to be laid, by which `generation` is sent. What was laid of earlier ones is never wanted again.
    /// Whether it is another generation than before.
    ///
    /// # Errors
    ///
    /// The file cannot be written: then nothing must be laid.
    pub fn note(&mut self, want: &Held, generation: Generation) -> io::Result<bool> {
        let now: BTreeSet<Laid> =
            want.states.iter().map(|state| Laid { to: state.to, spi: state.spi }).collect();
        if generation == self.generation && now.is_subset(&self.laid) {
            return Ok(false);
        }
        let turned = generation != self.generation;
        if turned {
            let recent: Vec<u32> = generation.taken().iter().map(|one| one.0 & 3).collect();
            self.laid.retain(|laid| recent.contains(&(laid.spi >> 30)));
        }
        self.generation = generation;
        self.laid.extend(now);
        self.write()?;
        Ok(turned)
    }

    /// Forgets the secret: nothing is laid any more.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn forget(run_dir: &Path) -> io::Result<()> {
        match std::fs::remove_file(run_dir.join(FILE)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    /// Beside the file, and then in its place: whoever is killed in between leaves the one before.
    fn write(&self) -> io::Result<()> {
        let kept = Kept {
            v: 1,
            boot: self.boot.clone(),
            secret: self.secret.kept_text(),
            since_ms: self.since_ms,
            generation: self.generation.0,
            laid: self.laid.clone(),
        };
        let bytes = serde_json::to_vec(&kept).map_err(io::Error::other)?;
        let part = self.file.with_extension("key.part");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(&bytes)?;
        std::fs::rename(&part, &self.file)
    }
}
