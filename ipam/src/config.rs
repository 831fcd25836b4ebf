//! The configuration of a network's pools: host-local's keys, and berth's own beside them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_types::{Family, Route};
use serde_json::{Map, Value};

use crate::json::{addr, array, cidr, field, list, object, parse_addr, parse_cidr, text, wrong_type};
use crate::range::RawRange;
use crate::{ConfigError, RangeSet, Span};

/// How long a freed address rests where others can be given: longer than neighbours keep it in their caches
/// (`gc_stale_time` in the kernel's neighbour tables, 60 s).
pub const DEFAULT_QUARANTINE: Duration = Duration::from_secs(60);

/// The pools of a network: an attachment gets one address of each set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// The range sets. Never none, and no two share an address.
    pub sets: Vec<RangeSet>,
    /// Routes for the result, as configured.
    pub routes: Vec<Route>,
    /// A file for the result's `dns`; read it with [`crate::read_resolv_conf`] when an address is given.
    pub resolv_conf: Option<PathBuf>,
    /// host-local's `dataDir`. berth keeps no files there; it sets networks of one name apart, as it does there.
    pub data_dir: Option<PathBuf>,
    /// Addresses that are given to whoever asks for them, and not to others (berth's key `reserved`).
    pub reserved: Vec<Span>,
    /// Addresses that are never given (berth's key `exclude`).
    pub exclude: Vec<Span>,
    /// How long a freed address rests while others can be given (berth's key `quarantine`, seconds).
    pub quarantine: Duration,
    /// Whether a container gets the address again that its name had before (berth's key `sticky`). The caller then
    /// gives the name in [`crate::Request::sticky`].
    pub sticky: bool,
}

impl PoolConfig {
    /// Parses the `ipam` object. `ip_ranges` is the capability `runtimeConfig.ipRanges`, whose sets come first; then
    /// comes the top-level `subnet` of old configurations, then `ranges`.
    pub fn parse(ipam: &Value, ip_ranges: Option<&Value>) -> Result<Self, ConfigError> {
        let ipam = object(ipam, "ipam")?;
        let mut sets = Vec::new();
        if let Some(value) = ip_ranges {
            sets.extend(raw_sets(value, "runtimeConfig.ipRanges")?);
        }
        let top_level = raw_range(ipam, "ipam")?;
        if top_level.subnet.is_some() {
            sets.push(vec![top_level]);
        }
        if let Some(value) = field(ipam, "ranges") {
            sets.extend(raw_sets(value, "ipam.ranges")?);
        }
        Ok(Self {
            sets: checked_sets(&sets)?,
            routes: routes(ipam)?,
            resolv_conf: text(ipam, "ipam", "resolvConf")?.map(PathBuf::from),
            data_dir: text(ipam, "ipam", "dataDir")?.map(PathBuf::from),
            reserved: spans(ipam, "reserved")?,
            exclude: spans(ipam, "exclude")?,
            quarantine: quarantine(ipam)?,
            sticky: boolean(ipam, "sticky")?,
        })
    }

    /// How many addresses of `family` an attachment gets. CNI before 0.3.0 cannot say more than one.
    pub fn addresses_of(&self, family: Family) -> usize {
        self.sets.iter().filter(|set| set.family() == family).count()
    }

    pub(crate) fn is_reserved(&self, address: IpAddr) -> bool {
        self.reserved.iter().any(|span| span.contains(address))
    }

    pub(crate) fn is_excluded(&self, address: IpAddr) -> bool {
        self.exclude.iter().any(|span| span.contains(address))
    }
}

/// An address that a runtime asks for: CNI_ARGS `IP`, `args.cni.ips`, `runtimeConfig.ips`. A prefix length may follow
/// and says nothing: the length is the subnet's.
pub fn parse_requested(text: &str) -> Result<IpAddr, ConfigError> {
    let path = "the requested address";
    if text.contains('/') {
        let network = parse_cidr(text);
        let network = network
            .ok_or_else(|| ConfigError::Cidr { text: crate::json::shortened(text), path: path.into() })?;
        return Ok(network.ip().to_canonical());
    }
    parse_addr(text, path)
}

fn raw_sets(value: &Value, path: &str) -> Result<Vec<Vec<RawRange>>, ConfigError> {
    let set = |(index, value): (usize, &Value)| {
        let path = format!("{path}[{index}]");
        let range = |(index, value): (usize, &Value)| {
            let path = format!("{path}[{index}]");
            raw_range(object(value, &path)?, &path)
        };
        array(value, &path)?.iter().enumerate().map(range).collect()
    };
    array(value, path)?.iter().enumerate().map(set).collect()
}

fn raw_range(range: &Map<String, Value>, path: &str) -> Result<RawRange, ConfigError> {
    Ok(RawRange {
        subnet: cidr(range, path, "subnet")?,
        start: addr(range, path, "rangeStart")?,
        end: addr(range, path, "rangeEnd")?,
        gateway: addr(range, path, "gateway")?,
    })
}

fn checked_sets(raw: &[Vec<RawRange>]) -> Result<Vec<RangeSet>, ConfigError> {
    if raw.is_empty() {
        return Err(ConfigError::NoRanges);
    }
    let checked = |(index, set): (usize, &Vec<RawRange>)| {
        RangeSet::new(set).map_err(|reason| ConfigError::RangeSet { index, reason })
    };
    let sets = raw.iter().enumerate().map(checked).collect::<Result<Vec<_>, _>>()?;
    for (one, set) in sets.iter().enumerate() {
        let overlap = sets.iter().enumerate().skip(one + 1).find(|(_, other)| set.overlaps(other));
        if let Some((other, _)) = overlap {
            return Err(ConfigError::SetsOverlap { one, other });
        }
    }
    Ok(sets)
}

fn routes(ipam: &Map<String, Value>) -> Result<Vec<Route>, ConfigError> {
    let route = |(index, value): (usize, &Value)| {
        let path = format!("ipam.routes[{index}]");
        let fields = object(value, &path)?;
        let dst = cidr(fields, &path, "dst")?
            .ok_or_else(|| wrong_type(&format!("{path}.dst"), "a prefix", &Value::Null))?;
        Ok(Route {
            dst,
            gw: addr(fields, &path, "gw")?,
            mtu: number(fields, &path, "mtu")?.unwrap_or(0),
            advmss: number(fields, &path, "advmss")?.unwrap_or(0),
            priority: number(fields, &path, "priority")?.unwrap_or(0),
            table: number(fields, &path, "table")?,
            scope: number(fields, &path, "scope")?,
        })
    };
    list(ipam, "ipam", "routes")?.iter().enumerate().map(route).collect()
}

fn number<T: TryFrom<u64>>(
    fields: &Map<String, Value>,
    path: &str,
    name: &str,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = field(fields, name) else { return Ok(None) };
    let number = value.as_u64().and_then(|number| T::try_from(number).ok());
    number
        .map(Some)
        .ok_or_else(|| wrong_type(&format!("{path}.{name}"), "a whole number in its bounds", value))
}

fn spans(ipam: &Map<String, Value>, name: &str) -> Result<Vec<Span>, ConfigError> {
    let span = |(index, value): (usize, &Value)| {
        let path = format!("ipam.{name}[{index}]");
        let text = value.as_str().ok_or_else(|| wrong_type(&path, "a text", value))?;
        text.parse().map_err(|source| ConfigError::Span { path, source })
    };
    list(ipam, "ipam", name)?.iter().enumerate().map(span).collect()
}

fn quarantine(ipam: &Map<String, Value>) -> Result<Duration, ConfigError> {
    let seconds: Option<u32> = number(ipam, "ipam", "quarantine")?;
    Ok(seconds.map_or(DEFAULT_QUARANTINE, |seconds| Duration::from_secs(seconds.into())))
}

fn boolean(ipam: &Map<String, Value>, name: &str) -> Result<bool, ConfigError> {
    match field(ipam, name) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(wrong_type(&format!("ipam.{name}"), "true or false", other)),
    }
}
