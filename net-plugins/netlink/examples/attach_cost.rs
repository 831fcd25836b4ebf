//! What attaching a container costs: a veth pair, two addresses and two default routes, all links up, over and over.
//!
//! `cargo run --release -p berth-netlink --example attach_cost`, as root. It works in namespaces of its own.
#![expect(clippy::print_stdout, reason = "printing is its purpose")]

use std::error::Error;
use std::time::{Duration, Instant};

use berth_netlink::announce::announce;
use berth_netlink::{
    AddrFlags, BridgeSpec, LOOPBACK_INDEX, LinkChange, Netlink, PortChange, RouteSpec, Sandbox, VethSpec,
    sysctl,
};
use berth_types::{IfName, MacAddr};

const ROUNDS: u32 = 200;
const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Steps in the order they were first taken, with the times they took.
#[derive(Default)]
struct Clock(Vec<(&'static str, Vec<Duration>)>);

impl Clock {
    fn time<T>(&mut self, step: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(step, start.elapsed());
        result
    }

    fn add(&mut self, step: &'static str, took: Duration) {
        match self.0.iter_mut().find(|(name, _)| *name == step) {
            Some((_, times)) => times.push(took),
            None => self.0.push((step, vec![took])),
        }
    }

    /// Prints each step's median: other work on the machine does not move it much.
    fn print(&mut self) {
        for (step, times) in &mut self.0 {
            times.sort();
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            println!("{:>8.1} us  {step}", median.as_secs_f64() * 1e6);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let host = Sandbox::anonymous()?;
    // All of them beforehand, and kept: making and ending namespaces takes the kernel longer than attaching to them.
    let sandboxes = (0..ROUNDS).map(|_| Sandbox::anonymous()).collect::<Result<Vec<_>, _>>()?;
    host.run(|| measure(&sandboxes).map_err(|err| err.to_string()))??;
    Ok(())
}

fn measure(sandboxes: &[Sandbox]) -> Result<(), Box<dyn Error>> {
    let mut clock = Clock::default();
    let setup = Netlink::open()?;
    let bridge = setup.bridge_add(&BridgeSpec {
        name: IfName::new("cni0")?,
        mtu: None,
        mac: Some(MacAddr([2, 0, 0, 0, 0, 0xff])),
        alias: None,
        vlan_filtering: false,
        promisc: false,
    })?;
    setup.addr_add(bridge.index, "10.9.0.1/16".parse()?, AddrFlags::default())?;
    setup.link_set_up(bridge.index)?;
    for sandbox in sandboxes {
        let start = Instant::now();
        let host_index = attach(&mut clock, sandbox, bridge.index)?;
        clock.add("in all", start.elapsed());
        clock.time("delete the pair", || setup.link_del(host_index))?;
    }
    clock.time("read a link", || setup.link_by_index(bridge.index))?;
    let addr = "10.9.0.1".parse()?;
    clock.time("announce over a packet socket", || announce(bridge.index, PEER_MAC, &[addr]))?;
    let key = sysctl::SysctlKey::new(["net", "ipv4", "ip_forward"])?;
    clock.time("read a switch", || sysctl::read(&key))?;
    clock.print();
    Ok(())
}

fn attach(clock: &mut Clock, sandbox: &Sandbox, master: u32) -> Result<u32, Box<dyn Error>> {
    let spec = VethSpec {
        host_name: IfName::new("veth0")?,
        host_alias: Some("berth blue 0123456789ab eth0".to_owned()),
        host_mac: None,
        peer_name: IfName::new("eth0")?,
        peer_mac: Some(PEER_MAC),
        mtu: Some(1500),
        master: Some(master),
        port: PortChange { hairpin: Some(true), ..PortChange::default() },
    };
    let nodad = AddrFlags { nodad: true, noprefixroute: false, deprecated: false };
    let opened = clock.time("open a connection", Netlink::open)?;
    let inside =
        clock.time("open a connection in the sandbox, by its thread", || Netlink::open_in(sandbox))?;
    let pair = clock.time("create the pair (two messages)", || opened.veth_add(&spec, sandbox))?;
    clock.time("set the host end up", || opened.link_set_up(pair.host_index))?;
    let peer = match pair.peer_index {
        Some(index) => index,
        None => inside.link_by_name(&spec.peer_name)?.ok_or("no peer")?.index,
    };
    clock.time("set loopback up", || inside.link_set_up(LOOPBACK_INDEX))?;
    for (address, step) in [("10.9.0.2/16", "add the IPv4 address"), ("fd09::2/64", "add the IPv6 address")] {
        let address = address.parse()?;
        clock.time(step, || inside.addr_add(peer, address, nodad))?;
    }
    let change = LinkChange { up: Some(true), arp_notify: Some(true), ..LinkChange::default() };
    clock.time("set the peer up, announcing", || inside.link_change(peer, &change))?;
    for (dst, gateway, step) in
        [("0.0.0.0/0", "10.9.0.1", "add the IPv4 route"), ("::/0", "fd09::1", "add the IPv6 route")]
    {
        let route =
            RouteSpec { gateway: Some(gateway.parse()?), oif: Some(peer), ..RouteSpec::new(dst.parse()?) };
        clock.time(step, || inside.route_add(&route))?;
    }
    clock.time("wait until the host's end forwards", || {
        opened.link_await_up(pair.host_index, Duration::from_secs(5))
    })?;
    clock.time("have the kernel announce the address", || inside.link_announce(peer, PEER_MAC))?;
    clock.time("close both connections", || drop((opened, inside)));
    Ok(pair.host_index)
}
