//! The configuration of `rbridge`: every key of the reference `bridge` in the reference's meaning, and berth's own.

use berth_core::attachment::{Bandwidth, ContainerLink, DuplicateDetection};
use berth_core::names::MemberNames;
use berth_core::network::{NetworkSpec, OtherAddress, Reach, Vlan};
use berth_core::request::PortRequest;
use berth_types::{IfName, MacAddr};
use serde::Deserialize;

use super::names::{self, EMBEDDED_DNS};
use crate::protocol::keys::Kind::{Leaf, List, Object};
use crate::protocol::{CniArgs, CniError, Code, NetConf, PortMapping, Shape};

/// The plugin's own keys.
pub(crate) static KEYS: Shape = Shape(&[
    ("bridge", Leaf),
    ("isGateway", Leaf),
    ("isDefaultGateway", Leaf),
    ("forceAddress", Leaf),
    ("ipMasqBackend", Leaf),
    ("mtu", Leaf),
    ("hairpinMode", Leaf),
    ("promiscMode", Leaf),
    ("vlan", Leaf),
    ("vlanTrunk", List(&TRUNK)),
    ("preserveDefaultVlan", Leaf),
    ("macspoofchk", Leaf),
    ("enabledad", Leaf),
    ("disableContainerInterface", Leaf),
    ("portIsolation", Leaf),
    // berth's own.
    ("isolation", Leaf),
    ("icc", Leaf),
    ("internal", Leaf),
    ("antiSpoofing", Leaf),
    ("embeddedDNS", Object(&EMBEDDED_DNS)),
    ("stateDir", Leaf),
    ("runDir", Leaf),
]);

static TRUNK: Shape = Shape(&[("id", Leaf), ("minID", Leaf), ("maxID", Leaf)]);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    bridge: Option<String>,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    mtu: u32,
    hairpin_mode: bool,
    promisc_mode: bool,
    vlan: u16,
    vlan_trunk: Vec<Trunk>,
    preserve_default_vlan: bool,
    enabledad: bool,
    disable_container_interface: bool,
    port_isolation: bool,
    isolation: bool,
    icc: bool,
    internal: bool,
    anti_spoofing: bool,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            bridge: None,
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            mtu: 0,
            hairpin_mode: false,
            promisc_mode: false,
            vlan: 0,
            vlan_trunk: Vec::new(),
            preserve_default_vlan: false,
            enabledad: false,
            disable_container_interface: false,
            port_isolation: false,
            isolation: true,
            icc: true,
            internal: false,
            anti_spoofing: true,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Trunk {
    id: Option<u16>,
    #[serde(rename = "minID")]
    min: Option<u16>,
    #[serde(rename = "maxID")]
    max: Option<u16>,
}

/// The configuration of one attachment, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeConfig {
    pub(crate) network: NetworkSpec,
    pub(crate) default_route: bool,
    pub(crate) hairpin: bool,
    pub(crate) port_isolation: bool,
    pub(crate) anti_spoofing: bool,
    pub(crate) container_link: ContainerLink,
    pub(crate) duplicate_detection: DuplicateDetection,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) ports: Vec<PortRequest>,
    pub(crate) bandwidth: Option<Bandwidth>,
    pub(crate) names: Option<MemberNames>,
}

/// Reads and checks the configuration, before anything is touched.
pub(crate) fn parse(conf: &NetConf, args: &CniArgs) -> Result<BridgeConfig, CniError> {
    let wire: Wire = conf.plugin_config()?;
    let refused = |msg: &str| Err(CniError::new(Code::InvalidConfig, msg));
    if wire.hairpin_mode && wire.promisc_mode {
        return refused("cannot set hairpin mode and promiscuous mode at the same time");
    }
    if wire.disable_container_interface && conf.ipam_type().is_some() {
        return refused("cannot use IPAM when DisableContainerInterface flag is set");
    }
    let network = network(&wire, conf)?;
    Ok(BridgeConfig {
        default_route: wire.is_default_gateway,
        hairpin: wire.hairpin_mode,
        port_isolation: wire.port_isolation,
        anti_spoofing: wire.anti_spoofing,
        container_link: if wire.disable_container_interface {
            ContainerLink::Down
        } else {
            ContainerLink::Up
        },
        duplicate_detection: if wire.enabledad { DuplicateDetection::On } else { DuplicateDetection::Off },
        mac: mac(conf, args)?,
        ports: conf.runtime.port_mappings.iter().map(port_request).collect(),
        bandwidth: bandwidth(conf)?,
        names: if network.names.is_some() { Some(names::member(conf, args)?) } else { None },
        network,
    })
}

fn network(wire: &Wire, conf: &NetConf) -> Result<NetworkSpec, CniError> {
    let bridge = wire.bridge.as_deref().filter(|name| !name.is_empty()).unwrap_or("cni0");
    let bridge = IfName::new(bridge)
        .map_err(|err| CniError::new(Code::InvalidConfig, format!("invalid `bridge`: {err}")))?;
    if wire.mtu != 0 && !(68..=65_535).contains(&wire.mtu) {
        return Err(CniError::new(
            Code::InvalidConfig,
            format!("invalid `mtu` {}: 68 to 65535, or 0", wire.mtu),
        ));
    }
    let names = names::embedded(conf)?;
    let gateway = wire.is_gateway || wire.is_default_gateway;
    if names.is_some() && !gateway {
        return Err(CniError::new(
            Code::InvalidConfig,
            "`embeddedDNS` needs `isGateway`: names are asked for at the gateway",
        ));
    }
    Ok(NetworkSpec {
        name: conf.name.clone(),
        bridge,
        mtu: (wire.mtu != 0).then_some(wire.mtu),
        gateway,
        other_address: if wire.force_address { OtherAddress::Replace } else { OtherAddress::Refuse },
        promisc: wire.promisc_mode,
        reach: Reach {
            masquerade: conf.ip_masq,
            between_containers: wire.icc,
            isolated: wire.isolation,
            internal: wire.internal,
        },
        vlan: vlan(wire)?,
        names,
        overlay: None,
    })
}

fn vlan(wire: &Wire) -> Result<Option<Vlan>, CniError> {
    let id = |what: &str, id: u16| match id {
        1..=4094 => Ok(id),
        _ => Err(CniError::new(
            Code::InvalidConfig,
            format!("invalid VLAN ID {id} (must be between 1 and 4094 for {what})"),
        )),
    };
    if wire.vlan == 0 && wire.vlan_trunk.is_empty() {
        return Ok(None);
    }
    let trunk = wire.vlan_trunk.iter().map(|trunk| match (trunk.id, trunk.min, trunk.max) {
        (Some(one), None, None) => Ok((id("vlanTrunk id", one)?, one)),
        (None, Some(min), Some(max)) if min <= max => Ok((id("minID", min)?, id("maxID", max)?)),
        (None, Some(_), Some(_)) => {
            Err(CniError::new(Code::InvalidConfig, "minID is greater than maxID in vlanTrunk"))
        }
        _ => Err(CniError::new(Code::InvalidConfig, "vlanTrunk takes `id`, or `minID` with `maxID`")),
    });
    Ok(Some(Vlan {
        pvid: if wire.vlan == 0 { None } else { Some(id("vlan", wire.vlan)?) },
        trunk: trunk.collect::<Result<_, _>>()?,
        keep_default: wire.preserve_default_vlan,
    }))
}

/// `runtimeConfig` before `args.cni` before `CNI_ARGS`.
pub(super) fn mac(conf: &NetConf, args: &CniArgs) -> Result<Option<MacAddr>, CniError> {
    let wrong = |why: String| CniError::new(Code::InvalidEnvironment, why);
    let from_env = args.get("MAC").filter(|text| !text.is_empty());
    let from_env =
        from_env.map(|text| text.parse::<MacAddr>().map_err(|err| wrong(err.to_string()))).transpose()?;
    let mac = conf.runtime.mac.or(conf.args.mac).or(from_env);
    match mac {
        Some(mac) if !mac.is_assignable() => {
            Err(wrong(format!("MAC address {mac} cannot be an interface's")))
        }
        other => Ok(other),
    }
}

pub(crate) fn port_request(mapping: &PortMapping) -> PortRequest {
    let PortMapping { proto, host_addr, host_port, container_port } = *mapping;
    PortRequest { proto, host_addr, host_port, container_port, count: 1 }
}

pub(super) fn bandwidth(conf: &NetConf) -> Result<Option<Bandwidth>, CniError> {
    let Some(limits) = conf.runtime.bandwidth else { return Ok(None) };
    let pair = |what: &str, rate: u64, burst: u64| match (rate, burst) {
        (0, 0) => Ok(None),
        (0, _) | (_, 0) => Err(CniError::new(
            Code::InvalidConfig,
            format!("{what}Rate and {what}Burst must both be set, or neither"),
        )),
        (_, burst) if burst / 8 >= u64::from(u32::MAX) => {
            Err(CniError::new(Code::InvalidConfig, format!("{what}Burst must be less than 4 GB")))
        }
        (rate, burst) => Ok(Some((rate, burst))),
    };
    let ingress = pair("ingress", limits.ingress_rate, limits.ingress_burst)?;
    let egress = pair("egress", limits.egress_rate, limits.egress_burst)?;
    Ok((ingress.is_some() || egress.is_some()).then_some(Bandwidth { ingress, egress }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::Reading;

    fn read(value: &serde_json::Value) -> Result<BridgeConfig, CniError> {
        let mut whole = value.clone();
        whole["name"] = json!("n0");
        whole["cniVersion"] = json!("1.0.0");
        let conf = NetConf::from_json(whole.to_string().as_bytes(), &KEYS, Reading::Strict)?;
        parse(&conf, &CniArgs::parse("", &[])?)
    }

    #[test]
    fn nothing_said_is_the_references_defaults_and_berths_strictness() {
        let config = read(&json!({})).unwrap();
        assert_eq!(config.network.bridge.as_str(), "cni0");
        assert!(!config.network.gateway && !config.network.reach.masquerade && !config.hairpin);
        assert!(
            config.network.reach.isolated && config.anti_spoofing && config.network.reach.between_containers
        );
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        for (value, words) in [
            (
                json!({"hairpinMode": true, "promiscMode": true}),
                "cannot set hairpin mode and promiscuous mode",
            ),
            (json!({"disableContainerInterface": true, "ipam": {"type": "x"}}), "cannot use IPAM when"),
            (json!({"vlan": 4095}), "invalid VLAN ID 4095"),
            (json!({"vlanTrunk": [{"minID": 9, "maxID": 3}]}), "minID is greater than maxID"),
            (json!({"bridge": "a/b"}), "invalid `bridge`"),
            (json!({"mtu": 5}), "invalid `mtu` 5"),
            (json!({"runtimeConfig": {"bandwidth": {"ingressRate": 5}}}), "ingressRate and ingressBurst"),
        ] {
            let err = read(&value).unwrap_err();
            assert!(err.msg.contains(words), "{value}: {}", err.msg);
        }
    }

    #[test]
    fn the_runtimes_mac_wins_over_the_configurations() {
        let value = json!({"args": {"cni": {"mac": "02:00:00:00:00:01"}}, "runtimeConfig": {"mac": "02:00:00:00:00:02"}});
        assert_eq!(read(&value).unwrap().mac.unwrap().to_string(), "02:00:00:00:00:02");
    }
}
