//! Whether the kernel can encrypt what goes to another host: ESP with AES-GCM.
//!
//! Kernels are built with the framework (`CONFIG_XFRM_USER`) and without the protocol, or with the protocol and without the
//! cipher. Only making a state tells.

use std::io;

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;

use super::{ESP, NETLINK_XFRM};
use crate::error::NetlinkError;
use crate::sandbox::Sandbox;

/// `XFRM_MSG_NEWSA` and `XFRMA_ALG_AEAD` of linux/xfrm.h.
const NEW_STATE: u16 = 0x10;
const ALG_AEAD: u16 = 18;

/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL`.
const FLAGS: u16 = 0x0605;

/// `NLMSG_ERROR`.
const ERROR: u16 = 2;

/// Whether this kernel encrypts with ESP and AES-GCM, by making a state in a namespace of its own that goes with it.
///
/// # Errors
///
/// What keeps it from being tried. A kernel that lacks it is no error.
pub fn esp_gcm_supported() -> Result<bool, NetlinkError> {
    let scratch = Sandbox::anonymous()?;
    match scratch.run(try_state)? {
        Ok(None) => Ok(true),
        // No protocol, no cipher or no mode: each has its own number (`__xfrm_init_state`, `esp_init_aead`).
        Ok(Some(
            Errno::PROTONOSUPPORT | Errno::NOENT | Errno::NOSYS | Errno::OPNOTSUPP | Errno::AFNOSUPPORT,
        )) => Ok(false),
        Ok(Some(errno)) => Err(failed(errno.into())),
        // A kernel without the framework has no such socket.
        Err(err) if Errno::from_io_error(&err) == Some(Errno::PROTONOSUPPORT) => Ok(false),
        Err(err) => Err(failed(err)),
    }
}

fn failed(source: io::Error) -> NetlinkError {
    NetlinkError::Socket { operation: "try encryption over", source }
}

/// What the kernel refuses the state with; nothing if it takes it.
fn try_state() -> io::Result<Option<Errno>> {
    let socket = Socket::new(NETLINK_XFRM)?;
    socket.send_to(&request(), &SocketAddr::new(0, 0), 0)?;
    let mut answer = Vec::with_capacity(4096);
    socket.recv(&mut answer, 0)?;
    let frame = NetlinkBuffer::new_checked(answer.as_slice()).map_err(io::Error::other)?;
    if frame.message_type() != ERROR {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let code = answer.get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
    let code = code.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok((code != 0).then(|| Errno::from_raw_os_error(code.saturating_abs())))
}

/// A request for a state between two addresses of documentation, with a key of zeros: `struct nlmsghdr`, `struct
/// xfrm_usersa_info` and one attribute, `struct xfrm_algo_aead`.
fn request() -> Vec<u8> {
    const V4: u16 = 2;
    let mut state = vec![0_u8; 224];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(field) = state.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    put(40, &V4.to_ne_bytes()); // sel.family
    put(56, &[192, 0, 2, 2]); // id.daddr
    put(72, &256_u32.to_be_bytes()); // id.spi
    put(76, &[ESP]); // id.proto
    put(80, &[192, 0, 2, 1]); // saddr
    put(96, &[0xff; 32]); // lft: no limit of bytes and packets
    put(212, &V4.to_ne_bytes()); // family
    put(215, &[32]); // replay_window

    let mut cipher = vec![0_u8; 64 + 8 + 20];
    let name = b"rfc4106(gcm(aes))";
    cipher.splice(..name.len(), name.iter().copied());
    cipher.splice(64..68, 160_u32.to_ne_bytes()); // alg_key_len, bits: 128 of key, 32 of salt
    cipher.splice(68..72, 128_u32.to_ne_bytes()); // alg_icv_len, bits

    let word = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_ne_bytes();
    let length = 16 + state.len() + 4 + cipher.len();
    let mut request = u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes().to_vec();
    request.extend_from_slice(&NEW_STATE.to_ne_bytes());
    request.extend_from_slice(&FLAGS.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&state);
    request.extend_from_slice(&word(4 + cipher.len()));
    request.extend_from_slice(&ALG_AEAD.to_ne_bytes());
    request.extend_from_slice(&cipher);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_the_systems_own_tool() {
        let asked = esp_gcm_supported().unwrap();
        let scratch = Sandbox::anonymous().unwrap();
        let key = format!("0x{}", "00".repeat(20));
        let args = [
            "xfrm",
            "state",
            "add",
            "src",
            "192.0.2.1",
            "dst",
            "192.0.2.2",
            "proto",
            "esp",
            "spi",
            "256",
            "mode",
            "transport",
            "aead",
            "rfc4106(gcm(aes))",
            &key,
            "128",
        ];
        let tried = scratch.run(|| std::process::Command::new("ip").args(args).output()).unwrap().unwrap();
        assert_eq!(asked, tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
    }
}
