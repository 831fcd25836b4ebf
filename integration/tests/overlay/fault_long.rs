//! Faults that last: what goes on meanwhile is counted, an echo each 10 ms.

use std::time::{Duration, Instant};

use berth_integration::eventually;
use rustix::process::Signal;

use crate::fault::lost_during;
use crate::stage::{Member, Node, SOON, Stage, stage_test};

/// What the cluster has of the node `n3`, but for how often it has joined: that stays, and voids what it wrote before.
fn of_third(stage: &Stage<'_>) -> String {
    let all = stage.etcd.ctl(&["get", "--prefix", "/berth/v1/"]);
    let is_its = |line: &&str| (line.contains("\"n3\"") || line.contains("/n3")) && !line.contains("/epoch/");
    all.lines().filter(is_its).collect::<Vec<_>>().join("\n")
}

/// Three nodes: two that echo, and one that is lost while the agent of one of them stands still.
#[test]
fn a_minute_without_etcd_an_agent_that_stands_still_and_a_lost_node_cost_no_echo() {
    stage_test(3, |stage| {
        stage.nodes[0].berth("network create -d overlay blue --subnet 10.5.0.0/24");
        let [web, db] = [stage.nodes[0].add("c1", "web"), stage.nodes[1].add("c2", "db")];
        let third = stage.nodes[2].add("c3", "third");
        web.reaches(&db);
        db.reaches(&third);
        let block = stage.nodes[2].status()["networks"][0]["blocks"][0].as_str().unwrap().to_owned();
        let lost = lost_during(&web, &db, || {
            without_etcd(stage, &web, &db);
            stage.nodes[2].daemon.crash();
            standing_still(stage, &web, &db);
            // The lease, the grace, and the next look.
            eventually(Duration::from_secs(110), || match of_third(stage) {
                nothing if nothing.is_empty() => Ok(()),
                still => Err(format!("the cluster still has\n{still}")),
            });
        });
        assert_eq!(lost, 0, "echoes between containers that nobody touched");
        eventually(SOON, || match web.container.ping(&third.address, 1) {
            0 => Ok(()),
            _ => Err("a lost node's container is reached".to_owned()),
        });
        stage.nodes[0].answers(&web, "third", &[]);

        // It was not: it has what it had once it is back, its block too, for nobody needed that.
        stage.nodes[2].daemon.start();
        stage.nodes[2].is_connected();
        web.reaches(&third);
        stage.nodes[0].answers(&web, "third", &[&third.address]);
        eventually(SOON, || match of_third(stage) {
            blocks if blocks.contains(&format!("\"cidr\":\"{block}\"")) => Ok(()),
            other => Err(format!("{block} is not its: {other}")),
        });
        [web, db, third].into_iter().for_each(Member::del);
    });
}

/// A full minute: containers come and go on both hosts, an agent begins anew, names of both are answered, and all is made up for
/// afterwards.
fn without_etcd(stage: &mut Stage<'_>, web: &Member<'_>, db: &Member<'_>) {
    let [one, two, _] = &mut stage.nodes[..] else { panic!("three nodes") };
    let short = two.add("c4", "short");
    one.answers(web, "short", &[&short.address]);
    stage.etcd.kill();
    let began = Instant::now();
    let late = one.add("c5", "late");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // On its own host; that it is there the other cannot know.
    late.reaches(web);
    one.answers(&late, "db", &[&db.address]);
    short.del();
    // What it knows of the others it knows from its disk, then; the network was created here.
    one.daemon.crash();
    one.daemon.start();
    one.answers(&late, "db", &[&db.address]);
    std::thread::sleep(Duration::from_secs(60).saturating_sub(began.elapsed()));
    one.answers(&late, "db", &[&db.address]);
    stage.etcd.start();
    stage.etcd.healthy();
    stage.nodes.iter().for_each(Node::is_connected);
    let [one, two, _] = &stage.nodes[..] else { panic!("three nodes") };
    db.reaches(&late);
    two.answers(db, "late", &[&late.address]);
    one.answers(web, "short", &[]);
    late.del();
}

/// The second agent stands still for half a minute and misses that a container came, and that another went.
fn standing_still(stage: &Stage<'_>, web: &Member<'_>, db: &Member<'_>) {
    let [one, two, _] = &stage.nodes[..] else { panic!("three nodes") };
    let going = one.add("c6", "going");
    db.reaches(&going);
    two.daemon.signal(Signal::STOP);
    let came = one.add("c7", "came");
    let address = going.address.clone();
    going.del();
    std::thread::sleep(Duration::from_secs(30));
    two.daemon.signal(Signal::CONT);
    two.is_connected();
    db.reaches(&came);
    two.answers(db, "came", &[&came.address]);
    two.answers(db, "going", &[]);
    assert_eq!(db.container.ping(&address, 1), 0);
    one.answers(web, "db", &[&db.address]);
    came.del();
}
