//! Traffic control: what a link may send and receive per second.
//!
//! Sending is shaped by a token bucket (tbf) at the link's root. What arrives cannot be queued where it arrives, so
//! it is led through a functional block (ifb) that has a bucket of its own.

use berth_types::IfName;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_ECHO, NLM_F_REPLACE, Nla, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
    TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcHeader, TcMessage, TcMirror, TcMirrorActionType,
    TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use rustix::io::Errno;

use crate::error::NetlinkError;
use crate::link::present;
use crate::{Netlink, Sandbox};

/// How long a packet may wait in the bucket, as in the CNI bandwidth plugin: 25 ms, in microseconds.
const LATENCY_US: u128 = 25_000;

/// Nanoseconds in one tick of the packet scheduler (`PSCHED_SHIFT` 6 in net/pkt_sched.h).
const TICK_NS: u128 = 64;

/// linux/pkt_sched.h.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;

/// The first filter of the first table of a u32 classifier (`800::800` to `tc`). Naming it lets a second call change
/// the filter instead of adding another.
const FIRST_FILTER: u32 = 0x8000_0800;

/// `ETH_P_ALL`, in network order as the kernel wants it.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();

/// The token bucket at a link's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tbf {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may leave at once after a pause.
    pub burst: u32,
    /// Bytes that may wait.
    pub limit: u32,
}

impl Tbf {
    /// The bucket for `rate_bits` per second with bursts of `burst_bits`. None if either comes to no bytes.
    fn new(rate_bits: u64, burst_bits: u64) -> Option<Self> {
        let (rate, burst) = (rate_bits / 8, u32::try_from(burst_bits / 8).unwrap_or(u32::MAX));
        if rate == 0 || burst == 0 {
            return None;
        }
        let limit = u128::from(rate) * LATENCY_US / 1_000_000 + u128::from(burst);
        Some(Self { rate, burst, limit: u32::try_from(limit).unwrap_or(u32::MAX) })
    }

    /// The time to send a burst, in ticks: what the kernel's structure holds in place of bytes.
    fn buffer_ticks(self) -> u32 {
        let ticks = u128::from(self.burst) * 1_000_000_000 / u128::from(self.rate) / TICK_NS;
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    fn options(self) -> Vec<TcOption> {
        // struct tc_tbf_qopt: rate and peak rate (struct tc_ratespec, 12 bytes each), limit, buffer, mtu.
        let mut parms = [0; 36];
        let (rate, rest) = parms.split_at_mut(12);
        let (head, tail) = rate.split_at_mut(8);
        if let Some(layer) = head.get_mut(1) {
            *layer = TC_LINKLAYER_ETHERNET;
        }
        // A rate that does not fit is in the 64-bit attribute alone.
        tail.copy_from_slice(&u32::try_from(self.rate).unwrap_or(u32::MAX).to_ne_bytes());
        let (_peak, rest) = rest.split_at_mut(12);
        let (limit, rest) = rest.split_at_mut(4);
        limit.copy_from_slice(&self.limit.to_ne_bytes());
        let (buffer, _mtu) = rest.split_at_mut(4);
        buffer.copy_from_slice(&self.buffer_ticks().to_ne_bytes());
        [
            Some((TCA_TBF_PARMS, parms.to_vec())),
            u32::try_from(self.rate).is_err().then(|| (TCA_TBF_RATE64, self.rate.to_ne_bytes().to_vec())),
            // The ticks lose up to 64 ns worth of bytes; this is exact.
            Some((TCA_TBF_BURST, self.burst.to_ne_bytes().to_vec())),
        ]
        .into_iter()
        .flatten()
        .map(|(kind, value)| TcOption::Other(DefaultNla::new(kind, value)))
        .collect()
    }

    /// Reads the options of a tbf as the kernel gives them. It tells the burst only in ticks.
    fn read(options: &[u8]) -> Option<Self> {
        let (mut parms, mut rate64) = (None, None);
        for option in NlasIterator::new(options).flatten() {
            match option.kind() {
                TCA_TBF_PARMS => parms = <[u8; 36]>::try_from(option.value()).ok(),
                TCA_TBF_RATE64 => rate64 = <[u8; 8]>::try_from(option.value()).ok().map(u64::from_ne_bytes),
                _ => (),
            }
        }
        let parms = parms?;
        let word =
            |at: usize| parms.get(at..).and_then(|rest| rest.first_chunk()).map(|b| u32::from_ne_bytes(*b));
        let rate = rate64.unwrap_or(u64::from(word(8)?));
        let burst = u128::from(word(28)?) * TICK_NS * u128::from(rate) / 1_000_000_000;
        Some(Self { rate, burst: u32::try_from(burst).unwrap_or(u32::MAX), limit: word(24)? })
    }
}

impl Netlink {
    /// Lets the link with `index` send `rate_bits` per second, with bursts of `burst_bits`, in place of what its
    /// root queue was.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Invalid`] if either is less than one byte; [`NetlinkError::Unsupported`];
    /// [`NetlinkError::Kernel`].
    pub fn tbf_set(&self, index: u32, rate_bits: u64, burst_bits: u64) -> Result<(), NetlinkError> {
        const OPERATION: &str = "shape link";
        let object = format_args!("number {index}");
        let tbf = Tbf::new(rate_bits, burst_bits).ok_or_else(|| NetlinkError::Invalid {
            operation: OPERATION,
            object: object.to_string(),
            why: "rate and burst must be at least one byte",
        })?;
        let handle = TcHandle { major: 1, minor: 0 };
        let mut message = tc_message(index, handle, TcHandle::ROOT, "tbf");
        message.attributes.push(TcAttribute::Options(tbf.options()));
        self.request(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .map_err(|failure| lacking("token bucket queues", failure.on(OPERATION, object)))
    }

    /// The token bucket at the root of the link with `index`. None if its root queue is another one.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`].
    pub fn tbf_get(&self, index: u32) -> Result<Option<Tbf>, NetlinkError> {
        let message = TcMessage::from_parts(header(index, TcHandle::UNSPEC, TcHandle::ROOT), Vec::new());
        // The answer is a notification, which goes to whoever asked only on request (`qdisc_notify` in sch_api.c).
        let answers = match self.request(RouteNetlinkMessage::GetQueueDiscipline(message), NLM_F_ECHO) {
            Ok(answers) => answers,
            Err(failure) if failure.errno() == Some(Errno::NOENT) => return Ok(None),
            Err(failure) => return Err(failure.on("read queue of link", format_args!("number {index}"))),
        };
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(message) => tbf_of(&message),
            _ => None,
        }))
    }

    /// Removes the root queue of the link with `index`, so that it has the default one. False if it had that.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Kernel`].
    pub fn tbf_del(&self, index: u32) -> Result<bool, NetlinkError> {
        let message = TcMessage::from_parts(header(index, TcHandle::UNSPEC, TcHandle::ROOT), Vec::new());
        present(
            self.request(RouteNetlinkMessage::DelQueueDiscipline(message), 0),
            &[Errno::NOENT, Errno::NODEV],
        )
        .map_err(|failure| failure.on("delete queue of link", format_args!("number {index}")))
    }

    /// Leads all that arrives at the link with `index` through the functional block with `ifb_index`, in place of
    /// where it was led before.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Unsupported`]; [`NetlinkError::Kernel`].
    pub fn ingress_redirect(&self, index: u32, ifb_index: u32) -> Result<(), NetlinkError> {
        const OPERATION: &str = "redirect what arrives at link";
        let object = format_args!("number {index} to number {ifb_index}");
        let ingress = TcHandle { major: 0xffff, minor: 0 };
        let queue = tc_message(index, ingress, TcHandle::INGRESS, "ingress");
        present(self.request(RouteNetlinkMessage::NewQueueDiscipline(queue), NLM_F_CREATE), &[Errno::EXIST])
            .map_err(|failure| lacking("ingress queues", failure.on(OPERATION, object)))?;

        let mut filter = tc_message(index, TcHandle::from(FIRST_FILTER), ingress, TcFilterU32::KIND);
        filter.header.info = u32::from(TcHandle { major: 1, minor: ALL_PROTOCOLS });
        filter.attributes.push(TcAttribute::Options(redirect_options(ifb_index)));
        self.request(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE)
            .map(drop)
            .map_err(|failure| lacking("u32 filters with redirection", failure.on(OPERATION, object)))
    }
}

/// A queue, filter or action whose code is missing is "not found" to the kernel.
fn lacking(feature: &'static str, err: NetlinkError) -> NetlinkError {
    match err.errno() {
        Some(Errno::NOENT | Errno::OPNOTSUPP) => NetlinkError::Unsupported { feature },
        _ => err,
    }
}

fn header(index: u32, handle: TcHandle, parent: TcHandle) -> TcHeader {
    TcHeader { index: index.cast_signed(), handle, parent, ..TcHeader::default() }
}

fn tc_message(index: u32, handle: TcHandle, parent: TcHandle, kind: &str) -> TcMessage {
    TcMessage::from_parts(header(index, handle, parent), vec![TcAttribute::Kind(kind.to_owned())])
}

/// Matches every packet and sends it out of `ifb_index`.
fn redirect_options(ifb_index: u32) -> Vec<TcOption> {
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = ifb_index;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    // One key of no bits: true of any packet.
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    vec![
        TcOption::U32(TcFilterU32Option::Selector(selector)),
        TcOption::U32(TcFilterU32Option::Action(vec![action])),
    ]
}

fn tbf_of(message: &TcMessage) -> Option<Tbf> {
    let is_tbf = message.attributes.iter().any(|a| matches!(a, TcAttribute::Kind(kind) if kind == "tbf"));
    message.attributes.iter().filter(|_| is_tbf).find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Other(nla) => {
                let mut options = vec![0; nla.value_len()];
                nla.emit_value(&mut options);
                Tbf::read(&options)
            }
            _ => None,
        }),
        _ => None,
    })
}

/// Whether this kernel can shape what a link sends and receives. It is tried, in a namespace of its own that goes
/// with it.
///
/// # Errors
///
/// What keeps it from being tried.
pub fn traffic_shaping_supported() -> Result<bool, NetlinkError> {
    let scratch = Sandbox::anonymous()?;
    let netlink = Netlink::open_in(&scratch)?;
    let name = |text| IfName::new(text).expect("six letters are an interface name");
    let attempt = || {
        let link = netlink.ifb_add(&name("probe0"), None, None)?;
        let block = netlink.ifb_add(&name("probe1"), None, None)?;
        netlink.tbf_set(block.index, 1_000_000, 100_000)?;
        netlink.ingress_redirect(link.index, block.index)
    };
    match attempt() {
        Ok(()) => Ok(true),
        Err(err) if err.is_unsupported() => Ok(false),
        Err(err) => Err(err),
    }
}
