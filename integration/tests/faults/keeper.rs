//! `berthd --roles keeper`: what other programs destroy is put right with no call of anybody's.

use std::time::{Duration, Instant};

use berth_integration::engine::Berthd;
use berth_integration::{Host, Probe, eventually};
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Net, berth_test, tcp};

/// It takes a fraction of a second; how long it may take on a machine with much else to do is not what is tested.
const SOON: Duration = Duration::from_secs(20);

/// A host with a keeper, which must be left as it was.
fn kept(test: impl FnOnce(&Host, &mut Berthd<'_>)) {
    berth_test(|host| {
        let mut berthd = Berthd::beside_cni(host, &["--roles", "keeper"]);
        test(host, &mut berthd);
        if berthd.runs() {
            berthd.stop();
        }
        // What its end left of the notification is the kit's.
        drop(berthd);
    });
}

#[track_caller]
fn soon_well(host: &Host) {
    eventually(SOON, || {
        let doctor = host.berth(["doctor"]).output();
        if doctor.code() == Some(0) { Ok(()) } else { Err(doctor.to_string()) }
    });
}

/// Lets time pass, for what must not happen.
fn rest(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

fn status(host: &Host) -> Value {
    serde_json::from_str(&host.berth(["status", "--json"]).run()).unwrap()
}

/// Does three kinds of damage, each put right before the next. More in so short a time would be a fight.
fn destroyed(damages: [&str; 3]) {
    kept(|host, _| {
        let net = Net::new(host, 1);
        let (a, b) = (net.publish("a", tcp(8080, 80)), net.join("b"));
        let _server = a.serve_tcp(80, "a");
        for damage in damages {
            host.run(damage);
            soon_well(host);
            host.probe(&Probe::tcp("192.0.2.2:8080")).all_from("a");
            assert_eq!((host.ping(b.v4(), 1), a.ping(b.v4(), 1), a.ping(b.v6(), 1)), (1, 1, 1), "{damage}");
            a.checked().check().ok();
        }
        let keeper = &status(host)["keeper"];
        assert_eq!((keeper["repairs"].as_u64(), &keeper["fight"]), (Some(3), &Value::Null));
    });
}

#[test]
fn a_destroyed_ruleset_is_laid_again_at_once() {
    destroyed([
        "nft flush ruleset",
        "nft flush chain inet berth raw_pre",
        "nft flush set bridge berth guarded",
    ]);
}

#[test]
fn a_destroyed_bridge_is_made_again_at_once() {
    destroyed(["ip link del br1", "ip link set br1 down", "ip address flush dev br1"]);
}

#[test]
fn what_was_destroyed_while_it_was_down_is_put_right_when_it_starts() {
    kept(|host, berthd| {
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        berthd.crash();
        assert_eq!(status(host)["keeper"], Value::Null, "the file of a killed keeper is believed");
        host.run("nft flush ruleset");
        host.run("ip link del br1");
        berthd.start();
        soon_well(host);
        a.checked().check().ok();
    });
}

#[test]
fn a_vanished_sandbox_gives_its_address_and_port_back() {
    kept(|host, _| {
        let net = Net::new(host, 1);
        let stays = net.join("stays");
        let gone = host.container("gone");
        net.publishing(&gone, tcp(8080, 80)).args("IP=10.80.1.77").add().ok();
        gone.remove();
        eventually(SOON, || {
            let left = host.berth(["ps"]).run();
            if left.contains("gone") { Err(left) } else { Ok(()) }
        });
        soon_well(host);
        let next = host.container("next");
        let call = net.publishing(&next, tcp(8080, 80)).args("IP=10.80.1.77");
        call.add().ok();
        call.del().ok();
        stays.checked().check().ok();
    });
}

#[test]
fn its_own_and_other_calls_work_is_no_damage() {
    kept(|host, berthd| {
        let net = Net::new(host, 1);
        let _stays = net.publish("stays", tcp(8080, 80));
        for round in 0..10 {
            net.join(&format!("c{round}")).leave();
        }
        soon_well(host);
        assert_eq!(status(host)["keeper"]["repairs"], 0, "{}", berthd.log());
        // One repair has no other for a consequence.
        host.run("nft flush ruleset");
        soon_well(host);
        rest(Duration::from_secs(1));
        assert_eq!(status(host)["keeper"]["repairs"], 1, "{}", berthd.log());
    });
}

#[test]
fn news_that_were_lost_are_made_up_for() {
    kept(|host, berthd| {
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        berthd.signal(Signal::STOP);
        // More news than its sockets hold.
        let elements: Vec<String> = (1..30_000_u32).map(|number| number.to_string()).collect();
        let many = format!(
            "add table inet many\nadd set inet many s {{ type mark; }}\nadd element inet many s {{ {} }}\n",
            elements.join(",")
        );
        host.cmd("nft").args(["-f", "-"]).stdin(many).run();
        host.run("nft flush ruleset");
        berthd.signal(Signal::CONT);
        soon_well(host);
        a.checked().check().ok();
        assert!(berthd.log().contains("more changes than could be heard of"), "{}", berthd.log());
    });
}

/// A network that is being removed is on record until it is gone: what is put right from the records must not bring it back.
#[test]
fn a_network_that_is_being_removed_is_not_brought_back() {
    for syscall in ["sendto", "sendmsg"] {
        kept(|host, berthd| {
            // Keeps the tables from going with the network.
            let standing = Net::new(host, 1).join("standing");
            Net::new(host, 2).join("last").leave();
            let (trace, delay) = (format!("trace={syscall}"), format!("inject={syscall}:delay_enter=50000"));
            let slowly = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &delay, "--"];
            host.berth(["gc"]).wrapped(&slowly).run();
            assert!(!host.berth(["network", "ls"]).run().contains("n2"));
            rest(Duration::from_millis(500));
            let doctor = host.berth(["doctor"]).output();
            assert_eq!(doctor.code(), Some(0), "{syscall}: {doctor}{}", berthd.log());
            assert_eq!(status(host)["keeper"]["repairs"], 0, "{syscall}: {}", berthd.log());
            standing.leave();
        });
    }
}

#[test]
fn a_fight_is_told_and_not_gone_on_with_for_ever() {
    kept(|host, berthd| {
        let a = Net::new(host, 1).publish("a", tcp(8080, 80));
        let flushing = host.cmd("sh").args(["-c", "while :; do nft flush ruleset; sleep 0.1; done"]).spawn();
        let fight = eventually(SOON, || {
            let fight = status(host)["keeper"]["fight"].clone();
            if fight.is_object() { Ok(fight) } else { Err(berthd.log()) }
        });
        assert_eq!((&fight["what"], &fight["by"]), (&"the ruleset".into(), &"nft".into()), "{fight}");
        let doctor = host.berth(["doctor"]).output();
        assert!(doctor.code() == Some(2) && doctor.stdout.contains("[fight]"), "{doctor}");
        assert!(host.berth(["status"]).run().contains("in a fight with nft"));
        // It goes on, slower: in two seconds there are at most two more.
        let repairs = |fight: &Value| fight["repairs"].as_u64().unwrap();
        rest(Duration::from_secs(2));
        let later = status(host)["keeper"]["fight"].clone();
        assert!(repairs(&later) <= repairs(&fight) + 2, "{fight} {later}");
        // When the other one gives way, the host is right at the next turn.
        drop(flushing);
        eventually(SOON, || if a.checked().check().succeeded() { Ok(()) } else { Err(berthd.log()) });
    });
}
