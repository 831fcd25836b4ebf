//! Which servers have answered lately.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How often in a row a server may be silent before it is asked last.
const PATIENCE: u8 = 2;
/// How long it is then asked last. After that one question finds out.
const REST: Duration = Duration::from_secs(10);
/// When the next server is asked too, if nothing is known of the first.
const UNKNOWN: Duration = Duration::from_millis(300);
/// And at least and at most.
const SOONEST: Duration = Duration::from_millis(40);
const LATEST: Duration = Duration::from_millis(400);
/// Servers that are remembered: lists change, and memory is bounded.
const REMEMBERED: usize = 1024;

/// What is known of all servers.
#[derive(Debug, Default)]
pub(crate) struct Healths(HashMap<SocketAddr, Health>);

#[derive(Debug, Default, Clone, Copy)]
struct Health {
    /// Silent so often in a row.
    silent: u8,
    /// When it may be tried again.
    rest_until: Option<Instant>,
    /// How long it takes, smoothed.
    usual: Option<Duration>,
    /// When it was last noted that it is silent.
    noted: Option<Instant>,
}

impl Healths {
    /// `servers` in the order to ask them: as they are listed, those that are silent last.
    pub(crate) fn order(&mut self, servers: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let mut order = servers.to_vec();
        order.sort_by_key(|server| self.0.get(server).is_some_and(|health| health.rests(now)));
        // If it is the turn of one that was silent, the questions that follow do not wait for it too.
        if let Some(health) = order.first().and_then(|first| self.0.get_mut(first))
            && health.silent >= PATIENCE
        {
            health.rest_until = Some(now + REST);
        }
        order
    }

    /// How long `server` is given before the next is asked too.
    pub(crate) fn patience(&self, server: &SocketAddr) -> Duration {
        let usual = self.0.get(server).and_then(|health| health.usual);
        usual.map_or(UNKNOWN, |usual| (usual * 3).clamp(SOONEST, LATEST))
    }

    /// It answered, `took` after it was asked.
    pub(crate) fn answered(&mut self, server: SocketAddr, took: Duration) {
        let health = self.entry(server);
        let usual = health.usual.map_or(took, |usual| (usual * 7 + took) / 8);
        *health = Health { usual: Some(usual), ..Health::default() };
    }

    /// It was silent, or said that it cannot be reached.
    pub(crate) fn silent(&mut self, server: SocketAddr, now: Instant) {
        let health = self.entry(server);
        health.silent = health.silent.saturating_add(1);
        if health.silent >= PATIENCE {
            health.rest_until = Some(now + REST);
        }
    }

    /// It has not answered since `asked`. Many questions at once are one silence.
    pub(crate) fn overdue(&mut self, server: SocketAddr, asked: Instant, now: Instant) {
        let health = self.entry(server);
        if health.noted.is_none_or(|noted| asked > noted) {
            health.noted = Some(now);
            self.silent(server, now);
        }
    }

    fn entry(&mut self, server: SocketAddr) -> &mut Health {
        if self.0.len() >= REMEMBERED && !self.0.contains_key(&server) {
            self.0.clear();
        }
        self.0.entry(server).or_default()
    }
}

impl Health {
    fn rests(&self, now: Instant) -> bool {
        self.silent >= PATIENCE && self.rest_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 53))
    }

    #[test]
    fn silent_servers_are_asked_last_and_tried_again() {
        let (a, b) = (server(1), server(2));
        let mut healths = Healths::default();
        let start = Instant::now();
        assert_eq!(healths.order(&[a, b], start), [a, b]);
        healths.silent(a, start);
        assert_eq!(healths.order(&[a, b], start), [a, b]);
        healths.silent(a, start);
        assert_eq!(healths.order(&[a, b], start), [b, a]);
        // After its rest one question tries it, and the next ones do not.
        let later = start + REST + Duration::from_millis(1);
        assert_eq!(healths.order(&[a, b], later), [a, b]);
        assert_eq!(healths.order(&[a, b], later), [b, a]);
        healths.answered(a, Duration::from_millis(5));
        assert_eq!(healths.order(&[a, b], later), [a, b]);
    }

    #[test]
    fn a_quick_server_is_given_less_time() {
        let mut healths = Healths::default();
        assert_eq!(healths.patience(&server(1)), UNKNOWN);
        healths.answered(server(1), Duration::from_millis(1));
        assert_eq!(healths.patience(&server(1)), SOONEST);
        healths.answered(server(2), Duration::from_secs(2));
        assert_eq!(healths.patience(&server(2)), LATEST);
    }

    #[test]
    fn not_all_servers_of_the_world_are_remembered() {
        let mut healths = Healths::default();
        for number in 0..100_000_u32 {
            healths.silent(SocketAddr::from((number.to_be_bytes(), 53)), Instant::now());
        }
        assert!(healths.0.len() <= REMEMBERED);
    }
}
