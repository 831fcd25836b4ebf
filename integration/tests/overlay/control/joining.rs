//! `berth node join` with something that is wrong: said in time with what was tried, and nothing is written.

use std::time::{Duration, Instant};

use berth_integration::{Host, Ran, host_test, lan_test};
use serde_json::json;

use super::etcd::Etcd;
use super::secrets::PKI;

/// In what time it has to be said, and what a busy machine may add.
const SAID: Duration = Duration::from_secs(3);
const SLACK: Duration = Duration::from_secs(3);

/// Joins as `words` say, which has to be refused in time with nothing written. What was said.
#[track_caller]
fn refused(host: &Host, words: &str) -> String {
    let began = Instant::now();
    let ran: Ran = host.berth(["node", "join", "--name", "n1"].into_iter().chain(words.split(' '))).output();
    assert!(began.elapsed() < SAID + SLACK, "`{words}`: {:?}", began.elapsed());
    assert!(!ran.status.success(), "`{words}` should have been refused: {ran}");
    let status = host.berth(["overlay", "status", "--json"]).run();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&status).unwrap()["node"], json!(null), "`{words}`");
    assert_eq!(host.berth(["node", "ls", "--json"]).run().trim(), "[]", "`{words}`");
    ran.stderr
}

#[track_caller]
fn says(host: &Host, words: &str, wanted: &[&str]) {
    let said = refused(host, words);
    let missing: Vec<_> = wanted.iter().filter(|wanted| !said.contains(**wanted)).collect();
    assert!(missing.is_empty(), "`{words}` does not say {missing:?}: {said}");
}

#[test]
fn a_wrong_address_certificate_or_password_is_said_and_nothing_is_written() {
    lan_test(|host, _, _| {
        says(host, "--etcd http://127.0.0.1:1", &["127.0.0.1:1", "Connection refused"]);
        says(host, "--etcd http://198.51.100.77:2379", &["198.51.100.77:2379: "]);
        says(host, "--etcd 127.0.0.1", &["`127.0.0.1` is no endpoint: HOST:PORT"]);

        let etcd = Etcd::alone(host);
        for line in ["user add root:secret", "user grant-role root root", "auth enable"] {
            etcd.ctl(&line.split(' ').collect::<Vec<_>>());
        }
        let file = host.dir().join("password");
        std::fs::write(&file, "guessed\n").unwrap();
        let user = format!("--etcd http://127.0.0.1:2379 --user root --password-file {}", file.display());
        says(host, &user, &["127.0.0.1:2379", "user `root` or its password is wrong"]);
        assert!(!refused(host, &user).contains("guessed"), "a password is not printed");
        says(host, "--etcd http://127.0.0.1:2379", &["asks for a user and a password"]);
        std::fs::write(&file, "secret\n").unwrap();
        host.berth(format!("node join --name n1 {user}").split(' ')).run();
        host.berth(["node", "leave"]).run();
        std::fs::remove_file(&file).unwrap();
        drop(etcd);

        host.run(&format!("cd {} && ( {PKI} ) 2>&1", host.dir().display()));
        let pki = host.dir().join("pki").display().to_string();
        let own = ["--cert-file", &format!("{pki}/etcd.pem"), "--key-file", &format!("{pki}/etcd.key")];
        let etcd =
            Etcd::secure(host, &own.map(str::to_owned), &["--cacert".to_owned(), format!("{pki}/ca.pem")]);
        let secure = "--etcd https://127.0.0.1:2379";
        says(host, &format!("{secure} --ca {pki}/other.pem"), &["127.0.0.1:2379", "is not trusted"]);
        says(host, secure, &["speaks TLS: give the certificate of its authority"]);
        says(host, &format!("{secure} --ca {pki}/none.pem"), &["none.pem"]);
        says(host, "--etcd http://127.0.0.1:2379", &["127.0.0.1:2379", "TLS"]);
        host.berth(format!("node join --name n1 {secure} --ca {pki}/ca.pem").split(' ')).run();
        host.berth(["node", "leave"]).run();
        drop(etcd);
        std::fs::remove_dir_all(pki).unwrap();
        host.gc();
    });
}

#[test]
fn a_bad_file_of_peers_is_said_by_line_and_nothing_is_written() {
    host_test(|host| {
        let file = host.dir().join("peers.json");
        let words = format!("--peers {}", file.display());
        let peers = |more: &str| {
            format!("{{\"v\": 1,\n\"peers\": [\n{{\"name\": \"n1\", \"vteps\": [\"192.0.2.2\"]}}\n]{more}}}")
        };
        let network = |more: &str| {
            peers(&format!(
                ", \"networks\": [\n{{\"name\": \"blue\", \"vni\": 5, \"subnets\": [\"10.5.0.0/24\"]{more}}}]"
            ))
        };
        says(host, &words, &["peers.json", "cannot read it"]);
        for (text, wanted) in [
            ("{".to_owned(), "line 1: "),
            (peers("").replace("\"v\": 1", "\"v\": 9"), "line 1: the file's layout is 9"),
            (peers("").replace("192.0.2.2", "300.0.2.2"), "line 3: "),
            (peers("").replace("n1", "n2"), "this node, `n1`, is not among its peers"),
            (network("").replace("10.5.0.0/24", "192.0.2.0/24"), "has the VTEP of peer `n1`"),
            (network("").replace("\"vni\": 5", "\"vni\": 0"), "VNI 0 is out of range"),
            (network(", \"encrypted\": true"), "line 5: network `blue` cannot be encrypted"),
            (peers("").replace("192.0.2.2", "192.0.2.99"), "this host has no address 192.0.2.99"),
        ] {
            std::fs::write(&file, text).unwrap();
            says(host, &words, &[wanted]);
        }
        std::fs::remove_file(&file).unwrap();
        host.gc();
    });
}
