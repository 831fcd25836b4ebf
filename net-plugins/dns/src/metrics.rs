//! Counters and latencies, in Prometheus' form. Few of them, and no label grows with what containers do.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is counted. Each is one outcome of one question, or one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Count {
    /// A question was answered from the names known here.
    Local,
    /// There is no such name here.
    NoName,
    /// A question was answered from the answers kept.
    Cached,
    /// A question was given to the forwarder.
    Forwarded,
    /// A question was refused by policy.
    Refused,
    /// A question was refused because too many are waiting.
    Shed,
    /// A message could not be understood.
    Malformed,
    /// A message came from nobody who may ask.
    Stranger,
    /// An answer could not be sent.
    Unsent,
    /// A forwarded question was answered.
    Resolved,
    /// A forwarded question got no usable answer.
    Failed,
    /// A question joined one that was already asked.
    Joined,
    /// A message was sent to another server.
    UpstreamSent,
    /// A message from another server was not the answer to anything.
    UpstreamBogus,
    /// Another server was asked by TCP.
    UpstreamTcp,
    /// A TCP connection was accepted.
    TcpAccepted,
    /// A TCP connection was closed for a limit.
    TcpLimited,
}

const COUNTS: usize = Count::TcpLimited as usize + 1;

/// Counters under one name: the name, what it is, and each with the label that tells it apart.
type Shown = (&'static str, &'static str, &'static [(Count, &'static str)]);

const SHOWN: [Shown; 6] = [
    (
        "berth_dns_queries_total",
        "Questions, by what became of them.",
        &[
            (Count::Local, "outcome=\"local\""),
            (Count::NoName, "outcome=\"no_name\""),
            (Count::Cached, "outcome=\"cached\""),
            (Count::Forwarded, "outcome=\"forwarded\""),
            (Count::Refused, "outcome=\"refused\""),
            (Count::Shed, "outcome=\"shed\""),
            (Count::Malformed, "outcome=\"malformed\""),
            (Count::Stranger, "outcome=\"stranger\""),
        ],
    ),
    ("berth_dns_unsent_total", "Answers the kernel had no room for.", &[(Count::Unsent, "")]),
    (
        "berth_dns_forwards_total",
        "Forwarded questions, by what became of them.",
        &[
            (Count::Resolved, "outcome=\"answered\""),
            (Count::Failed, "outcome=\"failed\""),
            (Count::Joined, "outcome=\"joined\""),
        ],
    ),
    (
        "berth_dns_upstream_messages_total",
        "Messages to and from other servers.",
        &[
            (Count::UpstreamSent, "kind=\"sent\""),
            (Count::UpstreamTcp, "kind=\"tcp\""),
            (Count::UpstreamBogus, "kind=\"ignored\""),
        ],
    ),
    ("berth_dns_tcp_connections_total", "TCP connections accepted.", &[(Count::TcpAccepted, "")]),
    ("berth_dns_tcp_limited_total", "TCP connections closed for a limit.", &[(Count::TcpLimited, "")]),
];

/// Upper bounds of the histograms' buckets, microseconds.
const BOUNDS: [u64; 14] =
    [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 4_000_000];

/// All counters of a server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counts: [AtomicU64; COUNTS],
    /// From receiving a question to sending its answer, where nobody else was asked.
    pub(crate) local: Histogram,
    /// The same, where others were asked.
    pub(crate) forwarded: Histogram,
}

/// How long things took.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// The last is for what is above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// Counts of one thread that the others do not see yet: the shared ones are touched once a batch.
#[derive(Debug, Default)]
pub(crate) struct Tally([u64; COUNTS]);

impl Tally {
    /// Counts one.
    pub(crate) fn add(&mut self, what: Count) {
        if let Some(count) = self.0.get_mut(what as usize) {
            *count += 1;
        }
    }

    /// Adds all to `metrics` and begins at zero again.
    pub(crate) fn flush(&mut self, metrics: &Metrics) {
        for (count, shared) in self.0.iter_mut().zip(&metrics.counts) {
            if *count != 0 {
                shared.fetch_add(*count, Ordering::Relaxed);
                *count = 0;
            }
        }
    }
}

impl Histogram {
    /// Notes that `times` things took `each`.
    pub(crate) fn note(&self, each: Duration, times: u64) {
        let micros = u64::try_from(each.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(times, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros.saturating_mul(times), Ordering::Relaxed);
    }

    fn show(&self, text: &mut String, label: &str) {
        let name = "berth_dns_answer_seconds";
        let mut sum = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS.iter().map(Some).chain([None])) {
            sum += bucket.load(Ordering::Relaxed);
            let bound = bound.map_or("+Inf".to_owned(), |micros| seconds(*micros));
            let _ = writeln!(text, "{name}_bucket{{path=\"{label}\",le=\"{bound}\"}} {sum}");
        }
        let _ =
            writeln!(text, "{name}_sum{{path=\"{label}\"}} {}", seconds(self.micros.load(Ordering::Relaxed)));
        let _ = writeln!(text, "{name}_count{{path=\"{label}\"}} {sum}");
    }
}

impl Metrics {
    /// Counts one.
    pub(crate) fn add(&self, what: Count) {
        if let Some(count) = self.counts.get(what as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it was counted.
    pub(crate) fn get(&self, what: Count) -> u64 {
        self.counts.get(what as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// All of it as text, with `gauges`: name, help, value.
    pub(crate) fn show(&self, gauges: &[(&str, &str, usize)]) -> String {
        let mut text = String::new();
        for (name, help, counts) in SHOWN {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (count, label) in counts {
                let label = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
                let _ = writeln!(text, "{name}{label} {}", self.get(*count));
            }
        }
        for (name, help, value) in gauges {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        text += "# HELP berth_dns_answer_seconds From a question to its answer.\n# TYPE berth_dns_answer_seconds histogram\n";
        self.local.show(&mut text, "local");
        self.forwarded.show(&mut text, "forwarded");
        text
    }
}

/// Microseconds as seconds, without what a float would add.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_latencies_are_shown_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        let mut tally = Tally::default();
        tally.add(Count::Local);
        tally.add(Count::Local);
        tally.flush(&metrics);
        tally.flush(&metrics);
        metrics.local.note(Duration::from_micros(30), 2);
        let text = metrics.show(&[("berth_dns_names", "Names.", 7)]);
        for line in [
            "berth_dns_queries_total{outcome=\"local\"} 2",
            "berth_dns_names 7",
            "berth_dns_answer_seconds_bucket{path=\"local\",le=\"0.000025\"} 0",
            "berth_dns_answer_seconds_bucket{path=\"local\",le=\"0.00005\"} 2",
            "berth_dns_answer_seconds_bucket{path=\"local\",le=\"+Inf\"} 2",
            "berth_dns_answer_seconds_sum{path=\"local\"} 0.00006",
            "berth_dns_answer_seconds_count{path=\"forwarded\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
