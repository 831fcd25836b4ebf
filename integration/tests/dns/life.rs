//! The server's coming and going: started on demand, killed, replaced, missing.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_integration::engine::Berthd;
use berth_integration::{Host, Place, Snapshot, eventually};

use crate::asking::{called, dig, join, named};
use crate::common::{assert_as_before, berth_test};

fn server(host: &Host) -> i32 {
    let all = host.processes();
    assert_eq!(all.len(), 1, "one server");
    *all.first().unwrap()
}

fn kill(host: &Host) {
    host.run(&format!("kill -9 {}", server(host)));
    eventually(Duration::from_secs(5), || {
        if host.processes().is_empty() { Ok(()) } else { Err("still there".to_owned()) }
    });
}

/// Asks the same again and again until told to stop: how often, and how often there was no answer within two seconds.
fn ask_on(place: &Place, server: Ipv4Addr, name: &str, stop: &AtomicBool) -> (u32, Vec<String>) {
    place.inside(|| {
        let (mut asked, mut lost) = (0_u32, Vec::new());
        let mut id = 0_u16;
        let begun = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket.connect((server, 53)).unwrap();
            id = id.wrapping_add(1);
            let [high, low] = id.to_be_bytes();
            let mut question =
                vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(name.len()).unwrap()];
            question.extend(name.as_bytes());
            question.extend([0, 0, 1, 0, 1]);
            socket.send(&question).unwrap();
            let mut answer = [0; 512];
            asked += 1;
            match socket.recv(&mut answer) {
                Ok(_) if answer[..2] == [high, low] && answer[3] & 15 == 0 && answer[7] == 1 => (),
                other => {
                    lost.push(format!("question {asked} after {:?}: {other:?}", begun.elapsed()));
                }
            }
        }
        (asked, lost)
    })
}

/// Says stop when dropped, be it by a panic.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks while `change` is made.
fn while_asked(place: &Place, server: Ipv4Addr, name: &str, change: impl FnOnce()) -> (u32, Vec<String>) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_on(place, server, name, &stop));
        let stopping = Stopping(&stop);
        std::thread::sleep(Duration::from_millis(100));
        change();
        std::thread::sleep(Duration::from_millis(200));
        drop(stopping);
        asking.join().unwrap()
    })
}

#[test]
fn a_killed_server_is_started_by_the_next_attach_with_all_names() {
    berth_test(|host| {
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        kill(host);
        let db = join(&net, "db1", "db");
        assert_eq!(dig(&db, net.gateway4(), "web A"), web.v4().to_string());
        assert_eq!(dig(&web, net.gateway4(), "db A"), db.v4().to_string());
    });
}

#[test]
fn a_detach_needs_no_server_and_starts_none() {
    berth_test(|host| {
        let net = named(host, 1);
        let (web, db) = (join(&net, "web1", "web"), join(&net, "db1", "db"));
        kill(host);
        web.leave();
        assert!(host.processes().is_empty());
        let client = join(&net, "client1", "client");
        assert_eq!(dig(&client, net.gateway4(), "web A"), "NXDOMAIN");
        assert_eq!(dig(&client, net.gateway4(), "db A"), db.v4().to_string());
    });
}

#[test]
fn a_detach_does_not_wait_long_for_a_server_that_hangs() {
    berth_test(|host| {
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        host.run(&format!("kill -STOP {}", server(host)));
        let started = Instant::now();
        web.leave();
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        host.run(&format!("kill -CONT {}", server(host)));
    });
}

#[test]
fn names_without_a_daemon_program_are_refused_in_words_and_leave_nothing() {
    berth_test(|host| {
        let before = Snapshot::of(host);
        let net = named(host, 1);
        let container = host.container("web1");
        let call = called(&net.call_for(&container), "web").env("BERTH_DAEMON", "/nonexistent/berthd");
        let refused = call.add().err();
        assert_eq!(refused.code, 114, "{refused:?}");
        assert!(refused.msg.contains("failed to start `/nonexistent/berthd`"), "{refused:?}");
        drop(container);
        assert_as_before(host, &before);
    });
}

#[test]
fn many_first_attaches_at_once_start_one_server() {
    berth_test(|host| {
        let net = named(host, 1);
        let containers: Vec<_> = (0..12).map(|n| host.container(&format!("c{n}"))).collect();
        let calls: Vec<_> =
            containers.iter().map(|container| called(&net.call_for(container), container.name())).collect();
        std::thread::scope(|scope| {
            let adding: Vec<_> = calls.iter().map(|call| scope.spawn(|| call.add().ok())).collect();
            adding.into_iter().for_each(|one| drop(one.join().unwrap()));
        });
        server(host);
        for container in &containers {
            assert_ne!(dig(&containers[0], net.gateway4(), &format!("{} A", container.name())), "NXDOMAIN");
        }
        std::thread::scope(|scope| {
            let deleting: Vec<_> = calls.iter().map(|call| scope.spawn(|| drop(call.del().ok()))).collect();
            deleting.into_iter().for_each(|one| one.join().unwrap());
        });
        eventually(Duration::from_secs(5), || match host.processes() {
            none if none.is_empty() => Ok(()),
            left => Err(format!("the server ends with the last name: {left:?}")),
        });
    });
}

#[test]
fn a_new_daemon_takes_over_without_a_lost_question() {
    berth_test(|host| {
        // The second is started twice: over one that a plugin started, and over one of its own kind.
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        let client = join(&net, "client1", "client");
        let mut daemons = Vec::new();
        let (asked, lost) = while_asked(&client, net.gateway4(), "web", || {
            for _ in 0..3 {
                let before = host.processes();
                daemons.push(Another::start(host));
                // The one before has ended.
                eventually(Duration::from_secs(10), || {
                    match host.processes().intersection(&before).count() {
                        0 => Ok(()),
                        left => Err(format!("{left} of {before:?} are left")),
                    }
                });
            }
        });
        assert!(asked > 100, "{asked}");
        assert!(lost.is_empty(), "of {asked} questions: {lost:?}");
        let db = join(&net, "db1", "db");
        assert_eq!(
            dig(&client, net.gateway4(), "db A"),
            db.v4().to_string(),
            "the new one is told of changes"
        );
        drop((web, client, db));
        host.gc();
        let last = daemons.pop().unwrap();
        last.stop();
    });
}

/// A daemon that is not waited for by a notification.
struct Another(berth_integration::Proc);

impl Another {
    fn start(host: &Host) -> Self {
        let cmd = host.cmd(berth_integration::berthd_binary()).args(["--roles", "dns"]);
        Self(cmd.env("BERTH_LOG", "info").spawn())
    }

    fn stop(self) {
        self.0.signal(rustix::process::Signal::TERM);
        let ran = self.0.wait(Duration::from_secs(10));
        assert!(ran.status.success(), "{ran}");
    }
}

#[test]
fn a_daemon_that_dies_while_it_takes_over_changes_nothing() {
    berth_test(|host| {
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        let old = server(host);
        // Connects as a successor does, takes nothing and goes.
        let socket = host.run_dir().join("dns-handover.sock");
        drop(std::os::unix::net::UnixStream::connect(socket).unwrap());
        let db = eventually(Duration::from_secs(10), || {
            let container = host.container("db1");
            let call = called(&net.call_for(&container), "db");
            Ok::<_, String>(crate::common::Member::add(call, container))
        });
        assert_eq!(dig(&web, net.gateway4(), "db A"), db.v4().to_string());
        assert_eq!(server(host), old);
    });
}

/// What a service manager does: keeps the sockets, and gives them to the next.
const MANAGER: &str = r#"
import array, os, signal, socket, subprocess, sys, time
berthd, place = sys.argv[1], sys.argv[2]
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(place)
notify.settimeout(10)
store = []
def listen():
    message, control, _, _ = notify.recvmsg(4096, socket.CMSG_SPACE(8 * 4))
    fds = array.array("i")
    for level, kind, data in control:
        fds.frombytes(data[:len(data) - len(data) % fds.itemsize])
    lines = dict(line.split("=", 1) for line in message.decode().splitlines())
    if lines.get("FDSTORE"):
        store.extend((lines["FDNAME"], fd) for fd in fds)
    if lines.get("FDSTOREREMOVE"):
        for one in [one for one in store if one[0] == lines["FDNAME"]]:
            os.close(one[1]); store.remove(one)
    return lines
def start():
    names, handed = ":".join(name for name, _ in store), [fd for _, fd in store]
    def give():
        high = [os.dup(fd) for fd in handed]
        lifted = [os.fdopen(fd).fileno() if False else fd for fd in high]
        base = 200
        for n, fd in enumerate(lifted): os.dup2(fd, base + n)
        for n in range(len(lifted)): os.dup2(base + n, 3 + n, inheritable=True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(handed)), LISTEN_FDNAMES=names)
    child = subprocess.Popen(["sh", "-c", "LISTEN_PID=$$ exec " + berthd + " --roles dns"], preexec_fn=give, close_fds=False,
        env=dict(os.environ, NOTIFY_SOCKET=place, LISTEN_FDS=str(len(handed)), LISTEN_FDNAMES=names))
    while not listen().get("READY"): pass
    return child
child = start()
print("ready", flush=True)
for line in sys.stdin:
    # What was told is in the store before the daemon is killed.
    notify.settimeout(0.3)
    try:
        while True: listen()
    except socket.timeout: pass
    notify.settimeout(10)
    if line.strip() == "restart":
        child.send_signal(signal.SIGKILL); child.wait()
        child = start()
        print("restarted", len(store), flush=True)
    else:
        child.send_signal(signal.SIGTERM); child.wait(); break
os.unlink(place)
"#;

#[test]
fn a_service_manager_keeps_the_sockets_over_a_crash_without_a_lost_question() {
    berth_test(|host| {
        let place = host.dir().join("notify");
        let (mut manager, mut lines) = host.inside(|| {
            let mut manager = std::process::Command::new("python3")
                .args(["-c", MANAGER])
                .arg(berth_integration::berthd_binary())
                .arg(&place)
                .env("BERTH_STATE_DIR", host.state_dir())
                .env("BERTH_RUN_DIR", host.run_dir())
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let lines = std::io::BufReader::new(manager.stdout.take().unwrap());
            (manager, std::io::BufRead::lines(lines))
        });
        let mut say = |word: &str| {
            use std::io::Write as _;
            writeln!(manager.stdin.as_mut().unwrap(), "{word}").unwrap();
        };
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        let client = join(&net, "client1", "client");
        let (asked, lost) = while_asked(&client, net.gateway4(), "web", || {
            for _ in 0..3 {
                say("restart");
                let restarted = lines.next().unwrap().unwrap();
                assert!(!restarted.ends_with(" 0"), "nothing was stored: {restarted}");
            }
        });
        assert!(asked > 100, "{asked}");
        // What the daemon had read and not answered when it was killed is gone, and asked again by every resolver.
        assert!(lost.len() <= 3, "of {asked} questions: {lost:?}");
        drop((web, client));
        host.gc();
        say("stop");
        assert!(manager.wait().unwrap().success());
    });
}

#[test]
fn a_daemon_of_all_roles_serves_names_and_keeps_them_while_it_is_killed_under_load() {
    berth_test(|host| {
        let plugin_dir = host.dir().join("plugins");
        let args = ["--roles", "dns,keeper", "--plugin-dir", plugin_dir.to_str().unwrap()];
        let mut berthd = Berthd::beside_cni(host, &args);
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        let client = join(&net, "client1", "client");
        let stop = AtomicBool::new(false);
        let (asked, lost) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| ask_on(&client, net.gateway4(), "web", &stop));
            let stopping = Stopping(&stop);
            let changing = scope.spawn(|| {
                let container = host.container("coming");
                let call = called(&net.call_for(&container), "coming");
                for _ in 0..30 {
                    call.add().ok();
                    call.del().ok();
                }
            });
            std::thread::sleep(Duration::from_millis(100));
            berthd.crash();
            berthd.start();
            changing.join().unwrap();
            std::thread::sleep(Duration::from_millis(100));
            drop(stopping);
            asking.join().unwrap()
        });
        assert!(usize::try_from(asked).unwrap() > lost.len(), "of {asked}: {lost:?}");
        assert_eq!(dig(&client, net.gateway4(), "web A"), web.v4().to_string());
        assert_eq!(dig(&client, net.gateway4(), "coming A"), "NXDOMAIN");
        drop((web, client));
        host.gc();
        berthd.stop();
    });
}
