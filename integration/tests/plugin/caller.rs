//! Plays dockerd: the calls it makes, in its order, with the links moved as it moves them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use berth_integration::engine::{Berthd, berth, engine_test};
use berth_integration::{Container, Host, eventually};
use serde_json::{Value, json};

/// Runs `test` against a berthd on a host of its own, which must be as before once the test has deleted its networks.
pub(crate) fn plugin_test(test: impl FnOnce(&mut Caller<'_>)) {
    engine_test(&[], |host| {
        let daemon = Berthd::new(host, &["--roles", "docker"]);
        let mut caller = Caller { host, daemon };
        test(&mut caller);
        if caller.daemon.runs() {
            caller.daemon.stop();
        }
    });
}

/// What dockerd is to berthd.
pub(crate) struct Caller<'h> {
    pub(crate) host: &'h Host,
    pub(crate) daemon: Berthd<'h>,
}

/// Docker's number of network `n`.
pub(crate) fn network_id(n: u32) -> String {
    // As random ones, they differ from the beginning.
    format!("{n:012x}{n:052x}")
}

/// Docker's number of endpoint `n`.
pub(crate) fn endpoint_id(n: u32) -> String {
    format!("e{n:063x}")
}

/// `CreateNetwork` of network `n` with 10.80.n.0/24 and options of `-o`.
pub(crate) fn network(n: u32, generic: Value) -> Value {
    json!({
        "NetworkID": network_id(n),
        "Options": {"com.docker.network.enable_ipv6": false, "com.docker.network.generic": generic},
        "IPv4Data": [{
            "AddressSpace": "LocalDefault", "Pool": format!("10.80.{n}.0/24"), "Gateway": format!("10.80.{n}.1/24"),
            "AuxAddresses": null,
        }],
        "IPv6Data": [],
    })
}

/// `CreateEndpoint` of endpoint `e` on network `n` with 10.80.n.host/24.
pub(crate) fn endpoint(n: u32, e: u32, host: u32) -> Value {
    json!({
        "NetworkID": network_id(n), "EndpointID": endpoint_id(e),
        "Interface": {"Address": format!("10.80.{n}.{host}/24"), "AddressIPv6": "", "MacAddress": ""},
        "Options": {},
    })
}

/// A call about endpoint `e` on network `n`.
pub(crate) fn about(n: u32, e: u32) -> Value {
    json!({"NetworkID": network_id(n), "EndpointID": endpoint_id(e)})
}

/// `ProgramExternalConnectivity` with these bindings.
pub(crate) fn program(n: u32, e: u32, bindings: Value) -> Value {
    let mut call = about(n, e);
    call["Options"] = json!({"com.docker.network.portmap": bindings});
    call
}

/// One binding of TCP port 80.
pub(crate) fn tcp(host_port: u16) -> Value {
    json!([{"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": host_port, "HostPortEnd": host_port}])
}

impl<'h> Caller<'h> {
    /// Calls `method` of `rbridge`, which must succeed.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, body: &Value) -> Value {
        answer(self.host, "rbridge", method, &body.to_string()).ok(method, body)
    }

    /// Calls `method` of `rbridge`, which must be refused. The sentence.
    #[track_caller]
    pub(crate) fn refuse(&self, method: &str, body: &Value) -> String {
        answer(self.host, "rbridge", method, &body.to_string()).refused()
    }

    /// A network driver's method.
    #[track_caller]
    pub(crate) fn net(&self, method: &str, body: &Value) -> Value {
        self.call(&format!("NetworkDriver.{method}"), body)
    }

    /// A network driver's method that is refused.
    #[track_caller]
    pub(crate) fn net_refuses(&self, method: &str, body: &Value) -> String {
        self.refuse(&format!("NetworkDriver.{method}"), body)
    }

    /// An address driver's method.
    #[track_caller]
    pub(crate) fn ipam(&self, method: &str, body: &Value) -> Value {
        self.call(&format!("IpamDriver.{method}"), body)
    }

    /// Creates network `n`.
    #[track_caller]
    pub(crate) fn create(&self, n: u32) {
        self.net("CreateNetwork", &network(n, json!({})));
    }

    /// Deletes network `n`.
    #[track_caller]
    pub(crate) fn delete(&self, n: u32) {
        self.net("DeleteNetwork", &json!({"NetworkID": network_id(n)}));
    }

    /// Connects a new container as dockerd does: endpoint `e` on network `n` with 10.80.n.host.
    #[track_caller]
    pub(crate) fn connect(&self, n: u32, e: u32, host: u32) -> Connected<'h> {
        let created = self.net("CreateEndpoint", &endpoint(n, e, host));
        let mac = created["Interface"]["MacAddress"].as_str().unwrap().to_owned();
        self.join(n, e, host, &mac)
    }

    /// Joins a new container to an endpoint that is there.
    #[track_caller]
    pub(crate) fn join(&self, n: u32, e: u32, host: u32, mac: &str) -> Connected<'h> {
        let container = self.host.container(&format!("c{e}"));
        let mut call = about(n, e);
        call["SandboxKey"] = json!(container.netns());
        call["Options"] = json!({});
        let joined = self.net("Join", &call);
        let source = joined["InterfaceName"]["SrcName"].as_str().unwrap().to_owned();
        let gateway = joined["Gateway"].as_str().unwrap().to_owned();
        self.host.run(&format!("ip link set {source} netns {}", container.name()));
        let mut commands = format!(
            "link set lo up\nlink set {source} name eth0\nlink set eth0 address {mac}\n\
             address add 10.80.{n}.{host}/24 dev eth0\nlink set eth0 up\n"
        );
        if !gateway.is_empty() {
            commands.push_str(&format!("route add default via {gateway}\n"));
        }
        container.cmd("ip").args(["-batch", "-"]).stdin(commands).run();
        // The kernel tells a bridge of a port's carrier when it comes to it, within a second on a busy machine.
        let port = container.json("ip -j link show eth0")[0]["link_index"].clone();
        eventually(Duration::from_secs(5), || {
            let ports = self.host.json("bridge -j link show");
            let mut ports = ports.as_array().into_iter().flatten();
            let forwards = |one: &Value| one["ifindex"] == port && one["state"] == "forwarding";
            if ports.any(forwards) { Ok(()) } else { Err(format!("port {port} does not forward")) }
        });
        Connected { container, network: n, endpoint: e, source }
    }

    /// Disconnects as dockerd does.
    #[track_caller]
    pub(crate) fn disconnect(&self, connected: Connected<'h>) {
        let Connected { container, network, endpoint, source } = connected;
        let call = about(network, endpoint);
        self.net("RevokeExternalConnectivity", &call);
        self.net("Leave", &call);
        // Named and moved in one step: the name may be taken in the host's namespace.
        container.cmd("ip").args(["link", "set", "eth0", "down"]).run();
        container.cmd("ip").args(["link", "set", "eth0", "name", &source]).run();
        move_out(self.host, &container, &source);
        self.net("DeleteEndpoint", &call);
        container.remove();
    }

    /// `berth ARGS --json`.
    #[track_caller]
    pub(crate) fn berth(&self, args: &[&str]) -> Value {
        let text = berth(self.host, args.iter().copied().chain(["--json"])).run();
        serde_json::from_str(&text).unwrap()
    }

    /// Requires that records and kernel agree.
    #[track_caller]
    pub(crate) fn well(&self) {
        eventually(Duration::from_secs(10), || {
            let all = ["doctor", "check"].map(|command| berth(self.host, [command]).output());
            let wrong: Vec<String> =
                all.iter().filter(|ran| ran.code() != Some(0)).map(ToString::to_string).collect();
            if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
        });
    }
}

fn move_out(host: &Host, container: &Container<'_>, link: &str) {
    // The host's namespace, as seen from the thread that asks.
    let path = host.net_path();
    container.cmd("ip").args(["link", "set", link, "netns"]).arg(path).run();
}

/// A container on a network.
pub(crate) struct Connected<'h> {
    pub(crate) container: Container<'h>,
    pub(crate) network: u32,
    pub(crate) endpoint: u32,
    source: String,
}

/// What a plugin answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    fn ok(self, method: &str, body: &Value) -> Value {
        assert_eq!(self.status, 200, "{method} {body}: {}", self.text);
        serde_json::from_str(&self.text).unwrap()
    }

    /// The sentence, which both of Docker's error fields have.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        assert_eq!(self.status, 500, "{}", self.text);
        let json: Value = serde_json::from_str(&self.text).unwrap();
        assert_eq!(json["Err"], json["Error"]);
        let sentence = json["Err"].as_str().unwrap().to_owned();
        assert!(!sentence.is_empty() && !sentence.contains('\n'), "{sentence:?}");
        sentence
    }
}

/// Calls a method of a plugin.
pub(crate) fn answer(host: &Host, plugin: &str, method: &str, body: &str) -> Answer {
    let head = format!(
        "POST /{method} HTTP/1.1\r\nHost: plugin.moby.localhost\r\n\
         Accept: application/vnd.docker.plugins.v1.2+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    try_answer(host, plugin, &[head.as_bytes(), body.as_bytes()].concat())
        .unwrap_or_else(|error| panic!("{plugin} {method}: {error}"))
}

/// Sends bytes and reads the answer.
pub(crate) fn try_answer(host: &Host, plugin: &str, request: &[u8]) -> std::io::Result<Answer> {
    let path = format!("/run/docker/plugins/{plugin}.sock");
    let mut stream = host.inside(|| UnixStream::connect(Path::new(&path)))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    // A request that is refused before its end may break off.
    let sent = stream.write_all(request);
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let whole = String::from_utf8_lossy(&bytes);
    let Some((head, text)) = whole.split_once("\r\n\r\n") else {
        sent?;
        read?;
        return Err(std::io::Error::other(format!("no answer: {whole:?}")));
    };
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Ok(Answer { status, text: text.to_owned() })
}
