//! Connect a running container to a network that is there, and disconnect it: by berth's driver, by Docker's own, and by one that
//! does nothing at all but hand over a link that was made before. Less than that takes no driver that leaves the link to dockerd.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use berth_integration::Host;
use berth_integration::bench::{self, Socket, Wanted};
use serde_json::{Value, json};

use crate::{BESIDE, DRIVERS, network, run};

/// The driver that does nothing, its socket, and the link that it hands over.
const IDLE: &str = "idle";
const SOCKET: &str = "/run/docker/plugins/idle.sock";
const LINK: &str = "idle0";

/// Turns of each, ten in every order.
const TURNS: usize = 60;

/// Before every call: what the last one left to be done is not in this one's time.
const PAUSE: Duration = Duration::from_millis(150);

pub(crate) fn measure(host: &Host) {
    let api = Socket::docker(host);
    answer_nothing(host);
    let rivals = [DRIVERS[0], DRIVERS[1], IDLE];
    network(&api, "bridge", "a-first");
    run(&api, "c0", "a-first", &json!({}));
    for driver in rivals {
        network(&api, driver, &format!("z-{driver}"));
    }
    let (mut connects, mut disconnects) = (HashMap::new(), HashMap::new());
    for order in bench::orders(rivals.len(), TURNS) {
        for driver in order.into_iter().map(|place| rivals[place]) {
            if driver == IDLE {
                host.run(&format!("ip link add {LINK} type veth peer name idle1"));
            }
            let call = |verb, body: &Value| {
                std::thread::sleep(PAUSE);
                let (_, took) = api.post(&format!("/networks/z-{driver}/{verb}"), body);
                took.as_secs_f64() * 1000.0
            };
            let connected = call("connect", &json!({"Container": "c0"}));
            connects.entry(driver).or_insert_with(Vec::new).push(connected);
            let disconnected = call("disconnect", &json!({"Container": "c0", "Force": false}));
            disconnects.entry(driver).or_insert_with(Vec::new).push(disconnected);
            if driver == IDLE {
                host.run(&format!("ip link del {LINK}"));
            }
        }
    }
    api.delete("/containers/c0?force=1");
    api.delete("/networks/a-first");
    for driver in rivals {
        api.delete(&format!("/networks/z-{driver}"));
    }
    host.inside(|| std::fs::remove_file(SOCKET)).unwrap();
    for (work, times) in [("`network connect`", &connects), ("`network disconnect`", &disconnects)] {
        let [ours, theirs, idle] = rivals.map(|driver| &times[driver][..]);
        bench::row_of_turns(work, "ms", ours, (BESIDE, theirs), Wanted::Times(0.7));
        bench::row_of_turns(work, "ms", ours, ("a driver that does nothing", idle), Wanted::Nothing);
    }
}

/// Has a driver on the host that agrees to everything.
fn answer_nothing(host: &Host) {
    let listener = host.inside(|| {
        std::fs::create_dir_all("/run/docker/plugins").unwrap();
        UnixListener::bind(SOCKET).unwrap()
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(|| answer(stream));
        }
    });
}

/// Answers the requests of one connection, until that ends.
fn answer(stream: UnixStream) {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        let method = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().unwrap()
                }
                Some(_) => {}
                None => break,
            }
        }
        reader.read_exact(&mut vec![0; length]).unwrap();
        let answer = match method.as_str() {
            "/Plugin.Activate" => json!({"Implements": ["NetworkDriver"]}),
            "/NetworkDriver.GetCapabilities" => json!({"Scope": "local", "ConnectivityScope": "local"}),
            "/NetworkDriver.CreateEndpoint" => json!({"Interface": {}}),
            "/NetworkDriver.EndpointOperInfo" => json!({"Value": {}}),
            "/NetworkDriver.Join" => json!({"InterfaceName": {"SrcName": LINK, "DstPrefix": "eth"}}),
            _ => json!({}),
        };
        let body = answer.to_string();
        let header = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        // dockerd may be gone by then, at the end.
        if (&stream).write_all((header + &body).as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}
