//! When everything is looked at. Pure: times are since some moment that stays.

use std::time::Duration;

use berth_netlink::LinkNews;

/// Without news, once in so long.
const ROUND: Duration = Duration::from_secs(60);

/// News are gathered for so long: a change of the network brings several.
const GATHER: Duration = Duration::from_millis(50);

/// After a look that failed, the next is due in so long, doubled each time up to [`ROUND`].
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// When the next look is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rounds {
    due: Duration,
    retry: Duration,
}

impl Rounds {
    /// The first look is due at once.
    pub fn new(now: Duration) -> Self {
        Self { due: now, retry: FIRST_RETRY }
    }

    /// Something was heard of the host's links, or could not be heard because it was too much.
    pub fn heard(&mut self, now: Duration, news: LinkNews) {
        if news.lost || news.suspicious {
            self.due = self.due.min(now + GATHER);
        }
    }

    /// How long there is nothing to do at `now`.
    pub fn wait(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now)
    }

    /// Everything was looked at. `spread` is below 1 and another on each node, so that they do not all look at once.
    pub fn done(&mut self, now: Duration, spread: f64) {
        self.retry = FIRST_RETRY;
        self.due = now + ROUND.mul_f64(0.9 + 0.2 * spread.clamp(0.0, 1.0));
    }

    /// It could not be.
    pub fn failed(&mut self, now: Duration) {
        self.due = now + self.retry;
        self.retry = (self.retry * 2).min(ROUND);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_at_the_start_on_news_after_a_loss_and_every_minute() {
        let at = Duration::from_secs;
        let mut rounds = Rounds::new(at(5));
        assert_eq!(rounds.wait(at(5)), Duration::ZERO);
        rounds.done(at(5), 0.5);
        assert_eq!(rounds.wait(at(5)), ROUND);
        rounds.heard(at(10), LinkNews::default());
        assert_eq!(rounds.wait(at(10)), at(55));
        for news in [LinkNews { lost: true, suspicious: false }, LinkNews { lost: false, suspicious: true }] {
            let mut rounds = rounds.clone();
            rounds.heard(at(10), news);
            assert_eq!(rounds.wait(at(10)), GATHER);
        }
    }

    #[test]
    fn after_failures_it_waits_longer_and_longer() {
        let mut rounds = Rounds::new(Duration::ZERO);
        let waits: Vec<Duration> = (0..10)
            .map(|_| {
                rounds.failed(Duration::ZERO);
                rounds.wait(Duration::ZERO)
            })
            .collect();
        assert!(waits.is_sorted() && waits.first() == Some(&FIRST_RETRY) && waits.last() == Some(&ROUND));
        rounds.done(Duration::ZERO, 0.0);
        rounds.failed(Duration::ZERO);
        assert_eq!(rounds.wait(Duration::ZERO), FIRST_RETRY);
    }
}
