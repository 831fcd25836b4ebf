//! How soon an attachment is seen on all nodes: its entries in their kernels, and its name answered by their DNS servers.
//!
//! Beside it is Docker's own swarm overlay on two of the same hosts. Both are measured alike, from before the call that attaches
//! a container: the kernel says when entries are written, and names are asked for again and again meanwhile.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use berth_integration::Place;
use berth_integration::bench::{self, Wanted, row};

use crate::entries::{Entries, Kind};
use crate::stage::{GATEWAY, Member, NETWORK, Node, SOON, Stage};
use crate::swarm::Swarm;

/// Attachments that are looked at.
const ATTACHMENTS: usize = 200;
/// One of Docker's after so many.
const TURN: usize = 5;

/// Between two questions for a name.
const ASK_AGAIN: Duration = Duration::from_millis(1);

/// What a remote attachment needs in a kernel here.
const KINDS: [Kind; 3] = [Kind::Neighbour, Kind::Tunnel, Kind::Bridge];

/// What was measured.
#[derive(Default)]
struct Times {
    from_begin: Vec<Duration>,
    after_return: Vec<Duration>,
}

impl Times {
    fn add(&mut self, began: Instant, returned: Instant, seen: Instant) {
        self.from_begin.push(seen - began);
        self.after_return.push(seen.saturating_duration_since(returned));
    }
}

pub(crate) fn measure(stage: &Stage) {
    let swarm = Swarm::new(stage);
    let eye = |(number, node): (usize, &Node)| node.attach(NETWORK, &format!("eye{number}")).0;
    let eyes: Vec<Member> = stage.nodes.iter().enumerate().map(eye).collect();
    eyes[1].reaches(&eyes[0]);
    eyes[2].reaches(&eyes[0]);
    let kernels: Vec<Entries> = stage.nodes[1..].iter().map(|node| Entries::of(node.host)).collect();
    let (mut ours, mut dockers) = (Times::default(), Times::default());
    let mut attached = Vec::new();
    for number in 0..ATTACHMENTS {
        attached.push(once(stage, &eyes, &kernels, number, &mut ours));
        if number % TURN == 0 {
            let (began, returned, seen) = swarm.once(number);
            dockers.add(began, returned, seen);
        }
    }
    report(&ours, &dockers);
    attached.into_iter().chain(eyes).for_each(Member::del);
    swarm.end();
}

fn once(stage: &Stage, eyes: &[Member], kernels: &[Entries], number: usize, times: &mut Times) -> Member {
    let name = format!("m{number}");
    let prepared = stage.nodes[0].prepare(NETWORK, &name);
    let began = Instant::now();
    let (member, returned, named) = std::thread::scope(|scope| {
        let names: Vec<_> =
            eyes.iter().map(|eye| scope.spawn(|| first_answer(&eye.container, GATEWAY, &name))).collect();
        let (member, _) = prepared.add();
        let returned = Instant::now();
        let named = names.into_iter().map(|name| name.join().unwrap()).max().unwrap();
        (member, returned, named)
    });
    let written = kernels.iter().map(|kernel| complete(kernel, &member.mac, &KINDS, began)).max().unwrap();
    times.add(began, returned, named.max(written));
    member
}

/// When all of `kinds` were written for `mac`.
pub(crate) fn complete(kernel: &Entries, mac: &str, kinds: &[Kind], began: Instant) -> Instant {
    let started = Instant::now();
    loop {
        if let Some(at) = kernel.complete(mac, kinds, began) {
            return at;
        }
        assert!(started.elapsed() < SOON, "not all of {kinds:?} were written for {mac}");
        std::thread::sleep(ASK_AGAIN);
    }
}

/// When `server` first answered with an address for `name`.
pub(crate) fn first_answer(from: &Place, server: SocketAddr, name: &str) -> Instant {
    let question = question(name);
    let started = Instant::now();
    from.inside(|| {
        loop {
            if let Some(at) = answered(server, &question) {
                return at;
            }
            assert!(started.elapsed() < SOON, "{server} does not know {name}");
            std::thread::sleep(ASK_AGAIN);
        }
    })
}

/// Asks once; when an address was the answer.
fn answered(server: SocketAddr, question: &[u8]) -> Option<Instant> {
    let mut buffer = [0; 512];
    // A socket for each: what comes late is no answer to the next.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    socket.connect(server).unwrap();
    let len = socket.send(question).and_then(|_| socket.recv(&mut buffer)).ok()?;
    let at = Instant::now();
    // RFC 1035 section 4.1.1: the count of answers.
    (len > question.len() && buffer[6..8] != [0, 0]).then_some(at)
}

/// A question for the IPv4 address of `name`, RFC 1035 section 4.1.
fn question(name: &str) -> Vec<u8> {
    let mut text = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        text.push(u8::try_from(label.len()).unwrap());
        text.extend(label.as_bytes());
    }
    text.extend([0, 0, 1, 0, 1]);
    text
}

fn report(ours: &Times, dockers: &Times) {
    let name = "Docker's swarm overlay, `network connect`, on one other node";
    for (words, of, wanted) in [
        (
            "an attachment is seen on all of three nodes (entries in the kernel, name answered), after its ADD has returned",
            (|times| &times.after_return) as fn(&Times) -> &Vec<Duration>,
            Wanted::AtMost(100.0),
        ),
        ("the same from the beginning of its ADD", |times| &times.from_begin, Wanted::AtMost(100.0)),
    ] {
        for percent in [50, 99] {
            let figure = |times| bench::percentile(of(times).clone(), percent);
            let words = format!("{words}, p{percent}");
            row(&words, "ms", figure(ours), Some((name, figure(dockers))), wanted);
        }
    }
}
