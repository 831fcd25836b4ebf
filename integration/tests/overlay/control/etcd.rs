//! Real etcd on private hosts.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_integration::{Debian, Host, Lan, Proc, eventually, host_test_on};
use berth_overlay::cluster::etcd::{EtcdCluster, EtcdConfig};

/// How long a member may take to answer on a busy machine.
const START: Duration = Duration::from_secs(20);

/// A member of an etcd cluster. Stopped when dropped.
pub(crate) struct Etcd<'h> {
    host: &'h Host,
    process: Mutex<Option<Proc>>,
    args: Vec<String>,
    data: PathBuf,
    /// `HOST:PORT` that clients use.
    pub(crate) endpoint: String,
    /// Arguments of `etcdctl` that it is let in with.
    pub(crate) ctl: Vec<String>,
}

impl<'h> Etcd<'h> {
    /// The only member of a cluster, on the host's own loopback.
    pub(crate) fn alone(host: &'h Host) -> Self {
        Self::started(host, "m1", "127.0.0.1", "http", &[])
    }

    /// The only member of a cluster, for hosts that reach it at `address`.
    pub(crate) fn at(host: &'h Host, address: &str) -> Self {
        Self::started(host, "m1", address, "http", &[])
    }

    /// As [`Etcd::alone`], with TLS and `args` that say which certificates.
    pub(crate) fn secure(host: &'h Host, args: &[String], ctl: &[String]) -> Self {
        let mut etcd = Self::prepared(host, "m1", "127.0.0.1", "https", args);
        etcd.ctl.extend(ctl.iter().cloned());
        etcd.start();
        etcd.healthy();
        etcd
    }

    fn started(host: &'h Host, name: &str, address: &str, scheme: &str, args: &[String]) -> Self {
        let etcd = Self::prepared(host, name, address, scheme, args);
        etcd.start();
        etcd.healthy();
        etcd
    }

    fn prepared(host: &'h Host, name: &str, address: &str, scheme: &str, more: &[String]) -> Self {
        let data = host.dir().join(format!("etcd-{name}"));
        let (endpoint, url) = (format!("{address}:2379"), format!("{scheme}://{address}:2379"));
        let peer = format!("http://{address}:2380");
        let mut args: Vec<String> = [
            "--name",
            name,
            "--data-dir",
            data.to_str().unwrap(),
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--heartbeat-interval",
            "200",
            "--election-timeout",
            "2000",
        ]
        .map(str::to_owned)
        .into();
        if !more.iter().any(|arg| arg == "--initial-cluster") {
            args.extend(["--initial-cluster".to_owned(), format!("{name}={peer}")]);
        }
        args.extend(more.iter().cloned());
        let ctl = vec!["--endpoints".to_owned(), url];
        Self { host, process: Mutex::default(), args, data, endpoint, ctl }
    }

    /// Starts it, with the data that it had.
    pub(crate) fn start(&self) {
        *self.process.lock().unwrap() = Some(self.host.cmd("etcd").args(&self.args).spawn());
    }

    /// Waits until it answers.
    pub(crate) fn healthy(&self) {
        eventually(START, || {
            let ran = self.command(&["endpoint", "health"]).output();
            if ran.status.success() { Ok(()) } else { Err(format!("etcd is not healthy: {ran}")) }
        });
    }

    /// Ends it at once, as a power failure would.
    pub(crate) fn kill(&self) {
        self.process.lock().unwrap().take();
    }

    /// Runs `etcdctl`, and returns what it printed.
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        self.command(args).run()
    }

    fn command(&self, args: &[&str]) -> berth_integration::Cmd {
        self.host.cmd("etcdctl").args(&self.ctl).args(args)
    }

    /// A client of it, as an agent has one.
    pub(crate) fn cluster(&self) -> Arc<EtcdCluster> {
        cluster(EtcdConfig::new([self.endpoint.clone()]))
    }

    /// Its newest revision.
    pub(crate) fn revision(&self) -> i64 {
        let text = self.ctl(&["get", "x", "-w", "json"]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["header"]["revision"].as_i64().unwrap()
    }

    /// Forgets all history before now.
    pub(crate) fn compact(&self) {
        self.ctl(&["compaction", &self.revision().to_string()]);
    }
}

impl Drop for Etcd<'_> {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

pub(crate) fn cluster(config: EtcdConfig) -> Arc<EtcdCluster> {
    Arc::new(EtcdCluster::new(config).unwrap())
}

/// Runs `future` on the host: the sockets that it makes are the host's.
pub(crate) fn on<T: Send>(host: &Host, future: impl Future<Output = T> + Send) -> T {
    host.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let done = runtime.block_on(future);
        // A name that nobody resolves is asked for on a thread that nothing ends.
        runtime.shutdown_background();
        done
    })
}

/// Runs `test` with one member on a host of `debian`: etcd 3.4 on Debian 12, 3.5 on Debian 13.
pub(crate) fn etcd_test(debian: Debian, test: impl FnOnce(&Host, &Etcd<'_>)) {
    host_test_on(debian, |host| {
        let etcd = Etcd::alone(host);
        test(host, &etcd);
    });
}

/// Three members, each on a host of its own on `lan`.
pub(crate) fn three<'h>(hosts: &'h [Host; 3], lan: &Lan) -> Vec<Etcd<'h>> {
    let seats: Vec<_> = hosts.iter().map(|host| lan.join(host)).collect();
    let names = ["m1", "m2", "m3"];
    let peers = names.iter().zip(&seats).map(|(name, seat)| format!("{name}=http://{}:2380", seat.v4));
    let all = ["--initial-cluster".to_owned(), peers.collect::<Vec<_>>().join(",")];
    let members = hosts.iter().zip(names).zip(&seats);
    let etcds: Vec<Etcd<'_>> = members
        .map(|((host, name), seat)| Etcd::prepared(host, name, &seat.v4.to_string(), "http", &all))
        .collect();
    etcds.iter().for_each(Etcd::start);
    etcds.iter().for_each(Etcd::healthy);
    etcds
}
