//! A network namespace of one's own for each test, and `nft` as the judge of what lies in it.

#![allow(dead_code, reason = "each test file uses a part")]

use std::process::Command;

use berth_nft::NftSocket;
use berth_types::{IfName, MacAddr, Proto, PublishedPort};

/// Runs `test` on a fresh thread in a fresh network namespace, which ends with the thread.
pub(crate) fn in_netns<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(move || {
        unshare_net();
        test()
    })
    .join()
    .unwrap_or_else(|cause| std::panic::resume_unwind(cause))
}

/// Moves the calling thread into a network namespace of its own.
pub(crate) fn unshare_net() {
    #[expect(
        deprecated,
        reason = "the namespace of a thread is no matter of memory safety, so no unsafe block is needed"
    )]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)
        .expect("tests of the kernel need CAP_SYS_ADMIN");
}

/// A namespace with the ruleset laid.
pub(crate) fn laid<T: Send + 'static>(test: impl FnOnce(&mut NftSocket) -> T + Send + 'static) -> T {
    in_netns(move || {
        let mut socket = NftSocket::open().unwrap();
        berth_nft::lay(&mut socket).unwrap();
        test(&mut socket)
    })
}

/// Runs a command that must succeed and returns what it printed.
pub(crate) fn run(command: &str) -> String {
    let words: Vec<_> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The elements of a set as nft prints them: compact JSON, or the empty text.
pub(crate) fn nft_elements(family: &str, set: &str) -> String {
    for kind in ["set", "map"] {
        let command = format!("nft -j list {kind} {family} berth {set}");
        let words: Vec<_> = command.split_whitespace().collect();
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        if output.status.success() {
            let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let objects = json["nftables"].as_array().unwrap();
            let elements = objects.iter().find_map(|object| object.get(kind)?.get("elem"));
            return elements.map(ToString::to_string).unwrap_or_default();
        }
    }
    panic!("nft knows no {family} {set}")
}

pub(crate) fn ifname(name: &str) -> IfName {
    IfName::new(name).unwrap()
}

pub(crate) fn mac(text: &str) -> MacAddr {
    text.parse().unwrap()
}

pub(crate) fn port(proto: Proto, host: (&str, u16), target: (&str, u16), count: u16) -> PublishedPort {
    PublishedPort {
        proto,
        host_addr: host.0.parse().unwrap(),
        host_port: host.1,
        target: target.0.parse().unwrap(),
        target_port: target.1,
        count,
    }
}
