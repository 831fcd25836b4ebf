//! The connection to the kernel.
//!
//! [`Netlink`] is a blocking face over `rtnetlink`: it owns a current-thread runtime that runs only while a method
//! waits. Every request asks for an acknowledgement and is done when that arrives, so that a connection that ended
//! is never taken for success. Lists are read over a second socket (see [`crate::dump`]).

use futures_util::StreamExt;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, TokioSocket};
use rustix::io::Errno;

use crate::dump::DumpSocket;
use crate::error::{Failure, NetlinkError, Refusal};
use crate::sandbox::Sandbox;

/// `NLMSGERR_ATTR_MSG` of linux/netlink.h.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A connection to one network namespace's part of the kernel.
///
/// It stays in the namespace it was opened in, whichever thread uses it later.
///
/// # Panics
///
/// It blocks its caller with a runtime of its own, which panics on a thread that runs another one: an asynchronous
/// server uses it through `spawn_blocking` or a thread of its own.
pub struct Netlink {
    // Before the runtime that drives its connection, so that it is dropped first.
    handle: rtnetlink::Handle,
    runtime: tokio::runtime::Runtime,
    pub(crate) lists: DumpSocket,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

impl Netlink {
    /// Opens a connection in the calling thread's namespace.
    ///
    /// Inside [`Sandbox::run`], beside other work there, it saves the thread that [`Netlink::open_in`] starts.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Socket`] if the system gives no sockets.
    pub fn open() -> Result<Self, NetlinkError> {
        let runtime = runtime()?;
        let sockets = Sockets::open(&runtime)?;
        Ok(Self::over(runtime, sockets))
    }

    /// Opens a connection in `sandbox`, to be used from here.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Sandbox`] if it cannot be entered, and as [`Netlink::open`].
    pub fn open_in(sandbox: &Sandbox) -> Result<Self, NetlinkError> {
        let runtime = runtime()?;
        // Only what the namespace decides is done in there: a fresh thread's first allocations are expensive.
        let sockets = sandbox.run(|| Sockets::open(&runtime))??;
        Ok(Self::over(runtime, sockets))
    }

    fn over(runtime: tokio::runtime::Runtime, sockets: Sockets) -> Self {
        let Sockets { requests, lists } = sockets;
        let (mut connection, handle, _unsolicited) = rtnetlink::from_socket(requests);
        connection.set_forward_ack(true);
        runtime.spawn(connection);
        Self { handle, runtime, lists }
    }

    /// Sends one request and waits until the kernel acknowledges it. The result is what it sent beside that.
    pub(crate) fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut handle = self.handle.clone();
        self.runtime.block_on(async {
            let mut answers = handle.request(request).map_err(|_| Failure::Closed)?;
            let mut sent = Vec::new();
            while let Some(answer) = answers.next().await {
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => sent.push(message),
                    NetlinkPayload::Error(error) => {
                        return refusal(answer.header.flags, &error)
                            .map_or(Ok(sent), |r| Err(Failure::Refused(r)));
                    }
                    _ => (),
                }
            }
            Err(Failure::Closed)
        })
    }
}

/// What belongs to a namespace.
struct Sockets {
    requests: TokioSocket,
    lists: DumpSocket,
}

impl Sockets {
    /// Opens them in the calling thread's namespace. `runtime` will wait for the first one.
    fn open(runtime: &tokio::runtime::Runtime) -> Result<Self, NetlinkError> {
        let _entered = runtime.enter();
        let mut requests = TokioSocket::new(NETLINK_ROUTE).map_err(not_opened)?;
        let socket = requests.socket_mut();
        // The kernel refuses what it does not know in a request instead of passing it over, and says why in its own
        // words, without a copy of the request.
        socket.set_netlink_get_strict_chk(true).map_err(not_opened)?;
        socket.set_ext_ack(true).map_err(not_opened)?;
        socket.set_cap_ack(true).map_err(not_opened)?;
        Ok(Self { requests, lists: DumpSocket::open().map_err(not_opened)? })
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, NetlinkError> {
    tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(not_opened)
}

fn not_opened(source: std::io::Error) -> NetlinkError {
    NetlinkError::Socket { operation: "open", source }
}

/// What an acknowledgement refuses; nothing if it is a good one.
pub(crate) fn refusal(flags: u16, error: &ErrorMessage) -> Option<Refusal> {
    let code = error.code?;
    let errno = Errno::from_raw_os_error(code.get().saturating_abs());
    Some(Refusal { errno, message: extended_message(flags, &error.header) })
}

/// The text behind the request that an error carries back (Documentation/userspace-api/netlink/intro.rst, "Extended
/// ACK"). `payload` starts with that request: whole, or only its header if it was capped.
fn extended_message(flags: u16, payload: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let header_len = 16;
    let request_len = if flags & NLM_F_CAPPED != 0 {
        header_len
    } else {
        let length = payload.first_chunk::<4>()?;
        usize::try_from(u32::from_ne_bytes(*length)).ok()?.next_multiple_of(4)
    };
    let attributes = payload.get(request_len..)?;
    let text = NlasIterator::new(attributes).flatten().find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)?;
    let text = text.value().split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_text(request: &[u8]) -> Vec<u8> {
        let mut payload = request.to_vec();
        payload.extend_from_slice(&[9, 0, 1, 0]);
        payload.extend_from_slice(b"why!\0\0\0\0");
        payload
    }

    #[test]
    fn the_kernels_words_are_found_behind_a_capped_and_a_whole_request() {
        let capped = with_text(&[0; 16]);
        let flags = NLM_F_ACK_TLVS | NLM_F_CAPPED;
        assert_eq!(extended_message(flags, &capped).as_deref(), Some("why!"));

        let mut whole = vec![0; 36];
        whole[..4].copy_from_slice(&33_u32.to_ne_bytes());
        assert_eq!(extended_message(NLM_F_ACK_TLVS, &with_text(&whole)).as_deref(), Some("why!"));
    }

    #[test]
    fn a_short_or_plain_error_has_no_words() {
        assert_eq!(extended_message(0, &with_text(&[0; 16])), None);
        for len in 0..16 {
            assert_eq!(extended_message(NLM_F_ACK_TLVS, &vec![0xff; len]), None);
        }
    }
}
