//! The daemon's memory with many endpoints, made by the plugin's own calls: 500 containers would take the machine's.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use berth_integration::Host;
use berth_integration::bench::{Memory, Wanted, row};
use berth_integration::engine::Berthd;
use serde_json::{Value, json};

const ENDPOINTS: u32 = 500;

pub(crate) fn measure(host: &Host, berthd: &Berthd<'_>) {
    let network = format!("{:064x}", 0xbe);
    let endpoint = |n: u32| json!({"NetworkID": network, "EndpointID": format!("{n:064x}")});
    call(
        host,
        "CreateNetwork",
        &json!({
            "NetworkID": network, "Options": {},
            "IPv4Data": [{"Pool": "10.80.0.0/16", "Gateway": "10.80.0.1/16"}], "IPv6Data": [],
        }),
    );
    for n in 0..ENDPOINTS {
        let mut create = endpoint(n);
        create["Interface"] = json!({"Address": format!("10.80.{}.{}/16", 1 + n / 250, 2 + n % 250)});
        call(host, "CreateEndpoint", &create);
        let mut program = endpoint(n);
        program["Options"] = json!({"com.docker.network.portmap": [
            {"Proto": 6, "Port": 80, "HostIP": "", "HostPort": 20_000 + n, "HostPortEnd": 20_000 + n},
        ]});
        call(host, "ProgramExternalConnectivity", &program);
    }
    let memory = Memory::of(berthd.pid().unwrap()).settled;
    row(&format!("memory of `berthd` with {ENDPOINTS} endpoints"), "MB", memory, None, Wanted::AtMost(30.0));
    for n in 0..ENDPOINTS {
        call(host, "DeleteEndpoint", &endpoint(n));
    }
    call(host, "DeleteNetwork", &json!({"NetworkID": network}));
}

fn call(host: &Host, method: &str, body: &Value) {
    let body = body.to_string();
    let request = format!(
        "POST /NetworkDriver.{method} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = host.inside(|| UnixStream::connect("/run/docker/plugins/rbridge.sock").unwrap());
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
}
