//! The resolvers that programs bring: glibc's and musl's, with the configuration that a runtime makes of ADD's result.

use berth_integration::Host;

use crate::asking::{join, named, no_resolv_conf, resolv_conf};
use crate::common::berth_test;

/// Prints the addresses of a name, by the C library it is linked with.
const PROGRAM: &str = r#"
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <arpa/inet.h>
int main(int argc, char **argv) {
    struct addrinfo hints, *found;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    int err = getaddrinfo(argv[1], 0, &hints, &found);
    if (err) { puts(gai_strerror(err)); return 2; }
    for (; found; found = found->ai_next) {
        char text[64];
        getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
        puts(text);
    }
    return 0;
}
"#;

fn musl(host: &Host) -> String {
    let program = host.dir().join("ask");
    let path = program.to_str().unwrap().to_owned();
    host.cmd("musl-gcc").args(["-static", "-x", "c", "-o", &path, "-"]).stdin(PROGRAM).run();
    path
}

#[test]
fn glibc_and_musl_find_names_in_every_form() {
    berth_test(|host| {
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        let client = join(&net, "client1", "client");
        resolv_conf(host, "client1", client.result());
        let musl = musl(host);
        for name in ["web", "WEB", "web.n1", "web.berth.internal"] {
            let by_glibc = host.run(&format!("ip netns exec client1 getent ahosts {name}"));
            let by_musl = host.run(&format!("ip netns exec client1 {musl} {name}"));
            for addr in [web.v4().to_string(), web.v6().to_string()] {
                assert!(by_glibc.contains(&addr), "glibc, {name}: {by_glibc}");
                assert!(by_musl.contains(&addr), "musl, {name}: {by_musl}");
            }
        }
        let back = host.run(&format!("ip netns exec client1 getent hosts {}", web.v4()));
        assert!(back.contains("web"), "{back}");
        web.leave();
        for line in ["getent ahosts web".to_owned(), format!("{musl} web")] {
            let ran = host.line(&format!("ip netns exec client1 {line}")).output();
            assert_eq!(ran.status.code(), Some(2), "{ran}");
        }
        no_resolv_conf(host);
        std::fs::remove_file(host.dir().join("ask")).unwrap();
    });
}

#[test]
fn a_name_of_one_family_is_found_by_who_asks_for_both() {
    berth_test(|host| {
        // NXDOMAIN for the other family would end musl's search.
        let net = named(host, 1).with("ipam", serde_json::json!({"type": "ripam", "subnet": "10.80.1.0/24"}));
        let web = join(&net, "web1", "web");
        let client = join(&net, "client1", "client");
        resolv_conf(host, "client1", client.result());
        let musl = musl(host);
        for line in ["getent ahosts web".to_owned(), format!("{musl} web")] {
            let found = host.run(&format!("ip netns exec client1 {line}"));
            assert!(found.contains(&web.v4().to_string()), "{found}");
        }
        no_resolv_conf(host);
        std::fs::remove_file(host.dir().join("ask")).unwrap();
    });
}

#[test]
fn busybox_finds_names() {
    berth_test(|host| {
        let net = named(host, 1);
        let web = join(&net, "web1", "web");
        let client = join(&net, "client1", "client");
        resolv_conf(host, "client1", client.result());
        let found = host.run(&format!("ip netns exec client1 busybox nslookup web {}", net.gateway4()));
        assert!(found.contains(&web.v4().to_string()), "{found}");
        no_resolv_conf(host);
    });
}
