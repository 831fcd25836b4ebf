//! `roverlay`, as dockerd asks it: of a cluster of one node whose networks a file lists.

use berth_integration::engine::{Berthd, berth, engine_test, nothing_attached};
use berth_integration::{Host, eventually};
use serde_json::{Value, json};

use crate::caller::{Answer, answer, endpoint_id, network_id};

/// The file of the cluster: of its networks one is internal, and of one many addresses are dealt to each peer.
const PEERS: &str = r#"{
  "v": 1,
  "peers": [{"name": "n1", "vteps": ["192.0.2.2"]}],
  "networks": [
    {"name": "app", "vni": 4096, "subnets": ["10.7.0.0/24", "fd07::/64"], "mtu": 1400},
    {"name": "inner", "vni": 4097, "subnets": ["10.8.0.0/24"], "internal": true},
    {"name": "wide", "vni": 4098, "subnets": ["10.16.0.0/16"]}
  ]
}
"#;

/// dockerd's part.
struct Caller<'h> {
    host: &'h Host,
    daemon: Berthd<'h>,
}

/// Runs `test` on a host that has joined the cluster.
fn overlay_test(test: impl FnOnce(&mut Caller<'_>)) {
    roles_test("docker,overlay", test);
}

/// The same with certain roles in the one daemon.
fn roles_test(roles: &str, test: impl FnOnce(&mut Caller<'_>)) {
    engine_test(&[], |host| {
        let daemon = Berthd::new(host, &["--roles", roles]);
        let file = host.dir().join("peers.json");
        std::fs::write(&file, PEERS).unwrap();
        berth(host, ["node", "join", "--name", "n1", "--peers", file.to_str().unwrap()]).run();
        let mut caller = Caller { host, daemon };
        caller.is_connected();
        test(&mut caller);
        berth(host, ["node", "leave", "--force"]).run();
        caller.daemon.stop();
    });
}

impl Caller<'_> {
    fn is_connected(&self) {
        eventually(std::time::Duration::from_secs(20), || {
            let text = berth(self.host, ["overlay", "status", "--json"]).output().stdout;
            let status: Value = serde_json::from_str(&text).unwrap_or_default();
            if status["connected"] == true { Ok(()) } else { Err(text) }
        });
    }

    fn ask(&self, method: &str, body: &Value) -> Answer {
        answer(self.host, "roverlay", method, &body.to_string())
    }

    #[track_caller]
    fn call(&self, method: &str, body: &Value) -> Value {
        let Answer { status, text } = self.ask(method, body);
        assert_eq!(status, 200, "{method} {body}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    #[track_caller]
    fn refuses(&self, method: &str, body: &Value, words: &str) {
        let said = self.ask(method, body).refused();
        assert!(said.contains(words), "{method} {body}: {said}");
    }

    /// Holds an address; any, where `address` is empty.
    #[track_caller]
    fn hold(&self, pool: &str, address: &str) -> String {
        let given = self.call("IpamDriver.RequestAddress", &wish(pool, address));
        given["Address"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn release(&self, pool: &str, address: &str) {
        let plain = address.split('/').next().unwrap();
        self.call("IpamDriver.ReleaseAddress", &json!({"PoolID": pool, "Address": plain}));
    }

    /// Creates endpoint `e` with an address.
    #[track_caller]
    fn endpoint(&self, e: u32, address: &str) -> Value {
        self.call("NetworkDriver.CreateEndpoint", &endpoint(e, address))
    }

    /// The agent, as it is looked at.
    fn status(&self) -> Value {
        let text = berth(self.host, ["overlay", "status", "--json"]).output().stdout;
        serde_json::from_str(&text).unwrap()
    }

    /// The networks that this host is on, by its agent.
    fn networks(&self) -> Vec<String> {
        let status = self.status();
        let networks = status["networks"].as_array().unwrap().iter();
        networks.map(|network| network["name"].as_str().unwrap().to_owned()).collect()
    }

    fn attachments(&self) -> Value {
        serde_json::from_str(&berth(self.host, ["ps", "--json"]).run()).unwrap()
    }
}

fn wish(pool: &str, address: &str) -> Value {
    json!({"PoolID": pool, "Address": address, "Options": {}})
}

fn pool(options: Value, pool: &str, v6: bool) -> Value {
    json!({"AddressSpace": "berth-overlay", "Pool": pool, "SubPool": "", "Options": options, "V6": v6})
}

fn network(n: u32, generic: Value, pool: &str, gateway: &str) -> Value {
    json!({
        "NetworkID": network_id(n),
        "Options": {"com.docker.network.generic": generic},
        "IPv4Data": [{"AddressSpace": "berth-overlay", "Pool": pool, "Gateway": gateway}],
        "IPv6Data": [],
    })
}

fn app(n: u32) -> Value {
    network(n, json!({"network": "app"}), "10.7.0.0/24", "10.7.0.1/24")
}

fn about(e: u32) -> Value {
    json!({"NetworkID": network_id(1), "EndpointID": endpoint_id(e)})
}

fn endpoint(e: u32, address: &str) -> Value {
    let mut call = about(e);
    call["Interface"] = json!({"Address": address, "AddressIPv6": "", "MacAddress": ""});
    call["Options"] = json!({});
    call
}

const APP: &str = "app/10.7.0.0/24";

#[test]
fn a_host_without_an_agent_or_a_cluster_says_what_to_do() {
    engine_test(&[], |host| {
        let mut daemon = Berthd::new(host, &["--roles", "docker"]);
        let ask = |method: &str, body: &Value| answer(host, "roverlay", method, &body.to_string()).refused();
        let wanted = pool(json!({"network": "app"}), "", false);
        let said = ask("IpamDriver.RequestPool", &wanted);
        assert!(said.contains("no overlay agent listens") && said.contains("role `overlay`"), "{said}");
        let said = ask("NetworkDriver.CreateNetwork", &app(1));
        assert!(said.contains("no overlay agent listens"), "{said}");
        daemon.stop();
        drop(daemon);
        let mut daemon = Berthd::new(host, &["--roles", "docker,overlay"]);
        for (method, body) in [("IpamDriver.RequestPool", &wanted), ("NetworkDriver.CreateNetwork", &app(1))]
        {
            let said = ask(method, body);
            assert!(said.contains("this node has joined no cluster; join one: berth node join"), "{said}");
        }
        let said = berth(host, ["network", "share", "app"]).output();
        assert!(said.code() == Some(1) && said.stderr.contains("has joined no cluster"), "{said}");
        daemon.stop();
    });
}

#[test]
fn what_is_not_the_clusters_is_refused_and_it_says_what_to_type() {
    overlay_test(|docker| {
        let request = "IpamDriver.RequestPool";
        docker.refuses(request, &pool(json!({}), "", false), "--ipam-opt network=NETWORK -o network=NETWORK");
        docker.refuses(request, &pool(Value::Null, "", false), "say which network of the cluster it is");
        docker.refuses(request, &pool(json!({"network": "a/b"}), "", false), "network name");
        docker.refuses(
            request,
            &pool(json!({"network": "app", "sticky": "1"}), "", false),
            "unknown option `sticky`",
        );
        let app_pool = |subnet: &str| pool(json!({"network": "app"}), subnet, subnet.contains(':'));
        docker.refuses(
            request,
            &app_pool("10.9.0.0/24"),
            "subnet 10.9.0.0/24 is not network `app`'s, which has 10.7.0.0/24",
        );
        docker.refuses(request, &app_pool("fd09::/64"), "leave `--subnet` out");
        docker.refuses(request, &app_pool("10.9.0.1/24"), "has host bits");
        let mut ranged = app_pool("10.7.0.0/24");
        ranged["SubPool"] = json!("10.7.0.128/25");
        docker.refuses(request, &ranged, "leave `--ip-range` out");
        let inner_v6 = pool(json!({"network": "inner"}), "", true);
        docker.refuses(request, &inner_v6, "has no subnet of IPv6; leave `--ipv6` out");
        // The file says which networks there are, and no other is made.
        assert_eq!(docker.call(request, &app_pool("10.7.0.0/24"))["PoolID"], APP);
        assert_eq!(docker.call(request, &pool(json!({"network": "app"}), "", true))["Pool"], "fd07::/64");

        let create = "NetworkDriver.CreateNetwork";
        let with = |generic: Value| network(1, generic, "10.7.0.0/24", "10.7.0.1/24");
        docker.refuses(create, &with(json!({})), "say which network of the cluster it is");
        docker.refuses(create, &with(json!({"network": "app", "colour": "red"})), "unknown option `colour`");
        docker.refuses(
            create,
            &with(json!({"network": "inner"})),
            "`--ipam-opt network=app` and `-o network=inner` are two",
        );
        docker.refuses(
            create,
            &with(json!({"network": "app", "vni": "77"})),
            "VNI 77 is not network `app`'s, which has VNI 4096",
        );
        docker.refuses(
            create,
            &with(json!({"network": "app", "mtu": "1450"})),
            "which has MTU 1400: leave it out",
        );
        docker.refuses(
            create,
            &with(json!({"network": "app", "icc": "false"})),
            "`icc=false` is not network `app`'s",
        );
        docker.refuses(
            create,
            &with(json!({"network": "nowhere"})),
            "`--ipam-opt network=app` and `-o network=nowhere` are two",
        );
        let gateway = network(1, json!({"network": "app"}), "10.7.0.0/24", "10.7.0.9/24");
        docker.refuses(create, &gateway, "gateway 10.7.0.9 is not network `app`'s, which has 10.7.0.1");
        let mut foreign = app(1);
        foreign["IPv4Data"][0]["AddressSpace"] = json!("LocalDefault");
        docker.refuses(
            create,
            &foreign,
            "takes none of another address driver: docker network create -d roverlay",
        );
        let mut none = app(1);
        none["IPv4Data"] = json!([]);
        docker.refuses(create, &none, "needs the cluster's addresses");
        let mut internal = app(1);
        internal["Options"]["com.docker.network.internal"] = json!(true);
        docker.refuses(create, &internal, "`--internal` is not network `app`'s");
        let gateway = json!({"RequestAddressType": "com.docker.network.gateway"});
        let wish = json!({"PoolID": APP, "Address": "10.7.0.9", "Options": gateway});
        docker.refuses("IpamDriver.RequestAddress", &wish, "which has 10.7.0.1: leave `--gateway` out");

        // A second name for one network is refused, and the first is named.
        docker.call(create, &app(1));
        docker.call(create, &app(1));
        docker.refuses(create, &app(2), "is Docker's network `000000000001` on this host already");
        docker.refuses("NetworkDriver.CreateEndpoint", &endpoint(1, ""), "has no address");
        docker.refuses("NetworkDriver.Join", &about(9), "does not know endpoint");
        assert_eq!(docker.networks(), ["app"]);
        docker.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": network_id(1)}));
        assert_eq!(docker.networks(), [""; 0], "nobody here needs it");
        docker.refuses("NetworkDriver.CreateEndpoint", &endpoint(1, "10.7.0.7/24"), "does not know network");
        docker.call(create, &app(2));
        docker.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": network_id(2)}));
    });
}

/// The calls wait for the agent and the DNS server, which are in the same process.
#[test]
fn a_crowd_of_calls_leaves_room_for_the_roles_that_it_waits_for() {
    roles_test("docker,overlay,dns", |docker| {
        let wide = docker.call("IpamDriver.RequestPool", &pool(json!({"network": "wide"}), "", false));
        let wide = wide["PoolID"].as_str().unwrap();
        let create = network(1, json!({"network": "wide"}), "10.16.0.0/16", "10.16.0.1/16");
        docker.call("NetworkDriver.CreateNetwork", &create);
        let docker = &*docker;
        let at_once = |call: &(dyn Fn(u32) + Sync)| {
            std::thread::scope(|scope| (0..60).for_each(|e| drop(scope.spawn(move || call(e)))));
        };
        at_once(&|e| drop(docker.endpoint(e, &docker.hold(wide, ""))));
        assert_eq!(
            (&docker.status()["unpublished"], &docker.status()["networks"][0]["here"]),
            (&json!(0), &json!(61))
        );
        at_once(&|e| {
            docker.call("NetworkDriver.Leave", &about(e));
            docker.call("NetworkDriver.DeleteEndpoint", &about(e));
        });
        nothing_attached(docker.host);
        docker.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": network_id(1)}));
    });
}

#[test]
fn an_address_is_dockers_from_its_request_to_its_release() {
    overlay_test(|docker| {
        docker.call("IpamDriver.RequestPool", &pool(json!({"network": "app"}), "", false));
        docker.call("NetworkDriver.CreateNetwork", &app(1));
        // dockerd would ask for ever for a subnet that the host has no route to.
        let again = pool(json!({"network": "app"}), "", false);
        docker.refuses("IpamDriver.RequestPool", &again, "say which subnet it is: --subnet 10.7.0.0/24");
        let gateway = json!({"PoolID": APP, "Address": "", "Options": {"RequestAddressType": "com.docker.network.gateway"}});
        assert_eq!(docker.call("IpamDriver.RequestAddress", &gateway)["Address"], "10.7.0.1/24");
        let (one, two) = (docker.hold(APP, ""), docker.hold(APP, ""));
        assert_ne!(one, two);
        let plain = one.split('/').next().unwrap();
        docker.refuses("IpamDriver.RequestAddress", &wish(APP, plain), "is in use");
        let made = docker.endpoint(1, &one);
        assert_eq!(docker.endpoint(1, &one), made, "asked again, it is the same");
        // Its Ethernet address is made of who it is: another endpoint with the address has another.
        let mut join = about(1);
        join["SandboxKey"] = json!("/run/docker/netns/not-there-yet");
        let joined = docker.call("NetworkDriver.Join", &join);
        assert_eq!(
            (&joined["Gateway"], &joined["DisableGatewayService"]),
            (&json!("10.7.0.1"), &json!(false))
        );
        let source = joined["InterfaceName"]["SrcName"].as_str().unwrap();
        assert_eq!(docker.host.json(&format!("ip -j link show {source}"))[0]["mtu"], 1400);
        assert_eq!(docker.attachments()[0]["network"], "app");

        // Another engine's container of this host gets neither of the two.
        let conf =
            json!({"type": "roverlay", "name": "app", "stateDir": "/var/lib/berth", "runDir": "/run/berth"});
        let container = docker.host.container("cni1");
        let call = docker.host.cni().conf(conf).id("cni1").container(&container);
        let added = call.add().ok();
        let theirs = added["ips"][0]["address"].as_str().unwrap().to_owned();
        assert!(theirs != one && theirs != two, "{added}");
        docker.refuses(
            "IpamDriver.RequestAddress",
            &wish(APP, theirs.split('/').next().unwrap()),
            "in use by container cni1",
        );
        docker.release(APP, &theirs);
        docker.refuses(
            "IpamDriver.RequestAddress",
            &wish(APP, theirs.split('/').next().unwrap()),
            "in use by container cni1",
        );

        // A runtime that collects by its own list leaves Docker's alone.
        let list = json!([{"containerID": "cni1", "ifname": "eth0"}]);
        let conf = json!({
            "cniVersion": "1.1.0", "type": "roverlay", "name": "app", "stateDir": "/var/lib/berth", "runDir": "/run/berth",
            "cni.dev/valid-attachments": list,
        });
        docker.host.cni().conf(conf).run("GC").ok();
        assert_eq!(docker.attachments().as_array().unwrap().len(), 2);
        docker.refuses("IpamDriver.RequestAddress", &wish(APP, two.split('/').next().unwrap()), "is in use");

        // dockerd starts anew and asks for what it holds.
        docker.call("Plugin.Activate", &Value::Null);
        docker.call("IpamDriver.RequestPool", &pool(json!({"network": "app"}), "10.7.0.0/24", false));
        assert_eq!(docker.hold(APP, plain), one);
        docker.refuses("IpamDriver.RequestAddress", &wish(APP, plain), "is in use");
        // It has forgotten the endpoint: what has its address is a leftover.
        let again = docker.endpoint(2, &one);
        assert_ne!(again["Interface"]["MacAddress"], made["Interface"]["MacAddress"]);
        let held = docker.attachments();
        assert_eq!(held.as_array().unwrap().len(), 2, "{held}");

        for _ in 0..2 {
            docker.call("NetworkDriver.Leave", &about(2));
            docker.call("NetworkDriver.DeleteEndpoint", &about(2));
            docker.release(APP, &one);
            docker.release(APP, &two);
        }
        assert_eq!(docker.hold(APP, plain), one, "free again");
        docker.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": network_id(1)}));
        // The other engine's container stays, and so does this host.
        assert_eq!(docker.attachments().as_array().unwrap().len(), 1);
        assert_eq!(docker.networks(), ["app"]);
        call.del().ok();
    });
}

#[test]
fn an_internal_network_is_one_whether_docker_knows_it_or_not() {
    overlay_test(|docker| {
        docker.call(
            "NetworkDriver.CreateNetwork",
            &network(1, json!({"network": "inner"}), "10.8.0.0/24", "10.8.0.1/24"),
        );
        let address = docker.hold("inner/10.8.0.0/24", "");
        docker.endpoint(1, &address);
        let joined = docker.call("NetworkDriver.Join", &about(1));
        assert_eq!((&joined["Gateway"], &joined["DisableGatewayService"]), (&json!(""), &json!(true)));
        let binding = json!([{"Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080}]);
        let mut program = about(1);
        program["Options"] = json!({"com.docker.network.portmap": binding});
        docker.call("NetworkDriver.ProgramExternalConnectivity", &program);
        assert_eq!(berth(docker.host, ["ports", "--json"]).run().trim(), "[]");
        docker.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": network_id(1)}));
        assert_eq!(docker.attachments(), json!([]));
    });
}

#[test]
fn what_is_known_of_a_network_outlives_the_daemon_and_a_reboot() {
    overlay_test(|docker| {
        docker.call("NetworkDriver.CreateNetwork", &app(1));
        docker.daemon.crash();
        docker.host.run("rm -rf /run/berth");
        docker.daemon.start();
        docker.is_connected();
        let address = docker.hold(APP, "");
        docker.endpoint(1, &address);
        docker.call("NetworkDriver.DeleteEndpoint", &about(1));
        docker.release(APP, &address);
        docker.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": network_id(1)}));
    });
}

#[test]
fn a_network_of_a_file_is_shared_in_the_file() {
    overlay_test(|docker| {
        let said = berth(docker.host, ["network", "share", "app"]).output();
        assert!(said.stderr.contains("write `\"shared\": true` of the network into the file"), "{said}");
        let file = docker.host.dir().join("peers.json");
        std::fs::write(&file, PEERS.replace("\"mtu\": 1400", "\"mtu\": 1400, \"shared\": true")).unwrap();
        // There is no Docker here.
        eventually(std::time::Duration::from_secs(20), || {
            let shown = berth(docker.host, ["overlay", "status"]).output().stdout;
            if shown.contains("app: no Docker answers: there is no /run/docker.sock") {
                Ok(())
            } else {
                Err(shown)
            }
        });
        // Engines are to have it: a network of Docker's that goes is made anew.
        docker.call("NetworkDriver.CreateNetwork", &app(1));
        docker.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": network_id(1)}));
        assert_eq!(docker.networks(), ["app"]);
    });
}
