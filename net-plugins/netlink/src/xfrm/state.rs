//! One direction between two hosts.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_xfrm::state::{DelGetMessage, ModifyMessage};
use netlink_packet_xfrm::{
    Address, AlgAead, Id, ReplayEsn, UserSaId, UserSaInfo, XFRM_ALG_AEAD_NAME_LEN, XFRM_MODE_TRANSPORT,
    XFRM_STATE_ESN, XfrmAttrs, XfrmMessage,
};

use super::{ESP, REQUEST_ID};

/// AES-GCM as ESP uses it (RFC 4106), by the kernel's name.
const CIPHER: &[u8] = b"rfc4106(gcm(aes))";

/// Bits of the integrity check.
const ICV: u32 = 128;

/// Packets that may arrive out of order.
const WINDOW: u32 = 1024;

/// 16 bytes of AES key and 4 of salt, as the kernel takes them. It is never shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EspKey(pub [u8; 20]);

impl fmt::Debug for EspKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EspKey(..)")
    }
}

/// A state: packets from one address to the other, ESP in transport mode with AES-128-GCM, 128 bits of integrity check,
/// extended sequence numbers and a replay window of 1024 packets. It ends with no amount of bytes and at no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EspState {
    /// The sender.
    pub from: IpAddr,
    /// The receiver.
    pub to: IpAddr,
    /// By what the receiver tells it.
    pub spi: u32,
    /// The key.
    pub key: EspKey,
}

impl fmt::Display for EspState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x} from {} to {}", self.spi, self.from, self.to)
    }
}

/// `AF_INET` or `AF_INET6`.
pub(super) fn family(addr: IpAddr) -> u16 {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u16::try_from(family).unwrap_or(0)
}

/// The address, of a family that is written elsewhere.
pub(super) fn addr_of(addr: &Address, family: u16) -> IpAddr {
    if i32::from(family) == libc::AF_INET { addr.to_ipv4().into() } else { addr.to_ipv6().into() }
}

impl EspState {
    pub(super) fn add(&self) -> XfrmMessage {
        let mut user_sa_info = UserSaInfo {
            id: Id { daddr: Address::from_ip(&self.to), spi: self.spi, proto: ESP },
            saddr: Address::from_ip(&self.from),
            reqid: REQUEST_ID,
            family: family(self.to),
            mode: XFRM_MODE_TRANSPORT,
            flags: XFRM_STATE_ESN,
            ..UserSaInfo::default()
        };
        user_sa_info.selector.family = family(self.to);
        let mut alg_name = [0; XFRM_ALG_AEAD_NAME_LEN];
        alg_name.iter_mut().zip(CIPHER).for_each(|(to, from)| *to = *from);
        let EspKey(key) = self.key;
        let bits = u32::try_from(8 * key.len()).unwrap_or(0);
        let cipher = AlgAead { alg_name, alg_key_len: bits, alg_icv_len: ICV, alg_key: key.to_vec() };
        let words = WINDOW / 32;
        let replay = ReplayEsn {
            bmp_len: words,
            oseq: 0,
            seq: 0,
            oseq_hi: 0,
            seq_hi: 0,
            replay_window: WINDOW,
            bmp: vec![0; usize::try_from(words).unwrap_or(0)],
        };
        let nlas = vec![XfrmAttrs::EncryptionAlgAead(cipher), XfrmAttrs::ReplayStateEsn(replay)];
        XfrmMessage::AddSa(ModifyMessage { user_sa_info, nlas })
    }

    pub(super) fn del(&self) -> XfrmMessage {
        let user_sa_id = UserSaId {
            daddr: Address::from_ip(&self.to),
            spi: self.spi,
            family: family(self.to),
            proto: ESP,
        };
        XfrmMessage::DeleteSa(DelGetMessage { user_sa_id, nlas: Vec::new() })
    }

    /// The state that a listing has, if it is one of berth's. One with another cipher is not.
    pub(super) fn listed(message: &XfrmMessage) -> Option<Self> {
        let XfrmMessage::AddSa(ModifyMessage { user_sa_info: info, nlas }) = message else { return None };
        // Number 0 is the kernel's note that somebody waits for a state (`XFRM_STATE_ACQ`).
        if info.reqid != REQUEST_ID || info.id.proto != ESP || info.id.spi == 0 {
            return None;
        }
        let cipher = nlas.iter().find_map(|nla| match nla {
            XfrmAttrs::EncryptionAlgAead(cipher) => Some(cipher),
            _ => None,
        });
        // What is not laid as this version lays it is taken for one with another key.
        let is_ours = |cipher: &&AlgAead| cipher.alg_icv_len == ICV && cipher.alg_name.starts_with(CIPHER);
        let key = cipher.filter(is_ours).and_then(|cipher| cipher.alg_key.as_slice().try_into().ok());
        Some(Self {
            from: addr_of(&info.saddr, info.family),
            to: addr_of(&info.id.daddr, info.family),
            spi: info.id.spi,
            key: EspKey(key.unwrap_or_default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable as _, Parseable as _};

    use super::*;

    fn state(from: &str, to: &str) -> EspState {
        let mut key = [0; 20];
        key.iter_mut().zip(1..).for_each(|(byte, number)| *byte = number);
        EspState { from: from.parse().unwrap(), to: to.parse().unwrap(), spi: 0x4000_0101, key: EspKey(key) }
    }

    fn bytes(message: &XfrmMessage) -> Vec<u8> {
        let XfrmMessage::AddSa(message) = message else { panic!("a state to add") };
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    #[test]
    fn a_state_is_read_back_as_it_was_written() {
        for state in [state("192.0.2.1", "192.0.2.2"), state("2001:db8::1", "2001:db8::2")] {
            let read = ModifyMessage::parse(&bytes(&state.add())).unwrap();
            assert_eq!(EspState::listed(&XfrmMessage::AddSa(read)), Some(state));
        }
    }

    /// `struct xfrm_usersa_info` of linux/xfrm.h, field by field, and the two attributes after it.
    #[test]
    fn a_state_is_written_as_the_kernel_reads_it() {
        let bytes = bytes(&state("192.0.2.1", "192.0.2.2").add());
        assert_eq!(&bytes[40..42], &2_u16.to_ne_bytes(), "sel.family");
        assert_eq!(&bytes[56..60], &[192, 0, 2, 2], "id.daddr");
        assert_eq!(&bytes[72..77], &[0x40, 0, 1, 1, 50], "id.spi and id.proto");
        assert_eq!(&bytes[80..84], &[192, 0, 2, 1], "saddr");
        assert_eq!(&bytes[96..128], &[0xff; 32], "no limits");
        assert_eq!(&bytes[208..212], &REQUEST_ID.to_ne_bytes(), "reqid");
        assert_eq!(
            &bytes[212..217],
            &[2, 0, 0, 0, 0x80],
            "family, transport, no short window, XFRM_STATE_ESN"
        );
        let attrs = &bytes[224..];
        assert_eq!(&attrs[..4], &[96, 0, 18, 0], "XFRMA_ALG_AEAD");
        assert_eq!(&attrs[4..4 + CIPHER.len()], CIPHER);
        assert_eq!(&attrs[68..76], [160_u32.to_ne_bytes(), 128_u32.to_ne_bytes()].concat(), "bits");
        assert_eq!(&attrs[76..96], &state("192.0.2.1", "192.0.2.2").key.0);
        assert_eq!(&attrs[96..100], &[156, 0, 23, 0], "XFRMA_REPLAY_ESN_VAL");
        assert_eq!(&attrs[100..104], &32_u32.to_ne_bytes(), "words of its window");
        assert_eq!(&attrs[120..124], &1024_u32.to_ne_bytes(), "its window");
    }

    #[test]
    fn what_is_others_or_no_state_yet_is_not_listed() {
        let XfrmMessage::AddSa(ours) = state("192.0.2.1", "192.0.2.2").add() else {
            panic!("a state to add")
        };
        let listed = |change: fn(&mut ModifyMessage)| {
            let mut message = ours.clone();
            change(&mut message);
            EspState::listed(&XfrmMessage::AddSa(message))
        };
        assert!(listed(|_| ()).is_some());
        assert_eq!(listed(|message| message.user_sa_info.reqid = 1), None);
        assert_eq!(listed(|message| message.user_sa_info.id.spi = 0), None);
        assert_eq!(listed(|message| message.user_sa_info.id.proto = 51), None);
        assert_eq!(listed(|message| message.nlas.clear()).map(|state| state.key), Some(EspKey([0; 20])));
        assert_eq!(format!("{:?}", state("192.0.2.1", "192.0.2.2").key), "EspKey(..)");
    }
}
