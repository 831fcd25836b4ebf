//! What can go wrong, with the operation and the object it was about.

use std::fmt;
use std::io;

use berth_types::{IfName, Vni};
use rustix::io::Errno;

use crate::SandboxError;
use crate::link::Holder;

/// The kernel's answer to a request it did not carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// The kernel's own words (`NLMSGERR_ATTR_MSG`), where it gave any.
    pub message: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.errno),
            None => write!(f, "{}", self.errno),
        }
    }
}

impl std::error::Error for Refusal {}

/// Which end of a veth pair a name was meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The namespace the request was made in.
    Host,
    /// The sandbox the peer goes to.
    Sandbox,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Host => "on the host",
            Self::Sandbox => "in the sandbox",
        })
    }
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused it.
    #[error("{operation} {object}")]
    Kernel {
        /// What was to be done, for instance `create bridge`.
        operation: &'static str,
        /// What it was to be done to.
        object: String,
        /// The kernel's answer.
        #[source]
        source: Refusal,
    },
    /// An interface of this name exists already.
    #[error("interface name `{name}` is taken {side}")]
    NameTaken {
        /// The name.
        name: IfName,
        /// Where it is taken.
        side: Side,
    },
    /// A VXLAN device has this VNI on this UDP port.
    #[error(
        "VNI {vni} on UDP port {port} is taken by {holder}\n\
         give the network another VNI or port, or remove that device"
    )]
    VniTaken {
        /// The network's number on the wire.
        vni: Vni,
        /// The UDP port.
        port: u16,
        /// Who has them.
        holder: Holder,
    },
    /// A VXLAN device cannot be set up: its UDP port is in use.
    #[error(
        "UDP port {port} of VXLAN device `{name}` is in use by {holder}\n\
         stop it, or give the cluster another VXLAN port"
    )]
    UdpPortTaken {
        /// The device.
        name: IfName,
        /// The UDP port.
        port: u16,
        /// Who has it.
        holder: Holder,
    },
    /// A bridge takes no more ports.
    #[error(
        "bridge {bridge} is full: it has 1023 ports, and the kernel gives a bridge no more\n\
         put further containers on another network"
    )]
    BridgeFull {
        /// The bridge, by name where it has one.
        bridge: String,
    },
    /// The kernel was built without something that the request needs.
    #[error("{feature}: not supported by this kernel")]
    Unsupported {
        /// What is missing.
        feature: &'static str,
    },
    /// The request makes no sense; it was not sent.
    #[error("{operation} {object}: {why}")]
    Invalid {
        /// What was to be done.
        operation: &'static str,
        /// What it was to be done to.
        object: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A list changed while it was read, as often as it was read.
    #[error("{operation}: the list changed while it was read, {attempts} times in a row")]
    Interrupted {
        /// Which list.
        operation: &'static str,
        /// How often it was tried.
        attempts: u32,
    },
    /// The kernel's answer is not understood.
    #[error("{operation} {object}: unexpected answer: {why}")]
    Answer {
        /// What was to be done.
        operation: &'static str,
        /// What it was to be done to.
        object: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The netlink socket failed.
    #[error("{operation} netlink socket")]
    Socket {
        /// `open`, `write to`, `read from` or `watch`.
        operation: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The sandbox could not be entered.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl NetlinkError {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { source, .. } => Some(source.errno),
            Self::Socket { source, .. } => Errno::from_io_error(source),
            Self::Sandbox(err) => err.errno(),
            Self::NameTaken { .. } | Self::VniTaken { .. } => Some(Errno::EXIST),
            Self::UdpPortTaken { .. } => Some(Errno::ADDRINUSE),
            Self::BridgeFull { .. } => Some(Errno::XFULL),
            Self::Unsupported { .. } => Some(Errno::OPNOTSUPP),
            Self::Invalid { .. } => Some(Errno::INVAL),
            Self::Interrupted { .. } => Some(Errno::INTR),
            Self::Answer { .. } => None,
        }
    }

    /// Whether the object is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }

    /// Whether the object, or the link or sandbox it belongs to, is not there.
    pub fn is_absent(&self) -> bool {
        const ABSENT: [Errno; 5] =
            [Errno::NODEV, Errno::NOENT, Errno::SRCH, Errno::ADDRNOTAVAIL, Errno::NXIO];
        self.errno().is_some_and(|errno| ABSENT.contains(&errno))
    }

    /// Whether the object is in use by someone else.
    pub fn is_busy(&self) -> bool {
        self.errno() == Some(Errno::BUSY)
    }

    /// Whether the kernel lacks what the request needs: a driver, an address family, an attribute.
    pub fn is_unsupported(&self) -> bool {
        const UNSUPPORTED: [Errno; 3] = [Errno::OPNOTSUPP, Errno::AFNOSUPPORT, Errno::PROTONOSUPPORT];
        self.errno().is_some_and(|errno| UNSUPPORTED.contains(&errno))
    }

    /// Whether the caller lacks the capability (`CAP_NET_ADMIN`, or `CAP_SYS_ADMIN` for entering a sandbox).
    pub fn is_forbidden(&self) -> bool {
        self.errno().is_some_and(|errno| errno == Errno::PERM || errno == Errno::ACCESS)
    }
}

/// A failure that does not know yet what it was about.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel refused.
    Refused(Refusal),
    /// The connection ended before the kernel acknowledged.
    Closed,
}

impl Failure {
    /// The kernel's error number.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(refusal) => Some(refusal.errno),
            Self::Closed => None,
        }
    }

    /// Says what was being done, and to what.
    pub(crate) fn on(self, operation: &'static str, object: impl fmt::Display) -> NetlinkError {
        match self {
            Self::Refused(source) => NetlinkError::Kernel { operation, object: object.to_string(), source },
            Self::Closed => NetlinkError::Answer {
                operation,
                object: object.to_string(),
                why: "the connection ended before an acknowledgement".to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(errno: Errno) -> NetlinkError {
        Failure::Refused(Refusal { errno, message: None }).on("create bridge", "`cni0`")
    }

    #[test]
    fn kinds_are_told_by_the_error_number() {
        assert!(kernel(Errno::EXIST).is_exists());
        assert!(kernel(Errno::NODEV).is_absent() && kernel(Errno::SRCH).is_absent());
        assert!(kernel(Errno::BUSY).is_busy());
        assert!(kernel(Errno::OPNOTSUPP).is_unsupported());
        assert!(kernel(Errno::PERM).is_forbidden());
        assert!(!kernel(Errno::INVAL).is_exists() && !kernel(Errno::INVAL).is_absent());
    }

    #[test]
    fn text_names_the_object_and_leaves_the_cause_to_the_source() {
        let err = kernel(Errno::EXIST);
        assert_eq!(err.to_string(), "create bridge `cni0`");
        let source = std::error::Error::source(&err).map(ToString::to_string).unwrap_or_default();
        assert!(source.starts_with("File exists"), "{source}");
    }
}
