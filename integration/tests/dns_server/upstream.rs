//! Servers upstream: Debian's, and one that does whatever a test wants.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use berth_integration::{Cmd, Host, Place, Proc, eventually};

/// A question as a scripted server got it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) peer: SocketAddr,
    pub(crate) message: Vec<u8>,
}

/// A server that answers by a function: the messages it returns are sent to who asked.
pub(crate) struct Scripted {
    pub(crate) addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    pub(crate) fn new(
        place: &Place,
        addr: &str,
        mut answer: impl FnMut(&Asked, &UdpSocket) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let addr: SocketAddr = addr.parse().unwrap();
        let socket = place.inside(|| UdpSocket::bind(addr).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (asked, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (notes, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, peer)) = socket.recv_from(&mut buffer) else { continue };
                let one = Asked { peer, message: buffer[..len].to_vec() };
                notes.lock().unwrap().push(one.clone());
                for message in answer(&one, &socket) {
                    let _ = socket.send_to(&message, peer);
                }
            }
        });
        Self { addr, asked, stop, thread: Some(thread) }
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// Answers with one address, kept for `ttl` seconds.
pub(crate) fn addressed(question: &[u8], addr: [u8; 4], ttl: u32) -> Vec<u8> {
    let mut answer = coded(question, 0);
    answer[7] = 1;
    answer.extend([0xc0, 0x0c, 0, 1, 0, 1]);
    answer.extend(ttl.to_be_bytes());
    answer.extend([0, 4]);
    answer.extend(addr);
    answer
}

/// Answers with a code and no record. Records of the question but the first are gone.
pub(crate) fn coded(question: &[u8], code: u8) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let mut answer = question[..end].to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | code;
    answer[6..12].fill(0);
    answer
}

/// dnsmasq on `addr`, with these options.
pub(crate) fn dnsmasq(host: &Host, addr: &str, options: &[&str]) -> Proc {
    let cmd: Cmd = host
        .cmd("dnsmasq")
        .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root"])
        .args(["--pid-file=", "--bind-interfaces", &format!("--listen-address={addr}")])
        .args(options);
    let process = cmd.spawn();
    listening(host, addr);
    process
}

/// Knot on `addr`, with `zone` as the zone `knot.example`.
pub(crate) fn knot(host: &Host, addr: &str, zone: &str) -> Proc {
    let dir = host.dir().join("knot");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("knot.example.zone"), zone).unwrap();
    let dir = dir.display();
    let config = format!(
        "server:\n  rundir: \"{dir}\"\n  listen: {addr}@53\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
         database:\n  storage: \"{dir}\"\n\
         zone:\n  - domain: knot.example\n    storage: \"{dir}\"\n    file: knot.example.zone\n"
    );
    let file = format!("{dir}/knot.conf");
    std::fs::write(&file, config).unwrap();
    let process = host.cmd("knotd").args(["-c", &file]).spawn();
    listening(host, addr);
    process
}

fn listening(host: &Host, addr: &str) {
    let wanted = format!("{addr}:53 ");
    eventually(Duration::from_secs(10), || {
        let sockets = host.run("ss -Hlun");
        if sockets.contains(&wanted) { Ok(()) } else { Err(format!("{wanted}not in {sockets}")) }
    });
}
