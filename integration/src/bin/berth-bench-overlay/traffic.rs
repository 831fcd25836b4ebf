//! TCP between containers on two hosts, beside a VXLAN laid by hand with `ip`: on the same two hosts, and on two that berth's
//! rules are not on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use berth_integration::bench::{self, Processors, Wanted, row};
use berth_integration::{Container, Host, Place, Seat};

use crate::stage::{NETWORK, Stage};

/// How long bytes are sent in one turn. Turns are short and many: what else the machine does comes and goes within seconds, and is
/// to meet all alike.
const SENDING: Duration = Duration::from_millis(100);
/// Turns of each; the middle one counts.
const TURNS: usize = 121;
/// Bytes that are sent and answered one by one in each turn.
const TRIPS: usize = 600;
const PORT: u16 = 5001;

/// The port of VXLAN that is laid by hand.
const VXLAN_PORT: u16 = 4790;

/// What is wanted at least of throughput, and of the inverse of latency.
const WANTED: f64 = 0.97;

/// Two ends that reach each other.
struct Way<'a> {
    name: &'static str,
    from: &'a Place,
    to: &'a Place,
    address: IpAddr,
}

/// What was measured of a way, turn by turn.
#[derive(Default)]
struct Measured {
    rates: Vec<f64>,
    medians: Vec<Duration>,
    p99s: Vec<Duration>,
}

pub(crate) fn measure(stage: &Stage) {
    let [one, two, ..] = &stage.nodes[..] else { unreachable!("three nodes") };
    let (web, db) = (one.attach(NETWORK, "web").0, two.attach(NETWORK, "db").0);
    web.reaches(&db);
    let same = by_hand([(one.host, &one.seat), (two.host, &two.seat)], 1);
    let [(left, left_seat), (right, right_seat)] = &stage.plain;
    let clean = by_hand([(left, left_seat), (right, right_seat)], 2);
    let bare = without_bridge([(left, left_seat), (right, right_seat)]);
    let ways = [
        Way { name: "berth", from: &web.container, to: &db.container, address: db.address },
        Way { name: "laid by hand, same hosts", from: &same[0], to: &same[1], address: inside(1, 2) },
        Way {
            name: "laid by hand, hosts without berth",
            from: &clean[0],
            to: &clean[1],
            address: inside(2, 2),
        },
        Way { name: "by hand, host to host, no bridge", from: left, to: right, address: bare },
    ];
    report(&ways, &in_turn(&ways));
    for host in [one.host, two.host, left, right] {
        for link in ["vxhand", "brhand", "vxbare"] {
            host.line(&format!("ip link del {link}")).output();
        }
    }
    drop((same, clean));
    web.del();
    db.del();
}

fn in_turn(ways: &[Way<'_>]) -> Vec<Measured> {
    let mut measured: Vec<Measured> = ways.iter().map(|_| Measured::default()).collect();
    for turn in 0..TURNS {
        // Nobody is always the first.
        for place in (0..ways.len()).map(|place| (place + turn) % ways.len()) {
            let (Way { name: _, from, to, address }, measured) = (&ways[place], &mut measured[place]);
            let at = SocketAddr::new(*address, PORT);
            measured.rates.push(bench::rate(from, to, at, SENDING, Processors::Apart));
            let trips = bench::round_trips(from, to, at, TRIPS, Processors::Same);
            measured.medians.push(middle(trips.clone(), 50));
            measured.p99s.push(middle(trips, 99));
        }
    }
    measured
}

fn middle(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort();
    times[times.len() * percent / 100]
}

fn report(ways: &[Way<'_>], measured: &[Measured]) {
    let rate = |measured: &Measured| {
        let mut rates = measured.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let micros = |times: &[Duration]| bench::median(times.to_vec()) * 1000.0;
    let wanted = |place: usize, wanted| if place == 1 { wanted } else { Wanted::Nothing };
    for place in 1..ways.len() {
        let beside = Some((ways[place].name, rate(&measured[place])));
        let least = wanted(place, Wanted::TimesAtLeast(WANTED));
        row("TCP throughput between containers on two hosts", "Gbit/s", rate(&measured[0]), beside, least);
    }
    for (words, of) in [
        ("a byte there and back by TCP", (|one| &one.medians) as fn(&Measured) -> &Vec<Duration>),
        ("a byte there and back by TCP, p99", |one| &one.p99s),
    ] {
        for place in 1..ways.len() {
            let beside = Some((ways[place].name, micros(of(&measured[place]))));
            let most = wanted(place, Wanted::Times(1.0 / WANTED));
            row(words, "µs", micros(of(&measured[0])), beside, most);
        }
    }
}

/// Address `end` of the network that is laid by hand as `number`.
fn inside(number: u8, end: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, number, end).into()
}

/// On each host a VXLAN device on a bridge, and a container on it, as somebody types it.
fn by_hand(hosts: [(&'static Host, &Seat); 2], number: u8) -> [Container<'static>; 2] {
    let [one, two] = hosts;
    let lay = |(host, seat): (&'static Host, &Seat), remote: Ipv4Addr, end: u8| {
        let container = host.container("hand");
        host.batch(&format!(
            "link add vxhand type vxlan id 77 dev {} local {} remote {remote} dstport {VXLAN_PORT}
             link add brhand mtu 1450 type bridge
             link set brhand up
             link set vxhand master brhand up
             link add vehand mtu 1450 type veth peer name eth0 mtu 1450 netns hand
             link set vehand master brhand up",
            seat.ifname, seat.v4
        ));
        container.run(&format!("ip addr add {}/24 dev eth0", inside(number, end)));
        container.run("ip link set eth0 up");
        container
    };
    [lay(one, two.1.v4, 1), lay(two, one.1.v4, 2)]
}

/// On each host a VXLAN device that has an address itself. The second one's address.
fn without_bridge(hosts: [(&'static Host, &Seat); 2]) -> IpAddr {
    let [one, two] = hosts;
    for ((host, seat), remote, end) in [(one, two.1.v4, 1), (two, one.1.v4, 2)] {
        host.batch(&format!(
            "link add vxbare type vxlan id 78 dev {} local {} remote {remote} dstport {VXLAN_PORT}
             address add {}/24 dev vxbare
             link set vxbare up",
            seat.ifname,
            seat.v4,
            inside(3, end)
        ));
    }
    inside(3, 2)
}
