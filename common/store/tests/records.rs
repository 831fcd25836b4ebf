//! What is written is what is read, and what must be unique is refused twice.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use berth_store::{
    AttachmentState, BeginError, BlockRow, BlockStage, BootTime, ClaimError, ClusterNode, LeaseScope,
    LendDirection, LendRow, NewAttachment, Owner, Store, StoreError, Tx,
};
use berth_types::{AttachmentKey, BootId, IfName, NetworkName, Proto, SandboxId};
use common::{Host, key, key_on, port};

fn new(key: AttachmentKey, host_ifname: Option<&str>) -> NewAttachment {
    NewAttachment {
        key,
        sandbox: Some((PathBuf::from("/run/netns/a"), SandboxId { dev: 4, ino: u64::MAX })),
        host_ifname: host_ifname.map(|name| IfName::new(name).unwrap()),
        payload: r#"{"v":1}"#.to_owned(),
    }
}

#[test]
fn directories_and_files_are_their_owner_s_alone() {
    let host = Host::new();
    let mut store = host.open();
    store.write(|tx| tx.network_put(&key("a").network, "{}")).unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(host.dirs.run.clone()), 0o700);
    assert_eq!(mode(host.dirs.state.clone()), 0o700);
    for file in ["run.db", "run.db-wal", "run.db-shm", "run.db.lock"] {
        assert_eq!(mode(host.dirs.run.join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(host.dirs.state.join("state.db")), 0o600);
}

#[test]
fn the_durable_file_is_not_made_by_reading() {
    let host = Host::new();
    let mut store = host.open();
    assert!(store.is_unsettled());
    assert_eq!(store.read(|tx| tx.networks()).unwrap(), []);
    assert!(!store.write(|tx| tx.network_remove(&key("a").network)).unwrap());
    assert!(!host.dirs.state.exists());
}

#[test]
fn an_attachment_goes_from_pending_to_ready_to_deleting() {
    let host = Host::new();
    let mut store = host.open();
    let key = key("a");
    store.write(|tx| tx.attachment_begin(&new(key.clone(), Some("veth0")))).unwrap();
    let row = store.read(|tx| tx.attachment(&key)).unwrap().unwrap();
    assert_eq!(row.state, AttachmentState::Pending);
    assert_eq!(row.owner, Owner::current());
    assert!(row.is_owner_alive(&BootId::new("boot-1")) && !row.is_owner_alive(&BootId::new("boot-2")));
    assert_eq!(row.sandbox, new(key.clone(), None).sandbox);
    assert!(store.write(|tx| tx.attachment_ready(&key, "after")).unwrap());
    let row = store.read(|tx| tx.attachment(&key)).unwrap().unwrap();
    assert_eq!((row.state, row.payload.as_str()), (AttachmentState::Ready, "after"));
    assert!(store.read(|tx| tx.attachments_to_unrule()).unwrap().is_empty());
    assert!(store.write(|tx| tx.attachment_deleting(&key)).unwrap());
    let to_unrule = store.read(|tx| tx.attachments_to_unrule()).unwrap();
    assert_eq!(to_unrule.iter().map(|row| &row.key).collect::<Vec<_>>(), [&key]);
    store.write(|tx| tx.attachments_unruled(std::slice::from_ref(&key))).unwrap();
    assert!(store.read(|tx| tx.attachments_to_unrule()).unwrap().is_empty());
    assert!(store.read(|tx| tx.attachment(&key)).unwrap().unwrap().rules_gone);
    assert!(store.write(|tx| tx.attachment_remove(&key)).unwrap());
    assert!(!store.write(|tx| tx.attachment_remove(&key)).unwrap());
    assert!(!store.write(|tx| tx.attachment_ready(&key, "")).unwrap());
}

#[test]
fn a_second_attachment_of_one_key_or_one_host_interface_is_refused_by_its_holder() {
    let host = Host::new();
    let mut store = host.open();
    store.write(|tx| tx.attachment_begin(&new(key("a"), Some("veth0")))).unwrap();
    match store.write(|tx| tx.attachment_begin(&new(key("a"), None))) {
        Err(BeginError::Exists(row)) => assert_eq!(row.key, key("a")),
        other => panic!("{other:?}"),
    }
    match store.write(|tx| tx.attachment_begin(&new(key("b"), Some("veth0")))) {
        Err(BeginError::HostIfname { name, holder }) => {
            assert_eq!((name.as_str(), holder), ("veth0", key("a")))
        }
        other => panic!("{other:?}"),
    }
    store.write(|tx| tx.attachment_begin(&new(key("b"), None))).unwrap();
    store.write(|tx| tx.attachment_begin(&new(key("c"), None))).unwrap();
    assert_eq!(store.read(|tx| tx.attachments()).unwrap().len(), 3);
    assert_eq!(store.read(|tx| tx.attachments_of(&NetworkName::new("n1").unwrap())).unwrap(), []);
}

#[test]
fn a_failed_or_panicking_write_leaves_nothing() {
    let host = Host::new();
    let mut store = host.open();
    let failed: Result<(), BeginError> = store.write(|tx| {
        tx.attachment_begin(&new(key("a"), None))?;
        tx.attachment_begin(&new(key("a"), None))
    });
    assert!(failed.is_err());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.write(|tx| -> Result<(), BeginError> {
            tx.attachment_begin(&new(key("b"), None))?;
            panic!("the caller's bug")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(store.read(|tx| tx.attachments()).unwrap(), []);
}

#[test]
fn networks_are_declared_and_live_apart() {
    let host = Host::new();
    let mut store = host.open();
    let name = NetworkName::new("n0").unwrap();
    let bridge = IfName::new("br0").unwrap();
    store.write(|tx| tx.network_put(&name, "declared")).unwrap();
    let created = store.read(|tx| tx.network(&name)).unwrap().unwrap().created_ms;
    store.write(|tx| tx.network_put(&name, "again")).unwrap();
    store.write(|tx| tx.live_network_put(&name, Some(&bridge), "live")).unwrap();
    let declared = store.read(|tx| tx.network(&name)).unwrap().unwrap();
    assert_eq!((declared.payload.as_str(), declared.created_ms), ("again", created));
    let live = store.read(|tx| tx.live_network(&name)).unwrap().unwrap();
    assert_eq!((live.payload.as_str(), live.bridge), ("live", Some(bridge)));
    assert_eq!(live.boot_id, BootId::new("boot-1"));
    assert!(store.write(|tx| tx.live_network_remove(&name)).unwrap());
    assert_eq!(store.read(|tx| tx.live_networks()).unwrap(), []);
    assert_eq!(host.open().read(|tx| tx.networks()).unwrap().len(), 1);
    assert!(store.write(|tx| tx.network_remove(&name)).unwrap());
}

#[test]
fn the_first_saved_sysctl_is_kept() {
    let host = Host::new();
    let mut store = host.open();
    let key = "net/ipv4/ip_forward";
    assert!(store.write(|tx| tx.sysctl_save(key, "0", "1")).unwrap());
    assert!(!store.write(|tx| tx.sysctl_save(key, "1", "1")).unwrap());
    let saved = store.read(|tx| tx.sysctls_saved()).unwrap();
    assert_eq!((saved[0].before.as_str(), saved[0].after.as_str()), ("0", "1"));
    assert!(store.write(|tx| tx.sysctl_forget(key)).unwrap());
    assert!(!store.write(|tx| tx.sysctl_forget(key)).unwrap());
}

#[test]
fn a_port_has_one_holder_and_any_address_meets_every_address() {
    let (any, one, two) = ("0.0.0.0", "192.0.2.1", "192.0.2.2");
    // first claim, second claim, whether the second is refused
    let table = [
        (port(any, 80, 1), port(any, 80, 1), true),
        (port(any, 80, 1), port(one, 80, 1), true),
        (port(one, 80, 1), port(any, 80, 1), true),
        (port(one, 80, 1), port(two, 80, 1), false),
        (port(any, 80, 1), port("::", 80, 1), false),
        (port(any, 80, 1), port(any, 81, 1), false),
        (port(any, 80, 10), port(one, 89, 5), true),
        (port(any, 80, 10), port(one, 90, 5), false),
        (port(any, 65535, 1), port(any, 65530, 6), true),
    ];
    for (first, second, refused) in table {
        let host = Host::new();
        let mut store = host.open();
        store.write(|tx| tx.ports_claim(&key("a"), &[first])).unwrap();
        let claimed = store.write(|tx| tx.ports_claim(&key("b"), &[second]));
        match claimed {
            Err(ClaimError::Taken(taken)) => {
                assert!(refused, "{first} refused {second}");
                assert_eq!((taken.holder, taken.held_addr), (key("a"), first.host_addr));
            }
            other => assert!(other.is_ok() && !refused, "{first} let {second} pass"),
        }
        let expected = if refused { vec![] } else { vec![second] };
        assert_eq!(store.read(|tx| tx.ports_of(&key("b"))).unwrap(), expected);
    }
}

#[test]
fn another_protocol_is_another_port() {
    let host = Host::new();
    let mut store = host.open();
    let mut udp = port("0.0.0.0", 53, 1);
    store.write(|tx| tx.ports_claim(&key("a"), &[udp])).unwrap();
    udp.proto = Proto::Udp;
    store.write(|tx| tx.ports_claim(&key("b"), &[udp])).unwrap();
    let holder = |store: &mut Store, proto| {
        store.read(|tx| tx.port_holder(proto, "192.0.2.9".parse().unwrap(), 53)).unwrap()
    };
    assert_eq!(holder(&mut store, Proto::Tcp), Some(key("a")));
    assert_eq!(holder(&mut store, Proto::Udp), Some(key("b")));
    assert_eq!(holder(&mut store, Proto::Sctp), None);
}

#[test]
fn released_ports_come_back_as_they_were_claimed() {
    let host = Host::new();
    let mut store = host.open();
    let claimed = [port("0.0.0.0", 8000, 100), port("::", 8000, 100), port("192.0.2.1", 22, 1)];
    store.write(|tx| tx.ports_claim(&key("a"), &claimed)).unwrap();
    store.write(|tx| tx.ports_claim(&key("a"), &claimed)).unwrap();
    // A part of a range with the same targets is the same claim; with another target it is not.
    let part = {
        let mut part = port("0.0.0.0", 8001, 1);
        part.target_port = 81;
        part
    };
    store.write(|tx| tx.ports_claim(&key("a"), &[part])).unwrap();
    let err = store.write(|tx| tx.ports_claim(&key("a"), &[port("0.0.0.0", 8001, 1)])).unwrap_err();
    assert!(matches!(&err, ClaimError::Taken(taken) if taken.holder == key("a")), "{err}");
    let mut all = claimed.to_vec();
    all.push(part);
    assert_eq!(store.write(|tx| tx.ports_release(&key("a"))).unwrap(), all);
    assert_eq!(store.write(|tx| tx.ports_release(&key("a"))).unwrap(), []);
    assert_eq!(store.read(|tx| tx.ports()).unwrap(), []);
    store.write(|tx| tx.ports_claim(&key("b"), &claimed)).unwrap();
}

#[test]
fn an_address_of_a_scope_has_one_holder() {
    let host = Host::new();
    let mut store = host.open();
    let scope = LeaseScope::new(&key("a").network, None);
    let elsewhere = LeaseScope::new(&key("a").network, Some("/data".as_ref()));
    let address = "10.80.0.2".parse().unwrap();
    let add = |tx: &Tx<'_>, scope, owner: &AttachmentKey| tx.lease_add(scope, address, (owner, None), 1);
    assert!(store.write(|tx| add(tx, &scope, &key("a"))).unwrap());
    assert!(!store.write(|tx| add(tx, &scope, &key("b"))).unwrap());
    assert!(store.write(|tx| add(tx, &elsewhere, &key("b"))).unwrap());
    assert_eq!(store.read(|tx| tx.lease(&scope, address)).unwrap().unwrap().owner, key("a"));
    let now = BootTime { millis: 5 };
    assert!(store.write(|tx| tx.lease_remove(&scope, address, now)).unwrap());
    assert!(!store.write(|tx| tx.lease_remove(&scope, address, now)).unwrap());
    assert_eq!(store.read(|tx| tx.freed_oldest(1)).unwrap().unwrap().since, now);
}

#[test]
fn another_boot_drops_what_belongs_to_a_boot_and_keeps_what_must_be_cleaned() {
    let host = Host::new();
    let mut store = host.open();
    let scope = LeaseScope::new(&key("a").network, None);
    let address = "10.80.0.2".parse().unwrap();
    store
        .write(|tx| -> Result<(), StoreError> {
            tx.attachment_begin(&new(key("a"), Some("veth0"))).unwrap();
            tx.lease_add(&scope, address, (&key("a"), None), 1)?;
            tx.ports_claim(&key("a"), &[port("0.0.0.0", 80, 1)]).unwrap();
            tx.sysctl_save("k", "0", "1")?;
            tx.live_network_put(&key("a").network, None, "live")?;
            tx.network_put(&key("a").network, "declared")
        })
        .unwrap();
    drop(store);
    let mut store = host.open_in("boot-2");
    assert!(store.is_unsettled());
    let stale = store.read(|tx| tx.stale_attachments(&BootId::new("boot-2"))).unwrap();
    assert_eq!(stale.len(), 1);
    assert!(!stale[0].is_owner_alive(&BootId::new("boot-2")));
    assert_eq!(store.read(|tx| tx.live_networks()).unwrap()[0].boot_id, BootId::new("boot-1"));
    assert_eq!(store.read(|tx| tx.leases_of(&key("a"))).unwrap(), []);
    assert_eq!(store.read(|tx| tx.ports()).unwrap(), []);
    assert_eq!(store.read(|tx| tx.sysctls_saved()).unwrap(), []);
    assert_eq!(store.read(|tx| tx.networks()).unwrap().len(), 1);
    store.write(|tx| tx.ports_claim(&key_on("n1", "b"), &[port("0.0.0.0", 80, 1)])).unwrap();
}

#[test]
fn records_are_unsettled_until_somebody_says_so_whoever_made_them() {
    let host = Host::new();
    assert!(host.open().is_unsettled());
    assert!(host.open().is_unsettled(), "whoever made the file may have been killed");
    host.open().write(|tx| tx.settle()).unwrap();
    assert!(!host.open().is_unsettled());
}

#[test]
fn looking_makes_and_changes_nothing() {
    let host = Host::new();
    let look = |boot: &str| Store::open_read_only(&host.dirs, BootId::new(boot));
    assert!(look("boot-1").unwrap().is_none());
    assert!(!host.dirs.run.exists());
    let mut store = host.open();
    store.write(|tx| tx.sysctl_save("k", "0", "1")).unwrap();
    drop(store);
    let before = std::fs::read(host.dirs.run.join("run.db")).unwrap();
    // Not even what belongs to a boot that is over.
    let mut looking = look("boot-2").unwrap().unwrap();
    assert_eq!(looking.read(|tx| tx.sysctls_saved()).unwrap().len(), 1);
    let refused = looking.write(|tx| tx.sysctl_save("l", "0", "1")).unwrap_err();
    assert!(matches!(refused, StoreError::ReadOnly { .. }), "{refused}");
    drop(looking);
    assert_eq!(std::fs::read(host.dirs.run.join("run.db")).unwrap(), before);
    let names = std::fs::read_dir(&host.dirs.run).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().contains("db-")), "no log is left behind");
    // Nor what is damaged.
    std::fs::write(host.dirs.run.join("run.db"), b"no database ".repeat(500)).unwrap();
    assert!(matches!(look("boot-1"), Err(StoreError::Corrupt { .. })));
    assert_eq!(std::fs::metadata(host.dirs.run.join("run.db")).unwrap().len(), 6000);
}

#[test]
fn a_long_lived_store_notices_that_the_directory_was_wiped() {
    let host = Host::new();
    let mut daemon = host.open();
    daemon.write(|tx| tx.attachment_begin(&new(key("a"), None))).unwrap();
    std::fs::remove_dir_all(&host.dirs.run).unwrap();
    let mut other = host.open();
    assert!(other.is_unsettled());
    other.write(|tx| tx.attachment_begin(&new(key("b"), None))).unwrap();
    let rows = daemon.read(|tx| tx.attachments()).unwrap();
    assert_eq!(rows.iter().map(|row| &row.key).collect::<Vec<_>>(), [&key("b")]);
}

#[test]
fn what_is_known_of_the_cluster_outlives_a_boot_and_is_forgotten_whole() {
    let host = Host::new();
    let mut store = host.open();
    let blue = NetworkName::new("blue").unwrap();
    let node = ClusterNode {
        name: "node1".parse().unwrap(),
        identity: "0123".to_owned(),
        epoch: 3,
        payload: "{}".to_owned(),
    };
    let block = BlockRow {
        network: blue.clone(),
        cidr: "10.0.0.16/28".parse().unwrap(),
        stage: BlockStage::Open,
        payload: "{}".to_owned(),
    };
    let lend = LendRow {
        network: NetworkName::new("red").unwrap(),
        address: "fd00::5".parse().unwrap(),
        direction: LendDirection::Taken,
        payload: "{}".to_owned(),
    };
    assert_eq!(store.read(|tx| tx.cluster_node()).unwrap(), None);
    assert!(!host.dirs.state.exists());
    store
        .write(|tx| -> Result<(), StoreError> {
            tx.cluster_node_put(&node)?;
            tx.cluster_seen(5, [("nets/blue", Some(&b"1"[..])), ("nets/red", Some(&b"2"[..]))])?;
            tx.cluster_seen(6, [("nets/blue", None), ("nets/red", Some(&b"3"[..]))])?;
            tx.cluster_block_put(&block)?;
            tx.cluster_lend_put(&lend)
        })
        .unwrap();
    drop(store);
    let mut store = host.open_in("boot-2");
    store
        .write(|tx| -> Result<(), StoreError> {
            assert_eq!(tx.cluster_node()?, Some(node));
            assert_eq!(tx.cluster_revision()?, 6);
            assert_eq!(tx.cluster_records()?, [("nets/red".to_owned(), b"3".to_vec())]);
            assert_eq!(tx.cluster_records_below("nets/")?, tx.cluster_records()?);
            assert_eq!(tx.cluster_records_below("nodes/")?, []);
            assert_eq!(tx.cluster_blocks(&blue)?, std::slice::from_ref(&block));
            assert_eq!(tx.cluster_lends(&lend.network)?, std::slice::from_ref(&lend));
            assert_eq!(tx.cluster_block_networks()?, [blue.clone(), lend.network.clone()]);
            let draining = BlockRow { stage: BlockStage::Draining, ..block.clone() };
            tx.cluster_block_put(&draining)?;
            assert_eq!(tx.cluster_blocks(&blue)?, [draining]);
            assert!(
                tx.cluster_block_remove(&blue, block.cidr)? && !tx.cluster_block_remove(&blue, block.cidr)?
            );
            assert!(tx.cluster_lend_remove(&lend.network, lend.address)?);
            tx.cluster_forget()?;
            assert_eq!(
                (tx.cluster_node()?, tx.cluster_revision()?, tx.cluster_records()?),
                (None, 0, Vec::new())
            );
            Ok(())
        })
        .unwrap();
}

#[test]
fn an_engine_knows_a_network_by_one_number() {
    let host = Host::new();
    let mut store = host.open();
    let [blue, red] = ["blue", "red"].map(|name| NetworkName::new(name).unwrap());
    let mut add = |engine: &str, id: &str, network: &NetworkName| {
        store.write(|tx| tx.engine_network_add(engine, (id, network), "{}")).unwrap()
    };
    assert!(add("docker", "aa11", &blue));
    assert!(!add("docker", "bb22", &blue), "by a second number");
    assert!(!add("docker", "aa11", &red), "a second one by the number");
    assert!(add("docker", "bb22", &red) && add("other", "aa11", &blue));
    drop(store);
    let mut store = Store::open(&host.dirs, BootId::new("boot-2")).unwrap();
    let row = store.read(|tx| tx.engine_network("docker", "aa11")).unwrap().unwrap();
    assert_eq!((row.network, row.payload.as_str()), (blue, "{}"));
    assert!(store.write(|tx| tx.engine_network_remove("docker", "aa11")).unwrap());
    assert!(!store.write(|tx| tx.engine_network_remove("docker", "aa11")).unwrap());
    let left = store.read(|tx| tx.engine_networks("docker")).unwrap();
    assert_eq!(left.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["bb22"]);
}
