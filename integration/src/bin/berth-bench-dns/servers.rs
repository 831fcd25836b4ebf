//! The servers that are compared, and the client that asks them.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use berth_integration::bench::Memory;
use berth_integration::{Host, eventually};

use crate::serve::{DOMAIN, FLIP_PORT, GATEWAY, MEMBER, PORT, UPSTREAM, address};

/// How long one server is asked, seconds.
const SECONDS: u32 = 3;

/// Names, and questions for them.
pub(crate) struct Names {
    count: u32,
    /// The file that dnsperf reads.
    pub(crate) questions: PathBuf,
}

/// A server that runs. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    port: u16,
    input: Option<ChildStdin>,
}

/// Gives the host the addresses of gateway and client.
pub(crate) fn prepare(host: &Host) {
    host.batch(&format!(
        "link add bench0 type bridge
         link set bench0 up
         address add {GATEWAY}/14 dev bench0
         address add {MEMBER}/14 dev bench0"
    ));
}

impl Names {
    pub(crate) fn new(host: &Host, count: u32) -> Self {
        Self::of(host, count, DOMAIN)
    }

    /// Names that only the upstream has.
    pub(crate) fn far(host: &Host, count: u32) -> Self {
        Self::of(host, count, "far.example")
    }

    fn of(host: &Host, count: u32, domain: &str) -> Self {
        let questions = host.dir().join(format!("questions-{domain}-{count}"));
        // In an order in which neighbours in the file are none in memory.
        let number = |turn: u32| u64::from(turn) * 7919 % u64::from(count);
        let lines: Vec<String> = (0..count).map(|turn| format!("c{}.{domain} A\n", number(turn))).collect();
        std::fs::write(&questions, lines.concat()).unwrap();
        Self { count, questions }
    }
}

impl Running {
    /// Starts a server with its port; it says so, or is asked until it answers.
    fn start(host: &Host, mut command: Command, port: u16, speaks: bool) -> Self {
        command.stdin(Stdio::piped()).stderr(Stdio::null());
        command.stdout(if speaks { Stdio::piped() } else { Stdio::null() });
        let mut child = host.inside(|| command.spawn().unwrap());
        if let Some(stdout) = child.stdout.take() {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n");
        }
        let input = child.stdin.take();
        let running = Self { child, port, input };
        eventually(Duration::from_secs(20), || {
            let sockets = host.run("ss -Hlun");
            if sockets.contains(&format!(":{port} ")) {
                Ok(())
            } else {
                Err(format!("no {port} in {sockets}"))
            }
        });
        running
    }

    /// Says something to berth's server.
    pub(crate) fn tell(&mut self, what: &str) {
        writeln!(self.input.as_mut().unwrap(), "{what}").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }

    /// Resident memory, MB.
    pub(crate) fn resident(&self) -> f64 {
        Memory::of(self.child.id()).settled
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn own() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// berth.
pub(crate) fn berth(host: &Host, names: u32) -> Running {
    let mut command = own();
    command.args(["serve", &names.to_string()]);
    Running::start(host, command, PORT, true)
}

/// A responder that only turns the header.
pub(crate) fn flip(host: &Host) -> Running {
    let mut command = own();
    command.arg("flip");
    Running::start(host, command, FLIP_PORT, true)
}

fn knot_zone(host: &Host, domain: &str, count: u32) -> PathBuf {
    let mut zone = "$TTL 3600\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 10.80.0.1\n".to_owned();
    for number in 0..count {
        let _ = writeln!(zone, "c{number} A {}", address(number));
    }
    let dir = host.dir().join(format!("knot-{domain}-{count}"));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("zone"), zone).unwrap();
    dir
}

fn knotd(host: &Host, domain: &str, count: u32, at: (std::net::Ipv4Addr, u16)) -> Running {
    let dir = knot_zone(host, domain, count);
    let (ip, port) = at;
    let shown = dir.display();
    let config = format!(
        "server:\n  rundir: \"{shown}\"\n  listen: {ip}@{port}\n  udp-workers: 2\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: \"{shown}\"\n\
         zone:\n  - domain: {domain}\n    storage: \"{shown}\"\n    file: zone\n    journal-content: none\n"
    );
    std::fs::write(dir.join("knot.conf"), config).unwrap();
    let mut command = Command::new("/usr/sbin/knotd");
    command.arg("-c").arg(dir.join("knot.conf"));
    Running::start(host, command, port, false)
}

/// Knot, with the names as a zone.
pub(crate) fn knot(host: &Host, names: &Names) -> Running {
    knotd(host, DOMAIN, names.count, (GATEWAY, 5301))
}

/// Knot as what berth forwards to.
pub(crate) fn upstream(host: &Host) -> Running {
    knotd(host, "far.example", 1000, UPSTREAM)
}

/// dnsmasq, with the names as a hosts file.
pub(crate) fn dnsmasq(host: &Host, names: &Names) -> Running {
    let hosts = host.dir().join("hosts");
    let lines: Vec<String> =
        (0..names.count).map(|number| format!("{} c{number}.{DOMAIN}\n", address(number))).collect();
    std::fs::write(&hosts, lines.concat()).unwrap();
    let mut command = Command::new("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--user=root",
    ]);
    command.args(["--pid-file=", "--bind-interfaces", "--port=5302", "--local-ttl=5"]);
    command.arg(format!("--listen-address={GATEWAY}")).arg(format!("--addn-hosts={}", hosts.display()));
    Running::start(host, command, 5302, false)
}

/// aardvark-dns, as podman feeds it.
pub(crate) fn aardvark(host: &Host, names: &Names) -> Running {
    let dir = host.dir().join("aardvark");
    std::fs::create_dir_all(&dir).unwrap();
    let mut lines = format!("{GATEWAY}\n");
    for number in 0..names.count {
        let _ = writeln!(lines, "{number:064x} {}  c{number}.{DOMAIN}", address(number));
    }
    std::fs::write(dir.join("bench"), lines).unwrap();
    let mut command = Command::new("/usr/lib/podman/aardvark-dns");
    command.arg("--config").arg(&dir).args(["-p", "5303", "run"]);
    Running::start(host, command, 5303, false)
}

/// How many questions a second are answered, and rightly: every one of them has to be.
pub(crate) fn dnsperf(host: &Host, server: &Running, questions: &std::path::Path) -> f64 {
    let (gateway, member) = (GATEWAY.to_string(), MEMBER.to_string());
    let ran = host
        .cmd("dnsperf")
        .args(["-s", &gateway, "-p", &server.port.to_string(), "-a", &member, "-d"])
        .arg(questions)
        .args(["-l", &SECONDS.to_string(), "-c", "8", "-T", "1", "-q", "200"])
        .run();
    let value = |label: &str| {
        let line = ran.lines().find_map(|line| line.trim().strip_prefix(label)).unwrap_or_default();
        line.split_whitespace().next().map(str::to_owned).unwrap_or_default()
    };
    let codes = value("Response codes:");
    assert!(codes == "NOERROR", "{ran}");
    value("Queries per second:").parse().unwrap()
}
