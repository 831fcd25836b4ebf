//! What is desired, carried out: the secret, the kernel's states and policies, and the steps between.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_netlink::NetlinkError;
use berth_netlink::xfrm::Xfrm;
use berth_types::{BootId, NodeName};

use super::keys::{Member, Secret};
use super::plan::{Generation, Held, Peer, Step, desired, steps};
use super::ring::Ring;

/// Why it was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// The secret's file.
    #[error("failed to keep this boot's secret in {}", dir.display())]
    Secret {
        /// The run directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a step, or could not be asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// This node, and the others that it encrypts for.
#[derive(Debug, Clone)]
pub struct Circle {
    /// This node's name.
    pub name: NodeName,
    /// Its tunnel end.
    pub own: IpAddr,
    /// The others that have a key.
    pub peers: Vec<Peer>,
    /// How long a generation of keys lasts.
    pub period: Duration,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// This node's public key, for its record.
    pub public: String,
    /// When its secret was made, milliseconds since 1970.
    pub since_ms: u64,
    /// Whether the secret is another than before, because states were gone.
    pub renewed: bool,
    /// How many steps it took to put right what differed.
    pub steps: usize,
    /// Whether a generation began, so that all of it differed.
    pub turned: bool,
    /// How long the generation lasts from now.
    pub turns_in: Duration,
}

/// Encryption on this host.
#[derive(Debug)]
pub struct Esp {
    run_dir: PathBuf,
    boot: BootId,
    ring: Option<Ring>,
    /// Whether everything was taken back.
    retired: bool,
}

impl Esp {
    /// Nothing is read yet.
    pub fn new(run_dir: PathBuf, boot: BootId) -> Self {
        Self { run_dir, boot, ring: None, retired: false }
    }

    /// Makes the kernel hold what the circle needs, whatever it holds.
    ///
    /// # Errors
    ///
    /// What was done up to there is right; the rest is due.
    pub fn keep(&mut self, circle: &Circle) -> Result<Kept, EspError> {
        let dir = self.run_dir.clone();
        let failed = |source| EspError::Secret { dir: dir.clone(), source };
        let xfrm = Xfrm::open()?;
        let have = held(&xfrm)?;
        let ring = match &mut self.ring {
            Some(ring) => ring,
            none => none.insert(Ring::open(&self.run_dir, &self.boot).map_err(failed)?),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let moment = Generation::at(now, circle.period);
        let mut generation = ring.generation(moment);
        let mut want = circle.desired(ring.secret(), generation);
        let renewed = ring.is_ahead(moment) || ring.is_spent(&have, &want);
        if renewed {
            ring.renew(moment).map_err(failed)?;
            generation = moment;
            want = circle.desired(ring.secret(), generation);
        }
        let turned = ring.note(&want, generation).map_err(failed)?;
        self.retired = false;
        let steps = steps(&have, &want, circle.own);
        for step in &steps {
            tracing::debug!(%step, "encryption");
            take(&xfrm, step)?;
        }
        Ok(Kept {
            public: ring.secret().public_text(),
            since_ms: ring.since_ms(),
            renewed,
            steps: steps.len(),
            turned,
            turns_in: circle.rest(now),
        })
    }

    /// Takes everything back, and forgets the secret. Nothing there is nothing to do.
    ///
    /// # Errors
    ///
    /// The kernel refused it, or the secret's file stays.
    pub fn retire(&mut self, own: Option<IpAddr>) -> Result<(), EspError> {
        if self.retired {
            return Ok(());
        }
        let xfrm = match Xfrm::open() {
            Ok(xfrm) => xfrm,
            // A kernel that has no such sockets holds nothing.
            Err(_) => return Ok(()),
        };
        let have = held(&xfrm)?;
        if !have.is_empty() {
            let own = own.unwrap_or(IpAddr::from([0, 0, 0, 0]));
            for step in steps(&have, &Held::default(), own) {
                take(&xfrm, &step)?;
            }
        }
        self.ring = None;
        Ring::forget(&self.run_dir)
            .map_err(|source| EspError::Secret { dir: self.run_dir.clone(), source })?;
        self.retired = true;
        Ok(())
    }
}

impl Circle {
    fn desired(&self, secret: &Secret, generation: Generation) -> Held {
        let here =
            Peer { member: Member { name: self.name.clone(), public: secret.public() }, vtep: self.own };
        desired(secret, &here, &self.peers, generation)
    }

    /// How long it is until the next generation begins.
    fn rest(&self, now: Duration) -> Duration {
        let period = self.period.as_nanos().max(1);
        let rest = period - now.as_nanos() % period;
        u64::try_from(rest).map_or(self.period, Duration::from_nanos)
    }
}

fn held(xfrm: &Xfrm) -> Result<Held, NetlinkError> {
    let states: BTreeSet<_> = xfrm.states()?.into_iter().collect();
    Ok(Held { states, policies: xfrm.policies()?.into_iter().collect() })
}

fn take(xfrm: &Xfrm, step: &Step) -> Result<(), NetlinkError> {
    match step {
        Step::StateAdd(state) => xfrm.state_add(state),
        Step::StateDel(state) => xfrm.state_del(state),
        Step::PolicyPut(policy) => xfrm.policy_put(policy),
        Step::PolicyDel(policy) => xfrm.policy_del(policy),
    }
}
