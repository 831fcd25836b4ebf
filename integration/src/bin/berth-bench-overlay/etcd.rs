//! A real etcd, of one member.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_integration::{Cmd, Host, Proc, eventually};
use serde_json::Value;

/// How long it may take to answer.
const START: Duration = Duration::from_secs(20);

/// It runs until it is ended, or dropped.
pub(crate) struct Etcd<'h> {
    host: &'h Host,
    process: Option<Proc>,
    /// Where clients find it.
    pub(crate) url: String,
}

impl<'h> Etcd<'h> {
    /// Starts it on `host`, for clients that reach it at `address`; its data is on the machine's disk.
    pub(crate) fn new(host: &'h Host, address: &str) -> Self {
        let data = host.dir().join("etcd");
        let (url, peer) = (format!("http://{address}:2379"), format!("http://{address}:2380"));
        let members = format!("m1={peer}");
        let options = [
            ("--name", "m1"),
            ("--data-dir", data.to_str().unwrap()),
            ("--listen-client-urls", &url),
            ("--advertise-client-urls", &url),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &members),
        ];
        let process = host.cmd("etcd").args(options.into_iter().flat_map(<[&str; 2]>::from)).spawn();
        let etcd = Self { host, process: Some(process), url };
        eventually(START, || {
            let ran = etcd.ctl(&["endpoint", "health"]).output();
            if ran.status.success() { Ok(()) } else { Err(format!("etcd is not healthy: {ran}")) }
        });
        etcd
    }

    /// Ends it at once.
    pub(crate) fn end(&mut self) {
        self.process = None;
    }

    /// Its newest revision: each write of its log is one more.
    pub(crate) fn revision(&self) -> u64 {
        self.json(&["get", "x"])["header"]["revision"].as_u64().unwrap()
    }

    /// Writes later than `revision` of keys that begin with `prefix`, removals among them.
    pub(crate) fn writes_below(&self, prefix: &str, revision: u64) -> u64 {
        let from = (revision + 1).to_string();
        // A watch tells of what was at once, and then waits.
        let told = self.host.cmd("timeout").args(["1", "etcdctl", "--endpoints", &self.url]);
        let told = told.args(["watch", "--prefix", prefix, "--rev", &from, "-w", "json"]).output().stdout;
        let answers = serde_json::Deserializer::from_str(&told).into_iter::<Value>().map(Result::unwrap);
        let mut revisions = BTreeSet::new();
        for answer in answers {
            let events = answer["Events"].as_array().into_iter().flatten();
            revisions.extend(events.map(|event| event["kv"]["mod_revision"].as_u64().unwrap()));
        }
        revisions.len() as u64
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.ctl(args).args(["-w", "json"]).run();
        serde_json::from_str(&text).unwrap()
    }

    fn ctl(&self, args: &[&str]) -> Cmd {
        self.host.cmd("etcdctl").args(["--endpoints", &self.url]).args(args)
    }
}
