//! Containers that do not run: what they are called beside their names when they are started, and when that is asked for again.
//!
//! dockerd tells nobody of a network that is added to a container between its creation and its start. Compose 1 does that for each
//! network, two milliseconds before the start; but it takes the first away before, and that is told. So a container is asked about
//! again and again until it is started, each time when it is older by an eighth, and one whose networks are being changed, by an
//! event or by an answer, is as good as new: what was added before that is known.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The least time from one question to the next, for a container that was never started: such a one is started soon.
const NEW: Duration = Duration::from_millis(2);

/// For one whose networks are being changed before its start.
const CHANGING: Duration = Duration::from_millis(1);

/// And for one that ran: it may never be started again.
const RAN: Duration = Duration::from_secs(1);

/// Questions for one container that may be under way at once: they wait for whoever changes it.
const UNDER_WAY: u8 = 3;

/// What a container is called beside its name, by its networks as Docker has them: by their names, and by what they were called by
/// whoever made the container until it is started for the first time, which may be a number.
pub(super) type ByNetwork = BTreeMap<String, Vec<String>>;

/// What is known of containers, by their numbers, as it was last heard.
#[derive(Default)]
pub(super) struct Aliases(BTreeMap<String, Known>);

struct Known {
    /// When that was asked for.
    at: Instant,
    by_network: ByNetwork,
}

impl Aliases {
    /// A container was asked about `at` that time. Of a network that it is not on any more, what was known stays: Compose 1 takes
    /// networks away to add them again. Says whether something is not as it was.
    pub(super) fn learn(&mut self, container: &str, at: Instant, aliases: ByNetwork) -> bool {
        match self.0.get_mut(container) {
            Some(known) if known.at > at => false,
            Some(Known { at: before, by_network: known }) => {
                *before = at;
                let is_other = aliases.iter().any(|(network, now)| known.get(network) != Some(now));
                known.extend(aliases);
                is_other
            }
            None => {
                self.0.insert(container.to_owned(), Known { at, by_network: aliases });
                false
            }
        }
    }

    pub(super) fn forget(&mut self, container: &str) {
        self.0.remove(container);
    }

    /// Of a container on the network of this name and number.
    pub(super) fn of(&self, container: &str, name: &str, id: &str) -> Vec<String> {
        let Some(Known { by_network: of, at: _ }) = self.0.get(container) else { return Vec::new() };
        let digits = || of.iter().find(|(key, _)| key.len() >= DIGITS && id.starts_with(key.as_str()));
        of.get(name).or_else(|| digits().map(|(_, aliases)| aliases)).cloned().unwrap_or_default()
    }
}

/// As many of a number's digits as Docker shows.
const DIGITS: usize = 12;

/// When containers that do not run are asked about again.
#[derive(Default)]
pub(super) struct Stopped(BTreeMap<String, Again>);

struct Again {
    /// Since when it is as it is.
    since: Instant,
    apart: Duration,
    due: Instant,
    /// Questions that are under way.
    asking: u8,
}

impl Again {
    fn new(since: Instant, apart: Duration, now: Instant) -> Self {
        let mut new = Self { since, apart, due: now, asking: 0 };
        new.later(now);
        new
    }

    /// It is asked about now, and again when it is older.
    fn later(&mut self, now: Instant) {
        self.due = now + self.apart.max(now.saturating_duration_since(self.since) / 8);
    }

    fn may_be_asked(&self) -> bool {
        self.asking < UNDER_WAY
    }
}

impl Stopped {
    /// A container that was never started, is there `since` then, and is asked about now.
    pub(super) fn created(&mut self, container: &str, since: Instant, now: Instant) {
        self.0.insert(container.to_owned(), Again { asking: 1, ..Again::new(since, NEW, now) });
    }

    /// A container that ran.
    pub(super) fn ended(&mut self, container: &str, now: Instant) {
        self.0.insert(container.to_owned(), Again::new(now, RAN, now));
    }

    /// A network was taken from it: another one may be added, and it be started.
    pub(super) fn disconnected(&mut self, container: &str, now: Instant) {
        match self.0.get(container) {
            Some(one) if one.apart < RAN => self.changed(container, now),
            _ => self.ended(container, now),
        }
    }

    /// Something was added to it or changed: more may be, and it be started.
    pub(super) fn changed(&mut self, container: &str, now: Instant) {
        if let Some(one) = self.0.get_mut(container).filter(|one| one.apart < RAN) {
            *one = Again { asking: one.asking, ..Again::new(now, CHANGING, now) };
        }
    }

    /// A question for it was answered.
    pub(super) fn answered(&mut self, container: &str) {
        if let Some(one) = self.0.get_mut(container) {
            one.asking = one.asking.saturating_sub(1);
        }
    }

    /// It is started, or gone.
    pub(super) fn forget(&mut self, container: &str) {
        self.0.remove(container);
    }

    /// When the next is to be asked about.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().filter(|one| one.may_be_asked()).map(|one| one.due).min()
    }

    /// Those that are to be asked about now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<String> {
        let due = self.0.iter_mut().filter(|(_, one)| one.due <= now && one.may_be_asked());
        let taken = due.map(|(container, one)| {
            one.asking += 1;
            one.later(now);
            container.clone()
        });
        taken.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn aliases_are_found_by_a_networks_name_and_by_its_number() {
        let id = "8cb2b662438e3e6b5f5a97a71392613475c719faab5ce630fe39e836b14fb91f";
        let now = Instant::now();
        let called = |network: &str| ByNetwork::from([(network.to_owned(), vec!["web".to_owned()])]);
        for (network, found) in
            [("app", true), (id, true), (&id[..12], true), ("8cb2", false), ("other", false)]
        {
            let mut aliases = Aliases::default();
            aliases.learn("c1", now, called(network));
            let expected = if found { vec!["web"] } else { vec![] };
            assert_eq!(aliases.of("c1", "app", id), expected, "made with network {network}");
            assert!(aliases.of("c2", "app", id).is_empty());
            aliases.forget("c1");
            assert!(aliases.of("c1", "app", id).is_empty());
        }
    }

    #[test]
    fn what_was_asked_for_last_holds_and_what_is_not_told_any_more_stays() {
        let now = Instant::now();
        let called =
            |network: &str, alias: &str| ByNetwork::from([(network.to_owned(), vec![alias.to_owned()])]);
        let mut aliases = Aliases::default();
        assert!(!aliases.learn("c1", now + MS, called("app", "web")));
        assert!(!aliases.learn("c1", now, called("app", "early")));
        assert_eq!(aliases.of("c1", "app", "ffff"), ["web"]);
        assert!(!aliases.learn("c1", now + 2 * MS, called("app", "web")));
        assert!(aliases.learn("c1", now + 2 * MS, called("other", "shop")));
        assert_eq!(aliases.of("c1", "app", "ffff"), ["web"]);
        assert!(!aliases.learn("c1", now + 2 * MS, ByNetwork::new()));
        assert!(aliases.learn("c1", now + 3 * MS, called("app", "late")));
        assert_eq!(aliases.of("c1", "app", "ffff"), ["late"]);
        assert_eq!(aliases.of("c1", "other", "eeee"), ["shop"]);
    }

    /// Asks about `c1` whenever that is due, until `end`; how long after `start` that was.
    fn questions(stopped: &mut Stopped, start: Instant, end: Duration) -> Vec<Duration> {
        let mut asked = Vec::new();
        while let Some(due) = stopped.next().filter(|due| *due <= start + end) {
            assert!(stopped.take_due(due - Duration::from_nanos(1)).is_empty());
            assert_eq!(stopped.take_due(due), ["c1"]);
            asked.push(due - start);
            stopped.answered("c1");
        }
        asked
    }

    #[test]
    fn a_new_container_is_asked_about_again_when_it_is_older_by_an_eighth() {
        let (mut stopped, start) = (Stopped::default(), Instant::now());
        stopped.created("c1", start, start);
        let asked = questions(&mut stopped, start, 3600 * 1000 * MS);
        assert_eq!(asked[..4], [2 * MS, 4 * MS, 6 * MS, 8 * MS]);
        assert!((100..150).contains(&asked.len()), "{} questions in an hour", asked.len());
        for pair in asked.windows(2) {
            assert!(pair[1] - pair[0] <= (2 * MS).max(pair[0] / 8), "{pair:?}");
        }
        stopped.forget("c1");
        assert_eq!(stopped.next(), None);
        stopped.answered("c1");
        assert_eq!(stopped.next(), None, "an answer that comes when it is started");
        // One that was there already is not as good as new.
        stopped.created("c1", start, start + 8000 * MS);
        assert_eq!(stopped.next(), Some(start + 9000 * MS));
    }

    #[test]
    fn one_whose_networks_are_changed_before_its_start_is_as_good_as_new() {
        let (mut stopped, start) = (Stopped::default(), Instant::now());
        let later = start + 60_000 * MS;
        stopped.created("c1", start, later);
        stopped.disconnected("c1", later);
        let asked = questions(&mut stopped, later, 5 * MS);
        assert_eq!(asked, [MS, 2 * MS, 3 * MS, 4 * MS, 5 * MS]);
        let latest = later + 1000 * MS;
        stopped.changed("c1", latest);
        assert_eq!(questions(&mut stopped, latest, 2 * MS), [MS, 2 * MS]);
    }

    #[test]
    fn a_container_that_does_not_answer_is_not_asked_about_more_and_more() {
        let (mut stopped, start) = (Stopped::default(), Instant::now());
        stopped.created("c1", start, start);
        for _ in 1..UNDER_WAY {
            let due = stopped.next().unwrap();
            assert_eq!(stopped.take_due(due), ["c1"]);
        }
        assert_eq!(stopped.next(), None);
        assert!(stopped.take_due(start + 1000 * MS).is_empty());
        stopped.answered("c1");
        assert_eq!(stopped.take_due(start + 1000 * MS), ["c1"]);
    }

    #[test]
    fn one_that_ran_is_asked_about_a_second_later_however_its_networks_are_left() {
        let (mut stopped, start) = (Stopped::default(), Instant::now());
        stopped.ended("c1", start);
        stopped.disconnected("c1", start);
        stopped.changed("c1", start);
        let asked = questions(&mut stopped, start, 3000 * MS);
        assert_eq!(asked, [1000 * MS, 2000 * MS, 3000 * MS]);
        // One that was not heard of before: its start has failed.
        let mut stopped = Stopped::default();
        stopped.disconnected("c2", start);
        assert_eq!(stopped.next(), Some(start + 1000 * MS));
    }
}
