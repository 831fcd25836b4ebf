//! TCP between two places: how much a second, and how soon a byte is answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Place;

/// Which processors the two ends are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processors {
    /// As the kernel likes, which may move them in the middle.
    Any,
    /// Each on one of its own, where there are two.
    Apart,
    /// Both on the first: no time is lost in waking another one, and what is measured is the work.
    Same,
}

impl Processors {
    /// Keeps the calling thread, which is end 0 or 1, where it is to be.
    fn keep(self, end: usize) {
        let mut set = CpuSet::new();
        match self {
            Self::Any => return,
            Self::Apart => set.set(end % std::thread::available_parallelism().unwrap().get()),
            Self::Same => set.set(0),
        }
        sched_setaffinity(None, &set).unwrap();
    }
}

/// Gbit a second from one place to a sink in the other, which is reached at `to`, for as long as `sending`.
pub fn rate(from: &Place, sink: &Place, to: SocketAddr, sending: Duration, on: Processors) -> f64 {
    let listener = sink.inside(|| TcpListener::bind(("0.0.0.0", to.port())).unwrap());
    std::thread::scope(|scope| {
        let sink = scope.spawn(move || {
            on.keep(1);
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
        let mut stream = from.inside(|| TcpStream::connect(to).unwrap());
        let source = scope.spawn(move || {
            on.keep(0);
            let buffer = vec![7; 256 << 10];
            let started = Instant::now();
            while started.elapsed() < sending {
                stream.write_all(&buffer).unwrap();
            }
        });
        source.join().unwrap();
        let (bytes, took) = sink.join().unwrap();
        #[expect(clippy::cast_precision_loss, reason = "far below 2 to the 52nd")]
        let bits = bytes as f64 * 8.0;
        bits / took.as_secs_f64() / 1e9
    })
}

/// How long each of `count` bytes took from one place to an echo in the other, which is reached at `to`, and back: one at a time
/// on one connection, after some that are not counted.
pub fn round_trips(
    from: &Place,
    echo: &Place,
    to: SocketAddr,
    count: usize,
    on: Processors,
) -> Vec<Duration> {
    const WARMING: usize = 200;
    let listener = echo.inside(|| TcpListener::bind(("0.0.0.0", to.port())).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            on.keep(1);
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).unwrap() == 1 {
                stream.write_all(&byte).unwrap();
            }
        });
        let mut stream = from.inside(|| TcpStream::connect(to).unwrap());
        stream.set_nodelay(true).unwrap();
        let trips = move || {
            on.keep(0);
            let mut trip = || {
                let started = Instant::now();
                stream.write_all(&[7]).unwrap();
                stream.read_exact(&mut [0]).unwrap();
                started.elapsed()
            };
            for _ in 0..WARMING {
                trip();
            }
            (0..count).map(|_| trip()).collect()
        };
        scope.spawn(trips).join().unwrap()
    })
}
