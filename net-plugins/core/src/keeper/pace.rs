//! How often something is put right before it is a fight, and how slowly a fight is gone on with. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// So many repairs within [`WINDOW`] are what may happen: a firewall that is loaded again, twice. One more is a fight.
const PATIENCE: usize = 3;
const WINDOW: Duration = Duration::from_secs(10);

/// What is waited in a fight before the next repair: doubled each time, up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// A fight is over when nothing was destroyed for so long, or for twice the pause if that is longer.
const CALM: Duration = Duration::from_secs(20);

/// When the next repair may be made. Times are since some moment that stays.
#[derive(Debug, Default)]
pub(super) struct Pace {
    recent: VecDeque<Duration>,
    fight: Option<Fight>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fight {
    repairs: u64,
    last: Duration,
    pause: Duration,
}

/// What a repair or a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing new.
    None,
    /// A fight has begun.
    Begun,
    /// It goes on.
    GoesOn,
    /// It is over.
    Over,
}

impl Pace {
    /// How long a repair has to wait at `now`.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        self.fight.map_or(Duration::ZERO, |fight| (fight.last + fight.pause).saturating_sub(now))
    }

    /// Something was put right.
    pub(super) fn repaired(&mut self, now: Duration) -> Turn {
        if let Some(fight) = &mut self.fight {
            fight.repairs += 1;
            fight.last = now;
            fight.pause = (fight.pause * 2).min(LAST_PAUSE);
            return Turn::GoesOn;
        }
        self.recent.push_back(now);
        self.recent.retain(|then| now.saturating_sub(*then) <= WINDOW);
        if self.recent.len() <= PATIENCE {
            return Turn::None;
        }
        let repairs = u64::try_from(self.recent.len()).unwrap_or(u64::MAX);
        self.fight = Some(Fight { repairs, last: now, pause: FIRST_PAUSE });
        self.recent.clear();
        Turn::Begun
    }

    /// All is well at `now`.
    pub(super) fn well(&mut self, now: Duration) -> Turn {
        match self.fight {
            Some(fight) if now >= fight.last + calm(fight.pause) => {
                self.fight = None;
                Turn::Over
            }
            _ => Turn::None,
        }
    }

    /// The repairs of a fight so far and the pause before the next, while there is one.
    pub(super) fn fight(&self) -> Option<(u64, Duration)> {
        self.fight.map(|fight| (fight.repairs, fight.pause))
    }

    /// How long until the fight may be found to be over.
    pub(super) fn until_calm(&self, now: Duration) -> Option<Duration> {
        self.fight.map(|fight| (fight.last + calm(fight.pause)).saturating_sub(now))
    }
}

fn calm(pause: Duration) -> Duration {
    CALM.max(pause * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_few_repairs_are_made_at_once_and_then_it_is_a_fight() {
        let mut pace = Pace::default();
        let turns: Vec<Turn> = (0..4).map(|at| pace.repaired(secs(at))).collect();
        assert_eq!(turns, [Turn::None, Turn::None, Turn::None, Turn::Begun]);
        assert_eq!(pace.wait(secs(3)), FIRST_PAUSE);
        assert_eq!(pace.wait(secs(4)), Duration::ZERO);
        assert_eq!(pace.fight(), Some((4, FIRST_PAUSE)));
    }

    #[test]
    fn repairs_that_are_far_apart_are_no_fight() {
        let mut pace = Pace::default();
        assert!((0..100).all(|at| pace.repaired(secs(at * 11)) == Turn::None));
        assert!(pace.recent.len() <= 1, "what is remembered is bounded");
    }

    #[test]
    fn a_fight_is_gone_on_with_slower_and_slower_up_to_a_bound() {
        let mut pace = Pace::default();
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..14 {
            pace.repaired(now);
            pauses.push(pace.wait(now).as_secs());
            now += pace.wait(now);
        }
        assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
    }

    #[test]
    fn a_fight_is_over_after_a_calm_and_not_before() {
        let mut pace = Pace::default();
        for _ in 0..4 {
            pace.repaired(secs(1));
        }
        assert_eq!(pace.well(secs(20)), Turn::None);
        assert_eq!(pace.until_calm(secs(20)), Some(secs(1)));
        assert_eq!(pace.well(secs(21)), Turn::Over);
        assert_eq!((pace.fight(), pace.wait(secs(21))), (None, Duration::ZERO));
        assert_eq!(pace.repaired(secs(22)), Turn::None);
    }
}
