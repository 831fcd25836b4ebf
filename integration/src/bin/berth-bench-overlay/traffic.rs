//! TCP between containers on two hosts, beside a VXLAN laid by hand with `ip`: on the same two hosts, and on two that berth's
//! rules are not on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use berth_integration::bench::{self, Processors, Wanted};
use berth_integration::{Container, Host, Place, Seat};

use crate::stage::{NETWORK, Stage};

/// How long bytes are sent in one turn.
const SENDING: Duration = Duration::from_millis(100);
const TURNS: usize = 240;
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
    medians: Vec<f64>,
    p99s: Vec<f64>,
}

pub(crate) fn measure(stage: &Stage) {
    let [one, two, ..] = &stage.nodes[..] else { unreachable!("three nodes") };
    let (web, db) = (one.attach(NETWORK, "web").0, two.attach(NETWORK, "db").0);
    web.reaches(&db);
    let same = by_hand([(one.host, &one.seat), (two.host, &two.seat)], 1);
    let [(left, left_seat), (right, right_seat)] = &stage.plain;
    let clean = by_hand([(left, left_seat), (right, right_seat)], 2);
    let ways = [
        Way { name: "berth", from: &web.container, to: &db.container, address: db.address },
        Way { name: "laid by hand, same hosts", from: &same[0], to: &same[1], address: inside(1, 2) },
        Way {
            name: "laid by hand, hosts without berth",
            from: &clean[0],
            to: &clean[1],
            address: inside(2, 2),
        },
    ];
    report(&ways, &in_turn(&ways));
    for host in [one.host, two.host, left, right] {
        for link in ["vxhand", "brhand"] {
            host.line(&format!("ip link del {link}")).output();
        }
    }
    drop((same, clean));
    web.del();
    db.del();
}

fn in_turn(ways: &[Way<'_>]) -> Vec<Measured> {
    let mut measured: Vec<Measured> = ways.iter().map(|_| Measured::default()).collect();
    for order in bench::orders(ways.len(), TURNS) {
        for place in order {
            let (Way { name: _, from, to, address }, measured) = (&ways[place], &mut measured[place]);
            let at = SocketAddr::new(*address, PORT);
            measured.rates.push(bench::rate(from, to, at, SENDING, Processors::Apart));
            let trips = bench::round_trips(from, to, at, TRIPS, Processors::Same);
            measured.medians.push(1000.0 * bench::median(trips.clone()));
            measured.p99s.push(1000.0 * bench::percentile(trips, 99));
        }
    }
    measured
}

/// One kind of figures, turn by turn.
type Figures = fn(&Measured) -> &[f64];

fn report(ways: &[Way<'_>], measured: &[Measured]) {
    let figures: [(&str, &str, Wanted, Figures); 3] = [
        ("TCP throughput between containers on two hosts", "Gbit/s", Wanted::TimesAtLeast(WANTED), |one| {
            &one.rates
        }),
        ("a byte there and back by TCP", "µs", Wanted::Times(1.0 / WANTED), |one| &one.medians),
        ("a byte there and back by TCP, p99", "µs", Wanted::Times(1.0 / WANTED), |one| &one.p99s),
    ];
    for (words, unit, wanted, of) in figures {
        for place in 1..ways.len() {
            let wanted = if place == 1 { wanted } else { Wanted::Nothing };
            let beside = (ways[place].name, of(&measured[place]));
            bench::row_of_turns(words, unit, of(&measured[0]), beside, wanted);
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
