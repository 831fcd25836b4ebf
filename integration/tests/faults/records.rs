//! Records that are lost, damaged or too new: rebuilt from the kernel, or refused and left alone.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use berth_integration::{Host, Snapshot};
use serde_json::json;

use crate::common::{Member, Net, assert_as_before, berth_test, tcp};

fn run_db(host: &Host) -> PathBuf {
    host.run_dir().join("run.db")
}

/// All files of the database: the log of a crashed writer counts.
fn remove(host: &Host) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", run_db(host).display()));
    }
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// What was lost, and how.
type Loss = (&'static str, fn(&Host));

/// Ways in which the records of this boot can be lost.
const LOSSES: [Loss; 7] = [
    ("removed", remove),
    ("the whole directory removed", |host| fs::remove_dir_all(host.run_dir()).unwrap()),
    ("truncated to nothing", |host| fs::write(run_db(host), "").unwrap()),
    ("truncated to half", |host| {
        let file = OpenOptions::new().write(true).open(run_db(host)).unwrap();
        file.set_len(file.metadata().unwrap().len() / 8192 * 4096).unwrap();
    }),
    ("garbage", |host| fs::write(run_db(host), b"no database at all ".repeat(500)).unwrap()),
    ("a damaged header", |host| overwrite(&run_db(host), 0, b"not SQLite")),
    ("zeroed", |host| {
        let length = fs::metadata(run_db(host)).unwrap().len();
        overwrite(&run_db(host), 0, &vec![0; usize::try_from(length).unwrap()]);
    }),
];

/// Takes away what was set aside for a person to look at.
fn forget_damaged(host: &Host) {
    for entry in fs::read_dir(host.run_dir()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().contains(".corrupt-") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// Runs `test` with two attached containers, for each kind of loss.
fn after_each_loss(test: impl Fn(&Host, &Net<'_>, Member<'_>, Member<'_>)) {
    for (what, lose) in LOSSES {
        berth_test(|host| {
            eprintln!("records {what}");
            let before = Snapshot::of(host);
            let net = Net::new(host, 1);
            let (a, b) = (net.publish("a", tcp(8080, 80)), net.join("b"));
            lose(host);
            test(host, &net, a, b);
            crate::common::collect(host);
            forget_damaged(host);
            assert_as_before(host, &before);
        });
    }
}

#[test]
fn after_a_loss_of_records_del_takes_everything_away() {
    after_each_loss(|_, _, a, b| {
        a.leave();
        b.leave();
    });
}

#[test]
fn after_a_loss_of_records_no_address_port_or_name_is_given_twice() {
    after_each_loss(|host, net, a, b| {
        let c = net.join("c");
        assert!(c.v4() != a.v4() && c.v4() != b.v4(), "{}", c.v4());
        assert!(c.v6() != a.v6() && c.v6() != b.v6(), "{}", c.v6());
        let d = host.container("d");
        assert_eq!(net.publishing(&d, tcp(8080, 80)).add().err().code, 100);
        // Somebody who is there already is known.
        assert_eq!(a.call().add().err().code, 103);
        drop((a, b, c));
    });
}

#[test]
fn after_a_loss_of_records_containers_keep_their_traffic_and_pass_check() {
    after_each_loss(|host, _, a, b| {
        // Looking changes nothing; reading what berth knows needs the records.
        host.berth(["status"]).output();
        host.berth(["ps"]).run();
        assert_eq!((host.ping(a.v4(), 1), a.ping(b.v4(), 1), a.ping(b.v6(), 1)), (1, 1, 1));
        a.checked().check().ok();
        let _a = a.serve_tcp(80, "a");
        host.probe(&berth_integration::Probe::tcp("192.0.2.2:8080")).all_from("a");
    });
}

#[test]
fn after_a_loss_of_records_gc_with_an_empty_list_takes_everything_away() {
    after_each_loss(|_, net, a, b| {
        net.call().key("cni.dev/valid-attachments", json!([])).run("GC").ok();
        a.has_left();
        b.has_left();
    });
}

/// Catalogue row 37: without a reboot, an empty directory is no reason to take anything away.
#[test]
fn after_a_loss_of_records_gc_without_a_list_takes_nothing_away() {
    after_each_loss(|host, net, a, b| {
        host.berth(["gc"]).run();
        net.call().run("GC").ok();
        assert_eq!((host.ping(a.v4(), 1), host.ping(b.v4(), 1)), (1, 1));
        a.checked().check().ok();
    });
}

#[test]
fn damaged_records_are_set_aside_for_a_person_to_look_at() {
    berth_test(|host| {
        let a = Net::new(host, 1).join("a");
        let garbage = b"no database at all ".repeat(500);
        fs::write(run_db(host), &garbage).unwrap();
        a.leave();
        let kept: Vec<_> = fs::read_dir(host.run_dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains(".corrupt-"))
            .collect();
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(fs::read(&kept[0]).unwrap(), garbage);
        fs::remove_file(&kept[0]).unwrap();
    });
}

#[test]
fn records_of_a_newer_version_are_refused_and_left_as_they_are() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let a = net.publish("a", tcp(8080, 80));
        let path = run_db(host);
        assert!(!path.with_extension("db-wal").exists(), "the last writer leaves no log");
        let known = fs::read(&path).unwrap();
        // `user_version`, in the header of the file (https://sqlite.org/fileformat2.html#the_database_header).
        overwrite(&path, 60, &9000_u32.to_be_bytes());
        let newer = fs::read(&path).unwrap();
        let before = Snapshot::of(host);
        let container = host.container("b");
        for ran in [net.call_for(&container).add(), a.call().del(), a.checked().check()] {
            let error = ran.err();
            assert_eq!(error.code, 108, "{error}");
            assert!(error.to_string().contains("9000"), "{error}");
        }
        assert_eq!(host.berth(["doctor"]).output().code(), Some(2));
        assert_eq!(fs::read(&path).unwrap(), newer);
        drop(container);
        before.assert_same(&Snapshot::of(host));
        assert_eq!(host.ping(a.v4(), 1), 1);
        fs::write(&path, known).unwrap();
        a.leave();
    });
}

/// What is not of berth is never taken for lost records.
#[test]
fn a_host_with_other_peoples_bridges_only_has_nothing_to_rebuild() {
    berth_test(|host| {
        host.batch(
            "link add docker0 type bridge
             link set docker0 alias someone
             link add cni0 type bridge
             address add 10.88.0.1/16 dev cni0",
        );
        let before = Snapshot::of(host);
        Net::new(host, 1).join("a").leave();
        crate::common::collect(host);
        before.assert_same(&Snapshot::of(host));
        host.batch("link del docker0\nlink del cni0");
    });
}
