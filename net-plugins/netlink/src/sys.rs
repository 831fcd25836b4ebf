//! The three system calls and the library call no crate offers safely. All `unsafe` of this crate is here.
#![expect(unsafe_code, reason = "system calls that rustix offers only as unsafe functions or traits")]

use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::thread::UnshareFlags;

/// `NS_GET_NSTYPE`: the answer is the ioctl's return value, nothing is written (ioctl_ns(2)).
struct NamespaceType;

// SAFETY: the kernel ignores the argument of NS_GET_NSTYPE (fs/nsfs.c, `ns_ioctl`), so a null pointer is a valid one,
// and it writes no memory of ours, as IS_MUTATING says. The opcode is that of linux/nsfs.h.
unsafe impl Ioctl for NamespaceType {
    type Output = c_int;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::none(0xb7, 3)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> io::Result<c_int> {
        Ok(output)
    }
}

/// The `CLONE_NEW…` flag of the namespace that `fd`, a file of nsfs, stands for.
pub(crate) fn namespace_type(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    // SAFETY: `NamespaceType` describes the call truthfully. The caller has seen that `fd` is of nsfs, where this
    // number has no other meaning; elsewhere the worst it can be is another request without an argument.
    unsafe { rustix::ioctl::ioctl(fd, NamespaceType) }
}

/// Moves the calling thread into a new network namespace of its own.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: the danger `unshare_unsafe` names is UnshareFlags::FILES, which is not asked for.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}

/// Gives the kernel back what the allocator keeps of freed memory (`malloc_trim(3)`): it keeps nearly everything by itself once
/// something small was allocated behind it. Other C libraries than GNU's have no such call, and keep less.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes the allocator's own locks and touches only what is free; any padding is a valid argument.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has the threads of this process share two heaps (`M_ARENA_MAX` of `mallopt(3)`), and keeps large buffers out of them
/// (`M_MMAP_THRESHOLD`). The C library gives each thread its own heap, up to eight for each processor, and what one freed the others
/// cannot use; and it takes larger and larger buffers from them, once it has seen such freed. Only GNU's has such heaps.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls take the allocator's own locks; the parameters take any positive number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// What the C library takes for a large buffer at first, in bytes.
#[cfg(target_env = "gnu")]
const LARGE: c_int = 128 * 1024;

/// `AF_PACKET` and the size of its address, as the structure and the call have them.
#[expect(clippy::cast_possible_truncation, reason = "17 and 20")]
const PACKET: (u16, SocketAddrLen) =
    (libc::AF_PACKET as u16, size_of::<libc::sockaddr_ll>() as SocketAddrLen);

/// Where a packet socket sends to: a link, by its index. The frame itself carries the Ethernet header.
pub(crate) struct LinkAddress(pub(crate) u32);

// SAFETY: `with_sockaddr` passes a pointer to an initialised sockaddr_ll together with its size, and the structure
// lives on this stack frame for the whole of the call.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        let address = libc::sockaddr_ll {
            sll_family: PACKET.0,
            sll_protocol: 0,
            // Indices come from the kernel, where they are positive ints.
            sll_ifindex: self.0.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        f((&raw const address).cast(), PACKET.1)
    }
}

/// Sends one whole Ethernet frame out of `link`.
pub(crate) fn send_frame(socket: impl AsFd, frame: &[u8], link: u32) -> io::Result<usize> {
    rustix::net::sendto(socket, frame, rustix::net::SendFlags::empty(), &LinkAddress(link))
}
