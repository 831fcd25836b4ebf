//! What people are shown of names.

use serde_json::Value;

use crate::asking::{join, named};
use crate::common::{Net, berth_test};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn names_are_listed_and_a_question_is_explained() {
    berth_test(|host| {
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        let stranger = Net::new(host, 2).join("stranger1");
        let listed = host.berth(["dns", "ls"]).run();
        assert!(
            listed.lines().any(|line| line.starts_with("web ") && line.contains(&web.v4().to_string())),
            "{listed}"
        );
        let listed = json(&host.berth(["dns", "ls", "--json", "--network", "n1"]).run());
        let kinds: Vec<_> =
            listed.as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
        assert!(["A", "AAAA", "PTR"].iter().all(|kind| kinds.contains(kind)), "{listed}");

        for from in ["web", "web1", &web.v4().to_string()] {
            let way = json(&host.berth(["dns", "query", "web", "--from", from, "--json"]).run());
            assert_eq!(way["outcome"], "answered", "{way}");
            assert!(way["answers"][0].as_str().unwrap().contains(&web.v4().to_string()), "{way}");
        }
        let unknown = host.berth(["dns", "query", "nobody.n1", "--from", "web", "--type", "AAAA"]).output();
        assert_eq!(unknown.code(), Some(1), "{unknown}");
        let stranger_asks = host.berth(["dns", "query", "web", "--from", "stranger1"]).output();
        assert!(
            stranger_asks.stderr.contains("no container `stranger1` is on a network with names"),
            "{stranger_asks}"
        );
        let by_addr = json(
            &host
                .berth(["dns", "query", "web", "--from", &stranger.v4().to_string(), "--json"])
                .output()
                .stdout,
        );
        assert_eq!(by_addr["outcome"], "no answer", "{by_addr}");

        let status = host.berth(["status"]).run();
        assert!(status.contains("names       of 1 containers on 1 networks, answered"), "{status}");
        assert!(status.contains("n1 at 10.80.1.1"), "{status}");
        let shown = host.berth(["network", "inspect", "n1"]).run();
        assert!(shown.contains("names     in berth.internal"), "{shown}");
    });
}

#[test]
fn doctor_misses_a_server_and_gc_starts_it() {
    berth_test(|host| {
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        assert_eq!(host.berth(["doctor"]).output().code(), Some(0));
        host.run(&format!("kill -9 {}", host.processes().first().unwrap()));
        berth_integration::eventually(std::time::Duration::from_secs(5), || {
            if host.processes().is_empty() { Ok(()) } else { Err("still there".to_owned()) }
        });
        let doctor = host.berth(["doctor", "--json"]).output();
        assert_eq!(doctor.code(), Some(1), "{doctor}");
        assert!(doctor.stdout.contains("names-unserved"), "{doctor}");
        let checked = web.checked().check();
        let _ = checked;
        host.gc();
        assert_eq!(host.berth(["doctor"]).output().code(), Some(0));
        assert_eq!(crate::asking::dig(&web, net.gateway4(), "web A"), web.v4().to_string());
    });
}

#[test]
fn the_daemons_socket_has_counters_for_prometheus() {
    berth_test(|host| {
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        crate::asking::dig(&web, net.gateway4(), "web A");
        let socket = host.run_dir().join("dns.sock");
        let text = host.run(&format!("curl -s --unix-socket {} http://berth/metrics", socket.display()));
        assert!(text.contains("# TYPE berth_dns_"), "{text}");
        assert!(text.contains("berth_dns_networks 1"), "{text}");
        drop(web);
    });
}
