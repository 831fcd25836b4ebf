//! A cluster without a server: a file, and agents that talk to each other.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_integration::{Host, Lan, lan_test};
use berth_overlay::blocks::{Keeper, local_pool};
use berth_overlay::cluster::embedded::{EXCHANGE_PORT, Embedded, EmbeddedConfig};
use berth_overlay::cluster::{Cluster, ClusterError, Entry, Listing, News};
use berth_overlay::model::{Node, OverlayAttachment};
use berth_overlay::view::{NodeStatus, View};
use berth_store::{BootTime, Dirs, Store};
use berth_types::BootId;

use super::etcd::on;
use super::records::{attachment, container, lend, network, network_name, node, node_name};

const LEASE: Duration = Duration::from_secs(10);

/// Where the first host's LAN address ends; see [`Lan::join`].
const FIRST: u8 = 2;

fn text(peers: &[u8], networks: &[(&str, u32, &str)]) -> String {
    let peer = |number: &u8| {
        format!("    {{\"name\": \"n{number}\", \"vteps\": [\"198.51.100.{}\"]}}", FIRST + number)
    };
    let network = |(name, vni, subnet): &(&str, u32, &str)| {
        format!("    {{\"name\": \"{name}\", \"vni\": {vni}, \"subnets\": [\"{subnet}\"]}}")
    };
    let lines = |lines: Vec<String>| lines.join(",\n");
    let (peers, networks) =
        (lines(peers.iter().map(peer).collect()), lines(networks.iter().map(network).collect()));
    format!("{{\n  \"v\": 1,\n  \"peers\": [\n{peers}\n  ],\n  \"networks\": [\n{networks}\n  ]\n}}\n")
}

const BLUE: (&str, u32, &str) = ("blue", 4096, "10.7.0.0/24");

fn config(host: &Host, number: u8) -> EmbeddedConfig {
    EmbeddedConfig { file: path(host), own: node_name(&format!("n{number}")), port: EXCHANGE_PORT }
}

fn path(host: &Host) -> PathBuf {
    host.dir().join("peers.json")
}

/// Written beside and renamed, as people's tools do.
fn write(host: &Host, text: &str) {
    let part = host.dir().join("peers.part");
    std::fs::write(&part, text).unwrap();
    std::fs::rename(part, path(host)).unwrap();
}

fn own(number: u8) -> Node {
    Node {
        vtep4: Some([198, 51, 100, FIRST + number].into()),
        epoch: 1,
        ..node(&format!("n{number}"), number)
    }
}

/// An agent on `host`, joined.
async fn agent(host: &Host, number: u8, remembered: Listing) -> Embedded {
    let agent = Embedded::start(config(host, number), remembered).await.unwrap();
    assert_eq!(agent.join(&own(number)).await.unwrap(), 1);
    agent.present(&own(number), LEASE).await.unwrap();
    agent
}

fn of(number: u8, name: &str, address: &str, generation: u64) -> OverlayAttachment {
    attachment(&own(number), name, address, generation)
}

/// Waits until `check` is so of what `agent` sees.
async fn sees(agent: &Embedded, what: &str, check: impl Fn(&View) -> bool) {
    let until = Instant::now() + Duration::from_secs(25);
    loop {
        let mut view = View::default();
        view.replace(agent.list().await.unwrap());
        if check(&view) {
            return;
        }
        assert!(Instant::now() < until, "{what}: {:?}", view.entries());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn has(view: &View, attachment: &OverlayAttachment) -> bool {
    let found = view
        .network(&attachment.network)
        .and_then(|network| network.attachment(&attachment.node, &attachment.of));
    found.is_some_and(|found| **found == *attachment)
}

/// Two hosts and a third who may mean harm, on one LAN.
fn two_hosts(test: impl FnOnce(&Host, &Host, &Lan)) {
    lan_test(|first, lan, seat| {
        assert_eq!(seat.v4, std::net::Ipv4Addr::new(198, 51, 100, FIRST));
        let second = Host::new();
        lan.join(&second);
        test(first, &second, lan);
    });
}

/// Runs `one` on a thread of the first host and `two` on one of the second, each with a channel to say how far it is.
fn both(hosts: (&Host, &Host), one: impl AsyncFnOnce(Steps) + Send, two: impl AsyncFnOnce(Steps) + Send) {
    let ((to_two, from_one), (to_one, from_two)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    std::thread::scope(|scope| {
        let (first, second) = hosts;
        scope.spawn(move || inside(first, one, Steps { to: to_two, from: from_two }));
        scope.spawn(move || inside(second, two, Steps { to: to_one, from: from_one }));
    });
}

fn inside(host: &Host, work: impl AsyncFnOnce(Steps) + Send, steps: Steps) {
    host.inside(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(steps));
        runtime.shutdown_background();
    });
}

/// How two threads wait for each other, while their agents go on.
struct Steps {
    to: std::sync::mpsc::Sender<u32>,
    from: std::sync::mpsc::Receiver<u32>,
}

impl Steps {
    fn reached(&self, step: u32) {
        self.to.send(step).unwrap();
    }

    async fn other(&self, step: u32) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match self.from.try_recv() {
                Ok(reached) => return assert_eq!(reached, step),
                Err(std::sync::mpsc::TryRecvError::Empty) if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(err) => panic!("step {step}: {err}"),
            }
        }
    }
}

#[test]
fn peers_tell_each_other_their_attachments_and_a_silent_one_keeps_them() {
    two_hosts(|first, second, _| {
        for host in [first, second] {
            write(host, &text(&[0, 1], &[BLUE]));
        }
        let (a, b) = (of(0, "a", "10.7.0.2", 1), of(1, "b", "10.7.0.18", 1));
        let one = async |steps: Steps| {
            let agent = agent(first, 0, Listing::default()).await;
            agent.put_attachment(&a).await.unwrap();
            sees(&agent, "b", |view| has(view, &b)).await;
            steps.reached(1);
            // A change is told, not looked for.
            let moved = OverlayAttachment { generation: 2, names: ["anew".to_owned()].into(), ..b.clone() };
            sees(&agent, "b anew", |view| has(view, &moved)).await;
            let alive = |view: &View| view.node(&node_name("n1")).map(|node| node.status());
            sees(&agent, "n1 alive", |view| alive(view) == Some(NodeStatus::Alive)).await;
            steps.reached(2);
            steps.other(3).await;
            // The other agent is gone: its containers are not.
            sees(&agent, "n1 suspect", |view| alive(view) == Some(NodeStatus::Suspect) && has(view, &moved))
                .await;
            // So it is after this one was started anew, with what it saw last.
            let remembered = agent.list().await.unwrap();
            drop(agent);
            let again = self::agent(first, 0, remembered).await;
            sees(&again, "b after a start", |view| has(view, &moved)).await;
            again.put_attachment(&a).await.unwrap();
            steps.reached(4);
            // The other returns without it.
            sees(&again, "b gone", |view| !has(view, &moved) && alive(view) == Some(NodeStatus::Alive)).await;
            steps.reached(5);
        };
        let two = async |steps: Steps| {
            let agent = agent(second, 1, Listing::default()).await;
            agent.put_attachment(&b).await.unwrap();
            steps.other(1).await;
            let moved = OverlayAttachment { generation: 2, names: ["anew".to_owned()].into(), ..b.clone() };
            agent.put_attachment(&moved).await.unwrap();
            sees(&agent, "a", |view| has(view, &a)).await;
            // Addresses are one's own: what the other has is refused, and so is its part.
            let taken = agent.put_attachment(&of(1, "c", "10.7.0.2", 1)).await;
            assert!(matches!(taken, Err(ClusterError::Taken { .. })), "{taken:?}");
            let part = agent.put_attachment(&of(1, "c", "10.7.0.9", 1)).await;
            assert!(matches!(part, Err(ClusterError::Taken { .. })), "{part:?}");
            steps.other(2).await;
            drop(agent);
            steps.reached(3);
            steps.other(4).await;
            let again = self::agent(second, 1, Listing::default()).await;
            sees(&again, "a after a start", |view| has(view, &a)).await;
            steps.other(5).await;
            drop(again);
        };
        both((first, second), one, two);
    });
}

#[test]
fn a_changed_file_is_followed_and_a_bad_one_refused_by_line() {
    two_hosts(|host, _, _| {
        write(host, &text(&[0, 1], &[BLUE]));
        on(host, async {
            let agent = agent(host, 0, Listing::default()).await;
            let mut view = View::default();
            view.replace(agent.list().await.unwrap());
            let mut watch = agent.watch(view.revision()).await.unwrap();
            write(host, &text(&[0, 1, 2], &[BLUE, ("red", 4097, "10.8.0.0/24")]));
            while view.network(&network_name("red")).is_none() || view.node(&node_name("n2")).is_none() {
                let News::Changes { revision, changes } = watch.next().await.unwrap() else { panic!("lost") };
                view.apply(revision, changes);
            }
            let bad = text(&[0, 1], &[BLUE, ("red", 4096, "10.8.0.0/24")]);
            write(host, &bad);
            let said = |view: &View, what: &str| view.foreign().any(|foreign| foreign.why.contains(what));
            sees(&agent, "the reason", |view| said(view, "line 9: VNI 4096 is taken: network `blue` has it"))
                .await;
            sees(&agent, "the last good one", |view| view.network(&network_name("red")).is_some()).await;
            std::fs::remove_file(path(host)).unwrap();
            sees(&agent, "the missing file", |view| said(view, "cannot read it")).await;
            write(host, &text(&[1], &[BLUE]));
            sees(&agent, "itself missing", |view| said(view, "this node, `n0`, is not among its peers"))
                .await;
            write(host, &text(&[0, 1], &[BLUE]));
            let gone = |view: &View| {
                view.network(&network_name("red")).is_none() && view.node(&node_name("n2")).is_none()
            };
            sees(&agent, "good again", |view| gone(view) && view.foreign().count() == 0).await;
        });
        write(host, "{");
        let refused =
            on(host, async { Embedded::start(config(host, 0), Listing::default()).await.map(drop) });
        assert!(refused.unwrap_err().to_string().contains("line 1: "));
        std::fs::remove_file(path(host)).unwrap();
    });
}

#[test]
fn a_node_gives_from_its_part_alone() {
    two_hosts(|host, _, _| {
        write(host, &text(&[0, 1], &[BLUE]));
        let dirs = Dirs::under(&host.dir().join("records"));
        on(host, async {
            let agent = agent(host, 1, Listing::default()).await;
            let mut store = Store::open(&dirs, BootId::new("boot")).unwrap();
            let mut view = View::default();
            view.replace(agent.list().await.unwrap());
            let blue = view.network(&network_name("blue")).unwrap();
            let record = blue.record().unwrap();
            let own = own(1);
            let keeper = Keeper { cluster: &agent, node: &own };
            let tended = keeper.tend(&mut store, blue, BootTime { millis: 1 }).await.unwrap();
            assert_eq!(tended.claimed, ["10.7.0.16/28".parse().unwrap()]);
            let pool = store.read(|tx| local_pool(tx, record)).unwrap().unwrap();
            assert_eq!(pool.sets[0].to_string(), "10.7.0.16-10.7.0.31");
            let theirs: IpAddr = "10.7.0.5".parse().unwrap();
            let refused =
                keeper.borrow(&mut store, record, &container("c"), theirs).await.unwrap_err().to_string();
            assert_eq!(
                refused,
                "address 10.7.0.5 of network `blue` is taken: node n0 (the file deals its part to it) has it"
            );
            let unsupported =
                agent.create_network(&network("red", 5000, "10.9.0.0/24")).await.unwrap_err().to_string();
            assert!(
                unsupported.ends_with("cannot create networks: add the network to the file, on every node")
            );
            assert_eq!(lend(&own, "10.7.0.5").borrower, own.name);
            assert!(
                agent
                    .list()
                    .await
                    .unwrap()
                    .entries
                    .iter()
                    .any(|entry| matches!(entry, Entry::Block(block) if block.owner == own.name))
            );
        });
        std::fs::remove_dir_all(host.dir().join("records")).unwrap();
        std::fs::remove_file(path(host)).unwrap();
    });
}

#[test]
fn who_is_not_listed_hears_nothing() {
    two_hosts(|host, _, lan| {
        write(host, &text(&[0, 1], &[BLUE]));
        on(host, async {
            let agent = agent(host, 0, Listing::default()).await;
            agent.put_attachment(&of(0, "a", "10.7.0.2", 1)).await.unwrap();
            // The neighbour connects from an address that is no peer's.
            let line = format!("echo | busybox nc -w 5 198.51.100.{FIRST} {EXCHANGE_PORT} || true");
            let until = Instant::now() + Duration::from_secs(10);
            while tokio::net::TcpStream::connect(("198.51.100.2", EXCHANGE_PORT)).await.is_err() {
                assert!(Instant::now() < until, "nobody listens");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let command = lan.cmd("sh").args(["-c", &line]);
            let heard = tokio::task::spawn_blocking(move || command.run()).await.unwrap();
            assert_eq!(heard, "");
        });
        std::fs::remove_file(path(host)).unwrap();
    });
}
