//! Answers datagrams, many by one system call.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll;

use super::local::Locals;
use super::{Listener, Station, WAKE};
use crate::forward::{Jobs, Sink};
use crate::metrics::{Count, Metrics, Tally};
use crate::respond::{Action, Origin, Responder, Shared, Transport};
use crate::sys::{Batch, Datagram};
use crate::wire::{HEADER, rcode};
use crate::zone::Zone;

/// Datagrams taken from one socket before the next has its turn. More makes calls cheaper, but who asks at another socket
/// waits longer.
const BATCH: usize = 32;

/// One thread that answers.
pub(crate) struct Worker {
    pub(crate) station: Arc<Station>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) seed: u64,
}

/// What a thread answers with.
struct Desk {
    batch: Batch,
    responder: Responder,
    locals: Locals,
    tally: Tally,
}

impl Worker {
    /// Answers until stopped.
    pub(crate) fn run(self) {
        let mut desk = Desk {
            batch: Batch::new(BATCH),
            responder: Responder::new(self.seed),
            locals: Locals::default(),
            tally: Tally::default(),
        };
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        while !self.station.is_stopped() {
            for event in self.station.wait(&mut events, None) {
                let number = event.data.u64();
                if number == WAKE {
                    self.station.woken();
                } else if let Some(listener) = self.station.listener(number) {
                    self.serve(&listener, &mut desk);
                }
            }
        }
    }

    /// Answers what is waiting at one socket, a batch at most.
    fn serve(&self, listener: &Arc<Listener>, desk: &mut Desk) {
        let Ok(received) = desk.batch.receive(listener.fd.as_fd()) else { return };
        let started = Instant::now();
        // Taken after receiving: who asks after a change was made is answered by what it changed.
        let zone = self.shared.zone.load();
        let mut answered = 0;
        for number in 0..received {
            if let Some(len) = self.reply(listener, &zone, desk, number) {
                answered += 1;
                desk.batch.answer(number, len);
            }
        }
        let lost = desk.batch.send(listener.fd.as_fd());
        (0..lost).for_each(|_| desk.tally.add(Count::Unsent));
        if answered > 0 {
            self.metrics.local.note(started.elapsed(), answered);
        }
        desk.tally.flush(&self.metrics);
    }

    /// Writes the answer to one datagram over it, if it gets one now.
    fn reply(&self, listener: &Arc<Listener>, zone: &Zone, desk: &mut Desk, number: usize) -> Option<usize> {
        let Desk { batch, responder, locals, tally } = desk;
        let Datagram { buffer, len, peer, cut } = batch.datagram(number)?;
        let origin = Origin { network: &listener.network, source: peer.ip(), transport: Transport::Udp };
        // A datagram of which the end is missing is longer than any question: its header is all that is believed.
        let len = if cut { HEADER } else { len };
        let message = (&mut buffer[..], len);
        match responder.respond(&self.shared, zone, origin, message, |addr| locals.contains(addr)) {
            Action::Send(len, count) => {
                tally.add(count);
                Some(len)
            }
            Action::Silent(count) => {
                tally.add(count);
                None
            }
            Action::Forward(servers) => {
                let sink = Sink::Udp { listener: Arc::clone(listener), peer };
                let message = buffer.get(..len).unwrap_or_default();
                let given = self.jobs.submit(responder, servers, message, (peer.ip(), Transport::Udp), sink);
                tally.add(if given { Count::Forwarded } else { Count::Shed });
                (!given).then(|| responder.code(buffer, rcode::REFUSED, None))
            }
        }
    }
}
