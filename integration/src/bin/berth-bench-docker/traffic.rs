//! Throughput through a published port: TCP from a client to a container that reads and throws away.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use berth_integration::bench::{Socket, Wanted, row};
use berth_integration::engine::Dockerd;
use berth_integration::{Host, Place};
use serde_json::json;

use crate::{BESIDE, DRIVERS, driver_network, network, run};

/// How long bytes are sent in one round.
const SENDING: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
const PORT: u16 = 5001;

/// On the host's own address, and on localhost, where Docker's driver has a process that copies.
pub(crate) fn measure(host: &Host, docker: &Dockerd<'_>) {
    let api = Socket::docker(host);
    let bindings = json!({format!("{PORT}/tcp"): [{"HostPort": PORT.to_string()}]});
    let mut rates: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for driver in DRIVERS {
        network(&api, driver, driver_network(driver));
    }
    for _ in 0..ROUNDS {
        for driver in DRIVERS {
            run(&api, "sink", driver_network(driver), &bindings);
            let inside = docker.place("sink");
            for addr in ["192.0.2.2", "127.0.0.1"] {
                rates.entry((driver, addr)).or_default().push(rate(host, &inside, addr));
            }
            drop(inside);
            api.delete("/containers/sink?force=1");
        }
    }
    for driver in DRIVERS {
        api.delete(&format!("/networks/{}", driver_network(driver)));
    }
    let best = |driver, addr| rates[&(driver, addr)].iter().copied().fold(0.0, f64::max);
    for (addr, words, wanted) in [
        ("192.0.2.2", "throughput through a published port, the host's address", 1.0),
        ("127.0.0.1", "throughput through a published port, localhost", 1.3),
    ] {
        let wanted = Wanted::TimesAtLeast(wanted);
        row(words, "Gbit/s", best("rbridge", addr), Some((BESIDE, best("bridge", addr))), wanted);
    }
}

/// Gbit a second from the host to the container, by the published port.
fn rate(host: &Host, container: &Place, addr: &str) -> f64 {
    let listener = container.inside(|| TcpListener::bind(("0.0.0.0", PORT)).unwrap());
    let to: SocketAddr = format!("{addr}:{PORT}").parse().unwrap();
    std::thread::scope(|scope| {
        let sink = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut buffer, mut bytes) = (vec![0; 256 << 10], 0_u64);
            let started = Instant::now();
            loop {
                match stream.read(&mut buffer).unwrap() {
                    0 => return (bytes, started.elapsed()),
                    read => bytes += u64::try_from(read).unwrap(),
                }
            }
        });
        let mut stream = host.inside(|| TcpStream::connect(to).unwrap());
        let buffer = vec![7; 256 << 10];
        let started = Instant::now();
        while started.elapsed() < SENDING {
            stream.write_all(&buffer).unwrap();
        }
        drop(stream);
        let (bytes, took) = sink.join().unwrap();
        #[expect(clippy::cast_precision_loss, reason = "far below 2 to the 52nd")]
        let bits = bytes as f64 * 8.0;
        bits / took.as_secs_f64() / 1e9
    })
}
