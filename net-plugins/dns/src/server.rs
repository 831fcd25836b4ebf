//! The server: its threads, its sockets, and changes of what it answers.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use berth_types::NetworkName;

use crate::cache::Cache;
use crate::config::ServerConfig;
use crate::error::DnsError;
use crate::forward::resolv::Resolv;
use crate::forward::{Forwarder, Jobs};
use crate::metrics::Metrics;
use crate::respond::Shared;
use crate::serve::bind::{Handed, Opened, Wanted, open};
use crate::serve::tcp::{Inbox, TcpWorker};
use crate::serve::udp::Worker;
use crate::serve::{Listener, Station};
use crate::shown::{Entry, HandedSocket, Listening};
use crate::zone::Zone;
use crate::zone::spec::{Change, NetworkSpec};

/// More threads than this find nothing to do: one answers what a hundred busy containers ask.
const WORKERS: usize = 4;

/// A running DNS server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    pub(crate) shared: Arc<Shared>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) config: ServerConfig,
    metrics: Arc<Metrics>,
    own: Arc<ArcSwap<Vec<SocketAddr>>>,
    udp: Vec<Arc<Station>>,
    tcp: Arc<Station>,
    state: Mutex<State>,
    binder: Option<mpsc::Sender<Bind>>,
    stop_forwarder: Arc<AtomicBool>,
    /// By what they do.
    threads: Vec<(&'static str, JoinHandle<()>)>,
}

/// What changes by calls.
#[derive(Debug)]
struct State {
    bound: HashMap<(NetworkName, IpAddr), Bound>,
    next: u64,
}

/// The sockets of one gateway address.
#[derive(Debug)]
struct Bound {
    addr: SocketAddr,
    /// Each with its number, and the worker that has it.
    udp: Vec<(u64, usize, Arc<Listener>)>,
    tcp: (u64, Arc<Listener>),
}

/// A request to the thread that opens sockets. It was started where the server was, and stays there: whoever makes a change may
/// be in another network namespace.
type Bind = Box<dyn FnOnce() + Send>;

impl Server {
    /// Starts the server's threads, makes `changes`, and listens for all networks among them: on the sockets `handed` over by
    /// the process before this one, where they fit. The sockets belong to the caller's network namespace.
    pub fn start(
        config: ServerConfig,
        changes: Vec<Change>,
        handed: Vec<HandedSocket>,
    ) -> Result<Self, DnsError> {
        let failed = |what| move |source: rustix::io::Errno| DnsError::Start { what, source: source.into() };
        let resolv = Resolv::new(config.resolv_conf.clone());
        let shared = Arc::new(Shared {
            zone: ArcSwap::from_pointee(Zone::default()),
            cache: Cache::new(config.limits.cache_bytes),
            host: ArcSwap::from_pointee(resolv.current()),
        });
        let jobs = Arc::new(Jobs::new(&config.limits).map_err(failed("queue"))?);
        let workers = match config.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS),
            workers => workers.min(usize::from(u8::MAX)),
        };
        let station = || Station::new().map(Arc::new).map_err(failed("epoll instance"));
        let mut server = Self {
            shared,
            jobs,
            config,
            metrics: Arc::default(),
            own: Arc::default(),
            udp: (0..workers).map(|_| station()).collect::<Result<_, _>>()?,
            tcp: station()?,
            state: Mutex::new(State { bound: HashMap::new(), next: 1 }),
            binder: None,
            stop_forwarder: Arc::default(),
            threads: Vec::new(),
        };
        server.start_threads(resolv)?;
        server.change(changes, &mut Handed::new(handed))?;
        Ok(server)
    }

    /// Makes `changes`; when it returns they are in every answer. Says where the server listens then.
    ///
    /// An address that cannot be listened on at all is an error; the names are answered elsewhere all the same, and putting the
    /// network again tries again.
    pub fn apply(&self, changes: Vec<Change>) -> Result<Vec<Listening>, DnsError> {
        self.change(changes, &mut Handed::default())?;
        Ok(self.listening())
    }

    /// Where the server listens.
    pub fn listening(&self) -> Vec<Listening> {
        let state = self.lock();
        let wanted = self.config.port;
        let show = |((network, _), bound): (&(NetworkName, IpAddr), &Bound)| Listening {
            network: network.clone(),
            addr: bound.addr,
            wanted,
        };
        let mut all: Vec<Listening> = state.bound.iter().map(show).collect();
        all.sort_by(|a, b| (&a.network, a.addr).cmp(&(&b.network, b.addr)));
        all
    }

    /// All names with what they are answered with.
    pub fn entries(&self) -> Vec<Entry> {
        self.shared.zone.load().entries()
    }

    /// Counters and latencies, as Prometheus reads them.
    pub fn metrics(&self) -> String {
        let [networks, members, names] = self.shared.zone.load().sizes();
        let (answers, bytes) = self.shared.cache.sizes();
        let sockets: usize = self.lock().bound.values().map(|bound| bound.udp.len() + 1).sum();
        self.metrics.show(&[
            ("berth_dns_networks", "Networks that are answered.", networks),
            ("berth_dns_members", "Containers on them.", members),
            ("berth_dns_names", "Names of these.", names),
            ("berth_dns_sockets", "Sockets that are listened on.", sockets),
            ("berth_dns_cache_entries", "Answers of other servers that are kept.", answers),
            ("berth_dns_cache_bytes", "Memory they take.", bytes),
            ("berth_dns_waiting", "Questions that wait for other servers.", self.jobs.waiting()),
        ])
    }

    /// The server's sockets for the next process. This one goes on answering until it is stopped; what is in a socket then is
    /// answered by the next.
    pub fn hand_over(&self) -> Vec<HandedSocket> {
        let state = self.lock();
        let handed = |kind: &str, bound: &Bound, number: usize, listener: &Listener| {
            // Colons separate names where systemd keeps descriptors.
            let ip = bound.addr.ip().to_string().replace(':', "_");
            let name = format!("dns-{kind}-{ip}-{}-{number}", bound.addr.port());
            Some(HandedSocket { name, fd: listener.fd.try_clone().ok()? })
        };
        let of = |bound: &Bound| {
            let udp = bound.udp.iter().enumerate();
            let udp = udp.filter_map(|(number, (_, _, listener))| handed("udp", bound, number, listener));
            udp.chain(handed("tcp", bound, 0, &bound.tcp.1)).collect::<Vec<_>>()
        };
        state.bound.values().flat_map(of).collect()
    }

    /// Stops answering, and waits until those who wait for other servers have their answers.
    pub fn stop(self) {
        drop(self);
    }

    fn start_threads(&mut self, resolv: Resolv) -> Result<(), DnsError> {
        let mut seed = [0; 8];
        // Not a secret: it shuffles addresses.
        let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
        let seed = u64::from_ne_bytes(seed);
        for (number, station) in (1_u64..).zip(self.udp.clone()) {
            let worker = Worker {
                station,
                shared: Arc::clone(&self.shared),
                jobs: Arc::clone(&self.jobs),
                metrics: Arc::clone(&self.metrics),
                seed: seed.wrapping_mul(number),
            };
            self.spawn("dns-udp", move || worker.run())?;
        }
        let tcp = TcpWorker {
            station: Arc::clone(&self.tcp),
            inbox: Arc::new(Inbox::new(Arc::clone(&self.tcp))),
            shared: Arc::clone(&self.shared),
            jobs: Arc::clone(&self.jobs),
            metrics: Arc::clone(&self.metrics),
            limits: self.config.limits.clone(),
            seed,
        };
        self.spawn("dns-tcp", move || tcp.run())?;
        let forwarder = Forwarder {
            shared: Arc::clone(&self.shared),
            jobs: Arc::clone(&self.jobs),
            metrics: Arc::clone(&self.metrics),
            resolv,
            own: Arc::clone(&self.own),
            deadline: self.config.limits.deadline,
            stop: Arc::clone(&self.stop_forwarder),
        };
        self.spawn("dns-forward", move || forwarder.run())?;
        let (binder, requests) = mpsc::channel::<Bind>();
        self.binder = Some(binder);
        self.spawn("dns-bind", move || requests.into_iter().for_each(|request| request()))
    }

    fn spawn(&mut self, name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), DnsError> {
        // What they need is on the heap: the stack holds a few buffers.
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(work);
        self.threads.push((name, thread.map_err(|source| DnsError::Start { what: name, source })?));
        Ok(())
    }

    /// Waits for the threads called `name`.
    fn join(&mut self, name: &str) {
        for (_, thread) in self.threads.extract_if(.., |(other, _)| *other == name) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }

    /// Makes the changes, and listens where they say.
    fn change(&self, changes: Vec<Change>, handed: &mut Handed) -> Result<(), DnsError> {
        let mut state = self.lock();
        let mut zone = Zone::clone(&self.shared.zone.load());
        let mut networks = Vec::new();
        // Each change's memory is free for the next one's names.
        for change in changes {
            zone.apply(&change);
            if matches!(change, Change::NetworkPut(_) | Change::NetworkGone(_)) {
                networks.push(change);
            }
        }
        // Before the sockets: nobody who asks at a new one is told that there is nothing.
        self.shared.zone.store(Arc::new(zone));
        let mut result = Ok(());
        for change in &networks {
            let listened = match change {
                Change::NetworkPut(spec) => self.listen(&mut state, spec, handed),
                Change::NetworkGone(name) => {
                    self.close(&mut state, name, &[]);
                    Ok(())
                }
                Change::MemberPut(_) | Change::MemberGone(_) => continue,
            };
            // The first of them is told, the others are tried.
            result = result.and(listened);
        }
        let real = state.bound.values().map(|bound| bound.addr);
        let wanted = state.bound.keys().map(|(_, ip)| SocketAddr::new(*ip, self.config.port));
        let own: Vec<SocketAddr> = real.chain(wanted).collect();
        if **self.own.load() != own {
            self.own.store(Arc::new(own));
        }
        result
    }

    /// Listens on the network's addresses and no others.
    fn listen(&self, state: &mut State, spec: &NetworkSpec, handed: &mut Handed) -> Result<(), DnsError> {
        self.close(state, &spec.name, &spec.listeners);
        let mut result = Ok(());
        for ip in &spec.listeners {
            let key = (spec.name.clone(), *ip);
            if state.bound.contains_key(&key) {
                continue;
            }
            let bound =
                self.open(spec, *ip, handed).and_then(|opened| self.attach(state, &spec.name, opened));
            match bound {
                Ok(bound) => {
                    state.bound.insert(key, bound);
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Opens sockets, in the thread that is where the server was started.
    fn open(&self, spec: &NetworkSpec, ip: IpAddr, handed: &mut Handed) -> Result<Opened, DnsError> {
        let (port, bridge) = (self.config.port, spec.bridge.clone());
        let workers = u16::try_from(self.udp.len()).unwrap_or(1);
        let mut taken = std::mem::take(handed);
        let (answer, opened) = mpsc::channel();
        let request = Box::new(move || {
            let wanted = Wanted { ip, port, bridge: bridge.as_ref(), workers };
            let opened = open(&wanted, &mut taken);
            // Who asked waits for it.
            let _ = answer.send((opened, taken));
        });
        let binder = self.binder.as_ref().ok_or(DnsError::Stopped)?;
        binder.send(request).map_err(|_| DnsError::Stopped)?;
        let (opened, taken) = opened.recv().map_err(|_| DnsError::Stopped)?;
        *handed = taken;
        opened
    }

    /// Gives sockets to the threads that answer.
    fn attach(&self, state: &mut State, network: &NetworkName, opened: Opened) -> Result<Bound, DnsError> {
        let Opened { addr, udp, tcp } = opened;
        let failed = |errno: rustix::io::Errno| DnsError::Listen { addr, source: io::Error::from(errno) };
        let mut number = || {
            state.next += 1;
            state.next
        };
        let listener = |fd| Arc::new(Listener { network: network.clone(), fd });
        let mut attached = Vec::with_capacity(udp.len());
        for (fd, worker) in udp.into_iter().zip((0..self.udp.len()).cycle()) {
            let (number, listener) = (number(), listener(fd));
            if let Some(station) = self.udp.get(worker) {
                station.add(number, Arc::clone(&listener)).map_err(failed)?;
            }
            attached.push((number, worker, listener));
        }
        let (number, tcp) = (number(), listener(tcp));
        self.tcp.add(number, Arc::clone(&tcp)).map_err(failed)?;
        Ok(Bound { addr, udp: attached, tcp: (number, tcp) })
    }

    /// Closes the network's sockets, except on the addresses `but`.
    fn close(&self, state: &mut State, network: &NetworkName, but: &[IpAddr]) {
        state.bound.retain(|(name, ip), bound| {
            let stays = name != network || but.contains(ip);
            if !stays {
                for (number, worker, _) in &bound.udp {
                    if let Some(station) = self.udp.get(*worker) {
                        station.remove(*number);
                    }
                }
                self.tcp.remove(bound.tcp.0);
            }
            stays
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    /// Those who take questions end first, then who asks others, then who brings the answers to connections.
    fn drop(&mut self) {
        self.udp.iter().for_each(|station| station.stop());
        self.lock().bound.values().for_each(|bound| self.tcp.remove(bound.tcp.0));
        self.join("dns-udp");
        self.stop_forwarder.store(true, Ordering::Release);
        self.jobs.wake();
        self.join("dns-forward");
        self.tcp.stop();
        self.join("dns-tcp");
        drop(self.binder.take());
        self.join("dns-bind");
    }
}
