//! Damaged, foreign, newer, read-only and full databases.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod common;

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use berth_store::{Store, StoreError};
use berth_types::{BootId, NetworkName};
use common::{Host, key};

fn name() -> NetworkName {
    key("a").network
}

/// Fills both databases with enough rows for several pages, and closes them.
fn filled(host: &Host) {
    let mut store = host.open();
    let payload = "x".repeat(2000);
    store
        .write(|tx| -> Result<(), StoreError> {
            for n in 0..40 {
                let name = NetworkName::new(format!("n{n}")).unwrap();
                tx.live_network_put(&name, None, &payload)?;
                tx.network_put(&name, &payload)?;
            }
            Ok(())
        })
        .unwrap();
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

fn set_aside_files(dir: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".corrupt-")).collect()
}

type Damage = fn(&Path);

#[test]
fn a_damaged_run_file_is_set_aside_and_made_anew() {
    let damages: [(&str, Damage); 4] = [
        ("not a database", |path| {
            std::fs::write(path, b"this is no database, but it is longer than a header".repeat(99)).unwrap()
        }),
        ("a shorter text", |path| std::fs::write(path, b"short").unwrap()),
        ("truncated", |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 4096 / 2 * 4096).unwrap();
        }),
        ("the schema's page overwritten", |path| overwrite(path, 100, &[0xff; 3996])),
    ];
    for (damage, apply) in damages {
        let host = Host::new();
        filled(&host);
        apply(&host.dirs.run.join("run.db"));
        let mut store = host.open();
        assert!(store.is_unsettled(), "{damage}");
        let recovered = store.recovered();
        assert_eq!(recovered.len(), 1, "{damage}");
        assert!(recovered[0].moved_to.exists() && !recovered[0].why.is_empty(), "{damage}");
        assert_eq!(set_aside_files(&host.dirs.run).len(), 1, "{damage}");
        assert_eq!(store.read(|tx| tx.live_networks()).unwrap(), [], "{damage}");
        store.write(|tx| tx.live_network_put(&name(), None, "{}")).unwrap();
        assert_eq!(
            store.read(|tx| tx.networks()).unwrap().len(),
            40,
            "{damage}: the durable file is another one"
        );
        assert!(host.open().recovered().is_empty(), "{damage}");
    }
}

#[test]
fn damage_behind_the_header_is_found_by_the_transaction_that_meets_it() {
    let host = Host::new();
    filled(&host);
    let path = host.dirs.run.join("run.db");
    let pages = std::fs::metadata(&path).unwrap().len() / 4096;
    for page in pages / 2..pages {
        overwrite(&path, page * 4096, &[0xee; 4096]);
    }
    let mut store = host.open();
    let err = store.read(|tx| tx.live_networks()).unwrap_err();
    assert!(matches!(err, StoreError::Corrupt { .. }) && err.is_transient(), "{err}");
    assert_eq!(store.recovered().len(), 1);
    assert_eq!(store.read(|tx| tx.live_networks()).unwrap(), []);
    assert!(store.is_unsettled());
}

#[test]
fn a_damaged_durable_file_is_set_aside_when_it_is_needed() {
    let host = Host::new();
    filled(&host);
    // What is still in the log would be read from there.
    let state = host.dirs.state.join("state.db");
    let conn = rusqlite::Connection::open(&state).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(conn);
    overwrite(&state, 0, b"not SQLite");
    let mut store = host.open();
    assert_eq!(store.read(|tx| tx.live_networks()).unwrap().len(), 40);
    assert!(store.recovered().is_empty() && set_aside_files(&host.dirs.state).is_empty());
    assert_eq!(store.read(|tx| tx.networks()).unwrap(), []);
    assert_eq!(store.recovered()[0].path, host.dirs.state.join("state.db"));
    store.write(|tx| tx.network_put(&name(), "{}")).unwrap();
}

#[test]
fn an_empty_file_is_a_missing_one() {
    let host = Host::new();
    std::fs::create_dir_all(&host.dirs.run).unwrap();
    std::fs::write(host.dirs.run.join("run.db"), b"").unwrap();
    let store = host.open();
    assert!(store.is_unsettled() && store.recovered().is_empty());
}

#[test]
fn a_newer_file_is_refused_and_left_as_it_is() {
    let host = Host::new();
    filled(&host);
    let path = host.dirs.run.join("run.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA user_version=9000; CREATE TABLE later (x)").unwrap();
    drop(conn);
    let before = std::fs::read(&path).unwrap();
    match Store::open(&host.dirs, BootId::new("boot-2")).map(drop) {
        Err(StoreError::Newer { path: named, found: 9000, known }) => {
            assert_eq!(named, path);
            assert!(known < 9000);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(set_aside_files(&host.dirs.run).is_empty());
}

#[test]
fn a_fixture_of_every_version_is_led_to_the_newest() {
    let [run_1, run_2, run_3, run_4] = [
        include_str!("fixtures/run-v1.sql"),
        include_str!("fixtures/run-v2.sql"),
        include_str!("fixtures/run-v3.sql"),
        include_str!("fixtures/run-v4.sql"),
    ];
    let [state_1, state_2, state_3, state_4] = [
        include_str!("fixtures/state-v1.sql"),
        include_str!("fixtures/state-v2.sql"),
        include_str!("fixtures/state-v3.sql"),
        include_str!("fixtures/state-v4.sql"),
    ];
    let pairs = [
        ((1, run_1), (1, state_1)),
        ((2, run_2), (1, state_1)),
        ((3, run_3), (2, state_2)),
        ((3, run_3), (3, state_3)),
        ((4, run_4), (3, state_3)),
        ((4, run_4), (4, state_4)),
    ];
    for (run, state) in pairs {
        let fixtures = [("run.db", run.0, run.1), ("state.db", state.0, state.1)];
        let schema_of = |path: &Path| -> Vec<String> {
            let conn = rusqlite::Connection::open(path).unwrap();
            let mut statement =
                conn.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let fresh = Host::new();
        filled(&fresh);
        let old = Host::new();
        for (file, version, sql) in fixtures {
            let dir = if file == "run.db" { &old.dirs.run } else { &old.dirs.state };
            std::fs::create_dir_all(dir).unwrap();
            let conn = rusqlite::Connection::open(dir.join(file)).unwrap();
            conn.execute_batch(&format!("PRAGMA journal_mode=WAL; {sql}; PRAGMA user_version={version}"))
                .unwrap();
        }
        let mut store = old.open();
        assert!(!store.is_unsettled());
        store
            .read(|tx| -> Result<(), StoreError> {
                assert_eq!(tx.attachments()?.len(), 1);
                assert_eq!(tx.attachments()?[0].host_ifname.as_ref().unwrap().as_str(), "veth1234abcd");
                assert_eq!(tx.leases_of(&key("a"))?[0].address.to_string(), "10.80.0.2");
                assert_eq!(tx.ports_of(&key("a"))?[0].to_string(), "0.0.0.0:8080/tcp -> 10.80.0.2:80");
                assert_eq!(tx.live_networks()?[0].bridge.as_ref().unwrap().as_str(), "br0");
                assert_eq!(tx.sysctls_saved()?.len(), 1);
                assert_eq!(tx.uplinks_closed()?, [(berth_types::Family::V4, "up0".parse().unwrap())]);
                assert_eq!(tx.networks()?[0].payload, r#"{"v":1}"#);
                assert_eq!(tx.volumes()?.len(), usize::from(state.0 > 1));
                let known = state.0 > 2;
                let blue = NetworkName::new("blue").unwrap();
                assert_eq!(tx.cluster_node()?.map(|node| node.epoch), known.then_some(7));
                assert_eq!(tx.cluster_revision()?, if known { 42 } else { 0 });
                assert_eq!(tx.cluster_records()?.len(), usize::from(known));
                assert_eq!(tx.cluster_blocks(&blue)?.len(), usize::from(known));
                let networks = tx.engine_networks("docker")?;
                assert_eq!(
                    networks.first().map(|row| row.network.clone()),
                    (state.0 > 3).then(|| blue.clone())
                );
                let lends = tx.cluster_lends(&blue)?;
                assert_eq!(
                    lends.first().map(|lend| lend.address.to_string()),
                    known.then(|| "10.0.0.5".to_owned())
                );
                Ok(())
            })
            .unwrap();
        drop(store);
        for file in ["run/run.db", "state/state.db"] {
            assert_eq!(
                schema_of(&old.root.path().join(file)),
                schema_of(&fresh.root.path().join(file)),
                "{file}"
            );
        }
    }
}

#[test]
fn a_file_instead_of_the_directory_is_named() {
    let host = Host::new();
    std::fs::write(&host.dirs.run, b"").unwrap();
    let err = Store::open(&host.dirs, BootId::new("b")).map(drop).unwrap_err();
    assert!(err.to_string().contains(host.dirs.run.to_str().unwrap()), "{err}");
}
