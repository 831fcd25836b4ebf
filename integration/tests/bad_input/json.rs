//! Standard input that is no configuration.

use std::time::Duration;

use berth_integration::{Host, Snapshot};
use serde_json::json;

use crate::common::{Net, berth_test};
use crate::refusal::{refused, refused_quietly};

/// The commands that read a configuration.
const COMMANDS: [&str; 5] = ["ADD", "DEL", "CHECK", "GC", "STATUS"];

/// Makes all commands read `bytes`; each must say that this is no JSON of the protocol's form.
fn undecodable(host: &Host, bytes: &[u8], what: &str) {
    let container = host.container("a");
    let before = Snapshot::of(host);
    for command in COMMANDS {
        let call = Net::new(host, 1).call_for(&container).stdin(bytes);
        refused_quietly(&call, command, &[6], what);
    }
    before.assert_same(&Snapshot::of(host));
}

#[test]
fn what_is_no_json_is_refused() {
    berth_test(|host| {
        for bytes in [
            &b""[..],
            b" \n\t ",
            b"nonsense",
            b"{",
            b"}",
            b"{]",
            b"{\"name\"",
            b"{\"name\":}",
            b"{'name': 'n1'}",
            b"{\"name\": \"n1\",}",
            b"{\"name\": \"n1\"} trailing",
            b"{\"name\": \"n1\"}{}",
            b"{\"mtu\": NaN}",
            b"{\"mtu\": Infinity}",
            b"{\"mtu\": 0x10}",
            b"{\"mtu\": 1e999}",
            b"{\"name\": \"\\ud800\"}",
            b"\x00",
            b"\xef\xbb\xbf{}",
            b"name = n1",
            b"<xml/>",
        ] {
            undecodable(host, bytes, &String::from_utf8_lossy(bytes));
        }
    });
}

#[test]
fn json_that_is_no_object_is_refused() {
    berth_test(|host| {
        for bytes in [&b"[]"[..], b"\"name\"", b"17", b"true", b"[{\"name\": \"n1\"}]"] {
            undecodable(host, bytes, &String::from_utf8_lossy(bytes));
        }
    });
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    berth_test(|host| {
        for bytes in [
            &b"{\"name\": \"\xff\xfe\"}"[..],
            b"\xc3\x28",
            b"{\"name\": \"n1\", \"x\": \"\xed\xa0\x80\"}",
            b"\xff\xfe{\x00}\x00",
        ] {
            undecodable(host, bytes, &format!("{bytes:?}"));
        }
    });
}

#[test]
fn a_configuration_that_ends_early_is_refused_wherever_it_ends() {
    berth_test(|host| {
        let container = host.container("a");
        let before = Snapshot::of(host);
        let whole = Net::new(host, 1).conf().to_string();
        for end in 0..whole.len() {
            let call = Net::new(host, 1).call_for(&container).stdin(&whole.as_bytes()[..end]);
            refused_quietly(&call, "ADD", &[6], &whole[..end]);
        }
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn nesting_without_end_is_refused_and_overflows_no_stack() {
    berth_test(|host| {
        let deep = |open: &str, times: usize| format!("{{\"name\":\"n1\",\"x\":{}", open.repeat(times));
        for (open, times) in [("[", 200), ("[", 900_000), ("{\"a\":", 150_000), ("[{\"ipam\":", 100_000)] {
            undecodable(host, deep(open, times).as_bytes(), open);
        }
        let closed = format!("{{\"name\":\"n1\",\"ipam\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        undecodable(host, closed.as_bytes(), "closed");
    });
}

/// Runs a plugin on what `generate` prints, with little memory, and gives its answer.
fn fed(host: &Host, generate: &str) -> String {
    let plugin = host.cni().plugins().join("rbridge");
    // Less than a tenth of the stream: it cannot be held whole.
    let line = format!("{generate} | (ulimit -v 65536; exec {})", plugin.display());
    let ran = host
        .cmd("sh")
        .args(["-c", &line])
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "a")
        .env("CNI_NETNS", "/run/netns/a")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", host.cni().plugins())
        .deadline(Duration::from_secs(20))
        .output();
    assert_eq!(ran.code(), Some(1), "{ran}");
    ran.stdout
}

#[test]
fn a_hundred_megabytes_are_refused_and_not_read_to_the_end() {
    berth_test(|host| {
        let _container = host.container("a");
        let before = Snapshot::of(host);
        for stream in [
            "head -c 104857600 /dev/zero",
            "head -c 104857600 /dev/zero | tr '\\0' '['",
            "head -c 104857600 /dev/zero | tr '\\0' ' '",
            "(printf '{\"name\":\"'; head -c 104857600 /dev/zero | tr '\\0' 'a'; printf '\"}')",
            "yes '{\"name\":\"n1\"}'",
        ] {
            let answer = fed(host, stream);
            let error: serde_json::Value =
                serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{stream}: {answer}"));
            assert_eq!(error["code"], json!(6), "{stream}: {error}");
        }
        before.assert_same(&Snapshot::of(host));
    });
}

#[test]
fn a_megabyte_of_padding_is_too_much_and_less_is_not() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let container = host.container("a");
        let padded = |bytes: usize| format!("{}{}", net.conf(), " ".repeat(bytes));
        refused(host, &net.call_for(&container).stdin(padded(1 << 20)), "ADD", 6, "padding");
        let call = net.call_for(&container).stdin(padded(500_000));
        call.add().ok();
        call.del().ok();
    });
}

#[test]
fn a_key_given_twice_counts_as_the_last_and_unknown_keys_do_not_matter() {
    berth_test(|host| {
        let net = Net::new(host, 1);
        let container = host.container("a");
        let whole = net.conf().to_string();
        let text = format!("{{\"mtu\":\"x\",\"mtu\":1400,\"whatever\":{{\"name\":[1]}},{}", &whole[1..]);
        let call = net.call_for(&container).stdin(text);
        call.add().ok();
        assert_eq!(container.json("ip -j link show eth0")[0]["mtu"], json!(1400));
        call.del().ok();
    });
}

#[test]
fn bad_input_is_refused_at_once() {
    berth_test(|host| {
        let container = host.container("a");
        let call = Net::new(host, 1).call_for(&container).stdin(*b"{\"name\"");
        // The quickest of several: the machine may be busy with other tests.
        let quickest = (0..20).map(|_| call.add().elapsed()).min().unwrap();
        assert!(quickest < Duration::from_millis(30), "{quickest:?}");
    });
}
