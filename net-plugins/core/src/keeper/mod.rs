//! The keeper: sees what happens to what berth made, and puts it right at once, from the records.
//!
//! It hears of links, addresses, the two tables and sandboxes, and looks once a minute all the same. It decides nothing of
//! its own: what is wrong is what [`Berth::gc`] finds without doing it, and putting it right is `gc`. It takes nothing off
//! the host that an engine may still come back for: networks stay.
//!
//! News only wake it. They are gathered until it is quiet, what is wrong is looked at twice, for an attach under way looks
//! like damage, and its own changes wake it once more, to find that all is well: no change of its own follows from that.
//!
//! When the same is destroyed again as fast as it is put right, it is a fight (`pace`): it is told, in the log and by
//! [`view`], and gone on with slower and slower. Whoever is gone is collected all the same.

mod pace;
mod report;
mod sandboxes;

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use berth_netlink::{Concern, LinkEvents};
use berth_nft::{Author, CommitError, LayError, RulesetEvents};
use berth_store::Dirs;
use berth_types::AttachmentKey;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

pub(crate) use report::sweep;
pub use report::{FightView, KeeperView, view};

use crate::berth::Berth;
use crate::collect::{GcReport, GcRequest};
use crate::error::{Chain, CoreError};
use crate::kernel::KernelError;
use crate::overlay::LINK_NAMES;
use pace::{Pace, Turn};
use sandboxes::Sandboxes;

/// Whose news matter: the alias of every link that berth made begins so.
pub const OURS: Concern<'static> = Concern { alias: "berth ", names: LINK_NAMES };

/// What berth's own processes are called: what they change is no damage. The kernel tells the name of a thread; those of `berthd`
/// are called `berthd-…`.
const OWN: [&str; 8] = ["berth", "berthd", "rbridge", "roverlay", "rhost", "rnone", "ripam", "rportmap"];

/// News are gathered until there were none for so long, but no longer than that after the first.
const QUIET: Duration = Duration::from_millis(20);
const GATHER: Duration = Duration::from_millis(200);

/// Between two looks at the same damage.
const LOOK_AGAIN: Duration = Duration::from_millis(30);

/// How long it goes without a look when there are no news: switches, for instance, tell nobody that they were changed.
const ROUND: Duration = Duration::from_secs(60);

/// In a fight, news come without end; so long they wait.
const FIGHT_ROUND: Duration = Duration::from_secs(1);

/// What is waited after something could not be looked at or put right: doubled each time, up to the last.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What a keeper tells whoever runs it.
pub trait Audience {
    /// It hears of everything from now on, and has put right what was wrong before.
    fn ready(&mut self);

    /// Another program's chains about forwarded packets were changed.
    fn foreign_rules_changed(&mut self);

    /// These were taken off their networks, because their sandboxes are gone.
    fn collected(&mut self, attachments: &[AttachmentKey]);
}

/// Keeps what berth made in the calling thread's network namespace, until something can be read from `stop` or its other end
/// is closed.
///
/// # Errors
///
/// The kernel gives no sockets. What goes wrong later is logged and tried again.
pub fn keep(dirs: &Dirs, stop: BorrowedFd<'_>, audience: &mut impl Audience) -> Result<(), CoreError> {
    let mut keeper = Keeper::new(dirs, stop)?;
    keeper.look();
    keeper.tell();
    audience.ready();
    keeper.tell_collected(audience);
    let outcome = loop {
        match keeper.hear() {
            Ok(true) => {
                if std::mem::take(&mut keeper.foreign) {
                    audience.foreign_rules_changed();
                }
                keeper.look();
                keeper.tell_collected(audience);
            }
            Ok(false) => break Ok(()),
            Err(err) => break Err(err),
        }
    };
    report::remove(dirs);
    outcome
}

struct Keeper<'a> {
    dirs: &'a Dirs,
    stop: BorrowedFd<'a>,
    began: Instant,
    links: LinkEvents,
    ruleset: RulesetEvents,
    sandboxes: Sandboxes,
    pace: Pace,
    view: KeeperView,
    /// Who changed berth's tables last, beside berth.
    author: Option<Author>,
    /// Other programs' chains were changed, and nobody was told yet.
    foreign: bool,
    /// Attachments that were collected, and nobody was told yet.
    collected: Vec<AttachmentKey>,
    /// The next look if there are no news.
    round: Duration,
    /// No look before, whatever the news are.
    not_before: Duration,
    retry: Duration,
}

impl<'a> Keeper<'a> {
    fn new(dirs: &'a Dirs, stop: BorrowedFd<'a>) -> Result<Self, CoreError> {
        Ok(Self {
            dirs,
            stop,
            began: Instant::now(),
            links: LinkEvents::open()?,
            ruleset: RulesetEvents::open()?,
            sandboxes: Sandboxes::new()?,
            pace: Pace::default(),
            view: KeeperView::default(),
            author: None,
            foreign: false,
            collected: Vec::new(),
            round: Duration::ZERO,
            not_before: Duration::ZERO,
            retry: FIRST_RETRY,
        })
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until it is time to look: after news, or without any. False when it is time to stop.
    fn hear(&mut self) -> Result<bool, CoreError> {
        let mut news: Option<(Duration, Duration)> = None;
        loop {
            let now = self.now();
            let gathered = news.map_or(self.round, |(first, last)| (first + GATHER).min(last + QUIET));
            let due = gathered.min(self.round).max(self.not_before);
            if due <= now {
                return Ok(true);
            }
            if self.wait(due - now)? {
                return Ok(false);
            }
            if self.read()? {
                let now = self.now();
                news = Some((news.map_or(now, |(first, _)| first), now));
            }
        }
    }

    /// Waits for news or for `time` to pass. True when it is time to stop.
    fn wait(&self, time: Duration) -> Result<bool, CoreError> {
        let timeout = Timespec::try_from(time).map_err(|_| broken("wait", Errno::INVAL))?;
        let mut fds = [
            PollFd::from_borrowed_fd(self.stop, PollFlags::IN),
            PollFd::new(&self.links, PollFlags::IN),
            PollFd::new(&self.ruleset, PollFlags::IN),
            PollFd::new(&self.sandboxes, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {
                let [stop, ..] = &fds;
                Ok(!stop.revents().is_empty())
            }
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(broken("wait", errno)),
        }
    }

    /// Reads all news: whether there is something to look at.
    fn read(&mut self) -> Result<bool, CoreError> {
        let links = self.links.read(OURS)?;
        let ruleset = self.ruleset.read()?;
        let sandboxes = self.sandboxes.changed();
        if links.lost || ruleset.lost {
            tracing::info!("more changes than could be heard of: everything is looked at");
        }
        let touched = !ruleset.ours.is_empty();
        if let Some(author) = ruleset.ours.into_iter().rev().find(|author| !is_own(author)) {
            self.author = Some(author);
        }
        let foreign = ruleset.foreign || ruleset.lost;
        self.foreign |= foreign;
        Ok(links.lost || links.suspicious || ruleset.lost || touched || sandboxes || foreign)
    }

    /// Looks, and puts right what is wrong. Says in `round` and `not_before` when the next look is.
    fn look(&mut self) {
        match self.look_and_mend() {
            Ok(()) => self.retry = FIRST_RETRY,
            Err(err) => {
                tracing::warn!(error = %Chain(&err), again_in = ?self.retry, "cannot keep the host right");
                self.not_before = self.now() + self.retry;
                self.round = self.not_before;
                self.retry = (self.retry * 2).min(LAST_RETRY);
            }
        }
    }

    fn look_and_mend(&mut self) -> Result<(), CoreError> {
        let mut berth = Berth::open(self.dirs)?;
        self.sandboxes.follow(&mut berth)?;
        let found = berth.gc(&GcRequest { dry_run: true, ..GcRequest::default() })?;
        let pause = self.pace.wait(self.now());
        let mut broken = is_broken(&found);
        if broken && pause.is_zero() {
            self.wait(LOOK_AGAIN)?;
            broken = is_broken(&berth.gc(&GcRequest { dry_run: true, ..GcRequest::default() })?);
        }
        let mend = broken && pause.is_zero();
        if mend || has_gone(&found) {
            match berth.gc(&GcRequest { collect_only: !mend, ..GcRequest::default() }) {
                Ok(report) => self.account(&report),
                // Destroyed while it was put right: the same again is due, at the pace of a fight.
                Err(err) if was_disturbed(&err) => {
                    tracing::info!(error = %Chain(&err), "disturbed while putting things right");
                    self.account(&found);
                }
                Err(err) => return Err(err),
            }
            // What was heard meanwhile is mostly its own doing, and not to be held against others.
            let author = self.author.take();
            self.read()?;
            self.author = author;
        }
        let turn = if broken { Turn::None } else { self.pace.well(self.now()) };
        if turn == Turn::Over {
            tracing::info!("nothing was destroyed any more for a while: the fight is over");
            self.view.fight = None;
            self.tell();
        }
        self.plan_ahead(broken);
        Ok(())
    }

    /// When the next look is.
    fn plan_ahead(&mut self, broken: bool) {
        let now = self.now();
        self.round = now + ROUND;
        self.not_before = now;
        if broken {
            // Either it waits for its turn, or it was put right, which is looked at once more.
            self.round = now + self.pace.wait(now).max(GATHER);
        }
        if let Some(calm) = self.pace.until_calm(now) {
            self.not_before = now + FIGHT_ROUND;
            self.round = self.round.min(now + calm).max(self.not_before);
        }
    }

    /// Logs and counts what was done.
    fn account(&mut self, report: &GcReport) {
        for key in &report.attachments {
            tracing::info!(attachment = %key, "its sandbox is gone: taken off its network");
        }
        self.collected.extend(report.attachments.iter().cloned());
        if !is_broken(report) {
            return;
        }
        self.view.repairs += 1;
        let what = what_of(report);
        let by = self.author.as_ref().map(|author| author.name.clone()).unwrap_or_default();
        tracing::warn!(what, by, "destroyed by another program, and put right");
        match self.pace.repaired(self.now()) {
            Turn::Begun => {
                tracing::error!(
                    what,
                    by,
                    "destroyed again and again: a fight; put right more and more slowly"
                );
            }
            Turn::GoesOn => {
                tracing::warn!(what, by, pause = ?self.pace.wait(self.now()), "the fight goes on")
            }
            Turn::None | Turn::Over => (),
        }
        self.view.fight = self.pace.fight().map(|(repairs, pause)| FightView {
            what: what.clone(),
            by: self.author.as_ref().map(|author| author.name.clone()),
            pid: self.author.as_ref().map(|author| author.pid),
            repairs,
            pause_s: pause.as_secs(),
        });
        self.tell();
    }

    fn tell_collected(&mut self, audience: &mut impl Audience) {
        let collected = std::mem::take(&mut self.collected);
        if !collected.is_empty() {
            audience.collected(&collected);
        }
    }

    fn tell(&self) {
        if let Err(err) = report::write(self.dirs, &self.view) {
            tracing::warn!(error = %Chain(&err), "`berth status` is not told");
        }
    }
}

fn is_own(author: &Author) -> bool {
    OWN.contains(&author.name.as_str()) || author.name.starts_with("berthd-")
}

/// Whether something that should be there is not.
fn is_broken(report: &GcReport) -> bool {
    report.ruleset_restored || !report.mended.is_empty()
}

/// Whether berth's tables went away while they were laid and filled.
fn was_disturbed(err: &CoreError) -> bool {
    let gone = |source: &std::io::Error| source.raw_os_error() == Some(Errno::NOENT.raw_os_error());
    match err {
        CoreError::Kernel(KernelError::Lay(LayError::Refused { source, .. })) => gone(source),
        CoreError::Kernel(KernelError::Commit(CommitError::NoRuleset)) => true,
        CoreError::Commit(CommitError::NoRuleset) => true,
        _ => false,
    }
}

/// Whether something is there that should not be.
fn has_gone(report: &GcReport) -> bool {
    let GcReport { attachments, links, elements, leases, networks: _, .. } = report;
    !(attachments.is_empty() && links.is_empty() && elements.is_empty()) || *leases > 0
}

/// What was put right, in words.
fn what_of(report: &GcReport) -> String {
    let mended = report.mended.iter().map(|network| format!("the bridge of network {network}"));
    let ruleset = report.ruleset_restored.then(|| "the ruleset".to_owned());
    ruleset.into_iter().chain(mended).collect::<Vec<_>>().join(", ")
}

fn broken(doing: &str, errno: Errno) -> CoreError {
    CoreError::Missing { what: format!("failed to {doing} for news of the kernel: {errno}") }
}
