//! Requests, one at a time, and lists.

use std::cell::Cell;
use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_xfrm::XfrmMessage;
use netlink_packet_xfrm::policy::DelGetMessage;
use netlink_packet_xfrm::state::GetDumpMessage;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;

use super::NETLINK_XFRM;
use super::policy::EspPolicy;
use super::state::EspState;
use crate::dump::PIECE_MAX;
use crate::error::{NetlinkError, Refusal};

/// How often a list is read that changes meanwhile.
const ATTEMPTS: u32 = 5;

/// The kernel's states and policies, in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Xfrm {
    socket: Socket,
    sequence: Cell<u32>,
}

impl Xfrm {
    /// Opens a socket.
    ///
    /// # Errors
    ///
    /// The kernel has no such sockets, or gives none.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::new(NETLINK_XFRM).map_err(failed("open"))?;
        Ok(Self { socket, sequence: Cell::new(0) })
    }

    /// berth's states.
    ///
    /// # Errors
    ///
    /// They could not be read, or changed again and again meanwhile.
    pub fn states(&self) -> Result<Vec<EspState>, NetlinkError> {
        let request = || XfrmMessage::GetDumpSa(GetDumpMessage::default());
        self.list("list encryption states", request, EspState::listed)
    }

    /// berth's policies.
    ///
    /// # Errors
    ///
    /// As [`Xfrm::states`].
    pub fn policies(&self) -> Result<Vec<EspPolicy>, NetlinkError> {
        let request = || XfrmMessage::GetPolicy(DelGetMessage::default());
        self.list("list encryption policies", request, EspPolicy::listed)
    }

    /// Makes a state. One with its receiver and number is refused: whose it is cannot be told.
    ///
    /// # Errors
    ///
    /// The kernel refused it.
    pub fn state_add(&self, state: &EspState) -> Result<(), NetlinkError> {
        self.ask("add encryption state", state, state.add())
    }

    /// Takes a state away; absent is success.
    ///
    /// # Errors
    ///
    /// The kernel refused it.
    pub fn state_del(&self, state: &EspState) -> Result<(), NetlinkError> {
        absent_is_fine(self.ask("delete encryption state", state, state.del()))
    }

    /// Makes a policy, or makes another for the same packets into it.
    ///
    /// # Errors
    ///
    /// The kernel refused it.
    pub fn policy_put(&self, policy: &EspPolicy) -> Result<(), NetlinkError> {
        self.ask("write encryption policy", policy, policy.put())
    }

    /// Takes a policy away; absent is success.
    ///
    /// # Errors
    ///
    /// The kernel refused it.
    pub fn policy_del(&self, policy: &EspPolicy) -> Result<(), NetlinkError> {
        absent_is_fine(self.ask("delete encryption policy", policy, policy.del()))
    }

    fn send(&self, message: XfrmMessage, flags: u16) -> Result<u32, NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        self.sequence.set(self.sequence.get().wrapping_add(1));
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence.get();
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(failed("write to"))?;
        Ok(self.sequence.get())
    }

    fn receive(&self, piece: &mut Vec<u8>) -> Result<(), NetlinkError> {
        loop {
            piece.clear();
            match self.socket.recv(piece, 0) {
                Ok(_) => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => (),
                Err(err) => return Err(failed("read from")(err)),
            }
        }
    }

    fn ask(
        &self,
        operation: &'static str,
        object: &impl ToString,
        message: XfrmMessage,
    ) -> Result<(), NetlinkError> {
        let asked = self.send(message, NLM_F_ACK | NLM_F_CREATE)?;
        let mut piece = Vec::with_capacity(PIECE_MAX);
        loop {
            self.receive(&mut piece)?;
            for (frame, _) in frames(&piece) {
                if let NetlinkPayload::Error(error) = frame.payload
                    && frame.header.sequence_number == asked
                {
                    let Some(code) = error.code else { return Ok(()) };
                    let errno = Errno::from_raw_os_error(code.get().saturating_abs());
                    let source = Refusal { errno, message: None };
                    return Err(NetlinkError::Kernel { operation, object: object.to_string(), source });
                }
            }
        }
    }

    /// A list is whole, or an error.
    fn list<T>(
        &self,
        operation: &'static str,
        request: impl Fn() -> XfrmMessage,
        read: impl Fn(&XfrmMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..ATTEMPTS {
            if let Some(found) = self.list_once(operation, request(), &read)? {
                return Ok(found);
            }
        }
        Err(NetlinkError::Interrupted { operation, attempts: ATTEMPTS })
    }

    /// Nothing if it changed meanwhile.
    fn list_once<T>(
        &self,
        operation: &'static str,
        request: XfrmMessage,
        read: impl Fn(&XfrmMessage) -> Option<T>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        let asked = self.send(request, NLM_F_DUMP)?;
        let (mut found, mut whole) = (Vec::new(), true);
        let mut piece = Vec::with_capacity(PIECE_MAX);
        loop {
            self.receive(&mut piece)?;
            for (frame, flags) in frames(&piece) {
                if frame.header.sequence_number != asked {
                    continue;
                }
                whole &= flags & NLM_F_DUMP_INTR == 0;
                match frame.payload {
                    NetlinkPayload::InnerMessage(message) => found.extend(read(&message)),
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(found)),
                    NetlinkPayload::Error(error) => {
                        let errno = Errno::from_raw_os_error(error.raw_code().saturating_abs());
                        let source = Refusal { errno, message: None };
                        return Err(NetlinkError::Kernel { operation, object: String::new(), source });
                    }
                    _ => (),
                }
            }
        }
    }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> NetlinkError {
    move |source| NetlinkError::Socket { operation, source }
}

fn absent_is_fine(outcome: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match outcome {
        Err(err) if matches!(err.errno(), Some(Errno::SRCH | Errno::NOENT)) => Ok(()),
        outcome => outcome,
    }
}

/// The messages in a datagram, each with its flags. What cannot be read is passed over.
fn frames(datagram: &[u8]) -> Vec<(NetlinkMessage<XfrmMessage>, u16)> {
    let (mut frames, mut rest) = (Vec::new(), datagram);
    while let Ok(frame) = NetlinkBuffer::new_checked(rest) {
        let length = usize::try_from(frame.length()).unwrap_or(usize::MAX).next_multiple_of(4);
        if let Ok(message) = NetlinkMessage::<XfrmMessage>::deserialize(rest) {
            frames.push((message, frame.flags()));
        }
        rest = rest.get(length..).unwrap_or_default();
        if length == 0 {
            break;
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Sandbox;

    /// Policies need no cipher: kernels take them that cannot encrypt.
    #[test]
    fn policies_are_read_back_and_taken_away_and_others_are_left() {
        let scratch = Sandbox::anonymous().unwrap();
        let work = || {
            let xfrm = Xfrm::open().unwrap();
            let foreign = ["xfrm", "policy", "add", "src", "192.0.2.7", "dst", "192.0.2.8", "dir", "out"];
            let tool = |args: &[&str]| std::process::Command::new("ip").args(args).output().unwrap();
            assert!(tool(&foreign).status.success());
            let mut all = Vec::new();
            for (own, peer) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
                let (own, peer) = (own.parse().unwrap(), peer.parse().unwrap());
                all.push(EspPolicy::Require { to: own, port: 4799 });
                all.push(EspPolicy::Block { from: own, port: 4799 });
                all.push(EspPolicy::Encrypt { from: own, to: peer, port: 4799 });
            }
            all.sort();
            // Twice: what is there is written again.
            all.iter().chain(&all).for_each(|policy| xfrm.policy_put(policy).unwrap());
            let mut listed = xfrm.policies().unwrap();
            listed.sort();
            assert_eq!(listed, all);
            let shown = String::from_utf8(tool(&["xfrm", "policy"]).stdout).unwrap();
            assert!(shown.contains("src 192.0.2.1/32 dst 0.0.0.0/0 proto udp dport 4799"), "{shown}");
            assert!(shown.contains("dir out action block priority 512"), "{shown}");
            assert_eq!(xfrm.states().unwrap(), []);
            all.iter().chain(&all).for_each(|policy| xfrm.policy_del(policy).unwrap());
            assert_eq!(xfrm.policies().unwrap(), []);
            let left = String::from_utf8(tool(&["xfrm", "policy"]).stdout).unwrap();
            assert_eq!(left.matches("dir ").count(), 1, "{left}");
        };
        scratch.run(work).unwrap();
    }

    #[test]
    fn a_state_is_made_where_the_kernel_can_and_refused_by_name_elsewhere() {
        let state = EspState {
            from: "192.0.2.1".parse().unwrap(),
            to: "192.0.2.2".parse().unwrap(),
            spi: 0x1234,
            key: super::super::EspKey([7; 20]),
        };
        let can = super::super::esp_gcm_supported().unwrap();
        let scratch = Sandbox::anonymous().unwrap();
        let work = || {
            let xfrm = Xfrm::open().unwrap();
            match (xfrm.state_add(&state), can) {
                (Ok(()), true) => assert_eq!(xfrm.states().unwrap(), [state]),
                (Err(err), false) => {
                    let named = "add encryption state 0x00001234 from 192.0.2.1 to 192.0.2.2";
                    assert_eq!(err.to_string(), named);
                }
                (outcome, _) => panic!("supported {can}: {outcome:?}"),
            }
            xfrm.state_del(&state).unwrap();
            assert_eq!(xfrm.states().unwrap(), []);
        };
        scratch.run(work).unwrap();
    }
}
