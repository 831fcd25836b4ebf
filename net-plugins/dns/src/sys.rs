//! The system calls no crate offers safely. All `unsafe` of this crate is here.
//!
//! [`Batch`] receives and sends many datagrams by one call each. [`spread`] tells the kernel which of several sockets on one
//! address gets a datagram.
#![expect(unsafe_code, reason = "system calls that rustix does not offer")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Room for one datagram. Questions are short; a longer datagram is cut off, and seen to be.
pub(crate) const ROOM: usize = 4096;

/// Datagrams that came by one call, and the answers to them.
pub(crate) struct Batch {
    buffers: Box<[[u8; ROOM]]>,
    peers: Box<[libc::sockaddr_storage]>,
    /// Of received datagrams: their lengths and flags are in the headers.
    headers: Box<[libc::mmsghdr]>,
    /// Which datagrams have an answer, and how long it is.
    answers: Vec<(usize, usize)>,
    received: usize,
}

// SAFETY: the pointers in `headers` are null except during a call that fills them itself, on whichever thread.
unsafe impl Send for Batch {}

/// One datagram that came.
pub(crate) struct Datagram<'b> {
    /// The whole room, with the datagram at its beginning. An answer is written over it.
    pub(crate) buffer: &'b mut [u8; ROOM],
    /// The datagram's length.
    pub(crate) len: usize,
    /// Who sent it.
    pub(crate) peer: SocketAddr,
    /// Whether its end is missing.
    pub(crate) cut: bool,
}

impl Batch {
    /// Room for `size` datagrams.
    pub(crate) fn new(size: usize) -> Self {
        // SAFETY: both are plain structures of integers and pointers, for which all zeroes is a value.
        let (peer, header) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            buffers: vec![[0; ROOM]; size].into(),
            peers: vec![peer; size].into(),
            headers: vec![header; size].into(),
            answers: Vec::with_capacity(size),
            received: 0,
        }
    }

    /// Receives what is there, without waiting, and returns how many datagrams that are. Answers not sent are forgotten.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.answers.clear();
        self.received = 0;
        let mut parts: [libc::iovec; 64] = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; 64];
        let size = self.headers.len().min(parts.len());
        let places = self.buffers.iter_mut().zip(self.peers.iter_mut()).zip(parts.iter_mut());
        for ((header, ((buffer, peer), part)), _) in self.headers.iter_mut().zip(places).zip(0..size) {
            *part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: ROOM };
            header.msg_hdr.msg_name = ptr::from_mut(peer).cast();
            header.msg_hdr.msg_namelen = length_of::<libc::sockaddr_storage>();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = ptr::null_mut();
            header.msg_hdr.msg_controllen = 0;
        }
        // SAFETY: the first `size` headers were just filled. Each points to one part in `parts`, which lives until the end of
        // this function, to a buffer of ROOM bytes and to an address structure of the size given; all are exclusively ours. No
        // other pointer is set. The kernel writes at most these sizes. `size` is at most the number of headers and fits 64.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                u32::try_from(size).unwrap_or(1),
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        self.received = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
        Ok(self.received)
    }

    /// The datagram `number` of those received.
    pub(crate) fn datagram(&mut self, number: usize) -> Option<Datagram<'_>> {
        let header = self.headers.get(..self.received)?.get(number)?;
        let len = usize::try_from(header.msg_len).unwrap_or(ROOM).min(ROOM);
        let cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let peer = peer_of(self.peers.get(number)?)?;
        Some(Datagram { buffer: self.buffers.get_mut(number)?, len, peer, cut })
    }

    /// The first `len` bytes of datagram `number`'s room are the answer to it.
    pub(crate) fn answer(&mut self, number: usize, len: usize) {
        if number < self.received && len <= ROOM {
            self.answers.push((number, len));
        }
    }

    /// Sends the answers, without waiting. Returns how many could not be sent: what the kernel has no room for is lost, as it
    /// would be on the way.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>) -> usize {
        // SAFETY: as in `new`.
        let mut headers: [libc::mmsghdr; 64] = unsafe { std::mem::zeroed() };
        let mut parts: [libc::iovec; 64] = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; 64];
        let mut count = 0;
        for ((header, part), (number, len)) in headers.iter_mut().zip(parts.iter_mut()).zip(&self.answers) {
            let (Some(buffer), Some(peer), Some(came)) =
                (self.buffers.get_mut(*number), self.peers.get_mut(*number), self.headers.get(*number))
            else {
                continue;
            };
            *part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: *len };
            header.msg_hdr.msg_name = ptr::from_mut(peer).cast();
            header.msg_hdr.msg_namelen = came.msg_hdr.msg_namelen;
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        self.answers.clear();
        let mut lost = 0;
        let mut at = 0;
        while let Some(rest) = headers.get_mut(at..count).filter(|rest| !rest.is_empty()) {
            let size = u32::try_from(rest.len()).unwrap_or(1);
            // SAFETY: each header in `rest` was filled above: one part of at most ROOM bytes of a buffer (`answer` has checked
            // the length), and the address that the kernel itself wrote, with the length that it gave. They live until the end
            // of this function, and the kernel only reads what they point to.
            let sent =
                unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), size, libc::MSG_DONTWAIT) };
            match usize::try_from(sent) {
                Ok(sent) => at += sent.max(1),
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => (),
                // The first of them is what failed: its receiver may be gone. The others are tried.
                Err(_) => {
                    lost += 1;
                    at += 1;
                }
            }
        }
        lost
    }
}

/// The size of a structure, as the kernel wants it.
#[expect(clippy::cast_possible_truncation, reason = "a few hundred bytes")]
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// The address the kernel wrote.
fn peer_of(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure it is, and the storage is large enough and aligned for all of them.
            let v4 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id)))
        }
        _ => None,
    }
}

/// Tells the kernel which of the sockets that share `socket`'s address gets a datagram, by their order of binding: sources
/// are spread over `groups`, and within a group the source's ports over `each`. So a source that floods fills the queues of
/// its own group only, and one that is alone still has `each` sockets.
pub(crate) fn spread(socket: BorrowedFd<'_>, addr: IpAddr, groups: u16, each: u16) -> io::Result<()> {
    // Where the last byte of the source's address is, and its port, counted from the network header. An IPv4 header with
    // options or an IPv6 header with extensions gives another socket, which serves as well.
    let (source, port) = if addr.is_ipv4() { (15, 20) } else { (23, 40) };
    let net = libc::SKF_NET_OFF.cast_unsigned();
    let op =
        |code: u32, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt: 0, jf: 0, k };
    let alu = |what: u32, k: u16| op(libc::BPF_ALU | what | libc::BPF_K, u32::from(k));
    let program = [
        op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, net.wrapping_add(source)),
        alu(libc::BPF_MOD, groups),
        alu(libc::BPF_MUL, each),
        op(libc::BPF_ST, 0),
        op(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, net.wrapping_add(port)),
        alu(libc::BPF_MOD, each),
        op(libc::BPF_MISC | libc::BPF_TAX, 0),
        op(libc::BPF_LD | libc::BPF_MEM, 0),
        op(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0),
        op(libc::BPF_RET | 0x10, 0),
    ];
    let length = u16::try_from(program.len()).unwrap_or(0);
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the option takes a sock_fprog (socket(7)), which points to `length` instructions. The kernel copies and checks
    // them during the call and keeps no pointer; it does not write to them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            ptr::from_ref(&filter).cast(),
            length_of::<libc::sock_fprog>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
