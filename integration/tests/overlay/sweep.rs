//! `roverlay` killed, and failed, at its system calls beside another host that looks on: whatever became of the call, a DEL
//! and a collection later the host is as before, and so are the cluster's records and the other host's kernel.

use berth_integration::{Call, Fault, Injection, Snapshot, eventually, sweep};

use crate::stage::{Member, Node, SOON, Stage, stage_test};

/// Calls by which an ADD or a DEL can change something: of the kernel, of the records, of the agent's mind.
const CALLS: &[&str] = &[
    "sendmsg",
    "sendto",
    "recvfrom",
    "connect",
    "write",
    "pwrite64",
    "fdatasync",
    "unlink",
    "ftruncate",
    "setns",
];

/// Of these, what fails with one error: requests to the kernel and the agent, their answers, and records.
const MESSAGES: &[&str] = &["sendmsg", "sendto", "connect", "setns"];
const ANSWERS: &[&str] = &["recvfrom", "recvmsg"];
const WRITES: &[&str] = &["write", "pwrite64", "fdatasync", "ftruncate"];

/// What of a stage is to be as before.
struct Standing<'a, 's> {
    stage: &'a Stage<'s>,
    host: Snapshot,
    records: String,
    entries: String,
}

impl<'a, 's> Standing<'a, 's> {
    fn of(stage: &'a Stage<'s>) -> Self {
        let host = Snapshot::of(stage.nodes[0].host);
        Self { stage, host, records: records(stage), entries: entries(&stage.nodes[1]) }
    }

    /// Requires that all is as before.
    #[track_caller]
    fn is_again(&self, injection: &Injection) {
        eventually(SOON, || {
            let host = self.host.difference(&Snapshot::of(self.stage.nodes[0].host));
            let (records, entries) = (records(self.stage), entries(&self.stage.nodes[1]));
            if host.is_empty() && records == self.records && entries == self.entries {
                return Ok(());
            }
            Err(format!(
                "fault {} at `{}` left (- gone, + left):\n{host}\nin the cluster:\n{records}\non the other host:\n{entries}",
                injection.when(),
                injection.hit()
            ))
        });
    }
}

/// The keys of attachments in the cluster.
fn records(stage: &Stage<'_>) -> String {
    stage.etcd.ctl(&["get", "--prefix", "--keys-only", "/berth/v1/ep/"])
}

/// What a node's kernel holds of other nodes' containers.
fn entries(node: &Node<'_>) -> String {
    let lines = node.host.run("bridge fdb show | grep bvx; ip neigh show nud permanent");
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Collects until the container is gone: its link lives as long as the kernel takes to end its namespace.
fn collect(node: &Node<'_>) {
    eventually(SOON, || {
        node.host.gc();
        match node.json("ps").as_array().unwrap().iter().find(|held| held["container"] == "a") {
            None => Ok(()),
            Some(held) => Err(format!("still attached: {held}")),
        }
    });
}

#[track_caller]
fn must_succeed(call: &Call<'_>, command: &str, injection: &Injection) {
    let ran = call.cmd(command).output();
    let at = injection.hit();
    assert!(ran.status.success(), "after fault {} at `{at}`, {command}: {ran}", injection.when());
}

fn sweep_test(fault: Fault, calls: &[&str], round: impl Fn(&Node<'_>, &Injection)) {
    stage_test(2, |stage| {
        // Addresses rest for a minute after use: there have to be more than rounds.
        stage.nodes[0].berth("network create -d overlay blue --subnet 10.5.0.0/16");
        let (web, db) = (stage.nodes[0].add("c1", "web"), stage.nodes[1].add("c2", "db"));
        web.reaches(&db);
        let before = Standing::of(stage);
        let node = &stage.nodes[0];
        let faults = sweep(node.host, fault, calls, |injection| {
            round(node, injection);
            collect(node);
            before.is_again(injection);
            assert_eq!(db.container.ping(&web.address, 1), 1, "fault {}", injection.when());
        });
        assert!(faults > 0, "nothing was hit");
        [web, db].into_iter().for_each(Member::del);
    });
}

fn call<'s>(node: &Node<'s>, container: &berth_integration::Container<'s>) -> Call<'s> {
    node.call().id("a").container(container).args("IgnoreUnknown=1;K8S_POD_NAME=a")
}

/// One in three times the runtime calls DEL, one in three it tries again at once, and one in three it forgets the container
/// altogether.
fn hit_add(node: &Node<'_>, injection: &Injection) {
    let container = node.host.container("a");
    let call = call(node, &container);
    let ran = call.clone().inject(injection).cmd("ADD").output();
    match injection.when() % 3 {
        0 => must_succeed(&call, "DEL", injection),
        1 => {
            let again = call.cmd("ADD").output();
            let is_done = ran.status.success() || again.stdout.contains("is attached already");
            assert!(again.status.success() || is_done, "{}: {ran}\nand again: {again}", injection.hit());
            must_succeed(&call, "DEL", injection);
        }
        _ => return container.remove(),
    }
    drop(container);
}

fn hit_del(node: &Node<'_>, injection: &Injection) {
    let container = node.host.container("a");
    let call = call(node, &container);
    must_succeed(&call, "ADD", injection);
    call.clone().inject(injection).cmd("DEL").output();
    if injection.when().is_multiple_of(2) {
        must_succeed(&call, "DEL", injection);
        drop(container);
    } else {
        container.remove();
    }
}

macro_rules! sweeps {
    ($($name:ident: $round:ident($fault:expr, $calls:expr);)*) => {
        $(
            #[test]
            fn $name() {
                sweep_test($fault, $calls, $round);
            }
        )*
    };
}

sweeps! {
    an_add_killed_anywhere_leaves_nothing_on_any_host: hit_add(Fault::Kill, CALLS);
    a_del_killed_anywhere_leaves_nothing_on_any_host: hit_del(Fault::Kill, CALLS);
    an_add_whose_messages_fail_leaves_nothing_on_any_host: hit_add(Fault::Error("ENOMEM"), MESSAGES);
    an_add_whose_answers_fail_leaves_nothing_on_any_host: hit_add(Fault::Error("EIO"), ANSWERS);
    an_add_whose_disk_is_full_leaves_nothing_on_any_host: hit_add(Fault::Error("ENOSPC"), WRITES);
    a_del_whose_messages_fail_leaves_nothing_on_any_host: hit_del(Fault::Error("ENOMEM"), MESSAGES);
    a_del_whose_answers_fail_leaves_nothing_on_any_host: hit_del(Fault::Error("EIO"), ANSWERS);
    a_del_whose_disk_is_full_leaves_nothing_on_any_host: hit_del(Fault::Error("ENOSPC"), WRITES);
}
