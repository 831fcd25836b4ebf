//! What tests of networks share: a network by number, containers on it, and other people's firewalls.

#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use berth_integration::{Call, Container, Host, Lan, Seat, Snapshot, frame, host_test, lan_test};
use serde_json::{Value, json};

/// Like [`host_test`], with the last network collected before the host is compared.
pub(crate) fn berth_test(test: impl FnOnce(&Host)) {
    host_test(|host| {
        test(host);
        collect_all(host);
    });
}

/// Like [`lan_test`], with the last network collected before the host is compared.
pub(crate) fn berth_lan_test(test: impl FnOnce(&Host, &Lan, &Seat)) {
    lan_test(|host, lan, seat| {
        test(host, lan, seat);
        collect_all(host);
    });
}

/// Runs `test` twice: on a host of its own, and on one where somebody else's firewall drops what is forwarded unless it
/// carries berth's mark.
pub(crate) fn with_and_without_firewall(test: impl Fn(&Host, &Lan, &Seat)) {
    berth_lan_test(&test);
    berth_lan_test(|host, lan, seat| {
        foreign_firewall(host);
        accept_mark(host);
        test(host, lan, seat);
        host.run("nft delete table inet foreign");
    });
}

/// A firewall that knows nothing of containers: what is forwarded is dropped.
pub(crate) fn foreign_firewall(host: &Host) {
    host.run(
        "nft 'add table inet foreign ; \
         add chain inet foreign FORWARD { type filter hook forward priority filter ; policy drop ; }'",
    );
}

/// The one rule that a foreign firewall needs.
pub(crate) fn accept_mark(host: &Host) {
    host.run("nft 'add rule inet foreign FORWARD meta mark and 0x00f00000 == 0x00b00000 accept'");
}

/// Takes berth's traces off a host where nothing is attached any more.
pub(crate) fn collect(host: &Host) {
    host.berth(["gc"]).run();
}

/// As [`collect`], once the kernel has taken away the links of containers that a test removed: until then they live.
fn collect_all(host: &Host) {
    berth_integration::eventually(std::time::Duration::from_secs(10), || {
        collect(host);
        match host.berth(["ps", "--json"]).run().trim() {
            "[]" => Ok(()),
            left => Err(format!("still attached: {left}")),
        }
    });
}

/// What a host must be like again, with what is left of berth's own collected.
#[track_caller]
pub(crate) fn assert_as_before(host: &Host, before: &Snapshot) {
    collect(host);
    berth_integration::eventually(std::time::Duration::from_secs(5), || {
        match before.difference(&Snapshot::of(host)) {
            same if same.is_empty() => Ok(()),
            left => Err(format!("the host is not as before (- gone, + left):\n{left}")),
        }
    });
}

/// Network number N: `nN` on bridge `brN` with 10.80.N.0/24 and fd00:80:N::/64. Its gateway is the default route, and what
/// leaves it is masqueraded, unless changed.
#[derive(Clone)]
pub(crate) struct Net<'h> {
    host: &'h Host,
    number: u8,
    conf: Value,
}

impl<'h> Net<'h> {
    pub(crate) fn new(host: &'h Host, number: u8) -> Self {
        let conf = json!({
            "cniVersion": "1.1.0", "name": format!("n{number}"), "type": "rbridge", "bridge": format!("br{number}"),
            "isDefaultGateway": true, "ipMasq": true,
            "ipam": {"type": "ripam", "ranges": [
                [{"subnet": format!("10.80.{number}.0/24")}], [{"subnet": format!("fd00:80:{number}::/64")}],
            ]},
        });
        Self { host, number, conf }
    }

    /// Changes one top-level key.
    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        self.conf[key] = value;
        self
    }

    pub(crate) fn conf(&self) -> Value {
        self.conf.clone()
    }

    pub(crate) fn host(&self) -> &'h Host {
        self.host
    }

    pub(crate) fn bridge(&self) -> String {
        format!("br{}", self.number)
    }

    pub(crate) fn gateway4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 80, self.number, 1)
    }

    pub(crate) fn gateway6(&self) -> Ipv6Addr {
        format!("fd00:80:{}::1", self.number).parse().unwrap()
    }

    pub(crate) fn subnet4(&self) -> String {
        format!("10.80.{}.0/24", self.number)
    }

    pub(crate) fn subnet6(&self) -> String {
        format!("fd00:80:{}::/64", self.number)
    }

    /// A call about no container, for GC and STATUS.
    pub(crate) fn call(&self) -> Call<'h> {
        self.host.cni().conf(self.conf.clone())
    }

    /// A call about `container`, whose name is its id.
    pub(crate) fn call_for(&self, container: &Container<'h>) -> Call<'h> {
        self.call().container(container).id(container.name())
    }

    /// A call that publishes `ports`.
    pub(crate) fn publishing(&self, container: &Container<'h>, ports: Value) -> Call<'h> {
        self.call_for(container).key("runtimeConfig", json!({"portMappings": ports}))
    }

    /// A new container on this network.
    #[track_caller]
    pub(crate) fn join(&self, name: &str) -> Member<'h> {
        let container = self.host.container(name);
        let call = self.call_for(&container);
        Member::add(call, container)
    }

    /// A new container on this network with published ports.
    #[track_caller]
    pub(crate) fn publish(&self, name: &str, ports: Value) -> Member<'h> {
        let container = self.host.container(name);
        let call = self.publishing(&container, ports);
        Member::add(call, container)
    }
}

/// `portMappings` with one TCP port.
pub(crate) fn tcp(host_port: u16, container_port: u16) -> Value {
    json!([{"hostPort": host_port, "containerPort": container_port, "protocol": "tcp"}])
}

/// `portMappings` with one UDP port.
pub(crate) fn udp(host_port: u16, container_port: u16) -> Value {
    json!([{"hostPort": host_port, "containerPort": container_port, "protocol": "udp"}])
}

/// A container on a network. Taken off it when dropped.
pub(crate) struct Member<'h> {
    call: Call<'h>,
    container: Container<'h>,
    result: Value,
    left: bool,
}

impl<'h> Deref for Member<'h> {
    type Target = Container<'h>;

    fn deref(&self) -> &Container<'h> {
        &self.container
    }
}

impl<'h> Member<'h> {
    #[track_caller]
    pub(crate) fn add(call: Call<'h>, container: Container<'h>) -> Self {
        let result = call.add().ok();
        Self { call, container, result, left: false }
    }

    /// The call that added it.
    pub(crate) fn call(&self) -> Call<'h> {
        self.call.clone()
    }

    /// The call that added it, with the result it had.
    pub(crate) fn checked(&self) -> Call<'h> {
        self.call().key("prevResult", self.result.clone())
    }

    /// The result of ADD.
    pub(crate) fn result(&self) -> &Value {
        &self.result
    }

    fn addresses(&self) -> impl Iterator<Item = &str> {
        let ips = self.result["ips"].as_array().into_iter().flatten();
        ips.filter_map(|ip| ip["address"].as_str()?.split('/').next())
    }

    #[track_caller]
    pub(crate) fn v4(&self) -> Ipv4Addr {
        self.addresses().find_map(|text| text.parse().ok()).unwrap_or_else(|| no_address(&self.result))
    }

    #[track_caller]
    pub(crate) fn v6(&self) -> Ipv6Addr {
        self.addresses().find_map(|text| text.parse().ok()).unwrap_or_else(|| no_address(&self.result))
    }

    /// The address of the container's end.
    pub(crate) fn mac(&self) -> frame::Mac {
        frame::mac(self.result["interfaces"][2]["mac"].as_str().unwrap())
    }

    /// The host's end.
    pub(crate) fn host_ifname(&self) -> String {
        self.result["interfaces"][1]["name"].as_str().unwrap().to_owned()
    }

    /// Takes it off the network.
    #[track_caller]
    pub(crate) fn leave(mut self) {
        self.left = true;
        self.call.del().ok();
    }

    /// Says that it is off the network already.
    pub(crate) fn has_left(mut self) {
        self.left = true;
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if !self.left && !std::thread::panicking() {
            self.call.del().ok();
        }
    }
}

fn no_address<T>(result: &Value) -> T {
    panic!("no such address in {result}")
}

/// Runs a plugin under `strace` with these options; for faults that a [`berth_integration::sweep`] does not know.
pub(crate) fn strace(
    host: &Host,
    options: &[&str],
    conf: &Value,
    command: &str,
    env: &[(&str, &str)],
) -> berth_integration::Cmd {
    let cni = host.cni();
    let cmd = host
        .cmd("strace")
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(options)
        .arg("--")
        .arg(cni.plugins().join(conf["type"].as_str().unwrap()))
        .stdin(conf.to_string())
        .env("CNI_COMMAND", command)
        .env("CNI_PATH", cni.plugins());
    env.iter().fold(cmd, |cmd, (key, value)| cmd.env(key, value))
}
